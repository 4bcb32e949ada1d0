//! A store in one file, for one process. Everything is in memory; a thread of its own makes writes durable, as many of
//! those that wait as there are with one sync, and only then shows them to readers. Readers never wait for the disk.
//!
//! Why a log of our own and no database: all that is kept fits into memory, so a file is needed to begin again and for
//! nothing else; and what it does at every byte where a crash may hit can be tested, because it is two hundred lines.

mod log;
mod medium;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::{
    Answer, Committed, Event, Kept, LeaseId, Range, Store, StoreError, Transaction, Watch, Write,
};
use log::{Log, LogError};
use medium::{Folder, Medium, Nowhere};
use state::State;
use writer::Writer;

/// Most of what one transaction holds, in bytes.
const LARGEST: usize = 16 << 20;

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
    state: RwLock<State>,
    /// The revision that readers see; watches wait for it.
    revision: watch::Sender<u64>,
    figures: Counters,
}

/// What the writer counts.
#[derive(Debug, Default)]
struct Counters {
    transactions: AtomicU64,
    syncs: AtomicU64,
    sync_micros: AtomicU64,
    refused: AtomicU64,
    compactions: AtomicU64,
    bytes: AtomicU64,
    failing: AtomicBool,
}

/// Figures of a store since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub revision: u64,
    pub keys: u64,
    /// Of the file.
    pub bytes: u64,
    /// Transactions that were made durable.
    pub transactions: u64,
    /// Writes that made them so.
    pub syncs: u64,
    pub sync_time: Duration,
    /// Transactions that could not be written.
    pub refused: u64,
    pub compactions: u64,
    /// The last write failed.
    pub failing: bool,
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

enum Order {
    Commit(Transaction, oneshot::Sender<Result<Committed, StoreError>>),
    Grant(Duration, oneshot::Sender<Result<LeaseId, StoreError>>),
    Revoke(LeaseId, oneshot::Sender<Result<(), StoreError>>),
    KeepAlive(LeaseId, oneshot::Sender<Result<(), StoreError>>),
}

impl Embedded {
    /// Opens the store of a folder, or makes one. Blocks: to be called at start.
    pub fn open(folder: &Path) -> Result<Embedded, OpenError> {
        let io = |error| OpenError::Io(folder.to_owned(), error);
        let medium = Folder::open(folder).map_err(io)?;
        let medium = medium.ok_or_else(|| OpenError::InUse(folder.to_owned()))?;
        Embedded::on(medium).map_err(|error| match error {
            LogError::Io(error) => io(error),
            LogError::Damaged(byte, why) => OpenError::Damaged {
                file: folder.join("store"),
                byte,
                why,
            },
        })
    }

    /// A store that ends with the process.
    pub fn in_memory() -> Embedded {
        match Embedded::on(Nowhere) {
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
            revision: watch::Sender::new(state.revision),
            state: RwLock::new(state),
            figures: Counters::default(),
        });
        shared.figures.bytes.store(log.length(), Relaxed);
        let (orders, waiting) = mpsc::channel();
        let writer = Writer {
            shared: shared.clone(),
            log,
            leases: BTreeMap::new(),
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

    pub fn figures(&self) -> Figures {
        let counters = &self.shared.figures;
        let state = self.shared.read();
        Figures {
            revision: state.revision,
            keys: state.keys() as u64,
            bytes: counters.bytes.load(Relaxed),
            transactions: counters.transactions.load(Relaxed),
            syncs: counters.syncs.load(Relaxed),
            sync_time: Duration::from_micros(counters.sync_micros.load(Relaxed)),
            refused: counters.refused.load(Relaxed),
            compactions: counters.compactions.load(Relaxed),
            failing: counters.failing.load(Relaxed),
        }
    }

    /// Sends an order off now; the future only waits for its answer.
    fn order<T: Send + 'static>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Order,
    ) -> Answer<'static, T> {
        let (reply, answer) = oneshot::channel();
        let sent = self
            .orders
            .as_ref()
            .is_some_and(|orders| orders.send(order(reply)).is_ok());
        Box::pin(async move {
            if !sent {
                return Err(StoreError::Closed);
            }
            answer.await.unwrap_or(Err(StoreError::Closed))
        })
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
        Box::pin(async move { Ok(self.shared.read().one(key)) })
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range> {
        Box::pin(async move {
            let state = self.shared.read();
            Ok(Range {
                kept: state.range(prefix),
                revision: state.revision,
            })
        })
    }

    fn commit(&self, transaction: Transaction) -> Answer<'static, Committed> {
        let size: usize = { transaction.then.iter() }
            .map(|write| match write {
                Write::Put { key, value, .. } => key.len() + value.len(),
                Write::Delete(key) => key.len(),
            })
            .sum();
        if size > LARGEST {
            return Box::pin(async { Err(StoreError::TooLarge) });
        }
        self.order(|reply| Order::Commit(transaction, reply))
    }

    fn watch(&self, prefix: &str, revision: u64) -> Box<dyn Watch> {
        Box::new(Watching {
            shared: self.shared.clone(),
            changed: self.shared.revision.subscribe(),
            prefix: prefix.to_owned(),
            revision,
        })
    }

    fn grant(&self, time: Duration) -> Answer<'static, LeaseId> {
        self.order(|reply| Order::Grant(time, reply))
    }

    fn keep_alive(&self, lease: LeaseId) -> Answer<'static, ()> {
        self.order(|reply| Order::KeepAlive(lease, reply))
    }

    fn revoke(&self, lease: LeaseId) -> Answer<'static, ()> {
        self.order(|reply| Order::Revoke(lease, reply))
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Watching {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
    prefix: String,
    /// Told up to here.
    revision: u64,
}

impl Watch for Watching {
    fn next(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Event>, StoreError>> + Send + '_>> {
        Box::pin(async move {
            loop {
                let now = *self.changed.borrow_and_update();
                if now > self.revision {
                    let events = self.shared.read().since(&self.prefix, self.revision)?;
                    self.revision = events.last().map_or(now, |event| event.revision.max(now));
                    if !events.is_empty() {
                        return Ok(events);
                    }
                }
                if self.changed.changed().await.is_err() {
                    return Err(StoreError::Closed);
                }
            }
        })
    }
}
