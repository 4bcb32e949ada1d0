//! What a node served since its last report: requests, errors and latencies by route and by upstream. Only what was
//! added since then travels, only of what had traffic, and of that only the busiest; the others are one line. Figures of
//! any number of nodes and spans can be added.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{bounds, read_duration, write_duration};

/// Upper bounds of the latency histogram in microseconds (OBS-302); what took longer than all is counted in one more.
pub const LATENCIES: [u64; 12] = [
    5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];
/// Routes, and upstreams, that one report tells by name.
pub const MOST_FIGURES: usize = 200;
/// Kinds of own refusals in one report.
const MOST_KINDS: usize = 200;

/// One report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Of this process.
    pub instance: String,
    /// What served meanwhile; 0 = nothing of a control plane.
    pub revision: u64,
    /// The time that all of it was counted in.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub span: Duration,
    /// Everything, requests that no route took included.
    pub total: Tally,
    /// The busiest routes by name; `none` is what no route took.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, Tally>,
    /// The busiest upstreams by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upstreams: BTreeMap<String, Tally>,
    /// The node's own answers by error code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// The busiest edges of the service map.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<Edge>,
}

/// From which end an edge of the service map was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// By the one that was called.
    Inbound,
    /// By the one that called.
    Outbound,
}

impl Direction {
    pub fn word(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

/// Calls from one service to another (MESH-504).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// `namespace/service`, or a word for who cannot be told.
    pub source: String,
    pub destination: String,
    pub direction: Direction,
    pub tally: Tally,
}

/// What became of some requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub requests: u64,
    /// Answered 500 and above, by whomever.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub errors: u64,
    /// Of the errors: 504.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeouts: u64,
    /// Answered 400 to 498, by whomever. 499 is a client that left.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// The time that all of them took.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub micros: u64,
    /// How many took at most each of `LATENCIES` and longer than the one before; zeros at the end are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latency: Vec<u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        for (mine, theirs) in [
            (&mut self.requests, other.requests),
            (&mut self.errors, other.errors),
            (&mut self.timeouts, other.timeouts),
            (&mut self.refused, other.refused),
            (&mut self.micros, other.micros),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        if self.latency.len() < other.latency.len() {
            self.latency.resize(other.latency.len(), 0);
        }
        for (mine, theirs) in self.latency.iter_mut().zip(&other.latency) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// How many took longer than this bound of `LATENCIES`.
    pub fn slower_than(&self, bound: usize) -> u64 {
        let beyond = self.latency.iter().skip(bound + 1);
        beyond.fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The bound that this share of the requests did not exceed; `None` without requests. What took longer than every
    /// bound is told as the last one.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.latency.iter().fold(0, |sum, n| sum.saturating_add(*n));
        if all == 0 {
            return None;
        }
        let wanted = (all as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0);
        let mut below = 0.0;
        let bound = self.latency.iter().position(|count| {
            below += *count as f64;
            below >= wanted
        });
        let last = LATENCIES.len() - 1;
        let bound = LATENCIES.get(bound.unwrap_or(last).min(last)).copied();
        bound.map(Duration::from_micros)
    }

    pub fn mean(&self) -> Option<Duration> {
        Some(Duration::from_micros(
            self.micros.checked_div(self.requests)?,
        ))
    }
}

impl Figures {
    /// What cannot be figures of an honest node, in words.
    pub fn check(&self) -> Result<(), String> {
        bounds::word("instance", &self.instance)?;
        for (what, tallies) in [("routes", &self.routes), ("upstreams", &self.upstreams)] {
            if tallies.len() > MOST_FIGURES {
                return Err(format!("`{what}` has more than {MOST_FIGURES} names"));
            }
            for (name, tally) in tallies {
                bounds::word(what, name)?;
                check(what, tally)?;
            }
        }
        if self.edges.len() > MOST_FIGURES {
            return Err(format!("`edges` has more than {MOST_FIGURES} edges"));
        }
        for edge in &self.edges {
            bounds::word("source", &edge.source)?;
            bounds::word("destination", &edge.destination)?;
            check("edges", &edge.tally)?;
        }
        if self.refused.len() > MOST_KINDS {
            return Err(format!("`refused` has more than {MOST_KINDS} kinds"));
        }
        let mut kinds = self.refused.keys();
        kinds.try_for_each(|kind| bounds::word("refused", kind))?;
        check("total", &self.total)
    }
}

