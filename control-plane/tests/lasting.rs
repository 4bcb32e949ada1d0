//! What a catalog survives: being killed while it is changed, listeners that take nothing, and very many of them.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;
use support::{Caller, Here, Process, Site, document, until};
use tollgate_engine::testing::client::Client;

fn answering(name: &str, body: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n\n"
    )
}

/// Changes the catalog until the connection breaks; good and bad changes in turn. The last revision that was accepted.
fn change(client: &mut Client, from: u64, accepted: &AtomicU64) {
    for number in from + 1.. {
        let good = answering("a", &format!("number {number}"));
        for text in [good.clone() + "[[route]]\nname = \"bad\"\n", good] {
            let body = json!({ "documents": { "a.toml": text } }).to_string();
            let length = body.len();
            let request = format!(
                "POST /apply HTTP/1.1\r\nHost: cp\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            if client.try_send(request.as_bytes()).is_err() {
                return;
            }
            match client.try_response("POST") {
                Ok(answer) if answer.complete && answer.status == 200 => {
                    accepted.store(number, Ordering::SeqCst);
                }
                Ok(answer) if answer.status == 422 => {}
                _ => return,
            }
        }
    }
}

#[test]
fn no_accepted_change_is_lost_and_no_refused_one_applied_when_it_is_killed_under_load() {
    let site = Site::with("");
    let accepted = AtomicU64::new(0);
    let mut revision = 0;
    for round in 0..30 {
        let process = Process::run(&site.document());
        let mut caller = process.caller();
        let now = caller.json("GET /revisions", "", 200);
        let here = now["revision"].as_u64().expect("a number");
        let kept = accepted.load(Ordering::SeqCst);
        // What was being written when it died may have become true, but nothing beyond it.
        assert!(
            (kept..=kept + 1).contains(&here),
            "round {round}: {here} after {kept}"
        );
        assert!(here >= revision);
        revision = here;
        if here > 0 {
            let newest = caller.json(&format!("GET /revisions/{here}"), "", 200);
            let text = newest["changes"][0]["after"]["text"]
                .as_str()
                .expect("a text")
                .to_owned();
            assert!(text.contains(&format!("number {here}\"")), "{text}");
            assert_eq!(now["blocks"], 1, "nothing of a refused change");
        }
        accepted.store(here, Ordering::SeqCst);
        thread::scope(|scope| {
            let mut client = Client::connect(process.address);
            let accepted = &accepted;
            scope.spawn(move || change(&mut client, here, accepted));
            let wanted = here + 1 + round % 4;
            until("some changes", || accepted.load(Ordering::SeqCst) >= wanted);
            drop(process);
        });
    }
}

#[test]
fn a_listener_that_takes_nothing_is_let_go_and_nobody_waits_for_it() {
    let mut wanted = document();
    wanted.feed.write_timeout = Duration::from_millis(300);
    wanted.feed.beat = Duration::from_secs(60);
    let control = Here::start(wanted);
    let mut caller = control.caller();
    let large = |number: usize| -> String {
        let body = "x".repeat(200_000) + &number.to_string();
        (0..20)
            .map(|at| answering(&format!("r{at}"), &body))
            .collect()
    };
    let apply = |caller: &mut Caller, number: usize| {
        let body = json!({ "documents": { "a.toml": large(number) } }).to_string();
        let answer = caller.ask("POST /apply", &body);
        assert_eq!(answer.status, 200, "{:.300}", answer.text());
    };
    apply(&mut caller, 0);
    let mut stuck = TcpStream::connect(control.address).expect("it listens");
    stuck
        .write_all(b"GET /feed?node=stuck HTTP/1.1\r\nHost: cp\r\n\r\n")
        .expect("sent");
    let connected =
        |caller: &mut Caller| caller.json("GET /nodes", "", 200)["nodes"][0]["connected"].clone();
    // It may be let go as soon, where the machine's sockets hold little.
    until("it to listen", || !connected(&mut caller).is_null());
    apply(&mut caller, 1);
    apply(&mut caller, 2);
    until("it to be let go", || connected(&mut caller) == false);
    // What stood in the kernel can still be read; then it ends, before everything was said.
    stuck
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("set");
    let mut rest = Vec::new();
    let _reset_or_end = stuck.read_to_end(&mut rest);
    assert!(rest.len() < 20 * 200_000, "{}", rest.len());
    caller.json("GET /health/ready", "", 200);
}

#[test]
fn hundreds_of_listeners_are_told_one_change_each() {
    let control = Here::start(document());
    let mut caller = control.caller();
    let apply = |caller: &mut Caller, body: &str| {
        let text: String = (0..50)
            .map(|at| answering(&format!("r{at}"), if at == 7 { body } else { "same" }))
            .collect();
        let body = json!({ "documents": { "a.toml": text } }).to_string();
        caller.json("POST /apply", &body, 200);
    };
    apply(&mut caller, "one");
    let mut open: Vec<Client> = (0..300)
        .map(|number| {
            let mut client = Client::connect(control.address);
            client.send(format!(
                "GET /feed?node=n{number} HTTP/1.1\r\nHost: cp\r\n\r\n"
            ));
            client.read_up_to("{\"end\"");
            client
        })
        .collect();
    for body in ["two", "three"] {
        apply(&mut caller, body);
    }
    for client in &mut open {
        // Folded or not, the newest comes, and only the one block.
        let mut heard = client.read_up_to("three");
        heard += &client.read_up_to("{\"end\"");
        assert!(!heard.contains("\"full\":true"), "{heard}");
        assert!(!heard.contains("same"), "{heard}");
    }
    let nodes = caller.json("GET /nodes", "", 200);
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(300));
}
