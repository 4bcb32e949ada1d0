//! The last while at the admin address: which spans a request leaves, and who is whose parent.

use std::sync::atomic::{AtomicUsize, Ordering};

use tollgate_config::span::{SpanKind, SpanStatus};
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::journal::Request;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::wait;

use super::*;

/// Whose span an upstream was told as its parent.
fn parent(request: &Request) -> &str {
    let header = request.header("traceparent").expect("always sent");
    header.split('-').nth(2).expect("four parts")
}

#[test]
fn mesh_502_a_request_leaves_one_span_of_its_own_and_one_for_its_try() {
    let upstream = Upstream::fixed("fine");
    let gateway = Gateway::start(&document(upstream.address(), "", "", ""));
    let answer = gateway.client().request(
        "GET /orders/7?token=secret",
        &[&traceparent("00"), "User-Agent: curl/8"],
    );
    assert_eq!(answer.status, 200);
    let spans = trace(&gateway, TRACE, 2);
    let (server, tries) = parts(&spans);
    assert_eq!(server.parent_id.as_deref(), Some(CALLER));
    assert_eq!(server.operation, "all");
    assert_eq!(server.status, SpanStatus::Ok);
    for (name, value) in [
        ("route", "all"),
        ("listener", "in"),
        ("method", "GET"),
        ("path", "/orders/7"),
        ("status", "200"),
        ("client", "127.0.0.1"),
        ("user_agent", "curl/8"),
    ] {
        assert_eq!(tag(server, name), value, "{name}: {server:#?}");
    }
    assert_eq!(tries.len(), 1);
    assert_eq!(tries[0].parent_id.as_ref(), Some(&server.span_id));
    assert_eq!(tries[0].operation, "app");
    assert_eq!(tag(tries[0], "endpoint"), upstream.address().to_string());
    assert_eq!(tag(tries[0], "status"), "200");
    assert_eq!(parent(&upstream.request()), tries[0].span_id);
    assert!(server.start_us <= tries[0].start_us);
    let ends = |span: &Span| span.start_us + span.duration_us;
    // Each is rounded down by itself.
    assert!(ends(tries[0]) <= ends(server) + 1);
    let text = format!("{spans:?}");
    assert!(
        !text.contains("secret") && !text.contains("token"),
        "{text}"
    );
}

#[test]
fn obs_104_each_try_has_a_span_and_the_next_hop_hangs_under_its_own() {
    let answers = AtomicUsize::new(0);
    let upstream = Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            match answers.fetch_add(1, Ordering::SeqCst) {
                0 => conn.respond("503 Service Unavailable", &[], ""),
                _ => conn.respond("200 OK", &[], "fine"),
            };
        }
    });
    let gateway = Gateway::start(&document(upstream.address(), "", QUICK, BARE));
    let answer = gateway.client().request("GET /", &[&traceparent("01")]);
    assert_eq!(answer.status, 200);
    let spans = trace(&gateway, TRACE, 3);
    let (server, tries) = parts(&spans);
    assert_eq!(server.status, SpanStatus::Ok);
    let seen: Vec<_> = upstream.requests();
    for (number, (one, request)) in tries.iter().zip(&seen).enumerate() {
        assert_eq!(one.parent_id.as_ref(), Some(&server.span_id));
        assert_eq!(tag(one, "attempt"), (number + 1).to_string());
        assert_eq!(parent(request), one.span_id);
        assert!(
            request
                .header("traceparent")
                .is_some_and(|value| value.ends_with("-01"))
        );
    }
    assert_eq!(tag(tries[0], "status"), "503");
    assert_eq!(tries[0].status, SpanStatus::Error);
    assert_eq!(tries[1].status, SpanStatus::Ok);
    assert_ne!(tries[0].span_id, tries[1].span_id);
}

#[test]
fn a_try_that_brings_no_answer_says_why() {
    let gateway = Gateway::start(&document(Upstream::nobody(), "", "retry = \"off\"\n", BARE));
    let answer = gateway.client().request("GET /", &[&traceparent("00")]);
    assert_eq!(answer.code(), "connect_failed");
    let spans = trace(&gateway, TRACE, 2);
    let (server, tries) = parts(&spans);
    for span in [server, tries[0]] {
        assert_eq!(tag(span, "code"), "connect_failed");
        assert_eq!(span.status, SpanStatus::Error);
    }
    assert_eq!(tag(server, "status"), "503");
}

