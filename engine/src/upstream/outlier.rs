//! What one endpoint's answers say against it: failures in a row, until when it is left alone because of them, and
//! whether it asked for less. How many of its latest requests failed is counted in `window`.
//!
//! Holds observations and no thresholds: those belong to the plan that asks, so a changed threshold applies at the next
//! decision. Counting happens when an answer is finished; ejecting happens in the set (`Endpoints`), which alone knows
//! how many others are out already. Nobody is told to come back: time passes.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::moment::{Moment, nanoseconds};

/// Ejected for this long, times the times ejected …
const EJECTION: Duration = Duration::from_secs(10);
/// … but never longer than this.
const LONGEST: Duration = Duration::from_secs(300);
/// Being in service this long makes up for one ejection.
const FORGIVEN: Duration = Duration::from_secs(30);
/// Each answer that asks for less takes away a tenth of an endpoint's share …
const ASKED: f64 = 0.9;
/// … but never more than this is left of it …
const LEAST: f64 = 0.1;
/// … and all of it is given back, evenly, within this time.
const RECOVERY: Duration = Duration::from_secs(10);

/// The evidence against one endpoint, shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    in_a_row: AtomicU32,
    /// Out of service before, in slow start after. One number for both, so that a return needs no event.
    returns: AtomicU64,
    times: AtomicU32,
    /// It failed since it was last compared with the others.
    suspected: AtomicBool,
    /// When it has its whole share again after it asked for less.
    recovers: AtomicU64,
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

    /// Ends the row of failures; says how many there were.
    pub(super) fn succeeded(&self) -> u32 {
        // Reading first leaves the cache line shared in the ordinary case.
        match self.in_a_row.load(Relaxed) {
            0 => 0,
            _ => self.in_a_row.swap(0, Relaxed),
        }
    }

    /// A request failed. What began before the endpoint returned is old news, and not told: it must not eject it a
    /// second time.
    /// Says how many failed in a row by now.
    pub(super) fn failed(&self) -> u32 {
        self.suspected.store(true, Relaxed);
        self.in_a_row.fetch_add(1, Relaxed) + 1
    }

    #[inline]
    pub(super) fn is_suspected(&self) -> bool {
        self.suspected.load(Relaxed)
    }

    /// It is being compared with the others.
    pub(super) fn compared(&self) {
        self.suspected.store(false, Relaxed);
    }

    /// It answered that it wants less (429, `RESOURCE_EXHAUSTED`). Such answers are fast; without this they would
    /// attract more.
    pub(super) fn asked_for_less(&self, now: Moment) {
        let share = (self.share(now) * ASKED).max(LEAST);
        let whole = RECOVERY.mul_f64(1.0 - share);
        self.recovers.fetch_max(now.plus(whole).0, Relaxed);
    }

    /// The share of its weight that an endpoint has left after asking for less; 1 ten seconds later.
    #[inline]
    pub(super) fn share(&self, now: Moment) -> f64 {
        let recovers = Moment(self.recovers.load(Relaxed));
        if recovers <= now {
            return 1.0;
        }
        (1.0 - recovers.since(now) as f64 / nanoseconds(RECOVERY) as f64).max(LEAST)
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
    pub(super) fn stay(&self) -> u32 {
        self.in_a_row.swap(0, Relaxed)
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
    fn each_answer_that_asks_for_less_takes_a_tenth_of_the_share_and_time_gives_it_back() {
        let evidence = Evidence::default();
        assert_eq!(evidence.share(START), 1.0);
        evidence.asked_for_less(START);
        assert!((evidence.share(START) - 0.9).abs() < 1e-6);
        evidence.asked_for_less(START);
        assert!((evidence.share(START) - 0.81).abs() < 1e-6);
        for _ in 0..100 {
            evidence.asked_for_less(START);
        }
        assert!((evidence.share(START) - LEAST).abs() < 1e-6);
        let later = |seconds| evidence.share(START.plus(Duration::from_secs(seconds)));
        assert!((later(4) - 0.5).abs() < 1e-6);
        assert_eq!(later(9), 1.0);
    }

    #[test]
    fn a_success_ends_the_row() {
        let evidence = Evidence::default();
        evidence.failed();
        evidence.failed();
        assert_eq!(evidence.failures_in_a_row(), 2);
        assert_eq!(evidence.succeeded(), 2);
        assert_eq!(evidence.failures_in_a_row(), 0);
    }
}
