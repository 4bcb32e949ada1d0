//! What is counted of faults on purpose, by route.

use super::cell::{Cell, Shard, shards, sum};

#[derive(Debug, Default)]
struct Counts {
    delayed: Cell,
    aborted: Cell,
    reset: Cell,
}

/// A route's resolved handle.
#[derive(Debug)]
pub struct FaultSeries {
    workers: Box<[Shard<Counts>]>,
}

impl FaultSeries {
    pub(crate) fn new(workers: usize) -> Self {
        FaultSeries {
            workers: shards(workers),
        }
    }

    /// `worker` is the caller's own number, as in all series.
    pub fn delayed(&self, worker: usize) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.delayed.add(1);
        }
    }

    pub fn aborted(&self, worker: usize) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.aborted.add(1);
        }
    }

    pub fn reset(&self, worker: usize) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.reset.add(1);
        }
    }

    /// With the label each has.
    pub(crate) fn injected(&self) -> [(&'static str, u64); 3] {
        [
            ("delay", sum(&self.workers, |counts| &counts.delayed)),
            ("abort", sum(&self.workers, |counts| &counts.aborted)),
            ("reset", sum(&self.workers, |counts| &counts.reset)),
        ]
    }
}
