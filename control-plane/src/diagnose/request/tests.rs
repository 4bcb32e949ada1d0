use serde_json::json;
use tollgate_config::span::{SpanKind, SpanStatus};

use super::cause::Kind;
use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A span by numbers: its own, its caller's, and when it began and ended, in milliseconds.
fn span(service: &str, kind: SpanKind, own: u64, parent: Option<u64>, at: (u64, u64)) -> Span {
    let id = |number: u64| format!("{number:016x}");
    Span {
        trace_id: TRACE.to_owned(),
        span_id: id(own),
        parent_id: parent.map(id),
        service: service.to_owned(),
        operation: "Op".to_owned(),
        kind,
        start_us: at.0 * 1000,
        duration_us: (at.1 - at.0) * 1000,
        status: SpanStatus::Ok,
        tags: BTreeMap::new(),
    }
}

fn tagged(mut span: Span, tags: &[(&str, &str)]) -> Span {
    let tags = tags
        .iter()
        .map(|(key, value)| (key.to_string(), value.to_string()));
    span.tags.extend(tags);
    span
}

fn failed(mut span: Span) -> Span {
    span.status = SpanStatus::Error;
    span
}

/// The edge asks orders, which asks payments.
fn edge() -> Vec<Span> {
    vec![
        span("gateway", SpanKind::Server, 1, Some(99), (0, 100)),
        tagged(
            span("gateway", SpanKind::Client, 2, Some(1), (1, 99)),
            &[("upstream", "orders")],
        ),
    ]
}

fn orders() -> Vec<Span> {
    vec![
        span("orders", SpanKind::Server, 3, Some(2), (2, 98)),
        tagged(
            span("orders", SpanKind::Client, 4, Some(3), (3, 90)),
            &[("upstream", "payments")],
        ),
    ]
}

fn payments() -> Vec<Span> {
    vec![span("payments", SpanKind::Server, 5, Some(4), (4, 89))]
}

fn told(by: &str, spans: Vec<Span>) -> Told {
    Told {
        by: by.to_owned(),
        spans,
        log: None,
    }
}

fn line(level: &str, message: &str) -> LogLine {
    LogLine {
        level: level.to_owned(),
        message: message.to_owned(),
        trace_id: Some(TRACE.to_owned()),
        span_id: Some(format!("{:016x}", 5)),
        ..LogLine::default()
    }
}

fn log(service: &str, lines: Vec<LogLine>) -> Told {
    Told {
        by: format!("instance {service}-1"),
        spans: Vec::new(),
        log: Some(ServiceLog {
            service: service.to_owned(),
            lines,
        }),
    }
}

fn facts(told: Vec<Told>) -> Facts {
    let known = |name: &str, instances| {
        let one = Registered {
            instances,
            resolved: instances,
            tells: true,
        };
        (name.to_owned(), one)
    };
    let names = ["orders", "payments"];
    Facts {
        trace_id: TRACE.to_owned(),
        told,
        services: BTreeMap::from([known("orders", 1), known("payments", 1)]),
        upstreams: names.map(|name| (name.to_owned(), name.to_owned())).into(),
        routes: BTreeMap::from([("pay".to_owned(), "payments".to_owned())]),
        ..Facts::default()
    }
}

fn all() -> Vec<Told> {
    vec![
        told("node edge-1", edge()),
        told("node orders-sidecar", orders()),
        told("instance payments-1", payments()),
    ]
}

#[test]
fn obs_109_a_whole_trace_is_complete_and_its_calls_are_passed_on_rightly() {
    let report = report(facts(all()));
    assert!(report.well, "{report:#?}");
    assert_eq!(report.completeness.total, 5);
    assert!(report.completeness.complete && report.completeness.orphans.is_empty());
    assert_eq!(report.completeness.timing_faults, []);
    let depths: Vec<usize> = report.spans.iter().map(|one| one.depth).collect();
    assert_eq!(depths, [0, 1, 2, 3, 4]);
    let calls: Vec<_> = { report.contexts.iter() }
        .map(|one| (&*one.from, &*one.to, one.propagation))
        .collect();
    let wanted = [
        ("gateway", "orders", "correct"),
        ("orders", "payments", "correct"),
    ];
    assert_eq!(calls, wanted);
    let coverage: Vec<_> = { report.completeness.coverage.iter() }
        .map(|one| (&*one.service, one.spans))
        .collect();
    assert_eq!(coverage, [("gateway", 2), ("orders", 2), ("payments", 1)]);
    assert_eq!(report.root_cause.kind, Kind::Nothing);
    let words = &report.root_cause.text;
    assert!(words.contains("85.0 ms, was spent in payments"), "{words}");
    assert_eq!(report.discovery, []);
}

