//! A store in one file, for one process. Everything is in memory; a thread of its own makes writes durable, as many of
//! those that wait as there are with one sync, and only then shows them to readers. Readers never wait for the disk.
//!
//! Why a log of our own and no database: all that is kept fits into memory, so a file is needed to begin again and for
//! nothing else; and what it does at every byte where a crash may hit can be tested, because it is two hundred lines.

mod log;
mod medium;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::batch::{Leases, Order};
use super::figures::Counters;
use super::shown::Shown;
use super::{Answer, Committed, Figures, Kept, LeaseId, Range, Store, Transaction, Watch};
use log::{Log, LogError};
use medium::{Copy, FILE, Folder, LOCK, Medium};
use writer::Writer;

/// The open store; its file is released when it is dropped.
pub struct Embedded {
    shared: Arc<Shared>,
    /// To the writer. `None` only while it is dropped, which ends the writer.
    orders: Option<mpsc::Sender<Order>>,
    writer: Option<JoinHandle<()>>,
    epoch: u64,
    /// Bytes of an unfinished write that opening put aside.
    pub torn: u64,
}

struct Shared {
    shown: Arc<Shown>,
    figures: Counters,
}

/// What stands in the file of a store that somebody else may have open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    pub revision: u64,
    pub keys: usize,
    pub bytes: usize,
    /// Bytes at its end that are no whole record: a write that is going on, or that a crash cut.
    pub torn: u64,
}

/// Why a store does not open.
#[derive(Debug)]
pub enum OpenError {
    InUse(PathBuf),
    Io(PathBuf, io::Error),
    Damaged {
        file: PathBuf,
        byte: u64,
        why: &'static str,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse(folder) => write!(
                f,
                "{} is in use by another control plane; give this one a `state_dir` of its own",
                folder.display()
            ),
            OpenError::Io(folder, error) => write!(
                f,
                "the store in {} does not open: {error}",
                folder.display()
            ),
            OpenError::Damaged { file, byte, why } => write!(
                f,
                "{} is damaged at byte {byte}: {why}; nothing was changed. Restore the file from a copy, or move it \
                 away to begin anew: services register again within a heartbeat",
                file.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}

impl Embedded {
    /// Opens the store of a folder, or makes one. Blocks: to be called at start.
    pub fn open(folder: &Path) -> Result<Embedded, OpenError> {
        let io = |error| OpenError::Io(folder.to_owned(), error);
        let medium = Folder::open(folder).map_err(io)?;
        let medium = medium.ok_or_else(|| OpenError::InUse(folder.to_owned()))?;
        Embedded::on(medium).map_err(|error| match error {
            LogError::Io(error) => io(error),
            LogError::Damaged(byte, why) => OpenError::Damaged {
                file: folder.join(FILE),
                byte,
                why,
            },
        })
    }

    /// Reads the file of a folder without taking it, and without changing anything. `None`: there is none.
    pub fn glance(folder: &Path) -> Result<Option<Glance>, OpenError> {
        let file = folder.join(FILE);
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::Io(folder.to_owned(), error)),
        };
        let length = bytes.len();
        match Log::open(Copy(bytes), 0) {
            Ok((_, state, found)) => Ok(Some(Glance {
                revision: state.revision,
                keys: state.keys(),
                bytes: length,
                torn: found.torn,
            })),
            Err(LogError::Io(error)) => Err(OpenError::Io(folder.to_owned(), error)),
            Err(LogError::Damaged(byte, why)) => Err(OpenError::Damaged { file, byte, why }),
        }
    }

    /// The file of a folder that whoever has the store open holds a lock on.
    pub fn lock_of(folder: &Path) -> PathBuf {
        folder.join(LOCK)
    }

    /// A store that ends with the process.
    pub fn in_memory() -> Embedded {
        match Embedded::on(Copy(Vec::new())) {
            Ok(store) => store,
            Err(_) => unreachable!("a medium that keeps nothing cannot fail"),
        }
    }

    fn on(medium: impl Medium) -> Result<Embedded, LogError> {
        // A number that no other store has: the standard library's seed is random.
        let new_epoch = std::hash::RandomState::new().build_hasher().finish();
        let (log, mut state, found) = Log::open(medium, new_epoch)?;
        state.begin();
        let epoch = log.epoch();
        let shared = Arc::new(Shared {
            shown: Shown::of(state),
            figures: Counters::default(),
        });
        shared.figures.bytes.store(log.length(), Relaxed);
        let (orders, waiting) = mpsc::channel();
        let writer = Writer {
            shared: shared.clone(),
            log,
            leases: Leases::default(),
        };
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&waiting))?;
        Ok(Embedded {
            shared,
            orders: Some(orders),
            writer: Some(writer),
            epoch,
            torn: found.torn,
        })
    }

    fn take(&self, order: Order) -> bool {
        let orders = self.orders.as_ref();
        orders.is_some_and(|orders| orders.send(order).is_ok())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has told so on standard error.
            let _panicked = writer.join();
        }
    }
}

impl Store for Embedded {
    fn epoch(&self) -> String {
        format!("{:016x}", self.epoch)
    }

    fn one<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Kept>> {
        Box::pin(async move { Ok(self.shared.shown.one(key)) })
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range> {
        Box::pin(async move { Ok(self.shared.shown.range(prefix)) })
    }

    fn commit(&self, transaction: Transaction) -> Answer<'static, Committed> {
        Order::commit(transaction, |order| self.take(order))
    }

    fn watch(&self, prefix: &str, revision: u64) -> Box<dyn Watch> {
        self.shared.shown.watch(prefix, revision)
    }

    fn grant(&self, time: Duration) -> Answer<'static, LeaseId> {
        Order::send(|reply| Order::Grant(time, reply), |order| self.take(order))
    }

    fn keep_alive(&self, lease: LeaseId) -> Answer<'static, ()> {
        let order = |reply| Order::KeepAlive(lease, reply);
        Order::send(order, |order| self.take(order))
    }

    fn revoke(&self, lease: LeaseId) -> Answer<'static, ()> {
        let order = |reply| Order::Revoke(lease, reply);
        Order::send(order, |order| self.take(order))
    }

    fn figures(&self) -> Figures {
        self.shared.figures.figures(&self.shared.shown)
    }
}
