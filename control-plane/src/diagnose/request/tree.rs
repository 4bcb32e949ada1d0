//! The spans of a trace as a tree: who called whom, whom nobody told of, and whose clock cannot be right. Spans come from
//! strangers: ids may repeat, lead in circles or nowhere.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tollgate_config::span::{Span, SpanKind, SpanStatus};

use super::{Coverage, Facts, Fault, Missing};

/// Clocks that differ by less are not spoken of, in microseconds.
const TOLERANCE: u64 = 2_000;
/// Callers of callers that are followed.
const DEEPEST: usize = 64;
/// Of one kind of finding.
const MOST: usize = 200;

/// One call: what the caller sent, and what the other side says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Context {
    pub from: String,
    pub to: String,
    pub trace_id: String,
    /// The caller's span, which the other side should name as its parent.
    pub expected_parent_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual_parent_id: Option<String>,
    pub present: bool,
    pub format_valid: bool,
    /// `correct`, `missing` or `corrupted`.
    pub propagation: &'static str,
}

/// A span with its place in the tree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    pub depth: usize,
    pub told_by: String,
    /// Since the trace began.
    pub offset_us: u64,
    #[serde(flatten)]
    pub span: Span,
}

pub(super) struct Tree<'f> {
    facts: &'f Facts,
    /// By their start.
    spans: Vec<Node<'f>>,
    /// The span that the trace begins with here; its parent, if any, is the client's own.
    entry: Option<usize>,
}

pub(super) struct Node<'f> {
    pub(super) span: &'f Span,
    by: &'f str,
    parent: Option<usize>,
    children: Vec<usize>,
    pub(super) depth: usize,
}

impl<'f> Tree<'f> {
    pub(super) fn new(facts: &'f Facts) -> Tree<'f> {
        let all =
            { facts.told.iter() }.flat_map(|one| one.spans.iter().map(|span| (&*one.by, span)));
        let mut seen = BTreeSet::new();
        let mut all: Vec<(&str, &Span)> = all
            // One that is told twice, by two processes of a node, is one.
            .filter(|(_, span)| seen.insert(&*span.span_id))
            .collect();
        // Of two that began together, the one that lasted longer is the other's caller.
        all.sort_by_key(|(_, span)| (span.start_us, std::cmp::Reverse(span.duration_us)));
        let by_id: BTreeMap<&str, usize> = { all.iter().enumerate() }
            .map(|(at, (_, span))| (&*span.span_id, at))
            .collect();
        let parent_of = |at: usize, span: &Span| {
            let parent = by_id.get(span.parent_id.as_deref()?).copied();
            parent.filter(|parent| *parent != at)
        };
        let mut spans: Vec<Node<'f>> = { all.iter().enumerate() }
            .map(|(at, (by, span))| Node {
                span,
                by,
                parent: parent_of(at, span),
                children: Vec::new(),
                depth: 0,
            })
            .collect();
        for at in 0..spans.len() {
            if let Some(parent) = spans[at].parent {
                spans[parent].children.push(at);
            }
        }
        let root = { spans.iter() }.position(|node| node.span.parent_id.is_none());
        // A client that began the trace itself tells nobody.
        let first = || { spans.iter() }.position(|node| node.parent.is_none());
        let entry = root.or_else(first);
        let mut tree = Tree {
            facts,
            spans,
            entry,
        };
        let depths: Vec<usize> = (0..tree.len()).map(|at| tree.callers(at).count()).collect();
        for (node, depth) in tree.spans.iter_mut().zip(depths) {
            node.depth = depth;
        }
        tree
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node<'f>> {
        self.spans.iter()
    }

    pub(super) fn children<'t>(&'t self, node: &'t Node<'f>) -> impl Iterator<Item = &'t Node<'f>> {
        node.children.iter().map(|at| &self.spans[*at])
    }

