//! Several control planes over one etcd cluster: any of them answers, one of them leads, and whatever of it all is
//! killed, stopped or started again, nothing that was accepted is lost and no request of a running gateway fails.
//! Waits are for answers and states, never for a time. Skipped, and says so, where etcd is not on the machine.

mod asked;
#[path = "../support/etcd.rs"]
mod etcd;
mod faults;
mod fleet;
mod identity;
mod secured;
mod staged;
#[path = "../support/mod.rs"]
mod support;

use rustix::process::Signal;
use serde_json::json;
use support::until;
use tollgate_config::feed::Line;
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::upstream::Upstream;

use etcd::missing;
use fleet::{Fleet, answering, document, instance};

#[test]
fn any_of_them_takes_changes_and_all_of_them_show_the_same_reg_503() {
    if missing() {
        return;
    }
    let fleet = Fleet::start(3, 1, "");
    let upstream = Upstream::fixed("one");
    for number in 0..3 {
        let id = format!("o-{number}");
        let mut caller = fleet.caller(number);
        let body = instance(&id, upstream.address());
        let registered = fleet.done(number, "POST /register", &body, 201);
        assert_eq!(registered["status"], "registered");
        let name = format!("shop-{number}.toml");
        let text = document(&name, &answering(&format!("r{number}"), "x"));
        let applied = fleet.done(number, "POST /apply", &text, 200);
        assert_eq!(applied["revision"], number + 1);
        // A beat is known wherever it arrives; nobody's is not.
        caller.json("PUT /heartbeat/nobody", "", 404);
        caller.json("PUT /heartbeat/o-0", "", 200);
    }
    for number in 0..3 {
        until("all to be shown", || {
            fleet.ids(number, "orders") == ["o-0", "o-1", "o-2"]
        });
        until("the newest revision", || {
            fleet.about(number)["revision"] == 3
        });
    }
    // The same epoch, the same lists with the same versions, the same history.
    until("the same everywhere", || {
        let same = |line: &str| {
            let told: Vec<_> = { 0..3 }
                .map(|number| fleet.caller(number).json(line, "", 200))
                .collect();
            told.iter().all(|one| *one == told[0])
        };
        same("GET /revisions") && same("GET /diff?from=0&to=3") && {
            let versions: Vec<_> = { 0..3 }
                .map(|number| {
                    let all = fleet
                        .caller(number)
                        .json("GET /debug/registry/services", "", 200);
                    all["services"][0]["version"].clone()
                })
                .collect();
            versions.iter().all(|one| *one == versions[0])
        }
    });
    // What is wrong is refused with the same words, and a precondition holds wherever it is checked.
    let follower = fleet.follower();
    let bad = document("bad.toml", "[[route]]\nname = \"x\"\n");
    assert_eq!(
        fleet.done(follower, "POST /apply", &bad, 422)["code"],
        "refused"
    );
    let late = json!({ "documents": { "late.toml": answering("late", "x") }, "if_revision": 1 });
    let conflict = fleet.done(follower, "POST /apply", &late.to_string(), 409);
    assert_eq!(conflict["revision"], 3);
    fleet.done(follower, "POST /register", "{}", 400);
    // News in a beat go to whoever leads.
    let news = r#"{"health": "unhealthy"}"#;
    fleet.done(follower, "PUT /heartbeat/o-1", news, 200);
    fleet.done(follower, "DELETE /services/o-2", "", 200);
    for number in 0..3 {
        until("one that serves", || fleet.ids(number, "orders") == ["o-0"]);
    }
    let back = r#"{"to": 1}"#;
    assert_eq!(
        fleet.done(follower, "POST /rollback", back, 200)["revision"],
        4
    );
    until("the rollback everywhere", || {
        (0..3).all(|number| fleet.about(number)["revision"] == 4)
    });
    // Whoever asked is in the audit log, not whoever handed it on.
    let leader = fleet.until_led();
    let log = fleet
        .caller(leader)
        .json("GET /debug/registry/audit?id=o-2&limit=10", "", 200);
    assert!(log.to_string().contains("127.0.0.1"), "{log}");
}

/// Reads a feed line by line.
struct Reader {
    client: Client,
    rest: String,
}

impl Reader {
    fn open(fleet: &Fleet, number: usize, have: Option<(&str, u64)>) -> Reader {
        let have = have.map(|(epoch, revision)| json!({ "epoch": epoch, "revision": revision }));
        let body = json!({
            "node": "edge", "kind": "gateway", "instance": "i", "version": "1", "have": have,
            "services": "routed", "also": ["orders"], "listeners": ["in"],
        })
        .to_string();
        Reader::asking(fleet, number, &body)
    }