#[test]
fn requests_of_one_client_are_not_orphans_of_one_another() {
    let mut all = all();
    all[0]
        .spans
        .push(span("gateway", SpanKind::Server, 6, Some(99), (200, 210)));
    let report = report(facts(all));
    assert!(report.completeness.complete, "{report:#?}");
}

#[test]
fn obs_109_what_is_missing_is_named_and_who_may_know_it() {
    let mut facts = facts(vec![
        told("node edge-1", edge()),
        told("instance payments-1", payments()),
    ]);
    facts.silent.push(Silent {
        who: "node orders-sidecar".to_owned(),
        why: "no answer".to_owned(),
    });
    let report = report(facts);
    assert!(!report.well && !report.completeness.complete);
    assert_eq!(report.completeness.orphans, [format!("{:016x}", 5)]);
    let missing = &report.completeness.missing;
    assert_eq!(missing[0].span_id, Some(format!("{:016x}", 4)));
    assert_eq!(missing[1].service.as_deref(), Some("orders"));
    assert_eq!(report.root_cause.kind, Kind::Incomplete);
    assert_eq!(report.discovery[0].service, "orders");
    assert_eq!(report.discovery[0].status, "registered");
    assert_eq!(report.contexts[0].propagation, "missing");
    let steps = format!("{:?}", report.resolution_steps);
    assert!(steps.contains("node orders-sidecar"), "{steps}");
}

#[test]
fn obs_109_a_parent_that_somebody_changed_is_a_corrupted_context() {
    let mut lost = payments();
    lost[0].parent_id = Some("f".repeat(16));
    let report = report(facts(vec![
        told("node edge-1", edge()),
        told("node orders-sidecar", orders()),
        told("instance payments-1", lost),
    ]));
    let context = &report.contexts[1];
    assert_eq!(
        (&*context.to, context.propagation),
        ("payments", "corrupted")
    );
    assert_eq!(context.expected_parent_id, format!("{:016x}", 4));
    assert_eq!(context.actual_parent_id, Some("f".repeat(16)));
}

#[test]
fn obs_109_clocks_that_cannot_be_right_are_told_and_small_differences_are_not() {
    let mut early = payments();
    early[0].start_us = 0;
    let told_all = |payments| {
        vec![
            told("node edge-1", edge()),
            told("node orders-sidecar", orders()),
            told("instance payments-1", payments),
        ]
    };
    let faults = report(facts(told_all(early))).completeness.timing_faults;
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0].fault.contains("began 3000 µs before orders Op"),
        "{faults:?}"
    );
    let mut late = payments();
    late[0].duration_us = 500_000;
    let faults = report(facts(told_all(late.clone())))
        .completeness
        .timing_faults;
    assert!(faults[0].fault.contains("ended"), "{faults:?}");
    // Who gave up does not know when the other one was done.
    let mut all = told_all(late);
    all[1].spans[1].status = SpanStatus::Error;
    assert_eq!(report(facts(all)).completeness.timing_faults, []);
    let mut near = payments();
    near[0].start_us = 2_000;
    assert_eq!(report(facts(told_all(near))).completeness.timing_faults, []);
}

