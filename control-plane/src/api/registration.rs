//! Register, beat, deregister (REG-201): what came over the wire becomes a record, or a list of fields that are wrong.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json as Answer;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::uri::PathAndQuery;
use serde_json::json;
use tollgate_config::control_plane::Role;

use super::Api;
use super::fields::{Fields, short};
use super::guard::{By, Changed, Who, not_yours};
use super::problem::{Code, Problem};
use crate::access::Caller;
use crate::registry::{Beat, Health, MOST_METADATA, Metadata, News, Record};

const MOST_NAME: usize = 63;
const MOST_ID: usize = 200;
const MOST_ADDRESS: usize = 260;
const MOST_PATH: usize = 1000;
const MOST_KEY: usize = 64;
const MOST_VALUE: usize = 1024;

/// Where an instance is asked whether it is ready, unless it says otherwise (REG-101).
const HEALTH_ENDPOINT: &str = "/health/ready";

/// `POST /register`.
pub(super) async fn register(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    body: Bytes,
) -> Result<Response, Problem> {
    let record = record(Fields::read(&body)?, api.local, api.keeper.now().time)?;
    if !caller.speaks_for(&record.name) {
        return Err(not_yours(&caller, "service", &record.name));
    }
    let asked = record.id.clone();
    let registered = api.keeper.register(record, caller.words()).await;
    let id = registered.map_err(|refused| Problem::refused(refused, &asked))?;
    let rules = api.keeper.rules();
    let answer = json!({
        "status": "registered",
        "id": id,
        "lease_seconds": rules.lifecycle.service_timeout.as_secs(),
        "heartbeat_seconds": rules.lifecycle.heartbeat.as_secs(),
    });
    Ok((StatusCode::CREATED, Answer(answer)).into_response())
}

/// `PUT /heartbeat/{id}`; a body is welcome, but not needed.
pub(super) async fn heartbeat_of(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = match body.is_empty() {
        true => Fields::read(b"{}")?,
        false => Fields::read(&body)?,
    };
    if fields.text(&["id"]).is_some_and(|other| other != id) {
        fields.wrong("id", "is not the one in the path", "leave it out");
    }
    beat(&api, &caller, &id, fields)
}

/// `POST /heartbeat`.
pub(super) async fn heartbeat(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::read(&body)?;
    let id = fields.text(&["id"]);
    if id.is_none() {
        fields.wrong(
            "id",
            "is missing",
            "send the id that the registration was answered with",
        );
    }
    beat(&api, &caller, &id.unwrap_or_default(), fields)
}

fn beat(api: &Api, caller: &Caller, id: &str, mut fields: Fields) -> Result<Response, Problem> {
    let name = fields.text(&["name"]);
    let health = health(&mut fields).0;
    let metadata = metadata(&mut fields);
    fields.finish()?;
    own(api, caller, id)?;
    let news = News {
        service: name.as_deref(),
        health,
        metadata,
    };
    match api.keeper.beat(id, news) {
        Beat::Kept | Beat::Changed(_) => {
            let rules = api.keeper.rules();
            let lease = rules.lifecycle.service_timeout.as_secs();
            Ok(Answer(json!({ "status": "ok", "lease_seconds": lease })).into_response())
        }
        Beat::Unknown => Err(Problem::unknown(&short(id))),
        Beat::OtherService(service) => Err(Problem::other_service(&short(id), &service)),
        Beat::TooMuchMetadata => {
            let mut fields = Fields::read(b"{}")?;
            let reason =
                format!("would have more than {MOST_METADATA} names, with those that it has");
            fields.wrong(
                "metadata",
                reason,
                "register again with those that are needed",
            );
            fields.finish()?;
            Err(Problem::unknown(&short(id)))
        }
    }
}

/// Whether the caller may speak for the service of an instance; who is not registered is nobody's.
fn own(api: &Api, caller: &Caller, id: &str) -> Result<(), Problem> {
    if matches!(caller.role, Role::Operate | Role::Administer) {
        return Ok(());
    }
    let record = api.keeper.read(|registry, _, _| registry.record(id));
    match record {
        Some(record) if !caller.speaks_for(&record.name) => {
            Err(not_yours(caller, "service", &record.name))
        }
        _ => Ok(()),
    }
}

/// `DELETE /services/{id}`.
pub(super) async fn deregister_of(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    gone(&api, &id, None, &caller).await
}

/// `DELETE /deregister`.
pub(super) async fn deregister(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut fields = Fields::read(&body)?;
    let name = fields.text(&["name"]);
    let id = fields.text(&["id"]);
    if id.is_none() {
        fields.wrong(
            "id",
            "is missing",
            "send the id that the registration was answered with",
        );
    }
    fields.finish()?;
    gone(&api, &id.unwrap_or_default(), name.as_deref(), &caller).await
}

async fn gone(
    api: &Api,
    id: &str,
    name: Option<&str>,
    caller: &Caller,
) -> Result<Response, Problem> {
    own(api, caller, id)?;
    let there = api.keeper.read(|registry, _, _| registry.record(id));
    if let (Some(record), Some(name)) = (&there, name)
        && *record.name != *name
    {
        return Err(Problem::other_service(&short(id), &record.name));
    }
    let was = match there {
        Some(_) => { api.keeper.deregister(id, caller.words()).await }
            .map_err(|refused| Problem::refused(refused, id))?,
        None => false,
    };
    let status = if was { "deregistered" } else { "gone already" };
    Ok(Answer(json!({ "status": status, "id": id })).into_response())
}

