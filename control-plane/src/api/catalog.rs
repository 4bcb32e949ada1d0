//! Changes of the fleet's documents, and what became of former ones (CP-103, CP-105, CP-203). What references stand for
//! is never shown: it may be secret.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::Json as Answer;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_config::control_plane::{Rollout, Stage, duration};
use tollgate_config::feed::{Block, Trouble};
use tollgate_engine::telemetry::log;

use super::Api;
use super::fields::short;
use super::guard::{Changed, Who};
use super::precondition::{expected, tagged};
use super::problem::{Code, Field, Problem};
use crate::access::Caller;
use crate::audit::moment;
use crate::catalog::history::{Change, Origin, Revision};
use crate::catalog::{Applied, Request, Wish};
use crate::rollout::Plan;
use crate::view::{difference, touched, view};

/// Ids of one revision in a list of revisions.
const MOST_IDS: usize = 20;
const MOST_WORDS: usize = 1000;
/// Nodes that a caller may want to go first.
const MOST_FIRST: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplyBody {
    /// By name; `null` takes one out.
    documents: BTreeMap<String, Option<String>>,
    #[serde(default)]
    if_revision: Option<u64>,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    note: Option<String>,
    /// To how many nodes first; otherwise as `[rollout]` says.
    #[serde(default)]
    stages: Option<String>,
    #[serde(default)]
    hold: Option<String>,
    #[serde(default)]
    first: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    to: u64,
    #[serde(default)]
    if_revision: Option<u64>,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    note: Option<String>,
}

fn read<'b, T: Deserialize<'b>>(body: &'b [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let why = error.to_string().replace(char::is_control, " ");
        Problem::new(Code::BadRequest, format!("the body cannot be used: {why}"))
    })
}

/// Who it was: whose token it is, and, where several use one, who they say that they are.
pub(super) fn who(caller: &Caller, says: Option<String>) -> String {
    match &caller.name {
        None => words(says, &caller.address),
        Some(name) => match words(says, name) {
            says if says == **name => says,
            says => format!("{name} ({says})"),
        },
    }
}

fn words(text: Option<String>, otherwise: &str) -> String {
    let text = text.filter(|text| !text.is_empty());
    let text = text.unwrap_or_else(|| otherwise.to_owned());
    let text = text.replace(char::is_control, " ");
    text.chars().take(MOST_WORDS).collect()
}

/// How it is rolled out, where the caller says so.
fn staged(body: &ApplyBody, settings: &Rollout) -> Result<Option<Plan>, Problem> {
    if body.stages.is_none() && body.hold.is_none() && body.first.is_empty() {
        return Ok(None);
    }
    let wrong = |field: &str| {
        let field = field.to_owned();
        move |fault: tollgate_config::Fault| {
            let (reason, hint) = (fault.message, fault.hint);
            Problem::fields(vec![Field {
                field,
                reason,
                hint,
            }])
        }
    };
    let mut settings = settings.clone();
    if let Some(stages) = &body.stages {
        settings.stages = Stage::list(stages).map_err(wrong("stages"))?;
    }
    if let Some(hold) = &body.hold {
        settings.hold = duration(hold).map_err(wrong("hold"))?;
    }
    let first = body.first.clone();
    if first.len() > MOST_FIRST {
        let title = format!("`first` names more than {MOST_FIRST} nodes");
        return Err(Problem::new(Code::BadRequest, title));
    }
    Ok(Some(Plan { settings, first }))
}

fn request(
    api: &Api,
    body: &[u8],
    headers: &HeaderMap,
    caller: &Caller,
) -> Result<Request, Problem> {
    let body: ApplyBody = read(body)?;
    if body.documents.is_empty() {
        let title = "`documents` is empty; send `{\"documents\": {\"shop.toml\": \"…\"}}`";
        return Err(Problem::new(Code::BadRequest, title));
    }
    let plan = staged(&body, api.catalog.rollout())?;
    Ok(Request {
        wish: Wish::Documents(body.documents),
        origin: Origin::Api,
        if_revision: expected(headers, body.if_revision)?,
        by: who(caller, body.by),
        note: words(body.note, ""),
        files: BTreeMap::new(),
        plan,
        ends: None,
    })
}

