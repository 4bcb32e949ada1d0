//! What flows: events and bodies unbuffered in both directions, tunnels, interim answers, answers without a body,
//! and trailers (HI-21, HI-61). gRPC is in `grpc`.
//!
//! "Unbuffered" is shown without clocks: the other end must hold the first piece before the second is sent at all.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request};
use tollgate_engine::testing::client::Ended;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_client::{self, poll_until};
use tollgate_engine::testing::http2::Http2Upstream;
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;

/// Sends one event, waits at the gate, sends another and ends.
fn events(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
            conn.send("9\r\ndata: 1\n\n\r\n");
            gate.wait();
            conn.send("9\r\ndata: 2\n\n\r\n0\r\n\r\n");
        }
    })
}

#[test]
fn events_reach_an_http_1_client_one_by_one() {
    let gate = Gate::new();
    let upstream = events(&gate);
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_head().status, 200);
    assert_eq!(client.read_chunk(), b"data: 1\n\n");
    gate.open();
    assert_eq!(client.read_chunk(), b"data: 2\n\n");
    assert_eq!(client.read_up_to("\r\n\r\n"), "0\r\n\r\n");
}

#[test]
fn events_reach_an_http_2_client_one_by_one() {
    let gate = Gate::new();
    let upstream = events(&gate);
    let gateway = Gateway::in_front_of(upstream.address());
    h2_client::run(async {
        let mut sender = h2_client::connect(gateway.address()).await;
        let (response, _) = sender
            .send_request(h2_client::request("GET", "/events", &[]), true)
            .expect("sent");
        let mut body = response.await.expect("a head").into_body();
        assert_eq!(
            h2_client::piece(&mut body)
                .await
                .expect("more")
                .expect("no error"),
            "data: 1\n\n"
        );
        gate.open();
        assert_eq!(
            h2_client::piece(&mut body)
                .await
                .expect("more")
                .expect("no error"),
            "data: 2\n\n"
        );
        let end = h2_client::piece(&mut body).await;
        assert!(end.is_none_or(|piece| piece.expect("no error").is_empty()));
    });
}

/// Whether these bytes have arrived on some connection of the upstream.
fn arrived(upstream: &Upstream, text: &str) {
    upstream.wait(text, |journal| {
        journal.received.iter().any(|bytes| {
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        })
    });
}

#[test]
fn a_request_body_reaches_the_upstream_piece_by_piece_from_http_1() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    arrived(&upstream, "first");
    client.send("6\r\nsecond\r\n0\r\n\r\n");
    assert!(client.read_response().text().ends_with("firstsecond"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nthird");
    arrived(&upstream, "third");
    client.send("forth");
    assert!(client.read_response().text().ends_with("thirdforth"));
    upstream.assert_clean();
}

#[test]
fn a_request_body_reaches_the_upstream_piece_by_piece_from_http_2() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    h2_client::run(async {
        let mut sender = h2_client::connect(gateway.address()).await;
        let (response, mut send) = sender
            .send_request(h2_client::request("POST", "/", &[]), false)
            .expect("sent");
        send.send_data(Bytes::from_static(b"first"), false)
            .expect("sent");
        tokio::task::yield_now().await;
        let waiting = tokio::task::spawn_blocking(move || {
            arrived(&upstream, "first");
            upstream
        });
        let upstream = waiting.await.expect("it arrived");
        send.send_data(Bytes::from_static(b"second"), true)
            .expect("sent");
        let answer = h2_client::read_answer(response.await.expect("a head"))
            .await
            .expect("a body");
        assert!(answer.text().ends_with("firstsecond"), "{answer:?}");
        upstream.assert_clean();
    });
}

