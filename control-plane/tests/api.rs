//! The registry over HTTP: what REG-1xx and REG-2xx promise, and what becomes of callers who send nonsense.

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::{Value, json};
use support::{Here, document, until};
use tollgate_engine::testing::h2_raw::{H2Raw, Outcome};
use tollgate_engine::testing::upstream::Upstream;

const ORDER: &str = r#"{"id": "o1", "name": "orders", "address": "127.0.0.1:7000"}"#;

#[test]
fn an_instance_registers_beats_is_found_and_leaves() {
    let plane = Here::start(document());
    let mut caller = plane.caller();
    let answer = caller.json("POST /register", ORDER, 201);
    let expected =
        json!({"status": "registered", "id": "o1", "lease_seconds": 45, "heartbeat_seconds": 15});
    assert_eq!(answer, expected);
    for alias in ["/services/orders", "/orders"] {
        let found = caller.json(&format!("GET {alias}"), "", 200);
        let item = &found[0];
        assert_eq!(found.as_array().map(Vec::len), Some(1));
        for (field, value) in [
            ("id", json!("o1")),
            ("name", json!("orders")),
            ("address", json!("127.0.0.1:7000")),
            ("health", json!("healthy")),
            ("health_endpoint", json!("/health/ready")),
            ("state", json!("active")),
            ("metadata", json!({})),
        ] {
            assert_eq!(item[field], value, "{field}");
        }
        let seen = item["last_seen"].as_str().expect("a time");
        assert!(seen.len() == 24 && seen.ends_with('Z'), "{seen}");
    }
    for alias in ["/services", "/registry/services"] {
        let all = caller.json(&format!("GET {alias}"), "", 200);
        assert_eq!(all["orders"][0]["id"], "o1");
    }
    caller.json("PUT /heartbeat/o1", "", 200);
    let body = r#"{"id": "o1", "name": "orders", "health": "degraded", "metadata": {"load": 3}}"#;
    caller.json("POST /heartbeat", body, 200);
    let found = caller.json("GET /orders", "", 200);
    assert_eq!(found[0]["health"], "degraded");
    assert_eq!(found[0]["metadata"]["load"], "3");
    let gone = caller.json("DELETE /services/o1", "", 200);
    assert_eq!(gone["status"], "deregistered");
    let gone = caller.json(
        "DELETE /deregister",
        r#"{"id": "o1", "name": "orders"}"#,
        200,
    );
    assert_eq!(gone["status"], "gone already");
    assert_eq!(caller.json("GET /orders", "", 200), json!([]));
    let problem = caller.json("PUT /heartbeat/o1", "", 404);
    assert_eq!(problem["code"], "unknown_instance");
}

#[test]
fn an_id_is_made_when_none_is_sent_and_the_same_address_keeps_it() {
    let plane = Here::start(document());
    let mut caller = plane.caller();
    let body = r#"{"name": "orders", "address": "127.0.0.1:7000"}"#;
    let id = caller.register(body);
    assert!(id.starts_with("orders-127.0.0.1-7000-"), "{id}");
    assert_eq!(
        caller.register(body),
        id,
        "a repeated request is no second instance"
    );
    let other = caller.register(r#"{"name": "orders", "address": "127.0.0.1:7001"}"#);
    assert_ne!(other, id);
    assert_eq!(caller.ids("/orders").len(), 2);
}

#[test]
fn old_spellings_are_understood() {
    let plane = Here::start(document());
    let mut caller = plane.caller();
    caller.register(
        r#"{"id": "a", "name": "orders", "address": "127.0.0.1:1", "health": "/alive", "lastSeen": "2026-01-01T00:00:00Z",
            "metadata": {"weight": 3, "canary": true}, "something": ["new"]}"#,
    );
    let found = caller.json("GET /orders", "", 200);
    assert_eq!(found[0]["health"], "healthy", "REG-103");
    assert_eq!(found[0]["health_endpoint"], "/alive");
    assert_eq!(
        found[0]["metadata"],
        json!({"weight": "3", "canary": "true"})
    );
    assert!(
        !found[0]["last_seen"]
            .as_str()
            .expect("a time")
            .starts_with("2026-01-01")
    );
}

