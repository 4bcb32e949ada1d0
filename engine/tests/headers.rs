//! Which fields cross the gateway, in both directions: HI-22, HI-25, HI-57, and what is added on the way.
//!
//! A proxy changes nothing that it was not told to change: what is hop-by-hop goes, what tells about the hop is set by
//! us and by nobody else, everything else crosses as it came.

use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::http2::Http2Upstream;
use tollgate_engine::testing::journal::Request;
use tollgate_engine::testing::upstream::Upstream;

/// Sends one GET with these lines and hands back what the upstream saw.
fn seen(listener: &str, lines: &[&str]) -> Request {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&document(upstream.address(), listener, "", ""));
    let response = gateway.client().request("GET /", lines);
    assert_eq!(response.status, 200, "{response:?}");
    upstream.assert_clean();
    upstream.request()
}

#[test]
fn hi_25_hop_by_hop_fields_of_a_request_stay_on_their_hop() {
    let request = seen(
        "",
        &[
            "Connection: keep-alive, X-Secret, x-other",
            "X-Secret: 1",
            "X-Other: 2",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic eDp5",
            "TE: gzip",
            "Upgrade: h2c",
            "X-Kept: 3",
        ],
    );
    for name in [
        "x-secret",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "upgrade",
    ] {
        assert_eq!(
            request.all(name),
            [""; 0],
            "{name} crossed: {:?}",
            request.head
        );
    }
    assert!(
        !request
            .all("connection")
            .iter()
            .any(|value| value.to_lowercase().contains("x-"))
    );
    assert_eq!(request.header("x-kept"), Some("3"));
}

#[test]
fn hi_22_connection_cannot_remove_what_we_add_or_what_frames_the_message() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send(
        "POST /x HTTP/1.1\r\nHost: kept.example\r\nContent-Length: 5\r\nConnection: host, content-length, transfer-encoding, \
         x-forwarded-for, x-forwarded-proto, x-forwarded-host, via, x-request-id, traceparent, x-real-ip\r\n\
         X-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\n\r\nhello",
    );
    assert_eq!(client.read_response().status, 200);
    let request = upstream.request();
    assert_eq!(request.header("host"), Some("kept.example"));
    assert_eq!(request.body, b"hello");
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-forwarded-host"), Some("kept.example"));
    for name in ["via", "x-request-id", "traceparent"] {
        assert!(
            request.header(name).is_some_and(|value| !value.is_empty()),
            "{name} is missing: {request:?}"
        );
    }
    assert_eq!(
        request.header("x-real-ip"),
        None,
        "a field that its sender called hop-by-hop crossed"
    );
    upstream.assert_clean();
}

#[test]
fn hi_25_hop_by_hop_fields_of_an_answer_stay_on_their_hop() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            let lines = [
                "Connection: keep-alive, X-Internal",
                "X-Internal: 1",
                "Keep-Alive: timeout=5",
                "Proxy-Connection: keep-alive",
                "Proxy-Authenticate: Basic",
                "TE: trailers",
                "Upgrade: h2c",
                "X-Kept: 2",
            ];
            conn.respond("200 OK", &lines, "ok");
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let gone = [
        "x-internal",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "te",
        "upgrade",
    ];
    let response = gateway.get("/");
    for name in gone {
        assert_eq!(response.all(name), [""; 0], "{name} crossed: {response:?}");
    }
    assert_eq!(response.header("x-kept"), Some("2"));
    let answer = h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        h2_client::get(&sender, "/").await.expect("an answer")
    });
    for name in gone.into_iter().chain(["connection", "transfer-encoding"]) {
        assert_eq!(answer.header(name), None, "{name} crossed: {answer:?}");
    }
    assert_eq!(answer.header("x-kept"), Some("2"));
}

