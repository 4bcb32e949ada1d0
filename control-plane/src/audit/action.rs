//! What somebody did, or wanted to and might not: one line of the audit log each.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::oneshot;

use super::{Audit, LATEST, moment};

/// A change, or a refusal (CP-202).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Action {
    /// Milliseconds since 1970.
    #[serde(skip)]
    pub time: u64,
    /// `apply`, `rollback`, `confirm`; `denied`: a page that is for others.
    pub what: &'static str,
    pub result: Outcome,
    /// The token's name; absent: there was none, or it was nobody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<&'static str>,
    /// Where it came from.
    pub address: Arc<str>,
    /// Method and page.
    pub request: Arc<str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// The catalog's revision before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Done,
    /// It was so already.
    Same,
    Refused,
    /// Not even looked at: the page is for others.
    Denied,
}

/// Refusals are what strangers can cause: at most so many lines of them, or they would push the others out.
#[derive(Debug, Default)]
pub(super) struct Enough {
    until: Option<Instant>,
}

/// This many at once, and one more each `A_LINE`.
const AT_ONCE: u32 = 200;
const A_LINE: Duration = Duration::from_millis(500);

impl Enough {
    fn is_enough(&mut self, now: Instant) -> bool {
        let until = self.until.unwrap_or(now).max(now);
        if until.duration_since(now) > A_LINE * (AT_ONCE - 1) {
            return true;
        }
        self.until = until.checked_add(A_LINE);
        false
    }
}

impl Audit {
    /// Takes down what somebody did; returns when the line is on disk, so that who is answered afterwards can rely on it.
    pub async fn changed(&self, action: Action) {
        let (done, written) = oneshot::channel();
        if self.send(self.remember(&action), Some(done)) {
            // The writer is gone only when the process is.
            drop(written.await);
        }
    }

    /// Takes down that somebody was refused. Never waits; of very many some are left out and counted.
    pub fn denied(&self, action: Action) {
        let enough = { self.enough.lock() }
            .unwrap_or_else(PoisonError::into_inner)
            .is_enough(Instant::now());
        match enough {
            true => self.shared.lose(1),
            false => drop(self.send(self.remember(&action), None)),
        }
    }

    /// A line that is nobody's request.
    pub(super) fn told(&self, object: serde_json::Value) -> Vec<u8> {
        let line = format!("{object}\n").into_bytes();
        let mut actions = self.actions.lock().unwrap_or_else(PoisonError::into_inner);
        if actions.len() >= LATEST {
            actions.pop_front();
        }
        actions.push_back(object);
        line
    }

    fn remember(&self, action: &Action) -> Vec<u8> {
        let mut object = serde_json::to_value(action).unwrap_or_default();
        object["time"] = moment(action.time).into();
        self.told(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_written_down_until_it_is_enough_and_again_later() {
        let mut enough = Enough::default();
        let now = Instant::now();
        let written = (0..1000).filter(|_| !enough.is_enough(now)).count();
        assert_eq!(written, AT_ONCE as usize);
        let later = now + A_LINE * 5;
        let written = (0..1000).filter(|_| !enough.is_enough(later)).count();
        assert_eq!(written, 5);
    }
}
