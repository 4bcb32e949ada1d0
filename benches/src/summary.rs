//! What a run of the load generator saw: counts by status and by kind of failure, and latency percentiles from a
//! high-dynamic-range histogram (three significant digits, one nanosecond to two minutes).
//!
//! A recorder lives on one thread and is never shared; whoever needs numbers while a run goes on reads the atomics of
//! [`crate::load::Live`] instead.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency that is told apart from a longer one.
const LONGEST: Duration = Duration::from_secs(120);

/// Collects what happened to requests, one at a time.
#[derive(Debug)]
pub struct Recorder {
    latency: Histogram<u64>,
    status: BTreeMap<u16, u64>,
    failures: BTreeMap<Failure, u64>,
    reconnects: u64,
}

/// Why a request has no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No connection, or no TLS session on it.
    Connect,
    /// The connection ended before the answer was complete.
    Closed,
    /// The answer is not HTTP as the generator understands it.
    Protocol,
    /// A complete answer whose body is shorter than `expect_body`.
    ShortBody,
    /// A stream was reset by the other side.
    Reset,
    /// Still without an answer when the run ended and its patience was over.
    Unfinished,
}

impl Default for Recorder {
    fn default() -> Self {
        let longest = LONGEST.as_nanos() as u64;
        Recorder {
            latency: Histogram::new_with_bounds(1, longest, 3)
                .expect("the bounds are constants that the crate accepts"),
            status: BTreeMap::new(),
            failures: BTreeMap::new(),
            reconnects: 0,
        }
    }
}

impl Recorder {
    /// One complete answer.
    pub fn answered(&mut self, status: u16, latency: Duration) {
        *self.status.entry(status).or_default() += 1;
        self.latency
            .saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    /// One request without a good answer. Failures have no latency: a fast refusal must not make a run look better.
    pub fn failed(&mut self, failure: Failure) {
        *self.failures.entry(failure).or_default() += 1;
    }

    /// The other side closed an idle connection and it was opened again; no request was lost by it.
    pub fn reconnected(&mut self) {
        self.reconnects += 1;
    }

    /// The summary, once the run is over and took `elapsed`.
    pub fn summary(&self, elapsed: Duration) -> Summary {
        let requests: u64 = self.status.values().sum();
        let at = |quantile: f64| micros(self.latency.value_at_quantile(quantile));
        Summary {
            requests,
            failed: self.failures.values().sum(),
            failures: self.failures.clone(),
            status: self.status.clone(),
            reconnects: self.reconnects,
            seconds: elapsed.as_secs_f64(),
            requests_per_second: requests as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
            latency_micros: Latency {
                p50: at(0.50),
                p90: at(0.90),
                p95: at(0.95),
                p99: at(0.99),
                p999: at(0.999),
                max: micros(self.latency.max()),
                mean: self.latency.mean() / 1_000.0,
            },
        }
    }
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1_000.0
}

/// A finished run, as it is printed and written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Complete answers, whatever their status.
    pub requests: u64,
    /// Requests without a good answer, of all kinds.
    pub failed: u64,
    pub failures: BTreeMap<Failure, u64>,
    pub status: BTreeMap<u16, u64>,
    /// Idle connections that the other side had closed before the next request.
    pub reconnects: u64,
    pub seconds: f64,
    pub requests_per_second: f64,
    pub latency_micros: Latency,
}

impl Summary {
    /// Requests that failed, or were answered with something else than success.
    pub fn bad(&self) -> u64 {
        self.failed
            + self
                .status
                .iter()
                .filter(|(status, _)| !(200..300).contains(*status))
                .map(|(_, n)| n)
                .sum::<u64>()
    }
}

/// Latency percentiles in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    pub mean: f64,
}

/// The middle value; of an even count, the mean of the middle two. `None` for nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    Some(if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_three_digits() {
        let mut recorder = Recorder::default();
        for n in 1..=1_000u64 {
            recorder.answered(200, Duration::from_micros(n));
        }
        let summary = recorder.summary(Duration::from_secs(2));
        let near = |got: f64, want: f64| {
            assert!(
                (got - want).abs() <= want / 500.0,
                "{got} is not near {want}"
            )
        };
        near(summary.latency_micros.p50, 500.0);
        near(summary.latency_micros.p90, 900.0);
        near(summary.latency_micros.p95, 950.0);
        near(summary.latency_micros.p99, 990.0);
        near(summary.latency_micros.p999, 999.0);
        near(summary.latency_micros.max, 1_000.0);
        assert_eq!(summary.requests, 1_000);
        assert_eq!(summary.requests_per_second, 500.0);
    }

    #[test]
    fn a_failure_counts_and_leaves_the_latencies_alone() {
        let mut recorder = Recorder::default();
        recorder.answered(200, Duration::from_millis(3));
        recorder.answered(503, Duration::from_millis(3));
        recorder.failed(Failure::Closed);
        let summary = recorder.summary(Duration::from_secs(1));
        assert_eq!((summary.requests, summary.failed, summary.bad()), (2, 1, 2));
        assert!(summary.latency_micros.p50 > 2_900.0);
    }

    #[test]
    fn a_latency_beyond_the_histogram_is_kept_as_its_longest() {
        let mut recorder = Recorder::default();
        recorder.answered(200, Duration::from_secs(3_600));
        assert!(recorder.summary(Duration::from_secs(1)).latency_micros.max >= 119e6);
    }

    #[test]
    fn the_median_of_an_even_count_is_between_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([]), None);
    }
}
