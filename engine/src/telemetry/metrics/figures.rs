//! What was counted since somebody asked last, for whoever compares nodes: the same cells as the page of `/metrics`, read
//! on the control thread. What was told before is remembered beside the cells of what had traffic, and nowhere else.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tollgate_config::feed::{LATENCIES, Tally};

use super::Metrics;
use super::cell::DurationsRead;
use super::route::{Grid, NONE};
use crate::exchange::error::Code;

/// Everything since the call before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub total: Tally,
    pub routes: BTreeMap<String, Tally>,
    pub upstreams: BTreeMap<String, Tally>,
    /// Our own answers by code.
    pub refused: BTreeMap<String, u64>,
}

/// What one grid has counted, and what of it was told.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Sums {
    errors: u64,
    timeouts: u64,
    refused: u64,
    durations: DurationsRead,
}

impl Sums {
    pub(crate) fn add(&mut self, status: u16, durations: &DurationsRead) {
        let count = durations.count();
        match status {
            400..=498 => self.refused += count,
            // A client that left says nothing about us.
            0..=399 | 499 => {}
            _ => self.errors += count,
        }
        if status == 504 {
            self.timeouts += count;
        }
        self.durations.add(durations);
    }

    /// Counters only rise; a reading may be a little older than the one before it for a part of the cells.
    pub(super) fn since(&self, before: &Sums) -> Tally {
        let durations = self.durations.since(&before.durations);
        let requests = durations.count();
        let errors = self.errors.saturating_sub(before.errors).min(requests);
        let refused = self.refused.saturating_sub(before.refused);
        let mut latency = durations.buckets.to_vec();
        let used = latency.iter().rposition(|count| *count > 0);
        latency.truncate(used.map_or(0, |last| last + 1));
        Tally {
            requests,
            errors,
            timeouts: self.timeouts.saturating_sub(before.timeouts).min(errors),
            refused: refused.min(requests - errors),
            micros: durations.nanoseconds / 1000,
            latency,
        }
    }
}

/// What was told of a grid; nothing for one without traffic.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Option<Box<Sums>>>);

impl Told {
    pub(super) fn take(&self, now: &Sums) -> Option<Tally> {
        if now.durations.count() == 0 {
            return None;
        }
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = told.get_or_insert_default();
        if told.durations.count() == now.durations.count() {
            return None;
        }
        let tally = now.since(told);
        **told = *now;
        Some(tally)
    }
}

impl Metrics {
    /// What was counted since the last call. There is one who asks: the feed of the control plane.
    pub fn take_figures(&self) -> Taken {
        let mut taken = Taken::default();
        let mut names = self.names();
        let mut add = |route: &str, upstream: &str, grid: &Grid| {
            let Some(tally) = grid.told.take(&grid.sums()) else {
                return;
            };
            taken.total.add(&tally);
            if upstream != NONE {
                let known = taken.upstreams.get_mut(upstream);
                match known {
                    Some(known) => known.add(&tally),
                    None => drop(taken.upstreams.insert(upstream.to_owned(), tally.clone())),
                }
            }
            match taken.routes.get_mut(route) {
                Some(known) => known.add(&tally),
                None => drop(taken.routes.insert(route.to_owned(), tally)),
            }
        };
        names
            .grids
            .retain(|(route, upstream), grid| match grid.upgrade() {
                Some(grid) => {
                    add(route, upstream, &grid);
                    true
                }
                None => false,
            });
        let mut told = self
            .told_codes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        told.resize(Code::ALL.len(), 0);
        for ((index, code), told) in Code::ALL.iter().enumerate().zip(told.iter_mut()) {
            let shards = self.errors.iter();
            let now: u64 = shards.map(|shard| shard.0.value(index)).sum();
            let new = now.saturating_sub(*told);
            if new > 0 {
                taken.refused.insert(code.word().to_owned(), new);
                *told = now;
            }
        }
        taken
    }
}

const _: () = assert!(LATENCIES.len() + 1 == DurationsRead::BUCKETS);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;
    use crate::telemetry::metrics::Observation;

    fn seen(status: u16, millis: u64, upstream: Option<usize>) -> Observation<'static> {
        Observation {
            method: &Method::GET,
            status,
            upstream,
            duration: Duration::from_millis(millis),
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    #[test]
    fn each_request_is_told_once_by_route_and_by_upstream() {
        let metrics = Metrics::new(2);
        assert_eq!(metrics.take_figures(), Taken::default());
        let route = metrics.route("r", &["a", "b"]);
        let other = metrics.route("s", &["a"]);
        route.observe(0, &seen(200, 1, Some(0)));
        route.observe(1, &seen(504, 40, Some(1)));
        route.observe(0, &seen(429, 1, None));
        route.observe(0, &seen(499, 1, Some(0)));
        other.observe(1, &seen(500, 60_000, Some(0)));
        metrics.answered_error(1, Code::NoRoute);
        let taken = metrics.take_figures();
        assert_eq!(taken.total.requests, 5);
        let r = &taken.routes["r"];
        assert_eq!((r.requests, r.errors, r.timeouts, r.refused), (4, 1, 1, 1));
        assert_eq!(r.latency, [3, 0, 0, 1]);
        assert_eq!(r.micros, 43_000);
        let a = &taken.upstreams["a"];
        assert_eq!((a.requests, a.errors, a.latency.len()), (3, 1, 13));
        assert_eq!(taken.upstreams.len(), 2);
        assert_eq!(taken.refused[Code::NoRoute.word()], 1);
        assert_eq!(metrics.take_figures(), Taken::default());
        route.observe(1, &seen(200, 1, Some(0)));
        let again = metrics.take_figures();
        assert_eq!((again.total.requests, again.total.errors), (1, 0));
        drop((route, other));
        assert_eq!(metrics.take_figures(), Taken::default());
    }

    #[test]
    fn what_metrics_and_figures_call_a_bound_is_the_same() {
        let bounds = DurationsRead::bounds();
        let ours: Vec<u64> = LATENCIES.iter().map(|micros| micros * 1000).collect();
        assert_eq!(bounds, ours);
    }
}
