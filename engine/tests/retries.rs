//! Retries within bounds: the budget, one layer in a chain, and what an endpoint wishes: GW-501 to GW-509, HI-40, HI-49.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tollgate_engine::testing::client::Response;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::upstream::Upstream;

/// Nothing but the budget bounds retries.
const BARE: &str = "outlier = \"off\"\nbreaker = \"off\"\n";
const QUICK: &str = "[route.retry]\nbackoff = { base = \"1ms\", max = \"2ms\" }";

/// Answers everything so.
fn always(answer: &'static str) -> Upstream {
    Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            conn.send(answer);
        }
    })
}

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn budget(gateway: &Gateway) -> Value {
    gateway.get_status()["upstreams"][0]["retry_budget"].clone()
}

fn with(gateway: &Gateway, line: &str, field: &str) -> Response {
    gateway.client().request(line, &[field])
}

#[test]
fn hi_49_with_all_failing_an_upstream_is_sent_no_more_than_the_budget_allows() {
    const DEMAND: usize = 200;
    let upstream = always(UNAVAILABLE);
    let keys =
        format!("{BARE}[upstream.retry_budget]\nratio = 0.2\nfloor = \"0/s\"\nwindow = \"60s\"");
    let gateway = Gateway::start(&document(upstream.address(), "", QUICK, &keys));
    let mut client = gateway.client();
    for number in 1..=DEMAND {
        assert_eq!(client.get("/").status, 503);
        let sent = upstream.requests().len();
        assert!(
            sent * 10 <= number * 12,
            "{sent} tries for {number} requests"
        );
    }
    assert_eq!(upstream.requests().len(), DEMAND * 12 / 10);
    let shown = budget(&gateway);
    assert_eq!(
        (&shown["retries"], &shown["allowed"]),
        (&40.into(), &40.into())
    );
    let metrics = gateway.metrics();
    let exhausted = metrics
        .lines()
        .find_map(|line| line.strip_prefix("retry_budget_exhausted_total{upstream=\"app\"} "))
        .and_then(|count| count.parse::<usize>().ok());
    assert!(exhausted.is_some_and(|count| count > 100), "{exhausted:?}");
}

#[test]
fn gw_506_retries_that_never_left_pay_as_well() {
    let keys =
        format!("{BARE}[upstream.retry_budget]\nratio = 0.0\nfloor = \"1/s\"\nwindow = \"60s\"");
    let gateway = Gateway::start(&document(Upstream::nobody(), "", QUICK, &keys));
    for _ in 0..40 {
        assert_eq!(gateway.get("/").code(), "connect_failed");
    }
    assert_eq!(budget(&gateway)["retries"], 60);
}

#[test]
fn gw_506_a_budget_outlives_a_reload_and_a_new_one_applies_at_once() {
    let upstream = always(UNAVAILABLE);
    let toml = |floor: &str| {
        let keys = format!(
            "{BARE}[upstream.retry_budget]\nratio = 0.0\nfloor = \"{floor}\"\nwindow = \"60s\""
        );
        document(upstream.address(), "", QUICK, &keys)
    };
    let gateway = Gateway::start(&toml("4/m"));
    for _ in 0..5 {
        gateway.get("/");
    }
    assert_eq!(upstream.requests().len(), 5 + 4);
    gateway.edit(&toml("7/m")).expect("valid");
    for _ in 0..5 {
        gateway.get("/");
    }
    assert_eq!(upstream.requests().len(), 10 + 7);
}

#[test]
fn gw_507_the_access_line_says_how_often_it_was_tried_and_why_not_again() {
    let upstream = always(UNAVAILABLE);
    let keys =
        format!("{BARE}[upstream.retry_budget]\nratio = 0.0\nfloor = \"1/m\"\nwindow = \"60s\"");
    let toml = format!(
        "{}\n[telemetry]\naccess_log = \"access.log\"\n",
        document(upstream.address(), "", QUICK, &keys)
    );
    let gateway = Gateway::start(&toml);
    gateway.get("/first");
    gateway.get("/second");
    let lines = gateway.wait_lines("access.log", 2);
    assert_eq!(
        (&lines[0]["path"], &lines[0]["attempts"]),
        (&"/first".into(), &2.into())
    );
    assert_eq!(lines[0]["not_retried"], "retry_budget_exhausted");
    assert_eq!(
        (&lines[1]["attempts"], &lines[1]["status"]),
        (&1.into(), &503.into())
    );
    assert_eq!(lines[1]["not_retried"], "retry_budget_exhausted");
}

#[test]
fn gw_509_only_the_first_of_two_gateways_tries_again() {
    let upstream = always(UNAVAILABLE);
    let inner = Gateway::start(&document(upstream.address(), "", QUICK, BARE));
    let outer = Gateway::start(&document(inner.address(), "", QUICK, BARE));
    assert_eq!(outer.get("/").status, 503);
    let requests = upstream.requests();
    let tries: Vec<_> = requests
        .iter()
        .map(|request| request.header("x-tollgate-attempt").map(str::to_owned))
        .collect();
    assert_eq!(tries, ["1", "2", "3"].map(|n| Some(n.to_owned())));
}

