//! The audit log (CP-202, REG-505): who did what, who was refused, what was found; and writes that are for one revision
//! (CP-203).

mod support;

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{Caller, Here, Process, Site, document, one_of_each, secret, until, wait};

fn route(name: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nrespond = {{ status = 200 }}\n"
    )
}

fn apply(text: &str) -> String {
    json!({ "documents": { "a.toml": text }, "note": "for a test" }).to_string()
}

fn json_as(caller: &mut Caller, role: &str, line: &str, body: &str) -> (u16, Value) {
    let answer = caller.ask_as(&secret(role), line, body);
    let value = serde_json::from_slice(&answer.body).expect("JSON");
    (answer.status, value)
}

fn events(caller: &mut Caller, question: &str) -> Vec<Value> {
    let (status, found) = json_as(caller, "read", &format!("GET /audit?{question}"), "");
    assert_eq!(status, 200, "{found}");
    found["events"].as_array().expect("a list").clone()
}

/// The same once there are so many: what was refused is written down beside its answer.
fn told(caller: &mut Caller, question: &str, count: usize) -> Vec<Value> {
    let enough = |found: &Vec<Value>| found.len() >= count;
    wait(question, || events(caller, question), enough)
}

fn guarded(state: Option<&std::path::Path>) -> Here {
    let mut settings = document();
    settings.tokens = one_of_each();
    settings.server.state_dir = state.map(Into::into);
    Here::start(settings)
}

#[test]
fn cp_202_every_change_is_written_down_with_who_what_and_what_became_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    // With files, and without.
    for state in [Some(folder.path()), None] {
        let here = guarded(state);
        let mut caller = here.caller();
        json_as(
            &mut caller,
            "administer",
            "POST /apply",
            &apply(&route("one")),
        );
        json_as(
            &mut caller,
            "administer",
            "POST /apply",
            &apply(&route("one")),
        );
        json_as(
            &mut caller,
            "administer",
            "POST /apply",
            &apply("[[route]]\nnaem = 1\n"),
        );
        json_as(&mut caller, "operate", "POST /apply", &apply(&route("two")));
        json_as(&mut caller, "operate", "POST /rollback", r#"{"to": 0}"#);
        json_as(&mut caller, "read", "POST /services/x/confirm", "");
        let found = told(&mut caller, "what=apply", 4);
        let short: Vec<_> = { found.iter() }
            .map(|one| {
                let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
                let number = |name: &str| one[name].as_u64().map_or(-1, |n| n as i64);
                (
                    text("result"),
                    text("role"),
                    number("before"),
                    number("after"),
                )
            })
            .collect();
        let line = |result: &str, role: &str, before, after| {
            (result.to_owned(), role.to_owned(), before, after)
        };
        let wanted = [
            line("denied", "operate", -1, -1),
            line("refused", "administer", 1, -1),
            line("same", "administer", 1, 1),
            line("done", "administer", 0, 1),
        ];
        assert_eq!(short, wanted);
        let first = &found[3];
        assert_eq!(first["who"], "administer");
        assert_eq!(first["address"], "127.0.0.1");
        assert_eq!(first["request"], "POST /apply");
        assert_eq!(first["target"], "a.toml");
        assert_eq!(first["note"], "for a test");
        assert_eq!(found[1]["code"], "refused");
        let rolled = told(&mut caller, "what=rollback&who=operate&result=done", 1);
        assert_eq!(
            (&rolled[0]["before"], &rolled[0]["after"]),
            (&json!(1), &json!(2))
        );
        let confirmed = told(&mut caller, "what=confirm", 1);
        assert_eq!(confirmed[0]["result"], "denied");
        until("the revisions are told", || {
            events(&mut caller, "what=revision").len() == 2
        });
        let revisions = events(&mut caller, "what=revision");
        assert_eq!(revisions[0]["by"], "operate");
        // Instances, too, with who registered them.
        let body = r#"{"id": "o1", "name": "orders", "address": "127.0.0.1:1"}"#;
        json_as(&mut caller, "service", "POST /register", body);
        let found = told(&mut caller, "service=orders&what=registered", 1);
        assert_eq!(found[0]["by"], "service@127.0.0.1");
        assert_eq!(events(&mut caller, "who=service&limit=1").len(), 1);
        assert_eq!(events(&mut caller, "since=2999-01-01"), Vec::<Value>::new());
    }
}

