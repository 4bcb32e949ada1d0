//! `GET /debug/diagnose/service/{name}` (CP-302) with real instances: one that is well, one that is not ready, one whose
//! machine refuses connections.

mod support;

use serde_json::{Value, json};
use support::{Caller, Here, document, wait};
use tollgate_engine::testing::upstream::Upstream;

fn register(caller: &mut Caller, id: &str, address: std::net::SocketAddr) {
    let body = json!({"id": id, "name": "orders", "address": address.to_string()});
    caller.register(&body.to_string());
}

fn instance<'v>(report: &'v Value, id: &str) -> &'v Value {
    let instances = report["instances"].as_array().expect("a list");
    instances
        .iter()
        .find(|one| one["id"] == id)
        .expect("it is there")
}

#[test]
fn cp_302_a_diagnosis_goes_and_looks_and_says_what_to_do() {
    let here = Here::start(document());
    let mut caller = here.caller();
    let well = Upstream::fixed("ok");
    let not_ready = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            conn.respond("503 Service Unavailable", &[], "warming up");
        }
    });
    register(&mut caller, "well", well.address());
    let shop = "[[upstream]]\nname = \"orders\"\nservice = \"orders\"\n";
    let body = json!({ "documents": { "shop.toml": shop } }).to_string();
    caller.json("POST /apply", &body, 200);
    let page = "GET /debug/diagnose/service/orders";
    // Looking takes five seconds at most, for which a machine may stand still.
    let report = wait(
        "an instance that is well",
        || caller.json(page, "", 200),
        |report| report["well"] == true,
    );
    assert_eq!(report["service"], "orders");
    assert_eq!(report["balancing"]["upstreams"][0]["place"], "shop.toml:1");
    assert_eq!(report["balancing"]["upstreams"][0]["endpoints"], 1);
    assert_eq!(well.requests()[0].target(), "/health/ready");

    register(&mut caller, "not-ready", not_ready.address());
    register(&mut caller, "gone", Upstream::nobody());
    let report = wait(
        "one that is well beside two that are not",
        || caller.json(page, "", 200),
        |report| {
            let passing = &report["health_checks"]["passing"];
            let refusal = &instance(report, "not-ready")["error"];
            *passing == 1 && refusal.as_str().is_some_and(|words| words.ends_with("503"))
        },
    );
    assert_eq!(report["well"], false);
    assert_eq!(report["registration"]["status"], "registered");
    assert_eq!(report["registration"]["instances"], 3);
    let health = &report["health_checks"];
    assert_eq!(health["status"], "failing");
    assert_eq!(
        (&health["passing"], &health["failing"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(instance(&report, "well")["status"], "passing");
    assert!(instance(&report, "well")["response_ms"].as_f64() > Some(0.0));
    assert_eq!(
        instance(&report, "not-ready")["error"],
        "GET /health/ready was answered 503"
    );
    assert_eq!(instance(&report, "gone")["error"], "connection refused");
    assert_eq!(report["resolution"]["equals_registry"], true);
    let advice = report["recommendations"].to_string();
    assert!(
        advice.contains("says itself that it is not ready"),
        "{advice}"
    );
    assert!(advice.contains("refuses connections"), "{advice}");

    // Looking is no evidence: the registry thinks of them as before.
    let debug = caller.json("GET /debug/registry/health", "", 200);
    assert_eq!(debug["services"][0]["in_lookups"], 3);

    let report = caller.json("GET /debug/diagnose/service/ordres", "", 200);
    assert_eq!(report["registration"]["status"], "missing");
    assert!(
        report["recommendations"][0]["text"]
            .as_str()
            .expect("text")
            .contains("registered are orders")
    );
    assert_eq!(
        caller.ask("GET /debug/diagnose/service/%0a", "").status,
        400
    );
}