#[test]
fn gw_509_who_says_that_they_try_again_are_left_to_it() {
    let upstream = always(UNAVAILABLE);
    let gateway = Gateway::start(&document(upstream.address(), "", QUICK, BARE));
    for (number, field) in ["X-Tollgate-Attempt: 1", "grpc-previous-rpc-attempts: 1"]
        .iter()
        .enumerate()
    {
        assert_eq!(with(&gateway, "GET /", field).status, 503);
        assert_eq!(upstream.requests().len(), number + 1);
    }
    assert_eq!(
        upstream.requests()[0].header("x-tollgate-attempt"),
        Some("1")
    );
}

#[test]
fn gw_509_what_is_never_repeated_is_not_announced() {
    let upstream = always(FINE);
    let plain = Gateway::start(&document(upstream.address(), "", "", ""));
    plain.client().request("POST /", &["Content-Length: 0"]);
    let off = Gateway::start(&document(upstream.address(), "", "retry = \"off\"", ""));
    off.get("/");
    let requests = upstream.requests();
    assert!(
        requests
            .iter()
            .all(|one| one.header("x-tollgate-attempt").is_none())
    );
    assert_eq!(requests.len(), 2);
}

#[test]
fn an_endpoint_that_asks_for_more_time_than_the_longest_wait_is_not_asked_again() {
    let upstream =
        always("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::start(&document(upstream.address(), "", QUICK, BARE));
    let answer = gateway.get("/");
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("60"))
    );
    assert_eq!(upstream.requests().len(), 1);

    let soon =
        always("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::start(&document(soon.address(), "", QUICK, BARE));
    assert_eq!(gateway.get("/").status, 503);
    assert_eq!(soon.requests().len(), 3);
}

#[test]
fn an_endpoint_s_wish_does_not_bind_the_others() {
    let (asks, well) = (
        always("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"),
        always(FINE),
    );
    let keys = format!("balance = \"round_robin\"\n{BARE}");
    let toml = document(asks.address(), "", QUICK, &keys).replace(
        &format!("[\"{}\"]", asks.address()),
        &format!("[\"{}\", \"{}\"]", asks.address(), well.address()),
    );
    let gateway = Gateway::start(&toml);
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert!(!asks.requests().is_empty());
}

#[test]
fn gw_505_a_retry_that_does_not_fit_into_the_deadline_is_not_started() {
    let upstream = always(UNAVAILABLE);
    let slow = "[route.retry]\nbackoff = { base = \"8784h\", max = \"8784h\" }";
    let gateway = Gateway::start(&document(upstream.address(), "", slow, BARE));
    let answer = with(&gateway, "GET /", "X-Request-Deadline-Ms: 3600000");
    assert_eq!(
        answer.status, 503,
        "the first answer, and at once: {answer:?}"
    );
    assert_eq!(upstream.requests().len(), 1);
    let answer = gateway.get("/");
    assert_eq!(answer.status, 503, "nor into the route's time: {answer:?}");
    assert_eq!(upstream.requests().len(), 2);
}

#[test]
fn gw_503_write_repeats_only_what_brings_a_key_and_critical_nothing() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    let upstream = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            SEEN.fetch_add(1, Ordering::SeqCst);
            conn.send(UNAVAILABLE);
        }
    });
    let tries = |preset: &str, line: &str, field: &str| {
        let keys = format!("retry = {{ preset = \"{preset}\", {QUICK_KEYS} }}");
        let keys = if preset == "critical" {
            "retry = { preset = \"critical\" }".to_owned()
        } else {
            keys
        };
        let gateway = Gateway::start(&document(upstream.address(), "", &keys, BARE));
        let before = SEEN.load(Ordering::SeqCst);
        assert_eq!(with(&gateway, line, field).status, 503);
        SEEN.load(Ordering::SeqCst) - before
    };
    const QUICK_KEYS: &str = "backoff = { base = \"1ms\", max = \"2ms\" }";
    let (key, none) = ("Idempotency-Key: 1", "X-Other: 1");
    assert_eq!(tries("read", "GET /", none), 4);
    assert_eq!(tries("write", "PUT /", none), 1);
    assert_eq!(tries("write", "PUT /", key), 2);
    assert_eq!(tries("critical", "GET /", key), 1);
}

#[test]
fn gw_508_a_body_without_a_length_is_repeated_whole() {
    let upstream = Upstream::http1(|conn| {
        while let Some(request) = conn.read_request() {
            match request.header("x-tollgate-attempt") {
                Some("1") => conn.send(UNAVAILABLE),
                _ => conn.respond("200 OK", &[], &String::from_utf8_lossy(&request.body)),
            };
        }
    });
    let gateway = Gateway::start(&document(upstream.address(), "", QUICK, BARE));
    let mut client = gateway.client();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n");
    assert_eq!(client.read_response().text(), "hello");
    upstream.assert_clean();
}
