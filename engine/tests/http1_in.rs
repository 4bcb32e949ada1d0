//! What a client may say in HTTP/1, and what becomes of it when it may not: HI-1 to HI-21 and HI-23, HI-24.
//!
//! A message whose end cannot be told for certain is refused and its connection closed; what the upstream sees of it
//! is checked as closely as what the client sees.

mod support;

use std::time::{Duration, Instant};

use support::{assert_refused, chunked, excerpt, get, post};
use tollgate_engine::testing::client::Ended;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::until;

const FRAMING: &[&str] = &["bad_framing"];
const HEADER: &[&str] = &["bad_header"];
const EITHER: &[&str] = &["bad_framing", "bad_header"];
const CHUNK: &[&str] = &["bad_chunk"];

#[test]
fn hi_1_two_framings_are_refused_and_the_connection_closes() {
    let body = "0\r\n\r\n";
    assert_refused(&[
        (
            "length first",
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", body),
            FRAMING,
        ),
        (
            "coding first",
            post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", body),
            FRAMING,
        ),
        (
            "length of zero",
            post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", body),
            FRAMING,
        ),
        (
            "upper case",
            post("CONTENT-LENGTH: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n", body),
            FRAMING,
        ),
    ]);
}

#[test]
fn hi_2_lengths_that_differ_are_refused() {
    assert_refused(&[
        (
            "two lines",
            post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
            FRAMING,
        ),
        ("a list", post("Content-Length: 5, 6\r\n", "hello"), FRAMING),
        (
            "zero and five",
            post("Content-Length: 0\r\nContent-Length: 5\r\n", "hello"),
            FRAMING,
        ),
    ]);
}

#[test]
fn hi_2_equal_lengths_are_refused_or_sent_as_one() {
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
    ] {
        let upstream = Upstream::echo();
        let gateway = Gateway::in_front_of(upstream.address());
        let mut client = gateway.client();
        let response = client.send(post(lines, "hello")).read_response();
        match response.status {
            200 => assert_eq!(upstream.request().all("content-length"), ["5"]),
            400 => {
                assert_eq!(response.code(), "bad_framing");
                client.assert_closed();
                assert_eq!(upstream.requests().len(), 0);
            }
            other => panic!("{other}: {response:?}"),
        }
        upstream.assert_clean();
    }
}

#[test]
fn hi_3_a_length_that_is_no_plain_number_is_refused() {
    let values = [
        "+5",
        "-5",
        "0x5",
        "5_0",
        "5 5",
        "",
        "5,",
        ",5",
        "\"5\"",
        "5.0",
        "5e0",
        "a",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999999",
    ];
    let cases: Vec<_> = values
        .iter()
        .map(|value| {
            (
                *value,
                post(&format!("Content-Length: {value}\r\n"), "hello"),
                EITHER,
            )
        })
        .collect();
    assert_refused(&cases);
}

#[test]
fn hi_4_a_transfer_coding_other_than_one_chunked_is_refused() {
    let values = [
        "xchunked",
        "chunkedx",
        "chunked, chunked",
        "identity",
        "chunked, identity",
        "identity, chunked",
        "chunked,",
        ",chunked",
        "\"chunked\"",
        "'chunked'",
        "gzip, chunked",
        "chunked, gzip",
        "gzip",
        "",
        "chunked;q=1",
        "chunked\0",
        "\u{b}chunked",
        "\u{c}chunked",
        "chunked\u{b}",
        "chun ked",
    ];
    let mut cases: Vec<_> = values
        .iter()
        .map(|value| {
            (
                *value,
                post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n"),
                EITHER,
            )
        })
        .collect();
    let twice = post(
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
    );
    cases.push(("two lines", twice, FRAMING));
    let mixed = post(
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "0\r\n\r\n",
    );
    cases.push(("two lines that differ", mixed, FRAMING));
    assert_refused(&cases);
}

