//! The debug pages of a control plane (CP-301, CP-303, CP-304): what real gateways and services tell of a request, and what
//! becomes of nodes that say nothing, or what is not so. Waits are for answers and states, never for a time.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use support::{Caller, Here, document, until, wait};
use tollgate_config::control_plane::ControlPlane;
use tollgate_config::feed::{Ask, Line};
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Whoever is asked may take as long as a machine stands still.
fn patient() -> ControlPlane {
    let mut document = document();
    document.feed.answer_timeout = Duration::from_secs(60);
    document
}

/// Microseconds since 1970.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// A service's own HTTP: pages by their path; everything else is not there.
fn pages(page: impl Fn(&str) -> Option<Value> + Send + Sync + 'static) -> Upstream {
    Upstream::http1(move |conn| {
        while let Some(request) = conn.read_request() {
            match page(request.target()) {
                Some(page) => conn.respond("200 OK", &[], &page.to_string()),
                None => conn.respond("404 Not Found", &[], "{}"),
            };
        }
    })
}

fn register(caller: &mut Caller, name: &str, app: &Upstream, debug: &Upstream) {
    let port = debug.address().port().to_string();
    let record = json!({ "id": format!("{name}-1"), "name": name, "address": app.address().to_string(),
        "metadata": { "debug": port } });
    caller.register(&record.to_string());
}

