//! What served last, on disk: a process starts from it when no control plane is there (CP-106). One file in
//! `server.state_dir`: a line with a checksum, then the lines of a full batch, as a control plane would send them. It
//! is replaced whole, by rename; what is damaged is named, put aside and not used.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_config::feed::{Begin, End, Hello, Instance, Line, Service};
use xxhash_rust::xxh3::xxh3_64;

use super::known::Known;
use crate::kept;
use crate::reload::inputs::List;
use crate::telemetry::log;

const MAGIC: &str = "tollgate last good 1";
/// More than a full batch of the largest document.
const LARGEST: u64 = 512 << 20;

#[derive(Clone)]
pub struct LastGood {
    file: PathBuf,
}

/// What is written: of one moment, cheap to take.
pub struct Content {
    pub epoch: String,
    pub revision: u64,
    pub blocks: List,
    pub services: Vec<(String, u64, Arc<[Instance]>)>,
}

impl LastGood {
    pub fn new(state_dir: &Path) -> LastGood {
        LastGood {
            file: state_dir.join("last_good"),
        }
    }

    /// What the last process left; `None` when there is nothing, or nothing that can be used, which is told.
    pub fn read(&self) -> Option<Known> {
        let told = |what: &str, error: &str| {
            let file = self.file.display().to_string();
            log::warn(what, &[("file", &file), ("error", &error)]);
        };
        let bytes = match read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                told(
                    "the last good configuration cannot be read",
                    &error.to_string(),
                );
                return None;
            }
        };
        match parse(&bytes) {
            Ok(known) => Some(known),
            Err(why) => {
                let moved = kept::put_aside(&self.file);
                told(
                    "the last good configuration is damaged and was put aside; the control plane's is waited for",
                    &format!("{why}; {moved}"),
                );
                None
            }
        }
    }

    /// What is there, without moving what is damaged out of the way.
    pub fn look(&self) -> Result<Option<Known>, String> {
        match read(&self.file) {
            Ok(bytes) => parse(&bytes)
                .map(Some)
                .map_err(|why| format!("it is damaged: {why}")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("it cannot be read: {error}")),
        }
    }

    /// Writes, and returns when it is on the disk. Blocks.
    pub fn write(&self, content: &Content) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        // What references stand for may be secret.
        kept::replace(&self.file, &written(content))
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let opened = fs::File::open(file)?;
    opened.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn written(content: &Content) -> Vec<u8> {
    let mut body = String::new();
    let mut say = |line: Line| body.push_str(&line.write());
    say(Line::Hello(Hello {
        server: "last good".to_owned(),
        epoch: content.epoch.clone(),
        revision: content.revision,
        beat: Duration::from_secs(60),
        figures: None,
    }));
    say(Line::Begin(Begin { full: true }));
    for block in content.blocks.iter() {
        say(Line::Put(block.to_put()));
    }
    for (name, version, instances) in &content.services {
        say(Line::Service(Service {
            name: name.clone(),
            version: *version,
            instances: instances.to_vec(),
        }));
    }
    say(Line::End(End {
        revision: content.revision,
    }));
    let mut head = String::new();
    let _a_string_takes_everything = writeln!(
        head,
        "{MAGIC} {:016x} {}",
        xxh3_64(body.as_bytes()),
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

fn parse(bytes: &[u8]) -> Result<Known, String> {
    let end = memchr::memchr(b'\n', bytes).ok_or("it has no first line")?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| "its first line is no text")?;
    let head = head
        .strip_prefix(MAGIC)
        .ok_or("its first line is not ours")?;
    let (sum, length) = head.trim().split_once(' ').ok_or("its first line is cut")?;
    if length.parse() != Ok(body.len()) {
        return Err(format!("it has {} bytes instead of {length}", body.len()));
    }
    if u64::from_str_radix(sum, 16) != Ok(xxh3_64(body)) {
        return Err("its checksum is another".to_owned());
    }
    let mut known = Known::default();
    let now = Instant::now();
    known.connected(now);
    for line in body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line = Line::read(line).map_err(|fault| fault.message)?;
        known
            .line(line, now)
            .map_err(|fault| format!("its lines contradict each other: {fault:?}"))?;
    }
    if known.have().is_none() {
        return Err("it does not come to an end".to_owned());
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use tollgate_config::feed::{Blocks, Health, Kind, Put};

    use super::*;

    fn content() -> Content {
        let mut blocks = Blocks::default();
        for number in 1..50u32 {
            blocks.put(Put {
                id: format!("r{number}"),
                kind: Kind::Route,
                file: "routes/shop.toml".to_owned(),
                line: number,
                text: format!("[[route]]\nname = \"r{number}\"\n"),
                uses: Vec::new(),
            });
        }
        let instance = Instance {
            id: "a".to_owned(),
            address: "10.0.0.1:1".to_owned(),
            health: Health::Healthy,
            weight: 1,
            zone: None,
            metadata: Default::default(),
        };
        Content {
            epoch: "e".to_owned(),
            revision: 42,
            blocks: blocks.list(),
            services: vec![("orders".to_owned(), 7, Arc::from([instance]))],
        }
    }

    #[test]
    fn cp_106_what_was_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = LastGood::new(&folder.path().join("new"));
        assert!(file.read().is_none(), "nothing yet");
        let content = content();
        file.write(&content).expect("it can be written");
        let known = file.read().expect("as written");
        assert_eq!((known.epoch(), known.revision()), ("e", 42));
        assert_eq!(known.blocks(), content.blocks);
        let services: Vec<_> = known.services().collect();
        assert_eq!(services, [("orders", 7, &content.services[0].2)]);
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file.file).expect("there"));
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_put_aside_wherever_it_is_damaged() {
        let bytes = written(&content());
        assert!(parse(&bytes).is_ok());
        for at in (0..bytes.len()).step_by(61).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(parse(&damaged).is_err(), "byte {at}");
            assert!(parse(&bytes[..at]).is_err(), "cut at {at}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        let file = LastGood::new(folder.path());
        fs::write(&file.file, b"nonsense").expect("written");
        assert!(file.read().is_none());
        assert!(folder.path().join("last_good.damaged").exists() && !file.file.exists());
    }
}