    pub(super) fn caller(&self, node: &Node<'f>) -> Option<&Node<'f>> {
        node.parent.map(|at| &self.spans[at])
    }

    /// Its caller, that one's caller, and so on; in a circle, not for ever.
    fn callers(&self, at: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.spans[at].parent, |at| self.spans[*at].parent).take(DEEPEST)
    }

    /// Those whose caller is not there. A client that was not asked may have begun the trace: it is the caller of the
    /// first, and may have sent more than one request.
    fn lost(&self) -> impl Iterator<Item = &Node<'f>> {
        let entry = self.entry.map(|at| self.spans[at].span);
        let client = entry.and_then(|span| span.parent_id.as_deref());
        { self.spans.iter() }.filter(move |node| {
            let caller = node.span.parent_id.as_deref();
            node.parent.is_none() && caller.is_some() && caller != client
        })
    }

    pub(super) fn orphans(&self) -> Vec<String> {
        { self.lost() }
            .take(MOST)
            .map(|node| node.span.span_id.clone())
            .collect()
    }

    pub(super) fn missing(&self) -> Vec<Missing> {
        let mut callers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for node in self.lost() {
            if let Some(parent) = node.span.parent_id.as_deref() {
                callers
                    .entry(parent)
                    .or_default()
                    .insert(&node.span.service);
            }
        }
        let lost = callers.into_iter().map(|(id, services)| {
            let services: Vec<&str> = services.into_iter().collect();
            Missing {
                span_id: Some(id.to_owned()),
                service: None,
                why: format!(
                    "{} names it as the caller, and nobody tells it",
                    services.join(", ")
                ),
            }
        });
        let callees = self.silent_calls().map(|(node, callee)| Missing {
            span_id: None,
            service: Some(callee.to_owned()),
            why: format!(
                "{} called {callee} ({}), which tells nothing of it",
                node.span.service, node.span.operation
            ),
        });
        lost.chain(callees).take(MOST).collect()
    }

    /// Calls that were answered by somebody who usually tells, and has not.
    fn silent_calls(&self) -> impl Iterator<Item = (&Node<'f>, &str)> {
        { self.spans.iter() }
            .filter(|node| node.span.kind == SpanKind::Client && node.children.is_empty())
            .filter(|node| node.span.status == SpanStatus::Ok)
            .filter_map(|node| Some((node, self.facts.callee(node.span)?)))
            .filter(|(_, callee)| { self.facts.services.get(*callee) }.is_some_and(|one| one.tells))
    }

    /// Services that were called and of which no span at all is told.
    pub(super) fn unanswered(&self) -> BTreeSet<&str> {
        let told: BTreeSet<&str> = self.spans.iter().map(|node| &*node.span.service).collect();
        let failed = { self.spans.iter() }
            .filter(|node| node.span.kind == SpanKind::Client && node.children.is_empty())
            .filter(|node| node.span.status == SpanStatus::Error)
            .filter_map(|node| self.facts.callee(node.span));
        // A request that was sent nowhere, because there was nobody to send it to.
        let refused = { self.spans.iter() }
            .filter(|node| node.span.kind == SpanKind::Server && node.children.is_empty())
            .filter(|node| node.span.status == SpanStatus::Error)
            .filter_map(|node| self.facts.meant(node.span));
        { failed.chain(refused) }
            .chain(self.silent_calls().map(|(_, callee)| callee))
            .filter(|callee| !told.contains(callee))
            .collect()
    }

    pub(super) fn timing_faults(&self) -> Vec<Fault> {
        let faults = self.spans.iter().filter_map(|node| {
            let caller = self.caller(node)?;
            let fault = timing(caller.span, node.span)?;
            Some(Fault {
                span_id: node.span.span_id.clone(),
                service: node.span.service.clone(),
                operation: node.span.operation.clone(),
                fault,
            })
        });
        faults.take(MOST).collect()
    }

    pub(super) fn coverage(&self) -> Vec<Coverage> {
        let mut all: BTreeMap<&str, (usize, usize, BTreeSet<&str>)> = BTreeMap::new();
        for node in &self.spans {
            let (spans, errors, by) = all.entry(&node.span.service).or_default();
            *spans += 1;
            *errors += usize::from(node.span.status == SpanStatus::Error);
            by.insert(node.by);
        }
        let all = all.into_iter();
        all.map(|(service, (spans, errors, by))| Coverage {
            service: service.to_owned(),
            spans,
            errors,
            told_by: by.into_iter().map(str::to_owned).collect(),
        })
        .collect()
    }

    /// How each call's context was passed on (OBS-109).
    pub(super) fn contexts(&self) -> Vec<Context> {
        let mut contexts = Vec::new();
        for node in { self.spans.iter() }.filter(|node| node.span.kind == SpanKind::Client) {
            let context = |to: &str, actual: Option<&str>, propagation| Context {
                from: node.span.service.clone(),
                to: to.to_owned(),
                trace_id: self.facts.trace_id.clone(),
                expected_parent_id: node.span.span_id.clone(),
                actual_parent_id: actual.map(str::to_owned),
                present: actual.is_some(),
                format_valid: actual.is_some(),
                propagation,
            };
            if let Some(child) = self.children(node).next() {
                let actual = child.span.parent_id.as_deref();
                contexts.push(context(&child.span.service, actual, "correct"));
                continue;
            }
            let Some(callee) = self.facts.callee(node.span) else {
                continue;
            };
            // Somebody in between changed the parent: the callee was there at that time, and names a stranger.
            let within = |lost: &&Node<'f>| {
                lost.span.service == callee && timing(node.span, lost.span).is_none()
            };
            match self.lost().find(within) {
                Some(lost) => {
                    let actual = lost.span.parent_id.as_deref();
                    contexts.push(context(callee, actual, "corrupted"));
                }
                None if node.span.status == SpanStatus::Ok && {
                    self.facts.services.get(callee)
                }
                .is_some_and(|one| one.tells) =>
                {
                    contexts.push(context(callee, None, "missing"));
                }
                None => {}
            }
        }
        contexts.truncate(MOST);
        contexts
    }

    /// Each after its caller.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let began = self.spans.first().map_or(0, |node| node.span.start_us);
        let mut order = Vec::with_capacity(self.len());
        let mut done = vec![false; self.len()];
        // Those in a circle have callers all, and come last.
        let tops = (0..self.len()).filter(|at| self.spans[*at].parent.is_none());
        for top in tops.chain(0..self.len()) {
            let mut waiting = vec![top];
            while let Some(at) = waiting.pop() {
                if !std::mem::replace(&mut done[at], true) {
                    order.push(at);
                    waiting.extend(self.spans[at].children.iter().rev());
                }
            }
        }
        let shown = order.into_iter().map(|at| &self.spans[at]);
        shown
            .map(|node| Shown {
                depth: node.depth,
                told_by: node.by.to_owned(),
                offset_us: node.span.start_us.saturating_sub(began),
                span: node.span.clone(),
            })
            .collect()
    }
}

/// What cannot be right between a caller and what it called.
fn timing(caller: &Span, called: &Span) -> Option<String> {
    let early = caller.start_us.saturating_sub(called.start_us);
    let late = called.end_us().saturating_sub(caller.end_us());
    if early > TOLERANCE {
        return Some(format!(
            "it began {early} µs before {} {}, which called it: their clocks differ",
            caller.service, caller.operation
        ));
    }
    // Who gives up does not stop the other; and nobody waits for what is done inside.
    let waited = caller.status == SpanStatus::Ok && called.kind != SpanKind::Internal;
    (waited && late > TOLERANCE && caller.kind == SpanKind::Client).then(|| {
        format!(
            "it ended {late} µs after {} {}, which waited for it: their clocks differ, or an answer came early",
            caller.service, caller.operation
        )
    })
}
