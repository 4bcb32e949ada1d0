//! What an upstream may answer, and what becomes of it when it may not: HI-40 to HI-49.
//!
//! A client must never take a broken answer for a whole one, must never be given another's answer, and a request that
//! may have had an effect must never be sent twice.

use std::time::Duration;

use tollgate_engine::testing::client::Response;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::{Conn, Upstream};

const NO_RETRY: &str = "retry = \"off\"";

/// A gateway whose only route never tries twice, and that goes on asking whatever comes back.
fn once(upstream: &Upstream) -> Gateway {
    let keys = "breaker = \"off\"";
    Gateway::start(&document(upstream.address(), "", NO_RETRY, keys))
}

fn post(gateway: &Gateway, lines: &str) -> Response {
    let mut client = gateway.client();
    client.send(format!(
        "POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{lines}\r\nhello"
    ));
    client.read_final()
}

/// Ends the first connection in this way after one request, and serves all later ones.
fn fails_first(end: End) -> Upstream {
    Upstream::http1(move |conn| {
        if conn.number == 1 {
            conn.read_request();
            end(conn);
        } else {
            conn.echo();
        }
    })
}

/// How a connection ends.
type End = fn(&mut Conn);

const ENDS: [(&str, End); 4] = [
    ("close", |_| {}),
    ("reset", Conn::reset),
    ("close inside the head", |conn| {
        conn.send("HTTP/1.1 200 OK\r\nX-A: ");
    }),
    ("reset inside the head", |conn| {
        conn.send("HTTP/1.1 200 OK\r\nX-A: ");
        conn.reset();
    }),
];

#[test]
fn hi_40_a_get_whose_connection_ends_before_the_answer_is_tried_again() {
    for (name, end) in &ENDS[..2] {
        let upstream = fails_first(*end);
        let gateway = Gateway::in_front_of(upstream.address());
        assert_eq!(gateway.get("/again").status, 200, "{name}");
        assert_eq!(upstream.requests().len(), 2, "{name}");
    }
}

#[test]
fn hi_40_a_post_that_was_sent_is_never_repeated() {
    for (name, end) in ENDS {
        let upstream = fails_first(end);
        let gateway = Gateway::in_front_of(upstream.address());
        let response = post(&gateway, "");
        assert_eq!(response.status, 502, "{name}: {response:?}");
        let code = response.code();
        assert!(
            matches!(&*code, "upstream_reset" | "upstream_bad_response"),
            "{name}: {code}"
        );
        assert_eq!(upstream.requests().len(), 1, "{name}");
    }
}

#[test]
fn hi_40_a_post_with_an_idempotency_key_is_tried_again_and_its_body_with_it() {
    let upstream = fails_first(|_| {});
    let gateway = Gateway::in_front_of(upstream.address());
    let response = post(&gateway, "Idempotency-Key: 1\r\n");
    assert_eq!(response.status, 200, "{response:?}");
    let requests = upstream.requests();
    assert_eq!(requests.len(), 2);
    assert!(
        requests.iter().all(|request| request.body == b"hello"),
        "{requests:#?}"
    );
}

