//! The page: which families there are, in which order, with which help. Runs on the control thread only.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use super::closed::{BreakerReason, BreakerResult, BreakerState};
use super::closed::{ConnectResult, ConnectionState, HealthState, RetryClass, TimeoutKind};
use super::text::{Kind, Text};
use super::upstream::UpstreamSeries as Series;
use super::{Metrics, living, process};
use crate::exchange::error::Code;

pub(crate) fn write(metrics: &Metrics) -> String {
    let mut text = Text::default();
    requests(metrics, &mut text);
    listeners(metrics, &mut text);
    upstreams(metrics, &mut text);
    limits(metrics, &mut text);
    gateway(metrics, &mut text);
    metrics.control_plane.write(&mut text);
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
    for (name, upstream) in &upstreams {
        text.sample(&[("upstream", name)], upstream.ejections());
    }
    text.family(
        "upstream_health",
        Kind::Gauge,
        "How many endpoints of an upstream are in each state.",
    );
    each(text, "state", HealthState::WORDS, Series::health);
    text.family(
        "circuit_breaker_state",
        Kind::Gauge,
        "1 for the state that an upstream's breaker is in.",
    );
    each(text, "state", BreakerState::WORDS, Series::breaker_is);
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
