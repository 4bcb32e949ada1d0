//! What a collector is told, and what becomes of it when the collector is slow, away or lying (OBS-108, OBS-110).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::grpc::{End, Reply};
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::wait;

use super::collector::{Collector, EXPORT, Told, read, rejecting, traces};
use super::*;

const ALL: &str = ", sample = 1.0";
const FAILURES: &str = ", sample = 0.0";

fn before(upstream: &Upstream, telemetry: &str) -> String {
    let app = document(upstream.address(), "", "retry = \"off\"\n", BARE);
    format!("{app}{telemetry}")
}

fn failing() -> Upstream {
    Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            conn.respond("500 Internal Server Error", &[], "");
        }
    })
}

/// The span of the request, and those of its tries.
#[track_caller]
fn sorted(spans: &[Told]) -> (&Told, Vec<&Told>) {
    let (server, tries): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.kind == "SERVER");
    assert_eq!(server.len(), 1, "{spans:#?}");
    (server[0], tries)
}

#[track_caller]
fn count(gateway: &Gateway, series: &str, least: u64) -> u64 {
    let seen = || {
        let page = gateway.metrics();
        let line = page.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    wait(series, seen, |seen| *seen >= least)
}

#[test]
fn obs_110_a_collector_is_told_of_the_request_and_of_every_try() {
    let answers = AtomicUsize::new(0);
    let upstream = Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            match answers.fetch_add(1, Ordering::SeqCst) {
                0 => conn.respond("503 Service Unavailable", &[], ""),
                _ => conn.respond("200 OK", &[], "fine"),
            };
        }
    });
    let collector = Collector::start();
    let keys = format!("{ALL}, service = \"edge\", attributes = {{ zone = \"a\" }}");
    let app = document(upstream.address(), "", QUICK, BARE);
    let gateway = Gateway::start(&format!("{app}{}", collector.traces(&keys)));
    let line = "GET /orders?card=hunter2";
    assert_eq!(
        gateway
            .client()
            .request(line, &["User-Agent: curl/8"])
            .status,
        200
    );
    let spans = collector.wait(3);
    let (server, tries) = sorted(&spans);
    assert_eq!(server.parent, "", "the trace begins here");
    assert_eq!((&*server.service, &*server.name), ("edge", "all"));
    assert_eq!(server.resource["zone"], "a");
    assert!(server.resource.contains_key("service.instance.id"));
    assert!(server.resource.contains_key("service.version"));
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/orders"),
        ("http.route", "all"),
        ("http.response.status_code", "200"),
        ("user_agent.original", "curl/8"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(
            server.attributes.get(key).map(String::as_str),
            Some(value),
            "{key}"
        );
    }
    assert!(!server.failed);
    let sent: Vec<_> = upstream.requests();
    for ((one, request), failed) in tries.iter().zip(&sent).zip([true, false]) {
        assert_eq!((&one.trace, &one.parent), (&server.trace, &server.id));
        let expected = format!("00-{}-{}-03", server.trace, one.id);
        assert_eq!(request.header("traceparent"), Some(&*expected));
        assert_eq!(one.failed, failed);
        assert!(server.began <= one.began && one.ended <= server.ended);
        let port = upstream.address().port().to_string();
        assert_eq!(one.attributes["network.peer.port"], port);
    }
    let call = &collector.calls()[0];
    assert_eq!(
        (&*call.path, call.header("content-type")),
        (EXPORT, Some("application/grpc"))
    );
    assert!(!format!("{spans:?}").contains("hunter2"));
}

/// OBS-104: each program under the try of the one before it.
#[test]
fn mesh_502_two_data_planes_in_line_make_one_tree() {
    let upstream = Upstream::fixed("fine");
    let collector = Collector::start();
    let called = collector.traces(&format!("{FAILURES}, service = \"called\""));
    let called = Gateway::start(&before(&upstream, &called));
    let calling = document(called.address(), "", "retry = \"off\"\n", BARE);
    let telemetry = collector.traces(&format!("{ALL}, service = \"calling\""));
    let calling = Gateway::start(&format!("{calling}{telemetry}"));
    assert_eq!(
        calling
            .client()
            .request("GET /", &[&traceparent("01")])
            .status,
        200
    );
    let spans = collector.wait(4);
    assert!(spans.iter().all(|span| span.trace == TRACE));
    let of = |service: &str, kind: &str| {
        let mut found = spans.iter();
        let wanted = |span: &&Told| span.service == service && span.kind == kind;
        found.find(wanted).unwrap_or_else(|| panic!("{spans:#?}"))
    };
    let line = [
        of("calling", "SERVER"),
        of("calling", "CLIENT"),
        of("called", "SERVER"),
        of("called", "CLIENT"),
    ];
    let mut parent = CALLER;
    for span in line {
        assert_eq!(span.parent, parent, "{spans:#?}");
        parent = &span.id;
    }
    let end = upstream.request();
    let told = end.header("traceparent").expect("always sent");
    assert!(told.contains(parent), "{told}: {spans:#?}");
}

