//! Names come from strangers: what cannot be a service, how many there may be, and what is forgotten.

use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::{call, connected, control_plane, document, services, start, until};

#[test]
fn a_service_more_than_may_be_known_is_refused_with_the_setting() {
    let control = control_plane();
    let upstream = Upstream::fixed("one");
    for name in ["a", "b", "c"] {
        control.service(name, &[(upstream.address(), 1)]);
    }
    let keys = "learn = { timeout = \"60s\", max_services = 2 }";
    let gateway = Gateway::start(&document(&control.url(), None, keys, ""));
    connected(&gateway);
    assert_eq!(
        (call(&gateway, "a").status, call(&gateway, "b").status),
        (200, 200)
    );
    let answer = call(&gateway, "c");
    let problem = answer.problem();
    assert_eq!(
        (answer.status, &problem["code"]),
        (503, &"too_many_services".into())
    );
    assert_eq!(problem["setting"], "upstream.learn.max_services");
    assert_eq!(
        call(&gateway, "a").status,
        200,
        "those that are known go on"
    );
    assert_eq!(services(&gateway), ["a", "b"]);
}

#[test]
fn what_cannot_be_a_service_is_refused_without_a_question() {
    let control = control_plane();
    let gateway = start(&control);
    let long = "o".repeat(64);
    for host in [
        "api.example.com",
        "10.0.0.1",
        "10.0.0.1:80",
        "[::1]:80",
        "orders..svc",
        "-orders",
        "orders.default.pod",
        "orders.default.svc.",
        &long,
    ] {
        let answer = call(&gateway, host);
        if host == "orders.default.svc." {
            assert_eq!(answer.code(), "unknown_service", "a last dot means nothing");
            continue;
        }
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "bad_service_name"),
            "{host}"
        );
    }
    let asked = control.journal().wants;
    assert!(
        asked.iter().all(|wants| wants.also == ["orders"]),
        "{asked:?}"
    );
}

/// Thousands of names that nobody registered leave nothing behind.
#[test]
fn made_up_names_are_forgotten_with_their_requests() {
    let control = control_plane();
    let orders = Upstream::fixed("orders");
    control.service("orders", &[(orders.address(), 1)]);
    let gateway = start(&control);
    let mut client = gateway.client();
    for number in 0..300 {
        client.send(format!("GET / HTTP/1.1\r\nHost: made-up-{number}\r\n\r\n"));
        assert_eq!(client.read_response().code(), "unknown_service");
    }
    assert_eq!(call(&gateway, "orders").status, 200);
    assert_eq!(services(&gateway), ["orders"]);
    let last = control.journal().wants.pop().expect("questions");
    assert_eq!(
        last.also,
        ["orders"],
        "no made-up name is wanted any longer"
    );
    assert_eq!(
        gateway.get_status()["upstreams"].as_array().map(Vec::len),
        Some(2)
    );
}

#[test]
fn a_service_that_nobody_asks_for_is_forgotten_and_learned_again_when_somebody_does() {
    let control = control_plane();
    let orders = Upstream::fixed("orders");
    control.service("orders", &[(orders.address(), 1)]);
    let keys = "learn = { timeout = \"60s\", forget = \"100ms\" }";
    let gateway = Gateway::start(&document(&control.url(), None, keys, ""));
    connected(&gateway);
    assert_eq!(call(&gateway, "orders").status, 200);
    control.wait("the wish to end", |journal| {
        journal
            .wants
            .last()
            .is_some_and(|wants| wants.also.is_empty())
    });
    until("the service to be forgotten", || {
        let status = gateway.get_status();
        services(&gateway).is_empty() && status["control_plane"]["services"] == 0
    });
    assert_eq!(
        gateway.get_status()["upstreams"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(call(&gateway, "orders").status, 200);
    assert!(
        control
            .journal()
            .wants
            .iter()
            .filter(|wants| !wants.also.is_empty())
            .count()
            > 1
    );
}
