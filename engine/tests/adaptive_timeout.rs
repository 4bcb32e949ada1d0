//! A time-out that follows what is normal for a route's answers: GW-605, GW-607. How it follows is a matter of the
//! simulations in `upstream/pace`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tollgate_engine::testing::gateway::{Gateway, document, line_of};
use tollgate_engine::testing::upstream::Upstream;

/// Answers at once while `answers` says so; otherwise takes requests and says nothing.
fn upstream() -> (Upstream, Arc<AtomicBool>) {
    let answers = Arc::new(AtomicBool::new(true));
    let theirs = answers.clone();
    let upstream = Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            if !theirs.load(Ordering::SeqCst) {
                conn.wait_closed();
                return;
            }
            conn.respond("200 OK", &[], "");
        }
    });
    (upstream, answers)
}

/// Long enough that a test that waited for `timeout` would fail.
fn toml(upstream: &Upstream, least: &str, retry: &str) -> String {
    let route = format!("timeout = \"60s\"\nadaptive_timeout = {{ least = \"{least}\" }}\n{retry}");
    document(upstream.address(), "", &route, "outlier = \"off\"")
}

/// What is normal, while no answer is too late however the machine stands still.
fn learn(gateway: &Gateway) {
    let mut client = gateway.client();
    for _ in 0..110 {
        assert_eq!(client.get("/").status, 200);
    }
}

fn shown(gateway: &Gateway) -> serde_json::Value {
    gateway.get_status()["adaptive_timeouts"][0].clone()
}

#[test]
fn gw_605_an_answer_that_takes_much_longer_than_usual_is_not_waited_for() {
    let (upstream, answers) = upstream();
    let gateway = Gateway::start(&toml(&upstream, "50s", "retry = \"off\""));
    assert_eq!(shown(&gateway)["normal_ms"], serde_json::Value::Null);
    assert_eq!(
        shown(&gateway)["timeout_ms"],
        60_000.0,
        "nothing is known yet"
    );
    learn(&gateway);
    let found = shown(&gateway);
    assert!(found["normal_ms"].as_f64().unwrap() > 0.0, "{found}");
    let toml = toml(&upstream, "150ms", "retry = \"off\"");
    gateway.edit(&toml).unwrap();
    answers.store(false, Ordering::SeqCst);
    let response = gateway.get("/");
    assert_eq!(
        (response.status, &*response.code()),
        (504, "adaptive_timeout")
    );
    let problem = response.problem();
    assert_eq!(problem["setting"], "route.adaptive_timeout");
    let place = format!("gateway.toml:{}", line_of(&toml, "adaptive_timeout"));
    assert_eq!(problem["at"], place);
    let line = r#"timeouts_total{upstream="app",kind="adaptive"} 1"#;
    assert!(gateway.metrics().contains(line));
}

#[test]
fn gw_605_a_try_that_was_cut_short_is_repeated_as_after_any_time_out_of_a_try() {
    let (upstream, answers) = upstream();
    let retry = "[route.retry]\nattempts = 2\nbackoff = { base = \"0s\" }";
    let gateway = Gateway::start(&toml(&upstream, "50s", retry));
    learn(&gateway);
    gateway.edit(&toml(&upstream, "150ms", retry)).unwrap();
    let before = upstream.requests().len();
    answers.store(false, Ordering::SeqCst);
    assert_eq!(gateway.get("/").code(), "adaptive_timeout");
    upstream.wait("three tries", |seen| seen.requests.len() == before + 3);
    let line = r#"retries_total{upstream="app",class="per_try_timeout"} 2"#;
    assert!(gateway.metrics().contains(line));
}

#[test]
fn what_was_learned_survives_a_reload_and_a_changed_bound_holds_at_once() {
    let (upstream, answers) = upstream();
    let gateway = Gateway::start(&toml(&upstream, "50s", "retry = \"off\""));
    learn(&gateway);
    assert_eq!(shown(&gateway)["timeout_ms"], 50_000.0);
    gateway
        .edit(&toml(&upstream, "150ms", "retry = \"off\""))
        .unwrap();
    let found = shown(&gateway);
    assert!(found["timeout_ms"].as_f64().unwrap() < 50_000.0, "{found}");
    answers.store(false, Ordering::SeqCst);
    assert_eq!(gateway.get("/").code(), "adaptive_timeout");
    gateway
        .edit(
            &toml(&upstream, "150ms", "retry = \"off\"").replace("adaptive_timeout", "# adaptive"),
        )
        .unwrap();
    assert_eq!(
        gateway.get_status()["adaptive_timeouts"],
        serde_json::json!([])
    );
}

#[test]
fn failures_and_refusals_say_nothing_about_how_long_answers_take() {
    for status in ["500 Internal Server Error", "429 Too Many Requests"] {
        let upstream = Upstream::http1(move |conn| {
            while conn.read_request().is_some() {
                conn.respond(status, &[], "");
            }
        });
        let gateway = Gateway::start(&toml(&upstream, "50s", "retry = \"off\""));
        let mut client = gateway.client();
        for _ in 0..110 {
            client.get("/");
        }
        assert_eq!(shown(&gateway)["normal_ms"], serde_json::Value::Null);
    }
}