#[test]
fn hi_57_what_tells_about_the_hop_is_replaced_when_it_comes_from_outside() {
    let spoofed = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Host", "spoofed.example"),
        ("X-Forwarded-Port", "666"),
        ("X-Forwarded-Client-Cert", "Hash=spoofed"),
        ("Forwarded", "for=6.6.6.6"),
    ];
    let lines: Vec<String> = spoofed
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let request = seen("", &lines);
    for (name, value) in spoofed {
        assert!(
            !request.all(name).iter().any(|seen| seen.contains(value)),
            "{name} was believed: {:?}",
            request.head
        );
    }
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("http"));
    assert_eq!(request.header("x-forwarded-host"), Some("test.example"));
}

#[test]
fn hi_57_a_trusted_proxy_is_believed_and_extended() {
    let request = seen(
        "trusted_proxies = [\"127.0.0.0/8\"]",
        &[
            "X-Forwarded-For: 192.0.2.7",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: outer.example",
        ],
    );
    assert_eq!(
        request.header("x-forwarded-for"),
        Some("192.0.2.7, 127.0.0.1")
    );
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert_eq!(request.header("x-forwarded-host"), Some("outer.example"));
}

#[test]
fn via_tells_the_hop_behind_those_that_came_before() {
    let request = seen("", &["Via: 1.0 earlier"]);
    let via = request.all("via").join(", ");
    let (first, second) = via.split_once(',').unwrap_or_else(|| panic!("{via}"));
    assert_eq!(first, "1.0 earlier");
    assert!(second.trim().starts_with("1.1 "), "{via}");
}

#[test]
fn every_request_has_an_id_of_its_own() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    for _ in 0..3 {
        gateway.get("/");
    }
    let requests = upstream.requests();
    let mut ids: Vec<_> = requests
        .iter()
        .filter_map(|request| request.header("x-request-id"))
        .collect();
    assert!(ids.iter().all(|id| !id.is_empty()), "{ids:?}");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[test]
