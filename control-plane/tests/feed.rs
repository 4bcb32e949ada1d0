//! From a change to the request that it serves: a control plane, a gateway that follows it, and everything between
//! them. Waits are for answers and states, never for a time.

#[path = "feed/sidecars.rs"]
mod sidecars;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use support::{Caller, Here, Process, Site, document, until};
use tollgate_config::feed::Line;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::members::Members;
use tollgate_engine::testing::store::free;
use tollgate_engine::testing::upstream::Upstream;

/// A gateway that asks this control plane and has no route of its own.
fn following(address: SocketAddr, node: &str, listener: &str) -> Gateway {
    Gateway::start(&format!(
        "[[listener]]\nname = \"{listener}\"\nbind = \"127.0.0.1:0\"\n\n[server]\nworkers = 1\ndrain = \"2s\"\n\n\
         [control_plane]\nurls = [\"http://{address}\"]\nnode = \"{node}\"\n"
    ))
}

fn answering(name: &str, body: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n\n"
    )
}

fn applied(caller: &mut Caller, name: &str, text: &str) -> u64 {
    let body = json!({ "documents": { name: text }, "by": "test" }).to_string();
    let answer = caller.json("POST /apply", &body, 200);
    answer["revision"].as_u64().expect("a number")
}

/// Waits until the node runs at least this revision.
#[track_caller]
fn runs(caller: &mut Caller, node: &str, revision: u64) {
    until(&format!("{node} to run {revision}"), || {
        let nodes = caller.json("GET /nodes", "", 200);
        let nodes = nodes["nodes"].as_array().expect("a list");
        nodes
            .iter()
            .any(|one| one["node"] == node && one["runs"]["revision"].as_u64() >= Some(revision))
    });
}

#[track_caller]
fn node(caller: &mut Caller, name: &str) -> Value {
    let nodes = caller.json("GET /nodes", "", 200);
    let nodes = nodes["nodes"].as_array().expect("a list");
    nodes
        .iter()
        .find(|one| one["node"] == name)
        .expect("the node")
        .clone()
}

/// Asks again and again until told to stop; the statuses that were not 200, and how many were.
struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<Vec<u16>>>,
}

impl Load {
    fn on(gateway: &Gateway, target: &'static str) -> Load {
        let (stop, count) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let threads = { 0..2 }.map(|_| {
            let (stop, count, mut client) = (stop.clone(), count.clone(), gateway.client());
            thread::spawn(move || {
                let mut bad = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get(target);
                    if answer.status != 200 {
                        bad.push(answer.status);
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                bad
            })
        });
        Load {
            threads: threads.collect(),
            stop,
            count,
        }
    }

    fn more(&self) {
        let before = self.count.load(Ordering::Relaxed);
        until("more requests", || {
            self.count.load(Ordering::Relaxed) > before + 50
        });
    }

    #[track_caller]
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert_eq!(thread.join().expect("the load"), Vec::<u16>::new());
        }
    }
}

#[test]
fn a_change_over_the_api_is_served_and_a_bad_one_reaches_nobody_cp_101_cp_102_cp_103() {
    let control = Here::start(document());
    let mut caller = control.caller();
    let first = applied(&mut caller, "shop.toml", &answering("hello", "one"));
    assert_eq!(first, 1);
    let gateway = following(control.address, "edge-1", "in");
    runs(&mut caller, "edge-1", 1);
    assert_eq!(gateway.get("/hello").text(), "one");
    let load = Load::on(&gateway, "/hello");
    for (revision, body) in [(2, "two"), (3, "three"), (4, "four")] {
        load.more();
        let text = answering("hello", body) + &answering("more", body);
        assert_eq!(applied(&mut caller, "shop.toml", &text), revision);
        runs(&mut caller, "edge-1", revision);
        assert_eq!(gateway.get("/more").text(), body);
    }
    let before = node(&mut caller, "edge-1");
    let bad = answering("hello", "five")
        + "[[route]]\nname = \"bad\"\nmatch = { path = \"/b\" }\nupstream = \"nobody\"\ntimeot = \"1s\"\n";
    let body = json!({ "documents": { "shop.toml": bad } }).to_string();
    for line in ["POST /apply", "POST /plan"] {
        let refused = caller.json(line, &body, 422);
        assert_eq!(refused["code"], "refused");
        let problems = refused["problems"].as_array().expect("a list");
        let of = |code: &str| {
            problems
                .iter()
                .find(|one| one["code"] == code)
                .unwrap_or_else(|| panic!("{code}: {refused}"))
        };
        assert_eq!(of("unknown-upstream")["place"], "shop.toml:9:12");
        assert_eq!(of("unknown-key")["text"], "timeot = \"1s\"");
        assert!(
            of("unknown-key")["hint"]
                .as_str()
                .expect("words")
                .contains("timeout")
        );
    }
    load.more();
    assert_eq!(gateway.get("/hello").text(), "four");
    let after = node(&mut caller, "edge-1");
    assert_eq!(
        (&after["told"], &after["runs"]),
        (&before["told"], &before["runs"])
    );
    load.end();
    assert_eq!(caller.json("GET /revisions", "", 200)["revision"], 4);
}

