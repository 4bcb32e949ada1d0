//! What is counted for every request: by route, upstream, method and status.
//!
//! A route's handle is resolved when a configuration is compiled; a request only follows indices. Counts live in
//! grids, one per (route, upstream), which several generations of a route may hold at once: that is how series
//! survive a reload. Within a grid each worker keeps the method and status that came first, which nearly all others
//! will be, beside their counts: among thousands of routes what one is counted in is seldom in a cache, so the way to
//! it is short. All others are found in a tree (method, then status) whose branches appear when first needed. A client
//! can choose none of the dimensions freely: methods are ten, statuses 501 (HI-59).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;

use super::cell::{Durations, DurationsRead, Reading, Shard, Shared, Sizes, shards};
use super::closed::FallbackResult;
use super::figures::{Sums, Told};

/// One finished exchange, as metrics see it.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    pub method: &'a Method,
    pub status: u16,
    /// Index into the upstreams that the handle was made with; `None` when no upstream was chosen.
    pub upstream: Option<usize>,
    pub duration: Duration,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// The label of requests without a route, and of answers without an upstream.
pub const NONE: &str = "none";

const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "OTHER",
];

fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::DELETE => 4,
        Method::CONNECT => 5,
        Method::OPTIONS => 6,
        Method::TRACE => 7,
        Method::PATCH => 8,
        _ => 9,
    }
}

/// Statuses 100 to 599 have an index each; all others, which only a broken upstream sends, share the last.
const STATUSES: usize = 501;
const LEAF: usize = 16;
const LEAVES: usize = STATUSES.div_ceil(LEAF);

fn status_index(status: u16) -> usize {
    match status {
        100..=599 => usize::from(status) - 100,
        _ => STATUSES - 1,
    }
}

fn status_label(index: usize) -> String {
    if index == STATUSES - 1 {
        "other".to_owned()
    } else {
        (index + 100).to_string()
    }
}

/// The count of requests is the histogram's count, so one histogram is both families.
type Leaf = [OnceLock<Box<Shard<Durations>>>; LEAF];
type ByStatus = [OnceLock<Box<Leaf>>; LEAVES];
type ByMethod = [OnceLock<Box<ByStatus>>; METHODS.len()];

/// The counts of one (route, upstream).
#[derive(Debug)]
pub(crate) struct Grid {
    workers: Box<[Shard<Counts>]>,
    /// Of its figures, to the control plane.
    pub(crate) told: Told,
}

/// One worker's.
#[derive(Debug, Default)]
struct Counts {
    /// Indices of the method and the status that were counted first.
    usual: OnceLock<(usize, usize)>,
    durations: Durations,
    others: OnceLock<Box<ByMethod>>,
}

impl Counts {
    fn has(&self, method: usize) -> bool {
        let usual = self.usual.get().is_some_and(|usual| usual.0 == method);
        let other = self.others.get().and_then(|others| others.get(method));
        usual || other.is_some_and(|tree| tree.get().is_some())
    }

    /// Where they are counted, once they were.
    fn known(&self, method: usize, status: usize) -> Option<&Durations> {
        if self.usual.get() == Some(&(method, status)) {
            return Some(&self.durations);
        }
        let statuses = self.others.get()?.get(method)?.get()?;
        let leaf = statuses.get(status / LEAF)?.get()?;
        leaf.get(status % LEAF)?.get().map(|shard| &shard.0)
    }

    /// Every status that occurred, once for each method that it did with; 599 for what has no number.
    fn each(&self, mut tell: impl FnMut(u16, &Durations)) {
        let status =
            |index: usize| u16::try_from(index + 100).map_or(599, |status| status.min(599));
        if let Some(usual) = self.usual.get() {
            tell(status(usual.1), &self.durations);
        }
        let others = self
            .others
            .get()
            .into_iter()
            .flat_map(|methods| methods.iter());
        for statuses in others.filter_map(OnceLock::get) {
            for (high, leaf) in statuses.iter().enumerate() {
                let Some(leaf) = leaf.get() else { continue };
                for (low, shard) in leaf.iter().enumerate() {
                    if let Some(shard) = shard.get() {
                        tell(status(high * LEAF + low), &shard.0);
                    }
                }
            }
        }
    }