#[test]
fn cp_303_a_request_through_a_gateway_is_diagnosed_from_spans_and_logs() {
    let control = Here::start(patient());
    let mut caller = control.caller();
    let parent = Arc::new(Mutex::new(None::<String>));
    let (heard, told) = (parent.clone(), parent);
    let app = Upstream::http1(move |conn| {
        while let Some(request) = conn.read_request() {
            let context = request.header("traceparent").unwrap_or_default();
            *heard.lock().unwrap() = context.split('-').nth(2).map(str::to_owned);
            conn.respond("500 Internal Server Error", &[], "broken");
        }
    });
    let own = pages(move |path| {
        let parent = told.lock().unwrap().clone();
        let span = json!({ "trace_id": TRACE, "span_id": "00000000000000aa", "parent_id": parent, "service": "orders",
            "operation": "CreateOrder", "kind": "server", "start_us": now(), "duration_us": 1, "status": "error" });
        let line = json!({ "timestamp": "t", "level": "error", "message": "no stock", "trace_id": TRACE,
            "span_id": "00000000000000aa", "saga_id": "s-1" });
        match path {
            path if path == format!("/debug/traces/{TRACE}") => {
                Some(json!({ "spans": [span], "logs": [line] }))
            }
            "/debug/sagas/s-1" => Some(json!({ "saga_id": "s-1", "status": "completed" })),
            _ => None,
        }
    });
    register(&mut caller, "orders", &app, &own);
    let shop = "[[upstream]]\nname = \"shop-orders\"\nservice = \"orders\"\n\n\
                [[route]]\nname = \"orders\"\nmatch = { path = \"/*\" }\nupstream = \"shop-orders\"\nretry = \"off\"\n";
    let body = json!({ "documents": { "shop.toml": shop } }).to_string();
    caller.json("POST /apply", &body, 200);
    let gateway = Gateway::start(&format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n[server]\nworkers = 1\ndrain = \"2s\"\n\n\
         [control_plane]\nurls = [\"http://{}\"]\nnode = \"edge-1\"\n",
        control.address
    ));
    let traceparent = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01");
    until("the order to be refused by the service", || {
        let answer = gateway.client().request("GET /", &[&traceparent]);
        answer.status == 500
    });
    let page = format!("GET /debug/diagnose/request/{TRACE}");
    let report = wait(
        "all spans of a request",
        || caller.json(&page, "", 200),
        |report| {
            let told = &report["completeness"];
            told["total"].as_u64() >= Some(3) && told["complete"] == true
        },
    );
    assert_eq!(report["well"], false);
    assert_eq!(report["silent"], json!([]));
    assert_eq!(report["root_cause"]["service"], "orders");
    let cause = report["root_cause"]["text"].as_str().expect("words");
    assert!(cause.contains("orders failed at CreateOrder"), "{cause}");
    assert!(cause.contains("its log says: no stock"), "{cause}");
    assert_eq!(report["logs"]["with"], json!(["orders"]));
    assert_eq!(report["saga"]["outcome"], "completed");
    assert_eq!(report["spans"][0]["told_by"], "node edge-1");
    let contexts = report["contexts"].as_array().expect("a list");
    let passed = |one: &Value| one["to"] == "orders" && one["propagation"] == "correct";
    assert!(contexts.iter().any(passed), "{contexts:?}");

    let recent = caller.json("GET /debug/traces/recent?limit=500", "", 200);
    let traces = recent["traces"].as_array().expect("a list");
    assert!(
        traces.iter().any(|one| one["trace_id"] == TRACE),
        "{traces:?}"
    );
    let trace = caller.json(&format!("GET /debug/traces/{TRACE}"), "", 200);
    let ids = |told: &Value| {
        let spans = told["spans"].as_array().expect("a list").iter();
        spans
            .map(|span| span["span_id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&trace), ids(&report));

    let serving = caller.json("GET /debug/metrics/services", "", 200);
    assert_eq!(serving["services"][0]["name"], "orders");
    let breakers = &serving["services"][0]["breakers"];
    assert_eq!(breakers["state"], "closed", "{serving:#}");

    let unknown = "f".repeat(32);
    let refused = caller.json(&format!("GET /debug/diagnose/request/{unknown}"), "", 404);
    assert_eq!(refused["code"], "unknown_trace");
    let refused = caller.json("GET /debug/diagnose/request/no-id", "", 400);
    assert_eq!(refused["errors"][0]["field"], "trace_id", "{refused}");
}

/// Somebody who listens and says that it answers.
struct Listener {
    client: Client,
    rest: Vec<u8>,
}

impl Listener {
    fn open(control: &Here, node: &str) -> Listener {
        let mut client = Client::connect(control.address);
        let body = json!({ "node": node, "kind": "gateway", "instance": "i-1", "version": "1", "services": "routed",
            "answers": true })
        .to_string();
        let length = body.len();
        client.send(format!(
            "POST /feed HTTP/1.1\r\nHost: cp\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        assert_eq!(client.read_head().status, 200);
        let rest = Vec::new();
        Listener { client, rest }
    }

    /// The next question.
    fn asked(&mut self) -> Ask {
        loop {
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if let Line::Ask(ask) = Line::read(&line).expect("a line") {
                    return ask;
                }
            }
            self.rest.extend(self.client.read_chunk());
        }
    }
}

fn breakers(instance: &str, state: &str) -> String {
    let breaker =
        json!({ "upstream": "orders", "service": "orders", "part": "all", "state": state });
    json!({ "instance": instance, "breakers": [breaker] }).to_string()
}

#[test]
fn cp_301_answers_that_were_not_asked_for_or_cannot_be_right_are_refused_with_words() {
    let control = Here::start(patient());
    let mut caller = control.caller();
    let mut listeners = ["a", "b"].map(|node| Listener::open(&control, node));
    let connected = |caller: &mut Caller| caller.json("GET /nodes", "", 200)["nodes"].clone();
    until("both to listen", || {
        connected(&mut caller).as_array().map(Vec::len) == Some(2)
    });
    let asking = std::thread::spawn({
        let mut caller = control.caller();
        move || caller.json("GET /debug/metrics/services", "", 200)
    });
    let [first, second] = &mut listeners;
    let id = first.asked().id;
    assert_eq!(second.asked().id, id, "one question to all");
    let mut answer = |node: &str, id: &str, body: &str, status| {
        let told = caller.json(&format!("POST /nodes/{node}/answers/{id}"), body, status);
        told["title"].as_str().unwrap_or_default().to_owned()
    };
    let good = breakers("i-1", "open");
    assert!(answer("a", "another", &good, 404).contains("nobody waits"));
    assert!(answer("c", &id, &good, 404).contains("was not asked"));
    let stranger = breakers("i-2", "open");
    assert!(answer("a", &id, &stranger, 404).contains("was not asked"));
    let lie = breakers("i-1", "ajar");
    assert!(answer("a", &id, &lie, 400).contains("cannot be right"));
    let other = json!({ "instance": "i-1", "spans": [] }).to_string();
    assert!(answer("a", &id, &other, 400).contains("not asked for"));
    assert!(answer("a", &id, "{", 400).contains("not an answer"));
    answer("a", &id, &good, 200);
    assert!(answer("a", &id, &good, 409).contains("already"));
    answer("b", &id, &breakers("i-1", "closed"), 200);
    let told = asking.join().expect("answered");
    let of = &told["services"][0]["breakers"];
    assert_eq!(
        (&of["state"], &of["open"], &of["closed"]),
        (&json!("open"), &json!(1), &json!(1))
    );
    assert_eq!(of["not_closed"][0]["node"], "a");
    assert_eq!(
        (&told["answered"], &told["silent"]),
        (&json!(2), &json!([]))
    );
    // Everybody has answered, and nobody waits any more.
    assert!(answer("b", &id, &good, 404).contains("nobody waits"));
}

#[test]
fn cp_301_who_says_nothing_is_named_after_a_bounded_time() {
    let mut wanted = document();
    wanted.feed.answer_timeout = Duration::from_millis(200);
    let control = Here::start(wanted);
    let mut caller = control.caller();
    let _mute = Listener::open(&control, "mute");
    // It says of itself that it does not answer.
    let mut old = Client::connect(control.address);
    old.send("GET /feed?node=old HTTP/1.1\r\nHost: cp\r\n\r\n");
    assert_eq!(old.read_head().status, 200);
    let told = wait(
        "both to be named",
        || caller.json("GET /debug/traces/recent", "", 200),
        |told| told["silent"].as_array().map(Vec::len) == Some(2),
    );
    let text = told["silent"].to_string();
    assert!(
        text.contains("node mute") && text.contains("feed.answer_timeout"),
        "{text}"
    );
    assert!(
        text.contains("node old") && text.contains("answers no questions"),
        "{text}"
    );
    let refused = caller.json(&format!("GET /debug/diagnose/request/{TRACE}"), "", 404);
    let title = refused["title"].as_str().expect("words");
    assert!(title.contains("node mute did not answer"), "{title}");
    for line in [
        "GET /debug/answers",
        "GET /debug/answers?trace=x",
        "GET /debug/answers?traces=1&breakers=true",
    ] {
        caller.json(line, "", 400);
    }
}

#[test]
fn cp_304_sagas_are_read_from_whoever_offers_them_and_who_cannot_be_read_is_named() {
    let control = Here::start(patient());
    let mut caller = control.caller();
    let app = Upstream::fixed("app");
    let saga = json!({ "saga_id": "s-1", "order_id": "o-1", "status": "failed", "failed_step": "ProcessPayment",
        "error": { "reason": "PAYMENT_FAILED", "message": "refused" },
        "steps": [{ "name": "ProcessPayment", "service": "payments", "status": "failed" }] });
    let orders = pages(move |path| match path {
        "/debug/sagas/active" => Some(json!({ "sagas": [] })),
        "/debug/sagas/failed" => Some(json!({ "sagas": [saga.clone()] })),
        "/debug/sagas/s-1" | "/debug/sagas/o-1" => Some(saga.clone()),
        _ => None,
    });
    let strange = pages(|_| Some(json!("no page of ours")));
    let gone = Upstream::nobody();
    register(&mut caller, "orders", &app, &orders);
    let active = caller.json("GET /debug/sagas/active", "", 200);
    assert_eq!(
        (&active["sagas"], &active["silent"]),
        (&json!([]), &json!([]))
    );
    register(&mut caller, "strange", &app, &strange);
    let record = json!({ "id": "gone-1", "name": "gone", "address": app.address().to_string(),
        "metadata": { "debug": gone.port().to_string() } });
    caller.register(&record.to_string());
    // A port, and nothing that leads elsewhere.
    let record = json!({ "id": "away-1", "name": "away", "address": app.address().to_string(),
        "metadata": { "debug": "http://192.0.2.1:80" } });
    caller.register(&record.to_string());
    let failed = caller.json("GET /debug/sagas/failed", "", 200);
    assert_eq!(failed["sagas"][0]["saga_id"], "s-1");
    assert_eq!(failed["sagas"][0]["service"], "orders");
    let silent = failed["silent"].to_string();
    assert!(
        silent.contains("strange-1") && silent.contains("not understood"),
        "{silent}"
    );
    assert!(
        silent.contains("gone-1") && silent.contains("cannot be connected to"),
        "{silent}"
    );
    assert!(!silent.contains("away-1"), "{silent}");
    for id in ["s-1", "o-1"] {
        let report = caller.json(&format!("GET /debug/diagnose/saga/{id}"), "", 200);
        assert_eq!(
            (&report["saga_id"], &report["outcome"]),
            (&json!("s-1"), &json!("compensated"))
        );
        let cause = report["root_cause"].as_str().expect("words");
        assert!(
            cause.contains("ProcessPayment (of payments) failed: PAYMENT_FAILED"),
            "{cause}"
        );
        assert_eq!(report["told_by"], "instance orders-1");
    }
    let refused = caller.json("GET /debug/diagnose/saga/nobody", "", 404);
    assert_eq!(refused["code"], "unknown_saga");
    caller.json("GET /debug/diagnose/saga/%2e%2e", "", 400);
    caller.json("GET /debug/diagnose/saga/a%2Fb", "", 400);
}
