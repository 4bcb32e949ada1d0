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