/// `POST /apply`.
pub(super) async fn apply(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match request(&api, &body, &headers, &caller) {
        Ok(request) => made(&api, request, &caller).await,
        Err(problem) => problem.into_response(),
    }
}

/// `POST /rollback`.
pub(super) async fn rollback(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match return_to(&body, &headers, &caller) {
        Ok(request) => made(&api, request, &caller).await,
        Err(problem) => problem.into_response(),
    }
}

fn return_to(body: &[u8], headers: &HeaderMap, caller: &Caller) -> Result<Request, Problem> {
    let body: RollbackBody = read(body)?;
    Ok(Request {
        wish: Wish::Rollback(body.to),
        origin: Origin::Rollback,
        if_revision: expected(headers, body.if_revision)?,
        by: who(caller, body.by),
        note: words(body.note, &format!("back to revision {}", body.to)),
        files: BTreeMap::new(),
        plan: None,
        ends: None,
    })
}

/// Makes a change, and tells the audit log what it was about, whatever becomes of it.
async fn made(api: &Api, request: Request, caller: &Caller) -> Response {
    let about = Changed {
        target: target(&request.wish),
        before: Some(api.catalog.now().revision),
        after: None,
        note: request.note.clone(),
    };
    let by = request.by.clone();
    let applied = match api.catalog.apply(request).await {
        Ok(applied) => applied,
        Err(refused) => {
            let mut response = Problem::change(refused).into_response();
            response.extensions_mut().insert(about);
            return response;
        }
    };
    let changed = !applied.changes.is_empty();
    if changed {
        log::info(
            "the catalog was changed",
            &[
                ("revision", &applied.revision),
                ("changes", &applied.changes.len()),
                ("by", &by),
                ("from", &caller.address),
            ],
        );
    }
    let mut response = tagged(
        applied.revision,
        json!({
            "revision": applied.revision,
            "changed": changed,
            "changes": ids(&applied.changes),
            "rollout": rollout_of(api, applied.revision),
        }),
    );
    response.extensions_mut().insert(Changed {
        // Others may have been faster than this one, and slower than the look before it.
        before: Some(applied.revision - u64::from(changed)),
        after: Some(applied.revision),
        ..about
    });
    response
}

/// What a change is about, bounded.
fn target(wish: &Wish) -> String {
    match wish {
        Wish::Rollback(to) => format!("to revision {to}"),
        Wish::Documents(documents) => {
            let names: Vec<String> = { documents.iter().take(MOST_IDS) }
                .map(|(name, text)| match text {
                    Some(_) => short(name),
                    None => format!("without {}", short(name)),
                })
                .collect();
            let more = documents.len().saturating_sub(names.len());
            match more {
                0 => names.join(", "),
                more => format!("{}, and {more} more", names.join(", ")),
            }
        }
    }
}

