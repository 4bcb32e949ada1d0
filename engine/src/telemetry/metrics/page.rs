//! The page: which families there are, in which order, with which help. Runs on the control thread only.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use super::closed::{BreakerReason, BreakerResult, BreakerState};
use super::closed::{
    ConnectResult, ConnectionState, FallbackResult, HealthState, PRIORITIES, Refusal, RetryClass,
    TimeoutKind,
};
use super::text::{Kind, Text};
use super::upstream::{Known, UpstreamSeries as Series};
use super::{ListenerSeries, Metrics, access, descriptors, edges, hedges, jwt, living, process};
use crate::exchange::error::Code;

pub(crate) fn write(metrics: &Metrics) -> String {
    let labels = metrics
        .labels
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let mut text = Text::with_labels(labels.clone());
    drop(labels);
    requests(metrics, &mut text);
    listeners(metrics, &mut text);
    upstreams(metrics, &mut text);
    limits(metrics, &mut text);
    sharing(metrics, &mut text);
    faults(metrics, &mut text);
    jwt::write(metrics, &mut text);
    descriptors::write(metrics, &mut text);
    access::write(metrics, &mut text);
    edges::write(metrics, &mut text);
    gateway(metrics, &mut text);
    metrics.control_plane.write(&mut text);
    metrics.identity.write(&mut text);
    metrics.spans.write(&mut text);
    process::write(&mut text);
    text.finish()
}

fn requests(metrics: &Metrics, text: &mut Text) {
    let (grids, sizes) = {
        let mut names = metrics.names();
        names.handles.retain(|_, handle| handle.strong_count() > 0);
        (living(&mut names.grids), living(&mut names.sizes))
    };
    // Read once: the two families of one series must agree.
    let readings: Vec<_> = grids
        .iter()
        .map(|(names, grid)| (names, grid.readings()))
        .collect();
    let mut series = Vec::new();
    for ((route, upstream), readings) in &readings {
        for (method, status, reading) in readings {
            let labels = [
                ("route", route.as_str()),
                ("upstream", upstream),
                ("method", method),
                ("status", status),
            ];
            series.push((labels, reading));
        }
    }
    text.family("http_requests_total", Kind::Counter, "Requests answered.");
    for (labels, reading) in &series {
        text.sample(labels, reading.count());
    }
    text.family(
        "http_request_duration_seconds",
        Kind::Histogram,
        "From a request's first byte to the last byte of its answer.",
    );
    for (labels, reading) in &series {
        reading.write_durations(text, labels);
    }
    text.family(
        "fallbacks_total",
        Kind::Counter,
        "Requests that a route's fallback stood in for, by what came of it.",
    );
    for (route, sizes) in &sizes {
        for (index, result) in FallbackResult::WORDS.iter().enumerate() {
            let count = sizes.fallbacks(index);
            // Most routes have none.
            if count > 0 {
                text.sample(&[("route", route), ("result", result)], count);
            }
        }
    }
    let sizes: Vec<_> = sizes
        .iter()
        .map(|(route, sizes)| (route, sizes.readings()))
        .filter(|(_, (requests, _))| requests.count() > 0)
        .collect();
    text.family(
        "http_request_size_bytes",
        Kind::Histogram,
        "Bytes of request bodies.",
    );
    for (route, (requests, _)) in &sizes {
        requests.write_sizes(text, &[("route", route)]);
    }
    text.family(
        "http_response_size_bytes",
        Kind::Histogram,
        "Bytes of response bodies.",
    );
    for (route, (_, responses)) in &sizes {
        responses.write_sizes(text, &[("route", route)]);
    }
}

fn listeners(metrics: &Metrics, text: &mut Text) {
    let listeners = living(&mut metrics.names().listeners);
    text.family(
        "listener_connections",
        Kind::Gauge,
        "Client connections that are open.",
    );
    for (name, listener) in &listeners {
        text.sample(&[("listener", name)], listener.active_connections());
    }
    text.family(
        "listener_connections_total",
        Kind::Counter,
        "Client connections by what became of them.",
    );
    for (name, listener) in &listeners {
        for (result, count) in listener.connections() {
            text.sample(&[("listener", name), ("result", result)], count);
        }
    }
    relays(&listeners, text);
    text.family(
        "http_rejected_total",
        Kind::Counter,
        "Requests that we refused before they had a route.",
    );
    for (name, listener) in &listeners {
        for (index, code) in Code::ALL.iter().enumerate() {
            let count = listener.rejections(index);
            // Most codes never occur on most listeners.
            if count > 0 {
                text.sample(&[("listener", name), ("code", code.word())], count);
            }
        }
    }
}

