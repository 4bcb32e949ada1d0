//! The program itself: exit codes, signals, one process per folder, and what a kill leaves behind.

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::json;
use support::{Caller, PROGRAM, Process, Site, until};
use tollgate_engine::testing::client::Client;

fn check(text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cp.toml");
    std::fs::write(&file, text).expect("written");
    let output = Command::new(PROGRAM)
        .arg("check")
        .arg(&file)
        .output()
        .expect("it runs");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), words)
}

#[test]
fn a_document_is_checked_before_anything_is_started() {
    assert_eq!(check("[registry]\nheartbeat = \"10s\"\n").0, Some(0));
    let (code, words) = check("[registry]\nheartbeet = \"10s\"\n");
    assert_eq!(code, Some(2));
    assert!(
        words.contains("cp.toml:2:1") && words.contains("did you mean `heartbeat`?"),
        "{words}"
    );
    let site = Site::with("[probes]\n");
    let (code, words) = Process::try_run(&site.document()).err().expect("refused");
    assert_eq!(code, Some(2), "{words}");
    assert!(!site.store().exists());
}

#[test]
fn a_taken_address_and_a_taken_folder_have_their_own_words() {
    let site = Site::with("");
    let process = Process::run(&site.document());
    let (code, words) = Process::try_run(&site.document()).err().expect("refused");
    assert_eq!(code, Some(1));
    assert!(words.contains("in use by another control plane"), "{words}");
    let other = Site::with("");
    let text = format!("server = {{ bind = \"{}\" }}\n", process.address);
    std::fs::write(other.document(), text).expect("written");
    let (code, words) = Process::try_run(&other.document()).err().expect("refused");
    assert_eq!(code, Some(3), "{words}");
}

#[test]
fn sigterm_lets_what_is_in_flight_finish_and_the_next_process_remembers() {
    let site = Site::with("");
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    caller.register(
        r#"{"id": "o1", "name": "orders", "address": "127.0.0.1:1", "metadata": {"zone": "a"}}"#,
    );
    let before = caller.json("GET /debug/registry/services", "", 200);
    let mut idle = process.caller();
    idle.json("GET /health/ready", "", 200);
    // Half a request is in flight.
    let mut slow = process.caller();
    slow.0.send(
        "POST /register HTTP/1.1\r\nHost: cp\r\nExpect: 100-continue\r\nContent-Length: 58\r\n\r\n",
    );
    assert_eq!(slow.0.read_response().status, 100, "it waits for the body");
    process.signal(Signal::TERM);
    idle.0.drain();
    slow.0
        .send(r#"{"id": "o2", "name": "orders", "address": "127.0.0.1:2"}  "#);
    assert_eq!(slow.0.read_response().status, 201);
    let (code, words) = process.end();
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("cut 0"), "{words}");
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    let found = caller.json("GET /orders", "", 200);
    assert_eq!(found.as_array().map(Vec::len), Some(2));
    assert_eq!(found[0]["state"], "suspected", "REG-501");
    assert_eq!(found[0]["metadata"]["zone"], "a");
    caller.json("PUT /heartbeat/o1", "", 200);
    assert_eq!(caller.json("GET /orders", "", 200)[0]["state"], "active");
    let after = caller.json("GET /debug/registry/services", "", 200);
    let version = |of: &serde_json::Value| of["services"][0]["version"].as_u64().expect("a number");
    assert!(version(&after) > version(&before), "versions never go back");
}

#[test]
fn who_does_not_finish_within_the_drain_time_is_cut_and_counted() {
    let site = Site::with("");
    let text = "server = { bind = \"127.0.0.1:0\", state_dir = \"off\", drain = \"50ms\" }\n";
    std::fs::write(site.document(), text).expect("written");
    let process = Process::run(&site.document());
    let mut slow = process.caller();
    slow.0.send(
        "POST /register HTTP/1.1\r\nHost: cp\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
    );
    assert_eq!(slow.0.read_response().status, 100);
    process.signal(Signal::TERM);
    let (code, words) = process.end();
    assert_eq!(code, Some(4), "{words}");
    assert!(words.contains("cut 1"), "{words}");
}