#[test]
fn obs_108_who_gets_a_trace_does_as_the_one_that_began_it() {
    let upstream = Upstream::fixed("fine");
    let collector = Collector::start();
    let gateway = Gateway::start(&before(&upstream, &collector.traces(ALL)));
    let other = TRACE.replace('4', "5");
    let unsampled = format!("traceparent: 00-{other}-{CALLER}-00");
    assert_eq!(gateway.client().request("GET /", &[&unsampled]).status, 200);
    assert_eq!(
        gateway
            .client()
            .request("GET /", &[&traceparent("01")])
            .status,
        200
    );
    let spans = collector.wait(2);
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
    let flags = |request: &tollgate_engine::testing::journal::Request| {
        request
            .header("traceparent")
            .map(|value| value[53..].to_owned())
    };
    let flags: Vec<_> = upstream.requests().iter().map(flags).collect();
    assert_eq!(flags, [Some("00".to_owned()), Some("01".to_owned())]);
}

#[test]
fn obs_108_a_share_of_the_traces_that_begin_here_is_sampled_for_everybody() {
    const REQUESTS: usize = 400;
    let upstream = Upstream::fixed("fine");
    let collector = Collector::start();
    let gateway = Gateway::start(&before(&upstream, &collector.traces(", sample = 0.5")));
    let mut client = gateway.client();
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/").status, 200);
    }
    let sent = upstream.requests();
    let sampled = |request: &&tollgate_engine::testing::journal::Request| {
        request
            .header("traceparent")
            .is_some_and(|value| value.ends_with("-03"))
    };
    let sampled: Vec<_> = sent.iter().filter(sampled).collect();
    // Further from the half than once in 10^15 runs.
    assert!((120..280).contains(&sampled.len()), "{}", sampled.len());
    let spans = collector.wait(sampled.len() * 2);
    assert_eq!(spans.len(), sampled.len() * 2, "and nothing else");
}

#[test]
fn obs_108_what_fails_is_told_although_its_trace_is_not_sampled() {
    let (upstream, fine) = (failing(), Upstream::fixed("fine"));
    let collector = Collector::start();
    let toml = |keys: &str| {
        let app = before(&upstream, &collector.traces(keys));
        let route =
            "[[route]]\nname = \"fine\"\nmatch = { path = \"/fine\" }\nupstream = \"fine\"\n";
        let fine = format!(
            "[[upstream]]\nname = \"fine\"\nendpoints = [\"{}\"]\n",
            fine.address()
        );
        format!("{app}\n{route}\n{fine}")
    };
    let gateway = Gateway::start(&toml(FAILURES));
    assert_eq!(gateway.get("/fine").status, 200);
    assert_eq!(gateway.get("/").status, 500);
    let spans = collector.wait(2);
    let (server, tries) = sorted(&spans);
    assert!(server.failed && tries[0].failed);
    assert_eq!(server.attributes["http.response.status_code"], "500");
    let off = format!("{FAILURES}, always_on_error = false");
    gateway.edit(&toml(&off)).expect("it is accepted");
    assert_eq!(gateway.get("/").status, 500);
    assert_eq!(
        gateway
            .client()
            .request("GET /fine", &[&traceparent("01")])
            .status,
        200
    );
    let spans = collector.wait(4);
    assert_eq!(spans.len(), 4);
    assert!(
        spans[2..].iter().all(|span| span.trace == TRACE),
        "{spans:#?}"
    );
}

