//! Upstreams with `service = "*"`: a data plane that knows what its clients call, and nothing else. From the first call
//! of a service to forgetting it, with a control plane that does as the test says.
//!
//! Nothing here waits for a time: every wait is for an answer, a subscription or a page.

mod away;
mod bounds;
mod policies;

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Instant;

use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::client::{Client, Response};
use tollgate_engine::testing::control_plane::{ControlPlane, Setup};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::h2_client::{self, message};
use tollgate_engine::testing::http2::Http2Upstream;
use tollgate_engine::testing::upstream::Upstream;

/// One that tells of services only those who name them.
fn control_plane() -> ControlPlane {
    ControlPlane::with(Setup {
        minimal: true,
        ..Setup::default()
    })
}

/// A route for everything to whatever service is asked for; `keys` go into its upstream, `more` behind everything.
fn document(url: &str, state_dir: Option<&Path>, keys: &str, more: &str) -> String {
    let state = state_dir.map_or_else(String::new, |folder| {
        format!("state_dir = \"{}\"\n", folder.display())
    });
    format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"mesh\"\n\n\
         [[upstream]]\nname = \"mesh\"\nservice = \"*\"\n{keys}\n\n{more}\n\
         [server]\nworkers = 2\ndrain = \"2s\"\n{state}\n\
         [control_plane]\nurls = [\"{url}\"]\nnode = \"box\"\nkind = \"sidecar\"\n"
    )
}

/// No test waits for longer than it has patience: a slow machine is no reason to refuse.
const PATIENT: &str = "learn = { timeout = \"60s\" }";

fn start(control: &ControlPlane) -> Gateway {
    let gateway = Gateway::start(&document(&control.url(), None, PATIENT, ""));
    connected(&gateway);
    gateway
}

fn connected(gateway: &Gateway) {
    until("the control plane to be followed", || {
        gateway.get_status()["control_plane"]["connected"] == true
    });
}

/// One GET of `/` with this host, on a connection of its own.
fn call(gateway: &Gateway, host: &str) -> Response {
    call_at(gateway.address(), host)
}

fn call_at(address: SocketAddr, host: &str) -> Response {
    let mut client = Client::connect(address);
    client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    client.read_response()
}

/// Names of the services that are known.
fn services(gateway: &Gateway) -> Vec<String> {
    let status = gateway.get_status();
    let services = status["services"].as_array().expect("a list").iter();
    let name = |one: &serde_json::Value| one["service"].as_str().expect("text").to_owned();
    services.map(name).collect()
}

/// Waits until it holds.
#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited for {what} in vain");
        thread::yield_now();
    }
}

/// MESH-103: discovery by name, in the proxy.
#[test]
fn the_first_call_of_a_service_costs_one_question_and_the_next_ones_none() {
    let control = control_plane();
    let (orders, users) = (Upstream::fixed("orders"), Upstream::fixed("users"));
    control.service("orders", &[(orders.address(), 1)]);
    control.service("users", &[(users.address(), 1)]);
    control.service("unused", &[(users.address(), 1)]);
    let gateway = start(&control);
    assert!(control.journal().subscriptions[0].also.is_empty());
    assert_eq!(call(&gateway, "orders").text(), "orders");
    for host in [
        "orders:8080",
        "ORDERS.default",
        "orders.default.svc",
        "orders.default.svc.cluster.local.",
    ] {
        assert_eq!(call(&gateway, host).text(), "orders", "{host}");
    }
    let asked = control.journal().wants;
    let asked: Vec<_> = asked.iter().map(|wants| wants.also.clone()).collect();
    assert_eq!(asked, [["orders"]]);
    assert_eq!(call(&gateway, "users").text(), "users");
    assert_eq!(control.journal().wants.len(), 2);
    assert_eq!(control.journal().subscriptions.len(), 1, "the feed went on");
    let status = gateway.get_status();
    assert_eq!(services(&gateway), ["orders", "users"]);
    assert_eq!(status["services"][0]["source"], "control plane");
    let known = status["control_plane"]["services"].as_u64();
    assert_eq!(known, Some(2), "and of no other");
    let upstreams = status["upstreams"].as_array().expect("a list");
    let names: Vec<_> = upstreams.iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["mesh", "mesh:orders", "mesh:users"]);
    assert_eq!(
        (&upstreams[0]["template"], &upstreams[1]["template"]),
        (&true.into(), &"mesh".into())
    );
    let page = gateway.metrics();
    assert!(page.contains("upstream=\"mesh:orders\""), "{page}");
    // What an instance list becomes later is told to whoever learned of the service.
    let more = Upstream::fixed("more");
    control.service("orders", &[(more.address(), 1)]);
    until("the new instance", || {
        call(&gateway, "orders").text() == "more"
    });
}