#[test]
fn a_client_that_does_not_read_holds_the_upstream_back() {
    let (sent, stuck) = (
        std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)),
        Gate::new(),
    );
    let (count, told) = (sent.clone(), stuck.clone());
    let upstream = Upstream::http1(move |conn| {
        conn.read_request();
        conn.stream()
            .set_write_timeout(Some(Duration::from_secs(1)))
            .expect("an option");
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 268435456\r\n\r\n");
        let piece = [b'x'; 64 * 1024];
        while conn.send(piece) {
            count.fetch_add(piece.len(), std::sync::atomic::Ordering::SeqCst);
        }
        told.open();
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    stuck.wait();
    let taken = sent.load(std::sync::atomic::Ordering::SeqCst);
    assert!(
        taken < 32 << 20,
        "{taken} bytes were taken for a client that reads none"
    );
}

#[test]
fn an_upstream_that_does_not_read_holds_the_client_back() {
    let over = Gate::new();
    let wait = over.clone();
    let upstream = Upstream::http1(move |conn| {
        conn.read_head();
        wait.wait();
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client
        .stream()
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("an option");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 268435456\r\n\r\n");
    let piece = [b'x'; 64 * 1024];
    let taken = (0..4096)
        .take_while(|_| client.try_send(&piece).is_ok())
        .count()
        * piece.len();
    over.open();
    assert!(
        taken < 32 << 20,
        "{taken} bytes were taken for an upstream that reads none"
    );
}

/// Opens a tunnel and echoes what comes through it until its end, then says goodbye.
fn tunnels() -> Upstream {
    Upstream::http1(|conn| {
        let Some(request) = conn.read_request() else {
            return;
        };
        assert!(
            request.header("upgrade").is_some(),
            "an upgrade arrives: {request:?}"
        );
        // Bytes right behind the 101, in the same write, belong to the tunnel already.
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Seen: 1\r\n\r\nhello ");
        while let Some(byte) = conn.read_exact(1) {
            if !conn.send(byte) {
                return;
            }
        }
        conn.send("goodbye");
    })
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

#[test]
fn hi_61_an_upgraded_connection_carries_bytes_untouched_both_ways_and_half_closes() {
    let upstream = tunnels();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send(UPGRADE);
    let response = client.read_response();
    assert_eq!(response.status, 101, "{response:?}");
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert!(
        response
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("upgrade"))
    );
    assert_eq!(response.header("x-seen"), Some("1"));
    assert_eq!(client.read_exact(6), b"hello ");
    // Reserved bits, bad UTF-8, half a frame: none of our business.
    let odd: Vec<u8> = (0..=255).collect();
    client.send(&odd);
    assert_eq!(client.read_exact(256), odd);
    client.finish();
    let (rest, ended) = client.drain();
    assert_eq!(
        (&*rest, ended),
        (&b"goodbye"[..], Ended::Closed),
        "the other direction outlives the first"
    );
    let request = upstream.request();
    assert_eq!(request.header("upgrade"), Some("websocket"));
    assert!(
        request
            .header("connection")
            .is_some_and(|value| value.to_lowercase().contains("upgrade"))
    );
    assert_eq!(
        request.header("sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
}

#[test]
fn hi_61_a_tunnel_that_either_side_tears_down_ends_for_the_other_at_once() {
    let upstream = tunnels();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send(UPGRADE);
    assert_eq!(client.read_response().status, 101);
    client.read_exact(6);
    client.reset();
    upstream.wait("the tunnel's end", |journal| journal.ended == 1);

    let upstream = Upstream::http1(|conn| {
        conn.read_request();
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nx");
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send(UPGRADE);
    assert_eq!(client.read_response().status, 101);
    assert_eq!(client.read_exact(1), b"x");
    client.assert_closed();
}

#[test]
fn hi_61_an_idle_tunnel_ends_at_the_idle_time_out() {
    let upstream = tunnels();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "",
        "idle_timeout = \"400ms\"",
        "",
    ));
    let mut client = gateway.client();
    let begun = Instant::now();
    client.send(UPGRADE);
    assert_eq!(client.read_response().status, 101);
    client.read_exact(6);
    let (rest, ended) = client.drain();
    assert_ne!(ended, Ended::Silent);
    assert!(rest.is_empty() || rest == b"goodbye", "{rest:?}");
    assert!(
        begun.elapsed() >= Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );
    upstream.wait("the tunnel's end", |journal| journal.ended == 1);
}

#[test]
fn hi_21_no_byte_passes_a_tunnel_before_the_101() {
    let gate = Gate::new();
    let wait = gate.clone();
    let upstream = Upstream::http1(move |conn| {
        if conn
            .read_request()
            .is_some_and(|request| request.target() == "/other")
        {
            conn.respond("200 OK", &[], "");
            return;
        }
        wait.wait();
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        let early = conn.read_exact(5).unwrap_or_default();
        conn.send(early);
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send([UPGRADE.as_bytes(), b"early"].concat());
    upstream.wait("the request", |journal| journal.requests.len() == 1);
    // A whole other exchange passes meanwhile; had the early bytes been forwarded, they would be there by then.
    assert_eq!(gateway.get("/other").status, 200);
    let before = upstream.journal().received[0].clone();
    assert!(
        !before.ends_with(b"early"),
        "bytes passed before the tunnel was there"
    );
    gate.open();
    assert_eq!(client.read_response().status, 101);
    assert_eq!(client.read_exact(5), b"early");
}

#[test]
fn a_websocket_over_http_2_becomes_an_upgrade_over_http_1() {
    let upstream = tunnels();
    let gateway = Gateway::in_front_of(upstream.address());
    h2_client::run(async {
        let mut sender = h2_client::connect(gateway.address()).await;
        poll_until(|| sender.is_extended_connect_protocol_enabled()).await;
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://test.example/chat");
        request = request.header("sec-websocket-version", "13");
        let mut request = request.body(()).expect("a valid request");
        request
            .extensions_mut()
            .insert(h2::ext::Protocol::from_static("websocket"));
        let (response, mut send) = sender.send_request(request, false).expect("sent");
        let response = response.await.expect("a head");
        assert_eq!(response.status(), 200);
        assert!(
            !response.headers().contains_key("upgrade")
                && !response.headers().contains_key("sec-websocket-accept")
        );
        let mut body = response.into_body();
        assert_eq!(
            h2_client::piece(&mut body)
                .await
                .expect("more")
                .expect("no error"),
            "hello "
        );
        send.send_data(Bytes::from_static(b"\xff\x00 frames"), false)
            .expect("sent");
        let mut echoed = Vec::new();
        while echoed.len() < 9 {
            echoed.extend(
                h2_client::piece(&mut body)
                    .await
                    .expect("more")
                    .expect("no error"),
            );
        }
        assert_eq!(echoed, b"\xff\x00 frames");
        send.send_data(Bytes::new(), true).expect("sent");
        let mut rest = Vec::new();
        while let Some(Ok(piece)) = h2_client::piece(&mut body).await {
            rest.extend(piece);
        }
        assert_eq!(rest, b"goodbye");
    });
    let requests = upstream.requests();
    let request = requests
        .iter()
        .find(|request| request.target() == "/chat")
        .expect("it arrived");
    assert_eq!(request.method(), "GET");
    assert_eq!(request.header("upgrade"), Some("websocket"));
    assert_eq!(request.header("sec-websocket-version"), Some("13"));
    assert!(
        request
            .header("sec-websocket-key")
            .is_some_and(|key| key.len() == 24),
        "{request:?}"
    );
}

#[test]
fn a_websocket_towards_an_http_2_upstream_is_carried() {
    let upstream = Http2Upstream::echo();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "",
        "",
        "protocol = \"http2\"",
    ));
    h2_client::run(async {
        let mut sender = h2_client::connect(gateway.address()).await;
        poll_until(|| sender.is_extended_connect_protocol_enabled()).await;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri("http://test.example/chat");
        let mut request = request.body(()).expect("a valid request");
        request
            .extensions_mut()
            .insert(h2::ext::Protocol::from_static("websocket"));
        let (response, mut send) = sender.send_request(request, false).expect("sent");
        let response = response.await.expect("a head");
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        send.send_data(Bytes::from_static(b"frames"), false)
            .expect("sent");
        assert_eq!(
            h2_client::piece(&mut body)
                .await
                .expect("more")
                .expect("no error"),
            "frames"
        );
        let seen = upstream.request();
        assert_eq!(
            (&*seen.method, seen.protocol.as_deref()),
            ("CONNECT", Some("websocket"))
        );
        assert_eq!(seen.header("sec-websocket-key"), None);
    });
}

#[test]
fn a_client_that_asks_is_told_to_continue_before_it_sends_its_body() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    for _ in 0..2 {
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        );
        let interim = client.read_response();
        assert_eq!(interim.status, 100, "{interim:?}");
        client.send("hello");
        let response = client.read_final();
        assert!(
            response.status == 200 && response.text().ends_with("hello"),
            "{response:?}"
        );
    }
}

#[test]
fn a_head_answer_keeps_its_length_and_has_no_body() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: 1\r\n\r\n");
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    for _ in 0..2 {
        let response = client.request("HEAD /", &[]);
        assert_eq!(
            (response.status, response.header("content-length")),
            (200, Some("1234"))
        );
        assert!(response.keeps_alive(), "{response:?}");
    }
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let request = h2_client::request("HEAD", "/", &[]);
        let answer = h2_client::exchange(&sender, request, &[], None)
            .await
            .expect("an answer");
        assert_eq!(
            (answer.header("content-length"), &*answer.body),
            (Some("1234"), &b""[..])
        );
    });
    assert_eq!(
        upstream.connections(),
        1,
        "an answer to HEAD leaves its connection clean"
    );
}

