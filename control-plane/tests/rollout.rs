//! A change reaches one node, then all, or returns: one control plane, three gateways under load, and revisions that are
//! bad in ways that no check can see. Clients of the gateways that do not have the revision must notice nothing at all.
//! Waits are for states and answers, never for a time; the spans are only shorter than anybody would set them.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Caller, Here, Process, Site, document, until};
use tollgate_config::control_plane::ControlPlane;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

const NODES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];

/// In a hurry: a stage lasts a second.
fn hurried() -> ControlPlane {
    let mut document = document();
    document.feed.figures = Some(Duration::from_millis(100));
    document.rollout.hold = Duration::from_secs(1);
    document.rollout.min_requests = 50;
    document
}

fn following(address: SocketAddr, node: &str, own: &str) -> Gateway {
    Gateway::start(&format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n[server]\nworkers = 1\ndrain = \"2s\"\n\n\
         [control_plane]\nurls = [\"http://{address}\"]\nnode = \"{node}\"\n{own}"
    ))
}

fn asking(upstream: SocketAddr) -> String {
    format!(
        "[[upstream]]\nname = \"app\"\nendpoints = [\"{upstream}\"]\nbreaker = {{ open_for = \"100ms\" }}\n\n\
         [[route]]\nname = \"shop\"\nmatch = {{ path = \"/shop\" }}\nupstream = \"app\"\n"
    )
}

fn body(text: &str, stages: Option<&str>) -> String {
    let mut body = json!({ "documents": { "shop.toml": text }, "by": "test" });
    if let Some(stages) = stages {
        body["stages"] = stages.into();
        body["first"] = json!(["edge-1"]);
    }
    body.to_string()
}

fn applied(caller: &mut Caller, text: &str, stages: Option<&str>) -> u64 {
    let answer = caller.json("POST /apply", &body(text, stages), 200);
    assert_eq!(answer["changed"], true);
    answer["revision"].as_u64().expect("a number")
}

fn node(caller: &mut Caller, name: &str) -> Value {
    let nodes = caller.json("GET /nodes", "", 200);
    let nodes = nodes["nodes"].as_array().expect("a list");
    let found = nodes.iter().find(|one| one["node"] == name);
    found.cloned().unwrap_or_default()
}

#[track_caller]
fn runs(caller: &mut Caller, name: &str, revision: u64) {
    until(&format!("{name} to run {revision}"), || {
        node(caller, name)["runs"]["revision"].as_u64() >= Some(revision)
    });
}

/// The rollout when it is over.
#[track_caller]
fn ended(caller: &mut Caller, revision: u64) -> Value {
    let mut last = Value::Null;
    until(&format!("the rollout of {revision} to end"), || {
        let status = caller.json("GET /rollout", "", 200);
        last = status["last"].clone();
        status["rollout"].is_null() && last["revision"] == revision
    });
    last
}

/// A client that asks a gateway again and again.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    bad: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Load {
    fn on(gateway: &Gateway) -> Load {
        let (stop, good, bad) = <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let mut client = gateway.client();
        let counts = (stop.clone(), good.clone(), bad.clone());
        let thread = thread::spawn(move || {
            let (stop, good, bad) = counts;
            while !stop.load(Ordering::Relaxed) {
                match client.get("/shop").status {
                    200 => good.fetch_add(1, Ordering::Relaxed),
                    _ => bad.fetch_add(1, Ordering::Relaxed),
                };
            }
        });
        Load {
            stop,
            good,
            bad,
            thread: Some(thread),
        }
    }

    #[track_caller]
    fn more(&self, count: usize) {
        let before = self.good.load(Ordering::Relaxed);
        until("more good answers", || {
            self.good.load(Ordering::Relaxed) >= before + count
        });
    }

    fn bad(&self) -> usize {
        self.bad.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _failed_already = thread.join();
        }
    }
}

/// A control plane, three gateways that serve its first revision, and clients of each.
struct World {
    loads: Vec<Load>,
    _gateways: Vec<Gateway>,
    caller: Caller,
    _control: Here,
    _upstream: Upstream,
}