/// Of every protocol, all waiting for one answer.
#[test]
fn whoever_calls_an_unknown_service_waits_for_the_one_question_about_it() {
    let control = control_plane();
    let orders = Http2Upstream::echo();
    control.service("orders", &[(orders.address(), 1)]);
    let keys = format!("protocol = \"http2\"\n{PATIENT}");
    let gateway = Gateway::start(&document(&control.url(), None, &keys, ""));
    connected(&gateway);
    control.hold_wants(true);
    let address = gateway.address();
    let http1: Vec<_> = (0..8)
        .map(|_| thread::spawn(move || call_at(address, "orders")))
        .collect();
    let grpc: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                h2_client::run(async {
                    let sender = h2_client::connect(address).await;
                    let call = http::Request::post("http://orders/echo.Echo/Unary")
                        .header("content-type", "application/grpc")
                        .header("te", "trailers")
                        .body(())
                        .expect("a request");
                    h2_client::exchange(&sender, call, &[&message(b"one")], None)
                        .await
                        .expect("an answer")
                })
            })
        })
        .collect();
    until("all to wait", || {
        let status = gateway.get_status();
        let generations = status["generations"].as_array().expect("a list").iter();
        generations
            .filter_map(|one| one["in_flight"].as_u64())
            .sum::<u64>()
            == 12
    });
    assert_eq!(orders.requests().len(), 0);
    control.hold_wants(false);
    for one in http1 {
        assert_eq!(one.join().expect("an answer").status, 200);
    }
    for one in grpc {
        let answer = one.join().expect("an answer");
        assert_eq!((answer.status, answer.grpc_status()), (200, Some("0")));
    }
    assert_eq!(control.journal().wants.len(), 1);
}

#[test]
fn a_websocket_waits_for_its_service_like_any_request() {
    let control = control_plane();
    let chat = Upstream::http1(|conn| {
        if conn.read_request().is_some()
            && conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            && let Some(bytes) = conn.read_exact(4)
        {
            conn.send(bytes);
        }
    });
    control.service("chat", &[(chat.address(), 1)]);
    let gateway = start(&control);
    let mut client = gateway.client();
    client.send(
        "GET /chat HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert_eq!(client.read_response().status, 101);
    client.send("ping");
    assert_eq!(client.read_exact(4), b"ping");
}

#[test]
fn a_service_that_nobody_registered_is_refused_at_once_and_not_learned() {
    let control = control_plane();
    let gateway = start(&control);
    let answer = call(&gateway, "nobody");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "unknown_service")
    );
    let answer = h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let call = http::Request::post("http://nobody/a.B/C")
            .header("content-type", "application/grpc")
            .body(())
            .expect("a request");
        h2_client::exchange(&sender, call, &[], None)
            .await
            .expect("an answer")
    });
    assert_eq!(answer.grpc_status(), Some("14"));
    assert!(services(&gateway).is_empty());
    // It is remembered, but only briefly.
    let late = Upstream::fixed("late");
    control.service("nobody", &[(late.address(), 1)]);
    until("the service", || call(&gateway, "nobody").status == 200);
}

#[test]
fn a_service_that_is_gone_stays_subscribed_to_and_returns() {
    let control = control_plane();
    let orders = Upstream::fixed("orders");
    control.service("orders", &[(orders.address(), 1)]);
    let gateway = start(&control);
    assert_eq!(call(&gateway, "orders").status, 200);
    control.service("orders", &[]);
    until("no instance", || call(&gateway, "orders").status == 503);
    assert_eq!(call(&gateway, "orders").code(), "no_endpoint");
    control.hang_up();
    control.wait("a new subscription", |journal| {
        journal.subscriptions.len() == 2
    });
    assert_eq!(control.journal().subscriptions[1].also, ["orders"]);
    control.service("orders", &[(orders.address(), 1)]);
    until("its return", || call(&gateway, "orders").status == 200);
}
