//! What a route answers when its upstream cannot: GW-701. The answer is marked and counted, comes after the last try, and
//! never costs a request that may have had an effect a second sending.

use tollgate_engine::testing::client::Response;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_client::{self, message};
use tollgate_engine::testing::upstream::Upstream;

const FIXED: &str = "[route.fallback]\nrespond = { status = 200, body = \"[]\", headers = { content-type = \"application/json\" } }";

fn mark(response: &Response) -> Option<&str> {
    response.header("x-tollgate-fallback")
}

/// Answers every request with this status.
fn answers(status: &'static str) -> Upstream {
    Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            conn.respond(status, &[], "what the upstream says");
        }
    })
}

/// Takes every request and closes.
fn breaks() -> Upstream {
    Upstream::http1(|conn| {
        conn.read_request();
    })
}

/// A document whose route falls back to the upstream `other`.
fn to_other(first: &Upstream, other: &Upstream, route: &str) -> String {
    let route = format!("{route}\n[route.fallback]\nupstream = \"other\"");
    document(first.address(), "", &route, "")
        + &format!(
            "\n[[upstream]]\nname = \"other\"\nendpoints = [\"{}\"]\n",
            other.address()
        )
}

#[test]
fn gw_701_a_fixed_answer_stands_in_for_an_upstream_that_cannot_be_reached() {
    let gateway = Gateway::start(&document(Upstream::nobody(), "", FIXED, ""));
    let response = gateway.get("/");
    assert_eq!((response.status, &*response.text()), (200, "[]"));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(mark(&response), Some("connect_failed"));
    let line = r#"fallbacks_total{route="all",result="respond"} 1"#;
    let metrics = gateway.metrics();
    assert!(metrics.contains(line), "{metrics}");
    let line = r#"errors_total{code="connect_failed"} 0"#;
    assert!(metrics.contains(line), "no client was told an error");
}

#[test]
fn gw_701_a_fallback_comes_after_the_last_try() {
    let upstream = answers("503 Service Unavailable");
    let route = format!("{FIXED}\n[route.retry]\nattempts = 2\nbackoff = {{ base = \"0s\" }}");
    let gateway = Gateway::start(&document(upstream.address(), "", &route, ""));
    let response = gateway.get("/");
    assert_eq!((&*response.text(), mark(&response)), ("[]", Some("503")));
    assert_eq!(upstream.requests().len(), 3);
}

#[test]
fn what_the_upstream_answers_otherwise_is_passed_on_unmarked() {
    for status in ["404 Not Found", "500 Internal Server Error", "200 OK"] {
        let upstream = answers(status);
        let gateway = Gateway::start(&document(upstream.address(), "", FIXED, ""));
        let response = gateway.get("/");
        assert_eq!(response.text(), "what the upstream says");
        assert_eq!(mark(&response), None);
    }
}

#[test]
fn reasons_that_are_not_named_are_no_reasons() {
    let route = format!("{FIXED}\non = [\"overloaded\", 500]");
    let gateway = Gateway::start(&document(Upstream::nobody(), "", &route, ""));
    assert_eq!(gateway.get("/").code(), "connect_failed");
    let upstream = answers("500 Internal Server Error");
    let gateway = Gateway::start(&document(upstream.address(), "", &route, ""));
    assert_eq!(mark(&gateway.get("/")), Some("500"));
}

#[test]
fn gw_701_who_is_turned_away_by_the_bulkhead_or_by_time_gets_the_fallback() {
    let upstream = Upstream::http1(|conn| {
        conn.read_request();
        conn.wait_closed();
    });
    let route = format!(
        "timeout = \"80ms\"\n{FIXED}\n[route.retry]\nattempts = 1\nper_try_timeout = \"80ms\""
    );
    let keys = "max_in_flight = 1\nqueue = \"off\"";
    // One holds the only permit for as long as the test needs it to.
    let holder = "[[route]]\nmatch = { path = \"/held\" }\nupstream = \"app\"\ntimeout = \"off\"\n\n[[upstream]]";
    let toml = document(upstream.address(), "", &route, keys).replace("[[upstream]]", holder);
    let gateway = Gateway::start(&toml);
    let mut held = gateway.client();
    held.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.wait("the one that holds", |journal| journal.requests.len() == 1);
    let second = gateway.get("/second");
    assert_eq!(mark(&second), Some("overloaded"));
    held.reset();
    gateway.wait_status("the permit to be given back", |status| {
        status["upstreams"][0]["bulkhead"]["in_flight"] == 0
    });
    let first = gateway.get("/first");
    assert_eq!((first.status, mark(&first)), (200, Some("route_timeout")));
}