impl World {
    /// `own` stands in the file of the first gateway.
    fn new(own: &str) -> World {
        let control = Here::start(hurried());
        let mut caller = control.caller();
        let upstream = Upstream::fixed("good");
        assert_eq!(applied(&mut caller, &asking(upstream.address()), None), 1);
        let owns = [own, "", ""];
        let gateways: Vec<Gateway> = { NODES.iter().zip(owns) }
            .map(|(node, own)| following(control.address, node, own))
            .collect();
        NODES.iter().for_each(|node| runs(&mut caller, node, 1));
        let loads: Vec<Load> = gateways.iter().map(Load::on).collect();
        loads.iter().for_each(|load| load.more(200));
        // What was before is known.
        until("figures of all nodes", || {
            let figures = caller.json("GET /figures", "", 200);
            let nodes = figures["nodes"].as_object().map_or(0, serde_json::Map::len);
            nodes == NODES.len()
        });
        World {
            loads,
            _gateways: gateways,
            caller,
            _control: control,
            _upstream: upstream,
        }
    }

    /// Revision 2 was taken back: everybody serves as before, and only the first ever had it.
    fn returned(&mut self) -> String {
        let last = ended(&mut self.caller, 2);
        assert_eq!(last["state"], "returned", "{last}");
        assert_eq!(last["returned_as"], 3);
        assert_eq!(last["nodes"], json!(["edge-1"]));
        for name in NODES {
            let node = node(&mut self.caller, name);
            assert_eq!(node["target"], 3);
            assert!(name == "edge-1" || node["runs"]["revision"] == 1, "{node}");
        }
        for (number, load) in self.loads.iter().enumerate() {
            load.more(50);
            assert!(
                number == 0 || load.bad() == 0,
                "{} on {}",
                load.bad(),
                NODES[number]
            );
        }
        let revisions = self.caller.json("GET /revisions", "", 200);
        let newest = &revisions["revisions"][0];
        assert_eq!(
            (&newest["revision"], &newest["by"]),
            (&3.into(), &"rollout".into())
        );
        let reason = last["reason"].as_str().expect("words").to_owned();
        assert!(
            newest["note"]
                .as_str()
                .is_some_and(|note| note.contains(&reason))
        );
        assert_eq!(
            revisions["revisions"][1]["rollout"]["reason"],
            reason.as_str()
        );
        reason
    }
}

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
    let mut world = World::new("");
    let slow = Upstream::http1(|conn| {
        while let Some(_request) = conn.read_request() {
            thread::park_timeout(Duration::from_millis(30));
            conn.respond("200 OK", &[], "slow");
        }
    });
    applied(&mut world.caller, &asking(slow.address()), Some("1, all"));
    let reason = world.returned();
    assert!(reason.starts_with("slow answers (over "), "{reason}");
    assert_eq!(world.loads[0].bad(), 0, "slow is not wrong");
}

#[test]
fn cp_109_a_node_that_refuses_the_revision_sends_it_back_at_once() {
    let own =
        "[[route]]\nname = \"own\"\nmatch = { path = \"/own\" }\nrespond = { status = 200 }\n";
    let mut world = World::new(own);
    let more =
        "\n[[route]]\nname = \"own\"\nmatch = { path = \"/other\" }\nrespond = { status = 200 }\n";
    let text = asking(world._upstream.address()) + more;
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
    until("the first node", || node(caller, "edge-1")["target"] == 2);
    assert_eq!(ended(caller, 2)["state"], "done");
    NODES.iter().for_each(|name| runs(caller, name, 2));
    for load in &world.loads {
        load.more(50);
        assert_eq!(load.bad(), 0);
    }
    assert_eq!(applied(caller, "", None), 3, "now it may");
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

#[test]
fn cp_109_a_rollout_outlives_kill_9_at_any_time_and_nobody_else_gets_the_revision() {
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = reserved.local_addr().expect("bound");
    drop(reserved);
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
    drop(process);
    for round in 0..6 {
        let process = Process::run(&site.document());
        let mut caller = process.caller();
        let status = caller.json("GET /rollout", "", 200);
        assert_eq!(status["rollout"]["revision"], 2, "round {round}: {status}");
        if round % 2 == 0 {
            runs(&mut caller, "edge-1", 2);
            // Others are told, too: what they have had all along.
            until("others to listen again", || {
                NODES
                    .iter()
                    .all(|name| node(&mut caller, name)["connected"] == true)
            });
        }
        assert_eq!(gateways[1].get("/shop").text(), "one");
        assert_eq!(gateways[2].get("/shop").text(), "one");
        drop(process);
    }
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    runs(&mut caller, "edge-1", 2);
    assert_eq!(gateways[0].get("/shop").text(), "two");
    caller.json("POST /rollout/abort", "", 200);
    drop(process);
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    runs(&mut caller, "edge-1", 3);
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
        if now > 0 {
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
                [[route]]\nname = \"shop\"\nmatch = { path = \"/shop\" }\nupstream = \"app\"\n";
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