/// Of listeners that relayed anything.
fn relays(listeners: &[(String, Arc<ListenerSeries>)], text: &mut Text) {
    let relaying: Vec<_> = listeners
        .iter()
        .filter(|(_, one)| one.active_relays() != 0 || one.relays().any(|(_, count)| count > 0))
        .collect();
    text.family(
        "relay_connections",
        Kind::Gauge,
        "Client connections whose bytes are relayed now.",
    );
    for (name, listener) in &relaying {
        text.sample(&[("listener", name)], listener.active_relays());
    }
    text.family(
        "relay_connections_total",
        Kind::Counter,
        "Client connections whose bytes were relayed, by why that ended.",
    );
    for (name, listener) in &relaying {
        for (end, count) in listener.relays() {
            text.sample(&[("listener", name), ("end", end)], count);
        }
    }
    text.family(
        "relay_bytes_total",
        Kind::Counter,
        "Bytes relayed: in to upstreams, out to clients.",
    );
    for (name, listener) in &relaying {
        for (direction, count) in listener.relayed_bytes() {
            text.sample(&[("listener", name), ("direction", direction)], count);
        }
    }
}

fn upstreams(metrics: &Metrics, text: &mut Text) {
    let upstreams = living(&mut metrics.names().upstreams);
    let each = |text: &mut Text, label, words: &[&str], count: fn(&Series, usize) -> i64| {
        for (name, series) in &upstreams {
            for (index, word) in words.iter().enumerate() {
                text.sample(&[("upstream", name), (label, word)], count(series, index));
            }
        }
    };
    text.family(
        "upstream_connections",
        Kind::Gauge,
        "Connections to an upstream by what they are doing.",
    );
    each(text, "state", ConnectionState::WORDS, Series::connections);
    text.family(
        "upstream_connects_total",
        Kind::Counter,
        "Attempts to connect by how they ended.",
    );
    each(text, "result", ConnectResult::WORDS, Series::connects);
    text.family(
        "retries_total",
        Kind::Counter,
        "Requests sent again, by why.",
    );
    each(text, "class", RetryClass::WORDS, Series::retries);
    text.family(
        "timeouts_total",
        Kind::Counter,
        "Requests that ran out of time, by which time.",
    );
    each(text, "kind", TimeoutKind::WORDS, Series::timeouts);
    text.family(
        "upstream_ejections_total",
        Kind::Counter,
        "Endpoints put aside by outlier detection.",
    );
    let known: Vec<(&String, Known)> = upstreams
        .iter()
        .map(|(name, upstream)| (name, upstream.known()))
        .collect();
    for (name, known) in &known {
        text.sample(&[("upstream", name)], known.ejections);
    }
    text.family(
        "upstream_health",
        Kind::Gauge,
        "How many endpoints of an upstream are in each state.",
    );
    for (name, known) in &known {
        for (state, count) in HealthState::WORDS.iter().zip(known.endpoints) {
            text.sample(&[("upstream", name), ("state", state)], count);
        }
    }
    text.family(
        "circuit_breaker_state",
        Kind::Gauge,
        "How many breakers of an upstream are in each state.",
    );
    each(text, "state", BreakerState::WORDS, Series::breakers);
    text.family(
        "circuit_breaker_transitions_total",
        Kind::Counter,
        "Changes of an upstream's breaker, by why.",
    );
    each(
        text,
        "reason",
        BreakerReason::WORDS,
        Series::breaker_changes,
    );
    text.family(
        "circuit_breaker_requests_total",
        Kind::Counter,
        "Tries by what the upstream's breaker said to them.",
    );
    each(text, "result", BreakerResult::WORDS, Series::breaker);
    text.family(
        "retry_budget_exhausted_total",
        Kind::Counter,
        "Requests that were not sent again because the upstream's retry budget was used up.",
    );
    for (name, upstream) in &upstreams {
        text.sample(&[("upstream", name)], upstream.exhaustions());
    }
    bulkheads(&upstreams, &known, text);
    hedges::write(&upstreams, text);
}

/// Of upstreams with a bulkhead; counters also of those that had one.
fn bulkheads(upstreams: &[(String, Arc<Series>)], known: &[(&String, Known)], text: &mut Text) {
    let bounded: Vec<_> = known
        .iter()
        .filter_map(|(name, known)| Some((name.as_str(), known.bulkhead?)))
        .collect();
    text.family(
        "upstream_in_flight",
        Kind::Gauge,
        "Requests that hold a permit of the upstream's bulkhead.",
    );
    for (name, bulkhead) in &bounded {
        text.sample(&[("upstream", name)], bulkhead.in_flight);
    }
    text.family(
        "upstream_in_flight_limit",
        Kind::Gauge,
        "How many may hold one now.",
    );
    for (name, bulkhead) in &bounded {
        text.sample(&[("upstream", name)], bulkhead.limit);
    }
    text.family(
        "upstream_queue_depth",
        Kind::Gauge,
        "Requests that wait for a permit.",
    );
    for (name, bulkhead) in &bounded {
        for (priority, waiting) in PRIORITIES.iter().zip(bulkhead.waiting) {
            text.sample(&[("upstream", name), ("priority", priority)], waiting);
        }
    }
    text.family(
        "upstream_queue_wait_seconds",
        Kind::Histogram,
        "How long those waited that got a permit, but not at once.",
    );
    for (name, upstream) in upstreams {
        let waits = upstream.waits();
        if waits.count() > 0 {
            waits.write_durations(text, &[("upstream", name)]);
        }
    }
    text.family(
        "upstream_refusals_total",
        Kind::Counter,
        "Requests that a bulkhead did not let through.",
    );
    for (name, upstream) in upstreams {
        for (number, priority) in PRIORITIES.iter().enumerate() {
            for (index, reason) in Refusal::WORDS.iter().enumerate() {
                let count = upstream.refusals(number, index);
                if count > 0 || bounded.iter().any(|(bounded, _)| bounded == name) {
                    let labels = [
                        ("upstream", &**name),
                        ("priority", priority),
                        ("reason", reason),
                    ];
                    text.sample(&labels, count);
                }
            }
        }
    }
}

