//! Stop taking, let finish, then cut: the counts that tell afterwards whether anybody was harmed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

/// What all workers accepted and finished; one of these a process.
#[derive(Debug, Default)]
pub struct Ledger {
    accepted: AtomicU64,
    finished: AtomicU64,
    cut: AtomicU64,
}

/// What a stop did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DrainReport {
    /// Connections since the start.
    pub accepted: u64,
    /// Connections that ended by themselves.
    pub finished: u64,
    /// Connections that were still busy when the drain time had passed.
    pub cut: u64,
    /// How long the last one took, in milliseconds since the stop began.
    pub longest_ms: u64,
}

impl Ledger {
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub fn finished(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }

    pub fn cut(&self, count: u64) {
        self.cut.fetch_add(count, Ordering::Relaxed);
    }

    pub fn report(&self, longest: Duration) -> DrainReport {
        let cut = self.cut.load(Ordering::Relaxed);
        DrainReport {
            accepted: self.accepted.load(Ordering::Relaxed),
            // Those that were cut have ended too, but not by themselves.
            finished: self.finished.load(Ordering::Relaxed).saturating_sub(cut),
            cut,
            longest_ms: u64::try_from(longest.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl std::fmt::Display for DrainReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "accepted {}, finished {}, cut {}, longest {} ms",
            self.accepted, self.finished, self.cut, self.longest_ms
        )
    }
}
