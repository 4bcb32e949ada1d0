//! The edges of a service map (MESH-501, MESH-504): who called whom, how it ended, how long it took. A node sees an edge
//! from one of its ends: calls that came in by a listener of the mesh, and calls that it sent to a service.
//!
//! Sources and destinations are names that certificates prove, or that a document writes; beyond a bound they share
//! one series. A worker asks for a handle once for each name and keeps it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tollgate_config::feed::{Direction, Edge, Tally};

use super::Metrics;
use super::cell::{Durations, DurationsRead, Reading, Shard, shards};
use super::figures::{Sums, Told};
use super::text::{Kind, Text};

/// Who calls without a certificate.
pub const UNKNOWN: &str = "unknown";
/// Who came when all series were taken.
pub(super) const OTHER: &str = "other";
/// Edges that are told apart.
const MOST_EDGES: usize = 1000;

/// By the first digit of the status; what is no status is of the last.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Who called whom, and where that was seen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    source: String,
    destination: String,
    direction: Direction,
}

/// An edge's resolved handle.
#[derive(Debug)]
pub struct EdgeSeries {
    workers: Box<[Shard<Counts>]>,
    since: Instant,
    /// Of what the control plane heard.
    told: Told,
}

/// One worker's, by class; most edges know one class.
#[derive(Debug, Default)]
struct Counts {
    classes: [OnceLock<Box<Durations>>; CLASSES.len()],
    /// When it was used last, in milliseconds since the series began.
    last: AtomicU64,
}

impl EdgeSeries {
    fn new(workers: usize) -> Self {
        EdgeSeries {
            workers: shards(workers),
            since: Instant::now(),
            told: Told::default(),
        }
    }

    /// Counts one exchange that ended now. `worker` is the caller's own number.
    pub fn observe(&self, worker: usize, status: u16, duration: Duration, now: Instant) {
        let Some(Shard(counts)) = self.workers.get(worker) else {
            return;
        };
        let class = match status {
            100..=499 => usize::from(status / 100) - 1,
            _ => CLASSES.len() - 1,
        };
        if let Some(class) = counts.classes.get(class) {
            class.get_or_init(Box::default).observe(duration);
        }
        let last = now.saturating_duration_since(self.since).as_millis();
        let last = u64::try_from(last).unwrap_or(u64::MAX);
        counts.last.store(last, Relaxed);
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for Shard(counts) in &self.workers {
            for (class, number) in counts.classes.iter().zip(1u16..) {
                if let Some(durations) = class.get() {
                    sums.add(number * 100, &DurationsRead::of(durations));
                }
            }
        }
        sums
    }

    fn reading(&self, class: usize) -> Reading {
        let mut reading = Reading::default();
        for Shard(counts) in &self.workers {
            if let Some(durations) = counts.classes.get(class).and_then(OnceLock::get) {
                reading.add_durations(durations);
            }
        }
        reading
    }

    fn last_used(&self) -> Duration {
        let all = self.workers.iter();
        let last = all.map(|Shard(counts)| counts.last.load(Relaxed)).max();
        let last = Duration::from_millis(last.unwrap_or_default());
        self.since.elapsed().saturating_sub(last)
    }
}

/// All edges of this process. Strong, so that counts never fall: a service that was replaced calls again.
#[derive(Debug, Default)]
pub(super) struct Edges(Mutex<BTreeMap<Name, Arc<EdgeSeries>>>);

impl Edges {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<EdgeSeries>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An edge since the process began, for people.
#[derive(Debug, Serialize)]
pub struct EdgeStatus {
    source: String,
    destination: String,
    direction: Direction,
    requests: u64,
    /// Answered 500 and above.
    errors: u64,
    /// Answered 400 to 499.
    refused: u64,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    p99_ms: Option<f64>,
    last_seen_seconds: u64,
}

impl Metrics {
    /// Of calls from `source` to `destination`, as seen from one end.
    pub fn edge(&self, source: &str, destination: &str, direction: Direction) -> Arc<EdgeSeries> {
        let mut edges = self.edges.lock();
        let mut name = Name {
            source: source.to_owned(),
            destination: destination.to_owned(),
            direction,
        };
        if edges.len() >= MOST_EDGES && !edges.contains_key(&name) {
            OTHER.clone_into(&mut name.source);
            OTHER.clone_into(&mut name.destination);
        }
        let series = edges.entry(name);
        let series = series.or_insert_with(|| Arc::new(EdgeSeries::new(self.workers)));
        series.clone()
    }

