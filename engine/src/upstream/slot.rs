//! One request's place at an endpoint: raises the load when taken and lowers it when dropped, however the request ends.
//! What is learned from the end is said once, with `finish`; a slot that is only dropped was cancelled, and says
//! nothing about the endpoint.

use std::sync::Arc;
use std::time::Instant;

use super::endpoint::Endpoint;
use super::moment::Moment;

/// What fails always is soon ejected, and the sooner the more it is asked; so failures make it less attractive only when
/// a success shows that it fails sometimes, or when so many in a row have ejected nobody.
const PATIENCE: u32 = 8;

/// How a request at an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, with any status that is not listed below.
    Success,
    /// Not connected, reset, timed out, or answered 502, 503 or 504.
    Failure,
    /// Answered 429, or gRPC `RESOURCE_EXHAUSTED`: alive, but wants less.
    RateLimited,
    /// Our side gave up: the client left, or another try won.
    Cancelled,
}

/// Held for as long as a request or stream is under way.
#[derive(Debug)]
#[must_use = "a dropped slot is a cancelled request"]
pub struct Slot {
    endpoint: Arc<Endpoint>,
    began: Moment,
    answered: bool,
}

impl Slot {
    #[inline]
    pub(super) fn take(endpoint: Arc<Endpoint>, now: Moment) -> Self {
        endpoint.begin();
        Slot {
            endpoint,
            began: now,
            answered: false,
        }
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The answer's head is there. Counts once.
    pub fn first_byte(&mut self, now: Instant) {
        if self.answered {
            return;
        }
        self.answered = true;
        if self.is_news() {
            let now = Moment::from(now);
            self.endpoint
                .load
                .latency
                .sample(now.since(self.began), now);
        }
    }

    /// What began before the endpoint was ejected, or before it started over, says nothing about it now.
    fn is_news(&self) -> bool {
        self.began >= self.endpoint.evidence.returns()
    }

    /// The request is over.
    pub fn finish(self, outcome: Outcome, now: Instant) {
        let now = Moment::from(now);
        let took = now.since(self.began);
        // After the first byte, time says how long a body is and nothing about the endpoint.
        let waited = if self.answered { 0 } else { took };
        let endpoint = &self.endpoint;
        let is_news = self.is_news();
        endpoint.note(now);
        match outcome {
            Outcome::Success => {
                if !self.answered && is_news {
                    endpoint.load.latency.sample(took, now);
                }
                let failures = endpoint.evidence.succeeded();
                if failures > 0 {
                    endpoint.load.latency.raise(failures, now);
                }
            }
            Outcome::Failure => {
                endpoint.count_failure();
                if is_news {
                    endpoint.load.latency.at_least(waited, now);
                    if endpoint.evidence.failed() > PATIENCE {
                        endpoint.load.latency.raise(1, now);
                    }
                }
            }
            Outcome::RateLimited if is_news => endpoint.evidence.asked_for_less(now),
            Outcome::Cancelled if is_news => endpoint.load.latency.at_least(waited, now),
            Outcome::RateLimited | Outcome::Cancelled => {}
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.endpoint.end();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn slot(now: Instant) -> (Arc<Endpoint>, Slot) {
        let endpoint = Arc::new(Endpoint::new(
            "127.0.0.1:1".parse().unwrap(),
            "a:1".into(),
            1,
            None,
        ));
        (endpoint.clone(), Slot::take(endpoint, now.into()))
    }

    #[test]
    fn a_dropped_slot_lowers_the_load_and_gives_no_verdict() {
        let now = Instant::now();
        let (endpoint, slot) = slot(now);
        assert_eq!((endpoint.in_flight(), endpoint.picks()), (1, 1));
        drop(slot);
        assert_eq!(
            (endpoint.in_flight(), endpoint.picks(), endpoint.failures()),
            (0, 1, 0)
        );
        assert_eq!(endpoint.latency_ms(now), None);
        assert_eq!(endpoint.evidence.failures_in_a_row(), 0);
    }

    #[test]
    fn latency_is_the_time_to_the_first_byte_and_not_to_the_last() {
        let now = Instant::now();
        let (endpoint, mut slot) = slot(now);
        slot.first_byte(now + Duration::from_millis(4));
        slot.finish(Outcome::Success, now + Duration::from_millis(40));
        assert_eq!(
            endpoint.latency_ms(now + Duration::from_millis(40)),
            Some(4.0)
        );
        assert_eq!(endpoint.in_flight(), 0);
    }

    #[test]
    fn a_failure_counts_and_once_a_success_follows_makes_the_endpoint_less_attractive() {
        let now = Instant::now();
        let (endpoint, mut slot) = slot(now);
        slot.first_byte(now + Duration::from_millis(4));
        slot.finish(Outcome::Failure, now + Duration::from_millis(4));
        assert_eq!(
            (endpoint.failures(), endpoint.evidence.failures_in_a_row()),
            (1, 1)
        );
        assert_eq!(endpoint.latency_ms(now), Some(4.0));
        Slot::take(endpoint.clone(), now.into()).finish(Outcome::Success, now);
        assert!(endpoint.latency_ms(now) > Some(7.0));
    }

    #[test]
    fn what_fails_on_and_on_without_being_ejected_attracts_less() {
        let now = Instant::now();
        let (endpoint, mut slot) = slot(now);
        slot.first_byte(now + Duration::from_millis(4));
        slot.finish(Outcome::Success, now + Duration::from_millis(4));
        for _ in 0..PATIENCE + 2 {
            Slot::take(endpoint.clone(), now.into()).finish(Outcome::Failure, now);
        }
        assert_eq!(endpoint.latency_ms(now), Some(16.0));
    }

    #[test]
    fn failures_that_began_before_an_ejection_do_not_count_after_it() {
        let now = Instant::now();
        let (endpoint, old) = slot(now);
        endpoint.eject(now.into());
        old.finish(Outcome::Failure, now + Duration::from_secs(60));
        assert_eq!(
            (endpoint.failures(), endpoint.evidence.failures_in_a_row()),
            (1, 0)
        );
        assert_eq!(endpoint.latency_ms(now), None);
        let back = now + Duration::from_secs(60);
        Slot::take(endpoint.clone(), back.into()).finish(Outcome::Failure, back);
        assert_eq!(endpoint.evidence.failures_in_a_row(), 1);
    }

    #[test]
    fn a_rate_limit_is_no_failure_but_attracts_less() {
        let now = Instant::now();
        let (endpoint, mut slot) = slot(now);
        slot.first_byte(now + Duration::from_millis(4));
        slot.finish(Outcome::RateLimited, now + Duration::from_millis(4));
        assert_eq!(
            (endpoint.failures(), endpoint.evidence.failures_in_a_row()),
            (0, 0)
        );
        assert!(endpoint.share((now + Duration::from_millis(4)).into()) < 1.0);
        assert_eq!(endpoint.latency_ms(now), Some(4.0));
    }
}