fn a_trace_is_joined_with_a_new_parent_or_started_when_it_is_no_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let good = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01");
    let joined = seen("", &[&good, "tracestate: a=1,b=2"]);
    let parent = joined.header("traceparent").expect("set").to_owned();
    let parts: Vec<&str> = parent.split('-').collect();
    assert_eq!(
        (parts[0], parts[1], parts[3]),
        ("00", TRACE, "01"),
        "{parent}"
    );
    assert_ne!(
        parts[2], "00f067aa0ba902b7",
        "each hop has a span of its own"
    );
    assert_eq!(joined.header("tracestate"), Some("a=1,b=2"));
    let bad = [
        vec![],
        vec!["traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned()],
        vec![format!("traceparent: 00-{TRACE}-0000000000000000-01")],
        vec![format!("traceparent: ff-{TRACE}-00f067aa0ba902b7-01")],
        vec![format!("traceparent: 00-{TRACE}-00f067aa0ba902b7")],
        vec![format!(
            "traceparent: 00-{}-00f067aa0ba902b7-01",
            TRACE.to_uppercase()
        )],
        vec![format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01-extra")],
        vec![good.clone(), good],
    ];
    for lines in bad {
        let lines: Vec<&str> = lines
            .iter()
            .map(String::as_str)
            .chain(["tracestate: a=1"])
            .collect();
        let started = seen("", &lines);
        let parent = started
            .header("traceparent")
            .unwrap_or_else(|| panic!("{lines:?}"))
            .to_owned();
        assert_eq!(parent.len(), 55, "{parent}");
        assert!(
            !parent.contains(TRACE) && !parent.contains("-0000000000000000"),
            "{lines:?}: {parent}"
        );
        assert_eq!(
            started.all("tracestate"),
            [""; 0],
            "{lines:?}: a state without its trace"
        );
    }
}

#[test]
fn everything_else_crosses_as_it_came() {
    let lines = [
        "X-Multi: a",
        "X-Multi: b",
        "X-Empty:",
        "Cookie: a=1; b=2",
        "Accept-Encoding: br",
        "X-High: caf\u{e9}",
    ];
    let request = seen("", &lines);
    assert_eq!(request.all("x-multi"), ["a", "b"]);
    assert_eq!(request.header("x-empty"), Some(""));
    assert_eq!(request.header("cookie"), Some("a=1; b=2"));
    assert_eq!(request.header("accept-encoding"), Some("br"));
    assert_eq!(request.header("x-high"), Some("café"));
    assert_eq!(request.header("host"), Some("test.example"));
    let ours = [
        "via",
        "traceparent",
        "x-request-id",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-tollgate-attempt",
    ];
    let theirs = [
        "host",
        "x-multi",
        "x-empty",
        "cookie",
        "accept-encoding",
        "x-high",
    ];
    for line in request
        .head
        .split("\r\n")
        .skip(1)
        .filter(|line| !line.is_empty())
    {
        let name = line.split(':').next().unwrap_or_default().to_lowercase();
        assert!(
            ours.contains(&&*name) || theirs.contains(&&*name),
            "nobody asked for {line:?}"
        );
    }
}

#[test]
fn an_answer_crosses_as_it_came() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            let lines = [
                "Set-Cookie: a=1",
                "Set-Cookie: b=2",
                "Server: theirs",
                "Date: Mon, 21 Oct 2013 20:13:21 GMT",
            ];
            conn.respond("299 Own Words", &lines, "ok");
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let response = gateway.get("/");
    assert_eq!(response.status, 299);
    assert_eq!(response.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(response.header("server"), Some("theirs"));
    assert_eq!(
        response.header("date"),
        Some("Mon, 21 Oct 2013 20:13:21 GMT")
    );
}

#[test]
fn an_http_2_request_becomes_a_clean_http_1_request() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let request = h2_client::request(
            "GET",
            "/a?b",
            &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")],
        );
        let answer = h2_client::exchange(&sender, request, &[], None)
            .await
            .expect("an answer");
        assert_eq!(answer.status, 200);
    });
    let request = upstream.request();
    assert_eq!(request.line(), "GET /a?b HTTP/1.1");
    assert_eq!(request.header("host"), Some("test.example"));
    assert_eq!(
        request.header("cookie"),
        Some("a=1; b=2"),
        "crumbs are joined for HTTP/1"
    );
    assert!(
        request
            .header("via")
            .is_some_and(|via| via.starts_with("2.0 ") || via.starts_with("2 ")),
        "{request:?}"
    );
    upstream.assert_clean();
}

#[test]
fn an_http_1_request_becomes_a_clean_http_2_request() {
    let upstream = Http2Upstream::echo();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "",
        "",
        "protocol = \"http2\"",
    ));
    let lines = [
        "Connection: keep-alive, x-gone",
        "X-Gone: 1",
        "Keep-Alive: timeout=1",
        "TE: gzip",
        "X-Kept: 2",
    ];
    let response = gateway.client().request("GET /a?b", &lines);
    assert_eq!(response.status, 200, "{response:?}");
    let seen = upstream.request();
    assert_eq!((&*seen.method, &*seen.path), ("GET", "/a?b"));
    assert_eq!(seen.authority.as_deref(), Some("test.example"));
    assert_eq!(seen.header("x-kept"), Some("2"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    for name in [
        "host",
        "connection",
        "keep-alive",
        "x-gone",
        "te",
        "transfer-encoding",
    ] {
        assert_eq!(seen.header(name), None, "{name} crossed");
    }
}

#[test]
fn an_http_1_0_client_is_answered_without_chunks_and_let_go() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            conn.send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            );
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let response = client.read_response();
    assert_eq!(response.text(), "hello");
    assert_eq!(response.header("transfer-encoding"), None);
    client.assert_closed();
}

#[test]
fn connection_close_is_honoured_and_answered() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    let response = client.request("GET /", &["Connection: close"]);
    assert_eq!(response.status, 200);
    assert!(!response.keeps_alive(), "{response:?}");
    client.assert_closed();
}
