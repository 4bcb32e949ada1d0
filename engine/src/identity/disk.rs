//! The file that makes the next process a member at once: certificate, key and whom to trust, in `server.state_dir`. One
//! line with a checksum, then one JSON object. It is replaced whole, nobody else may read it, and what is damaged is
//! named, put aside and not used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tollgate_config::identity::Trust;
use xxhash_rust::xxh3::xxh3_64;

use crate::kept;
use crate::net::tls::{Own, Trusted};
use crate::telemetry::log;

const MAGIC: &str = "tollgate identity 1";
/// More than a trust with as many revoked numbers as there may be, and a chain.
const LARGEST: u64 = 16 << 20;

#[derive(Debug, Clone)]
pub(super) struct Disk {
    file: PathBuf,
    /// The key that a join token was shown with, until there is a certificate.
    joining: PathBuf,
}

/// A certificate, its key and whom to trust: as text, and as handshakes use it.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) chain: Arc<str>,
    pub(super) key: Arc<str>,
    pub(super) trust: Trust,
    /// What the join token was hashed to that brought it, or the one before it: no second one can be had for it.
    pub(super) joined_with: Option<u64>,
    pub(super) own: Arc<Own>,
    pub(super) trusted: Arc<Trusted>,
}

/// Why the file is of no use.
#[derive(Debug)]
pub(super) enum Unusable {
    Unreadable(io::Error),
    Damaged(String),
}

/// What stands in the file.
#[derive(Serialize, Deserialize)]
struct Content {
    certificate: String,
    key: String,
    trust: Trust,
    #[serde(default)]
    joined_with: Option<u64>,
}

impl Kept {
    pub(super) fn new(chain: &str, key: &str, trust: Trust) -> Result<Kept, String> {
        Ok(Kept {
            own: Arc::new(Own::new(chain.as_bytes(), key.as_bytes())?),
            trusted: Arc::new(Trusted::new(&trust)?),
            chain: chain.into(),
            key: key.into(),
            trust,
            joined_with: None,
        })
    }

    /// The file's bytes.
    pub(super) fn written(&self) -> Vec<u8> {
        let content = Content {
            certificate: self.chain.to_string(),
            key: self.key.to_string(),
            trust: self.trust.clone(),
            joined_with: self.joined_with,
        };
        let body = serde_json::to_string(&content).unwrap_or_default();
        let sum = xxh3_64(body.as_bytes());
        format!("{MAGIC} {sum:016x} {}\n{body}", body.len()).into_bytes()
    }
}

impl Disk {
    pub(super) fn new(state_dir: &Path) -> Disk {
        Disk {
            file: state_dir.join("identity"),
            joining: state_dir.join("identity.joining"),
        }
    }

    /// `None`: there is none, or none that can be used.
    pub(super) fn read(&self) -> Option<Kept> {
        let told = |what: &str, why: &str| {
            let file = self.file.display();
            log::error(what, &[("file", &file), ("why", &why)]);
        };
        match self.look() {
            Ok(found) => found,
            Err(Unusable::Unreadable(error)) => {
                told(
                    "the certificate of the mesh that was kept cannot be read",
                    &error.to_string(),
                );
                None
            }
            Err(Unusable::Damaged(why)) => {
                let aside = kept::put_aside(&self.file);
                told(
                    "the certificate of the mesh that was kept is damaged and was put aside; a new one is asked for",
                    &format!("{why}: {aside}"),
                );
                None
            }
        }
    }

    /// The same, and the file stays where it is whatever is in it.
    pub(super) fn look(&self) -> Result<Option<Kept>, Unusable> {
        match fs::metadata(&self.file) {
            Ok(about) if about.len() > LARGEST => {
                Err(Unusable::Damaged("it is too large".to_owned()))
            }
            Ok(_) => {
                let bytes = fs::read(&self.file).map_err(Unusable::Unreadable)?;
                parse(&bytes).map(Some).map_err(Unusable::Damaged)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Unusable::Unreadable(error)),
        }
    }

    /// The key that a join token was shown with, of this process or of one that did not live to see the answer: whoever
    /// has it may ask once more.
    pub(super) fn joining_key(&self) -> Option<String> {
        fs::read_to_string(&self.joining).ok()
    }

    /// Blocks.
    pub(super) fn keep_joining_key(&self, key: &str) -> io::Result<()> {
        if let Some(folder) = self.joining.parent() {
            fs::create_dir_all(folder)?;
        }
        kept::replace(&self.joining, key.as_bytes())
    }

    /// There is a certificate, and it is on the disk.
    fn forget_joining_key(&self) {
        let _there_may_be_none = fs::remove_file(&self.joining);
    }

    /// Blocks.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        kept::replace(&self.file, bytes)?;
        self.forget_joining_key();
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Result<Kept, String> {
    let end = memchr::memchr(b'\n', bytes).ok_or("it has no first line")?;
    let (head, body) = bytes.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| "its first line is no text")?;
    let head = { head.strip_prefix(MAGIC) }.ok_or("its first line is not ours")?;
    let (sum, length) = head.trim().split_once(' ').ok_or("its first line is cut")?;
    if length.parse() != Ok(body.len()) {
        return Err(format!("it has {} bytes instead of {length}", body.len()));
    }
    if u64::from_str_radix(sum, 16) != Ok(xxh3_64(body)) {
        return Err("its checksum is another".to_owned());
    }
    // Its words could show a part of the key.
    let content: Content = serde_json::from_slice(body).map_err(|_| "it is no JSON of ours")?;
    let kept = Kept::new(&content.certificate, &content.key, content.trust)?;
    Ok(Kept {
        joined_with: content.joined_with,
        ..kept
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::testing::members::Members;

    #[test]
    fn what_was_kept_is_read_again_and_nobody_else_may_mesh_307() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(&folder.path().join("new"));
        assert!(disk.read().is_none(), "nothing yet");
        let members = Members::new();
        let pair = members.issue("orders");
        let kept = Kept::new(&pair.cert_pem, &pair.key_pem, members.trust(7, &["1f"]));
        let kept = kept.expect("a member");
        disk.write(&kept.written()).expect("it can be written");
        let read = disk.read().expect("as written");
        assert_eq!(read.own.facts, kept.own.facts);
        assert_eq!(read.trust, kept.trust);
        let about = fs::metadata(&disk.file).expect("there");
        assert_eq!(about.mode() & 0o777, 0o600);
        let left = super::super::left(&folder.path().join("new"));
        let left = left.expect("readable").expect("there");
        assert_eq!(left.own.facts, kept.own.facts);
    }

    #[test]
    fn a_damaged_file_is_put_aside_wherever_it_is_damaged() {
        let members = Members::new();
        let pair = members.issue("orders");
        let kept = Kept::new(&pair.cert_pem, &pair.key_pem, members.trust(1, &[]));
        let bytes = kept.expect("a member").written();
        assert!(parse(&bytes).is_ok());
        for at in (0..bytes.len()).step_by(41).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(parse(&damaged).is_err(), "byte {at}");
            assert!(parse(&bytes[..at]).is_err(), "cut at {at}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(folder.path());
        fs::write(&disk.file, b"nonsense").expect("written");
        // Whoever only looks leaves it where it is.
        assert!(super::super::left(folder.path()).is_err() && disk.file.exists());
        assert!(disk.read().is_none());
        assert!(folder.path().join("identity.damaged").exists() && !disk.file.exists());
    }
}