#[test]
fn hi_4_chunked_in_any_case_is_understood() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let response = gateway
        .client()
        .send(post(
            "Transfer-Encoding: \tChUnKeD \r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ))
        .read_response();
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(upstream.request().body, b"hello");
    upstream.assert_clean();
}

#[test]
fn hi_5_field_names_that_are_no_tokens_are_refused() {
    let lines = [
        "X-A : 1",
        "X-A\t: 1",
        " X-A: 1",
        ": 1",
        "X-A",
        "X A: 1",
        "X(A): 1",
        "X-A\u{7f}: 1",
        "X-Ä: 1",
        "X@A: 1",
        "\"X\": 1",
        "X[1]: 1",
        "X/A: 1",
        "X,A: 1",
        "X\u{1}A: 1",
        "Content-Length : 5",
        "Transfer-Encoding : chunked",
    ];
    let cases: Vec<_> = lines
        .iter()
        .map(|line| (*line, get(&format!("{line}\r\n")), EITHER))
        .collect();
    assert_refused(&cases);
}

#[test]
fn hi_6_folded_lines_are_refused() {
    assert_refused(&[
        ("a value", get("X-A: 1\r\n 2\r\n"), HEADER),
        ("with a tab", get("X-A: 1\r\n\t2\r\n"), HEADER),
        (
            "a framing header in a fold",
            get("X-A: 1\r\n Transfer-Encoding: chunked\r\n"),
            HEADER,
        ),
        (
            "a folded framing header",
            post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
            EITHER,
        ),
        (
            "before the first field",
            b"GET / HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n".to_vec(),
            HEADER,
        ),
    ]);
}

#[test]
fn hi_7_bare_line_ends_and_nul_are_refused() {
    const ANY: &[&str] = &["bad_header", "bad_request_line", "bad_framing"];
    assert_refused(&[
        ("CR in a value", get("X-A: 1\r2\r\n"), HEADER),
        ("CR in a name", get("X-\rA: 1\r\n"), HEADER),
        ("CR before the line end", get("X-A: 1\r\r\n"), HEADER),
        ("NUL in a value", get("X-A: 1\x002\r\n"), HEADER),
        ("NUL in a name", get("X-\0A: 1\r\n"), HEADER),
        (
            "NUL in the target",
            b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            &["bad_request_line", "bad_path", "bad_header"],
        ),
        (
            "CR in the request line",
            b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            &["bad_request_line", "bad_path", "bad_header"],
        ),
        ("LF ends a field", get("X-A: 1\nX-B: 2\r\n"), HEADER),
        (
            "LF ends the request line",
            b"GET / HTTP/1.1\nHost: a\r\n\r\n".to_vec(),
            ANY,
        ),
        (
            "LF ends everything",
            b"GET / HTTP/1.1\nHost: a\n\n".to_vec(),
            ANY,
        ),
        (
            "LF ends the head",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n".to_vec(),
            ANY,
        ),
    ]);
}

#[test]
fn hi_8_control_characters_in_values_are_refused() {
    let codes = (1u8..0x20)
        .filter(|byte| !matches!(byte, b'\t' | b'\n' | b'\r'))
        .chain([0x7f]);
    let cases: Vec<_> = codes
        .map(|byte| {
            (
                "control",
                get(&format!("X-A: a{}b\r\n", char::from(byte))),
                HEADER,
            )
        })
        .collect();
    assert_refused(&cases);
}

#[test]
fn hi_9_bad_chunk_sizes_are_refused_and_the_upstream_never_sees_the_body_end() {
    let sizes = [
        "+5",
        "-5",
        "0x5",
        "5_0",
        " 5",
        "",
        "g",
        "FFFFFFFFFFFFFFFFF",
        "10000000000000005",
        "5h",
        "\t5",
        "5 5",
        "5,",
        "٥",
    ];
    let cases: Vec<_> = sizes
        .iter()
        .map(|size| {
            (
                *size,
                chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")),
                CHUNK,
            )
        })
        .collect();
    assert_refused(&cases);
}

#[test]
fn hi_9_a_bad_size_behind_a_good_chunk_aborts_the_upstream() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send(chunked("5\r\nhello\r\n"));
    upstream.wait("the good chunk", |journal| {
        journal
            .received
            .iter()
            .any(|bytes| bytes.windows(5).any(|window| window == b"hello"))
    });
    client.send("+5\r\nworld\r\n0\r\n\r\n");
    let response = client.read_response();
    assert_eq!((response.status, &*response.code()), (400, "bad_chunk"));
    client.assert_closed();
    let journal = upstream.wait("the abort", |journal| journal.ended == 1);
    assert!(journal.complete().is_empty(), "{journal:?}");
    let received = String::from_utf8_lossy(&journal.received[0]).into_owned();
    assert!(
        !received.contains("world") && !received.contains("\r\n0\r\n"),
        "{received:?}"
    );
}

