//! What a permit costs: taken and given back, alone and while another thread does the same as fast as it can; with an
//! adaptive limit, which also learns from each answer; and at a full bulkhead that refuses. The goal is 30 ns alone.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate_config::{MaxInFlight, Priority};
use tollgate_engine::upstream::bulkhead::{Bulkhead, Entry, Rules};

fn rules(limit: MaxInFlight) -> Rules {
    Rules {
        limit,
        length: 100,
        patience: Duration::from_millis(100),
    }
}

fn once(bulkhead: &Arc<Bulkhead>, rules: &Rules, now: Instant) {
    let entry = bulkhead.enter(black_box(rules), Priority::Default, black_box(now));
    assert!(matches!(black_box(entry), Entry::Permit(_)));
}

fn run(criterion: &mut Criterion) {
    let now = Instant::now();
    let fixed = rules(MaxInFlight::Fixed(100));
    let adaptive = rules(MaxInFlight::Adaptive {
        least: 5,
        most: 1000,
    });
    let bulkhead = Arc::<Bulkhead>::default();
    criterion.bench_function("bulkhead/permit", |bencher| {
        bencher.iter(|| once(&bulkhead, &fixed, now));
    });
    criterion.bench_function("bulkhead/permit, adaptive", |bencher| {
        let mut end = now;
        bencher.iter(|| {
            end += Duration::from_micros(1);
            once(&bulkhead, &adaptive, now);
            bulkhead.learn(&adaptive, end - Duration::from_millis(1), end);
        });
    });
    let full = Rules {
        length: 0,
        ..rules(MaxInFlight::Fixed(1))
    };
    let held = bulkhead.enter(&full, Priority::Default, now);
    criterion.bench_function("bulkhead/refused", |bencher| {
        bencher.iter(|| {
            let entry = bulkhead.enter(black_box(&full), Priority::Default, now);
            assert!(matches!(black_box(entry), Entry::Full));
        });
    });
    drop(held);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                once(&bulkhead, &fixed, now);
            }
        });
        criterion.bench_function("bulkhead/permit, two threads", |bencher| {
            bencher.iter(|| once(&bulkhead, &fixed, now));
        });
        stop.store(true, Relaxed);
    });
}

criterion_group!(benches, run);
criterion_main!(benches);
