//! What a client may say in HTTP/2, and what becomes of it when it may not: HI-26 to HI-39.
//!
//! Frames are written by hand. Whatever is refused must be refused on its stream or its connection, must never reach
//! the upstream, and must leave others unharmed: after each flood an innocent is served.

use std::time::{Duration, Instant};

use tollgate_engine::testing::client::Ended;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_raw::*;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::until;
use tollgate_engine::testing::{h2_client, hpack};

type Field<'a> = (&'a [u8], &'a [u8]);

/// A name, the fields of a request, and DATA frames with END_STREAM on the last; none: HEADERS end the stream.
type Case<'a> = (&'a str, Vec<Field<'a>>, &'a [&'a [u8]]);

/// Each must end in a stream error, a connection error or an answer of 400, and never be whole for the upstream.
fn assert_refused(cases: &[Case<'_>]) {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut faults = Vec::new();
    for (name, fields, pieces) in cases {
        let mut raw = H2Raw::connect(gateway.address());
        raw.headers(1, if pieces.is_empty() { END_STREAM } else { 0 }, fields);
        for (index, piece) in pieces.iter().enumerate() {
            raw.data(
                1,
                if index + 1 == pieces.len() {
                    END_STREAM
                } else {
                    0
                },
                piece,
            );
        }
        match raw.outcome(1) {
            Outcome::Reset {
                after_head: false, ..
            }
            | Outcome::GoAway(_) => {}
            Outcome::Answer {
                status: 400 | 431 | 501 | 405 | 505,
                ..
            } => {}
            other => faults.push(format!("{name}: {other:?}")),
        }
    }
    let honest = h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        h2_client::get(&sender, "/honest").await.expect("an answer")
    });
    assert_eq!(honest.status, 200, "an honest request is still served");
    let journal = upstream.journal();
    for request in journal.requests.iter().filter(|request| request.complete) {
        if request.target() != "/honest" {
            faults.push(format!(
                "the upstream took as whole: {:?} {:?}",
                request.head, request.body
            ));
        }
    }
    faults.extend(journal.violations);
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

/// An ordinary GET with one field more.
fn with<'a>(name: &'a [u8], value: &'a [u8]) -> Vec<Field<'a>> {
    let mut fields = request("GET", "/");
    fields.push((name, value));
    fields
}

/// An innocent on a connection of its own is answered, within the client's patience.
fn assert_innocent_served(gateway: &Gateway) {
    assert_eq!(gateway.get("/innocent").status, 200);
}

#[test]
fn hi_26_rapid_reset_is_ended_after_a_few_hundred() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut raw = H2Raw::connect(gateway.address());
    let block = hpack::encode(&request("GET", "/rapid"));
    let mut storm = Vec::new();
    for n in 0..40_000u32 {
        storm.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block));
        storm.extend(frame(RST_STREAM, 0, 2 * n + 1, &CANCEL.to_be_bytes()));
    }
    raw.send(&storm);
    assert_eq!(raw.read_goaway(), Ok(ENHANCE_YOUR_CALM));
    assert!(raw.wait_closed(), "the connection ends");
    assert_innocent_served(&gateway);
    let seen = upstream.requests().len();
    assert!(
        seen < 2_000,
        "the upstream was asked {seen} times for cancelled work"
    );
}

