//! What one program did for one request, as words: the spans that data planes and services keep for a while and show,
//! and that a control plane puts together to a trace (OBS-107, OBS-109). Read with bounds. No clock, no keeping.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Spans in one answer.
pub const MOST_SPANS: usize = 10_000;
/// Bytes of one answer.
pub const MOST_SPAN_BYTES: usize = 8 << 20;

/// `{"spans": […]}`: what `/traces`, `/traces/{trace_id}` and a service's `/debug/traces/{trace_id}` answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spans {
    pub spans: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// 32 digits, lower case.
    pub trace_id: String,
    /// 16 digits, lower case.
    pub span_id: String,
    /// Of the caller; absent where the trace begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// Who did it: the program's name, or the service that a sidecar stands for.
    pub service: String,
    /// The route's name, the upstream's, or the method's.
    pub operation: String,
    pub kind: SpanKind,
    /// Microseconds since 1970.
    pub start_us: u64,
    pub duration_us: u64,
    pub status: SpanStatus,
    /// In the words of the access log, such as `method`, `status`, `endpoint`, `code`, `attempt`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    /// A request that was answered.
    Server,
    /// A request that was sent: one for each attempt.
    Client,
    /// Work that nobody waits for, or a step inside.
    Internal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanStatus {
    Ok,
    Error,
}

/// Characters of a name.
const MOST_NAME: usize = 1024;
/// Tags of one span.
const MOST_TAGS: usize = 64;

impl Span {
    /// Whether it can be shown as it is; else why not.
    pub fn check(&self) -> Result<(), String> {
        if !is_id(&self.trace_id, 32) {
            return Err("`trace_id` is not 32 hexadecimal digits in lower case".to_owned());
        }
        let parent = self.parent_id.as_deref();
        if !is_id(&self.span_id, 16) || !parent.is_none_or(|id| is_id(id, 16)) {
            let why = "`span_id` or `parent_id` is not 16 hexadecimal digits in lower case";
            return Err(why.to_owned());
        }
        name("service", &self.service)?;
        name("operation", &self.operation)?;
        if self.tags.len() > MOST_TAGS {
            return Err(format!("a span has more than {MOST_TAGS} tags"));
        }
        { self.tags.iter() }.try_for_each(|(key, value)| name("tags", key).and(text("tags", value)))
    }

    /// Microseconds since 1970.
    pub fn end_us(&self) -> u64 {
        self.start_us.saturating_add(self.duration_us)
    }
}

/// So many digits, lower case, and not all of them zero.
pub fn is_id(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && text.bytes().any(|b| b != b'0')
}

fn name(what: &str, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err(format!("`{what}` is empty"));
    }
    text(what, value)
}

fn text(what: &str, value: &str) -> Result<(), String> {
    if value.len() > MOST_NAME || value.chars().any(char::is_control) {
        return Err(format!(
            "`{what}` has more than {MOST_NAME} bytes, or a control character"
        ));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn span(trace_id: &str) -> Span {
        Span {
            trace_id: trace_id.to_owned(),
            span_id: "1".repeat(16),
            parent_id: None,
            service: "orders".to_owned(),
            operation: "CreateOrder".to_owned(),
            kind: SpanKind::Server,
            start_us: 1,
            duration_us: 2,
            status: SpanStatus::Ok,
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn what_cannot_be_shown_is_refused_with_words() {
        let good = span(&"a".repeat(32));
        assert_eq!(good.check(), Ok(()));
        let with = |change: fn(&mut Span)| {
            let mut span = good.clone();
            change(&mut span);
            span.check()
        };
        for wrong in [
            with(|span| span.trace_id = "0".repeat(32)),
            with(|span| span.trace_id = "A".repeat(32)),
            with(|span| span.span_id = "1".repeat(15)),
            with(|span| span.parent_id = Some(String::new())),
            with(|span| span.service = String::new()),
            with(|span| span.operation = "a\u{7}".to_owned()),
            with(|span| drop(span.tags.insert("k".to_owned(), "v".repeat(2000)))),
            with(|span| span.tags = (0..100).map(|n| (n.to_string(), String::new())).collect()),
        ] {
            assert!(wrong.is_err());
        }
        let late = with(|span| span.start_us = u64::MAX);
        assert_eq!(late, Ok(()), "the end is reckoned without overflow");
    }
}
