//! How many requests are in flight at an upstream, who waits and who is turned away: GW-606, GW-608 to GW-610. What is
//! counted is counted at the upstream; who waits is read from `/status`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tollgate_engine::testing::client::{Client, Response};
use tollgate_engine::testing::gateway::{Gateway, document, line_of};
use tollgate_engine::testing::h2_client::{self, message};
use tollgate_engine::testing::http2::Http2Upstream;
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::wait;

/// Answers everything, `/held` only after the gate has opened.
fn gated() -> (Upstream, Gate) {
    let gate = Gate::new();
    let theirs = gate.clone();
    let upstream = Upstream::http1(move |conn| {
        while let Some(request) = conn.read_request() {
            if request.target().starts_with("/held") {
                theirs.wait();
            }
            if !conn.respond("200 OK", &[], request.target()) {
                return;
            }
        }
    });
    (upstream, gate)
}

/// A GET on a connection and thread of its own.
fn aside(gateway: &Gateway, target: &str, lines: &'static [&'static str]) -> JoinHandle<Response> {
    let (address, target) = (gateway.address(), format!("GET {target}"));
    thread::spawn(move || Client::connect(address).request(&target, lines))
}

fn bulkhead(gateway: &Gateway, upstream: &str) -> serde_json::Value {
    let status = gateway.get_status();
    let upstreams = status["upstreams"].as_array().cloned().unwrap_or_default();
    let found = upstreams.into_iter().find(|one| one["name"] == upstream);
    found.map_or(serde_json::Value::Null, |one| one["bulkhead"].clone())
}

/// Asks `/status` until the bulkhead is as wanted.
fn until(gateway: &Gateway, upstream: &str, wanted: impl Fn(&serde_json::Value) -> bool) {
    wait(
        &format!("the bulkhead of {upstream}"),
        || bulkhead(gateway, upstream),
        wanted,
    );
}

fn waiting(priority: &'static str, count: u64) -> impl Fn(&serde_json::Value) -> bool {
    move |bulkhead| bulkhead["waiting"][priority] == count
}

#[track_caller]
fn assert_blames(response: &Response, setting: &str, toml: &str, key: &str) {
    let problem = response.problem();
    assert_eq!(problem["setting"], setting, "{problem}");
    assert_eq!(
        problem["at"],
        format!("gateway.toml:{}", line_of(toml, key)),
        "{problem}"
    );
}

#[test]
fn gw_608_however_many_clients_and_workers_never_more_than_max_in_flight_reach_the_upstream() {
    let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let counts = Arc::new((inside, most));
    let theirs = counts.clone();
    let upstream = Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            let (inside, most) = &*theirs;
            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            thread::yield_now();
            inside.fetch_sub(1, Ordering::SeqCst);
            conn.respond("200 OK", &[], "x");
        }
    });
    let keys = "max_in_flight = 3\nqueue = { length = 100, timeout = \"60s\" }";
    let toml =
        document(upstream.address(), "", "", keys) + "\n[server]\nworkers = 2\ndrain = \"2s\"\n";
    let gateway = Gateway::start(&toml);
    let address = gateway.address();
    let clients: Vec<_> = (0..16)
        .map(|_| {
            thread::spawn(move || {
                let mut client = Client::connect(address);
                (0..25).all(|_| client.get("/").status == 200)
            })
        })
        .collect();
    for client in clients {
        assert!(client.join().unwrap(), "everybody's turn came");
    }
    assert!(counts.1.load(Ordering::SeqCst) <= 3, "{counts:?}");
    until(&gateway, "app", |found| found["in_flight"] == 0);
    assert_eq!(bulkhead(&gateway, "app")["limit"], 3);
}

