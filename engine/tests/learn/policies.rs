//! What is said of one service beside the template: upstreams of its own, routes for its host, subsets, fallbacks.

use tollgate_config::feed::Kind;
use tollgate_engine::testing::control_plane::block;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::{PATIENT, call, connected, control_plane, document, start, until};

/// MESH-201
#[test]
fn an_upstream_that_is_called_like_the_service_stands_in_for_the_template() {
    let control = control_plane();
    let (orders, users) = (Upstream::fixed("orders"), Upstream::fixed("users"));
    control.service("orders", &[(orders.address(), 1)]);
    control.service("users", &[(users.address(), 1)]);
    let gateway = start(&control);
    assert_eq!(call(&gateway, "orders").status, 200);
    assert_eq!(call(&gateway, "users").status, 200);
    // A policy that comes while the service is in use.
    let text = "[[upstream]]\nname = \"orders\"\nservice = \"orders\"\nbalance = \"round_robin\"\n";
    let revision = control.change([block(Kind::Upstream, "orders", 1, text)], &[]);
    control.outcome(revision);
    let names = || -> Vec<String> {
        let status = gateway.get_status();
        let upstreams = status["upstreams"].as_array().expect("a list").iter();
        upstreams
            .map(|one| one["name"].as_str().expect("text").to_owned())
            .collect()
    };
    assert_eq!(names(), ["mesh", "orders", "mesh:users"]);
    assert_eq!(call(&gateway, "orders").text(), "orders");
    assert!(gateway.metrics().contains("upstream=\"orders\""));
    // And one that goes.
    let revision = control.change([], &["shop.toml#upstream:orders"]);
    control.outcome(revision);
    assert_eq!(names(), ["mesh", "mesh:orders", "mesh:users"]);
    assert_eq!(call(&gateway, "orders").text(), "orders");
}

/// An upstream that only shares its name has its own endpoints, and is nobody's policy.
#[test]
fn an_upstream_with_other_instances_is_no_policy_of_the_service() {
    let control = control_plane();
    let (orders, other) = (Upstream::fixed("orders"), Upstream::fixed("other"));
    control.service("orders", &[(orders.address(), 1)]);
    let own = format!(
        "[[upstream]]\nname = \"orders\"\nendpoints = [\"{}\"]\n",
        other.address()
    );
    let gateway = Gateway::start(&document(&control.url(), None, PATIENT, &own));
    connected(&gateway);
    assert_eq!(call(&gateway, "orders").text(), "orders");
}

/// MESH-203: a route for the service's host wins over the one for everything, also for the request that waited.
#[test]
fn a_route_for_the_services_host_takes_its_requests() {
    let control = control_plane();
    let (orders, new) = (Upstream::fixed("orders"), Upstream::fixed("new"));
    control.service("orders", &[(orders.address(), 1)]);
    control.service("new-orders", &[(new.address(), 1)]);
    let gateway = start(&control);
    assert_eq!(call(&gateway, "orders").text(), "orders");
    let text = "[[upstream]]\nname = \"canary\"\nservice = \"new-orders\"\n";
    let route = "[[route]]\nname = \"orders\"\nmatch = { host = \"orders\", path = \"/*\", listener = \"in\" }\nupstream = \"canary\"\n";
    let revision = control.change(
        [
            block(Kind::Upstream, "canary", 1, text),
            block(Kind::Route, "orders", 5, route),
        ],
        &[],
    );
    control.outcome(revision);
    let list = serde_json::json!({ "service": { "name": "new-orders", "version": 99, "instances": [
        { "id": "a", "address": new.address().to_string() } ] } });
    control.say(format!("{list}\n"));
    until("the canary", || call(&gateway, "orders").text() == "new");
    assert_eq!(
        call(&gateway, "new-orders").text(),
        "new",
        "the template knows it, too"
    );
}

#[test]
fn a_fallback_answers_for_a_service_that_is_unknown() {
    let control = control_plane();
    let toml = document(&control.url(), None, PATIENT, "").replace(
        "upstream = \"mesh\"",
        "upstream = \"mesh\"\nfallback = { on = [\"connect\"], respond = { status = 200, body = \"instead\" } }",
    );
    let gateway = Gateway::start(&toml);
    connected(&gateway);
    let answer = call(&gateway, "nobody");
    assert_eq!((answer.status, answer.text().as_str()), (200, "instead"));
    assert_eq!(
        answer.header("x-tollgate-fallback"),
        Some("unknown_service")
    );
}

/// Two templates of one route: each with its own part of the instances.
#[test]
fn a_split_may_go_to_templates() {
    let control = control_plane();
    let orders = Upstream::fixed("orders");
    control.service("orders", &[(orders.address(), 1)]);
    let more = "[[upstream]]\nname = \"none\"\nservice = \"*\"\nwith = { version = \"2\" }\n";
    let toml = document(&control.url(), None, PATIENT, more).replace(
        "upstream = \"mesh\"",
        "split = [{ upstream = \"mesh\", weight = 1 }, { upstream = \"none\", weight = 1 }]",
    );
    let gateway = Gateway::start(&toml);
    connected(&gateway);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(call(&gateway, "orders").status);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [200, 503]);
}

/// `explain` tells the service, and whether it is known.
#[test]
fn explain_names_the_service_and_what_is_known_of_it() {
    let control = control_plane();
    let orders = Upstream::fixed("orders");
    control.service("orders", &[(orders.address(), 1)]);
    let gateway = start(&control);
    let explain = || {
        let mut client = tollgate_engine::testing::client::Client::connect(gateway.admin());
        let body = r#"{"url":"http://orders.default/x"}"#;
        client.send(format!(
            "POST /explain HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let answer = client.read_response();
        serde_json::from_slice::<serde_json::Value>(&answer.body).expect("JSON")
    };
    let before = explain();
    assert_eq!(before["service"]["name"], "orders");
    assert_eq!(before["service"]["known"], false);
    assert_eq!(before["upstreams"][0]["name"], "mesh");
    assert_eq!(call(&gateway, "orders").status, 200);
    let after = explain();
    assert_eq!(after["service"]["known"], true);
    assert_eq!(after["service"]["source"], "control plane");
    assert_eq!(after["upstreams"][0]["name"], "mesh:orders");
    assert_eq!(
        after["upstreams"][0]["state"]["endpoints"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}