#[test]
fn hi_10_chunk_data_without_its_line_end_is_refused() {
    assert_refused(&[
        ("too long", chunked("5\r\nhelloX\r\n0\r\n\r\n"), CHUNK),
        ("too short", chunked("6\r\nhello\r\n0\r\n\r\n"), CHUNK),
        ("LF behind data", chunked("5\r\nhello\n0\r\n\r\n"), CHUNK),
        ("CR behind data", chunked("5\r\nhello\r0\r\n\r\n"), CHUNK),
        (
            "LF behind the size",
            chunked("5\nhello\r\n0\r\n\r\n"),
            CHUNK,
        ),
        (
            "CR behind the size",
            chunked("5\rhello\r\n0\r\n\r\n"),
            CHUNK,
        ),
        ("LF behind the last chunk", chunked("0\n\r\n"), CHUNK),
        (
            "LF ends the body",
            chunked("5\r\nhello\r\n0\r\n\n"),
            &["bad_chunk", "bad_header"],
        ),
    ]);
}

#[test]
fn hi_11_chunk_extensions_are_bounded_and_clean() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(400));
    let many = format!(
        "{}0\r\n\r\n",
        format!("1;{}\r\nx\r\n", "y".repeat(200)).repeat(100)
    );
    assert_refused(&[
        ("one of 400 bytes", chunked(&long), CHUNK),
        ("100 of 200 bytes", chunked(&many), CHUNK),
        (
            "a control character",
            chunked("5;a=\u{1}\r\nhello\r\n0\r\n\r\n"),
            CHUNK,
        ),
        ("NUL", chunked("5;a=\0\r\nhello\r\n0\r\n\r\n"), CHUNK),
        ("a bare LF", chunked("5;a=1\nhello\r\n0\r\n\r\n"), CHUNK),
        ("a bare CR", chunked("5;a=\r1\r\nhello\r\n0\r\n\r\n"), CHUNK),
        (
            "a quoted CRLF",
            chunked("5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"),
            CHUNK,
        ),
    ]);
}

#[test]
fn hi_11_a_harmless_extension_is_not_forwarded() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let response = gateway
        .client()
        .send(chunked("5;name=value\r\nhello\r\n0;last\r\n\r\n"))
        .read_response();
    if response.status == 200 {
        let journal = upstream.journal();
        let received = String::from_utf8_lossy(&journal.received[0]).into_owned();
        assert!(
            !received.contains("name=value") && !received.contains(";last"),
            "{received:?}"
        );
        assert_eq!(upstream.request().body, b"hello");
    } else {
        assert_eq!(response.code(), "bad_chunk");
    }
    upstream.assert_clean();
}

#[test]
fn hi_12_trailers_are_bounded_and_of_good_names() {
    let large = format!("0\r\nX-Large: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("0\r\n{}\r\n", "X-Many: 1\r\n".repeat(1_000));
    const TRAILER: &[&str] = &["bad_chunk", "bad_header", "header_too_large"];
    assert_refused(&[
        ("100 KB", chunked(&large), TRAILER),
        ("1,000 fields", chunked(&many), TRAILER),
        ("a bad name", chunked("0\r\nX A: 1\r\n\r\n"), TRAILER),
        ("no colon", chunked("0\r\nX-A\r\n\r\n"), TRAILER),
        ("a fold", chunked("0\r\nX-A: 1\r\n 2\r\n\r\n"), TRAILER),
        (
            "a control character",
            chunked("0\r\nX-A: \u{1}\r\n\r\n"),
            TRAILER,
        ),
        ("a bare LF", chunked("0\r\nX-A: 1\n\r\n"), TRAILER),
    ]);
}

#[test]
fn hi_12_trailers_never_carry_framing_host_or_credentials() {
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Authorization",
        "Connection",
        "Cookie",
    ] {
        let upstream = Upstream::echo();
        let gateway = Gateway::in_front_of(upstream.address());
        let mut client = gateway.client();
        let response = client
            .send(chunked(&format!("0\r\n{name}: 5\r\nX-Good: 1\r\n\r\n")))
            .read_response();
        if response.status == 200 {
            let trailers = upstream.request().trailers;
            let bad = trailers
                .iter()
                .find(|line| line.to_lowercase().starts_with(&name.to_lowercase()));
            assert!(bad.is_none(), "{name} was forwarded: {trailers:?}");
        } else {
            assert_eq!(response.status, 400, "{name}: {response:?}");
            assert!(upstream.journal().complete().is_empty());
        }
        upstream.assert_clean();
    }
}

