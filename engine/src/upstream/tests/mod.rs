//! The balance policies through the front door: `Upstream::pick` with a clock and chance of the test's own.

mod outliers;
mod service;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tollgate_config::{
    At, Balance, EndpointSource, HashKey, Health, Item, Outlier, Probe, Setting, UpstreamProtocol,
};

use super::*;

const POLICIES: [Balance; 5] = [
    Balance::PeakEwma,
    Balance::LeastRequests,
    Balance::RoundRobin,
    Balance::Random,
    Balance::Hash(HashKey::Path),
];

pub(super) fn settings(balance: Balance) -> tollgate_config::Upstream {
    tollgate_config::Upstream {
        name: "orders".into(),
        endpoints: EndpointSource::Static(Vec::new()),
        mesh: None,
        protocol: UpstreamProtocol::Http1,
        tls: None,
        balance,
        connect_timeout: Setting::default_of(Duration::from_secs(1)),
        max_connections: Setting::default_of(None),
        max_in_flight: Setting::default_of(None),
        queue: None,
        idle_connections: Setting::default_of(512),
        outlier: Some(Outlier {
            failures: Setting {
                value: 5,
                at: At(None),
            },
            deviation: Setting::default_of(Some(0.3)),
            volume: 50,
        }),
        breaker: None,
        retry_budget: None,
        health: None,
    }
}

pub(super) fn item(settings: tollgate_config::Upstream) -> Item<tollgate_config::Upstream> {
    Item {
        value: Arc::new(settings),
        file: "tollgate.toml".into(),
        line: 1,
    }
}

fn endpoints(weights: &[u32]) -> Vec<Arc<Endpoint>> {
    weights
        .iter()
        .zip(1u8..)
        .map(|(&weight, last)| endpoint(last, weight))
        .collect()
}

fn endpoint(last: u8, weight: u32) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(
        ([10, 0, 0, last], 7000).into(),
        format!("10.0.0.{last}:7000"),
        weight,
        None,
    ))
}

fn upstream(balance: Balance, weights: &[u32], now: Instant) -> Upstream {
    Upstream::new(item(settings(balance)), 0, endpoints(weights), None, now)
}

/// Picks so many times, each finished at once with success, and counts by position in the set.
fn shares(upstream: &Upstream, tried: &[u32], now: Instant, picks: u32) -> Vec<f64> {
    let mut chance = Rng::with_seed(7);
    let mut counts: HashMap<u32, u32> = HashMap::new();
    for _ in 0..picks {
        let slot = upstream
            .pick(Some(chance.u64(..)), tried, now, chance.u64(..))
            .unwrap();
        *counts.entry(slot.endpoint().id()).or_default() += 1;
    }
    let of = |endpoint: &Arc<Endpoint>| {
        f64::from(counts.get(&endpoint.id()).copied().unwrap_or(0)) / f64::from(picks)
    };
    upstream.endpoints().iter().map(of).collect()
}

fn close(found: &[f64], wanted: &[f64]) -> bool {
    found
        .iter()
        .zip(wanted)
        .all(|(found, wanted)| (found - wanted).abs() < 0.02)
}

fn fail(endpoint: &Arc<Endpoint>, times: u32, now: Instant) {
    for _ in 0..times {
        Slot::take(endpoint.clone(), now.into()).finish(Outcome::Failure, now);
    }
}

fn healthy(upstream: &Upstream, now: Instant) -> Vec<bool> {
    upstream
        .endpoints()
        .iter()
        .map(|endpoint| endpoint.is_healthy(now))
        .collect()
}

#[test]
fn every_policy_shares_evenly_among_idle_equals() {
    for balance in POLICIES {
        let now = Instant::now();
        let found = shares(
            &upstream(balance.clone(), &[1, 1, 1, 1], now),
            &[],
            now,
            20_000,
        );
        assert!(close(&found, &[0.25; 4]), "{balance:?}: {found:?}");
    }
}

#[test]
fn every_policy_respects_weights_among_idle_endpoints() {
    for balance in POLICIES {
        let now = Instant::now();
        let found = shares(
            &upstream(balance.clone(), &[1, 2, 5], now),
            &[],
            now,
            20_000,
        );
        assert!(
            close(&found, &[0.125, 0.25, 0.625]),
            "{balance:?}: {found:?}"
        );
    }
}