#[test]
fn hi_26_slow_resets_of_requests_in_flight_are_counted_too() {
    // Every request reaches the upstream, which never answers, before it is cancelled.
    let upstream = Upstream::http1(|conn| {
        conn.read_head();
        conn.wait_closed();
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut raw = H2Raw::connect(gateway.address());
    for n in 0..50 {
        raw.get(2 * n + 1, "/slow");
        upstream.wait("the request", |journal| journal.requests.len() > n as usize);
        raw.reset(2 * n + 1, CANCEL);
    }
    let journal = upstream.wait("the cancellations", |journal| {
        journal.ended == journal.connections
    });
    assert_eq!(
        journal.connections, 50,
        "a cancelled HTTP/1 exchange gives its connection up"
    );
}

#[test]
fn hi_26_cancelling_work_that_has_begun_is_a_storm_too_after_a_few_hundred() {
    let upstream = Upstream::http1(|conn| {
        conn.read_head();
        conn.wait_closed();
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut raw = H2Raw::connect(gateway.address());
    let mut begun = 0;
    let goaway = 'storm: loop {
        assert!(
            begun < 2_000,
            "{begun} requests were begun and cancelled, and nothing was said"
        );
        raw.get(2 * begun + 1, "/slow");
        // Only work that has reached the upstream is cancelled.
        while upstream.requests().len() <= begun as usize {
            match raw.read_frame_by(Instant::now() + Duration::from_millis(5)) {
                Ok(frame) if frame.kind == GOAWAY => break 'storm frame,
                Ok(_) | Err(Ended::Silent) => {}
                Err(ended) => panic!("{ended:?} without GOAWAY after {begun}"),
            }
        }
        raw.reset(2 * begun + 1, CANCEL);
        begun += 1;
    };
    assert_eq!(goaway.code(), ENHANCE_YOUR_CALM);
    assert!(
        begun > 50,
        "an honest client may cancel now and then: ended after {begun}"
    );
    upstream.wait("every cancellation", |journal| {
        journal.ended == journal.connections
    });
}

#[test]
fn hi_27_resets_that_the_server_is_made_to_send_are_counted_as_well() {
    type Provoke = fn(u32) -> Vec<u8>;
    let means: [(&str, Provoke); 6] = [
        ("zero increment", |id| frame(WINDOW_UPDATE, 0, id, &[0; 4])),
        ("window overflow", |id| {
            frame(WINDOW_UPDATE, 0, id, &0x7fff_ffffu32.to_be_bytes())
        }),
        ("DATA after the end", |id| frame(DATA, 0, id, b"late")),
        ("HEADERS after the end", |id| {
            frame(
                HEADERS,
                END_HEADERS,
                id,
                &hpack::encode(&request("GET", "/late")),
            )
        }),
        ("PRIORITY of four bytes", |id| {
            frame(PRIORITY, 0, id, &[0; 4])
        }),
        ("dependency on itself", |id| {
            frame(PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[0]].concat())
        }),
    ];
    let upstream = Upstream::http1(|conn| {
        conn.read_head();
        conn.wait_closed();
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut faults = Vec::new();
    for (name, provoke) in means {
        let before = upstream.requests().len();
        let mut raw = H2Raw::connect(gateway.address());
        let block = hpack::encode(&request("GET", "/made"));
        let mut storm = Vec::new();
        for n in 0..10_000u32 {
            storm.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block));
            storm.extend(provoke(2 * n + 1));
        }
        raw.write_limit(Duration::from_secs(5));
        raw.send(&storm);
        // A peer that ignores the frame must still refuse streams beyond its limit: the open ones never end here.
        let seen = upstream.requests().len() - before;
        let ended = raw.read_goaway();
        if ended.is_err() && !raw.wait_closed() && seen > 1_000 {
            faults.push(format!("{name}: {ended:?}, no end, {seen} requests"));
        }
        if seen > 2_000 {
            faults.push(format!("{name}: {seen} requests reached the upstream"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn hi_28_a_continuation_flood_is_ended_whether_big_or_empty() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let filler = hpack::encode(&[(b"x-filler", &[b'x'; 16_000])]);
    for (name, payload, count) in [("big", &filler[..], 10_000), ("empty", &[][..], 100_000)] {
        let mut raw = H2Raw::connect(gateway.address());
        raw.frame(HEADERS, END_STREAM, 1, &hpack::encode(&request("GET", "/")));
        let piece = frame(CONTINUATION, 0, 1, payload);
        let refused = (0..count).any(|_| !raw.send(&piece));
        let goaway = raw.read_goaway();
        assert!(
            refused || goaway.is_ok() || raw.wait_closed(),
            "{name}: the flood was taken whole: {goaway:?}"
        );
        assert_innocent_served(&gateway);
    }
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.target() == "/innocent")
    );
}

#[test]
fn hi_29_a_header_bomb_by_reference_is_refused_before_it_grows() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut raw = H2Raw::connect(gateway.address());
    let mut block = hpack::encode(&request("GET", "/"));
    block.extend(hpack::remembered(b"x-bomb", &[b'x'; 3_900]));
    block.extend(hpack::indexed(62).repeat(10_000));
    raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
    match raw.outcome(1) {
        Outcome::Answer { status: 431, .. }
        | Outcome::Reset {
            after_head: false, ..
        }
        | Outcome::GoAway(_) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(upstream.connections(), 0);
    assert_innocent_served(&gateway);
}

#[test]
fn hi_30_sixteen_thousand_cookie_crumbs_are_refused() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    for value in [&b""[..], b"a=b"] {
        for _ in 0..4 {
            let mut raw = H2Raw::connect_with(gateway.address(), &[(4, 0)]);
            for n in 0..10 {
                let mut block = hpack::encode(&request("GET", "/"));
                block.extend(hpack::remembered(b"cookie", value));
                block.extend(hpack::indexed(62).repeat(15_000));
                raw.frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block);
            }
            match raw.outcome(1) {
                Outcome::Answer {
                    status: 400 | 431, ..
                }
                | Outcome::Reset { .. }
                | Outcome::GoAway(_)
                | Outcome::Ended(Ended::Closed | Ended::Reset) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(upstream.connections(), 0, "no crumb reaches the upstream");
    assert_innocent_served(&gateway);
}

#[test]
fn hi_30_a_few_hundred_fields_are_too_many_however_short() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut raw = H2Raw::connect(gateway.address());
    let mut fields = request("GET", "/");
    fields.extend(std::iter::repeat_n((&b"x"[..], &b"1"[..]), 1_000));
    raw.headers(1, END_STREAM, &fields);
    match raw.outcome(1) {
        Outcome::Answer { status: 431, .. }
        | Outcome::Reset {
            after_head: false, ..
        }
        | Outcome::GoAway(_) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn hi_31_floods_of_small_frames_leave_innocents_unharmed() {
    let upstream = Upstream::http1(|conn| match conn.read_head() {
        Some(request) if request.target() == "/innocent" => {
            conn.respond("200 OK", &["Connection: close"], "ok");
        }
        _ => {
            conn.wait_closed();
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let floods: [(&str, Vec<u8>); 6] = [
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        (
            "SETTINGS with values",
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        ),
        ("PING", frame(PING, 0, 0, b"12345678")),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9])),
        (
            "WINDOW_UPDATE",
            frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()),
        ),
        ("empty DATA", frame(DATA, 0, 1, &[])),
    ];
    for (name, one) in floods {
        let mut raw = H2Raw::connect(gateway.address());
        raw.headers(1, 0, &request("POST", "/flood"));
        raw.write_limit(Duration::from_secs(2));
        let flood = one.repeat(200_000);
        let flooding = std::thread::spawn(move || {
            let taken = raw.send(&flood);
            (raw, taken)
        });
        for _ in 0..20 {
            assert_innocent_served(&gateway);
        }
        let (raw, _) = flooding
            .join()
            .unwrap_or_else(|_| panic!("{name}: the flood's thread panicked"));
        drop(raw);
        assert_innocent_served(&gateway);
    }
}

#[test]
fn hi_32_streams_whose_window_stays_shut_are_reset_after_the_idle_time_out() {
    let upstream = Upstream::http1(|conn| {
        let body = "x".repeat(1 << 20);
        while conn.read_request().is_some() && conn.respond("200 OK", &[], &body) {}
    });
    let gateway = Gateway::start(&document(
        upstream.address(),
        "",
        "idle_timeout = \"500ms\"",
        "",
    ));
    let mut raw = H2Raw::connect_with(gateway.address(), &[(4, 0)]);
    for n in 0..50 {
        raw.get(2 * n + 1, "/large");
    }
    match raw.outcome(1) {
        Outcome::Reset {
            after_head: true, ..
        }
        | Outcome::GoAway(_) => {}
        other => panic!("a stream that takes nothing stays: {other:?}"),
    }
    let journal = upstream.wait("the connections to be given up", |journal| {
        journal.ended == journal.connections
    });
    assert!(journal.connections <= 50);
}

#[test]
fn hi_33_fields_that_only_http_1_knows_are_stream_errors() {
    assert_refused(&[
        (
            "transfer-encoding",
            with(b"transfer-encoding", b"chunked"),
            &[],
        ),
        ("connection", with(b"connection", b"close"), &[]),
        (
            "connection naming a field",
            with(b"connection", b"x-a"),
            &[],
        ),
        ("keep-alive", with(b"keep-alive", b"timeout=5"), &[]),
        ("upgrade", with(b"upgrade", b"websocket"), &[]),
        ("proxy-connection", with(b"proxy-connection", b"close"), &[]),
        ("te other than trailers", with(b"te", b"gzip"), &[]),
        (
            "te with more than trailers",
            with(b"te", b"trailers, gzip"),
            &[],
        ),
    ]);
}

#[test]
fn hi_34_a_length_that_differs_from_the_data_is_never_whole_upstream() {
    let post = |length: &'static [u8]| {
        let mut fields = request("POST", "/");
        fields.push((b"content-length", length));
        fields
    };
    let mut two = post(b"5");
    two.push((b"content-length", b"6"));
    assert_refused(&[
        ("too little", post(b"10"), &[b"hello"]),
        ("too much", post(b"3"), &[b"hello"]),
        (
            "too much in a second frame",
            post(b"5"),
            &[b"hello", b"world"],
        ),
        ("nothing at all", post(b"5"), &[]),
        ("no number", post(b"abc"), &[b"hello"]),
        ("a sign", post(b"+5"), &[b"hello"]),
        ("empty", post(b""), &[b"hello"]),
        ("beyond 64 bits", post(b"18446744073709551621"), &[b"hello"]),
        ("two that differ", two, &[b"hello"]),
    ]);
}

#[test]
fn hi_35_characters_that_would_split_a_message_are_stream_errors() {
    assert_refused(&[
        ("CR LF in a value", with(b"x-a", b"1\r\nx-b: 2"), &[]),
        ("LF in a value", with(b"x-a", b"1\n2"), &[]),
        ("CR in a value", with(b"x-a", b"1\r2"), &[]),
        ("NUL in a value", with(b"x-a", b"1\x002"), &[]),
        ("CR LF in a name", with(b"x-a\r\nx-b", b"1"), &[]),
        ("NUL in a name", with(b"x-\x00a", b"1"), &[]),
        ("a colon in a name", with(b"x:a", b"1"), &[]),
        ("a space in a name", with(b"x a", b"1"), &[]),
        ("upper case", with(b"X-A", b"1"), &[]),
        ("an empty name", with(b"", b"1"), &[]),
        ("high bytes in a name", with(b"x-\xc3\xa4", b"1"), &[]),
        (
            "a control character in a value",
            with(b"x-a", b"1\x012"),
            &[],
        ),
        ("DEL in a value", with(b"x-a", b"1\x7f2"), &[]),
    ]);
}

#[test]
fn hi_35_blanks_around_a_value_are_refused_or_removed() {
    for value in [&b" 1"[..], b"1 ", b"\t1"] {
        let upstream = Upstream::echo();
        let gateway = Gateway::in_front_of(upstream.address());
        let mut raw = H2Raw::connect(gateway.address());
        raw.headers(1, END_STREAM, &with(b"x-a", value));
        match raw.outcome(1) {
            Outcome::Answer { status: 200, .. } => {
                let head = upstream.request().head;
                assert!(head.to_lowercase().contains("x-a: 1\r\n"), "{head:?}");
            }
            Outcome::Answer { status: 400, .. } | Outcome::Reset { .. } | Outcome::GoAway(_) => {
                assert_eq!(upstream.connections(), 0);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn hi_36_pseudo_headers_are_exact() {
    let base = || request("GET", "/");
    let without = |name: &'static [u8]| {
        let mut fields = base();
        fields.retain(|field| field.0 != name);
        fields
    };
    let changed = |name: &'static [u8], value: &'static [u8]| {
        let mut fields = base();
        fields
            .iter_mut()
            .filter(|field| field.0 == name)
            .for_each(|field| field.1 = value);
        fields
    };
    let mut late = vec![(&b"x-a"[..], &b"1"[..])];
    late.extend(base());
    let mut tunnel = with(b":protocol", b"websocket\r\nx-smuggled: 1");
    tunnel
        .iter_mut()
        .filter(|field| field.0 == b":method")
        .for_each(|field| field.1 = b"CONNECT");
    let mut no_host = without(b":authority");
    no_host.push((b"x-a", b"1"));
    assert_refused(&[
        ("two methods", with(b":method", b"POST"), &[]),
        ("two paths", with(b":path", b"/b"), &[]),
        ("two schemes", with(b":scheme", b"https"), &[]),
        ("two authorities", with(b":authority", b"b"), &[]),
        ("behind a field", late, &[]),
        ("unknown", with(b":unknown", b"1"), &[]),
        ("one of an answer", with(b":status", b"200"), &[]),
        (
            "protocol without CONNECT",
            with(b":protocol", b"websocket"),
            &[],
        ),
        ("a protocol with CR LF", tunnel, &[]),
        ("no method", without(b":method"), &[]),
        ("no path", without(b":path"), &[]),
        ("no scheme", without(b":scheme"), &[]),
        ("neither authority nor host", no_host, &[]),
        ("an empty path", changed(b":path", b""), &[]),
        ("a path without a slash", changed(b":path", b"a"), &[]),
        ("a path with a space", changed(b":path", b"/a b"), &[]),
        (
            "a path with CR LF",
            changed(b":path", b"/ HTTP/1.1\r\nx-a: 1\r\n\r\n"),
            &[],
        ),
        ("a path with NUL", changed(b":path", b"/\x00"), &[]),
        ("an asterisk with GET", changed(b":path", b"*"), &[]),
        ("a method with a space", changed(b":method", b"GET /"), &[]),
        ("a method with CR LF", changed(b":method", b"GET\r\n"), &[]),
        ("an empty method", changed(b":method", b""), &[]),
        (
            "a scheme that holds more",
            changed(b":scheme", b"http://a/?"),
            &[],
        ),
        ("an empty authority", changed(b":authority", b""), &[]),
        (
            "user info",
            changed(b":authority", b"user@test.example"),
            &[],
        ),
        (
            "an authority with a slash",
            changed(b":authority", b"a/b"),
            &[],
        ),
        (
            "an authority with a space",
            changed(b":authority", b"a b"),
            &[],
        ),
        (
            "an authority with CR LF",
            changed(b":authority", b"a\r\nx-a: 1"),
            &[],
        ),
        ("a host that differs", with(b"host", b"other.example"), &[]),
        ("TRACE", changed(b":method", b"TRACE"), &[]),
        (
            "plain CONNECT",
            vec![(b":method", b"CONNECT"), (b":authority", b"a:443")],
            &[],
        ),
    ]);
}

#[test]
fn hi_37_frames_that_break_the_rules_end_the_connection() {
    let block = hpack::encode(&request("GET", "/"));
    let headers = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    let open = |stream| frame(HEADERS, END_HEADERS, stream, &block);
    let dependency = [&[0, 0, 0, 1, 9][..], &block].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        ("HEADERS on stream 0", headers(0)),
        ("an even stream", headers(2)),
        ("a stream that goes back", [headers(5), headers(3)].concat()),
        ("a frame too large", frame(DATA, 0, 1, &[0; 16_385])),
        (
            "HEADERS too large",
            frame(HEADERS, END_HEADERS, 1, &[0; 16_385]),
        ),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])),
        ("SETTINGS of 3 bytes", frame(SETTINGS, 0, 0, &[0; 3])),
        ("an ACK with a payload", frame(SETTINGS, ACK, 0, &[0; 6])),
        ("push set to 2", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])),
        (
            "a window too large",
            frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
        ),
        (
            "a frame size too small",
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]),
        ),
        ("PING of 6 bytes", frame(PING, 0, 0, &[0; 6])),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8])),
        ("zero increment", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        (
            "window overflow",
            frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes()),
        ),
        (
            "WINDOW_UPDATE of 3 bytes",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
        ),
        (
            "WINDOW_UPDATE on idle",
            frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes()),
        ),
        (
            "RST_STREAM on idle",
            frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()),
        ),
        (
            "RST_STREAM on stream 0",
            frame(RST_STREAM, 0, 0, &CANCEL.to_be_bytes()),
        ),
        (
            "RST_STREAM of 3 bytes",
            [open(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
        ),
        ("DATA on idle", frame(DATA, 0, 1, b"x")),
        (
            "CONTINUATION alone",
            frame(CONTINUATION, END_HEADERS, 1, &block),
        ),
        (
            "a frame inside a header block",
            [frame(HEADERS, 0, 1, &block), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        (
            "another stream inside a header block",
            [frame(HEADERS, 0, 1, &block), headers(3)].concat(),
        ),
        (
            "PUSH_PROMISE",
            [open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])].concat(),
        ),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8])),
        (
            "padding longer than the frame",
            [open(1), frame(DATA, 8, 1, &[9, 0])].concat(),
        ),
        (
            "a broken header block",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x80]),
        ),
        (
            "an index without an entry",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0x7f]),
        ),
        (
            "dependency on itself",
            frame(HEADERS, 0x20 | END_HEADERS | END_STREAM, 1, &dependency),
        ),
    ];
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut faults = Vec::new();
    for (name, bytes) in cases {
        let mut raw = H2Raw::connect(gateway.address());
        raw.send(&bytes);
        match raw.outcome(1) {
            Outcome::GoAway(_) => {}
            // Where RFC 9113 allows a stream error, or asks for nothing but the end.
            Outcome::Reset {
                after_head: false, ..
            } => {}
            Outcome::Ended(ended) if ended != Ended::Silent => {}
            // The request before the fault may be answered first.
            Outcome::Answer { .. } if raw.read_goaway().is_ok() => {}
            other => faults.push(format!("{name}: {other:?}")),
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    upstream.assert_clean();
}

#[test]
fn hi_37_a_client_that_is_still_sending_after_its_mistake_is_not_reset() {
    // RFC 9113, section 5.4.1: the error is told before the connection closes. Bytes that nobody reads make a close a
    // reset, which fails the client's writing before it has read why.
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    // For two seconds: a client that has not sent all by then plays it again.
    until("a client that sends in time", || {
        let mut raw = H2Raw::connect(gateway.address());
        let begun = Instant::now();
        raw.data(0, 0, b"on no stream");
        assert_eq!(raw.read_goaway(), Ok(PROTOCOL_ERROR));
        assert_eq!(raw.read_goaway(), Err(Ended::Closed));
        // More than sockets hold, less than the gateway is willing to drop.
        let refused = (0..6).find(|_| !raw.send(&[0; 1 << 20]));
        let in_time = begun.elapsed() < Duration::from_secs(2);
        assert!(
            refused.is_none() || !in_time,
            "reset within MiB {refused:?}"
        );
        in_time
    });
}

#[test]
fn hi_37_a_frame_of_an_unknown_type_is_ignored() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut raw = H2Raw::connect(gateway.address());
    raw.frame(0x16, 0xff, 0, b"whatever");
    raw.get(1, "/");
    assert!(matches!(
        raw.outcome(1),
        Outcome::Answer { status: 200, .. }
    ));
}

