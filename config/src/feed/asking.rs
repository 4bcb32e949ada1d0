//! What a control plane asks a node over its feed, and how the node answers. A node's own pages may be open to its machine
//! alone (MESH-109), so it is the node that comes with the answer.

use serde::{Deserialize, Serialize};

use super::bounds;
use crate::span::Span;

/// `POST /nodes/{node}/answers/{id}` takes the `Answer`. A node that cannot or will not answer says nothing; whoever asked
/// waits for a bounded time only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Of the question, unique within the epoch.
    pub id: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// All spans of one trace, by its 32 digits.
    Trace(String),
    /// The latest spans, newest first, so many at most.
    Traces(u32),
    /// The breakers' states: one for each endpoint of each upstream.
    Breakers,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the process that subscribed.
    pub instance: String,
    #[serde(flatten)]
    pub told: Told,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Spans(Vec<Span>),
    Breakers(Vec<Breaker>),
}

/// A breaker as a node sees it (CP-301).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    pub upstream: String,
    /// The service whose instances the upstream's endpoints are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    pub endpoint: String,
    /// `closed`, `open` or `half_open`.
    pub state: String,
}

pub(super) fn check(ask: &Ask) -> Result<(), String> {
    bounds::word("id", &ask.id)?;
    match &ask.what {
        What::Trace(id) if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Err("`trace` is not 32 hexadecimal digits".to_owned())
        }
        What::Trace(_) | What::Traces(_) | What::Breakers => Ok(()),
    }
}
