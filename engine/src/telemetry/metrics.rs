//! Every series by name: handed out as resolved handles, sharded per worker, read by the scrape alone.
//!
//! A configuration being compiled asks here for the handles of its routes, upstreams and listeners; the same name
//! gives the same series, so counts survive reloads, and a name's series end with its last handle. On the request
//! path there is no look-up by name, no lock and no number that two workers write (OBS-308). Nothing a client sends
//! becomes a label (HI-59). The page of `GET /metrics` is written on the control thread.

mod access;
mod cell;
mod closed;
mod control_plane;
mod descriptors;
mod edges;
mod fault;
mod figures;
mod hedges;
mod identity;
mod jwt;
mod limit;
mod listener;
mod page;
mod process;
mod route;
mod spans;
mod text;
mod upstream;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::exchange::error::Code;
use cell::{Shard, Shared, shards};
use closed::ByCode;
use route::{Grid, RouteSizes};

pub use access::{AccessSeries, RefusedCall};
pub use closed::{BreakerReason, BreakerResult, BreakerState};
pub use closed::{
    ConnectResult, ConnectionState, FallbackResult, HealthState, HedgeResult, Refusal, RelayEnd,
    RetryClass, TimeoutKind, Unhedged,
};
pub use control_plane::ControlPlaneSeries;
pub use descriptors::DescriptorSeries;
pub use edges::{EdgeSeries, EdgeStatus, UNKNOWN};
pub use fault::FaultSeries;
pub use figures::Taken;
pub use identity::IdentitySeries;
pub use jwt::{JwtResult, JwtSeries};
pub use limit::LimitSeries;
pub use listener::ListenerSeries;
pub use process::write as write_process;
pub use route::{NONE, Observation, RouteSeries};
pub use spans::{SpanSeries, SpansDropped};
pub use text::{CONTENT_TYPE, Kind, Labels, Text};
pub use upstream::{Known, KnownBulkhead, UpstreamSeries};

/// All series of this process. One exists, shared by all threads.
#[derive(Debug)]
pub struct Metrics {
    workers: usize,
    started: Instant,
    names: Mutex<Names>,
    errors: Box<[Shard<ByCode>]>,
    edges: edges::Edges,
    refusals: access::Refusals,
    /// What of them the control plane was told.
    told_codes: Mutex<Vec<u64>>,
    /// On every series.
    labels: Mutex<Vec<(String, String)>>,
    config_revision: Shared,
    config_reload_failures: Shared,
    /// Unix milliseconds; 0 before the first one.
    config_last_reload: Shared,
    generations_alive: Shared,
    control_plane: ControlPlaneSeries,
    identity: IdentitySeries,
    spans: Arc<SpanSeries>,
    /// Whether the store of shared limits answers, how many gateways share, failures.
    sharing: [Shared; 3],
    /// The access log counts; we only read.
    access_log_dropped: Mutex<Option<Arc<AtomicU64>>>,
}

/// Who has which series. Weak: the handles' holders keep series alive, this list only finds them again. Locked by
/// who compiles a configuration and by the scrape, never for a request.
#[derive(Debug, Default)]
struct Names {
    /// By route, then by the handle's upstreams.
    handles: BTreeMap<String, Weak<RouteSeries>>,
    sizes: BTreeMap<String, Weak<RouteSizes>>,
    grids: BTreeMap<(String, String), Weak<Grid>>,
    upstreams: BTreeMap<String, Weak<UpstreamSeries>>,
    listeners: BTreeMap<String, Weak<ListenerSeries>>,
    /// By limit, then by tier; empty where there is none.
    limits: BTreeMap<(String, String), Weak<LimitSeries>>,
    /// By route.
    faults: BTreeMap<String, Weak<FaultSeries>>,
    /// By issuer.
    jwts: BTreeMap<String, Weak<JwtSeries>>,
    /// By upstream.
    descriptors: BTreeMap<String, Weak<DescriptorSeries>>,
    /// By rule.
    accesses: BTreeMap<String, Weak<AccessSeries>>,
}

impl Metrics {
    /// `workers` is how many shards there are; handles take worker numbers below it.
    pub fn new(workers: usize) -> Self {
        Metrics {
            workers,
            started: Instant::now(),
            names: Mutex::default(),
            errors: shards(workers),
            edges: edges::Edges::default(),
            refusals: access::Refusals::default(),
            told_codes: Mutex::default(),
            labels: Mutex::default(),
            config_revision: Shared::default(),
            config_reload_failures: Shared::default(),
            config_last_reload: Shared::default(),
            generations_alive: Shared::default(),
            control_plane: ControlPlaneSeries::default(),
            identity: IdentitySeries::default(),
            spans: Arc::default(),
            sharing: Default::default(),
            access_log_dropped: Mutex::default(),
        }
    }

