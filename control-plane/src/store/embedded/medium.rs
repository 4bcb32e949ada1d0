//! What a log is written on: a file in a folder, or nothing. Kept so small that a test can break every call of it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

pub(super) trait Medium: Send + 'static {
    /// All of it; empty when there is none yet.
    fn read(&mut self) -> io::Result<Vec<u8>>;
    /// Writes at the end, which the caller knows.
    fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when everything written so far is durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Forgets everything from there on.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Makes new content durable beside the old, which stays in place.
    fn prepare(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Puts what was prepared in place of the old, in one step. After an error either of them may be there.
    fn swap(&mut self) -> io::Result<()>;
    /// Keeps bytes for a person to look at.
    fn put_aside(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// What a store holds is for its owner: keys are in it, and what references in documents stand for.
const OWNER: u32 = 0o600;

/// In a store's folder: what it holds, and what is locked by the process that has it.
pub(super) const FILE: &str = "store";
pub(super) const LOCK: &str = "lock";

/// A folder with the file `store`.
pub(super) struct Folder {
    folder: PathBuf,
    file: Option<File>,
    /// Held as long as the store is open; its end releases the folder to the next process.
    _lock: File,
}

impl Folder {
    /// Takes the folder for this process. `None`: another process has it.
    pub(super) fn open(folder: &Path) -> io::Result<Option<Folder>> {
        if !folder.is_dir() {
            std::fs::create_dir_all(folder)?;
            // The folder's own name must survive, too.
            let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        Ok(Some(Folder {
            folder: folder.to_owned(),
            file: None,
            _lock: lock,
        }))
    }

    fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    fn file(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.path())?;
            self.file = Some(file);
        }
        self.file
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Medium for Folder {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        // What a crash left of a replacement was never the store.
        match std::fs::remove_file(self.folder.join("store.new")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = match File::open(self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // Former versions let others read it.
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(OWNER))?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file()?.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file()?.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file()?.set_len(length)
    }

    fn prepare(&mut self, bytes: &[u8]) -> io::Result<()> {
        let new = self.folder.join("store.new");
        let made = create(&new).and_then(|file| {
            file.write_all_at(bytes, 0)?;
            file.sync_all()
        });
        if let Err(error) = made {
            // It would take the room that is missing.
            let _not_there = std::fs::remove_file(&new);
            return Err(error);
        }
        Ok(())
    }

    fn swap(&mut self) -> io::Result<()> {
        self.file = None;
        std::fs::rename(self.folder.join("store.new"), self.path())?;
        File::open(&self.folder)?.sync_all()
    }

    fn put_aside(&mut self, bytes: &[u8]) -> io::Result<()> {
        create(&self.folder.join("store.torn"))?.write_all_at(bytes, 0)
    }
}

/// A new file, or an empty one in place of what was there.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true);
    let file = options.mode(OWNER).open(path)?;
    // One that was there keeps its own.
    file.set_permissions(Permissions::from_mode(OWNER))?;
    Ok(file)
}

/// What somebody else's file holds, or nothing: read, and never written. What is told to it is forgotten.
pub(super) struct Copy(pub(super) Vec<u8>);

impl Medium for Copy {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        Ok(std::mem::take(&mut self.0))
    }
    fn append(&mut self, _at: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn cut(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }
    fn prepare(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn swap(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn put_aside(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
}
