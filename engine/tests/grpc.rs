//! gRPC through the gateway: all four kinds of call, errors in trailers only, cancelling, and a gRPC status for every
//! failure of ours (HI-51).

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Request};
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_client::{self, CANCEL_LIMIT, message, poll_until};
use tollgate_engine::testing::http2::Http2Upstream;
use tollgate_engine::testing::upstream::Upstream;

/// Nothing but a cancellation ends what waits here.
const PATIENT: &str = "timeout = \"1h\"\nidle_timeout = \"1h\"";

/// A method, the messages sent, and what must come back.
type Call<'a> = (&'a str, &'a [&'a [u8]], Vec<u8>);

fn grpc_gateway(upstream: &Http2Upstream) -> Gateway {
    Gateway::start(&document(
        upstream.address(),
        "",
        "",
        "protocol = \"http2\"",
    ))
}

fn call(method: &str) -> Request<()> {
    let headers = [("content-type", "application/grpc"), ("te", "trailers")];
    h2_client::request("POST", &format!("/echo.Echo/{method}"), &headers)
}

#[test]
fn grpc_calls_with_one_message_and_with_many_cross_with_their_trailers() {
    let upstream = Http2Upstream::echo();
    let gateway = grpc_gateway(&upstream);
    let (one, two) = (message(b"one"), message(b"two"));
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let cases: [Call<'_>; 3] = [
            ("Unary", &[&one], one.clone()),
            ("Stream", &[&one], one.repeat(3)),
            ("Collect", &[&one, &two, &one], [&*one, &two, &one].concat()),
        ];
        for (method, pieces, wanted) in cases {
            let answer = h2_client::exchange(&sender, call(method), pieces, None)
                .await
                .expect(method);
            assert_eq!(
                (answer.status, answer.grpc_status()),
                (200, Some("0")),
                "{method}: {answer:?}"
            );
            assert_eq!(answer.body, wanted, "{method}");
            let trailers = answer.trailers.expect("trailers");
            assert_eq!(
                trailers.get("x-trailer").map(HeaderValue::as_bytes),
                Some(&b"kept"[..]),
                "{method}"
            );
        }
    });
    assert!(
        upstream
            .requests()
            .iter()
            .all(|seen| seen.header("te") == Some("trailers")),
        "gRPC needs te: trailers"
    );
    assert_eq!(
        upstream.journal().connections,
        1,
        "streams of one client share a connection"
    );
}

#[test]
fn a_grpc_conversation_goes_back_and_forth_without_waiting() {
    let upstream = Http2Upstream::echo();
    let gateway = grpc_gateway(&upstream);
    h2_client::run(async {
        let mut sender = h2_client::connect(gateway.address()).await;
        let (response, mut send) = sender.send_request(call("Chat"), false).expect("sent");
        let mut body = response
            .await
            .expect("a head before any message")
            .into_body();
        for n in 0..5u8 {
            let said = message(&[n]);
            send.send_data(said.clone().into(), false).expect("sent");
            assert_eq!(
                h2_client::piece(&mut body)
                    .await
                    .expect("more")
                    .expect("no error"),
                said
            );
        }
        send.send_data(Bytes::new(), true).expect("sent");
        while h2_client::piece(&mut body).await.is_some() {}
        let trailers = body.trailers().await.expect("no error").expect("trailers");
        assert_eq!(
            trailers.get("grpc-status").map(HeaderValue::as_bytes),
            Some(&b"0"[..])
        );
    });
}

#[test]
fn hi_51_an_error_in_trailers_only_crosses_as_it_is() {
    let upstream = Http2Upstream::echo();
    let gateway = grpc_gateway(&upstream);
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let answer = h2_client::exchange(&sender, call("Fail"), &[&message(b"x")], None)
            .await
            .expect("an answer");
        assert_eq!(
            (answer.status, answer.grpc_status()),
            (200, Some("5")),
            "{answer:?}"
        );
        assert_eq!(answer.header("grpc-message"), Some("no such thing"));
        assert!(
            answer.body.is_empty() && answer.trailers.is_none(),
            "{answer:?}"
        );
    });
    assert_eq!(
        upstream.requests().len(),
        1,
        "an error of the application is not tried again"
    );
}

#[test]
fn hi_51_cancelling_reaches_the_upstream_at_once_and_leaves_the_connection() {
    let upstream = Http2Upstream::echo();
    let gateway = grpc_gateway(&upstream);
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let mut n = 0;
        for method in ["Hang", "Chat"] {
            // The quickest of several: what the machine does in between is not asked about.
            let began = Instant::now();
            loop {
                let mut ready = sender.clone().ready().await.expect("the connection lives");
                let (response, mut send) = ready.send_request(call(method), false).expect("sent");
                send.send_data(message(b"x").into(), false).expect("sent");
                poll_until(|| upstream.requests().len() > n).await;
                let cancelled = Instant::now();
                send.send_reset(h2::Reason::CANCEL);
                drop(response);
                poll_until(|| upstream.journal().resets() > n).await;
                let noticed = upstream.requests()[n].reset.expect("reset");
                let took = noticed.saturating_duration_since(cancelled);
                n += 1;
                if took < CANCEL_LIMIT {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{method}: it took {took:?}");
            }
        }
        let answer = h2_client::exchange(&sender, call("Unary"), &[&message(b"y")], None).await;
        assert_eq!(answer.expect("an answer").grpc_status(), Some("0"));
    });
    assert_eq!(
        upstream.journal().connections,
        1,
        "a cancelled stream costs no connection"
    );
}

