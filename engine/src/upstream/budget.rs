//! How many retries an upstream is sent: a share of the first tries of the last seconds, and a floor (GW-506). One for
//! each upstream, shared by all routes and workers, kept over reloads.
//!
//! Holds observations and no rate: the policy comes with every question. First tries are counted on a line of the
//! worker's own. A retry is written down first and counted afterwards, and taken back when there were too many: so the
//! bound is never exceeded, whoever asks at the same moment. The price is on the safe side: when several workers ask
//! for the last retries at once, up to one retry for each other worker may be refused that could have been had. No
//! lock, and nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tollgate_config::RetryBudget as Policy;

use super::moment::Moment;
use super::tally::Tally;

/// Seconds that are kept; a power of two above the longest window (60 s).
const KEPT: u64 = 64;
/// Bits of a second's count. What is left holds the number of the second.
const BITS: u32 = 32;
const MOST: u64 = (1 << BITS) - 1;

#[derive(Debug)]
pub struct Budget {
    /// First tries, as good ones of era 0.
    first: Tally,
    /// Retries of each second: its number, then their count.
    retries: [AtomicU64; KEPT as usize],
    refused: AtomicU64,
}

/// What an operator sees of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BudgetStatus {
    /// In the window.
    pub first_tries: u64,
    pub retries: u64,
    /// In the window, of which `retries` are used.
    pub allowed: u64,
    /// Ever.
    pub refused: u64,
}

impl Budget {
    /// `workers`: how many count first tries, each with its own number.
    pub fn new(workers: usize) -> Self {
        Budget {
            first: Tally::new(workers),
            retries: std::array::from_fn(|_| AtomicU64::new(0)),
            refused: AtomicU64::new(0),
        }
    }

    /// A request is sent for the first time. Only this worker's thread may pass this number.
    #[inline]
    pub fn first_try(&self, worker: usize, now: Instant) {
        self.first.note(worker, 0, now.into(), true);
    }

    /// May it be sent once more? Pays at once.
    pub fn spend(&self, policy: &Policy, now: Instant) -> bool {
        let now = Moment::from(now);
        self.pay(second(now));
        let (_, allowed, retries) = self.account(policy, now);
        if retries <= allowed {
            return true;
        }
        self.pay_back(second(now));
        self.refused.fetch_add(1, Ordering::Relaxed);
        false
    }

