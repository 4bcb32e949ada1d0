//! The control plane about itself: health (OBS-7xx) and metrics. The only file here that names a series.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json as Answer;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};
use tollgate_engine::telemetry::log::timestamp;
use tollgate_engine::telemetry::metrics::{CONTENT_TYPE, Kind, Text, write_process};

use super::Api;
use crate::authority::PROOFS;
use crate::keeper::{OUTCOMES, REMOVALS};
use crate::registry::State as InstanceState;

/// Requests by page and status. Both are ours: no caller can make a series.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<BTreeMap<(String, &'static str, u16), u64>>);

/// Counts every request.
pub(super) async fn count(
    State(api): State<Arc<Api>>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let route = path.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = match request.method().as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "other",
    };
    let response = next.run(request).await;
    let mut requests = api
        .requests
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    *requests
        .entry((route, method, response.status().as_u16()))
        .or_default() += 1;
    drop(requests);
    response
}

/// `GET /health/live`: the process answers.
pub(super) async fn live(State(api): State<Arc<Api>>) -> Response {
    Answer(health(&api, true)).into_response()
}

/// `GET /health`, `GET /health/ready`: it may be used. False only while it stops: it answers nobody before it is ready.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    let ready = api.is_ready();
    let status = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Answer(health(&api, ready))).into_response()
}

fn health(api: &Api, good: bool) -> Value {
    let word = |good| if good { "healthy" } else { "unhealthy" };
    let figures = api.store.figures();
    json!({
        "status": word(good),
        "service": "control-plane",
        "version": env!("CARGO_PKG_VERSION"),
        "timestamp": timestamp(std::time::SystemTime::now()),
        "uptime": api.started.elapsed().as_secs(),
        "checks": {
            "registry": { "status": "healthy" },
            // Lookups go on without it.
            "store": { "status": word(!figures.failing), "revision": figures.revision },
            // What was accepted before is told.
            "catalog": { "status": word(api.catalog.store_refused().is_none()) },
        },
    })
}

/// `GET /metrics`.
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let mut text = Text::default();
    registry(&api, &mut text);
    fleet(&api, &mut text);
    leases(&api, &mut text);
    identity(&api, &mut text);
    store(&api, &mut text);
    requests(&api, &mut text);
    write_process(&mut text);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text.finish()).into_response()
}

fn one(text: &mut Text, name: &'static str, kind: Kind, help: &str, value: u64) {
    text.family(name, kind, help);
    text.sample(&[], value);
}

fn registry(api: &Api, text: &mut Text) {
    use Kind::{Counter, Gauge};
    let keeper = &api.keeper;
    let ((states, held), services) =
        keeper.read(|registry, _, _| (registry.counts(), registry.names().len()));
    text.family(
        "registry_instances",
        Gauge,
        "Registered instances by state.",
    );
    for (state, count) in InstanceState::ALL.iter().zip(states) {
        text.sample(&[("state", state.word())], count);
    }
    one(
        text,
        "registry_services",
        Gauge,
        "Services with instances.",
        services as u64,
    );
    one(
        text,
        "registry_held_instances",
        Gauge,
        "Instances that would leave the lookups, but too many of their service do at once.",
        held as u64,
    );
    let counts = &keeper.counts;
    let of = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed);
    text.family(
        "registry_registrations_total",
        Counter,
        "Registrations by result.",
    );
    text.sample(&[("result", "registered")], of(&counts.registrations));
    text.sample(&[("result", "refused")], of(&counts.refused));
    text.family(
        "registry_heartbeats_total",
        Counter,
        "Heartbeats by result.",
    );
    text.sample(&[("result", "kept")], of(&counts.heartbeats));
    text.sample(&[("result", "unknown")], of(&counts.heartbeats_unknown));
    one(
        text,
        "registry_deregistrations_total",
        Counter,
        "Instances that left by a request.",
        of(&counts.deregistrations),
    );
    text.family(
        "registry_removals_total",
        Counter,
        "Instances that were removed, by cause.",
    );
    for (cause, count) in REMOVALS.iter().zip(&counts.removals) {
        text.sample(&[("cause", cause.word())], of(count));
    }
    text.family("registry_probes_total", Counter, "Probes by outcome.");
    for (outcome, count) in OUTCOMES.iter().zip(&counts.probes) {
        text.sample(&[("outcome", outcome.word())], of(count));
    }
    one(
        text,
        "registry_lookups_total",
        Counter,
        "Lookups of a service.",
        of(&counts.lookups),
    );
    let (written, lost) = api.audit.counts();
    text.family(
        "audit_lines_total",
        Counter,
        "Lines of the audit log, and lines that are in no file.",
    );
    text.sample(&[("result", "written")], written);
    text.sample(&[("result", "lost")], lost);
}

fn leases(api: &Api, text: &mut Text) {
    use Kind::{Counter, Gauge};
    let (counts, (limits, keys, gateways)) = api.lending.figures();
    for (name, help, value) in [
        (
            "lease_limits",
            "Shared limits of which tokens are out.",
            limits,
        ),
        (
            "lease_keys",
            "Clients of shared limits that have a bucket of their own.",
            keys,
        ),
        ("lease_gateways", "Gateways that share limits.", gateways),
    ] {
        one(text, name, Gauge, help, value as u64);
    }
    let questions = "Questions of gateways, greetings included.";
    one(
        text,
        "lease_questions_total",
        Counter,
        questions,
        counts.questions,
    );
    text.family(
        "lease_tokens_total",
        Counter,
        "Tokens of shared limits, by what became of them.",
    );
    for (what, count) in [
        ("lent", counts.lent),
        ("returned", counts.returned),
        ("expired", counts.expired),
    ] {
        text.sample(&[("what", what)], count);
    }
    let arrivals =
        "Times that a gateway came that another lender had lent to, so that buckets began empty.";
    one(
        text,
        "lease_arrivals_total",
        Counter,
        arrivals,
        counts.arrivals,
    );
}