#[test]
fn instances_that_register_get_traffic_and_those_that_leave_get_none_cp_102() {
    let control = Here::start(document());
    let mut caller = control.caller();
    let (one, two) = (Upstream::fixed("one"), Upstream::fixed("two"));
    let text = "[[upstream]]\nname = \"orders\"\nservice = \"orders\"\n\n\
                [[route]]\nname = \"orders\"\nmatch = { path = \"/*\" }\nupstream = \"orders\"\ntimeout = \"60s\"\n";
    applied(&mut caller, "shop.toml", text);
    let register = |id: &str, upstream: &Upstream| {
        json!({ "id": id, "name": "orders", "address": upstream.address().to_string(), "health": "healthy" }).to_string()
    };
    caller.register(&register("o-1", &one));
    let gateway = following(control.address, "edge-1", "in");
    runs(&mut caller, "edge-1", 1);
    until("the first instance", || gateway.get("/").text() == "one");
    let generation = gateway.get_status()["generation"].clone();
    let load = Load::on(&gateway, "/");
    caller.register(&register("o-2", &two));
    until("the second instance", || gateway.get("/").text() == "two");
    caller.json("DELETE /services/o-1", "", 200);
    // Once nobody is sent there, nobody is any more.
    until("the first to be left alone", || {
        let before = one.requests().len();
        load.more();
        one.requests().len() == before
    });
    load.end();
    assert_eq!(
        gateway.get_status()["generation"],
        generation,
        "nothing was compiled"
    );
}

#[test]
fn a_node_gets_what_it_can_serve_and_an_unrelated_change_is_no_change_for_it() {
    let control = Here::start(document());
    let mut caller = control.caller();
    let text = |body: &str| {
        format!(
            "[[route]]\nname = \"in\"\nmatch = {{ path = \"/in\", listener = \"public\" }}\nrespond = {{ status = 200, body = \"in\" }}\n\n\
             [[route]]\nname = \"out\"\nmatch = {{ path = \"/out\", listener = \"private\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n"
        )
    };
    applied(&mut caller, "shop.toml", &text("one"));
    let (public, private) = (
        following(control.address, "edge-1", "public"),
        following(control.address, "side-1", "private"),
    );
    runs(&mut caller, "edge-1", 1);
    runs(&mut caller, "side-1", 1);
    assert_eq!(public.get("/out").status, 404);
    let told = node(&mut caller, "edge-1")["told"].clone();
    let planned = json!({ "documents": { "shop.toml": text("two") } }).to_string();
    let plan = caller.json("POST /plan", &planned, 200);
    assert_eq!(plan["routes"], json!(["out"]));
    assert_eq!(
        plan["nodes"].as_array().map(|nodes| nodes.len()),
        Some(1),
        "{plan}"
    );
    assert_eq!(plan["nodes"][0]["node"], "side-1");
    assert_eq!(plan["revision"], 1, "nothing was changed");
    applied(&mut caller, "shop.toml", &text("two"));
    runs(&mut caller, "side-1", 2);
    assert_eq!(private.get("/out").text(), "two");
    assert_eq!(
        node(&mut caller, "edge-1")["told"],
        told,
        "it was told nothing"
    );
}