#[test]
fn gw_609_one_stalled_upstream_of_three_harms_nobody_else() {
    let (stalled, gate) = gated();
    let (fine, _) = gated();
    let (other, _) = gated();
    let mut toml = String::from("[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n");
    for (name, address) in [
        ("held", stalled.address()),
        ("fine", fine.address()),
        ("other", other.address()),
    ] {
        toml += &format!(
            "\n[[route]]\nmatch = {{ path = \"/{name}\" }}\nupstream = \"{name}\"\ntimeout = \"off\"\n\
             [[upstream]]\nname = \"{name}\"\nendpoints = [\"{address}\"]\nmax_in_flight = 4\n\
             queue = {{ length = 2, timeout = \"60s\" }}\n"
        );
    }
    let gateway = Gateway::start(&toml);
    let held: Vec<_> = (0..20).map(|_| aside(&gateway, "/held", &[])).collect();
    until(&gateway, "held", |found| {
        found["in_flight"] == 4 && found["refused"]["default"] == 14
    });
    let mut client = gateway.client();
    for _ in 0..50 {
        assert_eq!(client.get("/fine").status, 200);
        assert_eq!(client.get("/other").status, 200);
    }
    assert_eq!(
        bulkhead(&gateway, "fine")["refused"]["default"],
        0,
        "each has permits of its own"
    );
    assert_eq!(stalled.requests().len(), 4);
    gate.open();
    let mut statuses = HashMap::new();
    for answer in held {
        *statuses.entry(answer.join().unwrap().status).or_insert(0) += 1;
    }
    assert_eq!(statuses, HashMap::from([(200, 6), (503, 14)]));
    assert_eq!(stalled.requests().len(), 6);
}