    pub fn status(&self, policy: &Policy, now: Instant) -> BudgetStatus {
        let (first_tries, allowed, retries) = self.account(policy, now.into());
        BudgetStatus {
            first_tries,
            retries,
            allowed,
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    /// First tries, retries allowed, and retries made, all of the window.
    fn account(&self, policy: &Policy, now: Moment) -> (u64, u64, u64) {
        let window = Duration::from_secs(policy.window.value.as_secs().clamp(1, KEPT - 1));
        let first = self.first.sum(0, window, now).good;
        let present = second(now);
        let retries = self
            .retries
            .iter()
            .map(|slot| slot.load(Ordering::SeqCst))
            // What another worker's clock, a little ahead, wrote down counts too.
            .filter(|slot| (slot >> BITS) + window.as_secs() > present)
            .map(|slot| slot & MOST)
            .sum();
        let floor = policy.floor.value;
        let floor = floor.count as f64 * (window.as_secs_f64() / floor.per.as_secs_f64());
        // Rounded down, but not for what floating point makes of 0.2 × 5. What does not fit is as much as can be.
        let allowed = (policy.ratio.value * first as f64 + floor + 1e-6).floor() as u64;
        (first, allowed, retries)
    }

    fn pay(&self, second: u64) {
        self.change(second, |count| (count + 1).min(MOST));
    }

    fn pay_back(&self, second: u64) {
        self.change(second, |count| count.saturating_sub(1));
    }

    /// Changes the count of a second. A second whose place was given to a later one is over: nothing is written.
    fn change(&self, second: u64, change: impl Fn(u64) -> u64) {
        let slot = &self.retries[(second % KEPT) as usize];
        let changed = slot.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |known| {
            match (known >> BITS).cmp(&second) {
                std::cmp::Ordering::Greater => None,
                std::cmp::Ordering::Equal => Some(second << BITS | change(known & MOST)),
                std::cmp::Ordering::Less => Some(second << BITS | change(0)),
            }
        });
        let _over_long_ago = changed;
    }
}

fn second(now: Moment) -> u64 {
    (now.0 / 1_000_000_000) & MOST
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;
    use tollgate_config::Setting;
    use tollgate_config::unit::Rate;

    use super::*;

    fn policy(ratio: f64, floor: u64, window: u64) -> Policy {
        Policy {
            ratio: Setting::default_of(ratio),
            floor: Setting::default_of(Rate {
                count: floor,
                per: Duration::from_secs(1),
            }),
            window: Setting::default_of(Duration::from_secs(window)),
        }
    }

    /// An hour in, as real moments are: far from second zero.
    fn base() -> Instant {
        Instant::now()
    }

    /// GW-506.
    #[test]
    fn gw_506_a_share_of_first_tries_and_a_floor_may_be_repeated() {
        let (budget, now) = (Budget::new(1), base());
        let rules = policy(0.2, 1, 10);
        for _ in 0..50 {
            budget.first_try(0, now);
        }
        let granted = (0..100).filter(|_| budget.spend(&rules, now)).count();
        assert_eq!(granted, 50 / 5 + 10);
        let status = budget.status(&rules, now);
        assert_eq!((status.retries, status.allowed), (20, 20));
        assert_eq!((status.first_tries, status.refused), (50, 80));
    }

    #[test]
    fn gw_506_what_was_spent_comes_back_when_the_window_has_passed() {
        let (budget, now) = (Budget::new(1), base());
        let rules = policy(0.0, 2, 10);
        for _ in 0..20 {
            assert!(budget.spend(&rules, now));
        }
        assert!(!budget.spend(&rules, now + Duration::from_secs(8)));
        assert!(budget.spend(&rules, now + Duration::from_secs(11)));
    }

    #[test]
    fn a_changed_share_applies_at_the_next_retry_and_forgets_nothing() {
        let (budget, now) = (Budget::new(1), base());
        for _ in 0..100 {
            budget.first_try(0, now);
        }
        let few = policy(0.1, 0, 10);
        while budget.spend(&few, now) {}
        assert_eq!(budget.status(&few, now).retries, 10);
        let more = policy(0.3, 0, 10);
        assert_eq!((0..50).filter(|_| budget.spend(&more, now)).count(), 20);
        assert!(!budget.spend(&few, now));
    }

    #[test]
    fn absurd_budgets_are_large_and_no_defect() {
        let (budget, now) = (Budget::new(1), base());
        assert!(budget.spend(&policy(1.0, u64::MAX, 60), now));
        assert!(!budget.spend(&policy(0.0, 0, 1), now));
    }

    proptest! {
        /// Against a list of all that was granted; after each step.
        #[test]
        fn gw_506_no_window_ever_holds_more_retries_than_allowed(
            steps in prop::collection::vec((0..2usize, 0..700u64, any::<bool>()), 1..400),
            ratio in 0..=10u32,
            floor in 0..3u64,
            window in 1..=20u64,
        ) {
            let (budget, start) = (Budget::new(2), base());
            let rules = policy(f64::from(ratio) / 10.0, floor, window);
            let origin = Moment::from(start).0 / 1_000_000;
            let (mut now, mut first, mut granted) = (0u64, Vec::new(), Vec::new());
            for (worker, pause, retry) in steps {
                now += pause;
                let second = (origin + now) / 1000;
                let instant = start + Duration::from_millis(now);
                let within = |times: &[u64]| times.iter().filter(|t| **t + window > second).count();
                if retry {
                    let allowed = u64::from(ratio) * within(&first) as u64 / 10 + floor * window;
                    let may = (within(&granted) as u64) < allowed;
                    prop_assert_eq!(budget.spend(&rules, instant), may);
                    if may {
                        granted.push(second);
                    }
                    prop_assert!(within(&granted) as u64 <= allowed || !may);
                } else {
                    budget.first_try(worker, instant);
                    first.push(second);
                }
            }
        }
    }

    /// GW-506, HI-49: many threads, one moment, an exact bound.
    #[test]
    fn hi_49_many_threads_together_are_never_granted_more_than_the_budget() {
        const THREADS: usize = 8;
        const ALLOWED: usize = 100;
        for _ in 0..50 {
            let (budget, now) = (Arc::new(Budget::new(THREADS)), base());
            let go = Arc::new(AtomicBool::new(false));
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (budget, go) = (budget.clone(), go.clone());
                    std::thread::spawn(move || {
                        while !go.load(Ordering::Acquire) {
                            std::hint::spin_loop();
                        }
                        let rules = policy(0.0, 10, 10);
                        (0..200).filter(|_| budget.spend(&rules, now)).count()
                    })
                })
                .collect();
            go.store(true, Ordering::Release);
            let granted: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
            // Several who asked for the last ones at once may all have been refused.
            assert!((ALLOWED + 1 - THREADS..=ALLOWED).contains(&granted));
            let rules = policy(0.0, 10, 10);
            let rest = (0..200).filter(|_| budget.spend(&rules, now)).count();
            assert_eq!(granted + rest, ALLOWED);
        }
    }
}
