//! How many tries of two kinds there were in each of the last seconds, counted apart by every worker. Counting is a
//! plain load and a plain store on a line of the worker's own; summing reads all of them, and happens only where
//! something has gone wrong or somebody looks. Holds no window: who sums says how far back.
//!
//! A worker's seconds come into being with its first try: an upstream that nobody asks costs next to nothing.
//!
//! A tally belongs to an *era* (a number that the caller chooses): with the first count of another era a worker's
//! seconds begin anew, and counts of other eras are in no sum.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::moment::Moment;

/// Seconds that are kept; a power of two above the longest window (60 s).
const KEPT: u64 = 64;
/// Bits of each count in a second; more than a million tries a second and worker are counted as that many.
const BITS: u32 = 20;
const MOST: u64 = (1 << BITS) - 1;
/// Bits of a second's number. It comes round after half a year, when the counts of then have long been written over.
const SECONDS: u64 = (1 << 24) - 1;

/// Counts of two kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) good: u64,
    pub(super) bad: u64,
}

impl Counts {
    pub(super) fn total(self) -> u64 {
        self.good + self.bad
    }
}

#[derive(Debug)]
pub(super) struct Tally {
    workers: Box<[OnceLock<Box<Seconds>>]>,
}

/// Written by one worker only.
#[derive(Debug)]
#[repr(align(128))]
struct Seconds {
    era: AtomicU64,
    /// Good ones, ever.
    good: AtomicU64,
    /// Number of the second, then how many good ones and bad ones.
    slots: [AtomicU64; KEPT as usize],
}

