//! Every time-out holds, and its answer names it: the code, the setting, its value and the line it was written on.
//!
//! A stream is governed by its idle time and never by the request's time-out; a caller's own deadline shrinks on its
//! way and is passed on (HI-46, HI-51).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tollgate_engine::testing::client::{Ended, Response};
use tollgate_engine::testing::gateway::{Gateway, document, line_of};
use tollgate_engine::testing::h2_client::{self, message};
use tollgate_engine::testing::http2::Http2Upstream;
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::until;

/// Takes requests and never answers.
fn silent() -> Upstream {
    Upstream::http1(|conn| {
        conn.read_request();
        conn.wait_closed();
    })
}

/// The answer must blame this setting, with its value and the line where `key` stands.
fn assert_blames(
    response: &Response,
    code: &str,
    setting: &str,
    value: &str,
    toml: &str,
    key: &str,
) {
    let problem = response.problem();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["setting"], setting, "{problem}");
    assert_eq!(problem["value"], value, "{problem}");
    assert_eq!(
        problem["at"],
        format!("gateway.toml:{}", line_of(toml, key)),
        "{problem}"
    );
}

/// Not before its time. What comes later than that is the machine's business, within the client's patience.
fn assert_took(begun: Instant, at_least: u64) {
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(at_least), "it took {took:?}");
}

#[test]
fn the_routes_time_out_is_told_with_its_line() {
    let upstream = silent();
    let toml = document(upstream.address(), "", "timeout = \"300ms\"", "");
    let gateway = Gateway::start(&toml);
    let begun = Instant::now();
    let response = gateway.get("/");
    assert_took(begun, 290);
    assert_eq!(response.status, 504);
    assert_blames(
        &response,
        "route_timeout",
        "route.timeout",
        "300ms",
        &toml,
        "timeout = \"300ms\"",
    );
    upstream.wait("the connection to be given up", |journal| {
        journal.ended == journal.connections
    });
}

#[test]
fn hi_46_the_time_for_one_try_is_told_with_its_line() {
    let upstream = silent();
    let route = "[route.retry]\nattempts = 1\nper_try_timeout = \"150ms\"";
    let toml = document(upstream.address(), "", route, "");
    let gateway = Gateway::start(&toml);
    let begun = Instant::now();
    let response = gateway.get("/");
    assert_took(begun, 140);
    assert_eq!(response.status, 504);
    assert_blames(
        &response,
        "per_try_timeout",
        "route.retry.per_try_timeout",
        "150ms",
        &toml,
        "per_try_timeout",
    );
}

#[test]
fn hi_46_the_time_for_one_try_and_the_time_for_all_both_hold() {
    let route = "timeout = \"500ms\"\n[route.retry]\nattempts = 50\non = [\"reset\", \"504\"]\nper_try_timeout = \"120ms\"\nbackoff = { base = \"1ms\", max = \"2ms\" }";
    // Where the machine stands still there is time for one try only.
    until("time for a second try", || {
        let upstream = silent();
        let gateway = Gateway::start(&document(upstream.address(), "", route, ""));
        let begun = Instant::now();
        let response = gateway.get("/");
        assert_took(begun, 380);
        // The last try may end by its own time when too little is left for another.
        let told = ["route_timeout", "per_try_timeout"];
        assert!(told.contains(&&*response.code()), "{response:?}");
        assert_eq!(response.status, 504);
        let tries = upstream.requests().len();
        assert!(tries <= 6, "{tries} tries of 120 ms within 500 ms");
        tries >= 2
    });
}

/// A listener whose queue is full: the kernel drops further handshakes, as a black hole would.
fn black_hole() -> (socket2::Socket, Vec<socket2::Socket>, SocketAddr) {
    use socket2::{Domain, SockAddr, Socket, Type};
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let listener = socket();
    listener
        .bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0))))
        .expect("a free port");
    listener.listen(0).expect("a bound socket listens");
    let address = listener
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("an IP address");
    let mut queued = Vec::new();
    loop {
        let filler = socket();
        let full = filler
            .connect_timeout(&SockAddr::from(address), Duration::from_millis(200))
            .is_err();
        queued.push(filler);
        if full {
            return (listener, queued, address);
        }
    }
}

