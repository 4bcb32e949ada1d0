//! Faults on purpose as clients, operators and upstreams see them. Shares are 0 and 100 here; what lies between is
//! chance, and proved with seeds where it is drawn (`filter/fault.rs`).

use std::time::{Duration, Instant};

use tollgate_engine::testing::client::{Client, Ended};
use tollgate_engine::testing::gateway::{Gateway, document, line_of};
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::upstream::Upstream;

fn toml(upstream: &Upstream, fault: &str, more: &str) -> String {
    let filters = format!("filters = [{{ fault = {{ {fault} }} }}]\n{more}");
    document(upstream.address(), "", &filters, "")
}

#[test]
fn an_abort_answers_with_its_status_is_marked_and_costs_the_upstream_nothing() {
    let upstream = Upstream::fixed("ok");
    let toml = toml(&upstream, "abort = 418", "");
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status, &*answer.code()), (418, "fault_injected"));
        assert_eq!(answer.header("x-tollgate-fault"), Some("abort"));
        let problem = answer.problem();
        assert_eq!(problem["setting"], "route.filters.fault.abort");
        assert_eq!(problem["value"], "418");
        let at = format!("gateway.toml:{}", line_of(&toml, "abort = 418"));
        assert_eq!(problem["at"], at);
    }
    assert!(upstream.requests().is_empty());
    let metrics = gateway.metrics();
    for line in [
        "faults_injected_total{route=\"all\",fault=\"abort\"} 3\n",
        "faults_injected_total{route=\"all\",fault=\"delay\"} 0\n",
        "errors_total{code=\"fault_injected\"} 3\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
}

#[test]
fn no_fault_is_met_without_its_header_or_at_nothing_per_cent() {
    let upstream = Upstream::fixed("ok");
    let fault = "abort = 503, headers = { x-chaos = { regex = \"on|yes\" } }";
    let gateway = Gateway::start(&toml(&upstream, fault, ""));
    let mut client = gateway.client();
    let mut ask = |lines: &[&str]| client.request("GET /", lines);
    assert_eq!(ask(&[]).status, 200);
    let other = ask(&["X-Chaos: only"]);
    assert_eq!(
        (other.status, other.header("x-tollgate-fault")),
        (200, None)
    );
    assert_eq!(ask(&["X-Chaos: yes"]).status, 503);
    let gateway = Gateway::start(&toml(&upstream, "abort = 503, percent = 0", ""));
    let mut client = gateway.client();
    assert!((0..50).all(|_| client.get("/").status == 200));
}

#[test]
fn a_reset_closes_an_http1_connection_without_an_answer() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, "abort = \"reset\"", ""));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let (bytes, ended) = client.drain();
    assert_eq!(bytes, b"");
    assert!(matches!(ended, Ended::Closed | Ended::Reset), "{ended:?}");
    assert!(upstream.requests().is_empty());
    let metrics = gateway.metrics();
    assert!(metrics.contains("faults_injected_total{route=\"all\",fault=\"reset\"} 1\n"));
}

#[test]
fn a_reset_resets_one_http2_stream_and_leaves_its_connection() {
    let upstream = Upstream::fixed("ok");
    let fault = "abort = \"reset\", headers = { x-chaos = \"on\" }";
    let gateway = Gateway::start(&toml(&upstream, fault, ""));
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let ask = |headers: &[(&str, &str)]| h2_client::request("GET", "/", headers);
        let cut = h2_client::exchange(&sender, ask(&[("x-chaos", "on")]), &[], None).await;
        let error = cut.expect_err("no answer");
        assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{error}");
        let next = h2_client::exchange(&sender, ask(&[]), &[], None).await;
        assert_eq!(next.expect("the connection goes on").status, 200);
    });
}

