//! What others are told of instances (REG-202, REG-203), and what operators are told of the registry (CP-301).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json as Answer;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::fields::short;
use super::problem::{Code, Field, Problem};
use crate::audit::{moment, object};
use crate::registry::{Detail, Metadata, Seen};

/// One instance in an answer. Borrows: a list may be long.
#[derive(Serialize)]
struct Item<'a> {
    id: &'a str,
    name: &'a str,
    address: &'a str,
    health: &'static str,
    health_endpoint: &'a str,
    last_seen: String,
    registered_at: String,
    state: &'static str,
    metadata: &'a Metadata,
}

fn item(seen: &Seen) -> Item<'_> {
    let record = &seen.record;
    Item {
        id: &record.id,
        name: &record.name,
        address: &record.address,
        health: record.health.word(),
        health_endpoint: &record.health_endpoint,
        last_seen: moment(seen.last_seen),
        registered_at: moment(record.registered_at),
        state: seen.state.word(),
        metadata: &record.metadata,
    }
}

/// What a lookup asks for: metadata that must be equal, and whether every state is wanted.
struct Filter {
    all: bool,
    metadata: Vec<(String, String)>,
}

impl Filter {
    fn of(query: Vec<(String, String)>) -> Result<Filter, Problem> {
        let mut filter = Filter {
            all: false,
            metadata: Vec::new(),
        };
        for (name, value) in query {
            if name != "all" {
                filter.metadata.push((name, value));
                continue;
            }
            filter.all = match value.as_str() {
                "true" | "" => true,
                "false" => false,
                _ => {
                    return Err(Problem::fields(vec![Field {
                        field: "all".to_owned(),
                        reason: format!("is `{}`", short(&value)),
                        hint: "send ?all=true, or leave it out".to_owned(),
                    }]));
                }
            };
        }
        Ok(filter)
    }

    fn fits(&self, seen: &Seen) -> bool {
        let mut wanted = self.metadata.iter();
        wanted.all(|(name, value)| seen.record.metadata.get(name) == Some(value))
    }
}

fn found(api: &Api, name: &str, filter: &Filter) -> Vec<Seen> {
    api.keeper.counts.lookups.fetch_add(1, Relaxed);
    let mut found = api.keeper.read(|registry, rules, now| match filter.all {
        true => registry.all(name),
        false => registry.lookup(rules, name, now),
    });
    found.retain(|seen| filter.fits(seen));
    found
}

/// `GET /services/{name}`, and `GET /{name}`.
pub(super) async fn service(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let found = found(&api, &name, &Filter::of(query)?);
    let items: Vec<Item<'_>> = found.iter().map(item).collect();
    Ok(Answer(items).into_response())
}

/// `GET /services`, and `GET /registry/services`. Each service is looked at by itself, so that others may use the
/// registry in between.
pub(super) async fn services(
    State(api): State<Arc<Api>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let filter = Filter::of(query)?;
    let names = api.keeper.read(|registry, _, _| registry.names());
    let all = names.iter().map(|name| (name, found(&api, name, &filter)));
    let all: Vec<(&Arc<str>, Vec<Seen>)> = all.collect();
    let items: BTreeMap<&str, Vec<Item<'_>>> = { all.iter() }
        .map(|(name, found)| (&***name, found.iter().map(item).collect()))
        .collect();
    Ok(Answer(items).into_response())
}

/// `GET /debug/registry/services`: all entries with their states.
pub(super) async fn debug_services(State(api): State<Arc<Api>>) -> Response {
    let names = api.keeper.read(|registry, _, _| registry.names());
    let serves = super::rollout::services(&api);
    let services = names.iter().map(|name| {
        let (version, all) = api.keeper.read(|registry, _, _| {
            let version = registry.service(name).map_or(0, |(version, _)| version);
            (version, registry.all(name))
        });
        let instances: Vec<Item<'_>> = all.iter().map(item).collect();
        json!({ "name": name, "version": version, "instances": instances, "serves": serves.get(&**name) })
    });
    Answer(json!({ "services": services.collect::<Vec<Value>>() })).into_response()
}

/// `GET /debug/registry/health`: what is known of each instance, and why it is in lookups or not.
pub(super) async fn debug_health(State(api): State<Arc<Api>>) -> Response {
    let names = api.keeper.read(|registry, _, _| registry.names());
    let services = names.iter().map(|name| {
        let keeper = &api.keeper;
        let details = keeper.read(|registry, rules, now| registry.details(rules, name, now));
        let held = details.iter().filter(|detail| detail.held).count();
        let shown = details.iter().filter(|detail| detail.shown).count();
        json!({
            "name": name,
            "instances": details.iter().map(detail).collect::<Vec<Value>>(),
            "in_lookups": shown,
            "held": held,
        })
    });
    Answer(json!({ "services": services.collect::<Vec<Value>>() })).into_response()
}

fn detail(detail: &Detail) -> Value {
    let record = &detail.seen.record;
    json!({
        "id": record.id,
        "address": record.address,
        "health": record.health.word(),
        "state": detail.seen.state.word(),
        "cause": detail.cause,
        "in_lookups": detail.shown,
        "held": detail.held,
        "last_seen": moment(detail.seen.last_seen),
        "silent_ms": detail.age.as_millis() as u64,
        "in_state_ms": detail.since.as_millis() as u64,
        "last_probe": detail.last_probe,
        "failed_probes": detail.failed_probes,
        "observers": { "failing": detail.observers.0, "all": detail.observers.1 },
    })
}

/// `GET /debug/registry/audit`: the latest lines of the audit log, the newest first.
pub(super) async fn debug_audit(
    State(api): State<Arc<Api>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response, Problem> {
    let most = match query.get("limit").map(|text| text.parse::<usize>()) {
        None => 100,
        Some(Ok(most)) => most,
        Some(Err(_)) => {
            return Err(Problem::fields(vec![Field {
                field: "limit".to_owned(),
                reason: "is not a whole number".to_owned(),
                hint: "send ?limit=100".to_owned(),
            }]));
        }
    };
    let is = |name: &str, value: &str| query.get(name).is_none_or(|wanted| wanted == value);
    let latest = api.audit.latest(most, |event| {
        is("service", &event.service) && is("id", &event.id)
    });
    let lines: Vec<Value> = latest.iter().map(object).collect();
    Ok(Answer(json!({ "events": lines })).into_response())
}

/// For every path that is none of ours.
pub(super) async fn nothing() -> Problem {
    Problem::new(
        Code::NotFound,
        "no such page; GET /services lists what is registered, docs/control-plane.md all pages",
    )
}

pub(super) async fn other_method() -> Problem {
    Problem::new(
        Code::MethodNotAllowed,
        "this page does not take this method",
    )
}