/// A record with every field as it must be.
fn record(mut fields: Fields, local: bool, now: u64) -> Result<Record, Problem> {
    let id = fields.text(&["id"]).unwrap_or_default();
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._:-".contains(letter);
    if id.len() > MOST_ID || !id.chars().all(allowed) {
        fields.wrong(
            "id",
            format!("is not 1 to {MOST_ID} letters, digits, `.`, `_`, `:` and `-`"),
            "leave it out, and use the one in the answer",
        );
    }
    let name = name(&mut fields);
    let address = address(&mut fields, local);
    let (health, mut endpoint) = health(&mut fields);
    if let Some(given) = fields.text(&["health_endpoint"]) {
        endpoint = Some(given);
    }
    let endpoint = endpoint.unwrap_or_else(|| HEALTH_ENDPOINT.to_owned());
    let good = endpoint.starts_with('/')
        && endpoint.len() <= MOST_PATH
        && endpoint.parse::<PathAndQuery>().is_ok();
    if !good {
        fields.wrong(
            "health_endpoint",
            "is not a path",
            format!("send \"{HEALTH_ENDPOINT}\""),
        );
    }
    // Set by us; an old name of it is no mistake either (REG-103).
    fields.take(&["last_seen", "lastSeen"]);
    let metadata = metadata(&mut fields).unwrap_or_default();
    fields.finish()?;
    Ok(Record {
        id: id.into(),
        name: name.into(),
        address: address.into(),
        health: health.unwrap_or(Health::Healthy),
        health_endpoint: endpoint,
        metadata,
        registered_at: now,
    })
}

fn name(fields: &mut Fields) -> String {
    let hint = "send the name of the service, such as \"orders\"";
    let before = fields.count();
    let Some(name) = fields.text(&["name"]) else {
        if fields.count() == before {
            fields.wrong("name", "is missing", hint);
        }
        return String::new();
    };
    let mut letters = name.chars();
    let first = letters.next();
    let good = name.len() <= MOST_NAME
        && first.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
        && letters.all(|l| l.is_ascii_lowercase() || l.is_ascii_digit() || "._-".contains(l));
    if !good {
        fields.wrong(
            "name",
            format!("is not 1 to {MOST_NAME} lower-case letters, digits, `.`, `_` and `-`"),
            hint,
        );
    }
    name
}

fn address(fields: &mut Fields, local: bool) -> String {
    let hint = "send a host and a port: \"10.0.0.7:7000\"";
    let before = fields.count();
    let Some(address) = fields.text(&["address"]) else {
        if fields.count() == before {
            fields.wrong("address", "is missing", hint);
        }
        return String::new();
    };
    if let Err(fault) = tollgate_config::endpoint(&address) {
        fields.wrong("address", fault.message, fault.hint);
    } else if address.len() > MOST_ADDRESS || address.ends_with(":0") {
        fields.wrong("address", "is no address that others can connect to", hint);
    } else if let Some(why) = unroutable(&address, local) {
        fields.wrong("address", why, "send an address that others can connect to");
    }
    address
}

/// Why nobody else can connect to an address; loopback is fine where the registry itself is local (REG-101).
fn unroutable(address: &str, local: bool) -> Option<&'static str> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip: Option<IpAddr> = host.parse().ok();
    if ip.is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
        return Some("is no address of a single machine");
    }
    let loopback = match ip {
        Some(ip) => ip.to_canonical().is_loopback(),
        None => host.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
    };
    (loopback && !local)
        .then_some("is a loopback address, which means another machine to everybody else")
}

/// `health`, and the path that may stand there instead (REG-103).
fn health(fields: &mut Fields) -> (Option<Health>, Option<String>) {
    let Some(text) = fields.text(&["health"]) else {
        return (None, None);
    };
    if text.starts_with('/') {
        return (Some(Health::Healthy), Some(text));
    }
    let health = Health::of(&text);
    if health.is_none() {
        fields.wrong(
            "health",
            format!(
                "is not healthy, degraded, unhealthy or unknown but `{}`",
                short(&text)
            ),
            "send one of these words, or the path of a health endpoint",
        );
    }
    (health, None)
}

fn metadata(fields: &mut Fields) -> Option<Metadata> {
    let texts = fields.texts("metadata")?;
    for (key, value) in &texts {
        let bad = |text: &str, most: usize| text.len() > most || text.chars().any(char::is_control);
        if key.is_empty() || bad(key, MOST_KEY) || bad(value, MOST_VALUE) {
            fields.wrong(
                &format!("metadata.{key}"),
                format!("is longer than {MOST_KEY} (the name) or {MOST_VALUE} (the value) bytes, empty, or holds control characters"),
                "send short plain text",
            );
        }
    }
    Some(texts.into_iter().collect())
}

/// `POST /services/{name}/confirm`: an operator says that the held instances are gone.
pub(super) async fn confirm(
    State(api): State<Arc<Api>>,
    By(by): By,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    if api
        .keeper
        .read(|registry, _, _| registry.service(&name).is_none())
    {
        let title = format!("no service `{}` is registered", short(&name));
        return Err(Problem::new(Code::NotFound, title));
    }
    let confirmed = api.keeper.confirm(&name, &by);
    let answer = Answer(json!({ "status": "confirmed", "instances": confirmed }));
    let mut response = answer.into_response();
    response.extensions_mut().insert(Changed {
        target: format!("service `{name}`, {confirmed} instances"),
        ..Changed::default()
    });
    Ok(response)
}
