//! A node that announces a service: only when it is ready, again when it was forgotten, and no longer first of all.

use tollgate_engine::testing::control_plane::{ControlPlane, answering};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;

use super::{asking, ready, reserved, until};

const REGISTER: &str = "register = { name = \"orders\", address = \"10.0.0.7:7000\", metadata = { version = \"1.2.3\" } }\n";

fn calls(control: &ControlPlane, begin: &str) -> usize {
    let journal = control.journal();
    journal
        .registry
        .iter()
        .filter(|call| call.starts_with(begin))
        .count()
}

#[test]
fn reg_105_402_an_instance_is_registered_when_it_is_ready_and_again_when_it_is_not_known() {
    let place = reserved();
    let document = asking(&[place.url()], None) + REGISTER;
    let gateway = Gateway::start(&document);
    assert!(!ready(&gateway));
    let control = place.start();
    control.outcome(0);
    control.change([answering("a", "/a", "one")], &[]);
    control.wait("a registration and beats", |journal| {
        journal
            .registry
            .iter()
            .filter(|call| call.starts_with("PUT /heartbeat/orders-"))
            .count()
            > 1
    });
    let journal = control.journal();
    let record = journal.registry[0]
        .strip_prefix("POST /register ")
        .expect("first of all");
    let record: serde_json::Value = serde_json::from_str(record).expect("JSON");
    assert_eq!(record["name"], "orders");
    assert_eq!(record["address"], "10.0.0.7:7000");
    assert_eq!(record["health_endpoint"], "/health/ready");
    assert_eq!(record["metadata"]["version"], "1.2.3");
    assert_eq!(calls(&control, "POST /register"), 1);
    until("the figure", || {
        gateway.metrics().contains("control_plane_registered 1")
    });
    let id = gateway.get_status()["control_plane"]["registration"]["id"].clone();
    assert_eq!(record["id"], id);

    control.forget_instances();
    control.wait("another registration", |journal| {
        journal
            .registry
            .iter()
            .filter(|call| call.starts_with("POST /register"))
            .count()
            == 2
    });
    assert_eq!(calls(&control, "DELETE"), 0);
    // Another address is another instance; nothing at all is no instance.
    gateway
        .edit(&document.replace(":7000", ":7001"))
        .expect("a good file");
    control.wait("the former one's end", |journal| {
        let has = |begin: &str, part: &str| {
            journal
                .registry
                .iter()
                .any(|call| call.starts_with(begin) && call.contains(part))
        };
        has("DELETE /services/orders-", "-7000-") && has("POST /register", "10.0.0.7:7001")
    });
    gateway
        .edit(&asking(&[place.url()], None))
        .expect("a good file");
    control.wait("the end", |journal| {
        journal
            .registry
            .iter()
            .any(|call| call.starts_with("DELETE") && call.contains("-7001-"))
    });
}

#[test]
fn reg_408_a_stopping_node_deregisters_before_it_drains() {
    let gate = Gate::new();
    let theirs = gate.clone();
    let upstream = Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            theirs.wait();
            conn.respond("200 OK", &[], "finished");
        }
    });
    let control = ControlPlane::start();
    let own = format!(
        "{REGISTER}[[upstream]]\nname = \"own\"\nendpoints = [\"{}\"]\n[[route]]\nmatch = {{ path = \"/*\" }}\nupstream = \"own\"\ntimeout = \"60s\"\n",
        upstream.address()
    );
    let gateway = Gateway::start(&(asking(&[control.url()], None) + &own));
    control.wait("a registration", |journal| !journal.registry.is_empty());
    until("the answer", || {
        gateway.get_status()["control_plane"]["registration"]["url"].is_string()
    });
    let mut slow = gateway.client();
    slow.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.wait("the request", |journal| journal.requests.len() == 1);
    let stopping = std::thread::spawn(move || gateway.stop());
    control.wait("the end", |journal| {
        journal
            .registry
            .iter()
            .any(|call| call.starts_with("DELETE /services/orders-"))
    });
    gate.open();
    assert_eq!(slow.read_response().text(), "finished");
    stopping.join().expect("no panic");
}
