//! What is counted of each rate limit, and of each tier: by the names that the document gives them, never by a client
//! (HI-59).

use super::cell::{Cell, Shard, Shared, shards, sum};

#[derive(Debug, Default)]
struct Counts {
    admitted: Cell,
    refused: Cell,
    over_quota: Cell,
}

/// A limit's resolved handle.
#[derive(Debug)]
pub struct LimitSeries {
    workers: Box<[Shard<Counts>]>,
    keys: Shared,
    forgotten: Shared,
    shared: Shared,
    leased: Shared,
    own_share: Shared,
}

impl LimitSeries {
    pub(crate) fn new(workers: usize) -> Self {
        LimitSeries {
            workers: shards(workers),
            keys: Shared::default(),
            forgotten: Shared::default(),
            shared: Shared::default(),
            leased: Shared::default(),
            own_share: Shared::default(),
        }
    }

    /// `worker` is the caller's own number, as in all series.
    pub fn admitted(&self, worker: usize) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.admitted.add(1);
        }
    }

    pub fn refused(&self, worker: usize) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.refused.add(1);
        }
    }

    pub fn over_quota(&self, worker: usize) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.over_quota.add(1);
        }
    }

    /// So many buckets are held.
    pub fn holds(&self, keys: u64) {
        self.keys.set(keys);
    }

    /// A bucket was forgotten before it was full, for want of room.
    pub fn forgot(&self) {
        self.forgotten.add(1);
    }

    /// A request was counted in the bucket that all share who found no room.
    pub fn shared(&self) {
        self.shared.add(1);
    }

    /// Tokens came from the store.
    pub fn leased(&self, tokens: u64) {
        self.leased.add(tokens);
    }

    /// Tokens came from this gateway's own share, because the store is away.
    pub fn own_share(&self, tokens: u64) {
        self.own_share.add(tokens);
    }

    /// Whether any ever came.
    pub(crate) fn is_leased(&self) -> bool {
        self.leased.value() + self.own_share.value() > 0
    }

    /// Both, with the label each has.
    pub fn leases(&self) -> [(&'static str, u64); 2] {
        [
            ("store", self.leased.value()),
            ("own_share", self.own_share.value()),
        ]
    }

    /// Admitted, refused, refused by quota: with the label each has.
    pub fn requests(&self) -> [(&'static str, u64); 3] {
        [
            ("admitted", sum(&self.workers, |counts| &counts.admitted)),
            ("refused", sum(&self.workers, |counts| &counts.refused)),
            (
                "over_quota",
                sum(&self.workers, |counts| &counts.over_quota),
            ),
        ]
    }

    pub fn keys(&self) -> u64 {
        self.keys.value()
    }

    /// Forgotten, and counted in the shared bucket.
    pub fn crowded(&self) -> [(&'static str, u64); 2] {
        [
            ("forgotten", self.forgotten.value()),
            ("shared", self.shared.value()),
        ]
    }
}