#[test]
fn an_endpoint_of_weight_zero_is_drained() {
    for balance in POLICIES {
        let now = Instant::now();
        let upstream = upstream(balance, &[1, 0, 1], now);
        assert!(
            shares(&upstream, &[], now, 1000)
                .iter()
                .all(|&share| share > 0.4)
        );
        assert_eq!(upstream.endpoints().len(), 2);
    }
}

#[test]
fn without_endpoints_there_is_an_error_and_with_one_there_is_that_one() {
    for balance in POLICIES {
        let now = Instant::now();
        assert!(matches!(
            upstream(balance.clone(), &[], now).pick(None, &[], now, 1),
            Err(PickError::NoEndpoints)
        ));
        let one = upstream(balance, &[3], now);
        let tried = one
            .endpoints()
            .iter()
            .map(|endpoint| endpoint.id())
            .collect::<Vec<_>>();
        assert!(one.pick(None, &tried, now, 1).is_ok());
    }
}

#[test]
fn every_policy_prefers_what_was_not_tried() {
    for balance in POLICIES {
        let now = Instant::now();
        let upstream = upstream(balance.clone(), &[1, 1, 1], now);
        let ids: Vec<u32> = upstream
            .endpoints()
            .iter()
            .map(|endpoint| endpoint.id())
            .collect();
        let found = shares(&upstream, &ids[..1], now, 10_000);
        assert!(close(&found, &[0.0, 0.5, 0.5]), "{balance:?}: {found:?}");
        assert_eq!(shares(&upstream, &ids[..2], now, 100), [0.0, 0.0, 1.0]);
        assert!(
            upstream.pick(None, &ids, now, 3).is_ok(),
            "all tried: again"
        );
    }
}

#[test]
fn every_policy_leaves_unhealthy_endpoints_out_and_shares_among_the_rest() {
    for balance in POLICIES {
        let now = Instant::now();
        let upstream = upstream(balance.clone(), &[1, 1, 1], now);
        upstream
            .endpoints()
            .iter()
            .next()
            .unwrap()
            .verdict
            .set_failing(true);
        let found = shares(&upstream, &[], now, 10_000);
        assert!(close(&found, &[0.0, 0.5, 0.5]), "{balance:?}: {found:?}");
        let healthy: Vec<u32> = upstream
            .endpoints()
            .iter()
            .skip(1)
            .map(|endpoint| endpoint.id())
            .collect();
        assert_eq!(
            shares(&upstream, &healthy, now, 100)[0],
            0.0,
            "rather a healthy one again than an unhealthy one"
        );
    }
}

/// Our own opinions never make a request fail (GW-705: "resets when all failed").
#[test]
fn when_all_are_unhealthy_all_are_asked() {
    for balance in POLICIES {
        let now = Instant::now();
        let upstream = upstream(balance.clone(), &[1, 1, 1], now);
        upstream
            .endpoints()
            .iter()
            .for_each(|endpoint| endpoint.verdict.set_failing(true));
        let found = shares(&upstream, &[], now, 10_000);
        assert!(
            found.iter().all(|&share| share > 0.2),
            "{balance:?}: {found:?}"
        );
        assert!(upstream.status(now).panic);
    }
}

#[test]
fn peak_ewma_prefers_the_fast_one_and_notices_when_it_turns_slow() {
    let mut now = Instant::now();
    let mut chance = Rng::with_seed(1);
    let upstream = upstream(Balance::PeakEwma, &[1, 1, 1], now);
    let ids: Vec<u32> = upstream
        .endpoints()
        .iter()
        .map(|endpoint| endpoint.id())
        .collect();
    let mut run = |latencies: [u64; 3]| {
        let mut counts = [0; 3];
        for _ in 0..3000 {
            let slot = upstream.pick(None, &[], now, chance.u64(..)).unwrap();
            let position = ids
                .iter()
                .position(|&id| id == slot.endpoint().id())
                .unwrap();
            counts[position] += 1;
            now += Duration::from_millis(latencies[position]);
            slot.finish(Outcome::Success, now);
        }
        counts
    };
    // Drawn in two of three pairs; what it is not drawn for goes to the others.
    let fast = run([1, 20, 20]);
    assert!(fast[0] > 1900, "{fast:?}");
    let slow = run([200, 20, 20]);
    assert!(slow[0] < 450, "{slow:?}");
}

#[test]
fn an_endpoint_that_never_answered_is_tried_beside_fast_ones() {
    let now = Instant::now();
    let upstream = upstream(Balance::PeakEwma, &[1, 1, 1], now);
    for endpoint in upstream.endpoints().iter().take(2) {
        endpoint.load.latency.sample(1_000_000, now.into());
    }
    let found = shares(&upstream, &[], now, 10_000);
    assert!(found[2] > 0.3, "{found:?}");
}

