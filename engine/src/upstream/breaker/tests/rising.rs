//! How one of the percentile kind comes back (GW-411): by a growing share, and on trial.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::slow::percentile;
use super::*;

/// One that opened because answers were slow, and whose probes have just been quick.
fn back() -> Bench {
    let mut bench = Bench::new(percentile());
    while bench.answer_in(1000) {}
    bench.wait(60_000);
    for _ in 0..3 {
        assert!(bench.answer_in(1));
    }
    assert_eq!(bench.state(), "closed");
    bench
}

fn share(bench: &Bench) -> Option<f64> {
    bench
        .breaker
        .status(Some(&bench.policy), bench.now)
        .rising_share
}

#[test]
fn gw_411_it_admits_a_share_that_grows_to_all_within_open_for() {
    let mut bench = back();
    assert_eq!(share(&bench), Some(0.1));
    let mut admitted_before = 0;
    for second in 0..60 {
        let admitted = (0..1000)
            .filter(|_| {
                bench.now += Duration::from_millis(1);
                bench.answer_in(1)
            })
            .count();
        let wanted = 100.0 + 900.0 * (f64::from(second) + 0.5) / 60.0;
        assert!(
            (admitted as f64 - wanted).abs() < 10.0,
            "{admitted} in second {second}, not {wanted}"
        );
        assert!(admitted > admitted_before);
        admitted_before = admitted;
    }
    assert_eq!(share(&bench), None);
    for _ in 0..1000 {
        assert!(bench.answer_in(1));
    }
    let told: Vec<_> = bench.changes.iter().map(|change| change.to).collect();
    assert_eq!(
        told,
        [
            BreakerState::Open,
            BreakerState::HalfOpen,
            BreakerState::Closed
        ],
        "that it is all the way back is no news"
    );
}

#[test]
fn gw_411_what_is_slow_again_under_a_part_of_the_load_never_gets_all_of_it() {
    let mut bench = back();
    let mut most = 0.0_f64;
    // Quick below 300 tries a second, slow above.
    for _ in 0..60 {
        let mut admitted = 0;
        for _ in 0..1000 {
            bench.now += Duration::from_millis(1);
            admitted += usize::from(bench.answer_in(if admitted > 300 { 1000 } else { 1 }));
        }
        most = most.max(share(&bench).unwrap_or(0.0));
        if bench.state() != "closed" {
            break;
        }
    }
    assert_eq!(bench.state(), "open");
    assert!((0.2..0.5).contains(&most), "{most}");
}

#[test]
fn on_trial_a_few_failures_open_it_whatever_the_volume_says() {
    let mut bench = back();
    let mut made = 0;
    while bench.state() == "closed" {
        bench.wait(1);
        made += usize::from(bench.attempt(false));
    }
    assert_eq!(made, 5, "`failures`, long before `volume`");
    let mut bench = back();
    bench.policy.error_rate = Setting::default_of(Some(0.01));
    let mut made = 0;
    while bench.state() == "closed" {
        bench.wait(1);
        made += usize::from(bench.attempt(made % 2 == 0));
    }
    let change = bench.changes.last().unwrap();
    assert_eq!(change.reason, BreakerReason::ErrorRate);
    assert_eq!(change.evidence.failed, 5, "fewer are chance");
}

#[test]
fn who_is_refused_meanwhile_may_ask_again_soon_and_no_reload_holds_it_back() {
    let mut bench = back();
    let refused = loop {
        if let Err(refused) = bench.admit() {
            break refused;
        }
    };
    assert!(refused.probing);
    assert_eq!(refused.retry_in, Duration::from_secs(1));
    bench.policy.kind = Setting::default_of(BreakerKind::Fixed);
    for _ in 0..100 {
        assert!(bench.attempt(true));
    }
    assert_eq!(bench.state(), "closed");
}

#[test]
fn other_kinds_are_back_at_once() {
    let mut bench = Bench::new(policy());
    bench.trip();
    bench.wait(60_000);
    for _ in 0..100 {
        assert!(bench.attempt(true));
    }
    assert_eq!(share(&bench), None);
}

#[test]
fn many_threads_together_get_the_share_and_no_more() {
    const THREADS: usize = 4;
    const EACH: usize = 2_500;
    let bench = back();
    let (policy, now, breaker) = (bench.policy, bench.now, Arc::new(bench.breaker));
    let admitted = Arc::new(AtomicUsize::new(0));
    let (shared, count) = (breaker, admitted.clone());
    threads::together(THREADS, move |_| {
        for _ in 0..EACH {
            if shared.admit(&policy, now, &mut |_| {}).is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let admitted = admitted.load(Ordering::Relaxed);
    assert!((990..=1010).contains(&admitted), "{admitted} of 10,000");
}
