//! Who is in service: ejection, return, slow start, and what a change of settings or of the set does to them.

use super::*;

/// Hostile inputs 50: an endpoint that answers 5xx is out after so many failures, and back after its time.
#[test]
fn failures_in_a_row_eject_and_time_brings_back_slowly() {
    for balance in POLICIES {
        let now = Instant::now();
        let upstream = upstream(balance.clone(), &[1, 1, 1, 1], now);
        let bad = upstream.endpoints().iter().next().unwrap().clone();
        fail(&bad, 4, now);
        shares(&upstream, &[], now, 1000);
        assert!(bad.is_healthy(now));
        fail(&bad, 1, now);
        assert_eq!(shares(&upstream, &[], now, 1000)[0], 0.0, "{balance:?}");
        assert_eq!(healthy(&upstream, now), [false, true, true, true]);
        assert_eq!(
            shares(&upstream, &[], now + Duration::from_millis(9_990), 1000)[0],
            0.0
        );
        let back = shares(&upstream, &[], now + Duration::from_secs(11), 10_000)[0];
        let middle = shares(&upstream, &[], now + Duration::from_secs(15), 10_000)[0];
        assert!(back > 0.0 && back < 0.06, "{balance:?}: {back}");
        assert!(middle > 0.08 && middle < 0.25, "{balance:?}: {middle}");
        let whole = shares(&upstream, &[], now + Duration::from_secs(20), 10_000)[0];
        assert!(whole > 0.2, "{balance:?}: {whole}");
    }
}

#[test]
fn never_more_than_half_are_ejected() {
    for (count, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
        let now = Instant::now();
        let upstream = upstream(Balance::Random, &vec![1; count], now);
        for _ in 0..3 {
            upstream
                .endpoints()
                .iter()
                .for_each(|endpoint| fail(endpoint, 5, now));
            shares(&upstream, &[], now, 200);
        }
        assert_eq!(
            healthy(&upstream, now)
                .iter()
                .filter(|&&healthy| !healthy)
                .count(),
            most,
            "of {count}"
        );
    }
}

#[test]
fn what_probes_took_out_counts_towards_the_half() {
    let now = Instant::now();
    let upstream = upstream(Balance::Random, &[1, 1, 1], now);
    let endpoints = upstream.endpoints();
    endpoints.iter().next().unwrap().verdict.set_failing(true);
    endpoints.iter().for_each(|endpoint| fail(endpoint, 5, now));
    shares(&upstream, &[], now, 200);
    assert_eq!(healthy(&upstream, now), [false, true, true]);
}

#[test]
fn without_outlier_detection_nobody_is_ejected_and_the_ejected_are_pardoned() {
    let now = Instant::now();
    let first = upstream(Balance::Random, &[1, 1], now);
    let endpoints: Vec<_> = first.endpoints().iter().cloned().collect();
    fail(&endpoints[0], 5, now);
    shares(&first, &[], now, 100);
    assert!(!endpoints[0].is_healthy(now));
    let off = tollgate_config::Upstream {
        outlier: None,
        ..settings(Balance::Random)
    };
    let second = Upstream::new(item(off), 0, endpoints, Some(&first), now);
    assert_eq!(healthy(&second, now), [true, true]);
    second
        .endpoints()
        .iter()
        .for_each(|endpoint| fail(endpoint, 50, now));
    shares(&second, &[], now, 100);
    assert_eq!(healthy(&second, now), [true, true]);
}

#[test]
fn a_changed_threshold_applies_without_forgetting_failures() {
    let now = Instant::now();
    let first = upstream(Balance::Random, &[1, 1], now);
    let endpoints: Vec<_> = first.endpoints().iter().cloned().collect();
    fail(&endpoints[0], 3, now);
    let stricter = tollgate_config::Upstream {
        outlier: Some(Outlier {
            failures: Setting::default_of(3),
            deviation: Setting::default_of(None),
            volume: 50,
        }),
        ..settings(Balance::Random)
    };
    let second = Upstream::new(item(stricter), 0, endpoints, Some(&first), now);
    shares(&second, &[], now, 100);
    assert_eq!(healthy(&second, now), [false, true]);
}