#[test]
fn hi_13_a_request_names_exactly_one_valid_host() {
    const HOST: &[&str] = &["bad_host"];
    let with = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n").into_bytes();
    let either: &[&str] = &["bad_host", "bad_header"];
    assert_refused(&[
        ("missing", with(""), HOST),
        ("twice", with("Host: a\r\nHost: a\r\n"), HOST),
        ("two that differ", with("Host: a\r\nHost: b\r\n"), HOST),
        ("a list", with("Host: a, b\r\n"), HOST),
        ("a list without a blank", with("Host: a,b\r\n"), HOST),
        ("a blank inside", with("Host: a b\r\n"), HOST),
        ("a slash", with("Host: a/b\r\n"), HOST),
        ("user info", with("Host: user@a\r\n"), HOST),
        ("a query", with("Host: a?b\r\n"), HOST),
        ("a fragment", with("Host: a#b\r\n"), HOST),
        ("a backslash", with("Host: a\\b\r\n"), HOST),
        ("a bad port", with("Host: a:b\r\n"), HOST),
        ("a port beyond 65535", with("Host: a:65536\r\n"), HOST),
        ("two ports", with("Host: a:1:2\r\n"), HOST),
        ("high bytes", with("Host: ä\r\n"), either),
        ("markup", with("Host: <a>\r\n"), HOST),
        (
            "absolute form, host missing",
            b"GET http://a/ HTTP/1.1\r\n\r\n".to_vec(),
            HOST,
        ),
        (
            "absolute form with user info",
            b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            &["bad_host", "bad_path", "bad_request_line"],
        ),
    ]);
}

#[test]
fn hi_13_an_absolute_target_overrides_the_host_header() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let response = gateway
        .client()
        .send("GET http://real.example/x?q HTTP/1.1\r\nHost: other.example\r\n\r\n")
        .read_response();
    assert_eq!(response.status, 200, "{response:?}");
    let request = upstream.request();
    assert_eq!(request.target(), "/x?q", "the upstream is sent origin form");
    assert_eq!(request.header("host"), Some("real.example"));
}

#[test]
fn hi_14_request_lines_of_another_form_are_refused() {
    const LINE: &[&str] = &["bad_request_line", "bad_path", "bad_header"];
    const VERSION: &[&str] = &["unsupported_version", "bad_request_line"];
    let with = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    assert_refused(&[
        ("two blanks", with("GET  / HTTP/1.1"), LINE),
        ("two blanks behind", with("GET /  HTTP/1.1"), LINE),
        ("a leading blank", with(" GET / HTTP/1.1"), LINE),
        ("a trailing blank", with("GET / HTTP/1.1 "), LINE),
        ("tabs", with("GET\t/\tHTTP/1.1"), LINE),
        ("no version", with("GET /"), LINE),
        ("no target", with("GET HTTP/1.1"), LINE),
        ("only a method", with("GET"), LINE),
        ("four words", with("GET / x HTTP/1.1"), LINE),
        ("a control character", with("GET /\u{1} HTTP/1.1"), LINE),
        ("a bad method", with("G(T / HTTP/1.1"), LINE),
        ("high bytes in the method", with("GÄT / HTTP/1.1"), LINE),
        ("no slash", with("GET a HTTP/1.1"), LINE),
        ("lower-case version", with("GET / http/1.1"), VERSION),
        ("HTTP/0.9", with("GET / HTTP/0.9"), VERSION),
        ("HTTP/2.0", with("GET / HTTP/2.0"), &["unsupported_version"]),
        ("HTTP/1.2", with("GET / HTTP/1.2"), VERSION),
        ("HTTP/1.", with("GET / HTTP/1."), VERSION),
        ("HTTP/11", with("GET / HTTP/11"), VERSION),
        ("HTTP/1.1x", with("GET / HTTP/1.1x"), VERSION),
        ("HTTPS/1.1", with("GET / HTTPS/1.1"), VERSION),
    ]);
}