fn identity(api: &Api, text: &mut Text) {
    use Kind::{Counter, Gauge};
    let counts = &api.authority.counts;
    text.family(
        "identity_certificates_issued_total",
        Counter,
        "Certificates that were issued, by what was proven.",
    );
    for (proof, count) in PROOFS.iter().zip(&counts.issued) {
        text.sample(&[("proof", proof)], count.load(Relaxed));
    }
    one(
        text,
        "identity_requests_refused_total",
        Counter,
        "Requests for a certificate that were refused.",
        counts.refused.load(Relaxed),
    );
    let Some(standing) = api.authority.figures() else {
        return;
    };
    for (name, help, value) in [
        (
            "identity_members",
            "Services with a certificate that is good, as the one that leads counts them.",
            standing.members as u64,
        ),
        (
            "identity_certificates",
            "Certificates that are good.",
            standing.certificates as u64,
        ),
        (
            "identity_revoked",
            "Revoked certificates that have not ended.",
            standing.revoked as u64,
        ),
        (
            "identity_authority_seconds_left",
            "How long the certificate of the key that signs is good.",
            standing.seconds_left,
        ),
    ] {
        one(text, name, Gauge, help, value);
    }
}

fn fleet(api: &Api, text: &mut Text) {
    use Kind::{Counter, Gauge};
    let now = api.catalog.now();
    one(
        text,
        "catalog_revision",
        Gauge,
        "The revision of the catalog.",
        now.revision,
    );
    one(
        text,
        "catalog_blocks",
        Gauge,
        "Sections in it.",
        now.blocks.len() as u64,
    );
    one(
        text,
        "catalog_folder_refused",
        Gauge,
        "1 while the folder's documents are refused.",
        u64::from(api.catalog.not_taken().is_some()),
    );
    one(
        text,
        "catalog_store_refused",
        Gauge,
        "1 while the store's newest revision is refused by this version.",
        u64::from(api.catalog.store_refused().is_some()),
    );
    one(
        text,
        "feed_open",
        Gauge,
        "Open feeds.",
        api.feed.listeners() as u64,
    );
    let counts = &api.feed.counts;
    let of = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed);
    one(
        text,
        "feed_opened_total",
        Counter,
        "Feeds that were opened.",
        of(&counts.opened),
    );
    one(
        text,
        "feed_let_go_total",
        Counter,
        "Feeds that were ended because nobody took what was sent.",
        of(&counts.let_go),
    );
    one(
        text,
        "feed_full_batches_total",
        Counter,
        "Times that a node was told everything.",
        of(&counts.full),
    );
    one(
        text,
        "feed_sent_bytes_total",
        Counter,
        "What feeds were told.",
        of(&counts.bytes),
    );
    text.family(
        "feed_reports_total",
        Counter,
        "Reports of nodes by what became of a revision.",
    );
    text.sample(&[("result", "applied")], of(&counts.applied));
    text.sample(&[("result", "refused")], of(&counts.refused));
    let staging = api.catalog.staging();
    let stage = staging.map_or(0, |staging| staging.record.stage as u64 + 1);
    one(
        text,
        "rollout_stage",
        Gauge,
        "The stage of the rollout, counted from 1; 0 without one.",
        stage,
    );
    let counts = &api.rollouts.counts;
    text.family("rollouts_total", Counter, "Rollouts by how they ended.");
    text.sample(&[("result", "done")], of(&counts.done));
    text.sample(&[("result", "returned")], of(&counts.returned));
    text.sample(&[("result", "aborted")], of(&counts.aborted));
}

fn store(api: &Api, text: &mut Text) {
    use Kind::{Counter, Gauge};
    let figures = api.store.figures();
    one(
        text,
        "store_leads",
        Gauge,
        "1 where changes are made: of several control planes, at the one that leads.",
        u64::from(api.keeper.leads()),
    );
    one(
        text,
        "store_revision",
        Gauge,
        "The revision of the store.",
        figures.revision,
    );
    one(
        text,
        "store_keys",
        Gauge,
        "Keys in the store.",
        figures.keys,
    );
    one(
        text,
        "store_bytes",
        Gauge,
        "Size of the store's file.",
        figures.bytes,
    );
    text.family(
        "store_transactions_total",
        Counter,
        "Transactions by result.",
    );
    text.sample(&[("result", "written")], figures.transactions);
    text.sample(&[("result", "refused")], figures.refused);
    one(
        text,
        "store_syncs_total",
        Counter,
        "Writes that made transactions durable.",
        figures.syncs,
    );
    text.family("store_sync_seconds_total", Counter, "Time that these took.");
    text.sample(&[], figures.sync_time.as_secs_f64());
    one(
        text,
        "store_compactions_total",
        Counter,
        "Times that the store's file was written anew.",
        figures.compactions,
    );
}

fn requests(api: &Api, text: &mut Text) {
    one(
        text,
        "http_connections",
        Kind::Gauge,
        "Open connections.",
        api.connections.load(Relaxed),
    );
    let requests = api
        .requests
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    text.family(
        "http_requests_total",
        Kind::Counter,
        "Requests by page, method and status.",
    );
    for ((route, method, status), count) in &requests {
        let status = status.to_string();
        text.sample(
            &[("route", route), ("method", method), ("status", &status)],
            count,
        );
    }
}
