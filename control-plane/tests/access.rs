//! Who may do what (CP-202): every page with every role, with no token and with a wrong one; services and nodes that
//! speak for themselves alone; tokens that are taken out; guesses.

mod support;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{
    Caller, Here, Process, Site, document, one_of_each, secret, until, wait as wait_for,
};
use tollgate_config::KeyHash;
use tollgate_config::control_plane::Role;
use tollgate_control_plane::access::pages::{PAGES, Page};
use tollgate_engine::testing::client::Response;

fn guarded() -> Here {
    let mut settings = document();
    settings.tokens = one_of_each();
    Here::start(settings)
}

/// A request for a page that nobody is waiting for: nothing is there, or the body is wrong.
fn line(page: &Page) -> String {
    let path = page.path.replace("{number}", "1");
    let path = path.replace("{node}", "edge-1");
    let path = path.replace("{id}", "x").replace("{name}", "x");
    // Or it would go on for ever.
    let path = path.replace("/feed", "/feed?node=%07");
    format!("{} {path}", page.method)
}

fn body(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_default()
}

#[test]
fn cp_202_every_page_is_for_its_roles_and_for_nobody_else() {
    let here = guarded();
    let mut caller = here.caller();
    for page in PAGES {
        for role in Role::ALL {
            let answer = caller.ask_as(&secret(role.word()), &line(page), "{}");
            let told = format!("{} as {}: {}", line(page), role.word(), answer.text());
            if page.roles.is_empty() || page.roles.contains(&role) {
                assert!(![401, 403, 429].contains(&answer.status), "{told}");
                continue;
            }
            assert_eq!(answer.status, 403, "{told}");
            let wanted: Vec<&str> = page.roles.iter().map(|role| role.word()).collect();
            let problem = body(&answer);
            assert_eq!(problem["code"], "forbidden", "{told}");
            assert_eq!(problem["wanted"], json!(wanted), "{told}");
            assert_eq!(problem["has"], role.word(), "{told}");
        }
    }
}

#[test]
fn cp_202_without_a_token_or_with_a_wrong_one_only_health_is_told() {
    // A few pages of each control plane: too many wrong tokens are another refusal.
    for pages in PAGES.chunks(8) {
        let here = guarded();
        let mut caller = here.caller();
        for page in pages {
            let none = caller.ask(&line(page), "{}");
            let wrong = caller.ask_as(&secret("eve"), &line(page), "{}");
            for answer in [none, wrong] {
                let told = format!("{}: {}", line(page), answer.text());
                if page.roles.is_empty() {
                    // For those who share the store, and they say so otherwise; for others it is not there.
                    let wanted = if page.path == "/cluster/signs" {
                        404
                    } else {
                        200
                    };
                    assert_eq!(answer.status, wanted, "{told}");
                    continue;
                }
                assert_eq!(answer.status, 401, "{told}");
                assert_eq!(body(&answer)["code"], "unauthorized", "{told}");
                let challenge = answer.header("www-authenticate");
                assert_eq!(challenge, Some("Bearer realm=\"tollgate\""));
                let words = page.roles[0].word();
                assert!(told.contains(words), "{told}");
                for name in Role::ALL.map(|role| secret(role.word())) {
                    assert!(!told.contains(&name), "{told}");
                }
            }
        }
        assert_eq!(caller.ask("GET /no/such/page", "").status, 404);
    }
}

#[test]
fn without_tokens_everybody_on_loopback_may_do_everything() {
    let here = Here::start(document());
    let mut caller = here.caller();
    for page in PAGES {
        let status = caller.ask(&line(page), "{}").status;
        assert!(![401, 403].contains(&status), "{}", line(page));
    }
}

const ORDERS: &str = r#"{"id": "o1", "name": "orders", "address": "127.0.0.1:1"}"#;
const PAYMENTS: &str = r#"{"id": "p1", "name": "payments", "address": "127.0.0.1:2"}"#;