#[test]
fn hi_38_a_bad_preface_ends_the_connection_at_once() {
    let upstream = Upstream::echo();
    for protocol in ["auto", "http2"] {
        // Longer than anybody waits here: it is not the time-out that ends it.
        let listener = format!("protocol = \"{protocol}\"\nheader_timeout = \"10m\"");
        let gateway = Gateway::start(&document(upstream.address(), &listener, "", ""));
        for bytes in [
            &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
            b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n",
            b"\0\0\0\x04\0\0\0\0\0",
        ] {
            let mut raw = H2Raw::connect_silently(gateway.address());
            raw.send(bytes);
            assert!(
                raw.wait_closed(),
                "{protocol}: stays open after {:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn hi_38_the_end_after_a_bad_preface_is_no_reset() {
    // RFC 9113, section 3.4: a connection error, without a GOAWAY. What h2spec sends, longer than a preface.
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "protocol = \"http2\"",
        "",
        "",
    ));
    let mut raw = H2Raw::connect_silently(gateway.address());
    raw.send(b"INVALID CONNECTION PREFACE\r\n\r\n");
    assert_eq!(raw.read_goaway(), Err(Ended::Closed));
}

#[test]
fn hi_38_http_1_on_a_listener_for_http_2_ends_at_once() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "protocol = \"http2\"",
        "",
        "",
    ));
    let mut raw = H2Raw::connect_silently(gateway.address());
    raw.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(raw.wait_closed());
    assert_eq!(upstream.connections(), 0);
}