#[test]
fn a_bad_registration_is_refused_with_the_name_of_every_field() {
    let plane = Here::start(document());
    let mut caller = plane.caller();
    let long = "x".repeat(2000);
    let many: serde_json::Map<String, Value> =
        (0..100).map(|n| (format!("m{n}"), json!("v"))).collect();
    for (body, fields) in [
        (json!({"address": "10.0.0.1:1"}).to_string(), vec!["name"]),
        (json!({"name": "orders"}).to_string(), vec!["address"]),
        ("{}".to_owned(), vec!["name", "address"]),
        (
            json!({"name": "Orders", "address": "10.0.0.1"}).to_string(),
            vec!["name", "address"],
        ),
        (
            json!({"name": 7, "address": ["x"]}).to_string(),
            vec!["name", "address"],
        ),
        (
            json!({"name": null, "address": "http://10.0.0.1:1"}).to_string(),
            vec!["name", "address"],
        ),
        (
            json!({"name": "o", "address": "0.0.0.0:80"}).to_string(),
            vec!["address"],
        ),
        (
            json!({"name": "o", "address": "10.0.0.1:0"}).to_string(),
            vec!["address"],
        ),
        (
            json!({"name": "o", "address": "10.0.0.1:99999"}).to_string(),
            vec!["address"],
        ),
        (
            json!({"name": "o", "address": "a:1", "health": "fine"}).to_string(),
            vec!["health"],
        ),
        (
            json!({"name": "o", "address": "a:1", "health_endpoint": "ready"}).to_string(),
            vec!["health_endpoint"],
        ),
        (
            json!({"name": "o", "address": "a:1", "health_endpoint": "/a b\r\nX: y"}).to_string(),
            vec!["health_endpoint"],
        ),
        (
            json!({"name": "o", "address": "a:1", "id": "a/b"}).to_string(),
            vec!["id"],
        ),
        (
            json!({"name": long, "address": "a:1"}).to_string(),
            vec!["name"],
        ),
        (
            json!({"name": "o", "address": "a:1", "metadata": []}).to_string(),
            vec!["metadata"],
        ),
        (
            json!({"name": "o", "address": "a:1", "metadata": {"v": {}}}).to_string(),
            vec!["metadata.v"],
        ),
        (
            json!({"name": "o", "address": "a:1", "metadata": {"v": long}}).to_string(),
            vec!["metadata.v"],
        ),
        (
            json!({"name": "o", "address": "a:1", "metadata": many}).to_string(),
            vec!["metadata"],
        ),
        (
            r#"{"name": "o", "name": "p", "address": "a:1"}"#.to_owned(),
            vec!["name"],
        ),
        (
            r#"{"name": "o", "address": "a:1", "metadata": {"v": "1", "v": "2"}}"#.to_owned(),
            vec!["metadata.v"],
        ),
    ] {
        let problem = caller.json("POST /register", &body, 400);
        let wrong = problem["errors"]
            .as_array()
            .unwrap_or_else(|| panic!("{body}: {problem}"));
        let found: Vec<_> = wrong
            .iter()
            .map(|e| e["field"].as_str().expect("a name"))
            .collect();
        assert_eq!(found, fields, "{body}: {problem}");
        assert!(
            wrong
                .iter()
                .all(|error| !error["hint"].as_str().expect("a hint").is_empty())
        );
    }
    assert_eq!(
        caller.json("GET /services", "", 200),
        json!({}),
        "nothing of it was registered"
    );
}

