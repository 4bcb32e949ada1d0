//! What is counted of each upstream: connections, attempts to connect, retries, time-outs, health.
//!
//! Workers write their own shard. What an upstream knows of itself anyway (health, ejections, requests in flight) is not
//! counted a second time: the scrape asks for it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tollgate_config::Priority;

use super::cell::{Cell, Durations, Reading, Shard, Shared, shards};
use super::closed::{BreakerReason, BreakerResult, BreakerState};
use super::closed::{
    ConnectResult, ConnectionState, HealthState, PRIORITIES, Refusal, RetryClass, TimeoutKind,
};

#[derive(Debug, Default)]
struct Counts {
    connections: [Cell; ConnectionState::COUNT],
    connects: [Cell; ConnectResult::COUNT],
    retries: [Cell; RetryClass::COUNT],
    timeouts: [Cell; TimeoutKind::COUNT],
    refusals: [[Cell; Refusal::COUNT]; PRIORITIES.len()],
    waits: Durations,
    breaker: [Cell; BreakerResult::COUNT],
    budget_exhausted: Cell,
}

/// What an upstream knows of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    pub ejections: u64,
    /// By `HealthState`.
    pub endpoints: [u64; HealthState::COUNT],
    /// `None` without a bulkhead.
    pub bulkhead: Option<KnownBulkhead>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct KnownBulkhead {
    pub in_flight: u64,
    pub limit: u64,
    /// By priority.
    pub waiting: [u64; PRIORITIES.len()],
}

/// Asked by the scrape only.
type Ask = Box<dyn Fn() -> Known + Send + Sync>;

/// An upstream's resolved handle. A worker passes its own number, which nobody else uses.
pub struct UpstreamSeries {
    workers: Box<[Shard<Counts>]>,
    /// Changed by reload only. Must not keep the upstream alive, which holds this.
    ask: Mutex<Option<Ask>>,
    breakers: [Shared; BreakerState::COUNT],
    breaker_changes: [Shared; BreakerReason::COUNT],
}

impl std::fmt::Debug for UpstreamSeries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamSeries").finish_non_exhaustive()
    }
}

impl UpstreamSeries {
    pub(crate) fn new(workers: usize) -> Self {
        UpstreamSeries {
            workers: shards(workers),
            ask: Mutex::default(),
            breakers: Default::default(),
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

    /// A bulkhead did not let a request through (GW-609, GW-610).
    pub fn refused(&self, worker: usize, priority: Priority, why: Refusal) {
        self.cell(
            worker,
            |counts| counts.refusals.get(priority as usize)?.get(why as usize),
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

    /// How many of the upstream's breakers are in `state`. Any thread may call this; the last one wins.
    pub fn set_breakers(&self, state: BreakerState, breakers: usize) {
        if let Some(cell) = self.breakers.get(state as usize) {
            cell.set(breakers as u64);
        }
    }

    /// A request was not sent again because the budget was used up (GW-506).
    pub fn budget_exhausted(&self, worker: usize) {
        self.cell(
            worker,
            |counts| Some(&counts.budget_exhausted),
            |cell| cell.add(1),
        );
    }

    /// A request got its permit after waiting so long for it (GW-609).
    pub fn waited(&self, worker: usize, duration: Duration) {
        if let Some(shard) = self.workers.get(worker) {
            shard.0.waits.observe(duration);
        }
    }

    /// Where the scrape asks what the upstream knows of itself; the last one set counts.
    pub fn asks(&self, ask: impl Fn() -> Known + Send + Sync + 'static) {
        *self.ask.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(ask));
    }

    pub(crate) fn known(&self) -> Known {
        let ask = self.ask.lock().unwrap_or_else(PoisonError::into_inner);
        ask.as_ref().map_or_else(Known::default, |ask| ask())
    }

    pub(crate) fn refusals(&self, priority: usize, why: usize) -> i64 {
        self.sum(|counts| counts.refusals.get(priority)?.get(why))
    }

    pub(crate) fn waits(&self) -> Reading {
        let mut reading = Reading::default();
        for shard in &self.workers {
            reading.add_durations(&shard.0.waits);
        }
        reading
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

    pub(crate) fn breakers(&self, state: usize) -> i64 {
        let breakers = self.breakers.get(state).map_or(0, Shared::value);
        breakers.cast_signed()
    }

    pub(crate) fn breaker_changes(&self, reason: usize) -> i64 {
        let changes = self.breaker_changes.get(reason).map_or(0, Shared::value);
        changes.cast_signed()
    }

    pub(crate) fn exhaustions(&self) -> i64 {
        self.sum(|counts| Some(&counts.budget_exhausted))
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