fn limits(metrics: &Metrics, text: &mut Text) {
    let limits = living(&mut metrics.names().limits);
    text.family(
        "rate_limit_requests_total",
        Kind::Counter,
        "Requests that met a rate limit, by what became of them.",
    );
    for ((limit, tier), series) in &limits {
        for (result, count) in series.requests() {
            // What all tiers share counts no requests.
            if limit != "tiers" || !tier.is_empty() {
                text.sample(
                    &[("limit", limit), ("tier", tier), ("result", result)],
                    count,
                );
            }
        }
    }
    let shelves = || limits.iter().filter(|((_, tier), _)| tier.is_empty());
    text.family(
        "rate_limit_keys",
        Kind::Gauge,
        "Buckets that a rate limit holds.",
    );
    for ((limit, _), series) in shelves() {
        text.sample(&[("limit", limit)], series.keys());
    }
    text.family(
        "rate_limit_crowded_total",
        Kind::Counter,
        "Buckets that found no room of their own, by what was done.",
    );
    for ((limit, _), series) in shelves() {
        for (what, count) in series.crowded() {
            text.sample(&[("limit", limit), ("done", what)], count);
        }
    }
}

fn sharing(metrics: &Metrics, text: &mut Text) {
    let limits = living(&mut metrics.names().limits);
    text.family(
        "shared_limit_tokens_total",
        Kind::Counter,
        "Tokens that came for clients of shared limits, by where from.",
    );
    for ((limit, _), series) in &limits {
        for (from, count) in series.leases() {
            if series.is_leased() {
                text.sample(&[("limit", limit), ("from", from)], count);
            }
        }
    }
    let [reached, gateways, errors] = metrics.sharing();
    text.family(
        "shared_limit_store_reached",
        Kind::Gauge,
        "Whether the store of shared limits answers: 1, or 0 while this gateway serves its own share.",
    );
    text.sample(&[], reached);
    text.family(
        "shared_limit_gateways",
        Kind::Gauge,
        "How many gateways share limits, as was last known.",
    );
    text.sample(&[], gateways);
    text.family(
        "shared_limit_store_errors_total",
        Kind::Counter,
        "Questions to the store of shared limits that failed.",
    );
    text.sample(&[], errors);
}

fn faults(metrics: &Metrics, text: &mut Text) {
    let faults = living(&mut metrics.names().faults);
    text.family(
        "faults_injected_total",
        Kind::Counter,
        "Requests that met a fault on purpose, by which.",
    );
    for (route, series) in &faults {
        for (fault, count) in series.injected() {
            text.sample(&[("route", route), ("fault", fault)], count);
        }
    }
}

fn gateway(metrics: &Metrics, text: &mut Text) {
    text.family(
        "errors_total",
        Kind::Counter,
        "Answers of our own instead of an upstream's, by error code.",
    );
    for (index, code) in Code::ALL.iter().enumerate() {
        let count: u64 = metrics
            .errors
            .iter()
            .map(|shard| shard.0.value(index))
            .sum();
        text.sample(&[("code", code.word())], count);
    }
    text.family(
        "config_revision",
        Kind::Gauge,
        "The revision of the configuration that serves.",
    );
    text.sample(&[], metrics.config_revision.value());
    text.family(
        "config_reload_failures_total",
        Kind::Counter,
        "Configurations that were refused.",
    );
    text.sample(&[], metrics.config_reload_failures.value());
    text.family(
        "config_last_reload_timestamp_seconds",
        Kind::Gauge,
        "When the configuration that serves took effect, in Unix time.",
    );
    let reloaded = metrics.config_last_reload.value();
    text.sample(
        &[],
        format_args!("{}.{:03}", reloaded / 1000, reloaded % 1000),
    );
    text.family(
        "config_generations",
        Kind::Gauge,
        "Configurations that some request still uses, and the one that serves.",
    );
    text.sample(&[], metrics.generations_alive.value());
    let dropped = metrics
        .access_log_dropped
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    text.family(
        "access_log_dropped_total",
        Kind::Counter,
        "Access log lines that could not be written.",
    );
    text.sample(
        &[],
        dropped.as_ref().map_or(0, |dropped| dropped.load(Relaxed)),
    );
    text.family(
        "build_info",
        Kind::Gauge,
        "Always 1; the version is the label.",
    );
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family(
        "process_uptime_seconds",
        Kind::Gauge,
        "Seconds since the process began to serve metrics.",
    );
    let uptime = metrics.started.elapsed();
    text.sample(
        &[],
        format_args!("{}.{:03}", uptime.as_secs(), uptime.subsec_millis()),
    );
}
