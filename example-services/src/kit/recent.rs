//! What this process did lately, by trace: the spans of requests and steps, and the lines of its log. Kept in memory, a
//! bounded number of each, the oldest given up first; shown at `/debug/traces/{trace_id}` to the operator and to those who
//! are believed. Nothing is written anywhere, and nothing here waits.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::{
    Json, Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::HeaderMap;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{caller::Trust, listen::refuse};

/// Spans that are kept.
const MOST_SPANS: usize = 4096;
/// Lines that are kept.
const MOST_LINES: usize = 4096;
/// A longer line is not kept.
const LONGEST: usize = 4096;
/// Of one trace, as many are shown.
const MOST_SHOWN: usize = 500;

static RECENT: Mutex<Recent> = Mutex::new(Recent {
    spans: VecDeque::new(),
    lines: VecDeque::new(),
});

struct Recent {
    spans: VecDeque<Span>,
    lines: VecDeque<Map<String, Value>>,
}

/// What one request or step was.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Span {
    pub(super) trace_id: String,
    pub(super) span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parent_id: Option<String>,
    pub(super) service: &'static str,
    pub(super) operation: String,
    /// `server` or `internal`.
    pub(super) kind: &'static str,
    /// Microseconds since 1970.
    pub(super) start_us: u64,
    pub(super) duration_us: u64,
    /// `ok` or `error`.
    pub(super) status: &'static str,
    pub(super) tags: BTreeMap<&'static str, String>,
}

/// Keeps a span that has ended.
pub(super) fn span(span: Span) {
    recent().keep(span);
}

/// Keeps a line of the log.
pub(super) fn line(line: Map<String, Value>) {
    recent().note(line);
}

fn recent() -> MutexGuard<'static, Recent> {
    // Whoever panicked has left it whole.
    RECENT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recent {
    fn keep(&mut self, span: Span) {
        if self.spans.len() >= MOST_SPANS {
            self.spans.pop_front();
        }
        self.spans.push_back(span);
    }

    fn note(&mut self, line: Map<String, Value>) {
        // Of lines without a trace, those that are about something that has one.
        let is_about = line.contains_key("trace_id") || about(&line).next().is_some();
        let length: usize = { line.iter() }
            .map(|(key, value)| key.len() + value.as_str().map_or(32, str::len))
            .sum();
        if !is_about || length > LONGEST {
            return;
        }
        if self.lines.len() >= MOST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Everything of a trace; of lines without one also those about the same saga or order, which somebody forgot to write
    /// within their request.
    fn of(&self, trace: &str) -> Value {
        let of_trace = |line: &&Map<String, Value>| line.get("trace_id") == Some(&trace.into());
        let about_it: HashSet<&str> = self.lines.iter().filter(of_trace).flat_map(about).collect();
        let lines = self.lines.iter().filter(|line| match line.get("trace_id") {
            Some(id) => id == trace,
            None => about(line).any(|id| about_it.contains(id)),
        });
        let spans = self.spans.iter().filter(|span| span.trace_id == trace);
        json!({
            "spans": spans.take(MOST_SHOWN).collect::<Vec<_>>(),
            "logs": lines.take(MOST_SHOWN).collect::<Vec<_>>(),
        })
    }
}

/// The saga and the order that a line is about.
fn about(line: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let ids = ["saga_id", "order_id"].into_iter();
    ids.filter_map(|name| line.get(name)?.as_str())
}

/// The page.
pub(super) fn router(trust: Trust) -> Router {
    Router::new()
        .route("/debug/traces/{trace_id}", get(page))
        .with_state(trust)
}

async fn page(
    State(trust): State<Trust>,
    headers: HeaderMap,
    Path(trace): Path<String>,
) -> Response {
    if let Err(refusal) = trust.of(&headers).need_admin() {
        return refuse(&refusal);
    }
    Json(recent().of(&trace)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Recent {
        Recent {
            spans: VecDeque::new(),
            lines: VecDeque::new(),
        }
    }

    fn said(pairs: &[(&str, &str)]) -> Map<String, Value> {
        let pairs = { pairs.iter() }.map(|(key, value)| (key.to_string(), (*value).into()));
        pairs.collect()
    }

    #[test]
    fn a_trace_has_its_lines_and_those_that_forgot_it() {
        let mut recent = empty();
        recent.note(said(&[
            ("trace_id", "t1"),
            ("order_id", "o1"),
            ("message", "one"),
        ]));
        recent.note(said(&[("order_id", "o1"), ("message", "lost")]));
        recent.note(said(&[("order_id", "o2"), ("message", "another's")]));
        recent.note(said(&[
            ("trace_id", "t2"),
            ("order_id", "o1"),
            ("message", "later"),
        ]));
        recent.note(said(&[("message", "about nothing")]));
        let told = recent.of("t1");
        let logs = told["logs"].as_array().unwrap();
        let words: Vec<_> = logs
            .iter()
            .map(|line| line["message"].as_str().unwrap())
            .collect();
        assert_eq!(words, ["one", "lost"]);
        assert_eq!(recent.lines.len(), 4);
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let mut recent = empty();
        for number in 0..2 * MOST_LINES {
            recent.note(said(&[("trace_id", &number.to_string())]));
        }
        recent.note(said(&[
            ("trace_id", "long"),
            ("message", &"x".repeat(LONGEST)),
        ]));
        assert_eq!(recent.lines.len(), MOST_LINES);
        let oldest = recent.of("0");
        assert_eq!(oldest["logs"].as_array().map(Vec::len), Some(0));
    }
}
