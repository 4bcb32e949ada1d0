//! What a store counts.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

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