#[test]
fn what_is_no_json_or_too_much_of_it_is_refused_and_the_registry_goes_on() {
    let mut settings = document();
    settings.server.max_body = 4096;
    let plane = Here::start(settings);
    let mut caller = plane.caller();
    let deep = "[".repeat(4000);
    for body in [
        "",
        "{",
        "[]",
        "7",
        "\u{0}",
        r#"{"name": "o",}"#,
        deep.as_str(),
    ] {
        let problem = caller.json("POST /register", body, 400);
        assert_eq!(problem["code"], "bad_request", "{body}");
    }
    let large = format!(r#"{{"name": "{}"}}"#, "x".repeat(5000));
    let problem = caller.json("POST /register", &large, 413);
    assert_eq!(problem["code"], "too_large");
    // Answered before the body was read, so that connection may be closed.
    let mut caller = plane.caller();
    caller.register(ORDER);
}

#[test]
fn an_id_cannot_be_taken_over_by_another_service() {
    let plane = Here::start(document());
    let mut caller = plane.caller();
    caller.register(ORDER);
    let other = r#"{"id": "o1", "name": "users", "address": "127.0.0.1:7000"}"#;
    let problem = caller.json("POST /register", other, 409);
    assert_eq!(
        (&problem["code"], &problem["errors"][0]["field"]),
        (&json!("other_service"), &json!("id"))
    );
    caller.json("POST /heartbeat", r#"{"id": "o1", "name": "users"}"#, 409);
    caller.json(
        "DELETE /deregister",
        r#"{"id": "o1", "name": "users"}"#,
        409,
    );
    assert_eq!(caller.ids("/orders"), ["o1"]);
}

#[test]
fn an_address_on_loopback_is_taken_only_where_the_registry_is_there_too() {
    let mut settings = document();
    settings.server.bind = ([0, 0, 0, 0], 0).into();
    let mut plane = Here::start(settings);
    plane.address.set_ip([127, 0, 0, 1].into());
    let mut caller = plane.caller();
    for address in [
        "127.0.0.1:1",
        "127.7.7.7:1",
        "localhost:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
    ] {
        let body = json!({"name": "orders", "address": address}).to_string();
        let problem = caller.json("POST /register", &body, 400);
        assert_eq!(problem["errors"][0]["field"], "address", "{address}");
    }
    caller.register(r#"{"name": "orders", "address": "10.0.0.1:1"}"#);
}

#[test]
fn lookups_filter_by_metadata_and_leave_out_who_is_not_ready() {
    let plane = Here::start(document());
    let mut caller = plane.caller();
    for (id, health, version, region) in [
        ("a", "healthy", "1.2.3", "us-west"),
        ("b", "degraded", "1.2.3", "us-west"),
        ("c", "healthy", "1.2.4", "us-west"),
        ("d", "unknown", "1.2.3", "us-west"),
        ("e", "unhealthy", "1.2.3", "eu"),
    ] {
        let metadata = json!({"version": version, "region": region});
        let body = json!({"id": id, "name": "orders", "address": format!("127.0.0.1:{}", 1000 + id.as_bytes()[0] as u16),
                          "health": health, "metadata": metadata});
        caller.register(&body.to_string());
    }
    assert_eq!(caller.ids("/services/orders"), ["a", "c", "b"], "REG-202");
    assert_eq!(
        caller.ids("/orders?version=1.2.3&region=us-west"),
        ["a", "b"],
        "REG-203"
    );
    assert_eq!(caller.ids("/orders?version=9"), Vec::<String>::new());
    assert_eq!(caller.ids("/orders?all=true"), ["a", "b", "c", "d", "e"]);
    assert_eq!(caller.ids("/orders?all=true&region=eu"), ["e"]);
    let states = caller.json("GET /orders?all=true", "", 200);
    assert_eq!(states[3]["state"], "starting");
    caller.json("GET /orders?all=perhaps", "", 400);
}

#[test]
fn what_is_not_there_and_what_is_not_allowed_are_told_apart() {
    let plane = Here::start(document());
    let mut caller = plane.caller();
    assert_eq!(
        caller.json("GET /no/such/page", "", 404)["code"],
        "not_found"
    );
    for line in [
        "GET /register",
        "POST /services",
        "GET /heartbeat/x",
        "DELETE /health",
        "PUT /orders",
    ] {
        let response = caller.ask(line, "");
        assert_eq!(response.status, 405, "{line}");
        assert!(
            response
                .header("allow")
                .is_some_and(|allow| !allow.is_empty()),
            "{line}"
        );
        assert_eq!(
            response.header("content-type"),
            Some("application/problem+json")
        );
    }
    for target in ["/services/%ff", "/%ff", "/debug/registry/audit?limit=x"] {
        let response = caller.ask(&format!("GET {target}"), "");
        assert_eq!(response.status, 400, "{target}");
        let kind = response.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{target}");
    }
    assert_eq!(caller.json("GET /never-registered", "", 200), json!([]));
}

#[test]
fn operators_see_states_causes_audit_and_figures() {
    let plane = Here::start(document());
    let mut caller = plane.caller();
    caller.register(ORDER);
    caller.json(
        "POST /heartbeat",
        r#"{"id": "o1", "health": "unhealthy"}"#,
        200,
    );
    caller.json("PUT /heartbeat/nobody", "", 404);
    let services = caller.json("GET /debug/registry/services", "", 200);
    assert_eq!(services["services"][0]["name"], "orders");
    assert_eq!(services["services"][0]["instances"][0]["state"], "active");
    let health = caller.json("GET /debug/registry/health", "", 200);
    let one = &health["services"][0]["instances"][0];
    assert_eq!(
        (&one["in_lookups"], &one["held"], &one["health"]),
        (&json!(false), &json!(false), &json!("unhealthy"))
    );
    caller.json("DELETE /services/o1", "", 200);
    let audit = caller.json("GET /debug/registry/audit?service=orders&limit=9", "", 200);
    let what: Vec<_> = audit["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| e["what"].clone())
        .collect();
    assert_eq!(what, ["deregistered", "registered"], "REG-505");
    assert_eq!(audit["events"][0]["by"], "127.0.0.1");
    let metrics = caller.0.get("/metrics");
    let text = metrics.text();
    for line in [
        "registry_registrations_total{result=\"registered\"} 1",
        "registry_heartbeats_total{result=\"kept\"} 1",
        "registry_heartbeats_total{result=\"unknown\"} 1",
        "registry_deregistrations_total 1",
        "registry_instances{state=\"active\"} 0",
        "http_requests_total{route=\"/heartbeat/{id}\",method=\"PUT\",status=\"404\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    for page in ["/health", "/health/ready", "/health/live"] {
        assert_eq!(
            caller.json(&format!("GET {page}"), "", 200)["status"],
            "healthy"
        );
    }
}

#[test]
fn every_series_stands_in_the_documentation() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/control-plane.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let plane = Here::start(document());
    let metrics = plane.caller().0.get("/metrics");
    let mut families = 0;
    for line in metrics
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
    {
        let name = line.split(' ').next().expect("a name");
        if !name.starts_with("process_") {
            families += 1;
            assert!(page.contains(&format!("`{name}")), "{name}");
        }
    }
    assert!(families > 15);
}

/// A service that answers probes with a status, as often as it is asked.
fn service(status: &'static str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 1024];
            let read = stream.read(&mut head).unwrap_or(0);
            let answer = match head[..read].starts_with(b"GET /ready HTTP/1.1\r\n") {
                true => status,
                false => "404 Not Found",
            };
            let _gone = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
        }
    });
    address
}

