//! The authority of a mesh as its members and whoever runs it meet it: certificates that hold, proofs that are good once,
//! and everybody who is not who they say (MESH-301, 303, 304, 307; HI-56).

mod hostile;
mod keys;
#[path = "../support/mod.rs"]
mod support;
mod telling;

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::Value;
use support::member::{Member, answer, lets_in, name_of, now, refused};
use support::{Caller, Here, Process, Site, document, one_of_each, secret};

#[test]
fn a_service_joins_with_its_token_once_and_renews_with_its_certificate_mesh_304_mesh_307() {
    let here = Here::start(document());
    let mut caller = here.caller();
    let member = Member::new("orders");
    let token = member.token(&mut caller);
    let first = answer(&member.join(&mut caller, &token));
    let (name, serial) = name_of(&first.certificate);
    assert_eq!(name, "spiffe://tollgate.local/ns/default/svc/orders");
    assert_eq!(first.identity.as_str(), name);
    // Good a little before now, and a day from now on.
    let time = now();
    assert!(first.not_before < time && time < first.not_after);
    assert!((86_000..=86_400).contains(&(first.not_after - time)));
    assert!(lets_in(&first.trust, &first.certificate, time));
    assert!(!lets_in(
        &first.trust,
        &first.certificate,
        first.not_after + 1
    ));
    assert!(!lets_in(
        &first.trust,
        &first.certificate,
        first.not_before - 1
    ));
    let told = caller.json("GET /identity/trust", "", 200);
    assert_eq!(serde_json::to_value(&first.trust).expect("JSON"), told);
    // Its answer was lost: who holds the key asks again. Whoever else has the token is told apart.
    let again = answer(&member.join(&mut caller, &token));
    assert_ne!(name_of(&again.certificate).1, serial);
    let thief = Member::new("orders");
    let words = refused(&thief.join(&mut caller, &token), 403, "token_used");
    assert!(
        words.contains("from 127.0.0.1") && words.contains("stolen"),
        "{words}"
    );
    // Another key, by the word of the old one.
    let next = Member::new("orders");
    let renewed = answer(&member.renew(&mut caller, &next, &first.certificate));
    assert_eq!(renewed.identity, first.identity);
    assert!(lets_in(&first.trust, &renewed.certificate, time));
    let words = refused(
        &thief.renew(&mut caller, &thief, &first.certificate),
        403,
        "not_proven",
    );
    assert!(words.contains("another key"), "{words}");

    let standing = caller.json("GET /identity", "", 200);
    let member = &standing["members"][0];
    assert_eq!(member["identity"], name.as_str());
    assert_eq!(
        (&member["certificates"], &member["proof"]),
        (&3.into(), &"renewal".into())
    );
    assert_eq!(member["address"], "127.0.0.1");
    assert!(
        member["seconds_left"]
            .as_u64()
            .is_some_and(|left| left > 80_000)
    );
    let authority = &standing["authorities"][0];
    assert_eq!(authority["phase"], "signs");
    assert_eq!(standing["tokens"], Value::Array(Vec::new()), "it was used");
    let all = caller.json("GET /identity?service=orders", "", 200);
    assert_eq!(all["certificates"].as_array().map(Vec::len), Some(3));
    let metrics = caller.ask("GET /metrics", "").text();
    for line in [
        "identity_certificates_issued_total{proof=\"join-token\"} 2",
        "identity_certificates_issued_total{proof=\"renewal\"} 1",
        "identity_requests_refused_total 2",
        "identity_members 1",
        "identity_certificates 3",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[test]
fn everything_is_in_the_audit_log_and_no_secret_is_mesh_307() {
    let site = Site::with("");
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    let (member, thief) = (Member::new("orders"), Member::new("orders"));
    let token = member.token(&mut caller);
    let unused = member.token(&mut caller);
    let given = answer(&member.join(&mut caller, &token));
    refused(&thief.join(&mut caller, &token), 403, "token_used");
    refused(&thief.join(&mut caller, "join-nobody's"), 403, "not_proven");
    let (_, serial) = name_of(&given.certificate);
    let body = format!("{{\"serial\": \"{}\"}}", serial.to_uppercase());
    assert_eq!(
        caller.json("POST /identity/revoke", &body, 200)["revoked"],
        1
    );
    caller.json("POST /identity/rotate", "", 200);
    let mut said = String::new();
    for page in [
        "GET /audit?limit=1000",
        "GET /audit?limit=1000&what=certificate&result=denied",
        "GET /identity",
        "GET /identity?service=orders",
        "GET /identity/trust",
        "GET /metrics",
        "GET /debug/registry/audit",
        "GET /revisions",
    ] {
        said += &caller.ask(page, "").text();
    }
    let told = caller.json("GET /audit?limit=1000", "", 200);
    let events = told["events"].as_array().expect("events");
    let has = |what: &str, result: &str, part: &str| {
        events.iter().any(|one| {
            one["what"] == what && one["result"] == result && one.to_string().contains(part)
        })
    };
    assert!(has("identity-token", "done", "svc/orders"), "{told:#}");
    assert!(has("certificate", "done", &serial), "{told:#}");
    assert!(has("certificate", "denied", "possible theft"), "{told:#}");
    assert!(has("certificate", "denied", "not known here"), "{told:#}");
    assert!(has("identity-revoke", "done", &serial), "{told:#}");
    assert!(has("identity-rotate", "done", "signs from"), "{told:#}");
    assert!(has("authority", "done", "announced"), "{told:#}");
    // The store alone holds a key, and nobody but its owner reads that; it holds no token.
    let store = site.stored();
    assert!(store.contains("PRIVATE KEY"));
    assert!(!store.contains(&token) && !store.contains(&unused));
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(site.store())
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for file in std::fs::read_dir(site.0.path().join("state/audit")).expect("a folder") {
        said += &std::fs::read_to_string(file.expect("a file").path()).expect("text");
    }
    process.signal(Signal::TERM);
    let (code, words) = process.end();
    assert_eq!(code, Some(0), "{words}");
    said += &words;
    for secret in ["PRIVATE KEY", &token, &unused, "nobody's"] {
        assert!(!said.contains(secret), "{secret} is told");
    }
}

#[test]
fn of_many_who_show_one_token_at_once_one_is_believed_mesh_307() {
    let here = Here::start(document());
    let token = Member::new("orders").token(&mut here.caller());
    let (good, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let member = Member::new("orders");
                let body = member.joining(&token);
                let mut caller = here.caller();
                let response = caller.ask("POST /identity/certificate", &body);
                match response.status {
                    200 => good.fetch_add(1, Ordering::Relaxed),
                    _ => {
                        refused(&response, 403, "token_used");
                        used.fetch_add(1, Ordering::Relaxed)
                    }
                };
            });
        }
    });
    assert_eq!((good.into_inner(), used.into_inner()), (1, 7));
}