#[test]
fn hi_15_connect_and_a_stray_asterisk_are_refused() {
    let method: &[&str] = &["method_refused", "method_not_allowed"];
    assert_refused(&[
        (
            "CONNECT",
            b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".to_vec(),
            method,
        ),
        (
            "asterisk",
            b"GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            &["bad_path", "bad_request_line"],
        ),
        (
            "authority form",
            b"GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            &["bad_path", "bad_request_line"],
        ),
    ]);
}

#[test]
fn hi_15_trace_is_refused() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let response = gateway.client().request("TRACE /", &["X-Secret: 1"]);
    assert!(matches!(response.status, 405 | 501), "{response:?}");
    assert_eq!(response.code(), "method_refused");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn hi_16_one_leading_empty_line_is_ignored_and_no_more() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let response = gateway
        .client()
        .send([b"\r\n", &*get("")].concat())
        .read_response();
    assert_eq!(response.status, 200, "{response:?}");
    let mut client = gateway.client();
    client.send([b"\r\n\r\n\r\n\r\n", &*get("")].concat());
    if let Ok(response) = client.try_response("GET") {
        assert_eq!(response.status, 400, "{response:?}");
    }
    client.assert_closed();
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn hi_17_other_protocols_on_a_plain_port_end_at_once() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&document(
        upstream.address(),
        // Longer than anybody waits here: it is not the time-out that ends it.
        "protocol = \"http1\"\nheader_timeout = \"10m\"",
        "",
        "",
    ));
    let hello = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let cases: [(&str, &[u8]); 5] = [
        ("a TLS hello", hello),
        ("the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("an SSH banner", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("random bytes", b"\x00\x9f\x92\x96\x01\x02\x03"),
        ("an SMTP greeting", b"EHLO example\r\n"),
    ];
    for (name, bytes) in cases {
        let mut client = gateway.client();
        client.send(bytes);
        if let Ok(response) = client.try_response("GET") {
            assert!(matches!(response.status, 400 | 505), "{name}: {response:?}");
        }
        client.assert_closed();
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn hi_18_transfer_encoding_in_http_1_0_is_refused() {
    let request =
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec();
    let kept = b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_refused(&[
        ("plain", request, FRAMING),
        ("kept alive", kept.to_vec(), FRAMING),
    ]);
}

#[test]
fn hi_19_pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    let all: String = (0..200)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    let sent = client.send_aside(all.into_bytes());
    for n in 0..200 {
        let response = client.read_response();
        assert!(
            response
                .text()
                .starts_with(&format!("GET /{n} HTTP/1.1\r\n")),
            "at {n}: {response:?}"
        );
    }
    sent.join().expect("no panic").expect("all was sent");
    upstream.assert_clean();
}

#[test]
fn hi_19_a_client_that_reads_no_answers_is_not_read_for_ever() {
    const ANSWER: usize = 64 * 1024;
    let upstream = Upstream::http1(|conn| {
        let body = "x".repeat(ANSWER);
        while conn.read_request().is_some() && conn.respond("200 OK", &[], &body) {}
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client
        .stream()
        .set_write_timeout(Some(Duration::from_secs(1)))
        .expect("an option");
    let one = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Padding: {}\r\n\r\n",
        "p".repeat(900)
    );
    let wanted = 20_000;
    let stuck = (0..wanted).any(|_| client.try_send(one.as_bytes()).is_err());
    assert!(
        stuck,
        "the gateway took {wanted} requests from a client that reads no answer"
    );
    let served = upstream.requests().len();
    assert!(
        served < 1_000,
        "{served} requests were served for a client that reads no answer"
    );
}

#[test]
fn hi_20_an_unknown_expectation_is_refused() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let response = gateway
        .client()
        .send(post("Expect: 200-ok\r\nContent-Length: 0\r\n", ""))
        .read_response();
    assert_eq!(
        (response.status, &*response.code()),
        (417, "expectation_failed")
    );
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn hi_20_a_final_answer_before_the_body_leaves_nothing_to_be_taken_for_a_request() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_head().is_some() {
            conn.respond("403 Forbidden", &[], "no");
        }
    });
    for expect in ["", "Expect: 100-continue\r\n"] {
        let gateway = Gateway::in_front_of(upstream.address());
        let before = upstream.requests().len();
        let mut client = gateway.client();
        client.send(post(&format!("{expect}Content-Length: 49\r\n"), ""));
        let response = client.read_final();
        assert_eq!(response.status, 403, "{response:?}");
        // Forty-nine bytes that look like a request: they are the body, or the connection is gone.
        client.send("GET /hidden HTTP/1.1\r\nHost: a\r\nX-Padding: 12345\r\n\r\n");
        client.finish();
        let (rest, ended) = client.drain();
        assert_ne!(ended, Ended::Silent);
        assert!(
            !String::from_utf8_lossy(&rest).contains("HTTP/1.1 2"),
            "{:?}",
            excerpt(&rest)
        );
        let requests = upstream.requests();
        assert!(
            requests[before..]
                .iter()
                .all(|request| request.target() == "/"),
            "{requests:#?}"
        );
    }
}

