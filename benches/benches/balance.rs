//! What one pick costs under each policy: with three endpoints that all answered before, as nearly every request finds
//! them, and with a hundred. `pick` takes a slot and drops it again; `request` also tells the first byte and the end.
//! The goal is 60 ns for `pick/peak_ewma/3`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate_config::{Balance, EndpointSource, HashKey, Item, Outlier, Setting, UpstreamProtocol};
use tollgate_engine::upstream::{EndpointMemory, Outcome, Resolved, Upstream};

fn upstream(balance: Balance, count: u8, now: Instant) -> Upstream {
    let settings = tollgate_config::Upstream {
        name: "orders".into(),
        endpoints: EndpointSource::Static(Vec::new()),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        mesh: None,
        balance,
        connect_timeout: Setting::default_of(Duration::from_secs(1)),
        max_connections: Setting::default_of(None),
        max_in_flight: Setting::default_of(None),
        queue: None,
        idle_connections: Setting::default_of(512),
        outlier: Some(Outlier {
            failures: Setting::default_of(5),
            deviation: Setting::default_of(Some(0.3)),
            volume: 50,
        }),
        breaker: None,
        retry_budget: None,
        health: None,
    };
    let memory = EndpointMemory::default();
    let found = (1..=count).map(|last| {
        let resolved = Resolved {
            address: ([10, 0, 0, last], 7000).into(),
            name: format!("10.0.0.{last}:7000"),
            weight: 1,
            zone: None,
        };
        memory.endpoint("orders", None, &resolved)
    });
    let item = Item {
        value: Arc::new(settings),
        file: "tollgate.toml".into(),
        line: 1,
    };
    let upstream = Upstream::new(item, 0, found.collect(), None, now);
    for random in 0..1000 {
        let slot = upstream
            .pick(None, &[], now, fastrand(random))
            .expect("there are endpoints");
        slot.finish(Outcome::Success, now + Duration::from_millis(1));
    }
    upstream
}

/// A cheap stand-in for the worker's generator.
fn fastrand(state: u64) -> u64 {
    let mixed = u128::from(state.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * 0xa0b4_28db_8a5c_d52d_u128;
    (mixed as u64) ^ (mixed >> 64) as u64
}

fn balance(criterion: &mut Criterion) {
    let policies = [
        ("peak_ewma", Balance::PeakEwma),
        ("least_requests", Balance::LeastRequests),
        ("round_robin", Balance::RoundRobin),
        ("random", Balance::Random),
        ("hash", Balance::Hash(HashKey::Path)),
    ];
    let now = Instant::now();
    for (name, policy) in policies {
        for count in [3, 100] {
            let upstream = upstream(policy.clone(), count, now);
            let mut state = 0u64;
            criterion.bench_function(&format!("pick/{name}/{count}"), |bencher| {
                bencher.iter(|| {
                    state += 1;
                    drop(black_box(upstream.pick(
                        Some(state),
                        &[],
                        black_box(now),
                        fastrand(state),
                    )));
                });
            });
            criterion.bench_function(&format!("request/{name}/{count}"), |bencher| {
                bencher.iter(|| {
                    state += 1;
                    let mut slot = upstream
                        .pick(Some(state), &[], black_box(now), fastrand(state))
                        .expect("endpoints");
                    slot.first_byte(now + Duration::from_millis(1));
                    slot.finish(Outcome::Success, now + Duration::from_millis(2));
                });
            });
        }
    }
}

criterion_group!(benches, balance);
criterion_main!(benches);
