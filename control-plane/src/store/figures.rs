//! What a store counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::shown::Shown;

/// What the one who writes counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) transactions: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) sync_micros: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) failing: AtomicBool,
}

/// Figures of a store since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    pub revision: u64,
    pub keys: u64,
    /// Of the file; of what is in etcd.
    pub bytes: u64,
    /// Transactions that were made durable.
    pub transactions: u64,
    /// Writes that made them so.
    pub syncs: u64,
    pub sync_time: Duration,
    /// Transactions that could not be written.
    pub refused: u64,
    pub compactions: u64,
    /// The last write failed; of etcd: no member of it answers.
    pub failing: bool,
}

impl Counters {
    /// Beside what is shown to readers at this moment.
    pub(super) fn figures(&self, shown: &Shown) -> Figures {
        let state = shown.read();
        Figures {
            revision: state.revision,
            keys: state.keys() as u64,
            bytes: self.bytes.load(Relaxed),
            transactions: self.transactions.load(Relaxed),
            syncs: self.syncs.load(Relaxed),
            sync_time: Duration::from_micros(self.sync_micros.load(Relaxed)),
            refused: self.refused.load(Relaxed),
            compactions: self.compactions.load(Relaxed),
            failing: self.failing.load(Relaxed),
        }
    }
}