#[test]
fn settings_are_read_again_on_sighup_and_a_bad_document_changes_nothing() {
    let site = Site::with("");
    let mut process = Process::run(&site.document());
    let mut caller = process.caller();
    let body = r#"{"id": "o1", "name": "orders", "address": "127.0.0.1:1"}"#;
    let lease =
        |caller: &mut Caller| caller.json("POST /register", body, 201)["lease_seconds"].clone();
    assert_eq!(lease(&mut caller), 45);
    site.write("[registry]\nservice_timeout = \"60s\"\n");
    process.signal(Signal::HUP);
    process.says("the document was read again");
    assert_eq!(lease(&mut caller), 60);
    site.write("[registry]\nservice_timeout = \"1s\"\n");
    process.signal(Signal::HUP);
    let words = process.says("the document was refused");
    assert!(
        words.contains("\"service\":\"control-plane\"") && words.contains("two `heartbeat`s"),
        "{words}"
    );
    assert_eq!(lease(&mut caller), 60);
}

#[test]
fn a_damaged_store_is_named_and_left_alone() {
    let site = Site::with("");
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    for id in ["a", "b", "c"] {
        caller.register(&json!({"id": id, "name": "orders", "address": "127.0.0.1:1"}).to_string());
    }
    drop(process);
    let mut bytes = std::fs::read(site.store()).expect("read");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(site.store(), &bytes).expect("written");
    let (code, words) = Process::try_run(&site.document()).err().expect("refused");
    assert_eq!(code, Some(1));
    assert!(
        words.contains("damaged at byte") && words.contains("nothing was changed"),
        "{words}"
    );
    assert_eq!(std::fs::read(site.store()).expect("read"), bytes);
    // A tail that is not whole is what a crash leaves.
    bytes[at] ^= 1;
    bytes.truncate(bytes.len() - 3);
    std::fs::write(site.store(), &bytes).expect("written");
    let process = Process::run(&site.document());
    assert_eq!(process.caller().ids("/orders"), ["a", "b"]);
}

/// What callers were told while the process was killed again and again.
#[derive(Default)]
struct Told {
    registered: Mutex<BTreeSet<String>>,
    /// A request for it was sent, and no answer came.
    unknown: Mutex<BTreeSet<String>>,
    gone: Mutex<BTreeSet<String>>,
    answers: AtomicUsize,
}

