//! Whether one registry is asked at all (REG-409): more patient than the breakers of services, because a registry that is
//! not asked leaves everybody with what they knew.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 10;
/// For so long nothing is asked; then one question is, as a probe.
const OPEN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
}

impl Breaker {
    /// May it be asked now? Once its time is over, whoever asks first is the probe, and the others wait for what comes of it
    /// as long as it was open.
    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        match self.open_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.open_until = Some(now + OPEN);
                true
            }
        }
    }

    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.open_until.is_some_and(|until| now < until)
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Breaker::default();
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            self.open_until = Some(now + OPEN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reg_409_ten_failures_in_a_row_open_it_for_thirty_seconds() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..9 {
            assert!(breaker.admits(start));
            breaker.failed(start);
        }
        breaker.succeeded();
        for _ in 0..10 {
            assert!(breaker.admits(start) && !breaker.is_open(start));
            breaker.failed(start);
        }
        let soon = start + Duration::from_millis(29_999);
        assert!(breaker.is_open(soon) && !breaker.admits(soon));
        let later = start + OPEN;
        assert!(breaker.admits(later), "a probe");
        assert!(!breaker.admits(later), "one, not many");
        breaker.failed(later);
        assert!(!breaker.admits(later + Duration::from_secs(29)));
        assert!(breaker.admits(later + OPEN));
        breaker.succeeded();
        assert!(breaker.admits(later + OPEN) && breaker.admits(later + OPEN));
    }
}