#[test]
fn gw_701_while_the_breaker_is_open_the_fallback_answers_and_the_upstream_is_not_asked() {
    let upstream = answers("503 Service Unavailable");
    let keys = "breaker = { failures = 1, volume = 1 }";
    let route = format!("retry = \"off\"\n{FIXED}");
    let gateway = Gateway::start(&document(upstream.address(), "", &route, keys));
    let marks: Vec<_> = (0..3)
        .map(|_| mark(&gateway.get("/")).map(str::to_owned))
        .collect();
    let words = ["503", "circuit_open", "circuit_open"];
    assert_eq!(marks, words.map(|word| Some(word.to_owned())));
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn the_other_upstreams_breaker_is_asked_for_itself() {
    let (first, other) = (breaks(), answers("200 OK"));
    let toml = to_other(&first, &other, "retry = \"off\"");
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
    }
    let metrics = gateway.metrics();
    for upstream in ["app", "other"] {
        let line = format!(
            r#"circuit_breaker_requests_total{{upstream="{upstream}",result="admitted"}} 5"#
        );
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[test]
fn a_callers_deadline_and_a_clients_mistake_are_no_reason_to_fall_back() {
    let upstream = Upstream::http1(|conn| {
        conn.read_request();
        conn.wait_closed();
    });
    let gateway = Gateway::start(&document(upstream.address(), "", FIXED, ""));
    let late = gateway
        .client()
        .request("GET /", &["x-request-deadline-ms: 50"]);
    assert_eq!(late.code(), "deadline_exceeded");
}

#[test]
fn gw_701_another_upstream_gets_the_request_as_the_first_would_have() {
    let (first, other) = (breaks(), Upstream::echo());
    let toml = to_other(
        &first,
        &other,
        "rewrite = { path = \"/v1/*\" }\nretry = \"off\"",
    );
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    client.send("PUT /a?b=c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let response = client.read_final();
    assert_eq!(
        (response.status, mark(&response)),
        (200, Some("upstream_reset"))
    );
    let request = other.request();
    assert_eq!((request.method(), request.target()), ("PUT", "/v1/a?b=c"));
    assert_eq!(request.body, b"hello");
    assert_eq!(first.requests().len(), 1);
    let line = r#"fallbacks_total{route="all",result="upstream"} 1"#;
    assert!(gateway.metrics().contains(line));
    // A connection's next answer comes after the books of the one before are closed.
    assert_eq!(client.get("/").status, 200);
    let line = r#"http_requests_total{route="all",upstream="other",method="PUT",status="200"} 1"#;
    let metrics = gateway.metrics();
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn a_post_that_was_sent_goes_to_no_other_upstream_and_one_that_was_not_does() {
    let post = |gateway: &Gateway| {
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        client.read_final()
    };
    let (first, other) = (breaks(), Upstream::echo());
    let gateway = Gateway::start(&to_other(&first, &other, ""));
    let response = post(&gateway);
    assert_eq!(
        (response.status, &*response.code()),
        (502, "upstream_reset")
    );
    assert_eq!((first.requests().len(), other.requests().len()), (1, 0));
    let toml = to_other(&first, &other, "").replace(
        &first.address().to_string(),
        &Upstream::nobody().to_string(),
    );
    let gateway = Gateway::start(&toml);
    let response = post(&gateway);
    assert_eq!(
        (response.status, mark(&response)),
        (200, Some("connect_failed"))
    );
    assert_eq!(other.request().body, b"hello");
}

#[test]
fn when_the_other_upstream_fails_too_the_first_failure_is_told() {
    let (first, other) = (breaks(), answers("200 OK"));
    let toml = to_other(&first, &other, "retry = \"off\"").replace(
        &other.address().to_string(),
        &Upstream::nobody().to_string(),
    );
    let gateway = Gateway::start(&toml);
    let response = gateway.get("/");
    assert_eq!(
        (response.status, &*response.code()),
        (502, "upstream_reset")
    );
    let line = r#"fallbacks_total{route="all",result="failed"} 1"#;
    assert!(gateway.metrics().contains(line));
}

#[test]
fn a_grpc_caller_gets_a_status_and_no_fixed_body() {
    let toml = document(Upstream::nobody(), "", FIXED, "protocol = \"http2\"");
    let gateway = Gateway::start(&toml);
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        let request = h2_client::request("POST", "/echo.Echo/Unary", &grpc);
        let answer = h2_client::exchange(&sender, request, &[&message(b"x")], None)
            .await
            .unwrap();
        assert_eq!(answer.grpc_status(), Some("14"));
    });
}