#[test]
fn answers_that_have_no_body_leave_both_connections_usable() {
    let upstream = Upstream::http1(|conn| {
        while let Some(request) = conn.read_request() {
            match request.target() {
                "/304" => conn
                    .send("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 99\r\n\r\n"),
                "/204" => conn.send("HTTP/1.1 204 No Content\r\n\r\n"),
                _ => conn.respond("200 OK", &[], ""),
            };
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    for (target, status) in [("/304", 304), ("/204", 204), ("/200", 200), ("/304", 304)] {
        let response = client.get(target);
        assert_eq!(
            (response.status, &*response.body),
            (status, &b""[..]),
            "{target}"
        );
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn options_is_forwarded_with_a_path_and_with_the_asterisk() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    assert!(
        gateway
            .client()
            .request("OPTIONS /a", &[])
            .text()
            .starts_with("OPTIONS /a HTTP/1.1")
    );
    let response = gateway.client().request("OPTIONS *", &[]);
    match response.status {
        200 => assert!(
            response.text().is_empty() || response.text().starts_with("OPTIONS * HTTP/1.1"),
            "{response:?}"
        ),
        404 => assert_eq!(response.code(), "no_route"),
        _ => panic!("{response:?}"),
    }
}

#[test]
fn a_body_that_ends_with_its_connection_reaches_both_kinds_of_client_whole() {
    let upstream = Upstream::http1(|conn| {
        conn.read_request();
        conn.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let response = gateway.get("/");
    assert!(
        response.complete && response.text() == "until the end",
        "{response:?}"
    );
    let answer = h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        h2_client::get(&sender, "/").await.expect("an answer")
    });
    assert_eq!(answer.text(), "until the end");
}

#[test]
fn a_body_of_many_megabytes_crosses_unchanged_in_both_directions() {
    let upstream = Upstream::http1(|conn| {
        while let Some(request) = conn.read_request() {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                request.body.len()
            );
            conn.send(head);
            conn.send(request.body);
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let body: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
    let mut client = gateway.client();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let sending = client.send_aside([head.as_bytes(), &body].concat());
    let response = client.read_response();
    sending.join().expect("no panic").expect("all was sent");
    assert!(
        response.body == body,
        "{} bytes came back",
        response.body.len()
    );
    upstream.assert_clean();
}

fn one_trailer() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    trailers
}

#[test]
fn request_trailers_reach_the_upstream() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n");
    assert_eq!(client.read_response().status, 200);
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let request = h2_client::request("POST", "/", &[]);
        let answer = h2_client::exchange(&sender, request, &[b"hello"], Some(one_trailer())).await;
        assert_eq!(answer.expect("an answer").status, 200);
    });
    for request in upstream.requests() {
        let trailers: Vec<String> = request
            .trailers
            .iter()
            .map(|line| line.to_lowercase())
            .collect();
        assert_eq!(trailers, ["x-sum: 42"], "{request:?}");
    }
    upstream.assert_clean();
}

#[test]
fn trailers_of_an_answer_reach_both_kinds_of_client() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n");
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let response = gateway.client().request("GET /", &["TE: trailers"]);
    let trailers: Vec<_> = response
        .trailers
        .iter()
        .map(|(name, value)| (name.to_lowercase(), &**value))
        .collect();
    assert_eq!(trailers, [("x-sum".to_owned(), "42")]);
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let answer = h2_client::get(&sender, "/").await.expect("an answer");
        assert_eq!(answer.trailers, Some(one_trailer()));
    });
}
