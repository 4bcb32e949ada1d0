//! The adaptive kind (GW-411): what it takes for usual, what it opens on, and for how long.

use std::sync::Arc;

use super::*;

fn adaptive() -> Policy {
    Policy {
        kind: Setting::default_of(BreakerKind::Adaptive),
        // Rows of failures are another matter.
        failures: Setting::default_of(10),
        ..Policy::default()
    }
}

impl Bench {
    /// So many tries a second, of which every one fails with this chance; false when it opened.
    fn live(&mut self, random: &mut fastrand::Rng, seconds: u64, rate: u64, share: f64) -> bool {
        for _ in 0..seconds * rate {
            self.wait(1000 / rate);
            if !self.attempt(random.f64() >= share) {
                return false;
            }
        }
        true
    }
}

#[test]
fn gw_411_a_share_of_failures_far_above_the_usual_opens_it_and_a_fixed_one_stays_closed() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new(adaptive());
        assert!(
            bench.live(&mut random, 300, 20, 0.01),
            "{:?}",
            bench.changes
        );
        let began = bench.now;
        assert!(
            !bench.live(&mut random, 60, 20, 0.3),
            "it is twenty times the usual"
        );
        assert_eq!(bench.changes[0].reason, BreakerReason::Deviation);
        assert!(bench.now.duration_since(began) < Duration::from_secs(40));

        let mut random = fastrand::Rng::with_seed(seed);
        let mut fixed = Bench::new(Policy {
            kind: Setting::default_of(BreakerKind::Fixed),
            ..adaptive()
        });
        assert!(fixed.live(&mut random, 300, 20, 0.01) && fixed.live(&mut random, 60, 20, 0.3));
    }
}

#[test]
fn gw_415_what_is_usual_never_opens_it_however_bad_or_rare() {
    for (rate, share) in [(1, 0.05), (2, 0.0), (20, 0.02), (20, 0.2), (50, 0.001)] {
        for seed in 0..5 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bench = Bench::new(adaptive());
            let closed = bench.live(&mut random, 3600, rate, share);
            assert!(
                closed,
                "{share} at {rate}/s, seed {seed}: {:?}",
                bench.changes
            );
        }
    }
}

#[test]
fn what_lasts_becomes_usual_in_the_end() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut bench = Bench::new(adaptive());
    assert!(bench.live(&mut random, 600, 20, 0.0));
    let usual = |bench: &Bench| bench.breaker.baseline.usual().unwrap().mean;
    bench.policy.volume.value = 1_000_000;
    assert!(bench.live(&mut random, 60, 20, 0.3));
    assert!(usual(&bench) < 0.02, "not at once");
    assert!(bench.live(&mut random, 3 * 3600, 20, 0.3));
    assert!(
        usual(&bench) > 0.25,
        "after hours, without which it would open for ever"
    );
}

#[test]
fn nothing_is_unusual_before_a_window_was_seen() {
    let mut bench = Bench::new(adaptive());
    let mut random = fastrand::Rng::with_seed(7);
    assert!(bench.live(&mut random, 30, 20, 0.0) && bench.live(&mut random, 10, 20, 0.3));
    assert!(bench.breaker.baseline.usual().is_none());
}

#[test]
fn what_is_seen_while_it_is_held_closed_is_not_learned() {
    let mut bench = Bench::new(adaptive());
    let mut random = fastrand::Rng::with_seed(7);
    assert!(bench.live(&mut random, 300, 20, 0.0));
    let before = bench.breaker.baseline.usual();
    assert!(before.is_some());
    let hour = Duration::from_secs(3600);
    bench
        .breaker
        .hold(false, hour, Hold::default(), bench.now, &mut |_| {});
    assert!(bench.live(&mut random, 300, 20, 0.9));
    assert_eq!(bench.breaker.baseline.usual(), before);
}

#[test]
fn gw_411_each_time_it_opens_again_it_stays_open_for_about_twice_as_long() {
    let mut bench = Bench::new(adaptive());
    bench.wait(600_000);
    bench.trip();
    for again in 0..8 {
        let most = 60.0 * f64::from(1 << again.min(5));
        let wait = bench.admit().unwrap_err().retry_in;
        let share = wait.as_secs_f64() / most;
        assert!((0.74..=1.26).contains(&share), "{again}: {wait:?}");
        bench.wait(u64::try_from(wait.as_millis()).unwrap() + 1);
        assert!(bench.attempt(false), "a probe");
        assert_eq!(bench.state(), "open");
    }
    bench.policy.kind.value = BreakerKind::Fixed;
    let wait = bench.admit().unwrap_err().retry_in;
    assert_eq!(
        wait,
        Duration::from_secs(60),
        "a changed kind applies at once"
    );
    bench.wait(60_000);
    assert!(bench.attempt(true) && bench.attempt(true) && bench.attempt(true));
    bench.policy.kind.value = BreakerKind::Adaptive;
    // Closed for long enough, it starts over.
    bench.wait(301_000);
    bench.trip();
    assert!(bench.admit().unwrap_err().retry_in <= Duration::from_secs(75));
}

#[test]
fn each_slice_is_learned_from_once_however_many_threads_there_are() {
    const THREADS: usize = 4;
    let breaker = Arc::new(Breaker::new(THREADS));
    let (policy, start, clock) = (adaptive(), base(), AtomicU64::new(0));
    let shared = breaker.clone();
    threads::together(THREADS, move |worker| {
        for _ in 0..40_000 {
            let now = start + Duration::from_micros(1250 * clock.fetch_add(1, Ordering::Relaxed));
            if let Ok(mut permit) = shared.admit(&policy, now, &mut |_| {}) {
                shared.answered(&policy, worker, &mut permit, true, now, &mut |_| {});
            }
        }
    });
    // 200 seconds are twenty slices; of the first, nobody knows where it began.
    let slices = breaker.baseline.slices();
    assert!((18..=20).contains(&slices), "{slices}");
}
