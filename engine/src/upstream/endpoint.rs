//! What we remember of one address, whatever plan it is used by: load, latency, evidence, health. Endpoints outlive
//! reloads (see `memory`) and are shared by all workers through `Arc`s; everything that changes is an atomic. An
//! endpoint holds no setting and decides nothing: `Endpoints` and `balance` do.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::health::Verdict;
use super::latency::Latency;
use super::moment::Moment;
use super::outlier::Evidence;
use super::slow_start;
use super::window::{Counts, Window};

/// One address of one upstream.
#[derive(Debug)]
pub struct Endpoint {
    number: Number,
    address: SocketAddr,
    name: String,
    /// Changed by reload only, read by status only.
    zone: Mutex<Option<String>>,
    weight: AtomicU32,
    /// In how many `Endpoints` sets this one is.
    sets: AtomicU32,
    connections: AtomicU32,
    pub(super) evidence: Evidence,
    pub(super) verdict: Verdict,
    window: Window,
    pub(super) load: Load,
}

/// What every request writes, on cache lines of its own: the neighbours are only read.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Load {
    in_flight: AtomicU32,
    pub(super) latency: Latency,
    finished: AtomicU64,
    failures: AtomicU64,
}

impl Endpoint {
    /// Only `EndpointMemory` makes endpoints outside tests: who makes one elsewhere forgets what was learned.
    pub(super) fn new(
        address: SocketAddr,
        name: String,
        weight: u32,
        zone: Option<String>,
    ) -> Self {
        Endpoint {
            number: Number::take(),
            address,
            name,
            zone: Mutex::new(zone),
            weight: AtomicU32::new(weight),
            sets: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            evidence: Evidence::default(),
            verdict: Verdict::default(),
            window: Window::default(),
            load: Load::default(),
        }
    }

    /// Unique among living endpoints, and small: workers index by it. Free again when the last `Arc` is dropped, so
    /// whoever keeps something under a number keeps the `Arc` as well.
    /// Connections open to it, by all workers together.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    pub(super) fn connection_opens(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(super) fn connection_closes(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    pub fn id(&self) -> u32 {
        self.number.0
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As it was written or found: `host:port`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn zone(&self) -> Option<String> {
        self.zone
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The weight that sets made from now on will use.
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Requests now under way, of all workers.
    pub fn in_flight(&self) -> u32 {
        self.load.in_flight.load(Relaxed)
    }

    /// In no set any more: nothing new is sent there, what is idle may be closed.
    pub fn is_removed(&self) -> bool {
        self.sets.load(Relaxed) == 0
    }

    /// Neither ejected nor failed by its probes.
    pub fn is_healthy(&self, now: Instant) -> bool {
        self.is_available(now.into())
    }

    /// The latency estimate in milliseconds; `None` before the first answer.
    pub fn latency_ms(&self, now: Instant) -> Option<f64> {
        self.load
            .latency
            .estimate(now.into())
            .map(|nanoseconds| nanoseconds / 1e6)
    }

    /// Requests ever sent there.
    pub fn picks(&self) -> u64 {
        self.load.finished.load(Relaxed) + u64::from(self.in_flight())
    }

    /// Requests ever failed there.
    pub fn failures(&self) -> u64 {
        self.load.failures.load(Relaxed)
    }

    #[inline]
    pub(super) fn is_available(&self, now: Moment) -> bool {
        now >= self.evidence.returns() && !self.verdict.is_failing()
    }

    /// The share of its weight, below 1 in slow start and after it asked for less.
    #[inline]
    pub(super) fn share(&self, now: Moment) -> f64 {
        slow_start::share(self.evidence.returns(), now) * self.evidence.share(now)
    }

    /// Out of service until its time is over. Its latency from before, raised by every failure, would keep it away from
    /// requests long after that; slow start is there to make it safe to ask again.
    pub(super) fn eject(&self, now: Moment) {
        self.evidence.eject(now);
        self.load.latency.forget();
    }

    /// Ought to be out of service, but too many are: attracts less instead.
    pub(super) fn stay(&self, now: Moment) {
        self.load.latency.raise(self.evidence.stay(), now);
    }

    /// New in a set, or well again: begins with a small share and a clean slate.
    pub(super) fn begin_slowly(&self, now: Moment) {
        self.evidence.begin_slow_start(now);
        self.load.latency.forget();
    }

    pub(super) fn set_plan(&self, weight: u32, zone: Option<&str>) {
        self.weight.store(weight, Relaxed);
        let mut known = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_deref() != zone {
            *known = zone.map(str::to_owned);
        }
    }

    pub(super) fn enter_set(&self) {
        self.sets.fetch_add(1, Relaxed);
    }

    pub(super) fn leave_set(&self) {
        self.sets.fetch_sub(1, Relaxed);
    }

    #[inline]
    pub(super) fn begin(&self) {
        self.load.in_flight.fetch_add(1, Relaxed);
    }

    /// Counted at the end only, so that a pick writes one counter instead of two.
    pub(super) fn end(&self) {
        self.load.finished.fetch_add(1, Relaxed);
        self.load.in_flight.fetch_sub(1, Relaxed);
    }

    /// Before the end of a request is counted.
    #[inline]
    pub(super) fn note(&self, now: Moment) {
        self.window.note(now, || self.counted());
    }

    /// Its latest requests since it returned: at least `volume`, if there were as many in the last ten seconds.
    pub(super) fn latest(&self, volume: u64, now: Moment) -> Counts {
        self.window
            .latest(volume, self.evidence.returns(), now, self.counted())
    }

    fn counted(&self) -> Counts {
        Counts {
            finished: self.load.finished.load(Relaxed),
            failed: self.load.failures.load(Relaxed),
        }
    }

    pub(super) fn count_failure(&self) {
        self.load.failures.fetch_add(1, Relaxed);
    }
}

/// An endpoint's number; given back when dropped.
#[derive(Debug)]
struct Number(u32);

/// Numbers that were given back, and the first that was never given. The smallest is given first, so that the tables
/// of the workers stay short.
static NUMBERS: Mutex<(BTreeSet<u32>, u32)> = Mutex::new((BTreeSet::new(), 0));

impl Number {
    fn take() -> Self {
        let mut numbers = NUMBERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.0.pop_first() {
            return Number(number);
        }
        let number = numbers.1;
        numbers.1 += 1;
        Number(number)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        NUMBERS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .insert(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint::new("127.0.0.1:1".parse().unwrap(), "a:1".into(), 1, None)
    }

    #[test]
    fn living_endpoints_have_different_numbers() {
        let endpoints: Vec<_> = (0..100).map(|_| endpoint()).collect();
        assert_eq!(
            endpoints
                .iter()
                .map(Endpoint::id)
                .collect::<HashSet<_>>()
                .len(),
            100
        );
    }

    #[test]
    fn numbers_are_used_again_so_that_they_stay_dense() {
        // Other tests take numbers meanwhile; a hundred thousand endpoints one after another must not need as many.
        let highest = (0..100_000).map(|_| endpoint().id()).max().unwrap();
        assert!(highest < 50_000, "{highest}");
    }
}
