//! A change in stages where nodes listen to any of three control planes: the one that leads hears all of them, and the next
//! one goes on with what is written.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use crate::etcd::missing;
use crate::faults::Load;
use crate::fleet::{Fleet, document};
use crate::support::until;

const NODES: [&str; 3] = ["edge-0", "edge-1", "edge-2"];

fn hurried(hold: &str) -> String {
    format!("[feed]\nfigures = \"100ms\"\n\n[rollout]\nhold = \"{hold}\"\nmin_requests = 50\n")
}

fn orders(upstream: SocketAddr) -> String {
    format!(
        "[[upstream]]\nname = \"orders\"\nendpoints = [\"{upstream}\"]\nbreaker = {{ open_for = \"100ms\" }}\n\n\
         [[route]]\nname = \"orders\"\nmatch = {{ path = \"/orders\" }}\nupstream = \"orders\"\ntimeout = \"60s\"\n"
    )
}

fn staged(text: &str) -> String {
    let documents = json!({ "orders.toml": text });
    json!({ "documents": documents, "by": "test", "stages": "1, all", "first": [NODES[0]] })
        .to_string()
}

/// One gateway at each control plane, the first one at a follower; all serve revision 1.
fn served(fleet: &Fleet, upstream: &Upstream) -> Vec<Gateway> {
    let text = orders(upstream.address());
    assert_eq!(
        fleet.ask("POST /apply", &document("orders.toml", &text)).0,
        200
    );
    let first = fleet.follower();
    let gateways = NODES.iter().enumerate();
    gateways
        .map(|(number, node)| {
            let gateway = fleet.gateway((first + number) % 3, node);
            until("a gateway to serve", || {
                gateway.get("/orders").status == 200
            });
            gateway
        })
        .collect()
}

fn rollout(fleet: &Fleet) -> Value {
    fleet.ask("GET /rollout", "").1
}

#[track_caller]
fn ended(fleet: &Fleet, revision: u64) -> Value {
    let mut last = Value::Null;
    until("the rollout to end", || {
        let mut status = rollout(fleet);
        last = status["last"].take();
        last["revision"] == revision
    });
    last
}

#[test]
fn what_nodes_of_followers_serve_sends_a_bad_change_back_cp_109() {
    if missing() {
        return;
    }
    let fleet = Fleet::start(3, 1, &hurried("1s"));
    let upstream = Upstream::fixed("one");
    let gateways = served(&fleet, &upstream);
    let mut loads: Vec<Load> = gateways.iter().map(Load::on).collect();
    until("figures of all nodes", || {
        let figures = fleet.ask("GET /figures", "").1;
        figures["nodes"].as_object().map_or(0, serde_json::Map::len) == NODES.len()
    });
    let bad = staged(&orders(Upstream::nobody()));
    let follower = fleet.follower();
    let applied = fleet.done(follower, "POST /apply", &bad, 200);
    assert_eq!(applied["revision"], 2);
    let last = ended(&fleet, 2);
    assert_eq!(last["state"], "returned", "{last}");
    assert_eq!(last["nodes"], json!([NODES[0]]));
    assert_eq!(last["returned_as"], 3);
    until("everybody to know", || {
        (0..3).all(|number| fleet.about(number)["revision"] == 3)
    });
    until("the first one to be as before", || {
        gateways[0].get("/orders").status == 200
    });
    assert!(!loads.remove(0).stop().is_empty(), "it did have it");
    loads.into_iter().for_each(Load::end);
}

#[test]
fn the_next_leader_goes_on_with_a_rollout_cp_109_reg_504() {
    if missing() {
        return;
    }
    let mut fleet = Fleet::start(3, 1, &hurried("1h"));
    let (one, two) = (Upstream::fixed("one"), Upstream::fixed("two"));
    let gateways = served(&fleet, &one);
    let says = |number: usize| gateways[number].get("/orders").text();
    assert_eq!(
        fleet.ask("POST /apply", &staged(&orders(two.address()))).0,
        200
    );
    until("the first node", || says(0) == "two");
    let leader = fleet.until_led();
    fleet.kill(leader);
    fleet.until_led();
    until("the next one to hear of the first node", || {
        let now = rollout(&fleet);
        let waits = now["rollout"]["waits_for"].as_str().unwrap_or_default();
        waits.starts_with("the end of the stage")
    });
    let now = rollout(&fleet);
    assert_eq!(now["rollout"]["nodes"], json!([NODES[0]]), "{now}");
    assert_eq!(
        (says(0), says(1), says(2)),
        ("two".into(), "one".into(), "one".into())
    );
    let other = fleet.ask("POST /apply", &document("more.toml", ""));
    assert_eq!((other.0, &other.1["changed"]), (200, &json!(false)));
    // It comes back, and knows who shall have it.
    fleet.run(leader);
    fleet.ready(leader);
    assert_eq!(rollout(&fleet)["rollout"]["revision"], 2);
    assert_eq!(fleet.ask("POST /rollout/promote", "").0, 200);
    until("all of them", || (0..3).all(|number| says(number) == "two"));
    assert_eq!(fleet.ask("POST /rollout/promote", "").0, 200);
    assert_eq!(ended(&fleet, 2)["state"], "done");
    until("nothing to be rolled out, everywhere", || {
        (0..3).all(|number| {
            let status = fleet.caller(number).json("GET /rollout", "", 200);
            status["rollout"].is_null()
        })
    });
}