#[test]
fn least_requests_goes_to_the_less_loaded_by_weight() {
    let now = Instant::now();
    let upstream = upstream(Balance::LeastRequests, &[1, 3], now);
    let mut chance = Rng::with_seed(3);
    let slots: Vec<Slot> = (0..400)
        .map(|_| upstream.pick(None, &[], now, chance.u64(..)).unwrap())
        .collect();
    let loads: Vec<u32> = upstream
        .endpoints()
        .iter()
        .map(|endpoint| endpoint.in_flight())
        .collect();
    assert!((95..=105).contains(&loads[0]), "{loads:?}");
    drop(slots);
    assert!(
        upstream
            .endpoints()
            .iter()
            .all(|endpoint| endpoint.in_flight() == 0)
    );
}

#[test]
fn round_robin_takes_exact_turns() {
    let now = Instant::now();
    let upstream = upstream(Balance::RoundRobin, &[1, 1, 1], now);
    assert_eq!(shares(&upstream, &[], now, 300), [1.0 / 3.0; 3]);
}

#[test]
fn the_same_key_finds_the_same_endpoint_and_the_same_second_choice() {
    let now = Instant::now();
    let (a, b) = (
        upstream(Balance::Hash(HashKey::Path), &[1; 10], now),
        upstream(Balance::Hash(HashKey::Path), &[1; 10], now),
    );
    for text in 0..200 {
        let key = Some(hash_key(format!("user-{text}").as_bytes()));
        let (first, second) = (
            a.pick(key, &[], now, 1).unwrap(),
            b.pick(key, &[], now, 2).unwrap(),
        );
        assert_eq!(first.endpoint().address(), second.endpoint().address());
        let (next, other) = (
            a.pick(key, &[first.endpoint().id()], now, 3).unwrap(),
            b.pick(key, &[second.endpoint().id()], now, 4).unwrap(),
        );
        assert_ne!(next.endpoint().address(), first.endpoint().address());
        assert_eq!(next.endpoint().address(), other.endpoint().address());
    }
}

#[test]
fn while_one_is_out_the_keys_of_the_others_stay() {
    let now = Instant::now();
    let upstream = upstream(Balance::Hash(HashKey::Path), &[1; 5], now);
    let at = |key: u64| {
        upstream
            .pick(Some(key), &[], now, 0)
            .unwrap()
            .endpoint()
            .id()
    };
    let before: Vec<u32> = (0..2000)
        .map(|key| at(hash_key(&u64::to_le_bytes(key))))
        .collect();
    let out = upstream.endpoints().iter().next().unwrap().clone();
    out.verdict.set_failing(true);
    for (key, &before) in (0..2000).zip(&before) {
        let after = at(hash_key(&u64::to_le_bytes(key)));
        assert!(after != out.id() && (before == out.id() || before == after));
    }
}

#[test]
fn slots_never_leak_between_threads() {
    for balance in POLICIES {
        let now = Instant::now();
        let upstream = upstream(balance, &[1, 2, 3], now);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let upstream = &upstream;
                scope.spawn(move || {
                    let mut chance = Rng::with_seed(seed);
                    let mut held = Vec::new();
                    for step in 0..5000u64 {
                        let now = now + Duration::from_millis(step);
                        let mut slot = upstream
                            .pick(Some(chance.u64(..)), &[], now, chance.u64(..))
                            .unwrap();
                        match chance.u8(0..6) {
                            0 => slot.finish(Outcome::Failure, now),
                            1 => slot.finish(Outcome::RateLimited, now),
                            2 => slot.finish(Outcome::Cancelled, now),
                            3 => held.push(slot),
                            _ => {
                                slot.first_byte(now + Duration::from_millis(3));
                                slot.finish(Outcome::Success, now + Duration::from_millis(5));
                            }
                        }
                        if held.len() > 20 {
                            held.clear();
                        }
                        if step == 2500 && seed == 0 {
                            upstream.replace(upstream.endpoints().iter().cloned().collect(), now);
                        }
                    }
                });
            }
        });
        let endpoints = upstream.endpoints();
        assert!(endpoints.iter().all(|endpoint| endpoint.in_flight() == 0));
        assert_eq!(
            endpoints
                .iter()
                .map(|endpoint| endpoint.picks())
                .sum::<u64>(),
            20_000
        );
    }
}