#[test]
fn what_no_upstream_was_sent_has_a_span_without_tries() {
    let gateway = Gateway::start(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n[[route]]\nname = \"own\"\n\
         match = { path = \"/own\" }\nrespond = { status = 204 }\n",
    );
    let status = |target: &str| {
        let line = format!("GET {target}");
        gateway
            .client()
            .request(&line, &[&traceparent("00")])
            .status
    };
    assert_eq!((status("/own"), status("/other")), (204, 404));
    let mut spans = trace(&gateway, TRACE, 2);
    spans.sort_by(|one, other| one.operation.cmp(&other.operation));
    assert!(spans.iter().all(|span| span.kind == SpanKind::Server));
    assert_eq!(spans[0].operation, "in");
    assert_eq!(
        (tag(&spans[0], "code"), spans[0].status),
        ("no_route", SpanStatus::Ok)
    );
    assert_eq!(
        (tag(&spans[1], "status"), &*spans[1].operation),
        ("204", "own")
    );
}

/// Ended once, although nobody was there to take the answer.
#[test]
fn spans_end_when_a_client_leaves() {
    let upstream = Upstream::http1(|conn| {
        conn.read_request();
        conn.wait_closed();
    });
    let gateway = Gateway::start(&document(upstream.address(), "", "", BARE));
    let mut client = gateway.client();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", traceparent("00"));
    client.send(head);
    upstream.wait("the request", |journal| !journal.complete().is_empty());
    client.reset();
    let spans = trace(&gateway, TRACE, 2);
    let (server, tries) = parts(&spans);
    assert_eq!(tag(server, "code"), "client_closed");
    assert_eq!(tag(tries[0], "status"), "");
    assert_eq!(tries[0].parent_id.as_ref(), Some(&server.span_id));
}

#[test]
fn a_hedge_has_a_span_of_its_own() {
    // A first try gets nothing, wherever it goes.
    let upstreams = [(); 2].map(|()| {
        Upstream::http1(|conn| {
            while let Some(request) = conn.read_request() {
                let attempt = request.header("x-tollgate-attempt");
                if !attempt.is_some_and(|attempt| attempt.ends_with(";hedge")) {
                    conn.wait_closed();
                    return;
                }
                conn.respond("200 OK", &[], "fine");
            }
        })
    });
    let [one, other] = upstreams.each_ref().map(Upstream::address);
    let hedge = "[route.retry]\nhedge = { after = \"1ms\" }";
    let toml = document(one, "", hedge, BARE)
        .replace(&format!("\"{one}\""), &format!("\"{one}\", \"{other}\""));
    let gateway = Gateway::start(&toml);
    let answer = gateway.client().request("GET /", &[&traceparent("00")]);
    assert_eq!(answer.status, 200);
    let spans = trace(&gateway, TRACE, 3);
    let (server, tries) = parts(&spans);
    assert_eq!(tag(server, "hedge"), "won");
    assert_eq!(tag(tries[0], "status"), "");
    assert_eq!(tag(tries[1], "status"), "200");
    assert_eq!(tag(tries[1], "hedge"), "second");
    let told: Vec<_> = upstreams.iter().flat_map(Upstream::requests).collect();
    for one in tries {
        assert_eq!(one.parent_id.as_ref(), Some(&server.span_id));
        let sent = told.iter().filter(|request| parent(request) == one.span_id);
        assert!(sent.count() <= 1, "{told:?}");
    }
    let answered = told
        .iter()
        .find(|request| request.header("x-tollgate-attempt") == Some("2;hedge"));
    assert_eq!(answered.map(parent), Some(&*tag_id(&spans, "2")));
}

fn tag_id(spans: &[Span], attempt: &str) -> String {
    let mut spans = spans.iter();
    let one = spans.find(|span| tag(span, "attempt") == attempt);
    one.expect("such a try").span_id.clone()
}

#[test]
fn pages_show_the_newest_first_and_refuse_what_they_do_not_understand() {
    let upstream = Upstream::fixed("fine");
    let gateway = Gateway::start(&document(upstream.address(), "", "", ""));
    for _ in 0..3 {
        assert_eq!(gateway.get("/").status, 200);
    }
    wait(
        "all spans",
        || page(&gateway, "/traces"),
        |spans| spans.len() == 6,
    );
    let spans = page(&gateway, "/traces?limit=4");
    assert_eq!(spans.len(), 4);
    assert!(spans.is_sorted_by(|one, other| one.start_us >= other.start_us));
    for (line, status) in [
        ("GET /traces?limit=0", 400),
        ("GET /traces?limit=x", 400),
        ("GET /traces/xyz", 400),
        ("GET /traces/4BF92F3577B34DA6A3CE929D0E0E4736", 400),
        ("POST /traces", 405),
    ] {
        assert_eq!(gateway.ask(line).status, status, "{line}");
    }
    assert!(page(&gateway, &format!("/traces/{TRACE}")).is_empty());
}
