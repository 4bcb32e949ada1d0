//! Many threads at once, against what must never be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;

/// Runs `each` on so many threads, all at once; every thread has its number.
pub(super) fn together(threads: usize, each: impl Fn(usize) + Send + Sync + 'static) {
    let (each, waiting) = (Arc::new(each), Arc::new(AtomicUsize::new(threads)));
    let running: Vec<_> = (0..threads)
        .map(|number| {
            let (each, waiting) = (each.clone(), waiting.clone());
            std::thread::spawn(move || {
                waiting.fetch_sub(1, Ordering::AcqRel);
                while waiting.load(Ordering::Acquire) > 0 {
                    std::thread::yield_now();
                }
                each(number);
            })
        })
        .collect();
    for thread in running {
        thread.join().unwrap();
    }
}

#[test]
fn gw_406_many_threads_together_get_exactly_the_probes() {
    const THREADS: usize = 8;
    for _ in 0..200 {
        let mut bench = Bench::new(policy());
        bench.trip();
        bench.wait(60_000);
        let (policy, now, breaker) = (bench.policy, bench.now, Arc::new(bench.breaker));
        let admitted = Arc::new(AtomicUsize::new(0));
        let (shared, count) = (breaker.clone(), admitted.clone());
        together(THREADS, move |_| {
            for _ in 0..10 {
                if let Ok(permit) = shared.admit(&policy, now, &mut |_| {}) {
                    assert!(permit.is_probe());
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        assert_eq!(admitted.load(Ordering::Relaxed), 10);
        assert_eq!(breaker.history.entries(breaker.word()).len(), 2);
    }
}

#[test]
fn gw_404_many_threads_together_open_it_once_and_miss_no_failure() {
    const THREADS: usize = 4;
    for _ in 0..200 {
        let breaker = Arc::new(Breaker::new(THREADS));
        let (policy, now, opened) = (
            Policy {
                failures: Setting::default_of(40),
                volume: Setting::default_of(40),
                ..Policy::default()
            },
            base(),
            Arc::new(AtomicUsize::new(0)),
        );
        let (shared, count) = (breaker.clone(), opened.clone());
        together(THREADS, move |worker| {
            for _ in 0..10 {
                let Ok(mut permit) = shared.admit(&policy, now, &mut |_| {}) else {
                    continue;
                };
                shared.answered(&policy, worker, &mut permit, false, now, &mut |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        // Whoever makes the row forty long sees forty tries.
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        let status = breaker.status(Some(&policy), now);
        assert_eq!((status.state, status.trips), ("open", 1));
        assert_eq!(status.history[0].evidence.tries, 40);
    }
}

/// Every interleaving that eight threads happen upon: whatever they do, probes stay bounded, a turn ends once, and
/// afterwards the breaker still works.
#[test]
fn gw_414_after_any_turmoil_good_probes_close_it() {
    const THREADS: usize = 8;
    for seed in 0..60u64 {
        let breaker = Arc::new(Breaker::new(THREADS));
        let (policy, start) = (
            Policy {
                open_for: Setting::default_of(Duration::from_millis(3)),
                probes: Setting::default_of(2),
                successes: Setting::default_of(2),
                ..policy()
            },
            base(),
        );
        let (shared, jammed) = (breaker.clone(), Arc::new(AtomicBool::new(false)));
        let told = jammed.clone();
        together(THREADS, move |worker| {
            let mut random = fastrand::Rng::with_seed(seed * 100 + worker as u64);
            let mut now = start;
            for _ in 0..500 {
                now += Duration::from_micros(random.u64(0..400));
                let Ok(mut permit) = shared.admit(&policy, now, &mut |_| {}) else {
                    continue;
                };
                match random.u8(0..10) {
                    0 => shared.cancelled(permit),
                    1 => {
                        shared.answered(&policy, worker, &mut permit, true, now, &mut |_| {});
                        shared.belied(&policy, worker, permit, now, &mut |_| {});
                    }
                    n => shared.answered(&policy, worker, &mut permit, n < 4, now, &mut |_| {}),
                }
                let word = shared.word();
                let round = Counted(shared.round.load(Ordering::Acquire));
                let probes = Probes::of(round, word.turn());
                if probes.under_way + probes.succeeded > 2 {
                    told.store(true, Ordering::Relaxed);
                }
            }
        });
        assert!(!jammed.load(Ordering::Relaxed), "more probes than two");
        let mut bench = Bench::new(policy);
        bench.breaker = Arc::into_inner(breaker).unwrap();
        bench.now = start + Duration::from_secs(10);
        for _ in 0..2 {
            assert!(bench.attempt(true));
        }
        assert_eq!(bench.state(), "closed");
    }
}