#[test]
fn hi_40_without_retries_the_first_failure_is_told() {
    let upstream = fails_first(|_| {});
    let response = once(&upstream).get("/");
    assert_eq!(
        (response.status, &*response.code()),
        (502, "upstream_reset")
    );
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn hi_40_a_request_that_never_left_is_safe_to_try_elsewhere() {
    let upstream = Upstream::echo();
    let endpoints = format!(
        "endpoints = [\"{}\", \"{}\"]",
        Upstream::nobody(),
        upstream.address()
    );
    let toml = document(upstream.address(), "", "", "").replace(
        &format!("endpoints = [\"{}\"]", upstream.address()),
        &endpoints,
    );
    let gateway = Gateway::start(&toml);
    for _ in 0..6 {
        let response = post(&gateway, "");
        assert_eq!(response.status, 200, "{response:?}");
    }
    assert_eq!(upstream.requests().len(), 6);
}

/// Answers that break off in their body, and how the connection ends then.
fn cut_answers() -> Vec<(&'static str, &'static str, bool)> {
    vec![
        (
            "length, close",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            false,
        ),
        (
            "length, reset",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            true,
        ),
        (
            "chunked, close",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            false,
        ),
        (
            "chunked, reset",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            true,
        ),
        (
            "inside a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhalf",
            false,
        ),
        (
            "before the last CRLF",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
            false,
        ),
        (
            "a bad chunk size",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nx\r\n",
            false,
        ),
        (
            "a chunk too long",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalfX\r\n0\r\n\r\n",
            false,
        ),
        ("until close, reset", "HTTP/1.1 200 OK\r\n\r\nhalf", true),
    ]
}

fn cutting() -> Upstream {
    let cases = cut_answers();
    Upstream::http1(move |conn| {
        let Some(request) = conn.read_request() else {
            return;
        };
        let number: usize = request.target()[1..].parse().expect("a case's number");
        let (_, bytes, reset) = cases[number];
        conn.send(bytes);
        if reset {
            conn.reset();
        }
    })
}

#[test]
fn hi_41_a_cut_answer_is_never_whole_for_an_http_1_client() {
    let upstream = cutting();
    let gateway = Gateway::in_front_of(upstream.address());
    for (number, (name, ..)) in cut_answers().iter().enumerate() {
        let mut client = gateway.client();
        let response = client.get(&format!("/{number}"));
        let told = response.status == 502;
        assert!(
            told || !response.complete,
            "{name}: taken for whole: {response:?}"
        );
        if !told {
            client.assert_closed();
        }
    }
}

#[test]
fn hi_41_a_cut_answer_is_a_reset_stream_for_an_http_2_client() {
    let upstream = cutting();
    let gateway = Gateway::in_front_of(upstream.address());
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        for (number, (name, ..)) in cut_answers().iter().enumerate() {
            match h2_client::get(&sender, &format!("/{number}")).await {
                Ok(answer) => assert_eq!(answer.status, 502, "{name}: taken for whole: {answer:?}"),
                Err(error) => assert!(error.is_reset(), "{name}: {error}"),
            }
        }
    });
}

#[test]
fn hi_42_bytes_behind_an_answer_never_reach_anybody() {
    type Answer = fn(&str) -> String;
    let cases: [(&str, &str, Answer); 7] = [
        ("more than the length", "GET", |body| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}EXTRA",
                body.len()
            )
        }),
        ("a second answer", "GET", |body| {
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            format!("{answer}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
        }),
        ("behind the last chunk", "GET", |body| {
            let size = body.len();
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n0\r\n\r\nEXTRA"
            )
        }),
        ("a body with 204", "GET", |_| {
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nEXTRA".into()
        }),
        ("a body behind 204", "GET", |_| {
            "HTTP/1.1 204 No Content\r\n\r\nEXTRA".into()
        }),
        ("a body with 304", "GET", |_| {
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nEXTRA".into()
        }),
        ("a body with HEAD", "HEAD", |_| {
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nEXTRA".into()
        }),
    ];
    for (name, method, answer) in cases {
        let upstream = Upstream::http1(move |conn| {
            while let Some(request) = conn.read_request() {
                conn.send(answer(request.target()));
            }
        });
        let gateway = Gateway::in_front_of(upstream.address());
        for target in ["/first", "/second", "/third"] {
            let mut client = gateway.client();
            let response = client.request(&format!("{method} {target}"), &["Connection: close"]);
            let wanted = if response.status == 200 && method == "GET" {
                target
            } else {
                ""
            };
            assert!(
                matches!(response.status, 200 | 204 | 304 | 502),
                "{name}: {response:?}"
            );
            if response.status != 502 {
                assert_eq!(response.text(), wanted, "{name}");
            }
            assert_eq!(client.drain().0, b"", "{name}: bytes behind the answer");
        }
        assert_eq!(
            upstream.connections(),
            3,
            "{name}: a dirty connection was reused"
        );
    }
}