#[test]
fn hi_51_a_client_that_goes_away_cancels_what_it_asked_for() {
    let upstream = Http2Upstream::echo();
    let keys = "protocol = \"http2\"";
    let gateway = Gateway::start(&document(upstream.address(), "", PATIENT, keys));
    let mut client = gateway.client();
    client.send("GET /echo.Echo/Hang HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.wait("the request", |journal| journal.requests.len() == 1);
    client.reset();
    upstream.wait("the cancellation", |journal| journal.resets() == 1);

    let slow = Upstream::http1(|conn| {
        conn.read_request();
        conn.wait_closed();
    });
    let gateway = Gateway::start(&document(slow.address(), "", PATIENT, ""));
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.wait("the request", |journal| journal.requests.len() == 1);
    client.reset();
    slow.wait("the cancellation", |journal| journal.ended == 1);
}

#[test]
fn hi_51_a_stream_that_the_upstream_resets_is_never_whole() {
    let upstream = Http2Upstream::echo();
    let gateway = grpc_gateway(&upstream);
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        match h2_client::exchange(&sender, call("Reset"), &[&message(b"x")], None).await {
            Ok(answer) => {
                let status = answer.grpc_status();
                assert!(
                    matches!(status, Some("13" | "14" | "2")),
                    "a reset taken for success: {answer:?}"
                );
            }
            Err(error) => assert!(error.is_reset(), "{error}"),
        }
    });
}

#[test]
fn hi_51_every_failure_of_ours_has_a_grpc_status_for_a_grpc_caller() {
    let upstream = Http2Upstream::echo();
    let refusing = Gateway::start(&document(
        Upstream::nobody(),
        "",
        "",
        "protocol = \"http2\"",
    ));
    let slow = Gateway::start(&document(
        upstream.address(),
        "",
        "timeout = \"300ms\"",
        "protocol = \"http2\"",
    ));
    let lost = Gateway::start(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n[[route]]\nmatch = { path = \"/only\" }\nrespond = { status = 200 }\n",
    );
    let cases = [
        (&refusing, "Unary", "14", "connect_failed"),
        (&slow, "Hang", "4", "route_timeout"),
        (&lost, "Unary", "12", "no_route"),
    ];
    for (gateway, method, status, code) in cases {
        let answer = h2_client::run(async {
            let sender = h2_client::connect(gateway.address()).await;
            h2_client::exchange(&sender, call(method), &[&message(b"x")], None)
                .await
                .expect("an answer")
        });
        assert_eq!(
            (answer.status, answer.grpc_status()),
            (200, Some(status)),
            "{answer:?}"
        );
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
        let message = answer.header("grpc-message").unwrap_or_default();
        assert!(message.contains(code), "{message}");
    }
}

#[test]
fn hi_51_a_refused_stream_was_never_taken_and_is_tried_again_or_told_as_unavailable() {
    let upstream = Http2Upstream::echo();
    let gateway = grpc_gateway(&upstream);
    let answer = h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        h2_client::exchange(&sender, call("Refuse"), &[&message(b"x")], None)
            .await
            .expect("an answer")
    });
    assert_eq!(answer.grpc_status(), Some("14"), "{answer:?}");
    assert!(
        upstream.requests().len() > 1,
        "a stream that was refused is safe to try again"
    );
}

#[test]
fn hi_51_answers_that_clients_cut_do_not_use_up_the_upstreams_connection() {
    let upstream = Http2Upstream::echo();
    let gateway = grpc_gateway(&upstream);
    let large = message(&vec![b'x'; 300_000]);
    h2_client::run(async {
        // Fewer a connection than what counts as a storm of cancellations.
        for _ in 0..4 {
            let sender = h2_client::connect(gateway.address()).await;
            for _ in 0..15 {
                let mut ready = sender.clone().ready().await.expect("the connection lives");
                let (response, mut send) = ready.send_request(call("Stream"), false).expect("sent");
                send.send_data(large.clone().into(), true).expect("sent");
                let mut body = response.await.expect("a head").into_body();
                h2_client::piece(&mut body)
                    .await
                    .expect("more")
                    .expect("no error");
                send.send_reset(h2::Reason::CANCEL);
            }
        }
        let sender = h2_client::connect(gateway.address()).await;
        let answer = h2_client::exchange(&sender, call("Stream"), &[&large], None)
            .await
            .expect("an answer");
        assert_eq!(
            (answer.body.len(), answer.grpc_status()),
            (3 * large.len(), Some("0"))
        );
    });
}
