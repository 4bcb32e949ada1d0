//! Tokens that were nobody's, by the address that they came from: a few may be mistakes, more are guesses, and after
//! ten no other token from there is looked at until time has passed. A token that was good from the same address stays
//! good: who guesses behind the same door must not lock the others out. Pure: `now` is an argument; bounded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// So many in a row are mistakes.
const MISTAKES: u32 = 10;
/// After so long one of them is forgotten.
const FORGET: Duration = Duration::from_secs(6);
/// How long a token is remembered to have been good from an address.
const REMEMBER: Duration = Duration::from_secs(3600);
/// Throwing out is a look at all of them, so not at each failure of a flood.
const TIDY: Duration = Duration::from_secs(1);
/// Addresses, and good tokens, that are remembered.
const MOST: usize = 10_000;

#[derive(Debug, Default)]
pub struct Failures {
    /// When the last failure of an address is forgotten; all before it are, too.
    until: HashMap<IpAddr, Duration>,
    /// When a token from an address was good.
    good: HashMap<(IpAddr, u64), Duration>,
    /// When what is over was thrown out last.
    tidied: Duration,
}

impl Failures {
    /// Whether a token from there is looked at, or how long none is.
    pub fn may_try(&self, from: IpAddr, token: u64, now: Duration) -> Result<(), Duration> {
        let from = network(from);
        let known = |good: &Duration| now < *good + REMEMBER;
        if self.good.get(&(from, token)).is_some_and(known) {
            return Ok(());
        }
        let until = self.until.get(&self.row(from)).copied();
        let owed = until.unwrap_or_default().saturating_sub(now);
        match owed.checked_sub(FORGET * (MISTAKES - 1)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// It was nobody's. Whether the next one from there is not looked at.
    pub fn failed(&mut self, from: IpAddr, now: Duration) -> bool {
        if self.until.len() >= MOST {
            self.tidy(now);
        }
        let row = self.row(network(from));
        let until = self.until.entry(row).or_default();
        *until = (*until).max(now) + FORGET;
        *until > now + FORGET * (MISTAKES - 1)
    }

    pub fn succeeded(&mut self, from: IpAddr, token: u64, now: Duration) {
        let key = (network(from), token);
        if self.good.len() >= MOST && !self.good.contains_key(&key) {
            self.tidy(now);
            if self.good.len() >= MOST {
                return;
            }
        }
        self.good.insert(key, now);
    }

    fn tidy(&mut self, now: Duration) {
        if now < self.tidied + TIDY {
            return;
        }
        self.tidied = now;
        self.until.retain(|_, until| *until > now);
        self.good.retain(|_, good| now < *good + REMEMBER);
    }

    /// Where an address is counted. When too many are, the others are counted as one.
    fn row(&self, from: IpAddr) -> IpAddr {
        match self.until.contains_key(&from) || self.until.len() < MOST {
            true => from,
            false => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// Whoever has an IPv6 address has a /64 of them.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn ten_are_mistakes_and_the_next_is_not_looked_at_until_one_is_forgotten() {
        let mut failures = Failures::default();
        let (eve, ada) = (ip("10.0.0.9"), ip("10.0.0.1"));
        for number in 1..=10 {
            assert_eq!(failures.may_try(eve, 1, s(0)), Ok(()));
            assert_eq!(failures.failed(eve, s(0)), number == 10);
        }
        assert_eq!(failures.may_try(eve, 1, s(0)), Err(s(6)));
        assert_eq!(failures.may_try(eve, 1, s(5)), Err(s(1)));
        assert_eq!(failures.may_try(eve, 1, s(6)), Ok(()));
        assert!(failures.failed(eve, s(6)));
        assert_eq!(failures.may_try(ada, 1, s(0)), Ok(()), "others are others");
        assert_eq!(failures.may_try(eve, 1, s(100)), Ok(()));
    }

    #[test]
    fn who_was_good_stays_good_behind_the_door_of_who_guesses() {
        let mut failures = Failures::default();
        let nat = ip("10.0.0.9");
        failures.succeeded(nat, 7, s(0));
        for _ in 0..100 {
            failures.failed(nat, s(1));
        }
        assert_eq!(failures.may_try(nat, 7, s(1)), Ok(()));
        assert!(failures.may_try(nat, 8, s(1)).is_err());
        assert!(failures.may_try(ip("10.0.0.8"), 7, s(1)).is_ok());
        // So long ago that it may be somebody else's by now.
        for _ in 0..100 {
            failures.failed(nat, s(3600));
        }
        assert!(failures.may_try(nat, 7, s(3600)).is_err());
    }

    #[test]
    fn an_ipv6_network_is_one_and_so_are_all_of_too_many() {
        let mut failures = Failures::default();
        for host in 0..10 {
            failures.failed(ip(&format!("fd00::{host:x}")), s(0));
        }
        assert!(failures.may_try(ip("fd00::ffff"), 1, s(0)).is_err());
        assert!(failures.may_try(ip("fd00:0:0:1::1"), 1, s(0)).is_ok());
        for number in 0..2 * MOST as u32 {
            failures.failed(IpAddr::from(number.to_be_bytes()), s(0));
        }
        assert!(failures.until.len() <= MOST + 1);
        assert!(failures.may_try(ip("200.0.0.1"), 1, s(0)).is_err());
        for token in 0..2 * MOST as u64 {
            failures.succeeded(ip("10.0.0.1"), token, s(0));
        }
        assert!(failures.good.len() <= MOST);
        failures.failed(ip("10.0.0.1"), s(100_000));
        assert_eq!(failures.until.len(), 1, "what is over is thrown out");
    }
}
