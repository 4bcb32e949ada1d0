//! Which endpoint gets the bytes: by the same rules as requests.

use std::io::Read;
use std::net::TcpStream;

use tollgate_engine::testing::client::Ended;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;

use super::{LOGGED, assert_broken, document, lines, metric, named, until};

#[test]
fn mesh_102_an_endpoint_that_cannot_be_connected_to_is_passed_over() {
    let upstream = named("here");
    let endpoints = [Upstream::nobody(), upstream.address(), Upstream::nobody()];
    let keys = "balance = \"round_robin\"\nbreaker = \"off\"\nretry_budget = \"off\"";
    let gateway = Gateway::start(&(document(&endpoints, "", keys) + LOGGED));
    for _ in 0..6 {
        assert_eq!(gateway.client().read_exact(4), b"here");
    }
    assert_eq!(upstream.connections(), 6);
    let lines = lines(&gateway, 6);
    let more = lines.iter().filter(|line| line["attempts"] != 1).count();
    assert!(more > 0, "{lines:?}");
    for line in lines {
        assert_eq!(line["endpoint"], upstream.address().to_string(), "{line}");
    }
}

#[test]
fn mesh_102_a_client_whose_upstream_is_nowhere_sees_its_connection_break() {
    let keys = "breaker = \"off\"\nretry_budget = \"off\"";
    let toml = document(&[Upstream::nobody()], "", keys) + LOGGED;
    let gateway = Gateway::start(&toml);
    assert_broken(&gateway);
    let line = &lines(&gateway, 1)[0];
    assert_eq!(line["message"], "connection", "{line}");
    assert_eq!(line["end"], "unconnected", "{line}");
    assert_eq!(line["error"]["code"], "connect_failed", "{line}");
    assert_eq!(line["level"], "error", "{line}");
    assert_eq!(line["attempts"], 3, "{line}");
    let ended = "relay_connections_total{listener=\"in\",end=\"unconnected\"}";
    assert_eq!(metric(&gateway, ended), 1);
}

#[test]
fn mesh_102_an_upstream_that_is_nowhere_opens_its_breaker() {
    let keys = "retry_budget = \"off\"\nbreaker = { failures = 3, volume = 3, open_for = \"60s\" }";
    let toml = document(&[Upstream::nobody()], "", keys) + LOGGED;
    let gateway = Gateway::start(&toml);
    for _ in 0..2 {
        assert_broken(&gateway);
    }
    let lines = lines(&gateway, 2);
    // Three tries were too many; nobody asks after them.
    assert_eq!(lines[0]["attempts"], 3, "{lines:?}");
    assert_eq!(lines[1]["attempts"], 0, "{lines:?}");
    assert_eq!(lines[1]["error"]["code"], "circuit_open", "{lines:?}");
}

#[test]
fn mesh_102_an_endpoint_that_breaks_connections_off_without_a_word_is_ejected() {
    let bad = Upstream::http1(|conn| {
        conn.read_exact(1);
        conn.reset();
    });
    let good = named("");
    let keys = "balance = \"round_robin\"\nbreaker = \"off\"\noutlier = { failures = 2, deviation = \"off\" }";
    let gateway = Gateway::start(&document(&[bad.address(), good.address()], "", keys));
    let status = |gateway: &Gateway| {
        let status = gateway.get_status();
        status["upstreams"][0]["endpoints"][0]["health"].to_string()
    };
    until("it is ejected", || {
        let mut client = gateway.client();
        client.send("x");
        client.finish();
        client.drain();
        status(&gateway).contains("ejected")
    });
    for _ in 0..4 {
        let mut client = gateway.client();
        client.send("y");
        assert_eq!(client.read_exact(1), b"y");
    }
}

#[test]
fn mesh_102_no_more_connections_are_relayed_than_may_be_in_flight() {
    let gate = Gate::new();
    let theirs = gate.clone();
    let upstream = Upstream::http1(move |conn| {
        conn.send("in");
        theirs.wait();
    });
    let keys = "max_in_flight = 1\nqueue = \"off\"";
    let gateway = Gateway::start(&(document(&[upstream.address()], "", keys) + LOGGED));
    let mut first = gateway.client();
    assert_eq!(first.read_exact(2), b"in");
    assert_broken(&gateway);
    assert_eq!(lines(&gateway, 1)[0]["error"]["code"], "overloaded");
    gate.open();
    first.finish();
    assert_eq!(first.drain(), (Vec::new(), Ended::Closed));
    until("there is room again", || {
        let mut heard = Vec::new();
        let next = TcpStream::connect(gateway.address());
        next.and_then(|mut next| next.read_to_end(&mut heard))
            .is_ok()
            && heard == b"in"
    });
}

#[test]
fn mesh_102_a_client_is_sent_to_the_endpoint_of_its_hash() {
    let upstreams = [named("a"), named("b"), named("c")];
    let addresses = upstreams.each_ref().map(Upstream::address);
    let keys = "balance = { hash = { client = true } }";
    let gateway = Gateway::start(&document(&addresses, "", keys));
    let first = gateway.client().read_exact(1);
    for _ in 0..8 {
        assert_eq!(gateway.client().read_exact(1), first);
    }
}
