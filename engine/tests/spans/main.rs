//! Spans: what a data plane tells of each request (MESH-502, OBS-104, OBS-107), those of the last while at the admin
//! address, and those that a collector is told (OBS-108, OBS-110).

mod recent;

use tollgate_config::span::{Span, SpanKind, Spans};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::waiting::wait;

/// Nothing but what a test says decides about tries.
const BARE: &str = "outlier = \"off\"\nbreaker = \"off\"\nretry_budget = \"off\"\n";
const QUICK: &str = "[route.retry]\nbackoff = { base = \"1ms\", max = \"2ms\" }";

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn traceparent(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{CALLER}-{flags}")
}

fn page(gateway: &Gateway, target: &str) -> Vec<Span> {
    let answer = gateway.ask(&format!("GET {target}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let spans: Spans = serde_json::from_slice(&answer.body).expect("the page is JSON");
    spans.spans
}

/// Waits until so many spans of a trace are known.
#[track_caller]
fn trace(gateway: &Gateway, trace_id: &str, count: usize) -> Vec<Span> {
    wait(
        "spans of a trace",
        || page(gateway, &format!("/traces/{trace_id}")),
        |spans| spans.len() == count,
    )
}

/// The span of the request, and those of its tries in their order.
#[track_caller]
fn parts(spans: &[Span]) -> (&Span, Vec<&Span>) {
    let mut server = spans.iter().filter(|span| span.kind == SpanKind::Server);
    let (Some(server_span), None) = (server.next(), server.next()) else {
        panic!("not one server span: {spans:#?}");
    };
    let clients = spans.iter().filter(|span| span.kind == SpanKind::Client);
    let mut clients: Vec<_> = clients.collect();
    clients.sort_by_key(|span| tag(span, "attempt").parse::<u32>().ok());
    (server_span, clients)
}

#[track_caller]
fn tag<'s>(span: &'s Span, name: &str) -> &'s str {
    span.tags.get(name).map_or("", String::as_str)
}
