//! The percentile kind from end to end: GW-411.

use super::*;

use std::time::Duration;

use tollgate_engine::testing::gateway::{document, line_of};
use tollgate_engine::testing::journal::Gate;

#[test]
fn gw_411_slow_answers_open_one_of_the_percentile_kind_and_say_so_everywhere() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            // Nobody opens it: this is how long the answer takes.
            assert!(!Gate::new().opens_within(Duration::from_millis(30)));
            conn.respond("200 OK", &[], "late");
        }
    });
    let keys = breaker(
        "kind = \"percentile\"\nslow_after = \"10ms\"\nslow_share = 0.5\nfailures = 3\nvolume = 3\nopen_for = \"100s\"",
    );
    let toml = document(upstream.address(), "", NO_RETRY, &keys);
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 200, "a slow answer is an answer");
    }
    let refused = client.get("/");
    assert_eq!((refused.status, &*refused.code()), (503, "circuit_open"));
    let problem = refused.problem();
    assert_eq!(problem["setting"], "upstream.breaker.slow_share");
    let place = format!("gateway.toml:{}", line_of(&toml, "slow_share"));
    assert_eq!(problem["at"], place);
    let shown = of_app(&gateway);
    assert_eq!(
        (&shown["state"], &shown["reason"]),
        (&"open".into(), &"slow".into())
    );
    let change = &shown["history"][0];
    assert_eq!(
        (&change["tries"], &change["failed"]),
        (&3.into(), &3.into())
    );
    assert_eq!(shown["failures_in_a_row"], 0);
    assert_eq!(upstream.requests().len(), 3);
    let line = "circuit_breaker_transitions_total{upstream=\"app\",reason=\"slow\"} 1";
    assert!(gateway.metrics().contains(line));
}

#[test]
fn gw_411_the_same_answers_are_nothing_to_a_fixed_one() {
    let (upstream, _) = moody(WELL);
    let keys = breaker("failures = 1\nvolume = 1");
    let gateway = Gateway::start(&document(upstream.address(), "", NO_RETRY, &keys));
    assert_eq!(gateway.get("/").status, 200);
    let shown = of_app(&gateway);
    assert_eq!(shown["state"], "closed");
    assert_eq!(shown["slow"], Value::Null);
}
