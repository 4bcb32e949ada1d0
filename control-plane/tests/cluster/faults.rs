//! What fails, and what a running gateway and its services notice of it: nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use crate::etcd::missing;
use crate::fleet::{Fleet, answering, document, instance};
use crate::support::until;

/// Asks again and again until told to stop; what was not 200, and how many were asked.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Vec<String>>,
}

impl Load {
    pub(crate) fn on(gateway: &Gateway) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let (ended, asked, mut client) = (stop.clone(), count.clone(), gateway.client());
        let thread = thread::spawn(move || {
            let mut bad = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let answer = client.get("/orders");
                if answer.status != 200 {
                    bad.push(answer.text());
                }
                asked.fetch_add(1, Ordering::Relaxed);
                // A machine that only does this learns nothing more.
                thread::park_timeout(std::time::Duration::from_millis(1));
            }
            bad
        });
        Load {
            stop,
            count,
            thread,
        }
    }

    fn more(&self) {
        let before = self.count.load(Ordering::Relaxed);
        until("more requests", || {
            self.count.load(Ordering::Relaxed) > before + 30
        });
    }

    #[track_caller]
    pub(crate) fn end(self) {
        assert_eq!(self.stop(), Vec::<String>::new());
    }

    /// What was not 200.
    pub(crate) fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load")
    }
}

const ORDERS: &str = "[[upstream]]\nname = \"orders\"\nservice = \"orders\"\n\n\
                      [[route]]\nname = \"orders\"\nmatch = { path = \"/orders\" }\nupstream = \"orders\"\ntimeout = \"60s\"\n";

/// A fleet with two instances of `orders`, and a gateway that serves them.
fn served(fleet: &Fleet, upstreams: &[Upstream]) -> Gateway {
    for (number, upstream) in upstreams.iter().enumerate() {
        let body = instance(&format!("o-{number}"), upstream.address());
        assert_eq!(fleet.ask("POST /register", &body).0, 201);
    }
    assert_eq!(
        fleet.ask("POST /apply", &document("orders.toml", ORDERS)).0,
        200
    );
    let gateway = fleet.gateway(fleet.until_led(), "edge");
    until("the gateway to serve", || {
        gateway.get("/orders").status == 200
    });
    gateway
}

#[test]
fn a_leader_that_is_killed_is_not_missed_and_its_instances_stay_reg_504_hi_66() {
    if missing() {
        return;
    }
    let mut fleet = Fleet::start(3, 3, "");
    let upstreams = [Upstream::fixed("one"), Upstream::fixed("two")];
    let gateway = served(&fleet, &upstreams);
    let load = Load::on(&gateway);
    for round in 0..2 {
        let leader = fleet.until_led();
        fleet.kill(leader);
        load.more();
        let text = answering("more", &format!("{round}"));
        assert_eq!(
            fleet.ask("POST /apply", &document("more.toml", &text)).0,
            200
        );
        until("the gateway to follow", || {
            gateway.get("/more").text() == format!("{round}")
        });
        for number in fleet.there() {
            let all = fleet
                .caller(number)
                .json("GET /services/orders?all=true", "", 200);
            let states = all
                .as_array()
                .expect("a list")
                .iter()
                .map(|one| &one["state"]);
            // A failover is no restart: nobody is suspected by it.
            assert_eq!(states.collect::<Vec<_>>(), ["active", "active"], "{all}");
        }
        fleet.run(leader);
        fleet.ready(leader);
        until("the one that came back to know all", || {
            fleet.ids(leader, "orders") == ["o-0", "o-1"]
        });
    }
    load.end();
}

#[test]
fn without_a_majority_of_etcd_changes_are_refused_and_everything_else_goes_on_cp_401() {
    if missing() {
        return;
    }
    let mut fleet = Fleet::start(3, 3, "");
    let upstreams = [Upstream::fixed("one"), Upstream::fixed("two")];
    let gateway = served(&fleet, &upstreams);
    let load = Load::on(&gateway);
    // One of three is not missed.
    fleet.servers.kill(0);
    assert_eq!(
        fleet
            .ask(
                "POST /apply",
                &document("more.toml", &answering("more", "0"))
            )
            .0,
        200
    );
    load.more();
    let revisions = |fleet: &Fleet| -> Vec<Value> {
        { 0..3 }
            .map(|number| fleet.about(number)["revision"].clone())
            .collect()
    };
    // Who was connected to the one that died hears of it a little later, and of nothing without a majority.
    until("all to show the change", || {
        let shown = revisions(&fleet);
        shown.iter().all(|revision| *revision == shown[0])
    });
    fleet.servers.kill(1);
    until("nobody to lead", || fleet.leader().is_none());
    let before = revisions(&fleet);
    for number in 0..3 {
        let mut caller = fleet.caller(number);
        for (line, body) in [
            (
                "POST /apply",
                document("more.toml", &answering("more", "1")),
            ),
            ("POST /register", instance("o-9", upstreams[0].address())),
            ("DELETE /services/o-0", String::new()),
        ] {
            let refused = caller.json(line, &body, 503);
            assert_eq!(refused["code"], "no_leader", "{refused}");
            let title = refused["title"].as_str().expect("words");
            assert!(title.contains("nothing was changed"), "{title}");
        }
        // What is known is read, and who beats is heard.
        assert_eq!(fleet.ids(number, "orders"), ["o-0", "o-1"]);
        caller.json("PUT /heartbeat/o-0", "", 200);
        caller.json("GET /health/ready", "", 200);
        caller.json("GET /revisions", "", 200);
    }
    load.more();
    // A gateway that starts now gets what there is.
    let late = fleet.gateway(1, "late");
    until("a late one to serve", || late.get("/orders").status == 200);
    let servers = [0, 1];
    servers
        .into_iter()
        .for_each(|number| fleet.servers.run(number));
    fleet.until_led();
    assert_eq!(revisions(&fleet), before, "what was refused is not there");
    // Nobody was lost over it.
    for number in 0..3 {
        until("everybody", || {
            fleet.ids(number, "orders") == ["o-0", "o-1"]
        });
    }
    assert_eq!(
        fleet
            .ask(
                "POST /apply",
                &document("more.toml", &answering("more", "2"))
            )
            .0,
        200
    );
    until("the gateway to follow", || {
        gateway.get("/more").text() == "2"
    });
    load.end();
}

