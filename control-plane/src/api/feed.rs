//! Who listens, and what listeners say of themselves (CP-102).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use axum::Json as Answer;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_config::feed::{NodeKind, Report, Routed, Subscribe, Wanted, Wants, WantsAnswer};
use tollgate_engine::clock::unix_seconds;

use super::fields::short;
use super::guard::{Who, not_yours};
use super::problem::{Code, Field, Problem};
use super::{Api, elsewhere, rollout};
use crate::access::Caller;
use crate::feed::{HangUp, Lines, Node, NotOpened};

/// Names of a request.
const MOST_NAMES: usize = 10_000;
const MOST_NAME: usize = 200;

/// `POST /feed`.
pub(super) async fn subscribe(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    Extension(hang_up): Extension<HangUp>,
    body: Bytes,
) -> Result<Response, Problem> {
    let subscribe: Subscribe = serde_json::from_slice(&body).map_err(|error| {
        let title = format!("the body is not what a node asks for: {error}");
        Problem::new(Code::BadRequest, title)
    })?;
    open(&api, &subscribe, &caller, hang_up)
}

#[derive(Deserialize)]
pub(super) struct Look {
    #[serde(default)]
    node: Option<String>,
    #[serde(default)]
    listeners: Option<String>,
    #[serde(default)]
    callee: Option<String>,
}

/// `GET /feed?node=…`, for people.
pub(super) async fn look(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    Extension(hang_up): Extension<HangUp>,
    Query(look): Query<Look>,
) -> Result<Response, Problem> {
    let names = look.listeners.unwrap_or_default();
    let names = names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let subscribe = Subscribe {
        node: look
            .node
            .unwrap_or_else(|| format!("reader-{}", caller.address)),
        kind: NodeKind::Gateway,
        instance: String::new(),
        version: String::new(),
        have: None,
        services: Wanted::Routed(Routed::Routed),
        also: Vec::new(),
        listeners: names.map(str::to_owned).collect(),
        stands_for: None,
        trust: false,
        callee: look.callee,
        answers: false,
    };
    open(&api, &subscribe, &caller, hang_up)
}

fn name(field: &str, name: &str, wrong: &mut Vec<Field>) {
    let fits = !name.is_empty() && name.len() <= MOST_NAME && !name.contains(char::is_control);
    if !fits {
        wrong.push(Field {
            field: field.to_owned(),
            reason: format!("cannot be `{}`", short(name).replace(char::is_control, " ")),
            hint: format!("write 1 to {MOST_NAME} bytes without control characters"),
        });
    }
}

fn names(field: &str, names: &[String], wrong: &mut Vec<Field>) {
    match names.len() <= MOST_NAMES {
        true => names.iter().for_each(|one| name(field, one, wrong)),
        false => wrong.push(Field {
            field: field.to_owned(),
            reason: format!("has {} names", names.len()),
            hint: format!("send at most {MOST_NAMES}"),
        }),
    }
}

fn fine(mut wrong: Vec<Field>) -> Result<(), Problem> {
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.truncate(20);
    Err(Problem::fields(wrong))
}

