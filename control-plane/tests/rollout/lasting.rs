//! What kills change about a rollout: nothing. And what nodes say of instances reaches the registry.

use std::thread;

use serde_json::{Value, json};
use tollgate_engine::testing::store::free;
use tollgate_engine::testing::upstream::Upstream;

use crate::support::{Caller, Here, Process, Site, until};
use crate::world::{Load, NODES, applied, body, following, hurried, node, runs};

/// A node that found nobody for a while tries again after up to ten seconds.
#[track_caller]
fn back(caller: &mut Caller, name: &str, revision: u64) {
    until(&format!("{name} to run {revision}"), || {
        node(caller, name)["runs"]["revision"] == revision
    });
}

#[test]
fn cp_109_a_rollout_outlives_kill_9_at_any_time_and_nobody_else_gets_the_revision() {
    let address = free();
    let site = Site::with("");
    let text = format!(
        "server = {{ bind = \"{address}\", state_dir = \"state\" }}\nrollout = {{ hold = \"1h\" }}\nfeed = {{ figures = \"100ms\" }}\n"
    );
    std::fs::write(site.document(), text).expect("written");
    let answering = |answer: &str| {
        format!(
            "[[route]]\nname = \"shop\"\nmatch = {{ path = \"/shop\" }}\nrespond = {{ status = 200, body = \"{answer}\" }}\n"
        )
    };
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    applied(&mut caller, &answering("one"), None);
    let gateways = NODES.map(|name| following(address, name, ""));
    NODES.iter().for_each(|name| runs(&mut caller, name, 1));
    applied(&mut caller, &answering("two"), Some("1, all"));
    // Its first node is chosen by this process or the next.
    drop(process);
    for round in 0..6 {
        let process = Process::run(&site.document());
        let mut caller = process.caller();
        let status = caller.json("GET /rollout", "", 200);
        assert_eq!(status["rollout"]["revision"], 2, "round {round}: {status}");
        if round % 2 == 0 {
            back(&mut caller, "edge-1", 2);
            // Others are told, too: what they have had all along.
            NODES[1..]
                .iter()
                .for_each(|name| back(&mut caller, name, 1));
        }
        assert_eq!(gateways[1].get("/shop").text(), "one");
        assert_eq!(gateways[2].get("/shop").text(), "one");
        drop(process);
    }
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    back(&mut caller, "edge-1", 2);
    assert_eq!(gateways[0].get("/shop").text(), "two");
    caller.json("POST /rollout/abort", "", 200);
    drop(process);
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    back(&mut caller, "edge-1", 3);
    assert_eq!(gateways[0].get("/shop").text(), "one");
    let last = caller.json("GET /rollout", "", 200);
    assert!(last["rollout"].is_null());
    assert_eq!(last["last"]["state"], "aborted");
}

#[test]
fn cp_109_no_kill_leaves_a_revision_without_the_rollout_that_it_began_with() {
    let site = Site::with("rollout = { stages = [\"1\", \"all\"], wait = \"1h\" }\n");
    let mut newest = 0;
    for round in 0..15_u64 {
        let process = Process::run(&site.document());
        let mut caller = process.caller();
        let revisions = caller.json("GET /revisions", "", 200);
        let rollout = caller.json("GET /rollout", "", 200);
        let now = revisions["revision"].as_u64().expect("a number");
        assert!(now >= newest, "round {round}: what was accepted is there");
        let latest = &revisions["revisions"][0];
        // The first documents go to all at once.
        if now > 1 {
            // Nobody listens, so whatever was begun goes on, until it is aborted.
            let returned = latest["origin"] == "rollback";
            assert_eq!(
                rollout["rollout"].is_null(),
                returned,
                "round {round}: {rollout} {latest}"
            );
            assert!(
                returned || rollout["rollout"]["revision"] == now,
                "{rollout}"
            );
        }
        let address = process.address;
        let changing = thread::spawn(move || {
            let mut client = tollgate_engine::testing::client::Client::connect(address);
            let mut newest = 0;
            for number in 0.. {
                let text = format!(
                    "[[route]]\nname = \"a\"\nmatch = {{ path = \"/{round}-{number}\" }}\nrespond = {{ status = 200 }}\n"
                );
                for (path, body) in [
                    ("/apply", body(&text, None)),
                    ("/rollout/abort", String::new()),
                ] {
                    let request = format!(
                        "POST {path} HTTP/1.1\r\nHost: cp\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if client.try_send(request.as_bytes()).is_err() {
                        return newest;
                    }
                    let Ok(answer) = client.try_response("POST") else {
                        return newest;
                    };
                    let answer: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                    newest = newest.max(answer["revision"].as_u64().unwrap_or(0));
                    newest = newest.max(answer["rollout"]["returned_as"].as_u64().unwrap_or(0));
                }
            }
            newest
        });
        until("some changes", || {
            let answer = caller.json("GET /revisions", "", 200);
            answer["revision"].as_u64() > Some(now + 1 + round % 4)
        });
        drop(process);
        newest = newest.max(changing.join().expect("the changes"));
    }
}

#[test]
fn reg_304_what_data_planes_see_fail_is_suspected_although_it_beats() {
    let mut settings = hurried();
    settings.probe.enabled = false;
    let control = Here::start(settings);
    let mut caller = control.caller();
    let good = Upstream::fixed("good");
    let gone = Upstream::nobody();
    for (id, address) in [("good", good.address()), ("gone", gone)] {
        caller.register(&json!({ "name": "orders", "id": id, "address": address }).to_string());
    }
    let text = "[[upstream]]\nname = \"app\"\nservice = \"orders\"\nbreaker = \"off\"\n\n\
                [[route]]\nname = \"shop\"\nmatch = { path = \"/shop\" }\nupstream = \"app\"\ntimeout = \"60s\"\n";
    applied(&mut caller, text, None);
    let gateways = ["edge-1", "edge-2"].map(|name| following(control.address, name, ""));
    ["edge-1", "edge-2"]
        .iter()
        .for_each(|name| runs(&mut caller, name, 1));
    let _loads = [Load::on(&gateways[0]), Load::on(&gateways[1])];
    let states = |caller: &mut Caller| -> Vec<(String, String)> {
        let all = caller.json("GET /debug/registry/services", "", 200);
        let instances = all["services"][0]["instances"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let word = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
        instances
            .iter()
            .map(|one| (word(one, "id"), word(one, "state")))
            .collect()
    };
    let wanted = |id: &str, state: &str| (id.to_owned(), state.to_owned());
    until("the quorum of both", || {
        states(&mut caller).contains(&wanted("gone", "suspected"))
    });
    assert!(states(&mut caller).contains(&wanted("good", "active")));
    until("what the service serves", || {
        let all = caller.json("GET /debug/registry/services", "", 200);
        all["services"][0]["serves"]["requests_per_second"].as_f64() > Some(0.0)
    });
}