#[test]
fn a_connection_that_nobody_answers_ends_at_the_connect_time_out() {
    let (_listener, _queued, address) = black_hole();
    let toml = document(
        address,
        "",
        "retry = \"off\"",
        "connect_timeout = \"250ms\"",
    );
    let gateway = Gateway::start(&toml);
    let begun = Instant::now();
    let response = gateway.get("/");
    assert_took(begun, 240);
    assert_eq!(response.status, 504);
    assert_blames(
        &response,
        "connect_timeout",
        "upstream.connect_timeout",
        "250ms",
        &toml,
        "connect_timeout",
    );
}

#[test]
fn the_header_time_out_is_told_with_its_line() {
    let toml = document(Upstream::nobody(), "header_timeout = \"300ms\"", "", "");
    let gateway = Gateway::start(&toml);
    // Who says nothing at all in that time is let go without a word: a client must have begun.
    until("a client that begins in time", || {
        let begun = Instant::now();
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n");
        if begun.elapsed() >= Duration::from_millis(300) {
            return false;
        }
        let response = client.read_response();
        assert_eq!(response.status, 408);
        assert_blames(
            &response,
            "header_timeout",
            "listener.header_timeout",
            "300ms",
            &toml,
            "header_timeout",
        );
        client.assert_closed();
        true
    });
}

#[test]
fn a_body_that_stops_coming_is_told_with_its_line() {
    let upstream = Upstream::echo();
    let toml = document(upstream.address(), "", "idle_timeout = \"300ms\"", "");
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    let response = client.read_response();
    assert_eq!(response.status, 408);
    assert_blames(
        &response,
        "body_timeout",
        "route.idle_timeout",
        "300ms",
        &toml,
        "idle_timeout",
    );
}

#[test]
fn a_body_larger_than_allowed_is_told_with_its_line() {
    let upstream = Upstream::echo();
    let toml = document(upstream.address(), "", "max_body = \"10B\"", "").replace("10B", "1KiB");
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.status, 413);
    assert_blames(
        &response,
        "body_too_large",
        "route.max_body",
        "1KiB",
        &toml,
        "max_body",
    );
    let mut client = gateway.client();
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"
    ));
    let response = client.read_response();
    assert_eq!(
        (response.status, &*response.code()),
        (413, "body_too_large")
    );
    assert!(upstream.journal().complete().is_empty());
}

#[test]
fn hi_46_an_answers_body_that_stops_coming_is_cut_at_the_idle_time_out() {
    let upstream = Upstream::http1(|conn| {
        conn.read_request();
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        conn.wait_closed();
    });
    let gateway = Gateway::start(&document(
        upstream.address(),
        "",
        "idle_timeout = \"300ms\"",
        "",
    ));
    let begun = Instant::now();
    let response = gateway.get("/");
    assert_took(begun, 290);
    assert!(response.status == 200 && !response.complete, "{response:?}");
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let error = h2_client::get(&sender, "/")
            .await
            .expect_err("a stream that was cut is not whole");
        assert!(error.is_reset(), "{error}");
    });
    upstream.wait("the connections to be given up", |journal| {
        journal.ended == 2
    });
}

#[test]
fn a_stream_outlives_the_routes_time_out_as_long_as_something_moves() {
    let upstream = Upstream::http1(|conn| {
        conn.read_request();
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // A gate that nobody opens is a pause.
        let pause = Gate::new();
        for _ in 0..6 {
            conn.send("1\r\nx\r\n");
            pause.opens_within(Duration::from_millis(150));
        }
        conn.send("0\r\n\r\n");
    });
    let route = "timeout = \"300ms\"\nidle_timeout = \"60s\"";
    let gateway = Gateway::start(&document(upstream.address(), "", route, ""));
    // Its head must come in time all the same.
    until("an answer that begins in time", || {
        let begun = Instant::now();
        let response = gateway.get("/");
        if response.status == 504 {
            assert_took(begun, 300);
            return false;
        }
        assert!(
            response.complete && response.text() == "xxxxxx",
            "{response:?}"
        );
        assert_took(begun, 800);
        true
    });
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "idle_timeout = \"300ms\"",
        "",
        "",
    ));
    let mut client = gateway.client();
    let begun = Instant::now();
    assert_eq!(client.get("/").status, 200);
    let (rest, ended) = client.drain();
    assert_eq!((&*rest, ended), (&b""[..], Ended::Closed));
    assert_took(begun, 250);
}