#[test]
fn hi_21_an_upgrade_that_is_not_answered_with_101_opens_no_tunnel() {
    for status in ["200 OK", "400 Bad Request", "426 Upgrade Required"] {
        let upstream = Upstream::http1(move |conn| {
            while conn.read_request().is_some() {
                conn.respond(status, &[], "plain");
            }
        });
        let gateway = Gateway::in_front_of(upstream.address());
        let mut client = gateway.client();
        client.send(get(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        ));
        client.send("GET /second HTTP/1.1\r\nHost: second.example\r\n\r\n");
        let response = client.read_response();
        assert_eq!(
            (response.status, &*response.text()),
            (status[..3].parse().expect("a number"), "plain")
        );
        client.finish();
        client.drain();
        let requests = upstream.requests();
        for second in requests
            .iter()
            .filter(|request| request.target() == "/second")
        {
            assert!(
                second.header("via").is_some(),
                "tunnelled instead of parsed: {second:?}"
            );
            assert_eq!(second.header("host"), Some("second.example"));
        }
        upstream.assert_clean();
    }
}

#[test]
fn hi_23_heads_of_every_excess_are_refused_with_bounded_reading() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let million = "x".repeat(1_000_000);
    let fields: String = (0..10_000).map(|n| format!("X-{n}: 1\r\n")).collect();
    let cases: [(&str, Vec<u8>, &[u16]); 8] = [
        (
            "a value of 1 MB",
            get(&format!("X-A: {million}\r\n")),
            &[431],
        ),
        (
            "a name of 1 MB",
            get(&format!("{million}: 1\r\n")),
            &[431, 400],
        ),
        (
            "a target of 1 MB",
            format!("GET /{million} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
            &[414],
        ),
        (
            "a query of 1 MB",
            format!("GET /?{million} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
            &[414],
        ),
        (
            "a method of 1 MB",
            format!("{million} / HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(),
            &[400, 414, 431, 501],
        ),
        ("10,000 fields", get(&fields), &[431]),
        // Within the size that is allowed: their number alone is too much.
        ("5,000 short fields", get(&"a:\r\n".repeat(5_000)), &[431]),
        (
            "a line of 16 MB without end",
            vec![b'x'; 16 << 20],
            &[400, 414, 431],
        ),
    ];
    let mut faults = Vec::new();
    for (name, bytes, statuses) in cases {
        let mut client = gateway.client();
        let _sending = client.send_aside(bytes);
        match client.try_response("GET") {
            Ok(response) if statuses.contains(&response.status) => {
                response.problem();
                if client.drain().1 == Ended::Silent {
                    faults.push(format!("{name}: not closed"));
                }
            }
            Ok(response) => faults.push(format!("{name}: answered {}", response.status)),
            Err(ended) => faults.push(format!("{name}: no answer, {ended:?}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn hi_23_max_header_size_is_the_listeners() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "max_header_size = \"4KiB\"",
        "",
        "",
    ));
    let mut client = gateway.client();
    let response = client.request("GET /", &[&format!("X-A: {}", "x".repeat(3_000))]);
    assert_eq!(response.status, 200);
    let response = client.request("GET /", &[&format!("X-A: {}", "x".repeat(5_000))]);
    assert_eq!(
        (response.status, &*response.code()),
        (431, "header_too_large")
    );
    client.assert_closed();
}

#[test]
fn hi_24_a_head_sent_a_byte_at_a_time_ends_at_the_header_time_out_and_harms_nobody() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "header_timeout = \"400ms\"",
        "",
        "",
    ));
    // Others are held to the same, and a machine that stands still may reach it: then it is played again.
    let mut served = 0;
    until("others to be served meanwhile", || {
        let begun = Instant::now();
        let mut slow = gateway.client();
        let mut stream = slow.stream().try_clone().expect("a socket can be cloned");
        let ended = Gate::new();
        let answered = ended.clone();
        let dripper = std::thread::spawn(move || {
            use std::io::Write;
            // Each wait is the drip itself, and ends early when the answer has come.
            for byte in get(&format!("X-A: {}\r\n", "x".repeat(1_000))) {
                if stream.write_all(&[byte]).is_err()
                    || answered.opens_within(Duration::from_millis(10))
                {
                    return;
                }
            }
        });
        let mut other = gateway.client();
        other.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n");
        let in_time = begun.elapsed() < Duration::from_millis(400);
        let other = other.try_response("GET");
        let response = slow.try_response("GET");
        ended.open();
        dripper.join().expect("no panic");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(390), "{took:?}");
        served += usize::from(other.as_ref().is_ok_and(|other| other.status == 200));
        let (true, Ok(other), Ok(response)) = (in_time, other, response) else {
            return false;
        };
        assert_eq!(other.status, 200, "others are served meanwhile");
        assert_eq!(
            (response.status, &*response.code()),
            (408, "header_timeout")
        );
        slow.assert_closed();
        true
    });
    assert_eq!(upstream.requests().len(), served);
}