    /// Where they are to be counted.
    fn of(&self, method: usize, status: usize) -> Option<&Durations> {
        if *self.usual.get_or_init(|| (method, status)) == (method, status) {
            return Some(&self.durations);
        }
        let others = self
            .others
            .get_or_init(|| Box::new([const { OnceLock::new() }; METHODS.len()]));
        let statuses = others
            .get(method)?
            .get_or_init(|| Box::new([const { OnceLock::new() }; LEAVES]));
        let leaf = statuses
            .get(status / LEAF)?
            .get_or_init(|| Box::new([const { OnceLock::new() }; LEAF]));
        let shard = leaf.get(status % LEAF)?.get_or_init(Box::default);
        Some(&shard.0)
    }
}

impl Grid {
    pub(crate) fn new(workers: usize) -> Self {
        Grid {
            workers: shards(workers),
            told: Told::default(),
        }
    }

    fn observe(&self, worker: usize, method: &Method, status: u16, duration: Duration) {
        let (method, status) = (method_index(method), status_index(status));
        let counts = self.workers.get(worker);
        match counts.and_then(|counts| counts.0.of(method, status)) {
            Some(durations) => durations.observe(duration),
            None => debug_assert!(false, "worker {worker} has no shard"),
        }
    }

    /// What was counted so far, of all methods and workers.
    pub(crate) fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for counts in &self.workers {
            counts
                .0
                .each(|status, durations| sums.add(status, &DurationsRead::of(durations)));
        }
        sums
    }

    /// Every (method, status) that occurred, with its histogram summed over workers.
    pub(crate) fn readings(&self) -> Vec<(&'static str, String, Reading)> {
        let mut all = Vec::new();
        for (method, name) in METHODS.iter().copied().enumerate() {
            if !self.workers.iter().any(|counts| counts.0.has(method)) {
                continue;
            }
            for status in 0..STATUSES {
                let mut reading = Reading::default();
                for counts in &self.workers {
                    if let Some(durations) = counts.0.known(method, status) {
                        reading.add_durations(durations);
                    }
                }
                if reading.count() > 0 {
                    all.push((name, status_label(status), reading));
                }
            }
        }
        all
    }
}

/// Request and response sizes of one route.
#[derive(Debug)]
pub(crate) struct RouteSizes {
    workers: Box<[Shard<(Sizes, Sizes)>]>,
    /// Rare, so one for all workers. By `FallbackResult`.
    fallbacks: [Shared; FallbackResult::COUNT],
}

impl RouteSizes {
    pub(crate) fn new(workers: usize) -> Self {
        RouteSizes {
            workers: shards(workers),
            fallbacks: Default::default(),
        }
    }

    pub(crate) fn fallbacks(&self, result: usize) -> u64 {
        self.fallbacks.get(result).map_or(0, Shared::value)
    }

    /// Requests, responses.
    pub(crate) fn readings(&self) -> (Reading, Reading) {
        let mut both = (Reading::default(), Reading::default());
        for shard in &self.workers {
            both.0.add_sizes(&shard.0.0);
            both.1.add_sizes(&shard.0.1);
        }
        both
    }
}

/// A route's resolved handle. Its series live as long as any handle of that route's name does.
#[derive(Debug)]
pub struct RouteSeries {
    pub(crate) sizes: Arc<RouteSizes>,
    /// In the order of the names the handle was made with.
    pub(crate) upstreams: Box<[Arc<Grid>]>,
    pub(crate) none: Arc<Grid>,
    /// To find out whether a later handle may be this one.
    pub(crate) names: Box<[String]>,
}

impl RouteSeries {
    /// A fallback stood in for the upstream (GW-701).
    pub fn fell_back(&self, result: FallbackResult) {
        if let Some(cell) = self.sizes.fallbacks.get(result as usize) {
            cell.add(1);
        }
    }

    /// Counts one exchange. `worker` is the caller's own number: nobody else may use it at the same time.
    pub fn observe(&self, worker: usize, observation: &Observation<'_>) {
        let grid = observation
            .upstream
            .and_then(|upstream| self.upstreams.get(upstream))
            .unwrap_or(&self.none);
        if let Some(shard) = self.sizes.workers.get(worker) {
            shard.0.0.observe(observation.bytes_in);
            shard.0.1.observe(observation.bytes_out);
        }
        // Last: whoever sees the request sees all that belongs to it.
        grid.observe(
            worker,
            observation.method,
            observation.status,
            observation.duration,
        );
    }
}