#[test]
fn the_control_plane_dies_and_comes_back_cp_106() {
    let site = Site::at(free());
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    applied(&mut caller, "shop.toml", &answering("hello", "one"));
    let gateway = following(process.address, "edge-1", "in");
    runs(&mut caller, "edge-1", 1);
    let load = Load::on(&gateway, "/hello");
    load.more();
    drop((process, caller));
    load.more();
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    assert_eq!(caller.json("GET /revisions", "", 200)["revision"], 1);
    assert_eq!(
        applied(&mut caller, "shop.toml", &answering("hello", "two")),
        2
    );
    until("the node to catch up", || {
        gateway.get("/hello").text() == "two"
    });
    load.more();
    load.end();
}

#[test]
fn files_of_the_folder_are_followed_and_a_broken_one_changes_nothing_cp_107() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shop.toml");
    std::fs::write(&file, answering("hello", "one")).expect("written");
    let mut wanted = document();
    wanted.catalog.folder = Some(folder.path().to_owned());
    let control = Here::start(wanted);
    let mut caller = control.caller();
    let revision =
        |caller: &mut Caller| caller.json("GET /revisions", "", 200)["revision"].as_u64();
    until("the file", || revision(&mut caller) == Some(1));
    std::fs::write(&file, "[[route]]\nname = \"hello\"\nmatch = { pat").expect("written");
    until("the refusal", || {
        !caller.json("GET /revisions", "", 200)["folder_refused"].is_null()
    });
    assert_eq!(revision(&mut caller), Some(1));
    std::fs::write(&file, answering("hello", "two")).expect("written");
    until("the new text", || revision(&mut caller) == Some(2));
    let answer = caller.json("GET /revisions", "", 200);
    assert!(answer["folder_refused"].is_null());
    assert_eq!(answer["revisions"][0]["origin"], "files");
    let body = json!({ "documents": { "shop.toml": null } }).to_string();
    let refused = caller.json("POST /apply", &body, 400);
    assert!(
        refused["title"].as_str().expect("words").contains("folder"),
        "{refused}"
    );
    std::fs::remove_file(&file).expect("removed");
    until("the file to be gone", || revision(&mut caller) == Some(3));
}