    fn asking(fleet: &Fleet, number: usize, body: &str) -> Reader {
        let mut client = fleet.caller(number).0;
        client.send(format!(
            "POST /feed HTTP/1.1\r\nHost: cp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.read_head().status, 200);
        Reader {
            client,
            rest: String::new(),
        }
    }

    /// A member of the mesh.
    fn trusting(fleet: &Fleet, number: usize) -> Reader {
        let body = json!({
            "node": "member", "kind": "sidecar", "instance": "i", "version": "1", "have": null,
            "services": "routed", "listeners": [], "trust": true,
        });
        Reader::asking(fleet, number, &body.to_string())
    }

    fn next(&mut self) -> Line {
        loop {
            if let Some((line, more)) = self.rest.split_once('\n') {
                let line = Line::read(line.as_bytes()).expect("a line");
                self.rest = more.to_owned();
                return line;
            }
            self.rest += &String::from_utf8(self.client.read_chunk()).expect("text");
        }
    }

    fn hello(&mut self) -> (String, u64) {
        match self.next() {
            Line::Hello(hello) => (hello.epoch, hello.revision),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_goes_to_another_control_plane_is_told_the_difference_and_not_everything() {
    if missing() {
        return;
    }
    let mut fleet = Fleet::start(3, 1, "");
    let text = document("a.toml", &(answering("one", "x") + &answering("two", "x")));
    fleet.ask("POST /apply", &text);
    until("the revision everywhere", || {
        (0..3).all(|number| fleet.about(number)["revision"] == 1)
    });
    let mut reader = Reader::open(&fleet, 0, None);
    let (epoch, revision) = reader.hello();
    assert_eq!(revision, 1);
    assert!(matches!(reader.next(), Line::Begin(begin) if begin.full));
    drop(reader);
    let text = document("b.toml", &answering("three", "x"));
    fleet.ask("POST /apply", &text);
    until("the revision everywhere", || {
        (0..3).all(|number| fleet.about(number)["revision"] == 2)
    });
    // The same at each, whoever leads, also when whoever told it first is gone.
    fleet.kill(0);
    for number in [1, 2] {
        let mut reader = Reader::open(&fleet, number, Some((&epoch, 1)));
        assert_eq!(reader.hello(), (epoch.clone(), 2));
        assert!(matches!(reader.next(), Line::Begin(begin) if !begin.full));
        assert!(matches!(reader.next(), Line::Put(put) if put.id == "b.toml#route:three"));
        assert!(matches!(reader.next(), Line::End(end) if end.revision == 2));
    }
    // And who has it all is told nothing again, by one that was started since.
    fleet.run(0);
    fleet.ready(0);
    until("the revision", || fleet.about(0)["revision"] == 2);
    let mut reader = Reader::open(&fleet, 0, Some((&epoch, 2)));
    assert_eq!(reader.hello(), (epoch, 2));
    let address = Upstream::nobody();
    fleet.ask("POST /register", &instance("o-1", address));
    loop {
        match reader.next() {
            Line::Service(service) if service.name == "orders" => break,
            Line::Beat(_) | Line::Service(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_leader_that_was_stopped_leads_no_more_and_changes_nothing() {
    if missing() {
        return;
    }
    let mut fleet = Fleet::start(3, 1, "");
    let upstream = Upstream::fixed("one");
    fleet.ask("POST /register", &instance("o-1", upstream.address()));
    fleet.ask("POST /apply", &document("a.toml", &answering("one", "x")));
    let first = fleet.until_led();
    fleet.signal(first, Signal::STOP);
    let second = fleet.until_led();
    assert_ne!(first, second);
    let (status, _) = fleet.ask("POST /apply", &document("a.toml", &answering("one", "y")));
    assert_eq!(status, 200);
    // Before it was stopped it had read half of this; it is served by whoever leads, or not at all.
    fleet.signal(first, Signal::CONT);
    let mut caller = fleet.caller(first);
    let late =
        json!({ "documents": { "b.toml": answering("two", "x") }, "if_revision": 1 }).to_string();
    until("the old leader to follow", || {
        let answer = caller.ask("POST /apply", &late);
        assert!(matches!(answer.status, 503 | 409), "{}", answer.text());
        answer.status == 409
    });
    until("the same everywhere", || {
        let about: Vec<_> = { 0..3 }.map(|number| fleet.about(number)).collect();
        about.iter().filter(|one| one["leads"] == true).count() == 1
            && about
                .iter()
                .all(|one| one["store_revision"] == about[0]["store_revision"])
            && about.iter().all(|one| one["revision"] == 2)
    });
    for number in 0..3 {
        assert_eq!(fleet.ids(number, "orders"), ["o-1"]);
    }
}

#[test]
fn who_leads_and_is_told_to_stop_hands_over_at_once() {
    if missing() {
        return;
    }
    let mut fleet = Fleet::start(2, 1, "");
    fleet.ask("POST /apply", &document("a.toml", &answering("one", "x")));
    let first = fleet.until_led();
    let second = 1 - first;
    fleet.signal(first, Signal::TERM);
    until("the other to lead", || fleet.about(second)["leads"] == true);
    let applied = fleet.done(second, "POST /apply", &document("a.toml", ""), 200);
    assert_eq!(applied["revision"], 2);
}

/// Beats that arrive at a follower count; `o-quiet` shows that time has passed.
#[test]
fn an_instance_that_beats_at_a_follower_lives_and_one_that_is_silent_does_not_reg_302() {
    if missing() {
        return;
    }
    let more = "[registry]\nheartbeat = \"1s\"\nsuspect_after = \"2s\"\nservice_timeout = \"3s\"\n\
                drain_after_silence = \"1s\"\n\n[probe]\nenabled = false\n";
    let fleet = Fleet::start(3, 1, more);
    let nobody = Upstream::nobody();
    for id in ["o-beats", "o-quiet"] {
        fleet.ask("POST /register", &instance(id, nobody));
    }
    let follower = fleet.follower();
    let mut caller = fleet.caller(follower);
    until("both to be known there", || {
        fleet.ids(follower, "orders").len() == 2
    });
    until("the silent one to be gone", || {
        caller.json("PUT /heartbeat/o-beats", "", 200);
        { 0..3 }.all(|number| fleet.ids(number, "orders") == ["o-beats"])
    });
    let all = caller.json("GET /services/orders", "", 200);
    assert_eq!(all[0]["state"], "active");
}
