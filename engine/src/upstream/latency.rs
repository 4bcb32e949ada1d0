//! How long an endpoint takes to answer: a moving average that believes a peak at once and good news slowly (peak
//! EWMA, as Finagle and Linkerd have it). The estimate also fades while nobody is sent there, so that an endpoint which
//! was slow once is asked again. Decides nothing; `balance` compares.
//!
//! Estimate and time of the last sample are two plain atomics. A race can pair one's estimate with another's time;
//! the error is one sample's worth of fading, and cheaper than a loop on the way of every request.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::moment::{Moment, nanoseconds};

/// After this long without news an estimate has faded to 37 %.
const DECAY: Duration = Duration::from_secs(10);
/// What we think of an endpoint that never answered yet.
pub(super) const INITIAL: Duration = Duration::from_millis(30);
/// Failures double the estimate, up to here: higher would keep a quiet endpoint away for minutes.
const RAISED_AT_MOST: Duration = Duration::from_secs(1);
/// Younger estimates are read as they are (they would have faded by less than 1 %), which spares the exponential.
const FRESH: Duration = Duration::from_millis(100);

/// Shared by all workers, written on every answer.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// Nanoseconds as the bits of an `f64`; zero = no sample yet.
    estimate: AtomicU64,
    sampled: AtomicU64,
}

impl Latency {
    /// Nanoseconds expected at `now`; `None` before the first sample.
    #[inline]
    pub(super) fn estimate(&self, now: Moment) -> Option<f64> {
        let estimate = f64::from_bits(self.estimate.load(Relaxed));
        if estimate == 0.0 {
            return None;
        }
        let age = now.since(Moment(self.sampled.load(Relaxed)));
        if age < nanoseconds(FRESH) {
            Some(estimate)
        } else {
            Some(estimate * kept(age))
        }
    }

    /// An answer began after `took` nanoseconds.
    pub(super) fn sample(&self, took: u64, now: Moment) {
        // Zero is taken; and nothing answers in less than a nanosecond.
        let took = took.max(1) as f64;
        let estimate = f64::from_bits(self.estimate.load(Relaxed));
        if took >= estimate {
            // Also the first sample: it replaces whatever was assumed.
            self.store(took, now);
        } else {
            let kept = kept(now.since(Moment(self.sampled.load(Relaxed))));
            self.store(estimate * kept + took * (1.0 - kept), now);
        }
    }

    /// No answer came for `took` nanoseconds and then somebody gave up: it takes at least that long.
    pub(super) fn at_least(&self, took: u64, now: Moment) {
        if took as f64 > self.estimate(now).unwrap_or(nanoseconds(INITIAL) as f64) {
            self.store(took as f64, now);
        }
    }

    /// The endpoint failed so many times: it shall attract less. A failure is often fast; being fast at failing must not
    /// make it look good.
    pub(super) fn raise(&self, failures: u32, now: Moment) {
        let estimate = self.estimate(now).unwrap_or(nanoseconds(INITIAL) as f64);
        let doubled = estimate * f64::from(1u32 << failures.min(16));
        let raised = doubled.min(nanoseconds(RAISED_AT_MOST) as f64);
        self.store(raised.max(estimate), now);
    }

    /// What was learned is about another time: the next sample is the first again.
    pub(super) fn forget(&self) {
        self.estimate.store(0, Relaxed);
    }

    fn store(&self, estimate: f64, now: Moment) {
        self.estimate.store(estimate.to_bits(), Relaxed);
        self.sampled.store(now.0, Relaxed);
    }
}

/// The share of an estimate that is kept after `age` nanoseconds.
fn kept(age: u64) -> f64 {
    (-(age as f64) / nanoseconds(DECAY) as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const START: Moment = Moment(1_000_000 * MS);

    fn ms(latency: &Latency, now: Moment) -> f64 {
        latency.estimate(now).unwrap() / MS as f64
    }

    #[test]
    fn the_first_sample_replaces_the_assumption() {
        let latency = Latency::default();
        assert_eq!(latency.estimate(START), None);
        latency.sample(2 * MS, START);
        assert_eq!(ms(&latency, START), 2.0);
    }

    #[test]
    fn a_peak_counts_at_once_and_good_news_count_slowly() {
        let latency = Latency::default();
        latency.sample(2 * MS, START);
        latency.sample(200 * MS, START);
        assert_eq!(ms(&latency, START), 200.0);
        let soon = START.plus(Duration::from_millis(50));
        latency.sample(2 * MS, soon);
        assert!(ms(&latency, soon) > 190.0);
        let later = soon.plus(Duration::from_secs(10));
        latency.sample(2 * MS, later);
        assert!(
            (70.0..80.0).contains(&ms(&latency, later)),
            "{}",
            ms(&latency, later)
        );
    }

    #[test]
    fn an_estimate_fades_while_nobody_asks() {
        let latency = Latency::default();
        latency.sample(100 * MS, START);
        let later = START.plus(Duration::from_secs(10));
        assert!((36.0..38.0).contains(&ms(&latency, later)));
    }

    #[test]
    fn failures_double_the_estimate_up_to_a_second() {
        let latency = Latency::default();
        latency.sample(4 * MS, START);
        latency.raise(1, START);
        assert_eq!(ms(&latency, START), 8.0);
        latency.raise(2, START);
        assert_eq!(ms(&latency, START), 32.0);
        latency.raise(50, START);
        assert_eq!(ms(&latency, START), 1000.0);
        latency.at_least(5000 * MS, START);
        latency.raise(1, START);
        assert_eq!(
            ms(&latency, START),
            5000.0,
            "a time-out says how long it takes at least"
        );
    }

    #[test]
    fn giving_up_early_says_nothing() {
        let latency = Latency::default();
        latency.at_least(MS, START);
        assert_eq!(latency.estimate(START), None);
        latency.at_least(900 * MS, START);
        assert_eq!(ms(&latency, START), 900.0);
    }
}