#[test]
fn a_change_whose_caller_hangs_up_is_finished_and_written_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = guarded(Some(folder.path()));
    let token = secret("administer");
    let mut caller = here.caller();
    let mut number = 0;
    until("a few have made a change", || {
        number += 1;
        let body = apply(&route(&format!("hasty-{number}")));
        let mut hasty = here.caller();
        hasty.0.send(format!(
            "POST /apply HTTP/1.1\r\nHost: cp\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        assert_eq!(hasty.0.read_response().status, 100, "it has begun");
        // Whose other half is closed has gone, for a server.
        hasty.0.send(body).finish();
        hasty.0.drain();
        let (_, now) = json_as(&mut caller, "read", "GET /revisions", "");
        now["revision"].as_u64() >= Some(3)
    });
    let (status, answer) = json_as(
        &mut caller,
        "administer",
        "POST /apply",
        &apply(&route("two")),
    );
    assert_eq!(status, 200, "{answer}");
    let revision = answer["revision"].as_u64().expect("a number");
    // Whatever the hasty ones achieved has its line.
    until("every revision has its line", || {
        let done = events(&mut caller, "what=apply&result=done");
        let after: BTreeSet<u64> = { done.iter() }
            .filter_map(|one| one["after"].as_u64())
            .collect();
        (1..=revision).all(|number| after.contains(&number))
    });
}

#[test]
fn a_large_change_without_a_token_is_told_so_and_not_cut_off() {
    let here = guarded(None);
    let body = apply(&"#".repeat(500_000));
    let answer = here.caller().ask("POST /apply", &body);
    assert_eq!(answer.status, 401, "{}", answer.text());
}

#[test]
fn a_question_to_the_audit_log_that_makes_no_sense_is_refused() {
    let here = guarded(None);
    let mut caller = here.caller();
    for question in [
        "whom=ada",
        "limit=0",
        "limit=x",
        "since=yesterday",
        "until=2026",
    ] {
        let (status, problem) = json_as(&mut caller, "read", &format!("GET /audit?{question}"), "");
        assert_eq!(status, 400, "{question}: {problem}");
        let field = question.split('=').next();
        assert_eq!(problem["errors"][0]["field"].as_str(), field);
    }
}

#[test]
fn cp_203_a_change_for_another_revision_is_a_conflict_and_the_same_change_twice_is_one() {
    let here = guarded(None);
    let mut caller = here.caller();
    let token = secret("administer");
    let fields =
        |revision: &str| format!("Authorization: Bearer {token}\r\nIf-Match: {revision}\r\n");
    let first = caller.ask_with(&fields("\"0\""), "POST /apply", &apply(&route("one")));
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(first.header("etag"), Some("\"1\""));
    // Its answer was lost, and it is sent again: done already.
    let again = caller.ask_with(&fields("\"0\""), "POST /apply", &apply(&route("one")));
    assert_eq!(again.status, 200, "{}", again.text());
    assert!(again.text().contains("\"changed\":false"));
    for line in ["POST /apply", "POST /plan"] {
        let other = caller.ask_with(&fields("\"0\""), line, &apply(&route("two")));
        assert_eq!(other.status, 409, "{}", other.text());
        let problem: Value = serde_json::from_slice(&other.body).expect("JSON");
        assert_eq!(
            (&problem["code"], &problem["revision"]),
            (&json!("conflict"), &json!(1))
        );
    }
    let back = caller.ask_with(&fields("7"), "POST /rollback", r#"{"to": 0}"#);
    assert_eq!(back.status, 409, "{}", back.text());
    for nonsense in ["*", "W/\"1\"", "\"1\", \"2\"", "x"] {
        let answer = caller.ask_with(&fields(nonsense), "POST /apply", &apply(&route("two")));
        assert_eq!(answer.status, 400, "{nonsense}: {}", answer.text());
    }
    let body = json!({ "documents": { "a.toml": route("two") }, "if_revision": 1 }).to_string();
    let both = caller.ask_with(&fields("\"2\""), "POST /apply", &body);
    assert_eq!(both.status, 400, "{}", both.text());
    let good = caller.ask_with(&fields("\"1\""), "POST /apply", &body);
    assert_eq!(good.status, 200, "{}", good.text());
    let list = caller.ask_as(&token, "GET /revisions", "");
    assert_eq!(list.header("etag"), Some("\"2\""));
}

/// HI-67: whatever was answered is in the audit log of the next process, and so is every revision.
#[test]
fn cp_202_the_audit_log_survives_kill_9() {
    let site = Site::with("");
    let mut answered = BTreeSet::new();
    for round in 0..5 {
        let process = Process::run(&site.document());
        let address = process.address;
        let (sent, got) = std::sync::mpsc::channel();
        let changing = std::thread::spawn(move || {
            let mut caller = Caller::to(address);
            for number in 0.. {
                let body = apply(&route(&format!("r{round}-{number}")));
                caller.0.send(format!(
                    "POST /apply HTTP/1.1\r\nHost: cp\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ));
                match caller.0.try_response("POST") {
                    Ok(answer) if answer.complete && answer.status == 200 => {
                        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
                        sent.send(answer["revision"].as_u64().expect("a number"))
                            .expect("heard");
                    }
                    _ => return,
                }
            }
        });
        for _ in 0..5 + round {
            answered.insert(got.recv().expect("an answer"));
        }
        process.signal(Signal::KILL);
        answered.extend(got.iter());
        changing.join().expect("ends");
        drop(process);
    }
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    let numbers = |caller: &mut Caller, what: &str, field: &str| -> BTreeSet<u64> {
        let found = caller.json(&format!("GET /audit?what={what}&limit=1000"), "", 200);
        let found = found["events"].as_array().expect("a list").clone();
        found.iter().filter_map(|one| one[field].as_u64()).collect()
    };
    let written = numbers(&mut caller, "apply", "after");
    let lost: Vec<_> = answered.difference(&written).collect();
    assert!(lost.is_empty(), "answered, and not in the log: {lost:?}");
    let newest = caller.json("GET /revisions", "", 200)["revision"]
        .as_u64()
        .expect("a number");
    until("every revision is in the log", || {
        numbers(&mut caller, "revision", "revision") == (1..=newest).collect()
    });
}