#[test]
fn without_probes_what_probes_said_is_forgotten() {
    let now = Instant::now();
    let all = endpoints(&[1, 1]);
    all[0].verdict.set_failing(true);
    let probed = Health {
        probe: Probe::Tcp,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
        unhealthy_after: 3,
        healthy_after: 1,
    };
    let with = tollgate_config::Upstream {
        health: Some(probed),
        ..settings(Balance::Random)
    };
    let first = Upstream::new(item(with), 0, all.clone(), None, now);
    assert_eq!(healthy(&first, now), [false, true]);
    let second = Upstream::new(item(settings(Balance::Random)), 0, all, Some(&first), now);
    assert_eq!(healthy(&second, now), [true, true]);
}

#[test]
fn a_new_endpoint_beside_others_begins_slowly() {
    for balance in POLICIES {
        let now = Instant::now();
        let upstream = upstream(balance.clone(), &[1, 1], now);
        let mut more: Vec<_> = upstream.endpoints().iter().cloned().collect();
        more.push(endpoint(9, 1));
        upstream.replace(more, now);
        let first = shares(&upstream, &[], now, 10_000)[2];
        assert!(first > 0.01 && first < 0.08, "{balance:?}: {first}");
        let whole = shares(&upstream, &[], now + RAMP, 10_000)[2];
        assert!((0.31..0.36).contains(&whole), "{balance:?}: {whole}");
        assert_eq!(upstream.status(now).endpoints[2].slow_start, Some(0.1));
    }
}

#[test]
fn an_endpoint_in_no_set_is_removed_and_its_requests_finish() {
    let now = Instant::now();
    let upstream = upstream(Balance::PeakEwma, &[1], now);
    let slot = upstream.pick(None, &[], now, 0).unwrap();
    assert!(!slot.endpoint().is_removed());
    let before = upstream.endpoints();
    upstream.replace(vec![endpoint(2, 1)], now);
    assert!(
        !slot.endpoint().is_removed(),
        "somebody still plans with it"
    );
    drop(before);
    assert!(slot.endpoint().is_removed());
    assert_eq!(slot.endpoint().in_flight(), 1);
    upstream.replace(vec![slot.endpoint().clone()], now);
    assert!(!slot.endpoint().is_removed(), "it came back");
    slot.finish(Outcome::Success, now);
}

#[test]
fn the_same_endpoint_twice_counts_once() {
    let now = Instant::now();
    let one = endpoint(1, 1);
    let twice = Upstream::new(
        item(settings(Balance::Random)),
        0,
        vec![one.clone(), one],
        None,
        now,
    );
    assert_eq!(twice.endpoints().len(), 1);
}

/// GW-707.
#[test]
fn status_says_who_is_out_and_why() {
    let now = Instant::now();
    let upstream = upstream(Balance::Random, &[1, 1, 1, 1], now);
    let endpoints: Vec<_> = upstream.endpoints().iter().cloned().collect();
    fail(&endpoints[0], 5, now);
    shares(&upstream, &[], now, 100);
    endpoints[1]
        .verdict
        .note(&Err("answered 503".into()), now.into());
    endpoints[1].verdict.set_failing(true);
    let status = serde_json::to_value(upstream.status(now)).unwrap();
    assert_eq!(status["name"], "orders");
    assert_eq!(status["panic"], false);
    assert_eq!(status["endpoints"][0]["address"], "10.0.0.1:7000");
    assert_eq!(
        status["endpoints"][0]["health"],
        serde_json::json!({ "state": "ejected", "returns_in_seconds": 10.0 })
    );
    assert_eq!(status["endpoints"][0]["failures"], 5);
    assert_eq!(
        status["endpoints"][1]["health"],
        serde_json::json!({ "state": "failing_probes", "reason": "answered 503" })
    );
    assert_eq!(
        status["endpoints"][2]["health"],
        serde_json::json!({ "state": "healthy" })
    );
}
