//! The control plane is away when a service is called first, and what a process begins with that has learned some.

use tollgate_engine::testing::control_plane::{ControlPlane, Setup};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::{PATIENT, call, connected, control_plane, document, services, until};

/// An address that nobody listens on and that nobody else is given.
fn reserved() -> (socket2::Socket, std::net::SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().expect("it is bound").as_socket();
    (socket, address.expect("an internet address"))
}

#[test]
fn without_a_control_plane_a_call_is_refused_with_the_setting_and_works_when_it_is_back() {
    let (_held, address) = reserved();
    let keys = "learn = { timeout = \"50ms\" }";
    let toml = document(&format!("http://{address}"), None, keys, "");
    let gateway = Gateway::start(&toml);
    let answer = call(&gateway, "orders");
    let problem = answer.problem();
    assert_eq!(
        (answer.status, &problem["code"]),
        (503, &"service_lookup_failed".into())
    );
    assert_eq!(problem["setting"], "upstream.learn.timeout");
    let line = tollgate_engine::testing::gateway::line_of(&toml, "learn =");
    assert_eq!(problem["at"], format!("gateway.toml:{line}"));
    assert!(!answer.text().contains("127.0.0.1"), "no address is told");
    let orders = Upstream::fixed("orders");
    let control = ControlPlane::with(Setup {
        bind: address,
        minimal: true,
        ..Setup::default()
    });
    control.service("orders", &[(orders.address(), 1)]);
    until("the service", || call(&gateway, "orders").status == 200);
}

/// A call that comes before the control plane does waits for it.
#[test]
fn a_call_waits_for_a_control_plane_that_comes_in_time() {
    let (_held, address) = reserved();
    let gateway = Gateway::start(&document(&format!("http://{address}"), None, PATIENT, ""));
    let at = gateway.address();
    let waiting = std::thread::spawn(move || super::call_at(at, "orders"));
    until("it to wait", || {
        let status = gateway.get_status();
        status["generations"][0]["in_flight"] == 1
    });
    let orders = Upstream::fixed("orders");
    let control = ControlPlane::with(Setup {
        bind: address,
        minimal: true,
        ..Setup::default()
    });
    control.service("orders", &[(orders.address(), 1)]);
    assert_eq!(waiting.join().expect("an answer").text(), "orders");
}

/// MESH-106: what was learned, and the instances that were known, serve without a control plane.
#[test]
fn a_restart_serves_what_was_learned_from_disk_and_asks_for_it_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (held, address) = reserved();
    let setup = || Setup {
        bind: address,
        minimal: true,
        ..Setup::default()
    };
    let control = ControlPlane::with(setup());
    let orders = Upstream::fixed("orders");
    control.service("orders", &[(orders.address(), 1)]);
    control.service("users", &[(orders.address(), 1)]);
    let toml = document(&control.url(), Some(folder.path()), PATIENT, "");
    let first = Gateway::start(&toml);
    connected(&first);
    // With the first batch applied, what is told is kept.
    control.outcome(0);
    assert_eq!(call(&first, "orders").status, 200);
    until("both files", || {
        let holds = |name: &str| {
            let text = std::fs::read_to_string(folder.path().join(name));
            text.is_ok_and(|text| text.contains("orders"))
        };
        holds("learned") && holds("last_good")
    });
    drop(first);
    drop(control);
    let second = Gateway::start(&toml);
    assert_eq!(second.ask("GET /health/ready").status, 200);
    assert_eq!(call(&second, "orders").text(), "orders");
    assert_eq!(services(&second), ["orders"]);
    assert_eq!(second.get_status()["services"][0]["source"], "disk");
    let control = ControlPlane::with(setup());
    drop(held);
    control.service("orders", &[(orders.address(), 1)]);
    let journal = control.wait("a subscription", |journal| {
        !journal.subscriptions.is_empty()
    });
    assert_eq!(journal.subscriptions[0].also, ["orders"]);
    assert_eq!(call(&second, "orders").text(), "orders");
}

/// Also when all that was kept of instances is lost.
#[test]
fn names_without_instances_are_subscribed_to_and_serve_once_they_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = r#"{"version":1,"services":{"orders":{"since":1,"used":99999999999}}}"#;
    std::fs::write(folder.path().join("learned"), kept).expect("written");
    let control = control_plane();
    let orders = Upstream::fixed("orders");
    control.service("orders", &[(orders.address(), 1)]);
    let toml = document(&control.url(), Some(folder.path()), PATIENT, "");
    let gateway = Gateway::start(&toml);
    assert_eq!(call(&gateway, "orders").text(), "orders");
    assert_eq!(control.journal().subscriptions[0].also, ["orders"]);
}

/// The lookup hangs, and nobody waits for longer than the route allows.
#[test]
fn a_routes_own_time_bounds_the_wait_for_a_service() {
    let control = control_plane();
    let gateway = Gateway::start(&document(&control.url(), None, PATIENT, "").replace(
        "upstream = \"mesh\"",
        "upstream = \"mesh\"\ntimeout = \"50ms\"",
    ));
    connected(&gateway);
    control.hold_wants(true);
    let answer = call(&gateway, "orders");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (504, "route_timeout")
    );
    control.hold_wants(false);
}
