//! The percentile kind (GW-411): what is slow, how many are too many, and what a slow probe says.

use std::sync::Arc;

use super::*;

pub(super) fn percentile() -> Policy {
    Policy {
        kind: Setting::default_of(BreakerKind::Percentile),
        slow_after: Setting::default_of(Duration::from_millis(100)),
        slow_share: Setting::default_of(0.05),
        ..Policy::default()
    }
}

impl Bench {
    /// One good try whose answer takes so many milliseconds; false when it was refused.
    pub(super) fn answer_in(&mut self, milliseconds: u64) -> bool {
        let Ok(mut permit) = self.admit() else {
            return false;
        };
        let waited = Duration::from_millis(milliseconds);
        let changes = &mut self.changes;
        let slow = self
            .breaker
            .timed(&self.policy, 0, &permit, waited, self.now, &mut |change| {
                changes.push(change);
            });
        self.answer(&mut permit, !slow);
        true
    }

    /// So many seconds of twenty answers each, of which every one is slow with this chance; false when it opened.
    fn pass(&mut self, random: &mut fastrand::Rng, seconds: u64, share: f64) -> bool {
        for _ in 0..seconds * 20 {
            self.wait(50);
            if !self.answer_in(if random.f64() < share { 500 } else { 5 }) {
                return false;
            }
        }
        true
    }
}

#[test]
fn gw_411_too_large_a_share_of_slow_answers_opens_it_and_none_of_them_is_a_failure() {
    let mut bench = Bench::new(percentile());
    for number in 1..=80 {
        assert!(bench.answer_in(if number % 20 == 0 { 101 } else { 100 }));
        bench.wait(10);
    }
    assert_eq!(
        bench.state(),
        "closed",
        "one in twenty is not more than one in twenty"
    );
    let status = bench.breaker.status(Some(&bench.policy), bench.now);
    let slow = status.slow.expect("of this kind");
    assert_eq!((slow.answers, slow.slow, status.failed), (80, 4, 0));
    assert!(bench.answer_in(101));
    assert_eq!(bench.state(), "open");
    let change = bench.changes[0];
    assert_eq!(change.reason, BreakerReason::Slow);
    assert_eq!((change.evidence.tries, change.evidence.failed), (81, 5));
    assert_eq!(
        bench.breaker.status(Some(&bench.policy), bench.now).reason,
        Some("slow")
    );
}

#[test]
fn gw_415_few_slow_answers_or_few_answers_at_all_open_nothing() {
    let mut bench = Bench::new(percentile());
    for _ in 0..4 {
        assert!(bench.answer_in(1000));
    }
    for _ in 0..40 {
        assert!(bench.answer_in(1));
    }
    assert_eq!(bench.state(), "closed", "four are fewer than `failures`");
    let mut bench = Bench::new(percentile());
    for _ in 0..19 {
        assert!(bench.answer_in(1000));
    }
    assert_eq!(bench.state(), "closed", "nineteen are fewer than `volume`");
}

#[test]
fn a_slow_probe_opens_it_again_and_quick_ones_close_it() {
    let mut bench = Bench::new(percentile());
    while bench.answer_in(1000) {}
    bench.wait(60_000);
    assert!(bench.answer_in(1000));
    assert_eq!(bench.state(), "open");
    assert_eq!(
        bench.changes.last().unwrap().reason,
        BreakerReason::ProbeFailed
    );
    bench.wait(60_000);
    for _ in 0..3 {
        assert!(bench.answer_in(1));
    }
    assert_eq!(bench.state(), "closed");
    let status = bench.breaker.status(Some(&bench.policy), bench.now);
    assert_eq!(status.slow.unwrap().slow, 0, "it begins anew");
}

#[test]
fn other_kinds_know_nothing_of_time_and_this_one_opens_by_failures_too() {
    for kind in [BreakerKind::Fixed, BreakerKind::Adaptive] {
        let mut bench = Bench::new(Policy {
            kind: Setting::default_of(kind),
            ..percentile()
        });
        for _ in 0..200 {
            assert!(bench.answer_in(10_000));
        }
    }
    let mut bench = Bench::new(Policy {
        volume: Setting::default_of(5),
        ..percentile()
    });
    while bench.attempt(false) {}
    assert_eq!(bench.changes[0].reason, BreakerReason::Failures);
}

#[test]
fn gw_411_it_opens_when_the_percentile_rises_and_never_while_it_does_not() {
    for seed in 0..10 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new(percentile());
        assert!(bench.pass(&mut random, 600, 0.02), "{:?}", bench.changes);
        let began = bench.now;
        assert!(!bench.pass(&mut random, 120, 0.3));
        assert_eq!(bench.changes[0].reason, BreakerReason::Slow);
        assert!(bench.now.duration_since(began) < Duration::from_secs(30));
    }
}

proptest! {
    /// Against a list of all that was ever timed while it was closed.
    #[test]
    fn it_opens_exactly_when_a_list_says_so(
        steps in prop::collection::vec((0..3_000u64, prop::bool::weighted(0.3)), 1..200),
        volume in 1..20u32, failures in 1..5u32, share in 0..=9u32, window in 1..=10u64,
    ) {
        let mut bench = Bench::new(Policy {
            volume: Setting::default_of(volume),
            failures: Setting::default_of(failures),
            window: Setting::default_of(Duration::from_secs(window)),
            slow_share: Setting::default_of(f64::from(share) / 10.0),
            ..percentile()
        });
        let origin = Moment::from(bench.now).0 / 1_000_000;
        let (mut now, mut all) = (0, Vec::new());
        for (pause, slow) in steps {
            bench.wait(pause);
            now += pause;
            let second = (origin + now) / 1000;
            all.push((second, slow));
            let within: Vec<_> = all.iter().filter(|(then, _)| then + window > second).collect();
            let bad = within.iter().filter(|(_, slow)| *slow).count() as u64;
            let total = within.len() as u64;
            let opens = slow && total >= u64::from(volume) && bad >= u64::from(failures)
                && bad * 10 > u64::from(share) * total;
            let admitted = bench.answer_in(if slow { 101 } else { 100 });
            prop_assert!(admitted);
            prop_assert_eq!(bench.state() == "open", opens);
            if opens {
                break;
            }
        }
    }
}

#[test]
fn many_threads_that_time_answers_together_open_it_once() {
    const THREADS: usize = 4;
    let (breaker, opened) = (Arc::new(Breaker::new(THREADS)), Arc::new(AtomicU64::new(0)));
    let (policy, now) = (percentile(), base());
    let (shared, counted) = (breaker.clone(), opened.clone());
    threads::together(THREADS, move |worker| {
        for _ in 0..1000 {
            let Ok(permit) = shared.admit(&policy, now, &mut |_| {}) else {
                return;
            };
            shared.timed(
                &policy,
                worker,
                &permit,
                Duration::from_secs(1),
                now,
                &mut |change| {
                    assert_eq!(change.reason, BreakerReason::Slow);
                    counted.fetch_add(1, Ordering::Relaxed);
                },
            );
        }
    });
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    assert_eq!(breaker.state(), BreakerState::Open);
}