#[test]
fn writes_have_preconditions_and_every_kept_revision_can_be_returned_to_cp_105_cp_203() {
    let mut wanted = document();
    wanted.catalog.revisions = 3;
    let control = Here::start(wanted);
    let mut caller = control.caller();
    let change = |body: &str, revision: u64| {
        json!({
            "documents": { "shop.toml": answering("hello", body) },
            "if_revision": revision, "by": "ada", "note": body,
        })
        .to_string()
    };
    for (number, body) in (1..).zip(["one", "two", "three", "four"]) {
        let answer = caller.json("POST /apply", &change(body, number - 1), 200);
        assert_eq!(
            (&answer["revision"], &answer["changed"]),
            (&json!(number), &json!(true))
        );
    }
    let conflict = caller.json("POST /apply", &change("five", 3), 409);
    assert_eq!(
        (&conflict["code"], &conflict["revision"]),
        (&json!("conflict"), &json!(4))
    );
    // Sent twice because the answer was lost: it is done already.
    let again = caller.json("POST /apply", &change("four", 3), 200);
    assert_eq!(
        (&again["revision"], &again["changed"]),
        (&json!(4), &json!(false))
    );
    let listed = caller.json("GET /revisions", "", 200);
    let numbers: Vec<u64> = listed["revisions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["revision"].as_u64())
        .collect();
    assert_eq!(numbers, [4, 3, 2]);
    assert_eq!(listed["revisions"][0]["by"], "ada");
    let diff = caller.json("GET /diff?from=2&to=4", "", 200);
    assert_eq!(diff["changes"].as_array().map(|list| list.len()), Some(1));
    assert!(
        diff["changes"][0]["before"]["text"]
            .as_str()
            .expect("a text")
            .contains("two")
    );
    assert!(
        diff["changes"][0]["after"]["text"]
            .as_str()
            .expect("a text")
            .contains("four")
    );
    caller.json("GET /diff?from=0&to=4", "", 404);
    caller.json("POST /rollback", r#"{"to": 0}"#, 404);
    let back = caller.json("POST /rollback", r#"{"to": 2, "if_revision": 4}"#, 200);
    assert_eq!(back["revision"], 5);
    let one = caller.json("GET /revisions/5", "", 200);
    assert!(
        one["changes"][0]["after"]["text"]
            .as_str()
            .expect("a text")
            .contains("two")
    );
    assert_eq!(one["origin"], "rollback");
}

#[test]
fn what_a_document_of_a_fleet_may_not_hold_is_refused_with_words() {
    let control = Here::start(document());
    let mut caller = control.caller();
    for (text, code) in [
        ("[server]\nworkers = 1\n", "not-of-a-fleet"),
        ("[[listener]]\nbind = \"127.0.0.1:1\"\n", "not-of-a-fleet"),
        ("include = [\"a.toml\"]\n", "not-of-a-fleet"),
        ("[[rout]]\nname = \"a\"\n", "unknown-section"),
        (
            "[[api_key]]\nkey = \"very secret\"\nclient = \"a\"\ntier = \"free\"\n",
            "key-in-the-open",
        ),
        (
            "[[route]]\nname = \"a\"\nmatch = { path = \"/\" }\nrespond = { status = 200, body = \"${file:/etc/passwd}\" }\n",
            "bad-reference",
        ),
        (
            "[[route]]\nname = \"${env:NOT_SET_ANYWHERE}\"\n",
            "unset-variable",
        ),
        (
            "[[test]]\nrequest = { method = \"GET\", path = \"/\" }\nexpect = { status = 201 }\n[[route]]\nname = \"a\"\nmatch = { path = \"/\" }\nrespond = { status = 200 }\n",
            "test-failed",
        ),
    ] {
        let body = json!({ "documents": { "a.toml": text } }).to_string();
        let refused = caller.json("POST /apply", &body, 422);
        let codes: Vec<&str> = refused["problems"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|one| one["code"].as_str())
            .collect();
        assert!(codes.contains(&code), "{text}: {refused}");
        assert!(!refused.to_string().contains("very secret"), "{refused}");
    }
    for name in ["../a.toml", "/a.toml", "a.txt", "", "a/.b.toml", "a#b.toml"] {
        let body = json!({ "documents": { name: "" } }).to_string();
        caller.json("POST /apply", &body, 400);
    }
    for body in [
        "",
        "{}",
        r#"{"documents": {}}"#,
        r#"{"documents": {"a.toml": 1}}"#,
        r#"{"document": {}}"#,
    ] {
        caller.json("POST /apply", body, 400);
    }
    assert_eq!(caller.json("GET /revisions", "", 200)["revision"], 0);
    let sample = std::fs::read_to_string("../config/fleet/shop.toml").expect("the sample");
    applied(&mut caller, "shop.toml", &sample);
}

#[test]
fn a_person_can_read_a_feed() {
    let mut wanted = document();
    wanted.feed.beat = std::time::Duration::from_millis(200);
    let control = Here::start(wanted);
    let mut caller = control.caller();
    applied(&mut caller, "shop.toml", &answering("hello", "one"));
    let mut reader = control.caller().0;
    reader.send("GET /feed?node=ada HTTP/1.1\r\nHost: cp\r\n\r\n");
    assert_eq!(
        reader.read_head().header("content-type"),
        Some("application/x-ndjson")
    );
    let mut rest = String::new();
    let mut next = || loop {
        if let Some((line, more)) = rest.split_once('\n') {
            let line = Line::read(line.as_bytes()).expect("a line");
            rest = more.to_owned();
            return line;
        }
        rest += &String::from_utf8(reader.read_chunk()).expect("text");
    };
    assert!(matches!(next(), Line::Hello(hello) if hello.revision == 1));
    assert!(matches!(next(), Line::Begin(begin) if begin.full));
    assert!(matches!(next(), Line::Put(put) if put.id == "shop.toml#route:hello" && put.line == 1));
    assert!(matches!(next(), Line::End(end) if end.revision == 1));
    assert!(matches!(next(), Line::Beat(beat) if beat.revision == 1));
    assert_eq!(node(&mut caller, "ada")["connected"], true);
    drop(reader);
    until("the reader to be gone", || {
        node(&mut caller, "ada")["connected"] == false
    });
    caller.json("POST /nodes/nobody/report", r#"{"observed": []}"#, 404);
    caller.json("POST /nodes/ada/report", r#"{"observed": []}"#, 200);
    caller.json("POST /nodes/ada/report", r#"{"revision": "x"}"#, 400);
    caller.json("POST /feed", r#"{"node": ""}"#, 400);
}

/// A data plane of a service, with the certificate that an authority in memory signed; its rules come from the feed.
fn member(members: &Members, service: &str, control: SocketAddr, rest: &str) -> Gateway {
    let identity = members.folder_for(service).section(service);
    Gateway::start(&format!(
        "{identity}[server]\nworkers = 1\ndrain = \"2s\"\n\n\
         [control_plane]\nurls = [\"http://{control}\"]\nnode = \"{service}-1\"\n\n{rest}"
    ))
}

#[test]
fn rules_of_access_reach_who_they_are_about_and_the_map_shows_who_calls_mesh_402_mesh_403_mesh_504()
{
    let mut settings = document();
    settings.feed.figures = Some(std::time::Duration::from_millis(100));
    let plane = Here::start(settings);
    let mut caller = plane.caller();
    let rule = |name: &str, from: &str, to: &str| {
        format!("[[access]]\nname = \"{name}\"\nfrom = \"{from}\"\nto = \"{to}\"\n\n")
    };
    let test = |from: &str, wanted: &str| {
        format!(
            "[[test]]\nrequest = {{ path = \"/\", caller = \"{from}\", service = \"payments\" }}\n\
             expect = {{ access = \"{wanted}\" }}\n\n"
        )
    };
    let rules = rule("pay", "orders", "payments") + &rule("other", "payments", "users");
    let bad = rules.clone() + &test("users", "allowed");
    let body = json!({ "documents": { "access.toml": bad }, "by": "test" }).to_string();
    let refused = caller.json("POST /apply", &body, 422);
    assert!(
        refused
            .to_string()
            .contains("gets refused for default/users"),
        "{refused}"
    );
    let good = rules + &test("users", "refused") + &test("orders", "allowed");
    assert_eq!(applied(&mut caller, "access.toml", &good), 1);
    let members = Members::new();
    let app = Upstream::fixed("paid");
    let payments = member(
        &members,
        "payments",
        plane.address,
        &format!(
            "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\nmesh = \"strict\"\n\n\
             [[route]]\nname = \"app\"\nupstream = \"app\"\nretry = \"off\"\nfilters = [{{ access = \"enforce\" }}]\n\n\
             [[upstream]]\nname = \"app\"\nendpoints = [\"{}\"]\n",
            app.address()
        ),
    );
    let out = format!(
        "[[listener]]\nname = \"out\"\nbind = \"127.0.0.1:0\"\n\n\
         [[route]]\nname = \"out\"\nupstream = \"payments\"\nretry = \"off\"\n\n\
         [[upstream]]\nname = \"payments\"\nendpoints = [\"{}\"]\nmesh = \"payments\"\nconnect_timeout = \"30s\"\n",
        payments.address()
    );
    let orders = member(&members, "orders", plane.address, &out);
    let users = member(&members, "users", plane.address, &out);
    runs(&mut caller, "payments-1", 1);
    assert_eq!(
        node(&mut caller, "payments-1")["callee"],
        "default/payments"
    );
    assert_eq!(orders.get("/").status, 200);
    assert_eq!(users.get("/").status, 403);
    // A rule that is taken out is gone where it was.
    let none = applied(
        &mut caller,
        "access.toml",
        &rule("other", "payments", "users"),
    );
    runs(&mut caller, "payments-1", none);
    assert_eq!(orders.get("/").status, 403);
    let edge = |edges: &Value, source: &str| {
        let edges = edges["edges"].as_array().expect("a list");
        let edge = edges
            .iter()
            .find(|edge| edge["source"] == source && edge["destination"] == "default/payments");
        edge.cloned().unwrap_or_default()
    };
    let mut seen = plane.caller();
    until("both ends of both edges", || {
        let edges = seen.json("GET /edges", "", 200);
        let told = |source| edge(&edges, source)["seen_by"] == "inbound";
        told("default/orders") && told("default/users")
    });
    let edges = caller.json("GET /edges", "", 200);
    let users = edge(&edges, "default/users");
    assert!(users["last_seen_seconds"].is_u64(), "{users}");
}