#[test]
fn all_control_planes_may_be_gone_and_come_back_with_everybody_reg_501_reg_504() {
    if missing() {
        return;
    }
    let mut fleet = Fleet::start(3, 1, "");
    let upstreams = [Upstream::fixed("one"), Upstream::fixed("two")];
    let gateway = served(&fleet, &upstreams);
    let load = Load::on(&gateway);
    (0..3).for_each(|number| fleet.kill(number));
    load.more();
    // The cluster too.
    fleet.servers.kill(0);
    load.more();
    fleet.servers.run(0);
    fleet.servers.wait_for(0);
    (0..3).for_each(|number| fleet.run(number));
    (0..3).for_each(|number| fleet.ready(number));
    for number in 0..3 {
        until("everybody", || {
            fleet.ids(number, "orders") == ["o-0", "o-1"]
        });
    }
    assert_eq!(
        fleet
            .ask(
                "POST /apply",
                &document("more.toml", &answering("more", "1"))
            )
            .0,
        200
    );
    until("the gateway to follow", || {
        gateway.get("/more").text() == "1"
    });
    load.end();
}

/// Random faults in a row. `TOLLGATE_SIMULATION=seed` plays one again; `TOLLGATE_FAULTS` is how many there are.
#[test]
fn whatever_fails_in_whatever_order_no_request_does_and_nothing_that_was_accepted_is_lost() {
    if missing() {
        return;
    }
    let number_of = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number_of("TOLLGATE_SIMULATION").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut fleet = Fleet::start(3, 3, "");
    let upstreams = [Upstream::fixed("one"), Upstream::fixed("two")];
    let gateway = served(&fleet, &upstreams);
    let load = Load::on(&gateway);
    let mut expected: BTreeSet<String> = ["o-0", "o-1"].map(str::to_owned).into();
    let mut revision = fleet.about(fleet.until_led())["revision"]
        .as_u64()
        .expect("a number");
    let mut body = String::new();
    for step in 0..number_of("TOLLGATE_FAULTS").unwrap_or(12) {
        // At most one control plane and one etcd server are away at a time: a majority is there.
        let away = (0..3).find(|number| !fleet.is_there(*number));
        match (chance.u8(..4), away) {
            (0, None) => {
                let number = chance.usize(..3);
                fleet.kill(number);
            }
            (1, None) => {
                let number = fleet.until_led();
                fleet.signal(number, Signal::STOP);
            }
            (0 | 1, Some(number)) => {
                fleet.signal(number, Signal::CONT);
                fleet.run(number);
                fleet.ready(number);
            }
            _ => match (0..3).find(|number| !fleet.servers.runs(*number)) {
                Some(number) => {
                    fleet.servers.run(number);
                    fleet.servers.wait_for(number);
                }
                None => fleet.servers.kill(chance.usize(..3)),
            },
        }
        match chance.bool() {
            true => {
                body = format!("{step}");
                let text = document("more.toml", &answering("more", &body));
                let (status, answer) = fleet.ask("POST /apply", &text);
                assert_eq!(status, 200, "seed {seed}: {answer}");
                let now = answer["revision"].as_u64().expect("a number");
                assert_eq!(
                    now,
                    revision + 1,
                    "seed {seed}: each change is one revision"
                );
                revision = now;
            }
            false => {
                let id = format!("n-{step}");
                let (status, answer) =
                    fleet.ask("POST /register", &instance(&id, upstreams[0].address()));
                assert_eq!(status, 201, "seed {seed}: {answer}");
                expected.insert(id);
            }
        }
        load.more();
    }
    for number in 0..3 {
        fleet.signal(number, Signal::CONT);
        fleet.run(number);
        fleet.servers.run(number);
    }
    (0..3).for_each(|number| fleet.ready(number));
    let expected: Vec<String> = expected.into_iter().collect();
    for number in 0..3 {
        until("everybody everywhere", || {
            fleet.ids(number, "orders") == expected
        });
        until("the newest revision everywhere", || {
            fleet.about(number)["revision"] == revision
        });
    }
    if !body.is_empty() {
        until("the gateway to follow", || {
            gateway.get("/more").text() == body
        });
    }
    load.end();
}