#[test]
fn killed_between_writing_and_answering_it_knows_who_asked_and_signs_with_the_same_key_mesh_304() {
    let site = Site::with("");
    let mut process = Process::run(&site.document());
    let member = Member::new("orders");
    let mut caller = process.caller();
    let trust = caller.json("GET /identity/trust", "", 200);
    for round in 0..5 {
        let mut caller = process.caller();
        let token = member.token(&mut caller);
        let body = member.joining(&token);
        caller.0.send(format!(
            "POST /identity/certificate HTTP/1.1\r\nHost: cp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        // Nobody reads the answer, if there is one.
        process.signal(Signal::KILL);
        process.end();
        process = Process::run(&site.document());
        let mut caller = process.caller();
        assert_eq!(
            caller.json("GET /identity/trust", "", 200),
            trust,
            "{round}"
        );
        let given = answer(&member.join(&mut caller, &token));
        assert!(lets_in(&given.trust, &given.certificate, now()));
        let thief = Member::new("orders");
        refused(&thief.join(&mut caller, &token), 403, "token_used");
    }
}

#[test]
fn a_join_token_is_for_its_service_and_its_time_mesh_307() {
    let here = Here::start(document());
    let mut caller = here.caller();
    let (orders, payments) = (Member::new("orders"), Member::new("payments"));
    let token = orders.token(&mut caller);
    let words = refused(&payments.join(&mut caller, &token), 403, "not_proven");
    assert!(words.contains("another service"), "{words}");
    // That did not use it up.
    answer(&orders.join(&mut caller, &token));
    let short = r#"{"service": "orders", "for": "1s"}"#;
    let made = caller.json("POST /identity/token", short, 200);
    let short = made["token"].as_str().expect("a token").to_owned();
    let late = Member::new("orders");
    support::until("its end", || {
        let mut fresh = here.caller();
        let standing = fresh.json("GET /identity", "", 200);
        standing["tokens"].as_array().is_some_and(Vec::is_empty)
    });
    let words = refused(&late.join(&mut caller, &short), 403, "not_proven");
    assert!(words.contains("expired"), "{words}");
    for (body, field) in [
        ("{}", "service"),
        (r#"{"service": "a b"}"#, "service"),
        (r#"{"service": "orders", "namespace": ".."}"#, "service"),
        (r#"{"service": "orders", "for": "1000h"}"#, "for"),
        (r#"{"service": "orders", "for": "soon"}"#, "for"),
        (r#"{"service": 1}"#, "service"),
    ] {
        let problem = caller.json("POST /identity/token", body, 400);
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
    }
}

#[test]
fn whoever_runs_the_mesh_needs_a_token_and_members_need_none_cp_202() {
    let mut settings = document();
    settings.tokens = one_of_each();
    let here = Here::start(settings);
    let mut caller = here.caller();
    let body = r#"{"service": "orders"}"#;
    for role in ["read", "operate", "node", "service"] {
        for page in ["token", "revoke", "allow", "rotate"] {
            let line = format!("POST /identity/{page}");
            assert_eq!(caller.ask_as(&secret(role), &line, body).status, 403);
        }
    }
    assert_eq!(caller.ask("GET /identity", "").status, 401);
    let made = caller.ask_as(&secret("administer"), "POST /identity/token", body);
    let made: Value = serde_json::from_slice(&made.body).expect("JSON");
    let token = made["token"].as_str().expect("a token");
    let member = Member::new("orders");
    answer(&member.join(&mut caller, token));
    caller.json("GET /identity/trust", "", 200);
}

#[test]
fn without_an_authority_there_are_no_pages_of_it() {
    let mut settings = document();
    settings.identity.enabled = false;
    let here = Here::start(settings);
    let mut caller: Caller = here.caller();
    for line in [
        "GET /identity",
        "GET /identity/trust",
        "POST /identity/rotate",
    ] {
        assert_eq!(caller.json(line, "", 404)["code"], "no_authority");
    }
    let member = Member::new("orders");
    refused(&member.join(&mut caller, "join-x"), 404, "no_authority");
}
