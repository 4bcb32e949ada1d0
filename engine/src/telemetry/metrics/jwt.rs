//! What is counted of tokens, by issuer as the document names it.

use super::cell::{Cell, Shard, Shared, shards, sum};
use super::text::{Kind, Text};
use super::{Metrics, living};

/// What became of a token that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtResult {
    Verified,
    /// It was verified before.
    Remembered,
    Absent,
    Expired,
    Invalid,
    NoKeys,
}

const RESULTS: [(JwtResult, &str); 6] = [
    (JwtResult::Verified, "verified"),
    (JwtResult::Remembered, "remembered"),
    (JwtResult::Absent, "absent"),
    (JwtResult::Expired, "expired"),
    (JwtResult::Invalid, "invalid"),
    (JwtResult::NoKeys, "no_keys"),
];

/// An issuer's resolved handle.
#[derive(Debug)]
pub struct JwtSeries {
    workers: Box<[Shard<[Cell; RESULTS.len()]>]>,
    /// Fetches of its keys, failures, keys, and when they came in seconds since 1970.
    fetches: [Shared; 4],
}

impl JwtSeries {
    pub(crate) fn new(workers: usize) -> Self {
        JwtSeries {
            workers: shards(workers),
            fetches: Default::default(),
        }
    }

    /// `worker` is the caller's own number, as in all series.
    pub fn count(&self, worker: usize, result: JwtResult) {
        if let Some(Shard(counts)) = self.workers.get(worker)
            && let Some(cell) = counts.get(result as usize)
        {
            cell.add(1);
        }
    }

    /// How it stands with the keys that the issuer publishes.
    pub fn stands(&self, fetches: u64, failures: u64, keys: u64, since: u64) {
        let now = [fetches, failures, keys, since];
        for (cell, now) in self.fetches.iter().zip(now) {
            cell.set(now);
        }
    }

    fn results(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let of = |result: JwtResult| sum(&self.workers, |counts| &counts[result as usize]);
        RESULTS
            .iter()
            .map(move |(result, word)| (*word, of(*result)))
    }

    fn standing(&self) -> [u64; 4] {
        self.fetches.each_ref().map(Shared::value)
    }
}

pub(super) fn write(metrics: &Metrics, text: &mut Text) {
    let issuers = living(&mut metrics.names().jwts);
    text.family(
        "jwt_tokens_total",
        Kind::Counter,
        "Requests that were asked for a token, by what became of it.",
    );
    for (jwt, series) in &issuers {
        for (result, count) in series.results() {
            text.sample(&[("jwt", jwt), ("result", result)], count);
        }
    }
    let families = [
        (
            "jwks_fetches_total",
            Kind::Counter,
            "Fetches of an issuer's keys.",
        ),
        (
            "jwks_fetch_failures_total",
            Kind::Counter,
            "Fetches of an issuer's keys that brought none; those before stay.",
        ),
        (
            "jwks_keys",
            Kind::Gauge,
            "Keys that an issuer publishes, as was last known.",
        ),
        (
            "jwks_last_fetch_timestamp_seconds",
            Kind::Gauge,
            "When an issuer's keys last came; 0: never.",
        ),
    ];
    for (place, (family, kind, help)) in families.into_iter().enumerate() {
        text.family(family, kind, help);
        for (jwt, series) in &issuers {
            text.sample(&[("jwt", jwt)], series.standing()[place]);
        }
    }
}
