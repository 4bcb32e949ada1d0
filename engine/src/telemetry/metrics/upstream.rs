//! What is counted of each upstream: connections, attempts to connect, retries, time-outs, health.
//!
//! Workers write their own shard; health and ejections are decided rarely and on any thread, and are shared.

use super::cell::{Cell, Shard, Shared, shards};
use super::closed::{BreakerReason, BreakerResult, BreakerState};
use super::closed::{ConnectResult, ConnectionState, HealthState, RetryClass, TimeoutKind};

#[derive(Debug, Default)]
struct Counts {
    connections: [Cell; ConnectionState::COUNT],
    connects: [Cell; ConnectResult::COUNT],
    retries: [Cell; RetryClass::COUNT],
    timeouts: [Cell; TimeoutKind::COUNT],
    breaker: [Cell; BreakerResult::COUNT],
    budget_exhausted: Cell,
}

/// An upstream's resolved handle. A worker passes its own number, which nobody else uses.
#[derive(Debug)]
pub struct UpstreamSeries {
    workers: Box<[Shard<Counts>]>,
    ejections: Shared,
    health: [Shared; HealthState::COUNT],
    /// The number of its state; none has the number after the last.
    breaker_state: Shared,
    breaker_changes: [Shared; BreakerReason::COUNT],
}

impl UpstreamSeries {
    pub(crate) fn new(workers: usize) -> Self {
        UpstreamSeries {
            workers: shards(workers),
            ejections: Shared::default(),
            health: Default::default(),
            breaker_state: Shared::default(),
            breaker_changes: Default::default(),
        }
    }

    /// A connection is in `state` from now on. Pair with [`connection_leaves`](Self::connection_leaves).
    pub fn connection_enters(&self, worker: usize, state: ConnectionState) {
        self.cell(
            worker,
            |counts| counts.connections.get(state as usize),
            |cell| cell.add(1),
        );
    }

    /// A connection is no longer in `state`.
    pub fn connection_leaves(&self, worker: usize, state: ConnectionState) {
        self.cell(
            worker,
            |counts| counts.connections.get(state as usize),
            |cell| cell.subtract(1),
        );
    }

    /// An attempt to connect has ended.
    pub fn connected(&self, worker: usize, result: ConnectResult) {
        self.cell(
            worker,
            |counts| counts.connects.get(result as usize),
            |cell| cell.add(1),
        );
    }

    /// A request is sent again.
    pub fn retried(&self, worker: usize, class: RetryClass) {
        self.cell(
            worker,
            |counts| counts.retries.get(class as usize),
            |cell| cell.add(1),
        );
    }

    /// A time ran out (GW-607).
    pub fn timed_out(&self, worker: usize, kind: TimeoutKind) {
        self.cell(
            worker,
            |counts| counts.timeouts.get(kind as usize),
            |cell| cell.add(1),
        );
    }

    /// The breaker was asked for a try.
    pub fn breaker_said(&self, worker: usize, result: BreakerResult) {
        self.cell(
            worker,
            |counts| counts.breaker.get(result as usize),
            |cell| cell.add(1),
        );
    }

    /// The breaker has changed. Any thread may call this.
    pub fn breaker_changed(&self, reason: BreakerReason) {
        if let Some(cell) = self.breaker_changes.get(reason as usize) {
            cell.add(1);
        }
    }

    /// The breaker is in this state; `None`: the document says "off". Any thread may call this; the last one wins.
    pub fn show_breaker(&self, state: Option<BreakerState>) {
        let shown = state.map_or(BreakerState::COUNT, |state| state as usize);
        self.breaker_state.set(shown as u64);
    }

    /// A request was not sent again because the budget was used up (GW-506).
    pub fn budget_exhausted(&self, worker: usize) {
        self.cell(
            worker,
            |counts| Some(&counts.budget_exhausted),
            |cell| cell.add(1),
        );
    }

    /// Outlier detection put an endpoint aside. Any thread may call this.
    pub fn ejected(&self) {
        self.ejections.add(1);
    }

    /// How many endpoints are in `state`. Any thread may call this; the last one wins.
    pub fn set_health(&self, state: HealthState, endpoints: usize) {
        if let Some(cell) = self.health.get(state as usize) {
            cell.set(endpoints as u64);
        }
    }

    pub(crate) fn connections(&self, state: usize) -> i64 {
        self.sum(|counts| counts.connections.get(state))
    }

    pub(crate) fn connects(&self, result: usize) -> i64 {
        self.sum(|counts| counts.connects.get(result))
    }

    pub(crate) fn retries(&self, class: usize) -> i64 {
        self.sum(|counts| counts.retries.get(class))
    }

    pub(crate) fn timeouts(&self, kind: usize) -> i64 {
        self.sum(|counts| counts.timeouts.get(kind))
    }

    pub(crate) fn breaker(&self, result: usize) -> i64 {
        self.sum(|counts| counts.breaker.get(result))
    }

    /// 1 for the state that it is in.
    pub(crate) fn breaker_is(&self, state: usize) -> i64 {
        i64::from(self.breaker_state.value() == state as u64)
    }

    pub(crate) fn breaker_changes(&self, reason: usize) -> i64 {
        let changes = self.breaker_changes.get(reason).map_or(0, Shared::value);
        changes.cast_signed()
    }

    pub(crate) fn exhaustions(&self) -> i64 {
        self.sum(|counts| Some(&counts.budget_exhausted))
    }

    pub(crate) fn ejections(&self) -> u64 {
        self.ejections.value()
    }

    pub(crate) fn health(&self, state: usize) -> i64 {
        let endpoints = self.health.get(state).map_or(0, Shared::value);
        endpoints.cast_signed()
    }

    fn cell(&self, worker: usize, of: impl Fn(&Counts) -> Option<&Cell>, change: impl Fn(&Cell)) {
        if let Some(cell) = self.workers.get(worker).and_then(|shard| of(&shard.0)) {
            change(cell);
        }
    }

    fn sum(&self, of: impl Fn(&Counts) -> Option<&Cell>) -> i64 {
        self.workers
            .iter()
            .filter_map(|shard| of(&shard.0))
            .fold(0, |total: u64, cell| total.wrapping_add(cell.value()))
            .cast_signed()
    }
}