/// One caller: registers, and deregisters some of what it registered, until it is cut off.
fn call(address: std::net::SocketAddr, told: &Told, prefix: &str, stop: &AtomicBool) {
    // It may have been killed before this thread had its turn.
    let Ok(client) = Client::try_connect(address) else {
        return;
    };
    let mut caller = Caller(client);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("{prefix}-{number}");
        let body =
            json!({"id": id, "name": "orders", "address": format!("10.0.0.1:{}", 1 + number)})
                .to_string();
        let head = format!(
            "POST /register HTTP/1.1\r\nHost: cp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        told.unknown.lock().expect("fine").insert(id.clone());
        caller.0.send(head);
        match caller.0.try_response("POST") {
            Ok(response) if response.complete && response.status == 201 => {
                told.registered.lock().expect("fine").insert(id.clone());
            }
            _ => return,
        }
        told.unknown.lock().expect("fine").remove(&id);
        told.answers.fetch_add(1, Ordering::Relaxed);
        if number % 3 == 0 {
            told.registered.lock().expect("fine").remove(&id);
            told.unknown.lock().expect("fine").insert(id.clone());
            caller.0.send(format!(
                "DELETE /services/{id} HTTP/1.1\r\nHost: cp\r\n\r\n"
            ));
            match caller.0.try_response("DELETE") {
                Ok(response) if response.complete && response.status == 200 => {
                    told.gone.lock().expect("fine").insert(id.clone());
                }
                _ => return,
            }
            told.unknown.lock().expect("fine").remove(&id);
            told.answers.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// HI-67: `kill -9` under load; every answer that was given holds in the next process. `TOLLGATE_KILLS` is how often.
#[test]
fn kill_9_under_load_loses_no_accepted_write_and_applies_no_refused_one() {
    let kills: usize =
        std::env::var("TOLLGATE_KILLS").map_or(30, |count| count.parse().expect("a number"));
    // Nobody beats here, and nobody is to leave for it.
    let site = Site::with("[registry]\nsuspect_after = \"1h\"\nservice_timeout = \"2h\"\n");
    let told = Told::default();
    for round in 0..kills {
        let process = Process::run(&site.document());
        let stop = AtomicBool::new(false);
        let before = told.answers.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (told, stop, address) = (&told, &stop, process.address);
                scope.spawn(move || call(address, told, &format!("r{round}-{thread}"), stop));
            }
            // At another point of the load each time.
            until("some answers", || {
                told.answers.load(Ordering::Relaxed) > before + 20 + 13 * (round % 9)
            });
            process.signal(Signal::KILL);
            stop.store(true, Ordering::Relaxed);
        });
        drop(process);
    }
    let process = Process::run(&site.document());
    let found: BTreeSet<String> = process
        .caller()
        .ids("/orders?all=true")
        .into_iter()
        .collect();
    let registered = told.registered.into_inner().expect("fine");
    let unknown = told.unknown.into_inner().expect("fine");
    let gone = told.gone.into_inner().expect("fine");
    let lost: Vec<_> = registered.difference(&found).collect();
    assert!(lost.is_empty(), "accepted and lost: {lost:?}");
    let back: Vec<_> = found.intersection(&gone).collect();
    assert!(back.is_empty(), "deregistered and back: {back:?}");
    let more: Vec<_> = found
        .iter()
        .filter(|id| !registered.contains(*id) && !unknown.contains(*id))
        .collect();
    assert!(more.is_empty(), "from nowhere: {more:?}");
    assert!(registered.len() > kills * 10);
}

/// HI-67: a disk without room refuses writes with a reason; lookups, beats and what was accepted are not touched.
#[test]
fn a_full_disk_refuses_registrations_and_harms_nothing_else() {
    let site = Site::with("");
    // The kernel refuses the file to grow beyond this; ignored, the signal becomes an error of the write.
    let limited = format!(
        "trap '' XFSZ; ulimit -f 4; exec {PROGRAM} run {}",
        site.document().display()
    );
    let process = Process::of(Command::new("bash").args(["-c", &limited]));
    let mut process = process.unwrap_or_else(|(code, words)| panic!("{code:?}: {words}"));
    let mut caller = process.caller();
    let mut accepted = Vec::new();
    let problem = loop {
        let id = format!("i{:03}", accepted.len());
        let body = json!({"id": id, "name": "orders", "address": "127.0.0.1:1"}).to_string();
        let response = caller.ask("POST /register", &body);
        if response.status != 201 {
            break response;
        }
        accepted.push(id);
    };
    assert!(!accepted.is_empty());
    assert_eq!(problem.status, 503, "{}", problem.text());
    assert!(
        problem.text().contains("store_unavailable")
            && problem.text().contains("nothing was changed")
    );
    process.says("the store does not take a write");
    assert_eq!(
        caller.ids("/orders"),
        accepted,
        "lookups go on, without the refused one"
    );
    caller.json("PUT /heartbeat/i000", "", 200);
    assert_eq!(
        caller.json("GET /health/ready", "", 200)["checks"]["store"]["status"],
        "unhealthy"
    );
    drop(process);
    let process = Process::run(&site.document());
    assert_eq!(process.caller().ids("/orders"), accepted);
    process
        .caller()
        .register(r#"{"id": "z", "name": "orders", "address": "127.0.0.1:2"}"#);
}