#[test]
fn cp_202_a_service_speaks_for_itself_alone() {
    let here = guarded();
    let mut caller = here.caller();
    let mut ask = |who: &str, line: &str, body: &str| {
        let answer = caller.ask_as(&secret(who), line, body);
        (answer.status, answer.text())
    };
    assert_eq!(ask("service", "POST /register", ORDERS).0, 201);
    assert_eq!(ask("administer", "POST /register", PAYMENTS).0, 201);
    let (status, words) = ask("service", "POST /register", PAYMENTS);
    assert_eq!(status, 403, "{words}");
    assert!(
        words.contains("may speak for the service `orders`, and not for `payments`"),
        "{words}"
    );
    for (line, body) in [
        ("PUT /heartbeat/p1", ""),
        ("POST /heartbeat", r#"{"id": "p1"}"#),
        ("POST /heartbeat", r#"{"id": "p1", "name": "orders"}"#),
        ("DELETE /services/p1", ""),
        ("DELETE /deregister", r#"{"id": "p1"}"#),
    ] {
        assert_eq!(ask("service", line, body).0, 403, "{line} {body}");
    }
    assert_eq!(ask("service", "PUT /heartbeat/o1", "").0, 200);
    assert_eq!(
        ask("service", "PUT /heartbeat/new", "").0,
        404,
        "register again"
    );
    // A node without `service` announces nobody.
    let (status, words) = ask("node", "POST /register", ORDERS);
    assert!(
        status == 403 && words.contains("`service = \\\"orders\\\"`"),
        "{words}"
    );
    assert_eq!(ask("operate", "DELETE /services/p1", "").0, 200);
    assert_eq!(ask("service", "DELETE /services/o1", "").0, 200);
    let found = ask("read", "GET /services", "").1;
    assert_eq!(found.trim(), "{}");
}

#[test]
fn a_node_is_itself_alone() {
    let here = guarded();
    let mut caller = here.caller();
    let report = r#"{"observed": []}"#;
    let ask = |caller: &mut Caller, line: &str, body: &str| {
        let answer = caller.ask_as(&secret("node"), line, body);
        (answer.status, answer.text())
    };
    let feed = |node: &str| {
        json!({"node": node, "kind": "gateway", "instance": "i", "version": "1", "have": null,
               "services": "routed", "listeners": []})
        .to_string()
    };
    let (status, words) = ask(&mut caller, "POST /feed", &feed("edge-2"));
    assert_eq!(status, 403, "{words}");
    assert!(words.contains("may speak for the node `edge-1`"), "{words}");
    assert_eq!(ask(&mut caller, "POST /nodes/edge-2/report", report).0, 403);
    assert_eq!(ask(&mut caller, "POST /nodes/edge-1/report", report).0, 404);
    let own = feed("edge-1");
    let token = secret("node");
    caller.0.send(format!(
        "POST /feed HTTP/1.1\r\nHost: cp\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{own}",
        own.len()
    ));
    assert_eq!(caller.0.read_head().status, 200);
    let mut other = here.caller();
    until("the node listens", || {
        ask(&mut other, "POST /nodes/edge-1/report", report).0 == 200
    });
}

fn written(name: &str, role: &str, more: &str) -> String {
    let hash = KeyHash::of(secret(name).as_bytes()).written();
    format!("[[token]]\nname = \"{name}\"\nrole = \"{role}\"\nhash = \"{hash}\"\n{more}\n")
}

#[test]
fn a_token_that_is_taken_out_is_refused_and_its_feed_ends() {
    let (ada, edge) = (
        written("ada", "administer", ""),
        written("edge", "node", ""),
    );
    let site = Site::with(&format!("{ada}{edge}"));
    let mut process = Process::run(&site.document());
    let mut feed = process.caller();
    let body = r#"{"node": "edge-1", "kind": "gateway", "instance": "i", "version": "1", "have": null, "services": "routed", "listeners": []}"#;
    let token = secret("edge");
    feed.0.send(format!(
        "POST /feed HTTP/1.1\r\nHost: cp\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(feed.0.read_head().status, 200);
    site.write(&ada);
    process.signal(Signal::HUP);
    process.says("the document was read again");
    // The last chunk: the feed has ended.
    feed.0.read_up_to("\r\n0\r\n\r\n");
    assert_eq!(feed.ask_as(&token, "POST /feed", body).status, 401);
    let mut caller = process.caller();
    assert_eq!(caller.ask_as(&secret("ada"), "GET /nodes", "").status, 200);
    // No token at all would open everything: fine on loopback, and said by the document.
    site.write("");
    process.signal(Signal::HUP);
    process.says("the document was read again");
    assert_eq!(caller.ask("GET /nodes", "").status, 200);
}

#[test]
fn who_guesses_is_not_looked_at_and_who_was_good_from_there_is() {
    let (mut here, mut refused) = (guarded(), None);
    // A guess is forgotten after six seconds: whoever takes longer over them begins anew.
    until("ten guesses in time", || {
        here = guarded();
        let mut caller = here.caller();
        assert_eq!(caller.ask_as(&secret("read"), "GET /nodes", "").status, 200);
        let began = Instant::now();
        for guess in 0..10 {
            let answer = caller.ask_as(&secret(&format!("guess-{guess}")), "GET /nodes", "");
            assert_eq!(answer.status, 401, "{}", answer.text());
        }
        let answer = caller.ask_as(&secret("operate"), "GET /nodes", "");
        if began.elapsed() >= Duration::from_secs(6) {
            return false;
        }
        assert_eq!(answer.status, 429, "not even a good one is looked at");
        refused = Some(answer);
        true
    });
    let (mut caller, answer) = (here.caller(), refused.expect("it was in time"));
    assert_eq!(body(&answer)["code"], "too_many_failures");
    let wait: u64 = answer
        .header("retry-after")
        .expect("how long")
        .parse()
        .expect("seconds");
    assert!((1..=6).contains(&wait), "{wait}");
    assert_eq!(caller.ask_as(&secret("read"), "GET /nodes", "").status, 200);
    assert_eq!(caller.ask("GET /health/ready", "").status, 200);
    // Guesses are in the audit log, and what was guessed is not.
    let found = wait_for(
        "the guesses in the audit log",
        || {
            let found = caller.ask_as(&secret("read"), "GET /audit?what=denied", "");
            found.text()
        },
        |found| {
            found.contains("\"code\":\"unauthorized\"")
                && found.contains("no other from this address")
        },
    );
    assert!(!found.contains(&secret("guess-1")), "{found}");
}