#[test]
fn gw_609_who_finds_it_full_is_told_the_limit_its_line_and_when_to_come_back() {
    let (upstream, gate) = gated();
    let keys = "max_in_flight = 1\nqueue = \"off\"";
    let toml = document(upstream.address(), "", "", keys);
    let gateway = Gateway::start(&toml);
    let held = aside(&gateway, "/held", &[]);
    until(&gateway, "app", |found| found["in_flight"] == 1);
    let response = gateway.get("/");
    assert_eq!((response.status, &*response.code()), (503, "overloaded"));
    assert_eq!(response.problem()["value"], "1");
    assert_blames(&response, "upstream.max_in_flight", &toml, "max_in_flight");
    assert_eq!(response.header("retry-after"), Some("1"));
    gate.open();
    assert_eq!(held.join().unwrap().status, 200);
    assert_eq!(upstream.requests().len(), 1);
    let metrics = gateway.metrics();
    for line in [
        r#"upstream_refusals_total{upstream="app",priority="default",reason="full"} 1"#,
        r#"upstream_in_flight_limit{upstream="app"} 1"#,
        r#"upstream_health{upstream="app",state="healthy"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

/// One upstream, one permit, a route for each priority.
fn by_priority(upstream: &Upstream, queue: &str) -> String {
    let mut toml = String::from("[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n");
    for priority in ["critical", "default", "sheddable"] {
        toml += &format!(
            "\n[[route]]\nmatch = {{ path = \"/held/{priority}\" }}\nupstream = \"app\"\ntimeout = \"off\"\npriority = \"{priority}\"\n"
        );
    }
    toml + &format!(
        "\n[[upstream]]\nname = \"app\"\nendpoints = [\"{}\"]\nmax_in_flight = 1\nqueue = {queue}\n",
        upstream.address()
    )
}

#[test]
fn gw_610_the_important_are_served_first() {
    let (upstream, gate) = gated();
    let toml = by_priority(&upstream, "{ length = 10, timeout = \"60s\" }");
    let gateway = Gateway::start(&toml);
    let mut answers = vec![aside(&gateway, "/held/default?first", &[])];
    until(&gateway, "app", |found| found["in_flight"] == 1);
    for priority in ["sheddable", "default", "critical"] {
        answers.push(aside(&gateway, &format!("/held/{priority}"), &[]));
        until(&gateway, "app", waiting(priority, 1));
    }
    gate.open();
    for answer in answers {
        assert_eq!(answer.join().unwrap().status, 200);
    }
    let order: Vec<_> = upstream
        .requests()
        .iter()
        .map(|request| request.target().to_owned())
        .collect();
    assert_eq!(
        order,
        [
            "/held/default?first",
            "/held/critical",
            "/held/default",
            "/held/sheddable"
        ]
    );
}

#[test]
fn gw_610_a_full_queue_sheds_the_least_important_for_a_more_important_one() {
    let (upstream, gate) = gated();
    let toml = by_priority(&upstream, "{ length = 1, timeout = \"60s\" }");
    let gateway = Gateway::start(&toml);
    let first = aside(&gateway, "/held/default", &[]);
    until(&gateway, "app", |found| found["in_flight"] == 1);
    let sheddable = aside(&gateway, "/held/sheddable", &[]);
    until(&gateway, "app", waiting("sheddable", 1));
    let critical = aside(&gateway, "/held/critical", &[]);
    let shed = sheddable.join().unwrap();
    assert_eq!((shed.status, &*shed.code()), (503, "shed"));
    assert_blames(&shed, "route.priority", &toml, "priority = \"sheddable\"");
    assert_eq!(shed.header("retry-after"), Some("1"));
    let refused = gateway.get("/held/default");
    assert_eq!(
        (refused.status, &*refused.code()),
        (503, "overloaded"),
        "nobody less important waits"
    );
    gate.open();
    assert_eq!(first.join().unwrap().status, 200);
    assert_eq!(critical.join().unwrap().status, 200);
    assert_eq!(upstream.requests().len(), 2);
    assert_eq!(bulkhead(&gateway, "app")["shed"]["sheddable"], 1);
}

#[test]
fn gw_609_waiting_ends_with_the_queues_time_out() {
    let (upstream, gate) = gated();
    let keys = "max_in_flight = 1\nqueue = { timeout = \"60ms\" }";
    let toml = document(upstream.address(), "", "", keys);
    let gateway = Gateway::start(&toml);
    let held = aside(&gateway, "/held", &[]);
    until(&gateway, "app", |found| found["in_flight"] == 1);
    let response = gateway.get("/");
    assert_eq!((response.status, &*response.code()), (503, "overloaded"));
    assert_eq!(response.problem()["value"], "60ms");
    assert_blames(&response, "upstream.queue.timeout", &toml, "queue =");
    let found = bulkhead(&gateway, "app");
    assert_eq!(
        (&found["expired"]["default"], &found["waiting"]["default"]),
        (&1.into(), &0.into())
    );
    gate.open();
    assert_eq!(held.join().unwrap().status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn gw_606_a_deadline_that_passes_in_the_queue_costs_the_upstream_nothing() {
    let (upstream, gate) = gated();
    let keys = "max_in_flight = 1\nqueue = { timeout = \"60s\" }";
    let toml = document(upstream.address(), "", "", keys);
    let gateway = Gateway::start(&toml);
    let held = aside(&gateway, "/held", &[]);
    until(&gateway, "app", |found| found["in_flight"] == 1);
    let response = gateway
        .client()
        .request("GET /late", &["x-request-deadline-ms: 60"]);
    assert_eq!(
        (response.status, &*response.code()),
        (504, "deadline_exceeded")
    );
    gate.open();
    assert_eq!(held.join().unwrap().status, 200);
    assert_eq!(upstream.requests().len(), 1);
    let line = r#"timeouts_total{upstream="app",kind="deadline"} 1"#;
    assert!(gateway.metrics().contains(line));
}

#[test]
fn gw_606_a_routes_time_out_that_passes_in_the_queue_is_told_as_such() {
    let (upstream, gate) = gated();
    let keys = "max_in_flight = 1\nqueue = { timeout = \"60s\" }";
    let toml = document(upstream.address(), "", "", keys)
        .replace("[[upstream]]", "[[route]]\nmatch = { path = \"/late\" }\nupstream = \"app\"\ntimeout = \"60ms\"\n\n[[upstream]]");
    let gateway = Gateway::start(&toml);
    let held = aside(&gateway, "/held", &[]);
    until(&gateway, "app", |found| found["in_flight"] == 1);
    let response = gateway.get("/late");
    assert_eq!((response.status, &*response.code()), (504, "route_timeout"));
    assert_blames(&response, "route.timeout", &toml, "timeout = \"60ms\"");
    gate.open();
    assert_eq!(held.join().unwrap().status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn gw_606_the_time_in_the_queue_is_missing_from_the_deadline_that_travels_on() {
    const WHOLE: Duration = Duration::from_secs(30);
    let (upstream, gate) = gated();
    let keys = "max_in_flight = 1\nqueue = { timeout = \"60s\" }";
    let gateway = Gateway::start(&document(upstream.address(), "", "", keys));
    let held = aside(&gateway, "/held", &[]);
    until(&gateway, "app", |found| found["in_flight"] == 1);
    let late = aside(&gateway, "/late", &["x-request-deadline-ms: 30000"]);
    until(&gateway, "app", waiting("default", 1));
    let seen = Instant::now();
    // It waits at least as long as this.
    while seen.elapsed() < Duration::from_millis(120) {
        thread::yield_now();
    }
    let waited = seen.elapsed();
    gate.open();
    assert_eq!(held.join().unwrap().status, 200);
    assert_eq!(late.join().unwrap().status, 200);
    let requests = upstream.requests();
    let told = requests[1].header("x-request-deadline-ms").unwrap();
    let told = Duration::from_millis(told.parse().unwrap());
    assert!(told <= WHOLE - waited, "{told:?} after {waited:?}");
}

#[test]
fn gw_606_pauses_between_tries_are_missing_from_the_deadline_that_travels_on() {
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let theirs = arrivals.clone();
    let upstream = Upstream::http1(move |conn| {
        if conn.read_request().is_some() {
            theirs.lock().unwrap().push(Instant::now());
            conn.reset();
        }
    });
    let route = "[route.retry]\nattempts = 6\nbackoff = { base = \"200ms\", max = \"200ms\" }";
    let gateway = Gateway::start(&document(
        upstream.address(),
        "",
        route,
        "outlier = \"off\"",
    ));
    let response = gateway
        .client()
        .request("GET /", &["x-request-deadline-ms: 30000"]);
    assert_eq!(response.status, 502);
    let told: Vec<u64> = upstream
        .requests()
        .iter()
        .filter_map(|request| request.header("x-request-deadline-ms")?.parse().ok())
        .collect();
    let arrivals = arrivals.lock().unwrap();
    // From an arrival that is after the first was sent to one that is before the last was: whatever else took time, the
    // pauses between these are missing; give or take what is lost in writing whole milliseconds.
    let passed = arrivals[5].duration_since(arrivals[0]).as_millis() as u64;
    assert!(told[0] - told[6] + 2 >= passed, "{told:?} over {passed} ms");
}

#[test]
fn a_client_that_leaves_while_it_waits_leaves_the_queue_and_takes_no_permit() {
    let (upstream, gate) = gated();
    let keys = "max_in_flight = 1\nqueue = { timeout = \"60s\" }";
    let gateway = Gateway::start(&document(upstream.address(), "", "timeout = \"off\"", keys));
    let held = aside(&gateway, "/held", &[]);
    until(&gateway, "app", |found| found["in_flight"] == 1);
    for leave in [
        (|client| drop::<Client>(client)) as fn(Client),
        Client::reset,
    ] {
        let mut client = gateway.client();
        client.send("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n");
        until(&gateway, "app", waiting("default", 1));
        leave(client);
        until(&gateway, "app", waiting("default", 0));
    }
    gate.open();
    assert_eq!(held.join().unwrap().status, 200);
    until(&gateway, "app", |found| found["in_flight"] == 0);
    assert_eq!(gateway.get("/next").status, 200);
    let gone = |request: &tollgate_engine::testing::journal::Request| request.target() == "/gone";
    assert!(!upstream.requests().iter().any(gone));
}

#[test]
fn a_client_that_leaves_in_the_middle_of_an_answer_gives_its_permit_back() {
    let upstream = Upstream::http1(|conn| {
        while let Some(request) = conn.read_request() {
            if request.target() == "/endless" {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin");
                conn.wait_closed();
                return;
            }
            conn.respond("200 OK", &[], "ok");
        }
    });
    let keys = "max_in_flight = 1\nqueue = { timeout = \"60s\" }";
    let gateway = Gateway::start(&document(upstream.address(), "", "", keys));
    let mut client = gateway.client();
    client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_head().status, 200);
    let next = aside(&gateway, "/next", &[]);
    until(&gateway, "app", waiting("default", 1));
    assert_eq!(
        bulkhead(&gateway, "app")["in_flight"],
        1,
        "until the last byte"
    );
    drop(client);
    assert_eq!(next.join().unwrap().status, 200);
    until(&gateway, "app", |found| found["in_flight"] == 0);
}

#[test]
fn a_web_socket_is_in_flight_until_it_ends() {
    let upstream = Upstream::http1(|conn| {
        let Some(request) = conn.read_request() else {
            return;
        };
        if request.target() == "/chat" {
            conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            conn.wait_closed();
        } else {
            conn.respond("200 OK", &[], "ok");
        }
    });
    let keys = "max_in_flight = 1\nqueue = { timeout = \"60s\" }";
    let gateway = Gateway::start(&document(upstream.address(), "", "", keys));
    let mut client = gateway.client();
    client.send(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert_eq!(client.read_response().status, 101);
    let next = aside(&gateway, "/next", &[]);
    until(&gateway, "app", waiting("default", 1));
    assert_eq!(bulkhead(&gateway, "app")["in_flight"], 1);
    drop(client);
    assert_eq!(next.join().unwrap().status, 200);
    until(&gateway, "app", |found| found["in_flight"] == 0);
}

#[test]
fn a_failed_request_gives_its_permit_back() {
    let gateway = Gateway::start(&document(
        Upstream::nobody(),
        "",
        "retry = \"off\"",
        "max_in_flight = 1\nqueue = \"off\"",
    ));
    for _ in 0..5 {
        assert_eq!(gateway.get("/").code(), "connect_failed");
    }
}

#[test]
fn a_changed_limit_holds_after_a_reload_and_what_is_in_flight_is_not_forgotten() {
    let (upstream, gate) = gated();
    let toml = |limit: u32| {
        let keys = format!("max_in_flight = {limit}\nqueue = {{ timeout = \"60s\" }}");
        document(upstream.address(), "", "timeout = \"off\"", &keys)
    };
    let gateway = Gateway::start(&toml(1));
    let mut held = vec![aside(&gateway, "/held", &[])];
    until(&gateway, "app", |found| found["in_flight"] == 1);
    held.push(aside(&gateway, "/held", &[]));
    until(&gateway, "app", waiting("default", 1));
    gateway.edit(&toml(3)).unwrap();
    held.push(aside(&gateway, "/held", &[]));
    until(&gateway, "app", |found| {
        found["in_flight"] == 3 && found["limit"] == 3
    });
    held.push(aside(&gateway, "/held", &[]));
    until(&gateway, "app", waiting("default", 1));
    assert_eq!(
        upstream
            .wait("three", |seen| seen.requests.len() == 3)
            .requests
            .len(),
        3
    );
    gate.open();
    for answer in held {
        assert_eq!(answer.join().unwrap().status, 200);
    }
}

#[test]
fn nobody_waits_for_an_upstream_that_its_breaker_leaves_alone() {
    let gate = Gate::new();
    let theirs = gate.clone();
    let upstream = Upstream::http1(move |conn| {
        while let Some(request) = conn.read_request() {
            if request.target() == "/held" {
                theirs.wait();
                conn.respond("200 OK", &[], "");
            } else {
                conn.respond("503 Service Unavailable", &[], "");
            }
        }
    });
    let toml = |limit: u32| {
        let keys = format!(
            "max_in_flight = {limit}\nqueue = {{ timeout = \"60s\" }}\nbreaker = {{ failures = 1, volume = 1 }}"
        );
        document(
            upstream.address(),
            "",
            "timeout = \"off\"\nretry = \"off\"",
            &keys,
        )
    };
    let gateway = Gateway::start(&toml(2));
    let held = aside(&gateway, "/held", &[]);
    upstream.wait("the first", |seen| seen.requests.len() == 1);
    assert_eq!(gateway.get("/fails").status, 503);
    until(&gateway, "app", |found| found["in_flight"] == 1);
    gateway.edit(&toml(1)).unwrap();
    let refused = gateway.get("/next");
    assert_eq!((refused.status, &*refused.code()), (503, "circuit_open"));
    let found = bulkhead(&gateway, "app");
    assert_eq!(
        (&found["waiting"]["default"], &found["expired"]["default"]),
        (&0.into(), &0.into())
    );
    gate.open();
    assert_eq!(held.join().unwrap().status, 200);
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn an_adaptive_limit_begins_somewhere_and_is_shown() {
    let (upstream, _gate) = gated();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "",
        "",
        "max_in_flight = \"adaptive\"",
    ));
    let mut client = gateway.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").status, 200);
    }
    let limit = bulkhead(&gateway, "app")["limit"].as_u64().unwrap();
    assert!((5..=1000).contains(&limit), "{limit}");
}

#[test]
fn hi_51_grpc_callers_are_told_unavailable_and_when_to_come_back() {
    let upstream = Http2Upstream::echo();
    let keys = "protocol = \"http2\"\nmax_in_flight = 1\nqueue = \"off\"";
    let gateway = Gateway::start(&document(upstream.address(), "", "", keys));
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        let call = |path: &'static str| {
            let (sender, request) = (&sender, h2_client::request("POST", path, &grpc));
            async move { h2_client::exchange(sender, request, &[&message(b"x")], None).await }
        };
        let held = call("/echo.Echo/Gated");
        let refused = async {
            h2_client::poll_until(|| upstream.journal().requests.len() == 1).await;
            let refused = call("/echo.Echo/Unary").await.unwrap();
            upstream.open_gate();
            refused
        };
        let (held, refused) = tokio::join!(held, refused);
        assert_eq!(held.unwrap().status, 200);
        assert_eq!(refused.grpc_status(), Some("14"));
        assert_eq!(refused.header("grpc-retry-pushback-ms"), Some("1000"));
        let told = refused.header("grpc-message").unwrap();
        assert!(told.contains("upstream.max_in_flight = 1"), "{told}");
    });
}

#[test]
fn hi_51_a_grpc_call_that_waits_is_told_less_time_and_one_that_is_cancelled_leaves_the_queue() {
    const WHOLE: Duration = Duration::from_secs(30);
    let upstream = Http2Upstream::echo();
    let keys = "protocol = \"http2\"\nmax_in_flight = 1\nqueue = { timeout = \"60s\" }";
    let gateway = Gateway::start(&document(upstream.address(), "", "", keys));
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let grpc = [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", "30S"),
        ];
        let call = |path: &'static str| {
            let (sender, request) = (&sender, h2_client::request("POST", path, &grpc));
            async move { h2_client::exchange(sender, request, &[&message(b"x")], None).await }
        };
        let waiting = |count: u64| {
            let gateway = &gateway;
            h2_client::poll_until(move || bulkhead(gateway, "app")["waiting"]["default"] == count)
        };
        let held = call("/echo.Echo/Gated");
        let others = async {
            h2_client::poll_until(|| upstream.journal().requests.len() == 1).await;
            {
                let cancelled = call("/echo.Echo/Cancelled");
                tokio::select! {
                    _ = cancelled => panic!("nobody else may be in flight"),
                    () = waiting(1) => {}
                }
            }
            waiting(0).await;
            let late = call("/echo.Echo/Unary");
            let opened = async {
                waiting(1).await;
                let seen = Instant::now();
                // It waits at least as long as this.
                h2_client::poll_until(|| seen.elapsed() >= Duration::from_millis(120)).await;
                upstream.open_gate();
                seen.elapsed()
            };
            let (late, waited) = tokio::join!(late, opened);
            assert_eq!(late.unwrap().grpc_status(), Some("0"));
            waited
        };
        let (held, waited) = tokio::join!(held, others);
        assert_eq!(held.unwrap().grpc_status(), Some("0"));
        let requests = upstream.journal().requests;
        let paths: Vec<_> = requests.iter().map(|seen| &*seen.path).collect();
        assert_eq!(paths, ["/echo.Echo/Gated", "/echo.Echo/Unary"]);
        let told = requests[1].header("grpc-timeout").unwrap();
        let told = told.strip_suffix('m').expect("in milliseconds");
        let told = Duration::from_millis(told.parse().unwrap());
        assert!(told <= WHOLE - waited, "{told:?} after {waited:?}");
    });
}