/// `POST /plan`: what `apply` would do.
pub(super) async fn plan(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer<Value>, Problem> {
    let planned = api
        .catalog
        .plan(request(&api, &body, &headers, &caller)?)
        .await;
    let planned = planned.map_err(Problem::change)?;
    let nodes = nodes(&api, &planned);
    let world = &planned.world;
    let changed: HashSet<&str> = planned.changes.iter().map(|one| &*one.id).collect();
    let mut routes = touched(&world.document, &changed, world);
    let now = api.catalog.now();
    routes.extend(touched(&now.document, &changed, &now));
    Ok(Answer(json!({
        "revision": api.catalog.now().revision,
        "changed": !planned.changes.is_empty(),
        "changes": texts(&planned.changes),
        "routes": routes,
        "nodes": nodes,
    })))
}

/// What each known node would be told.
fn nodes(api: &Api, planned: &Applied) -> Vec<Value> {
    let now = api.catalog.now();
    let mut views = BTreeMap::new();
    let mut told = Vec::new();
    for node in api.feed.all_nodes() {
        let wishes = node.wishes();
        let (puts, removes) = *views.entry(wishes).or_insert_with_key(|wishes| {
            let change = difference(&view(&now, wishes), &view(&planned.world, wishes));
            (change.puts.len(), change.removes.len())
        });
        if puts + removes > 0 {
            told.push(json!({
                "node": node.node,
                "connected": node.connected,
                "puts": puts,
                "removes": removes,
            }));
        }
    }
    told
}

/// `GET /revisions`: newest first.
pub(super) async fn revisions(State(api): State<Arc<Api>>) -> Response {
    let history = api.catalog.history();
    let revisions: Vec<Value> = { history.all() }
        .map(|one| {
            let mut value = about(one);
            value["changes"] = ids(&one.changes[..one.changes.len().min(MOST_IDS)]);
            value["rollout"] = rollout_of(&api, one.number);
            value
        })
        .collect();
    let now = api.catalog.now();
    let refused = api.catalog.not_taken().map(|one| {
        let problems: Vec<Trouble> = one.problems.0.iter().map(Trouble::from).collect();
        json!({ "since": moment(one.time), "problems": problems })
    });
    tagged(
        now.revision,
        json!({
            "revision": now.revision,
            "epoch": api.catalog.epoch(),
            "blocks": now.blocks.len(),
            "oldest": history.oldest(),
            "revisions": revisions,
            "folder_refused": refused,
        }),
    )
}

/// How far a revision is, or how it ended, when it did not go to all at once.
fn rollout_of(api: &Api, revision: u64) -> Value {
    let staging = api.catalog.staging();
    let now = staging.filter(|staging| staging.record.revision == revision);
    match (now, api.catalog.ended(revision)) {
        (Some(staging), _) => super::rollout::told(&staging.record),
        (None, Some(record)) => super::rollout::told(&record),
        (None, None) => Value::Null,
    }
}

fn about(revision: &Revision) -> Value {
    json!({
        "revision": revision.number,
        "time": moment(revision.time),
        "by": revision.by,
        "note": revision.note,
        "origin": revision.origin,
        "changed": revision.changes.len(),
    })
}

/// `GET /revisions/{number}`: with texts.
pub(super) async fn revision(
    State(api): State<Arc<Api>>,
    Path(number): Path<String>,
) -> Result<Answer<Value>, Problem> {
    let number = number_of(&number)?;
    let history = api.catalog.history();
    let found = history
        .get(number)
        .ok_or_else(|| unknown(history.oldest()))?;
    let mut value = about(found);
    value["changes"] = texts(&found.changes);
    value["rollout"] = rollout_of(&api, number);
    Ok(Answer(value))
}

#[derive(Deserialize)]
pub(super) struct Between {
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
}

/// `GET /diff?from=&to=`: without `to` up to now, without `from` from the one before it.
pub(super) async fn diff(
    State(api): State<Arc<Api>>,
    Query(between): Query<Between>,
) -> Result<Answer<Value>, Problem> {
    let history = api.catalog.history();
    let to = match between.to.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => number_of(text)?,
        None => history.newest(),
    };
    let from = match between.from.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => number_of(text)?,
        None => to.saturating_sub(1),
    };
    let changes = history.difference(from, to);
    let changes = changes.ok_or_else(|| unknown(history.oldest()))?;
    Ok(Answer(
        json!({ "from": from, "to": to, "changes": texts(&changes) }),
    ))
}

fn number_of(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| {
        let title = format!("`{}` is not the number of a revision", short(text));
        Problem::new(Code::BadRequest, title)
    })
}

fn unknown(oldest: u64) -> Problem {
    let title = format!("that revision is not kept; the oldest that is known is {oldest}");
    Problem::new(Code::UnknownRevision, title)
}

fn ids(changes: &[Change]) -> Value {
    let changes = changes.iter();
    changes
        .map(|one| json!({ "id": one.id, "what": one.what() }))
        .collect()
}

fn texts(changes: &[Change]) -> Value {
    let block = |block: &Option<Arc<Block>>| {
        block.as_ref().map(|block| {
            let uses: Vec<&str> = block
                .uses
                .iter()
                .map(|one| one.reference.as_str())
                .collect();
            json!({ "file": block.file, "line": block.line, "text": block.text, "uses": uses })
        })
    };
    let changes = changes.iter();
    let text = |one: &Change| {
        json!({
            "id": one.id,
            "what": one.what(),
            "before": block(&one.before),
            "after": block(&one.after),
        })
    };
    changes.map(text).collect()
}