#[test]
fn a_callers_deadline_is_kept_and_passed_on_shrunk() {
    // Where the machine stands still there is time for one try only, or little of it left.
    until("time for a second try", || {
        let upstream = Upstream::http1(|conn| {
            conn.read_request();
            if conn.number == 1 {
                // A first try that costs some of the caller's time.
                Gate::new().opens_within(Duration::from_millis(100));
            } else {
                conn.wait_closed();
            }
        });
        let gateway = Gateway::in_front_of(upstream.address());
        let begun = Instant::now();
        let response = gateway
            .client()
            .request("GET /", &["X-Request-Deadline-Ms: 500"]);
        assert_took(begun, 480);
        assert_eq!(
            (response.status, &*response.code()),
            (504, "deadline_exceeded")
        );
        let passed: Vec<u64> = upstream
            .requests()
            .iter()
            .map(|request| {
                request
                    .header("x-request-deadline-ms")
                    .expect("passed on")
                    .parse()
                    .expect("a number")
            })
            .collect();
        assert!(passed.len() <= 2, "{passed:?}");
        let [first, second] = passed[..] else {
            return false;
        };
        assert!(first <= 500, "{passed:?}");
        assert!(
            second <= 405,
            "time that was spent is no longer passed on: {passed:?}"
        );
        first > 300 && second > 0
    });
}

#[test]
fn a_deadline_that_has_passed_costs_the_upstream_nothing() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let response = gateway
        .client()
        .request("GET /", &["X-Request-Deadline-Ms: 0"]);
    assert_eq!(
        (response.status, &*response.code()),
        (504, "deadline_exceeded")
    );
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_deadline_never_stretches_the_routes_time_out() {
    let upstream = silent();
    let gateway = Gateway::start(&document(upstream.address(), "", "timeout = \"300ms\"", ""));
    let begun = Instant::now();
    let response = gateway
        .client()
        .request("GET /", &["X-Request-Deadline-Ms: 60000"]);
    assert_took(begun, 290);
    assert_eq!((response.status, &*response.code()), (504, "route_timeout"));
}

#[test]
fn nobody_is_given_a_deadline_that_its_caller_did_not_set() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    gateway.get("/");
    assert_eq!(upstream.request().header("x-request-deadline-ms"), None);
    assert_eq!(upstream.request().header("grpc-timeout"), None);
}

#[test]
fn hi_51_a_grpc_callers_deadline_is_kept_and_passed_on_shrunk() {
    let upstream = Http2Upstream::echo();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "",
        "",
        "protocol = \"http2\"",
    ));
    let mut calls = 0;
    // Where the machine stands still, less of it is left to be passed on.
    until("most of the deadline to be passed on", || {
        let begun = Instant::now();
        let answer = h2_client::run(async {
            let sender = h2_client::connect(gateway.address()).await;
            let headers = [
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("grpc-timeout", "400m"),
            ];
            let request = h2_client::request("POST", "/echo.Echo/Hang", &headers);
            h2_client::exchange(&sender, request, &[&message(b"x")], None)
                .await
                .expect("an answer")
        });
        assert_took(begun, 380);
        assert_eq!(
            (answer.status, answer.grpc_status()),
            (200, Some("4")),
            "{answer:?}"
        );
        calls += 1;
        let seen = upstream
            .wait("the cancellation", |journal| journal.resets() == calls)
            .requests
            .swap_remove(calls - 1);
        let passed = seen.header("grpc-timeout").expect("passed on");
        let (number, unit) = passed.split_at(passed.len() - 1);
        let micros: u64 = match unit {
            "m" => number.parse::<u64>().expect("a number") * 1_000,
            "u" => number.parse().expect("a number"),
            "n" => number.parse::<u64>().expect("a number") / 1_000,
            other => panic!("unit {other}"),
        };
        assert!(micros <= 400_000, "{passed}");
        micros > 200_000
    });
}