#[test]
fn obs_110_a_collector_that_was_away_is_told_afterwards() {
    let upstream = Upstream::fixed("fine");
    let is_back = Arc::new(AtomicBool::new(false));
    let back = is_back.clone();
    let collector = Collector::with(move |_| match back.load(Ordering::SeqCst) {
        true => Reply::ok(&[vec![]]),
        false => Reply::error(14, "away"),
    });
    let gateway = Gateway::start(&before(&upstream, &collector.traces(ALL)));
    assert_eq!(gateway.get("/").status, 200);
    wait(
        "two attempts",
        || collector.calls().len(),
        |calls| *calls >= 2,
    );
    is_back.store(true, Ordering::SeqCst);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(count(&gateway, "spans_exported_total", 4), 4);
    gateway.wait_metrics(&["spans_dropped_total{reason=\"queue_full\"} 0"]);
    let mut ids: Vec<_> = collector.spans().into_iter().map(|span| span.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "the same spans each time");
}

/// Nobody listens, then a collector does not answer: requests go on, what waits is bounded, the rest is counted.
#[test]
fn obs_110_no_request_waits_for_a_collector_and_nothing_grows_with_it() {
    let upstream = Upstream::fixed("fine");
    let hanging = Collector::with(|_| Reply {
        end: End::Hang,
        ..Reply::ok(&[])
    });
    for telemetry in [
        traces(&format!("http://{}", Upstream::nobody()), ALL),
        hanging.traces(ALL),
    ] {
        // Large spans: of few requests there are enough.
        let long = format!("\"{}\"", "u".repeat(200));
        let toml = before(&upstream, &telemetry).replace("\"app\"", &long);
        let gateway = Gateway::start(&toml);
        let mut client = gateway.client();
        let line = format!("GET /{}", "x".repeat(1000));
        let agent = format!("User-Agent: {}", "a".repeat(1000));
        let mut sent = 0;
        wait(
            "spans to be dropped",
            || {
                for _ in 0..200 {
                    assert_eq!(client.request(&line, &[&agent]).status, 200);
                }
                sent += 200;
                let page = gateway.metrics();
                !page.contains("spans_dropped_total{reason=\"queue_full\"} 0")
            },
            |dropped| *dropped,
        );
        // The spans of such a request are a kilobyte, and two times a megabyte is kept at the most.
        assert!(sent < 20_000, "{sent}");
    }
}

#[test]
fn obs_110_what_a_collector_refuses_is_counted_and_not_sent_again() {
    let upstream = Upstream::fixed("fine");
    for (reply, series, spans) in [
        (
            Reply::error(3, "no"),
            "spans_dropped_total{reason=\"refused\"}",
            2,
        ),
        (
            Reply::error(12, "no such method"),
            "spans_dropped_total{reason=\"refused\"}",
            2,
        ),
        (
            Reply::ok(&[rejecting(1)]),
            "spans_dropped_total{reason=\"refused\"}",
            1,
        ),
        // More than there were.
        (
            Reply::ok(&[rejecting(100)]),
            "spans_dropped_total{reason=\"refused\"}",
            2,
        ),
        // It says nothing that we understand, and takes them.
        (Reply::ok(&[vec![0xff; 9]]), "spans_exported_total", 2),
        (Reply::ok(&[]), "spans_exported_total", 2),
    ] {
        let said = format!("{reply:?}");
        let collector = Collector::with(move |_| reply.clone());
        let gateway = Gateway::start(&before(&upstream, &collector.traces(ALL)));
        assert_eq!(gateway.get("/").status, 200);
        assert_eq!(count(&gateway, series, spans), spans, "{said}");
        assert_eq!(collector.calls().len(), 1, "{said}");
    }
}

/// HI-51: each of these is no word on the message, which is sent again, and none of them does harm.
#[test]
fn a_collector_that_answers_nonsense_is_asked_again() {
    let upstream = Upstream::fixed("fine");
    let huge = Reply {
        pieces: vec![vec![0; 1 << 20]],
        ..Reply::ok(&[])
    };
    let cut = Reply {
        end: End::Cut,
        ..Reply::ok(&[vec![]])
    };
    let reset = Reply {
        end: End::Reset,
        ..Reply::ok(&[])
    };
    let no_number = Reply {
        end: End::Trailers(vec![("grpc-status", "fine".to_owned())]),
        ..Reply::ok(&[])
    };
    for reply in [huge, cut, reset, no_number] {
        let answers = AtomicUsize::new(0);
        let collector = Collector::with(move |_| match answers.fetch_add(1, Ordering::SeqCst) {
            0 => reply.clone(),
            _ => Reply::ok(&[vec![]]),
        });
        let gateway = Gateway::start(&before(&upstream, &collector.traces(ALL)));
        assert_eq!(gateway.get("/").status, 200);
        assert_eq!(count(&gateway, "spans_exported_total", 2), 2);
    }
}

