//! Descriptors that upstreams told of themselves, by upstream. Outlives snapshots; what came last stays until something
//! else comes, and with a folder to keep it in (`server.state_dir`) also for the next process. Asking is somebody else's
//! work; a set that cannot be read is never kept.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use tokio::sync::Notify;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::descriptor;
use super::reflection::LARGEST;
use super::schema::Schema;
use crate::kept;
use crate::telemetry::log;

const MAGIC: &str = "tollgate descriptors 1";

/// What is known of all upstreams.
#[derive(Default)]
pub struct Reflected {
    /// `None`: nothing was kept.
    known: Mutex<HashMap<String, Option<Known>>>,
    folder: Option<PathBuf>,
    /// Something else was reflected than what was known.
    pub news: Notify,
}

#[derive(Clone)]
struct Known {
    hash: u128,
    schema: Arc<Schema>,
}

impl Reflected {
    /// With a folder in which the last ones are kept.
    pub fn kept_in(state_dir: &Path) -> Reflected {
        Reflected {
            folder: Some(state_dir.join("descriptors")),
            ..Reflected::default()
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Option<Known>>> {
        // Nothing that can panic is done with it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was told last, by this process's upstream or to the one before. Reads a file the first time.
    pub fn of(&self, upstream: &str) -> Option<Arc<Schema>> {
        if let Some(known) = self.known().get(upstream) {
            return known.as_ref().map(|known| known.schema.clone());
        }
        let kept = self.read(upstream);
        let schema = kept.as_ref().map(|kept| kept.schema.clone());
        self.known().insert(upstream.to_owned(), kept);
        schema
    }

    /// An upstream told this. Whether it is news; what was known stays when it cannot be read.
    pub fn learn(&self, upstream: &str, set: &[u8]) -> Result<bool, String> {
        let hash = xxh3_128(set);
        if let Some(Some(known)) = self.known().get(upstream)
            && known.hash == hash
        {
            return Ok(false);
        }
        let schema = descriptor::read(set).map_err(|why| why.to_string())?;
        let schema = Arc::new(schema);
        let known = Known { hash, schema };
        self.known().insert(upstream.to_owned(), Some(known));
        self.news.notify_one();
        Ok(true)
    }

    /// Keeps it for the next process. Blocks.
    pub fn keep(&self, upstream: &str, set: &[u8]) {
        let Some(file) = self.file(upstream) else {
            return;
        };
        let head = head(upstream, set) + "\n";
        let written = file
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| kept::replace(&file, &[head.as_bytes(), set].concat()));
        if let Err(error) = written {
            told("descriptors of an upstream cannot be kept", &file, &error);
        }
    }

    /// No route asks for it any more.
    pub fn forget(&self, upstream: &str) {
        self.known().remove(upstream);
        if let Some(file) = self.file(upstream) {
            let _was_never_kept = fs::remove_file(file);
        }
    }

    fn file(&self, upstream: &str) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?;
        // A name may hold anything, and be long.
        Some(folder.join(format!("{:016x}.binpb", xxh3_64(upstream.as_bytes()))))
    }

    fn read(&self, upstream: &str) -> Option<Known> {
        let file = self.file(upstream)?;
        let bytes = match read(&file) {
            Ok(bytes) => bytes,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    told(
                        "descriptors that were kept cannot be read; the upstream is asked",
                        &file,
                        &error,
                    );
                }
                return None;
            }
        };
        let known = parse(&bytes, upstream);
        if known.is_none() {
            told(
                "descriptors that were kept are damaged and were put aside; the upstream is asked",
                &file,
                &kept::put_aside(&file),
            );
        }
        known
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    // Files add a few bytes each to what they hold.
    let most = 2 * LARGEST as u64;
    fs::File::open(file)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// One line, whatever the name holds.
fn head(upstream: &str, set: &[u8]) -> String {
    format!("{MAGIC} {:016x} {upstream:?}", xxh3_64(set))
}

fn parse(bytes: &[u8], upstream: &str) -> Option<Known> {
    let end = memchr::memchr(b'\n', bytes)?;
    let set = bytes.get(end + 1..)?;
    if bytes.get(..end)? != head(upstream, set).as_bytes() {
        return None;
    }
    Some(Known {
        hash: xxh3_128(set),
        schema: Arc::new(descriptor::read(set).ok()?),
    })
}

fn told(what: &str, file: &Path, error: &dyn std::fmt::Display) {
    let file = file.display().to_string();
    log::warn(what, &[("file", &file), ("error", &error.to_string())]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A set of one file with one message, `M`.
    fn set(name: &str) -> Vec<u8> {
        let mut message = Vec::new();
        super::super::wire::bytes(&mut message, 1, b"M");
        let mut file = Vec::new();
        super::super::wire::bytes(&mut file, 1, name.as_bytes());
        super::super::wire::bytes(&mut file, 4, &message);
        let mut set = Vec::new();
        super::super::wire::bytes(&mut set, 1, &file);
        set
    }

    #[test]
    fn what_was_told_is_there_for_the_next_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let reflected = Reflected::kept_in(folder.path());
        assert!(reflected.of("a/b\n").is_none());
        assert_eq!(reflected.learn("a/b\n", &set("a.proto")), Ok(true));
        assert_eq!(
            reflected.learn("a/b\n", &set("a.proto")),
            Ok(false),
            "no news"
        );
        reflected.keep("a/b\n", &set("a.proto"));
        reflected.keep("b", &set("b.proto"));
        // What cannot be read changes nothing.
        assert!(reflected.learn("b", b"nonsense").is_err());
        drop(reflected);

        let next = Reflected::kept_in(folder.path());
        assert!(next.of("b").is_some());
        assert_eq!(next.learn("b", &set("b.proto")), Ok(false), "the same");
        next.forget("b");
        assert!(Reflected::kept_in(folder.path()).of("b").is_none());
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let folder = tempfile::tempdir().expect("a folder");
        let reflected = Reflected::kept_in(folder.path());
        reflected.keep("a", &set("a.proto"));
        let file = reflected.file("a").expect("there is a folder");
        let mut bytes = fs::read(&file).expect("it was written");
        *bytes.last_mut().expect("it has bytes") ^= 1;
        fs::write(&file, bytes).expect("it can be written");
        assert!(reflected.of("a").is_none());
        assert!(file.with_extension("damaged").exists() && !file.exists());
    }
}
