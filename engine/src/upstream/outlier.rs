//! What one endpoint's answers say against it: failures in a row, and until when it is left alone because of them.
//!
//! Holds observations and no thresholds: those belong to the plan that asks, so a changed threshold applies at the next
//! decision. Counting happens when an answer is finished; ejecting happens in the set (`Endpoints`), which alone knows
//! how many others are out already. Nobody is told to come back: time passes.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::moment::{Moment, nanoseconds};

/// Ejected for this long, times the times ejected …
const EJECTION: Duration = Duration::from_secs(10);
/// … but never longer than this.
const LONGEST: Duration = Duration::from_secs(300);
/// Being in service this long makes up for one ejection.
const FORGIVEN: Duration = Duration::from_secs(30);

/// The evidence against one endpoint, shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    in_a_row: AtomicU32,
    /// Out of service before, in slow start after. One number for both, so that a return needs no event.
    returns: AtomicU64,
    times: AtomicU32,
}

impl Evidence {
    pub(super) fn failures_in_a_row(&self) -> u32 {
        self.in_a_row.load(Relaxed)
    }

    pub(super) fn returns(&self) -> Moment {
        Moment(self.returns.load(Relaxed))
    }

    pub(super) fn times_ejected(&self) -> u32 {
        self.times.load(Relaxed)
    }

    pub(super) fn succeeded(&self) {
        // Reading first leaves the cache line shared in the ordinary case.
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// A request failed. What began before the endpoint returned is old news, and not told: it must not eject it a
    /// second time.
    pub(super) fn failed(&self) {
        self.in_a_row.fetch_add(1, Relaxed);
    }

    /// Takes the endpoint out of service. The caller has asked the set, and is alone in doing so.
    pub(super) fn eject(&self, now: Moment) {
        let forgiven = now.since(self.returns()) / nanoseconds(FORGIVEN);
        let times = self
            .times
            .load(Relaxed)
            .saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
            .saturating_add(1);
        self.times.store(times, Relaxed);
        self.returns.store(
            now.plus(EJECTION.saturating_mul(times).min(LONGEST)).0,
            Relaxed,
        );
        self.in_a_row.store(0, Relaxed);
    }

    /// Too many are out already: the endpoint stays, and is asked about again after as many failures more.
    pub(super) fn stay(&self) {
        self.in_a_row.store(0, Relaxed);
    }

    /// Begins slow start, unless the endpoint is out for longer.
    pub(super) fn begin_slow_start(&self, now: Moment) {
        self.returns.fetch_max(now.0, Relaxed);
    }

    /// Outlier detection was switched off: nobody is out because of it.
    pub(super) fn pardon(&self, now: Moment) {
        self.returns.fetch_min(now.0, Relaxed);
        self.in_a_row.store(0, Relaxed);
        self.times.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment(nanoseconds(Duration::from_secs(10_000)));

    fn seconds_out(evidence: &Evidence, now: Moment) -> u64 {
        evidence.returns().since(now) / 1_000_000_000
    }

    #[test]
    fn each_ejection_is_ten_seconds_longer_up_to_five_minutes() {
        let evidence = Evidence::default();
        let mut now = START;
        for times in 1..=40 {
            evidence.eject(now);
            assert_eq!(seconds_out(&evidence, now), (10 * times).min(300));
            now = evidence.returns();
        }
    }

    #[test]
    fn time_in_service_makes_up_for_ejections() {
        let evidence = Evidence::default();
        evidence.eject(START);
        evidence.eject(evidence.returns());
        evidence.eject(evidence.returns());
        let now = evidence.returns().plus(Duration::from_secs(60));
        evidence.eject(now);
        assert_eq!(
            seconds_out(&evidence, now),
            20,
            "three times, less two, and once more"
        );
    }

    #[test]
    fn a_success_ends_the_row() {
        let evidence = Evidence::default();
        evidence.failed();
        evidence.failed();
        assert_eq!(evidence.failures_in_a_row(), 2);
        evidence.succeeded();
        assert_eq!(evidence.failures_in_a_row(), 0);
    }
}