fn check(what: &str, tally: &Tally) -> Result<(), String> {
    let of = |why: &str| Err(format!("`{what}` {why}"));
    if tally.latency.len() > LATENCIES.len() + 1 {
        return of("has a latency histogram with other bounds than ours");
    }
    let parts = tally.errors.saturating_add(tally.refused);
    if parts > tally.requests || tally.timeouts > tally.errors {
        return of("counts more failures than requests");
    }
    let timed = { tally.latency.iter() }.fold(0u64, |sum, count| sum.saturating_add(*count));
    if timed > tally.requests {
        return of("has more latencies than requests");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(latency: &[u64]) -> Tally {
        Tally {
            requests: latency.iter().sum(),
            latency: latency.to_vec(),
            ..Tally::default()
        }
    }

    #[test]
    fn a_quantile_is_the_bound_that_so_many_did_not_exceed() {
        let one = tally(&[94, 1, 5]);
        assert_eq!(one.quantile(0.5), Some(Duration::from_millis(5)));
        assert_eq!(one.quantile(0.95), Some(Duration::from_millis(10)));
        assert_eq!(one.quantile(1.0), Some(Duration::from_millis(25)));
        assert_eq!((one.slower_than(0), one.slower_than(1)), (6, 5));
        assert_eq!(tally(&[]).quantile(0.5), None);
        let beyond = tally(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(beyond.quantile(0.5), Some(Duration::from_secs(30)));
    }

    #[test]
    fn sums_do_not_depend_on_the_order_and_never_wrap() {
        let (a, b) = (tally(&[1, 2]), tally(&[0, 0, 7]));
        let (mut one, mut other) = (a.clone(), b.clone());
        one.add(&b);
        other.add(&a);
        assert_eq!(one, other);
        assert_eq!((one.requests, one.latency.as_slice()), (10, &[1, 2, 7][..]));
        let mut huge = Tally {
            requests: u64::MAX,
            ..Tally::default()
        };
        huge.add(&one);
        assert_eq!(huge.requests, u64::MAX);
    }

    #[test]
    fn what_no_honest_node_says_is_refused() {
        let good = Figures {
            instance: "a".to_owned(),
            total: tally(&[3]),
            ..Figures::default()
        };
        assert_eq!(good.check(), Ok(()));
        let mut more_errors = good.clone();
        more_errors.total.errors = 4;
        let mut other_bounds = good.clone();
        other_bounds.total.latency = vec![0; 14];
        let mut bad_name = good.clone();
        bad_name.routes.insert("a\nb".to_owned(), Tally::default());
        let mut many = good;
        many.routes = { 0..=MOST_FIGURES }
            .map(|number| (number.to_string(), Tally::default()))
            .collect();
        for bad in [more_errors, other_bounds, bad_name, many] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_full_report_stays_small_and_an_idle_one_tiny() {
        let busy = Tally {
            requests: 123_456,
            errors: 123,
            timeouts: 12,
            refused: 1234,
            micros: 123_456_789_012,
            latency: vec![100_000, 20_000, 3000, 200, 100, 50, 25, 12, 6, 3],
        };
        let name = |number: usize| (format!("a-route-of-some-length-{number:05}"), busy.clone());
        let full = Figures {
            instance: "0".repeat(36),
            routes: (0..MOST_FIGURES).map(name).collect(),
            upstreams: (0..MOST_FIGURES).map(name).collect(),
            ..Figures::default()
        };
        let size = serde_json::to_vec(&full).expect("text").len();
        assert!(size < 80_000, "{size}");
        let idle = serde_json::to_vec(&Figures::default()).expect("text").len();
        assert!(idle < 100, "{idle}");
        println!("bytes: full {size}, idle {idle}");
    }
}
