//! How far a revision is on its way to all nodes, and what operators do about it; and what nodes serve (RED figures).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_config::EndpointSource;
use tollgate_config::feed::Tally;

use super::Api;
use super::catalog::who;
use super::guard::{Changed, Who};
use super::problem::{Code, Problem};
use crate::audit::moment;
use crate::figures::Red;
use crate::rollout::{NotDone, Record};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    by: Option<String>,
    /// Through all stages at once.
    to_all: bool,
}

fn wish(body: &[u8]) -> Result<Wish, Problem> {
    if body.is_empty() {
        return Ok(Wish::default());
    }
    serde_json::from_slice(body).map_err(|error| {
        let why = error.to_string().replace(char::is_control, " ");
        Problem::new(Code::BadRequest, format!("the body cannot be used: {why}"))
    })
}

/// `GET /rollout`.
pub(super) async fn status(State(api): State<Arc<Api>>) -> Answer<Value> {
    let now = api.rollouts.status().await;
    let now = now.map(|(record, waits_for, suspicion, requests)| {
        let mut value = told(&record);
        value["waits_for"] = waits_for.into();
        value["suspicion"] = suspicion.into();
        value["requests"] = requests.into();
        value
    });
    let last = api.catalog.last_ended().map(|record| told(&record));
    Answer(json!({ "rollout": now, "last": last }))
}

/// `POST /rollout/pause`.
pub(super) async fn pause(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    body: Bytes,
) -> Result<Response, Problem> {
    let by = who(&caller, wish(&body)?.by);
    answer(api.rollouts.pause(&by).await)
}

/// `POST /rollout/resume`.
pub(super) async fn resume(State(api): State<Arc<Api>>, body: Bytes) -> Result<Response, Problem> {
    wish(&body)?;
    answer(api.rollouts.resume().await)
}

/// `POST /rollout/promote`.
pub(super) async fn promote(State(api): State<Arc<Api>>, body: Bytes) -> Result<Response, Problem> {
    let to_all = wish(&body)?.to_all;
    answer(api.rollouts.promote(to_all).await)
}

/// `POST /rollout/abort`.
pub(super) async fn abort(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    body: Bytes,
) -> Result<Response, Problem> {
    let by = who(&caller, wish(&body)?.by);
    answer(api.rollouts.abort(&by).await)
}

fn answer(done: Result<Record, NotDone>) -> Result<Response, Problem> {
    match done {
        Ok(record) => {
            let mut response = Answer(json!({ "rollout": told(&record) })).into_response();
            // For the audit log.
            response.extensions_mut().insert(Changed {
                target: format!("revision {}, {}", record.revision, record.words()),
                ..Changed::default()
            });
            Ok(response)
        }
        Err(NotDone::Nothing) => {
            let title = "nothing is being rolled out";
            Err(Problem::new(Code::NoRollout, title))
        }
        Err(NotDone::Refused(refused)) => Err(Problem::change(refused)),
    }
}

/// A rollout, as it is shown everywhere.
pub(super) fn told(record: &Record) -> Value {
    let settings = &record.plan.settings;
    let ended = record.ended.as_ref();
    json!({
        "revision": record.revision,
        "base": record.base,
        "state": match (ended, &record.paused) {
            (Some(ended), _) => ended.how.word(),
            (None, Some(_)) => "paused",
            (None, None) => "running",
        },
        "words": record.words(),
        "stage": record.stage + 1,
        "stages": settings.stages,
        "hold_seconds": settings.hold.as_secs_f64(),
        "nodes": record.chosen,
        "first": record.plan.first,
        "by": record.by,
        "began": moment(record.began),
        "paused": record.paused,
        "ended": ended.map(|ended| moment(ended.time)),
        "reason": ended.map(|ended| &ended.why),
        "returned_as": ended.and_then(|ended| ended.returned_as),
    })
}

/// Rate, errors, durations.
pub(super) fn red(red: &Red) -> Value {
    let tally = &red.tally;
    let share = |count: u64| count as f64 / tally.requests.max(1) as f64;
    let millis = |share: f64| {
        let bound = tally.quantile(share);
        bound.map(|bound| bound.as_secs_f64() * 1000.0)
    };
    json!({
        "requests_per_second": tally.requests as f64 / red.span.as_secs_f64(),
        "error_share": share(tally.errors),
        "timeout_share": share(tally.timeouts),
        "refused_share": share(tally.refused),
        // At most so much: the bounds of a histogram.
        "p50_ms": millis(0.5),
        "p95_ms": millis(0.95),
        "p99_ms": millis(0.99),
        "mean_ms": tally.mean().map(|mean| mean.as_secs_f64() * 1000.0),
        "span_seconds": red.span.as_secs_f64(),
    })
}

/// `GET /edges`: which service calls which, over the last half to whole minute and when last (MESH-504). What the callee
/// saw is told; where it says nothing, what the caller saw.
pub(super) async fn edges(State(api): State<Arc<Api>>) -> Answer<Value> {
    let now = api.feed.now();
    let edges: Vec<Value> = api.feed.figures(|book| {
        let told = book.edges(now).map(|edge| {
            let mut told = match &edge.red {
                Some(one) => red(one),
                None => json!({}),
            };
            told["source"] = edge.source.into();
            told["destination"] = edge.destination.into();
            told["seen_by"] = edge.by.word().into();
            told["last_seen_seconds"] = edge.silent.as_secs().into();
            told
        });
        told.collect()
    });
    Answer(json!({ "edges": edges }))
}

/// What each service is asked for by all nodes together, over the upstreams that name it.
pub(super) fn services(api: &Api) -> BTreeMap<String, Value> {
    let now = api.feed.now();
    let world = api.catalog.now();
    let named: BTreeMap<&str, &str> = { world.document.upstreams.iter() }
        .filter_map(|upstream| match &upstream.endpoints {
            EndpointSource::Service { name, .. } => Some((upstream.name.as_str(), name.as_str())),
            _ => None,
        })
        .collect();
    let mut sums: BTreeMap<String, Red> = BTreeMap::new();
    api.feed.figures(|book| {
        for (upstream, one) in book.upstreams(now) {
            if let Some(service) = named.get(upstream) {
                let sum = sums.entry((*service).to_owned()).or_default();
                sum.tally.add(&one.tally);
                sum.span = sum.span.max(one.span);
            }
        }
    });
    sums.iter()
        .map(|(name, sum)| (name.clone(), red(sum)))
        .collect()
}

/// `GET /figures`: what nodes, upstreams and services serve now, over the last half to whole minute.
pub(super) async fn figures(State(api): State<Arc<Api>>) -> Answer<Value> {
    let now = api.feed.now();
    let nodes = api.feed.everybody();
    let (nodes, upstreams, all) = api.feed.figures(|book| {
        let nodes: BTreeMap<String, Value> = { nodes.into_iter() }
            .filter_map(|node| Some((node.node.clone(), red(&book.node(&node.node, now)?))))
            .collect();
        let mut all = Red::default();
        let upstreams: BTreeMap<String, Value> = { book.upstreams(now) }
            .map(|(name, one)| {
                all.tally.add(&one.tally);
                all.span = all.span.max(one.span);
                (name.to_owned(), red(&one))
            })
            .collect();
        (nodes, upstreams, all)
    });
    let all = (all.tally != Tally::default()).then(|| red(&all));
    Answer(json!({
        "nodes": nodes,
        "upstreams": upstreams,
        "services": services(&api),
        "all_upstreams": all,
    }))
}
