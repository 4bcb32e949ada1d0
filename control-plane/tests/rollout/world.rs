//! A control plane in a hurry, gateways that follow it, and clients that count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate_config::control_plane::ControlPlane;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use crate::support::{Caller, Here, document, until};

pub(crate) const NODES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];

/// In a hurry: a stage lasts a second.
pub(crate) fn hurried() -> ControlPlane {
    let mut document = document();
    document.feed.figures = Some(Duration::from_millis(100));
    document.rollout.hold = Duration::from_secs(1);
    document.rollout.min_requests = 50;
    document
}

pub(crate) fn following(address: SocketAddr, node: &str, own: &str) -> Gateway {
    Gateway::start(&format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n[server]\nworkers = 1\ndrain = \"2s\"\n\n\
         [control_plane]\nurls = [\"http://{address}\"]\nnode = \"{node}\"\n{own}"
    ))
}

pub(crate) fn asking(upstream: SocketAddr) -> String {
    format!(
        "[[upstream]]\nname = \"app\"\nendpoints = [\"{upstream}\"]\nbreaker = {{ open_for = \"100ms\" }}\n\n\
         [[route]]\nname = \"shop\"\nmatch = {{ path = \"/shop\" }}\nupstream = \"app\"\ntimeout = \"60s\"\n"
    )
}

pub(crate) fn body(text: &str, stages: Option<&str>) -> String {
    let mut body = json!({ "documents": { "shop.toml": text }, "by": "test" });
    if let Some(stages) = stages {
        body["stages"] = stages.into();
        body["first"] = json!(["edge-1"]);
    }
    body.to_string()
}

pub(crate) fn applied(caller: &mut Caller, text: &str, stages: Option<&str>) -> u64 {
    let answer = caller.json("POST /apply", &body(text, stages), 200);
    assert_eq!(answer["changed"], true);
    answer["revision"].as_u64().expect("a number")
}

pub(crate) fn node(caller: &mut Caller, name: &str) -> Value {
    let nodes = caller.json("GET /nodes", "", 200);
    let nodes = nodes["nodes"].as_array().expect("a list");
    let found = nodes.iter().find(|one| one["node"] == name);
    found.cloned().unwrap_or_default()
}

#[track_caller]
pub(crate) fn runs(caller: &mut Caller, name: &str, revision: u64) {
    until(&format!("{name} to run {revision}"), || {
        node(caller, name)["runs"]["revision"].as_u64() >= Some(revision)
    });
}

/// The rollout when it is over.
#[track_caller]
pub(crate) fn ended(caller: &mut Caller, revision: u64) -> Value {
    let mut last = Value::Null;
    until(&format!("the rollout of {revision} to end"), || {
        let status = caller.json("GET /rollout", "", 200);
        last = status["last"].clone();
        status["rollout"].is_null() && last["revision"] == revision
    });
    last
}

/// A client that asks a gateway again and again.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    bad: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Load {
    pub(crate) fn on(gateway: &Gateway) -> Load {
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
    pub(crate) fn more(&self, count: usize) {
        let before = self.good.load(Ordering::Relaxed);
        until("more good answers", || {
            self.good.load(Ordering::Relaxed) >= before + count
        });
    }

    pub(crate) fn bad(&self) -> usize {
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
pub(crate) struct World {
    pub(crate) loads: Vec<Load>,
    _gateways: Vec<Gateway>,
    pub(crate) caller: Caller,
    _control: Here,
    pub(crate) upstream: Upstream,
}

impl World {
    /// `own` stands in the file of the first gateway.
    pub(crate) fn new(own: &str) -> World {
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
            upstream,
        }
    }

    /// Revision 2 was taken back: everybody serves as before, and only the first ever had it.
    pub(crate) fn returned(&mut self) -> String {
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
