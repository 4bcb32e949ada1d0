//! A token bucket in one word: how much is in it, and when that was true. Pure arithmetic: `take` makes the next word of
//! the one before, and whoever owns the word puts it there by a compare-and-swap, so that of N concurrent takes on k
//! tokens exactly k are admitted (GW-306). A refusal changes nothing, so under overload nothing is written.
//!
//! Why not a theoretical arrival time (GCRA), which is one word too: it counts in time, and a time means another level
//! as soon as the rate changes. A level stays what it is: a changed rate or burst applies at the next take and forgets
//! nothing (GW-311).
//!
//! Exactness. What comes back between two moments is `accrued(later) - accrued(earlier)`, where `accrued` is a function
//! of the clock alone. Over any number of takes these differences add up to that of the ends: rounding does not
//! accumulate, whatever the rate, and fractions of a token are never lost (GW-305). A word counts in sixteenths of a
//! token and in ticks of 1,024 ns, so what a bucket admits in any span is off by less than one token for every rate
//! that a document may hold (a million in a second).

use std::time::Duration;

use tollgate_config::unit::Rate;

use crate::moment::{Moment, nanoseconds};

/// A token is so many parts, as a power of two.
const FRACTION: u32 = 4;
const ONE: u64 = 1 << FRACTION;
/// A tick is so many nanoseconds, as a power of two.
const TICK: u32 = 10;
/// Low bits of a word: the tick at which its level was true. They come round after 19.5 hours; `refreshed` is called
/// for every word that is kept, far more often than that.
const STAMP: u32 = 36;
const STAMPS: u64 = (1 << STAMP) - 1;
/// A stamp that seems so near to coming round is one of the future: another core's clock, or one that was set back.
/// 2.4 hours.
const AHEAD: u64 = 1 << 33;

/// No bucket's word: a level that no document can ask for.
pub(super) const VACANT: u64 = u64::MAX;

/// How much a bucket holds and how fast it fills, ready to compute with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// Parts in a tick, with 64 binary places.
    parts_per_tick: u128,
    /// Parts in a full bucket.
    capacity: u64,
    /// The most that a word may hold: what came with the last tick is kept beside a full bucket, or small buckets at
    /// rates beyond 60,000 in a second would lose a part of every tick. Below that it is the capacity.
    brim: u64,
    rate: Rate,
}

/// How a take ended, and what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub admitted: bool,
    /// Parts that are in the bucket now.
    level: u64,
}

impl Pace {
    /// `rate` and `burst` as a document may hold them: a million in a second, ten million tokens.
    pub fn new(rate: Rate, burst: u64) -> Self {
        let parts = u128::from(rate.count) << (FRACTION + TICK);
        let span = rate.per.as_nanos().max(1);
        // The whole part and the rest apart: the product would not fit.
        let parts_per_tick = ((parts / span) << 64) + ((parts % span) << 64) / span;
        let capacity = burst << FRACTION;
        let tick = u64::try_from(parts_per_tick >> 64).unwrap_or(u64::MAX);
        Pace {
            parts_per_tick,
            capacity,
            brim: capacity.saturating_add(tick),
            rate,
        }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Tokens in a full bucket.
    pub fn burst(&self) -> u64 {
        self.capacity >> FRACTION
    }

    /// The word of a bucket that nobody took from yet.
    pub(super) fn full(&self, now: Moment) -> u64 {
        word(self.capacity, now.0 >> TICK)
    }

    /// Takes one token. `None`: nothing changes.
    pub(super) fn take(&self, was: u64, now: Moment) -> (Option<u64>, Taken) {
        let (level, stamp) = self.at(was, now);
        let admitted = level >= ONE;
        let left = if admitted { level - ONE } else { level };
        let taken = Taken {
            admitted,
            level: left,
        };
        (admitted.then(|| word(left, stamp)), taken)
    }

    /// What is there, without taking any of it.
    pub(super) fn look(&self, was: u64, now: Moment) -> Taken {
        Taken {
            admitted: false,
            level: self.at(was, now).0,
        }
    }

    /// The same bucket, told as of now.
    pub(super) fn refreshed(&self, was: u64, now: Moment) -> u64 {
        let (level, stamp) = self.at(was, now);
        word(level, stamp)
    }

    /// Nanoseconds until the bucket is full; 0: it is, and tells nothing more than one that is not there.
    pub(super) fn until_full(&self, was: u64, now: Moment) -> u64 {
        self.span(self.capacity.saturating_sub(self.at(was, now).0))
    }

    /// Level and stamp as of now. Time that goes backwards neither gives nor takes; a jump forward gives one bucket at
    /// most (GW-307).
    fn at(&self, was: u64, now: Moment) -> (u64, u64) {
        let now = now.0 >> TICK;
        let (level, stamp) = (was >> STAMP, was & STAMPS);
        let passed = now.wrapping_sub(stamp) & STAMPS;
        if passed > STAMPS - AHEAD {
            return (level.min(self.brim), stamp);
        }
        let came = self.accrued(now) - self.accrued(now.saturating_sub(passed));
        let level = u128::from(level) + came;
        let level = u64::try_from(level).map_or(self.brim, |level| level.min(self.brim));
        (level, now)
    }

    /// Parts since tick 0. A moment has 54 bits of ticks and a rate at most 69, so the product fits.
    fn accrued(&self, tick: u64) -> u128 {
        (u128::from(tick) * self.parts_per_tick) >> 64
    }

    /// How long so many parts take, rounded up.
    fn span(&self, parts: u64) -> u64 {
        let (per, count) = (nanoseconds(self.rate.per), self.rate.count << FRACTION);
        match parts.checked_mul(per) {
            Some(product) => product.div_ceil(count),
            None => {
                let span = (u128::from(parts) * u128::from(per)).div_ceil(u128::from(count));
                u64::try_from(span).unwrap_or(u64::MAX)
            }
        }
    }

    /// As a take of whole tokens ended elsewhere.
    pub(super) fn taken(&self, admitted: bool, left: u64) -> Taken {
        let level = left.saturating_mul(ONE).min(self.capacity);
        Taken { admitted, level }
    }

    /// How long until there is a whole token again, to a tick.
    pub fn until_one(&self, taken: Taken) -> Duration {
        Duration::from_nanos(self.span(ONE.saturating_sub(taken.level)))
    }

    /// How long until the bucket is full again.
    pub fn until_all(&self, taken: Taken) -> Duration {
        Duration::from_nanos(self.span(self.capacity.saturating_sub(taken.level)))
    }
}

impl Taken {
    /// Whole tokens that are left.
    pub fn remaining(self) -> u64 {
        self.level >> FRACTION
    }
}

fn word(level: u64, tick: u64) -> u64 {
    (level << STAMP) | (tick & STAMPS)
}

#[cfg(test)]
mod tests;