#[test]
fn cp_303_the_root_cause_is_what_failed_deepest_with_the_words_of_its_log() {
    let mut all = all();
    for one in &mut all {
        for span in &mut one.spans {
            *span = failed(span.clone());
        }
    }
    let broken = failed(tagged(payments().remove(0), &[("grpc_status", "14")]));
    all[2].spans = vec![broken];
    all.push(log(
        "payments",
        vec![line("error", "the processor is away")],
    ));
    let report = report(facts(all));
    assert_eq!(report.root_cause.kind, Kind::Error);
    assert_eq!(report.root_cause.service.as_deref(), Some("payments"));
    assert_eq!(report.root_cause.span_id, Some(format!("{:016x}", 5)));
    let words = &report.root_cause.text;
    for part in [
        "payments failed at Op (grpc_status 14)",
        "asked by orders",
        "its log says: the processor is away",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let steps = format!("{:?}", report.resolution_steps);
    assert!(
        steps.contains("tollgate diagnose service payments"),
        "{steps}"
    );
}

#[test]
fn cp_303_a_service_that_is_not_registered_is_a_discovery_problem() {
    let mut edge = vec![failed(tagged(
        span("gateway", SpanKind::Server, 1, None, (0, 5)),
        &[("route", "pay"), ("code", "no_healthy_upstream")],
    ))];
    let mut facts_of = facts(vec![told("node edge-1", edge.clone())]);
    facts_of.services.remove("payments");
    let told_missing = report(facts_of);
    assert_eq!(told_missing.discovery[0].service, "payments");
    assert_eq!(told_missing.discovery[0].status, "missing");
    let steps = &told_missing.resolution_steps[0].text;
    assert!(
        steps.contains("no instance of `payments` is registered"),
        "{steps}"
    );

    edge.push(failed(tagged(
        span("gateway", SpanKind::Client, 2, Some(1), (1, 4)),
        &[("upstream", "orders"), ("code", "connect_refused")],
    )));
    let mut facts_of = facts(vec![told("node edge-1", edge)]);
    if let Some(orders) = facts_of.services.get_mut("orders") {
        orders.resolved = 0;
    }
    let report = report(facts_of);
    assert_eq!(report.discovery[0].status, "no_instances");
    let cause = &report.root_cause.text;
    let wanted = "gateway called orders (Op), which failed (code connect_refused)";
    assert!(cause.contains(wanted), "{cause}");
}

#[test]
fn cp_303_lines_without_ids_are_issues_and_repeated_errors_are_patterns() {
    let mut lost = line("info", "paid");
    lost.trace_id = None;
    let mut other = line("info", "paid");
    other.trace_id = Some("a".repeat(32));
    let mut vague = line("info", "paid");
    vague.span_id = None;
    let mut told = all();
    told.push(log("payments", vec![lost, other, vague]));
    told.push(log(
        "orders",
        vec![
            line("warn", "again"),
            line("error", "again"),
            line("warn", "once"),
        ],
    ));
    let report = report(facts(told));
    let issues: Vec<_> = { report.logs.issues.iter() }
        .map(|one| (one.issue, &*one.service, one.lines))
        .collect();
    let wanted = [
        ("missing_span_id", "payments", 1),
        ("missing_trace_id", "payments", 1),
        ("wrong_trace_id", "payments", 1),
    ];
    assert_eq!(issues, wanted);
    let patterns: Vec<_> = { report.logs.error_patterns.iter() }
        .map(|one| (&*one.pattern, one.frequency, one.severity))
        .collect();
    assert_eq!(patterns, [("again", 2, "high"), ("once", 1, "medium")]);
    assert_eq!(report.logs.with, ["orders", "payments"]);
    assert_eq!(report.root_cause.kind, Kind::Log);
    let quiet = super::report(facts(all()));
    assert_eq!(quiet.logs.without, ["orders", "payments"]);
}

#[test]
fn cp_303_a_saga_that_failed_is_the_cause_when_no_call_failed() {
    let saga: saga::Saga = serde_json::from_value(json!({
        "saga_id": "s-1", "status": "failed", "failed_step": "ProcessPayment",
        "steps": [{ "name": "ProcessPayment", "service": "payments", "status": "failed" }],
        "error": { "reason": "PAYMENT_FAILED", "message": "refused" },
    }))
    .expect("a saga");
    let mut told = all();
    told[1].spans[0] = tagged(told[1].spans[0].clone(), &[("saga_id", "s-1")]);
    let mut facts = facts(told);
    assert_eq!(facts.sagas().first().map(String::as_str), Some("s-1"));
    facts.saga = Some(saga::report(
        saga,
        "instance orders-1".to_owned(),
        String::new(),
    ));
    let report = report(facts);
    assert_eq!(report.root_cause.kind, Kind::Saga);
    let words = &report.root_cause.text;
    assert!(
        words.contains("ProcessPayment (of payments) failed: PAYMENT_FAILED: refused"),
        "{words}"
    );
    assert!(!report.well);
}

/// Spans are whatever somebody sends: circles, repetitions, ends of time.
#[test]
fn hostile_spans_lead_nowhere_and_end() {
    let mut spans: Vec<Span> = (1..=300)
        .map(|at| span("a", SpanKind::Client, at, Some(at % 300 + 1), (0, 1)))
        .collect();
    spans.push(span("a", SpanKind::Server, 1, Some(1), (0, 1)));
    spans.push(span("b", SpanKind::Server, 1000, Some(1000), (0, 1)));
    let mut late = span("b", SpanKind::Server, 1001, Some(3), (0, 1));
    (late.start_us, late.duration_us) = (u64::MAX, u64::MAX);
    spans.push(failed(late));
    let report = report(facts(vec![told("node x", spans)]));
    assert_eq!(report.completeness.total, 302);
    assert_eq!(report.spans.len(), 302);
    assert_eq!(report.root_cause.kind, Kind::Error);
    let nothing = super::report(facts(Vec::new()));
    assert_eq!(nothing.root_cause.kind, Kind::Incomplete);
}