fn open(
    api: &Api,
    subscribe: &Subscribe,
    caller: &Caller,
    hang_up: HangUp,
) -> Result<Response, Problem> {
    let mut wrong = Vec::new();
    let mut name = |field: &str, text: &str, may_be_empty: bool| {
        if !(may_be_empty && text.is_empty()) {
            name(field, text, &mut wrong);
        }
    };
    name("node", &subscribe.node, false);
    name("instance", &subscribe.instance, true);
    name("version", &subscribe.version, true);
    name(
        "callee",
        subscribe.callee.as_deref().unwrap_or_default(),
        true,
    );
    let named: &[String] = match &subscribe.services {
        Wanted::Routed(_) => &[],
        Wanted::Names(names) => names,
    };
    if let Some(service) = &subscribe.stands_for {
        name("stands_for", service, false);
    }
    names("services", named, &mut wrong);
    names("also", &subscribe.also, &mut wrong);
    names("listeners", &subscribe.listeners, &mut wrong);
    fine(wrong)?;
    if !caller.is_node(&subscribe.node) {
        return Err(not_yours(caller, "node", &short(&subscribe.node)));
    }
    let lines = api
        .feed
        .open(subscribe, &caller.address, hang_up)
        .map_err(|why| {
            let title = match why {
                NotOpened::TooMany(most) => {
                    format!("`feed.max_feeds` is {most}, and so many listen")
                }
                NotOpened::Stopping => "the control plane is stopping".to_owned(),
            };
            Problem::new(Code::TooManyFeeds, title)
        })?;
    let lines = Watched {
        lines,
        revoked: Box::pin(api.access.clone().revoked(caller.clone())),
    };
    let mut response = Response::new(Body::new(lines));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/x-ndjson");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `POST /nodes/{node}/wants`: other services than when it subscribed.
pub(super) async fn wants(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    Path(node): Path<String>,
    body: Bytes,
) -> Result<Answer<WantsAnswer>, Problem> {
    if !caller.is_node(&node) {
        return Err(not_yours(&caller, "node", &short(&node)));
    }
    let wants: Wants = serde_json::from_slice(&body).map_err(|error| {
        let title = format!("the body is not what a node wants: {error}");
        Problem::new(Code::BadRequest, title)
    })?;
    let mut wrong = Vec::new();
    names("also", &wants.also, &mut wrong);
    fine(wrong)?;
    let answer = api.feed.wants(&node, &wants);
    answer.map(Answer).ok_or_else(|| {
        let title = format!("this process of node `{}` does not listen", short(&node));
        Problem::new(Code::UnknownNode, title)
    })
}

/// `POST /nodes/{node}/report`.
pub(super) async fn report(
    State(api): State<Arc<Api>>,
    Who(caller): Who,
    Path(node): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    if !caller.is_node(&node) {
        return Err(not_yours(&caller, "node", &short(&node)));
    }
    let report: Report = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(
            Code::BadRequest,
            format!("the body is not a report: {error}"),
        )
    })?;
    if let Report::Figures { figures } = &report {
        figures.check().map_err(|why| {
            let why = why.replace(char::is_control, " ");
            Problem::new(
                Code::BadRequest,
                format!("the figures cannot be right: {why}"),
            )
        })?;
    }
    match api.feed.report(&node, report) {
        true => Ok((StatusCode::OK, Answer(json!({ "status": "ok" }))).into_response()),
        false => Err(Problem::new(
            Code::UnknownNode,
            format!(
                "no node `{}` listens; it reports once it does",
                short(&node)
            ),
        )),
    }
}

/// The latest that was issued to the service that a node is of, in seconds since 1970.
fn certificate(until: u64) -> Value {
    let now = unix_seconds(SystemTime::now());
    json!({ "not_after": until, "seconds_left": until.saturating_sub(now) })
}

#[derive(Deserialize)]
pub(super) struct Whose {
    /// Those that listen here alone.
    #[serde(default)]
    own: bool,
}

/// `GET /nodes`: of all control planes that share the store.
pub(super) async fn nodes(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Query(whose): Query<Whose>,
) -> Answer<Value> {
    let revision = api.catalog.now().revision;
    let now = api.feed.now();
    let lasts = api.authority.lasts().await;
    let told = |node: Node| {
        let mut value = json!(&node);
        let until = node.callee.as_ref().and_then(|name| lasts.get(name));
        value["certificate"] = until.map_or(Value::Null, |until| certificate(*until));
        value["target"] = api.catalog.world_of(&node.node, false).revision.into();
        let red = api.feed.figures(|book| book.node(&node.node, now));
        value["serves"] = red.map_or(Value::Null, |red| rollout::red(&red));
        value
    };
    let nodes: Vec<Value> = api.feed.all_nodes().into_iter().map(told).collect();
    if whose.own || api.store.cluster().is_none() {
        return Answer(json!({ "revision": revision, "nodes": nodes }));
    }
    let others = elsewhere::others_nodes(&api, &headers).await;
    let mut all: BTreeMap<String, Value> = BTreeMap::new();
    for node in nodes.into_iter().chain(others) {
        // Where it listens now, or listened last.
        let rank = |node: &Value| (node["connected"].as_bool(), node["since"].as_u64());
        let name = node["node"].as_str().unwrap_or_default().to_owned();
        if all.get(&name).is_none_or(|known| rank(known) < rank(&node)) {
            all.insert(name, node);
        }
    }
    let nodes: Vec<Value> = all.into_values().collect();
    Answer(json!({ "revision": revision, "nodes": nodes }))
}

/// A feed that ends when its token is taken out: a token is looked at once, and a feed lives for long.
struct Watched {
    lines: Lines,
    revoked: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.revoked.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.lines).poll_frame(cx)
    }
}
