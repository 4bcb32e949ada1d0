//! What a breaker and a retry budget cost a request: alone, and while another worker does the same as fast as it can.
//! `request` is what every request pays: admitted, counted as a first try, its answer judged.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate_config::{Breaker, RetryBudget};
use tollgate_engine::upstream::{GuardMemory, Guards};

struct Policies {
    breaker: Breaker,
    budget: RetryBudget,
}

type Act = fn(&Guards, &Policies, usize, Instant);

fn admit(guards: &Guards, policies: &Policies, _: usize, now: Instant) {
    let _never_probes = black_box(
        guards
            .whole
            .breaker
            .admit(&policies.breaker, now, &mut |_| {}),
    );
}

fn request(guards: &Guards, policies: &Policies, worker: usize, now: Instant) {
    if let Ok(mut permit) = guards
        .whole
        .breaker
        .admit(&policies.breaker, now, &mut |_| {})
    {
        guards.budget.first_try(worker, now);
        guards.whole.breaker.answered(
            &policies.breaker,
            worker,
            &mut permit,
            true,
            now,
            &mut |_| {},
        );
        let _ends_here = black_box(permit);
    }
}

/// Half of all fail, so that the shared row of failures is written all the time.
fn flaky(guards: &Guards, policies: &Policies, worker: usize, now: Instant) {
    for good in [false, true] {
        if let Ok(mut permit) = guards
            .whole
            .breaker
            .admit(&policies.breaker, now, &mut |_| {})
        {
            guards.whole.breaker.answered(
                &policies.breaker,
                worker,
                &mut permit,
                good,
                now,
                &mut |_| {},
            );
        }
    }
}

fn spend(guards: &Guards, policies: &Policies, _: usize, now: Instant) {
    black_box(guards.budget.spend(&policies.budget, now));
}

fn guards(criterion: &mut Criterion) {
    let acts: [(&str, Act); 4] = [
        ("admit", admit),
        ("request", request),
        ("flaky", flaky),
        ("spend", spend),
    ];
    let policies = Arc::new(Policies {
        breaker: Breaker::default(),
        budget: RetryBudget::default(),
    });
    let now = Instant::now();
    for (name, act) in acts {
        for others in [0, 1] {
            let guards = GuardMemory::default().of("app", 2);
            let stop = Arc::new(AtomicBool::new(false));
            let rivals: Vec<_> = (0..others)
                .map(|_| {
                    let (guards, stop, policies) = (guards.clone(), stop.clone(), policies.clone());
                    std::thread::spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            act(&guards, &policies, 1, now);
                        }
                    })
                })
                .collect();
            let threads = if others == 0 {
                "one thread"
            } else {
                "two threads"
            };
            criterion.bench_function(&format!("{name}/{threads}"), |bencher| {
                bencher.iter(|| act(&guards, &policies, 0, black_box(now)));
            });
            stop.store(true, Ordering::Relaxed);
            for rival in rivals {
                let _panicked = rival.join();
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = guards
}
criterion_main!(benches);