#[test]
fn suspected_instances_are_probed_and_their_answers_decide() {
    let mut settings = document();
    let milliseconds = std::time::Duration::from_millis;
    settings.registry.heartbeat = milliseconds(100);
    settings.registry.suspect_after = milliseconds(200);
    // Longer than the machine stands still between two of the answers that keep the good one.
    settings.registry.service_timeout = milliseconds(8_000);
    settings.registry.drain_after_silence = milliseconds(50);
    settings.probe.interval = milliseconds(100);
    let plane = Here::start(settings);
    let mut caller = plane.caller();
    let refused = Upstream::nobody();
    for (id, address) in [
        ("good", service("200 OK")),
        ("bad", service("503 Busy")),
        ("gone", refused),
    ] {
        let body = json!({"id": id, "name": "orders", "address": address.to_string(), "health_endpoint": "/ready"});
        caller.register(&body.to_string());
    }
    // Nobody beats: only an answer keeps one of them.
    until("two of three to be removed", || {
        caller.ids("/orders?all=true") == ["good"]
    });
    until("the good one to be found", || {
        caller.ids("/orders") == ["good"]
    });
    let audit = caller.json("GET /debug/registry/audit?id=gone", "", 200);
    assert_eq!(audit["events"][0]["what"], "removed");
    let text = caller.0.get("/metrics").text();
    assert!(text.contains("registry_removals_total{cause=\"silence\"}"));
    assert!(
        !text.contains("registry_probes_total{outcome=\"good\"} 0\n"),
        "{text}"
    );
}

