//! How many of an endpoint's latest requests failed. Counts nothing by itself: twice a second it notes what the endpoint
//! had counted by then, so that the difference to now is exact and costs a request one comparison. Knows no threshold.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use super::moment::{Moment, nanoseconds};

/// From one note to the next.
const STEP: u64 = nanoseconds(Duration::from_millis(500));
/// Older notes say nothing.
const STEPS: u64 = 20;
/// More than are read, so that no note is overwritten while somebody reads it.
const NOTES: usize = 24;

/// Shared by all workers; written twice a second.
#[derive(Debug, Default)]
pub(super) struct Window {
    latest: AtomicU64,
    notes: [Note; NOTES],
}

/// What had been counted when a step began.
#[derive(Debug, Default)]
struct Note {
    /// Number of the step; 0: none.
    step: AtomicU64,
    finished: AtomicU64,
    failed: AtomicU64,
}

/// Requests that ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) finished: u64,
    pub(super) failed: u64,
}

impl Counts {
    /// The share that failed.
    pub(super) fn share(self) -> f64 {
        self.failed as f64 / self.finished.max(1) as f64
    }

    pub(super) fn plus(self, other: Counts) -> Counts {
        Counts {
            finished: self.finished + other.finished,
            failed: self.failed + other.failed,
        }
    }

    fn since(self, earlier: Counts) -> Counts {
        Counts {
            finished: self.finished.saturating_sub(earlier.finished),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }
}

impl Window {
    /// Before a request is counted at `now`: `counted` is what was counted until here.
    #[inline]
    pub(super) fn note(&self, now: Moment, counted: impl Fn() -> Counts) {
        let step = now.0 / STEP;
        let latest = self.latest.load(Relaxed);
        if step > latest {
            self.begin_step(step, latest, counted());
        }
    }

    #[cold]
    fn begin_step(&self, step: u64, latest: u64, counted: Counts) {
        if self
            .latest
            .compare_exchange(latest, step, Relaxed, Relaxed)
            .is_err()
        {
            return;
        }
        let note = &self.notes[(step % NOTES as u64) as usize];
        note.step.store(0, Relaxed);
        note.finished.store(counted.finished, Relaxed);
        note.failed.store(counted.failed, Relaxed);
        note.step.store(step, Release);
    }

    /// The latest requests: back to the first note that has at least `volume` of them behind it, or as far as notes
    /// reach, but not to `since` and before. `counted` is what has been counted until now.
    pub(super) fn latest(
        &self,
        volume: u64,
        since: Moment,
        now: Moment,
        counted: Counts,
    ) -> Counts {
        let last = now.0 / STEP;
        let first = last.saturating_sub(STEPS).max(since.0 / STEP + 1);
        let mut found = Counts::default();
        for step in (first..=last).rev() {
            let note = &self.notes[(step % NOTES as u64) as usize];
            if note.step.load(Acquire) != step {
                continue;
            }
            found = counted.since(Counts {
                finished: note.finished.load(Relaxed),
                failed: note.failed.load(Relaxed),
            });
            if found.finished >= volume {
                break;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: u64 = STEP;
    const START: Moment = Moment(7200 * HALF);

    /// A window and the counters that it notes.
    #[derive(Default)]
    struct Counter {
        window: Window,
        counted: Counts,
    }

    impl Counter {
        fn count(&mut self, finished: u64, failed: u64, now: Moment) {
            self.window.note(now, || self.counted);
            self.counted = self.counted.plus(Counts { finished, failed });
        }

        fn latest(&self, volume: u64, now: Moment) -> (u64, u64) {
            let counts = self
                .window
                .latest(volume, Moment::LONG_AGO, now, self.counted);
            (counts.finished, counts.failed)
        }
    }

    #[test]
    fn only_as_much_of_the_past_counts_as_is_needed_for_the_volume() {
        let mut counter = Counter::default();
        counter.count(100, 0, START);
        counter.count(30, 30, Moment(START.0 + HALF));
        let now = Moment(START.0 + HALF + 1);
        assert_eq!(counter.latest(20, now), (30, 30));
        assert_eq!(counter.latest(31, now), (130, 30));
        assert_eq!(counter.latest(1000, now), (130, 30), "all there is");
    }

    #[test]
    fn what_is_older_than_ten_seconds_is_forgotten() {
        let mut counter = Counter::default();
        counter.count(100, 100, START);
        let later = |steps: u64| Moment(START.0 + steps * HALF);
        assert_eq!(counter.latest(20, later(20)), (100, 100));
        assert_eq!(counter.latest(20, later(21)), (0, 0));
        counter.count(5, 1, later(1000));
        assert_eq!(counter.latest(20, later(1000)), (5, 1));
    }

    #[test]
    fn what_was_before_a_return_is_forgotten() {
        let mut counter = Counter::default();
        counter.count(100, 100, START);
        counter.count(7, 0, Moment(START.0 + 2 * HALF));
        let now = Moment(START.0 + 2 * HALF);
        let since = |since| counter.window.latest(20, since, now, counter.counted);
        assert_eq!(since(Moment(START.0 + HALF)).finished, 7);
        assert_eq!(since(Moment::LONG_AGO).finished, 107);
    }

    proptest::proptest! {
        #[test]
        fn counts_are_those_of_a_list_of_everything(
            events in proptest::collection::vec((0u64..1500, 0u64..9, proptest::bool::ANY), 0..60),
            volume in 1u64..60,
        ) {
            let mut counter = Counter::default();
            let mut list = Vec::new();
            let mut now = START;
            for (millis, finished, fails) in events {
                now = now.plus(Duration::from_millis(millis));
                let failed = if fails { finished } else { 0 };
                counter.count(finished, failed, now);
                list.push((now.0 / STEP, finished, failed));
            }
            let last = now.0 / STEP;
            let (mut finished, mut failed) = (0, 0);
            for step in (last - STEPS..=last).rev() {
                for (_, one, other) in list.iter().filter(|(at, _, _)| *at == step) {
                    finished += one;
                    failed += other;
                }
                if finished >= volume {
                    break;
                }
            }
            proptest::prop_assert_eq!(counter.latest(volume, now), (finished, failed));
        }
    }
}
