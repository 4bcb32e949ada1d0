//! What members are told, and when: at once, whoever listens for it, and nobody else; names that get no certificate any
//! more; and what is still told after a restart.

use serde_json::{Value, json};
use tollgate_config::feed::Line;
use tollgate_config::identity::Trust;
use tollgate_engine::testing::client::Client;

use super::support::member::{Member, answer, lets_in, name_of, now, refused};
use super::support::{Caller, Here, Process, Site, document, until};

/// Reads a feed line by line.
struct Listener {
    client: Client,
    rest: String,
}

impl Listener {
    fn open(caller: Caller, trust: bool) -> Listener {
        let mut client = caller.0;
        let mut body = json!({
            "node": "edge", "kind": "gateway", "instance": "i", "version": "1", "have": null,
            "services": "routed", "listeners": [],
        });
        if trust {
            body["trust"] = true.into();
        }
        let body = body.to_string();
        client.send(format!(
            "POST /feed HTTP/1.1\r\nHost: cp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.read_head().status, 200);
        Listener {
            client,
            rest: String::new(),
        }
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

    /// The next one that says something.
    fn news(&mut self) -> Line {
        loop {
            match self.next() {
                Line::Beat(_) => {}
                line => return line,
            }
        }
    }

    #[track_caller]
    fn trust(&mut self) -> Trust {
        match self.news() {
            Line::Trust(trust) => trust,
            other => panic!("{other:?}"),
        }
    }
}

fn route(name: &str) -> String {
    let text = format!(
        "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nrespond = {{ status = 200 }}\n"
    );
    json!({ "documents": { "shop.toml": text } }).to_string()
}

#[test]
fn who_asks_for_it_is_told_first_and_at_each_change_and_others_never_mesh_304() {
    let here = Here::start(document());
    let mut caller = here.caller();
    let mut member = Listener::open(here.caller(), true);
    let mut other = Listener::open(here.caller(), false);
    assert!(matches!(member.next(), Line::Hello(_)));
    let first = member.trust();
    assert_eq!(json!(first), caller.json("GET /identity/trust", "", 200));
    assert!(first.version > 0 && first.revoked.is_empty() && first.authorities.len() == 1);
    for listener in [&mut member, &mut other] {
        until("the end of what there is", || {
            matches!(listener.next(), Line::End(_))
        });
    }
    // An unrelated change, and a certificate, are no news about trust.
    let orders = Member::new("orders");
    let token = orders.token(&mut caller);
    let given = answer(&orders.join(&mut caller, &token));
    caller.json("POST /apply", &route("a"), 200);
    for listener in [&mut member, &mut other] {
        assert!(matches!(listener.news(), Line::Begin(_)));
        assert!(matches!(listener.news(), Line::Put(_)));
        assert!(matches!(listener.news(), Line::End(_)));
    }
    let (_, serial) = name_of(&given.certificate);
    let body = json!({ "serial": serial }).to_string();
    caller.json("POST /identity/revoke", &body, 200);
    let second = member.trust();
    assert!(second.version > first.version);
    assert_eq!(second.revoked, [serial]);
    assert_eq!(second.authorities, first.authorities);
    // The same again is no change.
    assert_eq!(
        caller.json("POST /identity/revoke", &body, 200)["revoked"],
        0
    );
    caller.json("POST /identity/rotate", r#"{"overlap": "1h"}"#, 200);
    let third = member.trust();
    assert!(third.version > second.version);
    assert_eq!(third.authorities.len(), 2);
    assert_eq!(third.authorities[0], first.authorities[0]);
    caller.json("POST /apply", &route("b"), 200);
    for listener in [&mut member, &mut other] {
        assert!(matches!(listener.news(), Line::Begin(_)));
    }
}

#[test]
fn a_service_that_is_barred_gets_nothing_until_it_is_allowed_mesh_304() {
    let here = Here::start(document());
    let mut caller = here.caller();
    let (orders, payments) = (Member::new("orders"), Member::new("payments"));
    let mut given = Vec::new();
    for member in [&orders, &orders, &payments] {
        let token = member.token(&mut caller);
        given.push(answer(&member.join(&mut caller, &token)));
    }
    let waiting = orders.token(&mut caller);
    let bar = r#"{"service": "orders", "bar": true}"#;
    let revoked = caller.json("POST /identity/revoke", bar, 200);
    assert_eq!(revoked, json!({ "revoked": 2, "barred": true }));
    let trust: Trust =
        serde_json::from_value(caller.json("GET /identity/trust", "", 200)).expect("trust");
    let mut wanted: Vec<String> = given[..2]
        .iter()
        .map(|one| name_of(&one.certificate).1)
        .collect();
    wanted.sort();
    assert_eq!(trust.revoked, wanted);
    let words = refused(&orders.join(&mut caller, &waiting), 403, "barred");
    assert!(words.contains("identity allow"), "{words}");
    let next = Member::new("orders");
    let renewal = orders.renew(&mut caller, &next, &given[0].certificate);
    refused(&renewal, 403, "barred");
    let next = Member::new("payments");
    answer(&payments.renew(&mut caller, &next, &given[2].certificate));
    let standing = caller.json("GET /identity", "", 200);
    assert_eq!(standing["barred"][0]["service"], "orders");
    let orders_only = r#"{"service": "orders"}"#;
    let allowed = caller.json("POST /identity/allow", orders_only, 200);
    assert_eq!(allowed["was_barred"], true);
    // What was revoked stays so; a token is as good as before.
    let renewal = orders.renew(&mut caller, &Member::new("orders"), &given[0].certificate);
    refused(&renewal, 403, "not_proven");
    answer(&orders.join(&mut caller, &waiting));
    let again = caller.json("POST /identity/allow", orders_only, 200);
    assert_eq!(again["was_barred"], false);
    for body in [
        "{}",
        r#"{"serial": "1", "service": "orders"}"#,
        r#"{"service": "orders", "bar": "yes"}"#,
    ] {
        caller.json("POST /identity/revoke", body, 400);
    }
    let unknown = caller.json("POST /identity/revoke", r#"{"serial": "1f"}"#, 404);
    assert_eq!(unknown["code"], "unknown_certificate");
}

fn phases(caller: &mut Caller) -> Vec<String> {
    let standing = caller.json("GET /identity", "", 200);
    let all = standing["authorities"].as_array().expect("a list").iter();
    all.map(|one| one["phase"].as_str().expect("a word").to_owned())
        .collect()
}

#[test]
fn another_key_takes_over_when_all_know_it_and_a_restart_changes_nothing_mesh_304() {
    let site = Site::with("");
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    let member = Member::new("orders");
    let token = member.token(&mut caller);
    let before = answer(&member.join(&mut caller, &token));
    caller.json("POST /identity/rotate", r#"{"overlap": "1h"}"#, 200);
    let active = caller.json("POST /identity/rotate", "", 409);
    assert_eq!(active["code"], "rotation_active");
    let announced: Value = caller.json("GET /identity/trust", "", 200);
    process.signal(rustix::process::Signal::KILL);
    process.end();
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    assert_eq!(phases(&mut caller), ["signs", "announced"]);
    assert_eq!(caller.json("GET /identity/trust", "", 200), announced);
    let next = Member::new("orders");
    let renewed = answer(&member.renew(&mut caller, &next, &before.certificate));
    assert!(
        lets_in(&before.trust, &renewed.certificate, now()),
        "the old one signs"
    );
    assert_eq!(renewed.trust.authorities.len(), 2);
    drop(process);

    // With a short overlap the new one signs soon, and both are trusted by who heard of it.
    let site = Site::with("");
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    let token = member.token(&mut caller);
    let old = answer(&member.join(&mut caller, &token));
    caller.json("POST /identity/rotate", r#"{"overlap": "1s"}"#, 200);
    let trust: Trust =
        serde_json::from_value(caller.json("GET /identity/trust", "", 200)).expect("trust");
    until("the new key to sign", || {
        phases(&mut caller) == ["leaving", "signs"]
    });
    let renewed = answer(&member.renew(&mut caller, &next, &old.certificate));
    assert!(
        !lets_in(&old.trust, &renewed.certificate, now()),
        "the new one signs"
    );
    for certificate in [&old.certificate, &renewed.certificate] {
        assert!(lets_in(&trust, certificate, now()));
        assert!(lets_in(&renewed.trust, certificate, now()));
    }
    process.signal(rustix::process::Signal::KILL);
    process.end();
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    assert_eq!(phases(&mut caller), ["leaving", "signs"]);
    let again = answer(&next.renew(&mut caller, &member, &renewed.certificate));
    assert!(lets_in(&trust, &again.certificate, now()));
    let store = site.stored();
    assert!(store.contains("identity/keys/2"));
}
