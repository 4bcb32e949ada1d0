//! Endpoints that a control plane knows: they come, go and change weight under load, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tollgate_config::feed::Kind;
use tollgate_engine::testing::control_plane::{ControlPlane, answering, block};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::{asking, until};

const UPSTREAM: &str =
    "[[upstream]]\nname = \"orders\"\nservice = \"orders\"\nbalance = \"round_robin\"\n";
const ROUTE: &str = "[[route]]\nname = \"orders\"\nmatch = { path = \"/*\" }\nupstream = \"orders\"\ntimeout = \"60s\"\n";

fn routed(control: &ControlPlane) -> Gateway {
    control.change(
        [
            block(Kind::Upstream, "orders", 1, UPSTREAM),
            block(Kind::Route, "orders", 10, ROUTE),
        ],
        &[],
    );
    let gateway = Gateway::start(&asking(&[control.url()], None));
    control.outcome(1);
    gateway
}

#[test]
fn instances_come_and_go_under_load_with_no_failed_request() {
    let control = ControlPlane::start();
    let upstreams: Vec<Upstream> = ["0", "1", "2", "3"].map(Upstream::fixed).into();
    let some = |which: &[usize]| -> Vec<_> {
        which
            .iter()
            .map(|at| (upstreams[*at].address(), 1))
            .collect()
    };
    control.service("orders", &some(&[0]));
    let gateway = routed(&control);
    let generation = gateway.get_status()["generation"].clone();
    let (stop, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (stop, count, mut client) = (stop.clone(), count.clone(), gateway.client());
            thread::spawn(move || {
                let mut bad = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get("/");
                    if answer.status != 200 {
                        bad.push(answer.status);
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                bad
            })
        })
        .collect();
    let sets: [&[usize]; 6] = [&[0, 1], &[1, 2, 3], &[2], &[0, 2], &[3, 1], &[0, 1, 2, 3]];
    for set in sets.iter().cycle().take(30) {
        control.service("orders", &some(set));
        let mut wanted: Vec<String> = set
            .iter()
            .map(|at| upstreams[*at].address().to_string())
            .collect();
        wanted.sort_unstable();
        until("the endpoints", || endpoints(&gateway) == wanted);
        let before = count.load(Ordering::Relaxed);
        until("some load on them", || {
            count.load(Ordering::Relaxed) > before + 40
        });
    }
    stop.store(true, Ordering::Relaxed);
    let bad: Vec<u16> = load
        .into_iter()
        .flat_map(|one| one.join().expect("no panic"))
        .collect();
    assert_eq!(bad, Vec::<u16>::new());
    assert_eq!(
        gateway.get_status()["generation"],
        generation,
        "no route was compiled for it"
    );
    assert_eq!(gateway.get_status()["control_plane"]["applied"], 1);
}

fn endpoints(gateway: &Gateway) -> Vec<String> {
    let status = gateway.get_status();
    let all = status["upstreams"][0]["endpoints"]
        .as_array()
        .expect("a list")
        .clone();
    let mut all: Vec<String> = all
        .iter()
        .map(|one| one["address"].as_str().expect("text").to_owned())
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn a_route_its_upstream_and_its_instances_arrive_together() {
    let control = ControlPlane::start();
    control.change([answering("a", "/a", "one")], &[]);
    let gateway = Gateway::start(&asking(&[control.url()], None));
    control.outcome(1);
    let upstream = Upstream::fixed("orders");
    control.service("orders", &[(upstream.address(), 1)]);
    let revision = control.change(
        [
            block(Kind::Upstream, "orders", 1, UPSTREAM),
            block(Kind::Route, "orders", 10, ROUTE),
        ],
        &[],
    );
    control.outcome(revision);
    assert_eq!(gateway.get("/").text(), "orders");
    // An empty list is the control plane's word, and so is a full one.
    control.service("orders", &[]);
    until("no endpoint", || gateway.get("/").status == 503);
    control.service("orders", &[(upstream.address(), 1)]);
    until("an endpoint", || gateway.get("/").status == 200);
}

#[test]
fn a_files_own_upstream_may_name_a_service_and_metadata() {
    let control = ControlPlane::start();
    let upstream = Upstream::fixed("own");
    control.service("orders", &[(upstream.address(), 1)]);
    let own = format!("{UPSTREAM}with = {{ version = \"2\" }}\n{ROUTE}");
    let gateway = Gateway::start(&(asking(&[control.url()], None) + &own));
    control.outcome(0);
    assert_eq!(control.journal().subscriptions[0].also, ["orders"]);
    assert_eq!(gateway.get("/").status, 503, "none has that version");
    let own = format!("{UPSTREAM}{ROUTE}");
    gateway
        .edit(&(asking(&[control.url()], None) + &own))
        .expect("a good file");
    assert_eq!(gateway.get("/").text(), "own");
}

#[test]
fn instances_with_names_are_looked_up() {
    let control = ControlPlane::start();
    let upstream = Upstream::fixed("by name");
    let gateway = routed(&control);
    let port = upstream.address().port();
    control.say(format!(
        "{{\"service\":{{\"name\":\"orders\",\"version\":9,\"instances\":[{{\"id\":\"a\",\"address\":\"localhost:{port}\"}}]}}}}\n"
    ));
    until("the name's address", || {
        gateway.get("/").text() == "by name"
    });
}
