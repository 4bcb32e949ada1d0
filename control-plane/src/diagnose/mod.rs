//! What is wrong with a service, and what to do about it (CP-302); the same of a `request` (CP-303) and of a `saga`
//! (CP-304). Facts in, a report out: pure, but for `reach` and `pages`, which go and look. Decides nothing: who leaves the
//! lookups is the registry's business.

mod advice;
mod exchange;
pub mod pages;
pub mod reach;
pub mod request;
pub mod saga;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::audit::moment;
use crate::registry::{Detail, Rules};
use reach::{Test, Why};

/// Everything that is known at one moment.
pub struct Facts<'f> {
    pub service: &'f str,
    /// Milliseconds since 1970.
    pub time: u64,
    pub rules: &'f Rules,
    /// All that are registered.
    pub details: Vec<Detail>,
    /// Ids, as a lookup at the same moment found them.
    pub resolved: Vec<Arc<str>>,
    pub tests: BTreeMap<Arc<str>, Test>,
    /// Upstreams of the fleet's documents that send to it.
    pub upstreams: Vec<Use>,
    /// Data planes that listen.
    pub nodes: usize,
    /// Other services that are registered.
    pub others: Vec<Arc<str>>,
}

/// An upstream with `service = "…"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub name: String,
    /// `FILE:LINE`.
    pub place: String,
    /// Metadata that it wants.
    pub with: Vec<(String, String)>,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub service: String,
    pub time: String,
    /// Nothing is to be done.
    pub well: bool,
    pub registration: Registration,
    pub health_checks: HealthChecks,
    pub resolution: Resolution,
    pub balancing: Balancing,
    pub instances: Vec<Instance>,
    pub reachability: Vec<Reachability>,
    pub recommendations: Vec<Advice>,
}

#[derive(Debug, Serialize)]
pub struct Registration {
    /// `registered`, `missing`, or `stale`: nothing was heard of any of them for `registry.suspect_after`.
    pub status: &'static str,
    pub instances: usize,
    /// Every entry has an address and a path to probe.
    pub complete: bool,
}

#[derive(Debug, Serialize)]
pub struct HealthChecks {
    /// `passing`: all that were looked at; `timeout`: none answered in time; else `failing`.
    pub status: &'static str,
    pub passing: usize,
    pub failing: usize,
    pub timeout: usize,
    pub not_tested: usize,
}

#[derive(Debug, Serialize)]
pub struct Resolution {
    /// `successful` or `no_instances`.
    pub status: &'static str,
    pub instances: usize,
    /// A lookup finds what the registry holds to be usable, no more and no less.
    pub equals_registry: bool,
}

/// Whether those that are resolved get something to do.
#[derive(Debug, Serialize)]
pub struct Balancing {
    pub upstreams: Vec<Covered>,
    pub nodes_listening: usize,
    pub covers_all: bool,
}

#[derive(Debug, Serialize)]
pub struct Covered {
    pub upstream: String,
    pub place: String,
    pub endpoints: usize,
    /// Ids of resolved instances that get nothing.
    pub left_out: Vec<Arc<str>>,
}

