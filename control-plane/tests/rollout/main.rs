//! A change reaches one node, then all, or returns: one control plane, three gateways under load, and revisions that are
//! bad in ways that no check can see. Clients of the gateways that do not have the revision must notice nothing at all.
//! Waits are for states and answers, never for a time; the spans are only shorter than anybody would set them.

mod lasting;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::thread;
use std::time::Duration;

use serde_json::json;
use support::{Here, until};
use tollgate_engine::testing::upstream::Upstream;
use world::{NODES, World, applied, asking, body, ended, following, hurried, node, runs};

#[test]
fn cp_109_mesh_202_a_port_that_nobody_listens_on_reaches_one_node_and_returns() {
    let mut world = World::new("");
    let revision = applied(
        &mut world.caller,
        &asking(Upstream::nobody()),
        Some("1, 50%, all"),
    );
    assert_eq!(revision, 2);
    let reason = world.returned();
    assert!(reason.starts_with("answers of 500 and above"), "{reason}");
    assert!(
        reason.contains("route `shop`") || reason.contains("all routes"),
        "{reason}"
    );
    assert!(reason.ends_with("on edge-1"), "{reason}");
    assert!(world.loads[0].bad() > 0, "the first node did have it");
    runs(&mut world.caller, "edge-1", 3);
}

#[test]
fn cp_109_a_slower_upstream_reaches_one_node_and_returns() {
    // Slower than the machine makes all the others: where that is slow already, it must be more.
    let mut pause = Duration::from_millis(30);
    until("an upstream that is seen to be slower", || {
        let returned = slower_returns(pause);
        pause *= 3;
        returned
    });
}

fn slower_returns(pause: Duration) -> bool {
    let mut world = World::new("");
    let slow = Upstream::http1(move |conn| {
        while let Some(_request) = conn.read_request() {
            thread::park_timeout(pause);
            conn.respond("200 OK", &[], "slow");
        }
    });
    applied(&mut world.caller, &asking(slow.address()), Some("1, all"));
    if ended(&mut world.caller, 2)["state"] == "done" {
        return false;
    }
    let reason = world.returned();
    assert!(reason.starts_with("slow answers (over "), "{reason}");
    assert_eq!(world.loads[0].bad(), 0, "slow is not wrong");
    true
}

#[test]
fn cp_109_a_node_that_refuses_the_revision_sends_it_back_at_once() {
    let own =
        "[[route]]\nname = \"own\"\nmatch = { path = \"/own\" }\nrespond = { status = 200 }\n";
    let mut world = World::new(own);
    let more =
        "\n[[route]]\nname = \"own\"\nmatch = { path = \"/other\" }\nrespond = { status = 200 }\n";
    let text = asking(world.upstream.address()) + more;
    applied(&mut world.caller, &text, Some("1, all"));
    let reason = world.returned();
    assert!(
        reason.starts_with("edge-1 refused it: shop.toml:"),
        "{reason}"
    );
    assert!(world.loads.iter().all(|load| load.bad() == 0));
}

#[test]
fn cp_109_a_good_revision_reaches_all_in_its_stages_and_another_change_must_wait() {
    // On a machine that stands still one node may look slower than the others: then it is played again.
    until(
        "a machine that lets nobody look slow",
        good_revision_is_done,
    );
}

/// Whether it was done; it may only return for slow answers.
fn good_revision_is_done() -> bool {
    let mut world = World::new("");
    let other = Upstream::fixed("good");
    let text = asking(other.address());
    let caller = &mut world.caller;
    assert_eq!(applied(caller, &text, Some("1, all")), 2);
    let refused = caller.json("POST /apply", &body("", None), 409);
    assert_eq!(
        (&refused["code"], &refused["revision"]),
        (&"rollout_active".into(), &2.into())
    );
    let again = caller.json("POST /apply", &body(&text, None), 200);
    assert_eq!(again["changed"], false, "the same change twice is one");
    until("the first node", || {
        node(caller, "edge-1")["target"].as_u64() >= Some(2)
    });
    let last = ended(caller, 2);
    if last["state"] != "done" {
        let reason = last["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with("slow answers"), "{last}");
        return false;
    }
    NODES.iter().for_each(|name| runs(caller, name, 2));
    for load in &world.loads {
        load.more(50);
        assert_eq!(load.bad(), 0);
    }
    assert_eq!(applied(caller, "", None), 3, "now it may");
    true
}

#[test]
fn roll_103_an_operator_pauses_promotes_and_aborts() {
    let control = Here::start(hurried());
    let mut caller = control.caller();
    let text = |answer: &str| {
        format!(
            "[[route]]\nname = \"shop\"\nmatch = {{ path = \"/shop\" }}\nrespond = {{ status = 200, body = \"{answer}\" }}\n"
        )
    };
    let nothing = caller.json("POST /rollout/pause", "", 409);
    assert_eq!(nothing["code"], "no_rollout");
    applied(&mut caller, &text("one"), None);
    let gateways = NODES.map(|name| following(control.address, name, ""));
    NODES.iter().for_each(|name| runs(&mut caller, name, 1));
    let bad = json!({ "documents": { "a.toml": "" }, "stages": "1, 2" }).to_string();
    let bad = caller.json("POST /apply", &bad, 400);
    assert_eq!(bad["errors"][0]["field"], "stages");

    applied(&mut caller, &text("two"), Some("1, 2, all"));
    runs(&mut caller, "edge-1", 2);
    assert_eq!(gateways[0].get("/shop").text(), "two");
    assert_eq!(gateways[1].get("/shop").text(), "one");
    let paused = caller.json("POST /rollout/pause", r#"{"by": "ann"}"#, 200);
    assert_eq!(paused["rollout"]["paused"], "paused by ann");
    let resumed = caller.json("POST /rollout/resume", "", 200);
    assert_eq!(resumed["rollout"]["state"], "running");
    caller.json("POST /rollout/promote", "", 200);
    until("two nodes", || {
        let nodes = NODES.map(|name| node(&mut caller, name)["runs"]["revision"] == 2);
        nodes.iter().filter(|runs| **runs).count() == 2
    });
    let aborted = caller.json("POST /rollout/abort", r#"{"by": "ann"}"#, 200);
    assert_eq!(aborted["rollout"]["state"], "aborted");
    assert_eq!(aborted["rollout"]["reason"], "aborted by ann");
    until("everybody as before", || {
        gateways
            .iter()
            .all(|gateway| gateway.get("/shop").text() == "one")
    });

    applied(&mut caller, &text("four"), Some("1, 2, all"));
    runs(&mut caller, "edge-1", 4);
    caller.json("POST /rollout/promote", r#"{"to_all": true}"#, 200);
    NODES.iter().for_each(|name| runs(&mut caller, name, 4));
    caller.json("POST /rollout/promote", "", 200);
    assert_eq!(ended(&mut caller, 4)["state"], "done");
}
