//! What active probes say about one endpoint. `Watch` is the pure state between probes: results in, turns and waiting
//! times out. `Verdict` is what remains in the endpoint's memory, for those who pick and for status.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tollgate_config::Health;

use super::moment::Moment;

/// The first wait of an unhealthy endpoint; doubled up to the interval (GW-706).
const RECHECK: Duration = Duration::from_secs(1);
/// Waits vary by this share in either direction, so that many gateways do not probe in step.
const JITTER: f64 = 0.1;

/// An endpoint's health changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    Healthy,
    /// Why the last probe failed.
    Unhealthy(String),
}

/// One endpoint between two probes.
#[derive(Debug)]
pub struct Watch {
    healthy: bool,
    /// Results in a row that speak against the present opinion.
    against: u32,
    rechecks: u32,
}

impl Watch {
    /// An endpoint is trusted until probes say otherwise; one that was found failing before stays so.
    pub fn new(healthy: bool) -> Self {
        Watch {
            healthy,
            against: 0,
            rechecks: 0,
        }
    }

    /// A probe passed, or failed for a reason.
    pub fn record(&mut self, policy: &Health, result: Result<(), String>) -> Option<Turn> {
        if result.is_ok() == self.healthy {
            self.against = 0;
            self.rechecks = self.rechecks.saturating_add(1);
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.healthy {
            policy.unhealthy_after
        } else {
            policy.healthy_after
        };
        if self.against < needed {
            return None;
        }
        *self = Watch::new(!self.healthy);
        Some(match result {
            Ok(()) => Turn::Healthy,
            Err(reason) => Turn::Unhealthy(reason),
        })
    }

    /// How long to wait before the next probe.
    pub fn wait(&self, policy: &Health, random: u64) -> Duration {
        let plain = if self.healthy {
            policy.interval
        } else {
            RECHECK
                .saturating_mul(1 << self.rechecks.min(16))
                .min(policy.interval)
        };
        jittered(plain, random)
    }

    /// How long to wait before the first probe: soon, yet not all endpoints at once.
    pub fn first_wait(policy: &Health, random: u64) -> Duration {
        policy.interval.min(RECHECK).mul_f64(fraction(random) / 2.0)
    }
}

fn jittered(span: Duration, random: u64) -> Duration {
    span.mul_f64(1.0 + JITTER * (2.0 * fraction(random) - 1.0))
}

/// From 0 to below 1.
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

/// What probes found, kept by the endpoint.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    failing: AtomicBool,
    failures_in_a_row: AtomicU32,
    checked: AtomicU64,
    /// Why the last failed probe failed. Locked by probes and status only.
    reason: Mutex<Option<String>>,
}

impl Verdict {
    #[inline]
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    /// The last probe was good, and those before it do not say otherwise.
    pub(super) fn is_passing(&self) -> bool {
        !self.is_failing() && self.failures_in_a_row() == 0 && self.checked().is_some()
    }

    pub(super) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Relaxed);
    }

    pub(super) fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row.load(Relaxed)
    }

    /// When the last probe ended; `None` if there was none.
    pub(super) fn checked(&self) -> Option<Moment> {
        Some(Moment(self.checked.load(Relaxed))).filter(|&moment| moment > Moment::LONG_AGO)
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.reason
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn note(&self, result: &Result<(), String>, now: Moment) {
        self.checked.store(now.0, Relaxed);
        match result {
            Ok(()) => self.failures_in_a_row.store(0, Relaxed),
            Err(_) => {
                self.failures_in_a_row.fetch_add(1, Relaxed);
            }
        }
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) =
            result.as_ref().err().cloned();
    }

    /// Nobody probes any more.
    pub(super) fn forget(&self) {
        self.set_failing(false);
        self.failures_in_a_row.store(0, Relaxed);
        self.checked.store(0, Relaxed);
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use tollgate_config::Probe;

    use super::*;

    fn policy() -> Health {
        Health {
            probe: Probe::Tcp,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            unhealthy_after: 3,
            healthy_after: 2,
        }
    }

    fn failed() -> Result<(), String> {
        Err("refused".into())
    }

    /// GW-706.
    #[test]
    fn several_failures_in_a_row_are_needed() {
        let mut watch = Watch::new(true);
        for result in [failed(), failed(), Ok(()), failed(), failed()] {
            assert_eq!(watch.record(&policy(), result), None);
        }
        assert_eq!(
            watch.record(&policy(), failed()),
            Some(Turn::Unhealthy("refused".into()))
        );
        assert_eq!(
            watch.record(&policy(), failed()),
            None,
            "a turn is told once"
        );
    }

    /// GW-706.
    #[test]
    fn an_unhealthy_endpoint_comes_back_after_its_successes() {
        let mut watch = Watch::new(false);
        assert_eq!(watch.record(&policy(), Ok(())), None);
        assert_eq!(watch.record(&policy(), failed()), None);
        assert_eq!(watch.record(&policy(), Ok(())), None);
        assert_eq!(watch.record(&policy(), Ok(())), Some(Turn::Healthy));
    }

    /// GW-706.
    #[test]
    fn an_unhealthy_endpoint_is_asked_soon_and_then_ever_later() {
        let middle = u64::MAX / 2;
        let mut watch = Watch::new(true);
        assert_eq!(watch.wait(&policy(), middle).as_secs_f64().round(), 10.0);
        for _ in 0..3 {
            watch.record(&policy(), failed());
        }
        let mut waits = Vec::new();
        for _ in 0..6 {
            waits.push(watch.wait(&policy(), middle).as_secs_f64().round());
            watch.record(&policy(), failed());
        }
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
    }

    #[test]
    fn waits_vary_by_a_tenth() {
        let watch = Watch::new(true);
        assert_eq!(watch.wait(&policy(), 0), Duration::from_secs(9));
        assert!(watch.wait(&policy(), u64::MAX) > Duration::from_millis(10_990));
        assert!(watch.wait(&policy(), u64::MAX) <= Duration::from_secs(11));
        assert!(Watch::first_wait(&policy(), u64::MAX) <= Duration::from_millis(500));
    }
}
