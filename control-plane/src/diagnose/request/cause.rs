//! What went wrong first, in plain words, and what to do about it: what failed deepest in the tree, else what a saga or a
//! log says, else what is missing, else where the time went.

use serde::Serialize;
use tollgate_config::span::{Span, SpanKind, SpanStatus};

use super::logs::Logs;
use super::tree::{Node, Tree};
use super::{Advice, Completeness, Discovery, Facts};
use crate::diagnose::saga;

/// Tags of a span that say how it ended, as they are told.
const TELLING: [&str; 9] = [
    "code",
    "status",
    "grpc_status",
    "error",
    "reason",
    "endpoint",
    "attempt",
    "breaker",
    "route",
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootCause {
    pub kind: Kind,
    /// In plain words.
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A span failed.
    Error,
    /// The saga behind it did not come to its good end.
    Saga,
    /// A service logged an error.
    Log,
    /// Nothing failed that is told, but not everything is told.
    Incomplete,
    Nothing,
}

impl Kind {
    pub(super) fn is_well(self) -> bool {
        self == Kind::Nothing
    }
}

pub(super) fn root_cause(
    facts: &Facts,
    tree: &Tree<'_>,
    completeness: &Completeness,
    logs: &Logs,
) -> RootCause {
    let plain = |kind, text| RootCause {
        kind,
        text,
        service: None,
        span_id: None,
    };
    if let Some(node) = deepest_error(tree) {
        return RootCause {
            kind: Kind::Error,
            text: failed(facts, tree, node, logs),
            service: Some(node.span.service.clone()),
            span_id: Some(node.span.span_id.clone()),
        };
    }
    let saga = facts.saga.as_ref();
    if let Some(saga) = saga.filter(|saga| saga.outcome != saga::Outcome::Completed) {
        let step = saga.saga.failed();
        return RootCause {
            service: step.map(|step| step.service.clone()),
            ..plain(
                Kind::Saga,
                format!(
                    "no call failed, but its saga did not end well: {}",
                    saga.root_cause
                ),
            )
        };
    }
    if let Some(pattern) = logs
        .error_patterns
        .iter()
        .find(|one| one.severity == "high")
    {
        let services = pattern.services.join(", ");
        return RootCause {
            service: pattern.services.first().cloned(),
            ..plain(
                Kind::Log,
                format!(
                    "no span failed, but {services} logged an error: {}",
                    pattern.pattern
                ),
            )
        };
    }
    if !completeness.complete {
        let text = match (completeness.total, completeness.missing.first()) {
            (0, _) => "no span of it is told: only lines of logs are left of it".to_owned(),
            (_, Some(missing)) => format!(
                "nothing failed that is told, but a part is missing: {}",
                missing.why
            ),
            (_, None) => "nothing failed that is told, but there are more spans than are looked at"
                .to_owned(),
        };
        return plain(Kind::Incomplete, text);
    }
    plain(Kind::Nothing, spent(tree))
}

/// The failed span that no failed one stands below; of several, the one farthest from the client, and the first of these.
fn deepest_error<'t, 'f>(tree: &'t Tree<'f>) -> Option<&'t Node<'f>> {
    let failed = |node: &&Node<'f>| node.span.status == SpanStatus::Error;
    { tree.nodes() }
        .filter(failed)
        .filter(|node| !tree.children(node).any(|child| failed(&child)))
        .max_by_key(|node| (node.depth, std::cmp::Reverse(node.span.end_us())))
}

fn failed(facts: &Facts, tree: &Tree<'_>, node: &Node<'_>, logs: &Logs) -> String {
    let span = node.span;
    let how = tags(span);
    let (service, operation) = (&span.service, &span.operation);
    let mut text = match (span.kind, facts.callee(span)) {
        (SpanKind::Client, Some(callee)) => {
            format!("{service} called {callee} ({operation}), which failed{how}")
        }
        (SpanKind::Client, None) => format!("{service} called {operation}, which failed{how}"),
        (SpanKind::Server, _) => format!("{service} failed at {operation}{how}"),
        (SpanKind::Internal, _) => format!("{service} could not do {operation}{how}"),
    };
    if let Some(caller) = tree.caller(node).filter(|_| span.kind == SpanKind::Server) {
        text += &format!("; it was asked by {}", caller.span.service);
    }
    let line = { logs.lines.iter().rev() }
        .find(|line| line.service == *service && line.line.span_id.as_ref() == Some(&span.span_id))
        .or_else(|| { logs.lines.iter().rev() }.find(|line| line.service == *service));
    if let Some(line) = line {
        text += &format!("; its log says: {}", line.line.words());
    }
    text
}

fn tags(span: &Span) -> String {
    let told: Vec<String> = { TELLING.iter() }
        .filter_map(|name| Some(format!("{name} {}", span.tags.get(*name)?)))
        .collect();
    match told.is_empty() {
        true => String::new(),
        false => format!(" ({})", told.join(", ")),
    }
}

/// Where the time went, when nothing is wrong.
fn spent(tree: &Tree<'_>) -> String {
    let own = |node: &Node<'_>| {
        let below: u64 = { tree.children(node) }
            .map(|child| child.span.duration_us)
            .fold(0, u64::saturating_add);
        node.span.duration_us.saturating_sub(below)
    };
    let Some(slowest) = tree.nodes().max_by_key(|node| own(node)) else {
        return "nothing failed".to_owned();
    };
    format!(
        "nothing failed; most of the time, {:.1} ms, was spent in {} ({})",
        own(slowest) as f64 / 1000.0,
        slowest.span.service,
        slowest.span.operation
    )
}

/// What to do, the most important first.
pub(super) fn steps(
    facts: &Facts,
    cause: &RootCause,
    completeness: &Completeness,
    discovery: &[Discovery],
    logs: &Logs,
) -> Vec<Advice> {
    let mut steps: Vec<String> = Vec::new();
    for one in discovery {
        steps.push(format!("{}: {}", one.problem, one.suggestion));
    }
    if let (Kind::Error, Some(service)) = (cause.kind, &cause.service) {
        match facts.services.contains_key(service) {
            true => steps.push(format!("look at the service that failed: tollgate diagnose service {service}")),
            false => steps.push(format!("look at {service}, which failed: its log, and `tollgate breakers` of its admin address")),
        }
    }
    if let Some(saga) = &facts.saga {
        steps.extend(saga.recommendations.iter().map(|one| one.text.clone()));
        let id = &saga.saga.saga_id;
        if !saga.well {
            steps.push(format!(
                "look at the saga alone: tollgate diagnose saga {id}"
            ));
        }
    }
    for issue in &logs.issues {
        steps.push(format!(
            "{}: {} lines of its log have {}; {}",
            issue.service,
            issue.lines,
            issue.issue.replace('_', " "),
            issue.suggestion
        ));
    }
    if !completeness.missing.is_empty() && !facts.silent.is_empty() {
        let who: Vec<&str> = facts.silent.iter().map(|one| &*one.who).take(5).collect();
        steps.push(format!(
            "what is missing may be known to those that did not answer: {}; ask again",
            who.join(", ")
        ));
    }
    if !completeness.timing_faults.is_empty() {
        steps.push("clocks differ: see to it that every machine keeps its time by NTP".to_owned());
    }
    if completeness.cut {
        steps.push("there are more spans than are looked at: ask the nodes one by one, at GET /traces/{trace_id} of their admin addresses".to_owned());
    }
    let plain = |text| Advice {
        text,
        setting: None,
        place: None,
    };
    steps.into_iter().map(plain).collect()
}
