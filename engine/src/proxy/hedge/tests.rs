//! A seeded simulation of a route that hedges, with its pace and its budget as the proxy uses them.

use std::time::{Duration, Instant};

use fastrand::Rng;
use tollgate_config::RetryBudget;

use crate::upstream::GuardMemory;
use crate::upstream::pace::Pace;

const LEAST: Duration = Duration::from_millis(10);
/// From one request to the next.
const EVERY: Duration = Duration::from_millis(2);

/// What clients saw, in milliseconds, in order; and how many second tries were made.
struct Seen {
    took: Vec<f64>,
    hedges: u64,
}

impl Seen {
    fn quantile(&self, share: f64) -> f64 {
        self.took[(self.took.len() as f64 * share) as usize]
    }
}

/// Three endpoints, of which the first is slow in this share of its answers.
fn draw(endpoint: u64, slow: f64, chance: &mut Rng) -> Duration {
    let usual = -5.0 * (1.0 - chance.f64()).ln();
    let slow = endpoint == 0 && chance.f64() < slow;
    Duration::from_secs_f64((usual + if slow { 200.0 } else { 0.0 }) / 1e3)
}

/// The invariant is looked at after each second try.
fn serve(requests: u32, slow: f64, hedges: bool, policy: &RetryBudget, seed: u64) -> Seen {
    let mut chance = Rng::with_seed(seed);
    let guards = GuardMemory::default().of("app", 1);
    let (pace, start) = (Pace::p95(), Instant::now());
    let mut seen = Seen {
        took: Vec::new(),
        hedges: 0,
    };
    for number in 0..requests {
        let now = start + EVERY * number;
        guards.budget.first_try(0, now);
        let endpoint = chance.u64(..3);
        let first = draw(endpoint, slow, &mut chance);
        let after = pace.normal().map(|usual| usual.max(LEAST));
        let took = match after.filter(|after| hedges && first > *after) {
            Some(after) if guards.budget.spend(policy, now + after) => {
                let status = guards.budget.status(policy, now + after);
                assert!(status.retries <= status.allowed, "{status:?}");
                seen.hedges += 1;
                let elsewhere = (endpoint + 1 + chance.u64(..2)) % 3;
                after + draw(elsewhere, slow, &mut chance)
            }
            _ => first,
        };
        if took < first {
            pace.gave_up(took);
        } else {
            pace.answered(first);
        }
        seen.took.push(took.min(first).as_secs_f64() * 1e3);
    }
    seen.took.sort_by(f64::total_cmp);
    seen
}

#[test]
fn with_one_endpoint_of_three_that_stalls_now_and_then_the_99th_percentile_falls_for_a_twentieth_more_load()
 {
    const REQUESTS: u32 = 60_000;
    let policy = RetryBudget::default();
    for seed in 0..5 {
        let without = serve(REQUESTS, 0.1, false, &policy, seed);
        let with = serve(REQUESTS, 0.1, true, &policy, seed);
        assert!(without.quantile(0.99) > 200.0);
        assert!(
            with.quantile(0.99) < 50.0,
            "{} instead of {}",
            with.quantile(0.99),
            without.quantile(0.99)
        );
        let share = with.hedges as f64 / f64::from(REQUESTS);
        assert!((0.03..0.06).contains(&share), "{share}");
    }
}

#[test]
fn an_endpoint_that_is_always_slow_is_not_hedged_away_and_load_stays_bounded() {
    const REQUESTS: u32 = 60_000;
    for seed in 0..5 {
        let seen = serve(REQUESTS, 1.0, true, &RetryBudget::default(), seed);
        let share = seen.hedges as f64 / f64::from(REQUESTS);
        assert!(share < 0.06, "what is usual is not late: {share}");
    }
}

#[test]
fn hi_49_hedges_are_never_more_than_the_budget_allows() {
    const REQUESTS: u32 = 30_000;
    let policy = RetryBudget {
        ratio: tollgate_config::Setting::default_of(0.01),
        floor: tollgate_config::Setting::default_of(tollgate_config::unit::Rate {
            count: 0,
            per: Duration::from_secs(1),
        }),
        ..RetryBudget::default()
    };
    for seed in 0..5 {
        let seen = serve(REQUESTS, 0.1, true, &policy, seed);
        assert!(
            seen.hedges > 100 && seen.hedges * 100 <= u64::from(REQUESTS),
            "{}",
            seen.hedges
        );
    }
}