impl Default for Seconds {
    fn default() -> Self {
        Seconds {
            era: AtomicU64::new(0),
            good: AtomicU64::new(0),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Tally {
    pub(super) fn new(workers: usize) -> Self {
        Tally {
            workers: (0..workers.max(1)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// One more. Only this worker's thread may pass this number.
    #[inline]
    pub(super) fn note(&self, worker: usize, era: u64, now: Moment, good: bool) {
        let Some(own) = self.own(worker, era) else {
            return;
        };
        if good {
            own.good
                .store(own.good.load(Ordering::Relaxed) + 1, Ordering::Release);
            own.change(now, |counts| counts.good += 1);
        } else {
            own.change(now, |counts| counts.bad += 1);
        }
    }

    /// What was noted as good `then` was bad after all.
    pub(super) fn correct(&self, worker: usize, era: u64, then: Moment, now: Moment) {
        let Some(own) = self.own(worker, era) else {
            return;
        };
        if own.has(then) {
            own.change(then, |counts| counts.good = counts.good.saturating_sub(1));
        }
        own.change(now, |counts| counts.bad += 1);
    }

    #[inline]
    fn own(&self, worker: usize, era: u64) -> Option<&Seconds> {
        let own = self.workers.get(worker)?.get_or_init(Box::default);
        if own.era.load(Ordering::Relaxed) != era {
            own.begin(era);
        }
        Some(own)
    }

    /// Good ones of all eras. The same twice: nobody noted a good one in between.
    pub(super) fn good_ever(&self) -> u64 {
        let workers = self.workers.iter().filter_map(OnceLock::get);
        workers
            .map(|worker| worker.good.load(Ordering::Acquire))
            .sum()
    }

    /// What was counted in the present second and in those before it, so many in all.
    pub(super) fn sum(&self, era: u64, window: Duration, now: Moment) -> Counts {
        let (present, window) = (second(now), window.as_secs().min(KEPT - 1));
        // The other half of all numbers is the future: another worker's clock may be a little ahead.
        self.sum_of(era, |second| {
            let age = present.wrapping_sub(second) & SECONDS;
            age < window || age > SECONDS / 2
        })
    }

    /// What was counted in these seconds, as numbered by `Moment`; they must be among the last that are kept.
    pub(super) fn sum_between(&self, era: u64, seconds: Range<u64>) -> Counts {
        let (first, count) = (seconds.start & SECONDS, seconds.end - seconds.start);
        self.sum_of(era, |second| (second.wrapping_sub(first) & SECONDS) < count)
    }

    fn sum_of(&self, era: u64, wanted: impl Fn(u64) -> bool) -> Counts {
        let mut sum = Counts::default();
        for worker in self.workers.iter().filter_map(OnceLock::get) {
            if worker.era.load(Ordering::Acquire) != era {
                continue;
            }
            for slot in &worker.slots {
                let (second, counts) = unpacked(slot.load(Ordering::Acquire));
                if wanted(second) {
                    sum.good += counts.good;
                    sum.bad += counts.bad;
                }
            }
        }
        sum
    }
}

impl Seconds {
    #[inline]
    fn change(&self, now: Moment, change: impl FnOnce(&mut Counts)) {
        let second = second(now);
        let slot = &self.slots[(second % KEPT) as usize];
        let (known, mut counts) = unpacked(slot.load(Ordering::Relaxed));
        if known != second {
            counts = Counts::default();
        }
        change(&mut counts);
        // Whoever sums after having heard of this try from us sees it counted.
        slot.store(packed(second, counts), Ordering::Release);
    }

    /// Whether this moment's second is still there.
    fn has(&self, then: Moment) -> bool {
        let second = second(then);
        let slot = self.slots[(second % KEPT) as usize].load(Ordering::Relaxed);
        unpacked(slot).0 == second
    }

    #[cold]
    fn begin(&self, era: u64) {
        for slot in &self.slots {
            slot.store(0, Ordering::Relaxed);
        }
        self.era.store(era, Ordering::Release);
    }
}

/// The number of a moment's second.
fn second(now: Moment) -> u64 {
    (now.0 / 1_000_000_000) & SECONDS
}

fn packed(second: u64, counts: Counts) -> u64 {
    second << (2 * BITS) | counts.good.min(MOST) << BITS | counts.bad.min(MOST)
}

fn unpacked(slot: u64) -> (u64, Counts) {
    let counts = Counts {
        good: slot >> BITS & MOST,
        bad: slot & MOST,
    };
    (slot >> (2 * BITS), counts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 5_000_000_000_000;

    fn at(milliseconds: u64) -> Moment {
        Moment(START + milliseconds * 1_000_000)
    }

    proptest! {
        /// Against a list of everything that ever happened.
        #[test]
        fn a_sum_is_what_a_list_of_all_tries_says(
            tries in prop::collection::vec((0..3usize, 0..4_000u64, any::<bool>()), 0..300),
            window in 1..=60u64,
        ) {
            let tally = Tally::new(3);
            let (mut now, mut all) = (0, Vec::new());
            for (worker, pause, good) in tries {
                now += pause;
                tally.note(worker, 7, at(now), good);
                all.push((now, good));
                let first = (now / 1000 + 1).saturating_sub(window);
                let within = all.iter().filter(|(when, _)| when / 1000 >= first);
                let within: Vec<bool> = within.map(|(_, good)| *good).collect();
                let good = within.iter().filter(|good| **good).count() as u64;
                let sum = tally.sum(7, Duration::from_secs(window), at(now));
                prop_assert_eq!((sum.good, sum.total()), (good, within.len() as u64));
            }
        }
    }

    #[test]
    fn seconds_are_summed_without_their_neighbours() {
        let tally = Tally::new(1);
        for second in 0..10 {
            tally.note(0, 1, at(second * 1000), second % 2 == 0);
        }
        let first = START / 1_000_000_000 + 3;
        let sum = tally.sum_between(1, first..first + 4);
        assert_eq!(sum, Counts { good: 2, bad: 2 });
    }

    #[test]
    fn another_era_begins_with_nothing() {
        let (tally, window) = (Tally::new(2), Duration::from_secs(60));
        tally.note(0, 1, at(0), false);
        tally.note(1, 1, at(0), false);
        tally.note(0, 2, at(1), true);
        assert_eq!(tally.sum(1, window, at(1)).total(), 1, "worker 1 is behind");
        assert_eq!(tally.sum(2, window, at(1)), Counts { good: 1, bad: 0 });
    }

    #[test]
    fn a_million_in_a_second_do_not_run_over_into_the_other_count() {
        let tally = Tally::new(1);
        for _ in 0..(MOST + 10) {
            tally.note(0, 0, at(0), false);
        }
        let sum = tally.sum(0, Duration::from_secs(10), at(0));
        assert_eq!(sum, Counts { good: 0, bad: MOST });
    }
}
