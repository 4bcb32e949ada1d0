//! What rules of access said: by rule where one allowed, and by source and rule where none did. A source is the name
//! that a certificate proved, so only members make series, and of those not more than fit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cell::{Cell, Shard, Shared, shards, sum};
use super::edges::OTHER;
use super::text::{Kind, Text};
use super::{Metrics, living};

/// Series of refusals that are told apart; the others share one.
const MOST_REFUSED: usize = 2000;

/// A rule's resolved handle.
#[derive(Debug)]
pub struct AccessSeries {
    allowed: Box<[Shard<Cell>]>,
}

impl AccessSeries {
    pub(crate) fn new(workers: usize) -> Self {
        AccessSeries {
            allowed: shards(workers),
        }
    }

    /// `worker` is the caller's own number, as in all series.
    pub fn allowed(&self, worker: usize) {
        if let Some(Shard(cell)) = self.allowed.get(worker) {
            cell.add(1);
        }
    }
}

/// A call that no rule allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefusedCall {
    pub source: Arc<str>,
    pub destination: Arc<str>,
    /// The rule that came nearest.
    pub rule: Arc<str>,
    pub mode: &'static str,
}

/// How often each kind of call was refused, or would have been. Strong: they end with the process.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<RefusedCall, Arc<Shared>>>);

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RefusedCall, Arc<Shared>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metrics {
    /// Of a rule of access.
    pub fn access(&self, rule: &str) -> Arc<AccessSeries> {
        super::find_or_make(&mut self.names().accesses, rule.to_owned(), || {
            AccessSeries::new(self.workers)
        })
    }

    /// Counts a call that was refused, or would have been. Takes a lock: who is refused may wait for it.
    pub fn access_refused(&self, call: RefusedCall) {
        let mut known = self.refusals.lock();
        if let Some(count) = known.get(&call) {
            count.add(1);
            return;
        }
        let call = match known.len() < MOST_REFUSED {
            true => call,
            false => RefusedCall {
                source: OTHER.into(),
                destination: OTHER.into(),
                rule: OTHER.into(),
                mode: call.mode,
            },
        };
        known.entry(call).or_default().add(1);
    }
}

pub(super) fn write(metrics: &Metrics, text: &mut Text) {
    let rules = living(&mut metrics.names().accesses);
    text.family(
        "access_allowed_total",
        Kind::Counter,
        "Calls that a rule of access allowed, by rule.",
    );
    for (rule, series) in &rules {
        text.sample(&[("rule", rule)], sum(&series.allowed, |cell| cell));
    }
    text.family(
        "access_refused_total",
        Kind::Counter,
        "Calls that no rule of access allowed, by the rule that came nearest; with mode audit they passed.",
    );
    for (call, count) in metrics.refusals.lock().iter() {
        text.sample(
            &[
                ("source", &call.source),
                ("destination", &call.destination),
                ("rule", &call.rule),
                ("mode", call.mode),
            ],
            count.value(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_without_end_make_no_series_without_end_mesh_403() {
        let metrics = Metrics::new(1);
        for number in 0..3 * MOST_REFUSED {
            metrics.access_refused(RefusedCall {
                source: format!("a/{number}").into(),
                destination: "a/payments".into(),
                rule: "none".into(),
                mode: "enforce",
            });
        }
        let known = metrics.refusals.lock();
        assert!(known.len() <= MOST_REFUSED + 2);
        let all: u64 = known.values().map(|count| count.value()).sum();
        assert_eq!(all, 3 * MOST_REFUSED as u64);
    }
}
