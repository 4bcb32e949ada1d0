//! What an operator sees of an upstream: a copy in plain words, made on request. Never read by the way of a request.

use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::Upstream;
use super::bulkhead::BulkheadStatus;
use super::endpoint::Endpoint;
use super::moment::Moment;
use crate::telemetry::metrics::{HealthState, Known, KnownBulkhead};

/// One upstream.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamStatus {
    pub name: String,
    /// Every endpoint is out, so all are asked all the same.
    pub panic: bool,
    /// Absent without `max_in_flight`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulkhead: Option<BulkheadStatus>,
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointStatus {
    pub address: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    pub weight: u32,
    pub in_flight: u32,
    /// Absent before the first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    pub health: HealthStatus,
    /// The share of its weight, while it is in slow start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<f64>,
    /// The share that is left because it asked for less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limited: Option<f64>,
    /// Requests ever sent there.
    pub picks: u64,
    pub failures: u64,
    pub failures_in_a_row: u32,
    /// How often it was ejected lately; each makes the next one longer.
    pub ejections: u32,
    /// Seconds since the last probe ended; absent without probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probed_seconds_ago: Option<f64>,
    /// Failed probes in a row.
    pub probe_failures: u32,
}

/// Whether an endpoint may be asked, and why not.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum HealthStatus {
    Healthy,
    /// It failed too often in a row.
    Ejected {
        returns_in_seconds: f64,
    },
    FailingProbes {
        reason: String,
    },
}

pub(super) fn of(upstream: &Upstream, now: Moment) -> UpstreamStatus {
    let set = upstream.endpoints.load();
    let met = upstream.originals.all();
    let endpoints: Vec<_> = (0..set.len())
        .map(|position| set.member(position))
        .map(|member| endpoint(member, member.weight, now))
        .chain(met.iter().map(|met| endpoint(met, 1, now)))
        .collect();
    UpstreamStatus {
        name: upstream.name().to_owned(),
        panic: !endpoints.is_empty()
            && endpoints
                .iter()
                .all(|endpoint| endpoint.health != HealthStatus::Healthy),
        bulkhead: upstream.bulkhead(),
        endpoints,
    }
}

pub(super) fn known(upstream: &Upstream, now: Moment) -> Known {
    let set = upstream.endpoints.load();
    let mut endpoints = [0; 3];
    for endpoint in set.iter() {
        let state = if endpoint.verdict.is_failing() {
            HealthState::Unhealthy
        } else if now < endpoint.evidence.returns() {
            HealthState::Ejected
        } else {
            HealthState::Healthy
        };
        endpoints[state as usize] += 1;
    }
    Known {
        ejections: upstream.ejections.load(Relaxed),
        endpoints,
        bulkhead: upstream.bulkhead().map(|bulkhead| KnownBulkhead {
            in_flight: bulkhead.in_flight.into(),
            limit: bulkhead.limit.into(),
            waiting: bulkhead.waiting.into(),
        }),
    }
}

fn endpoint(endpoint: &Endpoint, weight: u32, now: Moment) -> EndpointStatus {
    let returns = endpoint.evidence.returns();
    let health = if endpoint.verdict.is_failing() {
        HealthStatus::FailingProbes {
            reason: endpoint
                .verdict
                .reason()
                .unwrap_or_else(|| "not probed again yet".into()),
        }
    } else if now < returns {
        HealthStatus::Ejected {
            returns_in_seconds: seconds(returns.since(now)),
        }
    } else {
        HealthStatus::Healthy
    };
    let share = super::slow_start::share(returns, now);
    let limited = endpoint.evidence.share(now);
    EndpointStatus {
        address: endpoint.address().to_string(),
        name: endpoint.name().to_owned(),
        zone: endpoint.zone(),
        weight,
        in_flight: endpoint.in_flight(),
        latency_ms: endpoint
            .load
            .latency
            .estimate(now)
            .map(|nanoseconds| (nanoseconds / 1e3).round() / 1e3),
        slow_start: (health == HealthStatus::Healthy && share < 1.0)
            .then(|| (share * 100.0).round() / 100.0),
        rate_limited: (limited < 1.0).then(|| (limited * 100.0).round() / 100.0),
        health,
        picks: endpoint.picks(),
        failures: endpoint.failures(),
        failures_in_a_row: endpoint.evidence.failures_in_a_row(),
        ejections: endpoint.evidence.times_ejected(),
        probed_seconds_ago: endpoint
            .verdict
            .checked()
            .map(|checked| seconds(now.since(checked))),
        probe_failures: endpoint.verdict.failures_in_a_row(),
    }
}

/// Nanoseconds as seconds with three digits.
fn seconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 1e6).round() / 1e3
}