    /// Edges with traffic, for `GET /edges`.
    pub fn edges(&self) -> Vec<EdgeStatus> {
        let edges = self.edges.lock();
        let all = edges.iter().filter_map(|(name, series)| {
            let tally = series.sums().since(&Sums::default());
            (tally.requests > 0).then(|| status(name, series, &tally))
        });
        all.collect()
    }

    /// What was counted of each edge since the last call. There is one who asks, as of figures.
    pub fn take_edges(&self) -> Vec<Edge> {
        let edges = self.edges.lock();
        let all = edges.iter().filter_map(|(name, series)| {
            Some(Edge {
                source: name.source.clone(),
                destination: name.destination.clone(),
                direction: name.direction,
                tally: series.told.take(&series.sums())?,
            })
        });
        all.collect()
    }
}

fn status(name: &Name, series: &EdgeSeries, tally: &Tally) -> EdgeStatus {
    let millis = |share: f64| {
        tally
            .quantile(share)
            .map(|time| time.as_secs_f64() * 1000.0)
    };
    EdgeStatus {
        source: name.source.clone(),
        destination: name.destination.clone(),
        direction: name.direction,
        requests: tally.requests,
        errors: tally.errors,
        refused: tally.refused,
        p50_ms: millis(0.5),
        p95_ms: millis(0.95),
        p99_ms: millis(0.99),
        last_seen_seconds: series.last_used().as_secs(),
    }
}

pub(super) fn write(metrics: &Metrics, text: &mut Text) {
    let edges = metrics.edges.lock().clone();
    // Read once: the two families of one series must agree.
    let mut all = Vec::new();
    for (name, series) in &edges {
        for (number, class) in CLASSES.iter().enumerate() {
            let reading = series.reading(number);
            if reading.count() > 0 {
                let labels = [
                    ("source", name.source.as_str()),
                    ("destination", &name.destination),
                    ("direction", name.direction.word()),
                    ("class", class),
                ];
                all.push((labels, reading));
            }
        }
    }
    text.family(
        "mesh_requests_total",
        Kind::Counter,
        "Calls between services, by who called whom and the class of the answer.",
    );
    for (labels, reading) in &all {
        text.sample(labels, reading.count());
    }
    text.family(
        "mesh_request_duration_seconds",
        Kind::Histogram,
        "From the first byte of a call between services to the last byte of its answer.",
    );
    for (labels, reading) in &all {
        reading.write_durations(text, labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_counted_by_class_and_told_once_mesh_501_mesh_504() {
        let metrics = Metrics::new(2);
        let edge = metrics.edge("default/orders", "default/payments", Direction::Inbound);
        let now = Instant::now();
        edge.observe(0, 200, Duration::from_millis(3), now);
        edge.observe(1, 403, Duration::from_millis(1), now);
        edge.observe(1, 503, Duration::from_millis(40), now);
        let page = metrics.page();
        for (class, count) in [("2xx", 1), ("4xx", 1), ("5xx", 1)] {
            let sample = format!(
                "mesh_requests_total{{source=\"default/orders\",destination=\"default/payments\",direction=\"inbound\",class=\"{class}\"}} {count}\n"
            );
            assert!(page.contains(&sample), "{page}");
        }
        assert!(page.contains("mesh_request_duration_seconds_bucket{source="));
        let told = metrics.take_edges();
        assert_eq!(told.len(), 1);
        let tally = &told[0].tally;
        assert_eq!((tally.requests, tally.errors, tally.refused), (3, 1, 1));
        assert_eq!(metrics.take_edges(), []);
        let shown = metrics.edges();
        assert_eq!((shown.len(), shown[0].requests), (1, 3));
        assert_eq!(shown[0].p50_ms, Some(5.0));
    }

    #[test]
    fn names_without_end_make_no_series_without_end() {
        let metrics = Metrics::new(1);
        for number in 0..3 * MOST_EDGES {
            let edge = metrics.edge(&number.to_string(), "b", Direction::Inbound);
            edge.observe(0, 200, Duration::ZERO, Instant::now());
        }
        assert!(metrics.edges.lock().len() <= MOST_EDGES + 1);
        let other = metrics
            .edges()
            .into_iter()
            .find(|edge| edge.source == OTHER);
        assert_eq!(other.map(|edge| edge.requests), Some(2 * MOST_EDGES as u64));
    }
}
