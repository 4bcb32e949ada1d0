//! Which of several registries is asked, and in which order (REG-407): as they were named, those that failed lately last, and
//! those whose breaker is open not at all. One that has rested is first again.

use std::time::{Duration, Instant};

use crate::breaker::Breaker;

/// How long one rests after a failure; twice as long after each further one.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Addresses(Vec<Address>);

#[derive(Debug, Default)]
struct Address {
    breaker: Breaker,
    failures: u32,
    rests_until: Option<Instant>,
}

impl Addresses {
    pub(crate) fn new(count: usize) -> Self {
        Addresses((0..count).map(|_| Address::default()).collect())
    }

    /// The numbers of those to try, the best first.
    pub(crate) fn order(&self, now: Instant) -> Vec<usize> {
        let rests = |number: &usize| self.0[*number].rests_until.is_some_and(|until| now < until);
        let (last, first): (Vec<usize>, Vec<usize>) = (0..self.0.len()).partition(rests);
        [first, last].concat()
    }

    /// Asked before each question to one of them.
    pub(crate) fn admits(&mut self, number: usize, now: Instant) -> bool {
        let address = self.0.get_mut(number);
        address.is_some_and(|address| address.breaker.admits(now))
    }

    pub(crate) fn succeeded(&mut self, number: usize) {
        if let Some(address) = self.0.get_mut(number) {
            address.breaker.succeeded();
            address.failures = 0;
            address.rests_until = None;
        }
    }

    pub(crate) fn failed(&mut self, number: usize, now: Instant) {
        if let Some(address) = self.0.get_mut(number) {
            let rest = REST
                .saturating_mul(1 << address.failures.min(5))
                .min(LONGEST_REST);
            address.failures += 1;
            address.rests_until = Some(now + rest);
            address.breaker.failed(now);
        }
    }

    /// Nobody can be asked: what is known must do.
    pub(crate) fn all_open(&self, now: Instant) -> bool {
        self.0.iter().all(|address| address.breaker.is_open(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reg_407_who_failed_is_asked_last_until_it_has_rested() {
        let (mut addresses, start) = (Addresses::new(3), Instant::now());
        assert_eq!(addresses.order(start), [0, 1, 2]);
        addresses.failed(0, start);
        assert_eq!(addresses.order(start), [1, 2, 0]);
        addresses.failed(1, start);
        assert_eq!(addresses.order(start), [2, 0, 1]);
        assert_eq!(addresses.order(start + REST), [0, 1, 2], "failback");
        addresses.failed(0, start + REST);
        assert_eq!(
            addresses.order(start + REST + REST),
            [1, 2, 0],
            "twice as long"
        );
        addresses.succeeded(0);
        assert_eq!(addresses.order(start + REST), [0, 1, 2]);
    }

    #[test]
    fn reg_409_when_all_breakers_are_open_nobody_is_asked() {
        let (mut addresses, start) = (Addresses::new(2), Instant::now());
        for _ in 0..10 {
            assert!(!addresses.all_open(start));
            addresses.failed(0, start);
            addresses.failed(1, start);
        }
        assert!(addresses.all_open(start));
        assert!(!addresses.admits(0, start) && !addresses.admits(1, start));
    }
}