#[derive(Debug, Serialize)]
pub struct Instance {
    pub id: Arc<str>,
    pub address: Arc<str>,
    /// `passing`, `failing`, `timeout`, `not_tested`.
    pub status: &'static str,
    pub state: &'static str,
    pub health: &'static str,
    pub in_lookups: bool,
    pub held: bool,
    pub last_seen: String,
    /// Of the probe.
    pub response_ms: Option<f64>,
    pub error: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Reachability {
    pub address: Arc<str>,
    pub reachable: bool,
    /// Of the connection.
    pub response_ms: Option<f64>,
    pub error: Option<String>,
}

/// What to do, in plain words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What is so, and what to do next.
    pub text: String,
    /// The setting that decides about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting: Option<&'static str>,
    /// `FILE:LINE` of a document of the fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// The report of these facts.
pub fn report(facts: &Facts<'_>) -> Report {
    let instances: Vec<Instance> = { facts.details.iter() }
        .map(|detail| instance(facts, detail))
        .collect();
    let health_checks = health_checks(&instances);
    let silent = |detail: &Detail| detail.age >= facts.rules.lifecycle.suspect_after;
    let complete = |detail: &Detail| {
        let record = &detail.seen.record;
        !record.address.is_empty() && record.health_endpoint.starts_with('/')
    };
    let registration = Registration {
        status: match facts.details.as_slice() {
            [] => "missing",
            all if all.iter().all(silent) => "stale",
            _ => "registered",
        },
        instances: facts.details.len(),
        complete: facts.details.iter().all(complete),
    };
    let mut shown: Vec<&str> = { facts.details.iter() }
        .filter(|detail| detail.shown)
        .map(|detail| &*detail.seen.record.id)
        .collect();
    let mut found: Vec<&str> = facts.resolved.iter().map(|id| &**id).collect();
    shown.sort_unstable();
    found.sort_unstable();
    let resolution = Resolution {
        status: match found.is_empty() {
            true => "no_instances",
            false => "successful",
        },
        instances: found.len(),
        equals_registry: shown == found,
    };
    let balancing = balancing(facts);
    let recommendations = advice::advice(facts, &resolution, &balancing);
    Report {
        service: facts.service.to_owned(),
        time: moment(facts.time),
        well: recommendations.is_empty()
            && registration.status == "registered"
            && resolution.status == "successful",
        registration,
        health_checks,
        resolution,
        balancing,
        reachability: reachability(facts),
        instances,
        recommendations,
    }
}

fn millis(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn instance(facts: &Facts<'_>, detail: &Detail) -> Instance {
    let record = &detail.seen.record;
    let test = facts.tests.get(&record.id);
    let (status, error, response) = match test {
        None => ("not_tested", None, None),
        Some(Test {
            connected: Err(why),
            ..
        }) => (bad(why), Some(why.words()), None),
        Some(Test {
            probed: None,
            connected: Ok(time),
        }) => ("passing", None, Some(*time)),
        Some(Test {
            probed: Some(Err(why)),
            ..
        }) => (bad(why), Some(why.words()), None),
        Some(Test {
            probed: Some(Ok((status, time))),
            ..
        }) if *status < 400 => ("passing", None, Some(*time)),
        Some(Test {
            probed: Some(Ok((status, time))),
            ..
        }) => {
            let path = &record.health_endpoint;
            let words = format!("GET {path} was answered {status}");
            ("failing", Some(words), Some(*time))
        }
    };
    Instance {
        id: record.id.clone(),
        address: record.address.clone(),
        status,
        state: detail.seen.state.word(),
        health: record.health.word(),
        in_lookups: facts.resolved.contains(&record.id),
        held: detail.held,
        last_seen: moment(detail.seen.last_seen),
        response_ms: response.map(millis),
        error,
    }
}

fn bad(why: &Why) -> &'static str {
    match why {
        Why::TimedOut => "timeout",
        Why::Refused | Why::Other(_) => "failing",
    }
}

fn health_checks(instances: &[Instance]) -> HealthChecks {
    let count = |status: &str| instances.iter().filter(|one| one.status == status).count();
    let (passing, failing, timeout) = (count("passing"), count("failing"), count("timeout"));
    HealthChecks {
        status: match (passing, failing, timeout) {
            (0, 0, 1..) => "timeout",
            (1.., 0, 0) => "passing",
            (0, 0, 0) => "not_tested",
            _ => "failing",
        },
        passing,
        failing,
        timeout,
        not_tested: count("not_tested"),
    }
}

/// Each address once: several instances may have the same.
fn reachability(facts: &Facts<'_>) -> Vec<Reachability> {
    let mut tests = BTreeMap::new();
    for detail in &facts.details {
        if let Some(test) = facts.tests.get(&detail.seen.record.id) {
            tests.insert(detail.seen.record.address.clone(), &test.connected);
        }
    }
    let tests = tests.into_iter();
    tests
        .map(|(address, connected)| Reachability {
            address,
            reachable: connected.is_ok(),
            response_ms: connected.as_ref().ok().copied().map(millis),
            error: connected.as_ref().err().map(Why::words),
        })
        .collect()
}

fn balancing(facts: &Facts<'_>) -> Balancing {
    let upstreams: Vec<Covered> = { facts.upstreams.iter() }
        .map(|upstream| covered(facts, upstream))
        .collect();
    Balancing {
        covers_all: upstreams.iter().all(|one| one.left_out.is_empty()),
        upstreams,
        nodes_listening: facts.nodes,
    }
}

fn covered(facts: &Facts<'_>, upstream: &Use) -> Covered {
    let resolved = { facts.details.iter() }
        .map(|detail| &detail.seen.record)
        .filter(|record| facts.resolved.contains(&record.id));
    let (gets, left_out): (Vec<_>, Vec<_>) = resolved.partition(|record| {
        let mut with = upstream.with.iter();
        with.all(|(key, value)| record.metadata.get(key) == Some(value))
            && record.metadata.get("weight").map(String::as_str) != Some("0")
    });
    Covered {
        upstream: upstream.name.clone(),
        place: upstream.place.clone(),
        endpoints: gets.len(),
        left_out: left_out.iter().map(|record| record.id.clone()).collect(),
    }
}
