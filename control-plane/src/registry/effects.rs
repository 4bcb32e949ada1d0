//! What follows from a call: for the feed, for the audit log, for the prober, for the store. The registry does none of
//! it; whoever calls it takes these and sees to them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::record::{Cause, Record, State};

#[derive(Debug, Default)]
pub struct Effects {
    /// Services whose list reads differently now; each once, whatever a call did to it.
    pub changes: Vec<Change>,
    pub events: Vec<Event>,
    pub probes: Vec<Order>,
    /// Removed by the registry's own decision; the store still has them.
    pub removed: Vec<Arc<Record>>,
    /// Services of which anything may be another than before, for those who show what was judged.
    pub stirred: BTreeSet<Arc<str>>,
}

/// "Service X has version N now": versions of one service rise by one with each visible change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub service: Arc<str>,
    pub version: u64,
}

/// A line of the audit log (REG-505).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Milliseconds since 1970.
    pub time: u64,
    pub service: Arc<str>,
    pub id: Arc<str>,
    pub what: What,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<State>,
    pub cause: Cause,
    /// Who asked, if somebody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Registered,
    /// Registered again with something new.
    Updated,
    /// Read from the store at start.
    Restored,
    /// `from` one state `to` another.
    State,
    /// Would have left the lookups, but too many of its service did at once.
    Held,
    /// An operator let a held one go.
    Confirmed,
    Deregistered,
    Removed,
}

/// One probe to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub record: Arc<Record>,
    /// To be given back with the result: a result of an older order is no longer of use.
    pub number: u64,
    pub timeout: Duration,
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Good,
    /// The machine answered, and the answer was no: the connection was refused, or the status is not good. A network
    /// that fails looks otherwise, so this confirms a loss.
    Refused,
    /// No answer in time, or no way there.
    Silent,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Good => "good",
            Outcome::Refused => "refused",
            Outcome::Silent => "silent",
        }
    }
}
