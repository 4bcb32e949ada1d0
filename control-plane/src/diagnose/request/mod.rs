//! What became of one request (CP-303, OBS-109): the spans that nodes and services tell of its trace are put together, what
//! is missing is named, and the first cause is said in plain words. Facts in, a report out; pure.

mod cause;
mod logs;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tollgate_config::span::Span;

use super::{Advice, saga};
pub use cause::RootCause;
pub use logs::{LogLine, Logs};
use tree::Tree;
pub use tree::{Context, Shown};

/// Everything that is known of one trace.
#[derive(Debug, Default)]
pub struct Facts {
    pub trace_id: String,
    /// When it was asked for, as it is shown.
    pub time: String,
    pub told: Vec<Told>,
    /// Who was asked and did not answer.
    pub silent: Vec<Silent>,
    pub services: BTreeMap<String, Registered>,
    /// The services that upstreams stand for, by the upstream's name.
    pub upstreams: BTreeMap<String, String>,
    /// The services that routes send to, by the route's name; of those that send to one alone.
    pub routes: BTreeMap<String, String>,
    /// Of the order that the request was about.
    pub saga: Option<saga::Report>,
    /// There were more spans than are looked at.
    pub cut: bool,
}

/// What one teller knows.
#[derive(Debug, Default)]
pub struct Told {
    /// Such as `node edge-1`, or `instance orders-1`.
    pub by: String,
    pub spans: Vec<Span>,
    /// Lines of a service's log, where it offers them.
    pub log: Option<ServiceLog>,
}

#[derive(Debug, Default)]
pub struct ServiceLog {
    pub service: String,
    pub lines: Vec<LogLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Silent {
    pub who: String,
    pub why: String,
}

/// How a service stands in the registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registered {
    pub instances: usize,
    /// Those that a lookup finds.
    pub resolved: usize,
    /// Whether it offers debug pages, or has a data plane beside it that answers.
    pub tells: bool,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub trace_id: String,
    pub time: String,
    /// Nothing failed, and nothing is missing.
    pub well: bool,
    pub root_cause: RootCause,
    pub resolution_steps: Vec<Advice>,
    pub completeness: Completeness,
    pub contexts: Vec<Context>,
    pub discovery: Vec<Discovery>,
    pub logs: Logs,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saga: Option<saga::Report>,
    /// Who did not answer; what they know is not in here.
    pub silent: Vec<Silent>,
    /// In the order of a call tree.
    pub spans: Vec<Shown>,
}

#[derive(Debug, Serialize)]
pub struct Completeness {
    pub complete: bool,
    pub total: usize,
    /// There were more than are looked at.
    pub cut: bool,
    pub missing: Vec<Missing>,
    /// Ids of spans whose caller is missing.
    pub orphans: Vec<String>,
    pub timing_faults: Vec<Fault>,
    pub coverage: Vec<Coverage>,
}

/// A span that must have been there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Absent: only that it is missing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// Whose it is, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    pub span_id: String,
    pub service: String,
    pub operation: String,
    pub fault: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Coverage {
    pub service: String,
    pub spans: usize,
    pub errors: usize,
    pub told_by: Vec<String>,
}

/// A service that should have answered, and of which nothing is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Discovery {
    pub service: String,
    /// `missing`, `no_instances`, or `registered`.
    pub status: &'static str,
    pub instances: usize,
    pub resolved: usize,
    pub problem: String,
    pub suggestion: String,
}

impl Facts {
    /// Whether anybody knows anything of this trace.
    pub fn is_known(&self) -> bool {
        let mut told = self.told.iter();
        told.any(|one| !one.spans.is_empty() || !logs::is_empty(one))
    }

    /// Sagas that lines or spans of this trace name.
    pub fn sagas(&self) -> BTreeSet<String> {
        let tags = { self.told.iter() }
            .flat_map(|one| &one.spans)
            .filter_map(|span| span.tags.get("saga_id"));
        let lines = { self.told.iter() }
            .flat_map(|one| &one.log)
            .flat_map(|log| &log.lines)
            .filter_map(|line| line.saga_id.as_ref());
        tags.chain(lines).cloned().collect()
    }

    /// The service that a request of this span was to be sent to.
    fn meant<'f>(&'f self, span: &'f Span) -> Option<&'f str> {
        let route = { span.tags.get("route") }.and_then(|route| self.routes.get(route));
        let service = match route {
            Some(service) => service.as_str(),
            None => span.tags.get("destination")?.rsplit('/').next()?,
        };
        (service != span.service).then_some(service)
    }

    /// The service that a call of this span went to.
    fn callee<'f>(&'f self, span: &'f Span) -> Option<&'f str> {
        let named = span.tags.get("upstream").unwrap_or(&span.operation);
        match self.upstreams.get(named) {
            Some(service) => Some(service),
            None => self
                .services
                .get_key_value(named)
                .map(|(name, _)| name.as_str()),
        }
    }
}

/// The report of these facts.
pub fn report(facts: Facts) -> Report {
    let tree = Tree::new(&facts);
    let missing = tree.missing();
    let discovery = discovery(&facts, &tree);
    let logs = logs::logs(&facts);
    let completeness = Completeness {
        complete: missing.is_empty() && !facts.cut && tree.len() > 0,
        total: tree.len(),
        cut: facts.cut,
        missing,
        orphans: tree.orphans(),
        timing_faults: tree.timing_faults(),
        coverage: tree.coverage(),
    };
    let root_cause = cause::root_cause(&facts, &tree, &completeness, &logs);
    let resolution_steps = cause::steps(&facts, &root_cause, &completeness, &discovery, &logs);
    let (contexts, spans) = (tree.contexts(), tree.shown());
    let saga = facts.saga;
    Report {
        trace_id: facts.trace_id,
        time: facts.time,
        well: root_cause.kind.is_well() && completeness.complete,
        root_cause,
        resolution_steps,
        completeness,
        contexts,
        discovery,
        logs,
        saga,
        silent: facts.silent,
        spans,
    }
}

/// Services that were called, or should have been, and of which no span is told.
fn discovery(facts: &Facts, tree: &Tree<'_>) -> Vec<Discovery> {
    let unanswered = tree.unanswered();
    let found = { unanswered.into_iter() }.map(|service| {
        let known = facts.services.get(service).copied().unwrap_or_default();
        let (status, problem, suggestion) = match known {
            Registered { instances: 0, .. } => (
                "missing",
                format!("no instance of `{service}` is registered"),
                format!("let it announce itself; tollgate diagnose service {service}"),
            ),
            Registered { resolved: 0, .. } => (
                "no_instances",
                format!("`{service}` is registered, but no lookup finds an instance of it"),
                format!("tollgate diagnose service {service} says why"),
            ),
            _ => (
                "registered",
                format!("`{service}` is found, but tells nothing of this request"),
                "it did not get the request, does not pass on `traceparent`, or forgot it since"
                    .to_owned(),
            ),
        };
        Discovery {
            service: service.to_owned(),
            status,
            instances: known.instances,
            resolved: known.resolved,
            problem,
            suggestion,
        }
    });
    found.collect()
}