#[test]
fn an_operator_lets_held_instances_go() {
    let mut settings = document();
    let milliseconds = std::time::Duration::from_millis;
    settings.registry.heartbeat = milliseconds(100);
    settings.registry.suspect_after = milliseconds(200);
    settings.registry.service_timeout = milliseconds(300);
    settings.registry.loss_interval = std::time::Duration::from_secs(3600);
    settings.probe.enabled = false;
    let plane = Here::start(settings);
    let mut caller = plane.caller();
    for port in 1..=4 {
        caller.register(&json!({"id": format!("o{port}"), "name": "orders", "address": format!("10.0.0.1:{port}")}).to_string());
    }
    until("one to leave and three to be held", || {
        caller.json("GET /debug/registry/health", "", 200)["services"][0]["held"] == 3
    });
    assert_eq!(caller.ids("/orders").len(), 3);
    let answer = caller.json("POST /services/orders/confirm", "", 200);
    assert_eq!(answer, json!({"status": "confirmed", "instances": 3}));
    assert_eq!(caller.ids("/orders"), Vec::<String>::new());
    caller.json("POST /services/nobody/confirm", "", 404);
}

#[test]
fn thousands_of_registrations_at_once_are_all_taken_with_few_syncs() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = document();
    settings.server.state_dir = Some(folder.path().to_owned());
    let plane = Here::start(settings);
    std::thread::scope(|scope| {
        for thread in 0..64 {
            let plane = &plane;
            scope.spawn(move || {
                let mut caller = plane.caller();
                for number in 0..40 {
                    caller.register(&json!({"id": format!("i{thread}-{number}"), "name": format!("s{}", number % 5),
                                            "address": format!("10.0.{thread}.{number}:80")}).to_string());
                }
            });
        }
    });
    let mut caller = plane.caller();
    let text = caller.0.get("/metrics").text();
    assert!(
        text.contains("registry_instances{state=\"active\"} 2560"),
        "{text}"
    );
    let figure = |name: &str| -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .expect("there");
        line.trim().parse().expect("a number")
    };
    let syncs = figure("store_syncs_total");
    assert!(syncs < 1500.0, "{syncs} syncs for 2560 registrations");
}

#[test]
fn http_2_is_spoken_too() {
    let plane = Here::start(document());
    let mut client = H2Raw::connect(plane.address);
    client.get(1, "/health/ready");
    let outcome = client.outcome(1);
    let good = matches!(outcome, Outcome::Answer { status: 200, .. });
    assert!(good, "{outcome:?}");
}
