//! What is counted for every request: by route, upstream, method and status.
//!
//! A route's handle is resolved when a configuration is compiled; a request only follows indices. Counts live in
//! grids, one per (route, upstream), which several generations of a route may hold at once: that is how series
//! survive a reload. Within a grid each worker has a tree of its own (method, then status) whose branches appear when
//! first needed. A client can choose none of its dimensions freely: methods are ten, statuses 501 (HI-59).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;

use super::cell::{Durations, Reading, Shard, Sizes, shards};

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
    workers: Box<[Shard<ByMethod>]>,
}

impl Grid {
    pub(crate) fn new(workers: usize) -> Self {
        Grid {
            workers: (0..workers)
                .map(|_| Shard([const { OnceLock::new() }; METHODS.len()]))
                .collect(),
        }
    }

    fn observe(&self, worker: usize, method: &Method, status: u16, duration: Duration) {
        let status = status_index(status);
        let Some(durations) = self.workers.get(worker).and_then(|shard| {
            let statuses = shard
                .0
                .get(method_index(method))?
                .get_or_init(|| Box::new([const { OnceLock::new() }; LEAVES]));
            let leaf = statuses
                .get(status / LEAF)?
                .get_or_init(|| Box::new([const { OnceLock::new() }; LEAF]));
            Some(leaf.get(status % LEAF)?.get_or_init(Box::default))
        }) else {
            debug_assert!(false, "worker {worker} has no shard");
            return;
        };
        durations.0.observe(duration);
    }

    /// Every (method, status) that occurred, with its histogram summed over workers.
    pub(crate) fn readings(&self) -> Vec<(&'static str, String, Reading)> {
        let mut all = Vec::new();
        for (method, name) in METHODS.iter().copied().enumerate() {
            let trees: Vec<&ByStatus> = self
                .workers
                .iter()
                .filter_map(|shard| shard.0.get(method)?.get().map(|tree| &**tree))
                .collect();
            if trees.is_empty() {
                continue;
            }
            for status in 0..STATUSES {
                let mut reading = Reading::default();
                for tree in &trees {
                    let leaf = tree.get(status / LEAF).and_then(OnceLock::get);
                    if let Some(durations) = leaf.and_then(|leaf| leaf.get(status % LEAF)?.get()) {
                        reading.add_durations(&durations.0);
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
}

impl RouteSizes {
    pub(crate) fn new(workers: usize) -> Self {
        RouteSizes {
            workers: shards(workers),
        }
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
    /// Counts one exchange. `worker` is the caller's own number: nobody else may use it at the same time.
    pub fn observe(&self, worker: usize, observation: &Observation<'_>) {
        let grid = observation
            .upstream
            .and_then(|upstream| self.upstreams.get(upstream))
            .unwrap_or(&self.none);
        grid.observe(
            worker,
            observation.method,
            observation.status,
            observation.duration,
        );
        if let Some(shard) = self.sizes.workers.get(worker) {
            shard.0.0.observe(observation.bytes_in);
            shard.0.1.observe(observation.bytes_out);
        }
    }
}