#[test]
fn hi_24_a_body_that_stops_coming_ends_at_the_idle_time_out() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "",
        "idle_timeout = \"400ms\"",
        "",
    ));
    let mut client = gateway.client();
    client.send(post("Content-Length: 100\r\n", "hello"));
    let response = client.read_response();
    assert_eq!((response.status, &*response.code()), (408, "body_timeout"));
    client.assert_closed();
    let journal = upstream.wait("the abort", |journal| journal.ended == journal.connections);
    assert!(journal.complete().is_empty());
}

#[test]
fn hi_24_a_body_cut_by_the_client_is_never_whole_for_the_upstream() {
    for bytes in [
        post("Content-Length: 100\r\n", "hello"),
        chunked("5\r\nhello\r\n"),
    ] {
        let upstream = Upstream::echo();
        let gateway = Gateway::in_front_of(upstream.address());
        let mut client = gateway.client();
        client.send(bytes);
        upstream.wait("the begin", |journal| {
            journal
                .received
                .iter()
                .any(|bytes| bytes.windows(5).any(|window| window == b"hello"))
        });
        client.reset();
        let journal = upstream.wait("the abort", |journal| journal.ended == 1);
        assert!(journal.complete().is_empty(), "{journal:?}");
    }
}

/// HI-16: one empty line before a request is ignored, a second one is refused, also when they come one by one.
#[test]
fn hi_16_empty_lines_that_come_one_by_one_are_refused_too() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send(b"\r\n");
    // An answer on another connection of the same worker shows that the first line was read.
    assert_eq!(gateway.get("/").status, 200);
    client.send(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.read_response();
    assert_eq!(answer.status, 400);
    assert_eq!(answer.code(), "bad_request_line");
}