    /// The handle of a route that chooses among `upstreams`; [`NONE`] is the name for requests without a route.
    /// Handles with other upstreams, from before or after a reload, share the counts that they have in common.
    pub fn route(&self, name: &str, upstreams: &[&str]) -> Arc<RouteSeries> {
        let mut names = self.names();
        if let Some(known) = names.handles.get(name).and_then(Weak::upgrade)
            && known
                .names
                .iter()
                .map(String::as_str)
                .eq(upstreams.iter().copied())
        {
            return known;
        }
        let workers = self.workers;
        let grids = &mut names.grids;
        let mut grid = |upstream: &str| {
            find_or_make(grids, (name.to_owned(), upstream.to_owned()), || {
                Grid::new(workers)
            })
        };
        let none = grid(NONE);
        let grids = upstreams.iter().map(|upstream| grid(upstream)).collect();
        let series = Arc::new(RouteSeries {
            sizes: find_or_make(&mut names.sizes, name.to_owned(), || {
                RouteSizes::new(workers)
            }),
            upstreams: grids,
            none,
            names: upstreams
                .iter()
                .map(|upstream| (*upstream).to_owned())
                .collect(),
        });
        names
            .handles
            .insert(name.to_owned(), Arc::downgrade(&series));
        series
    }

    pub fn upstream(&self, name: &str) -> Arc<UpstreamSeries> {
        find_or_make(&mut self.names().upstreams, name.to_owned(), || {
            UpstreamSeries::new(self.workers)
        })
    }

    pub fn listener(&self, name: &str) -> Arc<ListenerSeries> {
        find_or_make(&mut self.names().listeners, name.to_owned(), || {
            ListenerSeries::new(self.workers)
        })
    }

    /// `tier` is empty for a limit that has none, and for what all tiers share.
    pub fn limit(&self, name: &str, tier: &str) -> Arc<LimitSeries> {
        let key = (name.to_owned(), tier.to_owned());
        find_or_make(&mut self.names().limits, key, || {
            LimitSeries::new(self.workers)
        })
    }

    /// Of the faults that a route injects.
    pub fn fault(&self, route: &str) -> Arc<FaultSeries> {
        find_or_make(&mut self.names().faults, route.to_owned(), || {
            FaultSeries::new(self.workers)
        })
    }

    /// Of tokens, by the name of their `[[jwt]]`.
    pub fn jwt(&self, name: &str) -> Arc<JwtSeries> {
        find_or_make(&mut self.names().jwts, name.to_owned(), || {
            JwtSeries::new(self.workers)
        })
    }

    /// Of the descriptors that an upstream tells.
    pub fn descriptors(&self, upstream: &str) -> Arc<DescriptorSeries> {
        find_or_make(
            &mut self.names().descriptors,
            upstream.to_owned(),
            DescriptorSeries::default,
        )
    }

    /// We answered with `code` instead of an upstream.
    pub fn answered_error(&self, worker: usize, code: Code) {
        if let Some(shard) = self.errors.get(worker) {
            shard.0.add(code);
        }
    }

    /// A configuration serves from now on.
    pub fn config_serves(&self, revision: u64, now: SystemTime) {
        self.config_revision.set(revision);
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.config_last_reload
            .set(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    }

    /// From now on every series has these labels.
    pub fn label(&self, labels: &[(String, String)]) {
        let mut known = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        labels.clone_into(&mut known);
    }

    /// A configuration was refused; the one before it goes on.
    pub fn config_reload_failed(&self) {
        self.config_reload_failures.add(1);
    }

    pub fn control_plane(&self) -> &ControlPlaneSeries {
        &self.control_plane
    }

    /// Of spans that a collector is to be told.
    pub fn spans(&self) -> &Arc<SpanSeries> {
        &self.spans
    }

    pub fn identity(&self) -> &IdentitySeries {
        &self.identity
    }

    /// So many generations of the configuration are alive; to be said before a page is written.
    pub fn generations_alive(&self, count: usize) {
        self.generations_alive.set(count as u64);
    }

    /// How it stands with the store of shared limits.
    pub fn shares(&self, reached: bool, gateways: u64, errors: u64) {
        let now = [u64::from(reached), gateways, errors];
        for (cell, now) in self.sharing.iter().zip(now) {
            cell.set(now);
        }
    }

    pub(crate) fn sharing(&self) -> [u64; 3] {
        self.sharing.each_ref().map(Shared::value)
    }

    /// From now on `access_log_dropped_total` is what this counter says: see `AccessLog::dropped_counter`.
    pub fn watch_access_log(&self, dropped: Arc<AtomicU64>) {
        *self
            .access_log_dropped
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(dropped);
    }

    /// The page of `GET /metrics`. Takes milliseconds with thousands of series: not for a worker.
    pub fn page(&self) -> String {
        page::write(self)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        // Every change leaves the maps whole, so a panic elsewhere while it was held spoils nothing.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find_or_make<K: Ord, T>(
    known: &mut BTreeMap<K, Weak<T>>,
    key: K,
    make: impl FnOnce() -> T,
) -> Arc<T> {
    if let Some(series) = known.get(&key).and_then(Weak::upgrade) {
        return series;
    }
    let series = Arc::new(make());
    known.insert(key, Arc::downgrade(&series));
    series
}

/// The living, and forgets the dead.
fn living<K: Ord + Clone, T>(known: &mut BTreeMap<K, Weak<T>>) -> Vec<(K, Arc<T>)> {
    let mut living = Vec::with_capacity(known.len());
    known.retain(|key, weak| match weak.upgrade() {
        Some(series) => {
            living.push((key.clone(), series));
            true
        }
        None => false,
    });
    living
}

#[cfg(test)]
mod tests;