#[test]
fn obs_110_the_last_spans_are_told_when_the_process_ends() {
    let upstream = Upstream::fixed("fine");
    let collector = Collector::start();
    let keys = format!("{ALL}, batch_timeout = \"1h\"");
    let gateway = Gateway::start(&before(&upstream, &collector.traces(&keys)));
    assert_eq!(gateway.get("/").status, 200);
    gateway.stop();
    assert_eq!(collector.spans().len(), 2);
}

/// Its end is the test.
#[test]
fn a_process_ends_although_its_collector_hangs() {
    let upstream = Upstream::fixed("fine");
    let collector = Collector::with(|_| Reply {
        end: End::Hang,
        ..Reply::ok(&[])
    });
    let gateway = Gateway::start(&before(&upstream, &collector.traces(ALL)));
    assert_eq!(gateway.get("/").status, 200);
    collector.wait(2);
    gateway.stop();
}

#[test]
fn batches_are_no_larger_than_they_should_be_and_a_full_one_does_not_wait() {
    let upstream = Upstream::fixed("fine");
    let collector = Collector::start();
    let keys = format!("{ALL}, batch_timeout = \"1h\", batch_size = 7");
    let gateway = Gateway::start(&before(&upstream, &collector.traces(&keys)));
    let mut client = gateway.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").status, 200);
    }
    collector.wait(7);
    gateway.stop();
    assert_eq!(collector.spans().len(), 100);
    for call in collector.calls() {
        assert!(read(&call.messages[0]).len() <= 7);
    }
}

#[test]
fn a_reload_changes_the_collector_and_ends_it() {
    let upstream = Upstream::fixed("fine");
    let [first, second] = [(); 2].map(|()| Collector::start());
    let gateway = Gateway::start(&before(&upstream, &first.traces(ALL)));
    assert_eq!(gateway.get("/").status, 200);
    first.wait(2);
    gateway
        .edit(&before(&upstream, &second.traces(ALL)))
        .expect("it is accepted");
    assert_eq!(gateway.get("/").status, 200);
    second.wait(2);
    assert_eq!(first.spans().len(), 2);
    gateway
        .edit(&before(&upstream, "\n[telemetry]\naccess_log = \"off\"\n"))
        .expect("it is accepted");
    assert_eq!(
        gateway
            .client()
            .request("GET /", &[&traceparent("00")])
            .status,
        200
    );
    let sent = upstream.requests();
    let last = sent
        .last()
        .and_then(|request| request.header("traceparent"));
    assert!(last.is_some_and(|value| value.ends_with("-00")), "{last:?}");
    // It is still shown, and nobody is told.
    trace(&gateway, TRACE, 2);
    gateway.stop();
    assert_eq!(second.spans().len(), 2);
}

#[test]
fn obs_110_a_collector_may_be_told_over_http() {
    let upstream = Upstream::fixed("fine");
    let answers = AtomicUsize::new(0);
    let collector = Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            match answers.fetch_add(1, Ordering::SeqCst) {
                0 => conn.respond("503 Service Unavailable", &[], "later"),
                1 => conn.respond("200 OK", &["Content-Type: application/x-protobuf"], ""),
                _ => conn.respond("400 Bad Request", &[], "no"),
            };
        }
    });
    let url = format!("http://{}/v1/traces", collector.address());
    let gateway = Gateway::start(&before(&upstream, &traces(&url, ALL)));
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(count(&gateway, "spans_exported_total", 2), 2);
    for request in collector.requests() {
        assert_eq!(request.line(), "POST /v1/traces HTTP/1.1");
        assert_eq!(
            request.header("content-type"),
            Some("application/x-protobuf")
        );
        assert_eq!(read(&request.body).len(), 2);
    }
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(
        count(&gateway, "spans_dropped_total{reason=\"refused\"}", 2),
        2
    );
    assert_eq!(collector.requests().len(), 3);
}