#[test]
fn grpc_callers_are_told_the_status_that_goes_with_the_abort() {
    let upstream = Upstream::fixed("ok");
    for (abort, status) in [(503, "14"), (504, "4"), (429, "8"), (404, "5"), (418, "2")] {
        let gateway = Gateway::start(&toml(&upstream, &format!("abort = {abort}"), ""));
        let answer = h2_client::run(async {
            let sender = h2_client::connect(gateway.address()).await;
            let headers = [("content-type", "application/grpc"), ("te", "trailers")];
            let request = h2_client::request("POST", "/shop.Orders/Get", &headers);
            let answer = h2_client::exchange(&sender, request, &[], None).await;
            answer.expect("an answer")
        });
        assert_eq!(answer.status, 200);
        assert_eq!(answer.grpc_status(), Some(status), "{answer:?}");
        assert_eq!(answer.header("x-tollgate-fault"), Some("abort"));
        let message = answer.header("grpc-message").unwrap_or_default();
        assert!(message.contains("fault_injected"), "{message}");
    }
}

#[test]
fn a_delay_holds_one_request_and_nobody_else() {
    let upstream = Upstream::fixed("ok");
    let fault = "delay = \"1h\", headers = { x-slow = { present = true } }";
    let gateway = Gateway::start(&toml(&upstream, fault, "timeout = \"off\""));
    let mut slow = gateway.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\nX-Slow: 1\r\n\r\n");
    gateway.wait_count("faults_injected_total{route=\"all\",fault=\"delay\"}", 1);
    // The gateway has one worker, and it holds the slow request.
    let mut quick = gateway.client();
    for _ in 0..100 {
        let answer = quick.get("/quick");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-tollgate-fault"), None);
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 100);
    assert!(requests.iter().all(|request| request.target() == "/quick"));
}

#[test]
fn a_delayed_request_goes_on_afterwards_and_its_answer_is_marked() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, "delay = \"100ms\"", ""));
    let began = Instant::now();
    let answer = gateway.get("/");
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
    assert_eq!(answer.header("x-tollgate-fault"), Some("delay"));
}

#[test]
fn a_delay_counts_against_the_time_out_and_the_callers_deadline() {
    let upstream = Upstream::fixed("ok");
    let toml = toml(&upstream, "delay = \"1h\"", "timeout = \"50ms\"");
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    let late = client.get("/");
    assert_eq!((late.status, &*late.code()), (504, "route_timeout"));
    assert_eq!(late.problem()["value"], "50ms");
    let late = client.request("GET /", &["X-Request-Deadline-Ms: 20"]);
    assert_eq!((late.status, &*late.code()), (504, "deadline_exceeded"));
    assert_eq!(late.header("x-tollgate-fault"), Some("delay"));
    assert!(upstream.requests().is_empty());
}

#[test]
fn a_delay_before_an_abort_waits_first() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, "delay = \"100ms\", abort = 503", ""));
    let began = Instant::now();
    let answer = gateway.get("/");
    assert_eq!((answer.status, &*answer.code()), (503, "fault_injected"));
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(answer.header("x-tollgate-fault"), Some("delay, abort"));
}

#[test]
fn a_delayed_request_ends_when_its_client_leaves_and_its_line_tells_the_fault() {
    let upstream = Upstream::fixed("ok");
    let toml = toml(&upstream, "delay = \"1h\"", "timeout = \"off\"")
        + "[telemetry]\naccess_log = \"access.log\"\n";
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let wait = |count: u64| {
        gateway.wait_status(&format!("{count} in flight"), |status| {
            status["generations"][0]["in_flight"] == count
        });
    };
    wait(1);
    drop(client);
    wait(0);
    let line = &gateway.wait_lines("access.log", 1)[0];
    assert_eq!(line["fault"], "delay", "{line}");
    assert_eq!(line["error"]["code"], "client_closed", "{line}");
    assert!(upstream.requests().is_empty());
}

#[test]
fn explain_tells_a_fault_with_its_line() {
    let upstream = Upstream::fixed("ok");
    let fault = "delay = \"200ms\", abort = 503, percent = 0.5, headers = { x-chaos = \"on\" }";
    let toml = toml(&upstream, fault, "");
    let gateway = Gateway::start(&toml);
    let body = r#"{"url":"/"}"#;
    let mut admin = Client::connect(gateway.admin());
    admin.send(format!(
        "POST /explain HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let explained = admin.read_response().text();
    let wanted = "fault delay 200ms, abort 503, 0.5 % of requests with the right x-chaos (";
    assert!(explained.contains(wanted), "{explained}");
}