#[test]
fn hi_42_an_answer_that_nobody_asked_for_is_never_given_to_the_next() {
    let (answered, poisoned) = (Gate::new(), Gate::new());
    let (go, done) = (answered.clone(), poisoned.clone());
    let upstream = Upstream::http1(move |conn| {
        while let Some(request) = conn.read_request() {
            conn.respond("200 OK", &[], request.target());
            if request.target() == "/first" {
                go.wait();
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON");
                done.open();
            }
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    assert_eq!(gateway.get("/first").text(), "/first");
    answered.open();
    poisoned.wait();
    assert_eq!(gateway.get("/second").text(), "/second");
    assert_eq!(
        upstream.connections(),
        2,
        "a connection with unasked bytes was reused"
    );
}

#[test]
fn hi_43_answers_that_are_no_http_are_told_as_502() {
    const CASES: [(&str, &str); 27] = [
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        ),
        (
            "a list of lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello",
        ),
        (
            "a sign",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        ),
        (
            "a negative length",
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        ),
        (
            "no number",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello",
        ),
        (
            "an empty length",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
        ),
        (
            "an odd coding",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunked twice",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "an unknown coding",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        ),
        (
            "NUL in a value",
            "HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "CR in a value",
            "HTTP/1.1 200 OK\r\nX-A: 1\r2\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "a control character",
            "HTTP/1.1 200 OK\r\nX-A: \u{1}\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "a bad name",
            "HTTP/1.1 200 OK\r\nX A: 1\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "a blank before the colon",
            "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        ),
        (
            "no colon",
            "HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "a fold",
            "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
        ),
        ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
        ("two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
        (
            "four digits",
            "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        ("letters", "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n"),
        ("below 100", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
        ("no status", "HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
        (
            "another version",
            "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "another protocol",
            "ICY 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        ("bare text", "hello world, this is not HTTP at all\r\n\r\n"),
        ("a page as of HTTP/0.9", "<html>hello</html>\n"),
        (
            "101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        ),
    ];
    let upstream = Upstream::http1(|conn| {
        let Some(request) = conn.read_request() else {
            return;
        };
        let number: usize = request.target()[1..].parse().expect("a case's number");
        conn.send(CASES[number].1);
        conn.finish();
        conn.wait_closed();
    });
    let gateway = once(&upstream);
    let mut faults = Vec::new();
    for (number, (name, bytes)) in CASES.iter().enumerate() {
        let response = gateway.get(&format!("/{number}"));
        // What never becomes a head is also told as a connection that ended before the answer.
        let headless = !bytes.contains("\r\n\r\n");
        let told =
            |code: &str| code == "upstream_bad_response" || (headless && code == "upstream_reset");
        if response.status != 502 || !told(&response.code()) {
            faults.push(format!("{name}: {response:?}"));
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert_eq!(
        upstream.connections(),
        CASES.len(),
        "no such connection is reused"
    );
}

#[test]
fn hi_44_interim_answers_leave_the_final_one_intact() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
            conn.respond("200 OK", &[], "final");
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_final().text(), "final");
    }
    let answer = h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        h2_client::get(&sender, "/").await.expect("an answer")
    });
    assert_eq!((answer.status, &*answer.text()), (200, "final"));
}

#[test]
fn hi_44_interim_answers_without_end_are_bounded() {
    let upstream = Upstream::http1(|conn| {
        conn.read_request();
        while conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".repeat(100)) {}
    });
    let gateway = once(&upstream);
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.read_final();
    assert_eq!(
        (response.status, &*response.code()),
        (502, "upstream_bad_response")
    );
    upstream.wait("the gateway to give up", |journal| journal.ended == 1);
}

#[test]
fn hi_45_heads_of_every_excess_are_told_as_502_with_bounded_reading() {
    let upstream = Upstream::http1(|conn| {
        let Some(request) = conn.read_request() else {
            return;
        };
        conn.send("HTTP/1.1 200 OK\r\n");
        let piece = match request.target() {
            "/value" => format!("X-A: {}\r\n\r\n", "x".repeat(1 << 20)),
            "/fields" => {
                (0..10_000)
                    .map(|n| format!("X-{n}: 1\r\n"))
                    .collect::<String>()
                    + "\r\n"
            }
            // Within the size that is allowed: their number alone is too much.
            "/short" => "a:\r\n".repeat(5_000) + "\r\n",
            "/line" => {
                while conn.send("x".repeat(4096)) {}
                return;
            }
            _ => {
                while conn.send("X-A: 1\r\n".repeat(100)) {}
                return;
            }
        };
        conn.send(piece);
        conn.wait_closed();
    });
    let gateway = once(&upstream);
    for target in ["/value", "/fields", "/short", "/line", "/endless"] {
        let response = gateway.get(target);
        assert_eq!(response.status, 502, "{target}: {response:?}");
        let code = response.code();
        assert!(
            matches!(
                &*code,
                "upstream_response_too_large" | "upstream_bad_response"
            ),
            "{target}: {code}"
        );
    }
    upstream.wait("the gateway to give up", |journal| journal.ended == 5);
}

#[test]
fn hi_46_a_head_that_drips_ends_at_the_routes_time_out() {
    let over = Gate::new();
    let stop = over.clone();
    let upstream = Upstream::http1(move |conn| {
        conn.read_request();
        conn.send("HTTP/1.1 200 OK\r\nX-A: ");
        while !stop.opens_within(Duration::from_millis(20)) && conn.send("x") {}
    });
    let gateway = Gateway::start(&document(upstream.address(), "", "timeout = \"400ms\"", ""));
    let response = gateway.get("/");
    over.open();
    assert_eq!((response.status, &*response.code()), (504, "route_timeout"));
}

#[test]
fn hi_47_an_early_413_reaches_a_client_that_still_sends() {
    for abrupt in [false, true] {
        let upstream = Upstream::http1(move |conn| {
            conn.read_head();
            conn.respond("413 Content Too Large", &["Connection: close"], "too much");
            if !abrupt {
                conn.finish();
                conn.wait_closed();
            }
        });
        let gateway = Gateway::in_front_of(upstream.address());
        let mut client = gateway.client();
        let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n".to_vec();
        bytes.extend(vec![b'x'; 4 << 20]);
        let _sending = client.send_aside(bytes);
        let response = client.read_final();
        assert_eq!(
            (response.status, &*response.text()),
            (413, "too much"),
            "abrupt: {abrupt}"
        );
        assert_eq!(upstream.requests().len(), 1);
    }
}

#[test]
fn hi_48_a_connection_that_closes_as_it_is_reused_is_invisible_to_the_client() {
    let upstream = Upstream::http1(|conn| {
        if conn.number == 1 {
            conn.read_request();
            conn.respond("200 OK", &[], "first");
            // The next request is on its way when this connection closes.
            conn.read_head();
        } else {
            conn.echo();
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    assert_eq!(client.get("/").text(), "first");
    let response = client.get("/second");
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn hi_48_an_idle_connection_that_was_closed_is_not_used_even_for_a_post() {
    let upstream = Upstream::http1(|conn| {
        conn.read_request();
        conn.respond("200 OK", &[], "once");
    });
    let gateway = Gateway::in_front_of(upstream.address());
    for n in 1..=5 {
        let response = post(&gateway, "");
        assert_eq!(response.status, 200, "request {n}: {response:?}");
        upstream.wait("the connection to close", |journal| journal.ended == n);
    }
    assert_eq!(upstream.requests().len(), 5);
}

#[test]
fn hi_48_a_connection_is_reused_while_it_is_good() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn hi_48_an_upstream_that_says_close_is_not_asked_again_on_that_connection() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            conn.respond("200 OK", &["Connection: close"], "bye");
        }
    });
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!(response.status, 200);
        assert!(
            response.keeps_alive(),
            "the upstream's close is not the client's: {response:?}"
        );
    }
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn hi_49_when_every_endpoint_refuses_the_answer_is_503_at_once() {
    let gateway = Gateway::in_front_of(Upstream::nobody());
    let response = gateway.get("/");
    assert_eq!(
        (response.status, &*response.code()),
        (503, "connect_failed")
    );
    let text = response.text();
    assert!(
        !text.contains("127.0.0.1"),
        "an answer of ours names no address: {text}"
    );
}

/// GW-111: a connection whose answer ended exactly where a read ended goes back to the pool like any other.
#[test]
fn a_connection_is_used_again_after_a_body_that_filled_its_last_read() {
    const BODY: usize = 1 << 20;
    let upstream = Upstream::fixed("x".repeat(BODY).leak());
    let gateway = Gateway::in_front_of(upstream.address());
    for _ in 0..5 {
        assert_eq!(gateway.get("/").body.len(), BODY);
    }
    assert_eq!(upstream.connections(), 1);
}
