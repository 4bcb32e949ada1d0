//! A file that is kept for the next process: replaced whole, by rename, so that a reader finds the old or the new one;
//! readable by nobody else, because what is kept may be secret. Knows nothing of what stands in it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Puts these bytes in the file's place; they are on the disk when it returns. Blocks. A draft that cannot be finished
/// is taken away again.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = file.with_extension(format!("draft-{}", std::process::id()));
    let written = put(&draft, bytes).and_then(|()| fs::rename(&draft, file));
    if written.is_err() {
        let _nothing_more_can_be_done = fs::remove_file(&draft);
    }
    written
}

/// Moves a damaged file out of the way. Where it is now, or why it is where it was, in words.
pub(crate) fn put_aside(file: &Path) -> String {
    let aside = file.with_extension("damaged");
    let moved = fs::rename(file, &aside);
    moved.map_or_else(|error| error.to_string(), |()| aside.display().to_string())
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
