//! What another control plane has to do, or knows: a change that arrives at a follower is handed to whoever leads, as it
//! came, and the answer is handed back; small signs go together, once a second; lists of who listens are put together.
//! Decides nothing about instances and documents; what it speaks through is `peers`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ALLOW, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt as _, Full};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tollgate_engine::telemetry::log::Repeated;

use super::peers::{Failed, GLANCE};
use super::problem::{Code, Problem};
use super::{Api, Peer};
use crate::access::Caller;
use crate::feed::Listeners;
use crate::keeper::Signs;
use crate::store::{Compare, Role, Transaction};

/// The control plane that handed a request on; it is not handed on again.
const HANDED_ON: HeaderName = HeaderName::from_static("x-tollgate-control-plane");
/// Who sent it; believed of other control planes only.
const SENDER: HeaderName = HeaderName::from_static("x-tollgate-sender");

/// That it is another control plane that says so.
const PROOF: HeaderName = HeaderName::from_static("x-tollgate-proof");
/// Where the proof stands in the store.
const SECRET: &str = "cluster/secret";

/// What a caller may wait for a control plane that waits for another.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often signs are handed on.
const OFTEN: Duration = Duration::from_secs(1);

/// Hands on what only the leader may do.
pub(super) async fn hand_on(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(cluster) = api.store.cluster() else {
        return next.run(request).await;
    };
    if api.keeper.leads() {
        // Whoever handed it on says who sent it.
        if let Some(sender) = sender_of(&api, request.headers()).await
            && let Some(caller) = request.extensions_mut().get_mut::<Caller>()
        {
            caller.address = sender;
        }
        return next.run(request).await;
    }
    let path = request.uri().path();
    let own = path == "/feed" || path == "/plan" || path.starts_with("/nodes/");
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    // What the one that leads alone has from all.
    let best = looks
        && matches!(
            path,
            "/rollout" | "/figures" | "/edges" | "/debug/metrics/services"
        );
    if own || (looks && !best) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Problem::new(Code::BadRequest, error.to_string()).into_response(),
    };
    if let Some(id) = beat_of(&parts.uri, &body)
        && is_quiet(&api, &id, &body, parts.extensions.get())
        && api.keeper.beat_here(&id)
    {
        return super::registration::beaten(&api);
    }
    let leader = match cluster.role() {
        Role::Follows(Some(leader)) if !parts.headers.contains_key(HANDED_ON) => leader,
        _ if best => return next.run(Request::from_parts(parts, Body::empty())).await,
        // It leads, and its registry is not there yet; or it has only just heard.
        _ => return nobody(),
    };
    let mut request = http::Request::new(Full::new(body));
    *request.method_mut() = parts.method.clone();
    if let Some(target) = parts
        .uri
        .path_and_query()
        .and_then(|all| all.as_str().parse().ok())
    {
        *request.uri_mut() = target;
    }
    let headers = request.headers_mut();
    copy(
        &parts.headers,
        headers,
        &[AUTHORIZATION, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH],
    );
    prove(&api, headers).await;
    if let Ok(node) = HeaderValue::from_str(&cluster.node) {
        headers.insert(HANDED_ON, node);
    }
    let peer = parts.extensions.get::<Peer>();
    if let Some(peer) = peer.and_then(|peer| HeaderValue::from_str(&peer.0).ok()) {
        headers.insert(SENDER, peer);
    }
    match api.peers.ask(&leader.url, request, PATIENCE).await {
        Ok(answer) => {
            let (from, body) = answer.into_parts();
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = from.status;
            let those = [CONTENT_TYPE, RETRY_AFTER, ALLOW, ETAG, WWW_AUTHENTICATE];
            copy(&from.headers, response.headers_mut(), &those);
            response
        }
        Err(_) if best => next.run(Request::from_parts(parts, Body::empty())).await,
        Err(Failed::Unsent(why)) => {
            let title = format!(
                "the control plane that leads ({}) cannot be reached: {why}; nothing was changed, try again",
                leader.node
            );
            Problem::new(Code::NoLeader, title).into_response()
        }
        Err(Failed::Unanswered(why)) => {
            let title = format!(
                "the control plane that leads ({}) did not answer: {why}; it is not known whether something was \
                 changed, look before you try again",
                leader.node
            );
            Problem::new(Code::OutcomeUnknown, title).into_response()
        }
    }
}

fn nobody() -> Response {
    let title = "no control plane leads at the moment; nothing was changed, try again";
    Problem::new(Code::NoLeader, title).into_response()
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        if let Some(value) = from.get(name) {
            to.insert(name.clone(), value.clone());
        }
    }
}

/// Who sent a request that another control plane handed on, where it says what only those know who share the store.
async fn sender_of(api: &Api, headers: &HeaderMap) -> Option<Arc<str>> {
    let sender = headers.get(SENDER)?.to_str().ok()?;
    is_ours(api, headers).await.then(|| sender.into())
}

/// What stands in the store and is told nobody else.
async fn secret(api: &Api) -> Option<Arc<str>> {
    let kept = api.store.one(SECRET).await.ok()??;
    Some(kept.value)
}

async fn is_ours(api: &Api, headers: &HeaderMap) -> bool {
    let Some((secret, said)) = secret(api).await.zip(headers.get(PROOF)) else {
        return false;
    };
    // Every byte is looked at, however early the first wrong one is.
    let (secret, said) = (secret.as_bytes(), said.as_bytes());
    let pairs = secret.iter().zip(said);
    secret.len() == said.len() && pairs.fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

async fn prove(api: &Api, headers: &mut HeaderMap) {
    let secret = secret(api).await;
    if let Some(Ok(mut proof)) = secret.map(|secret| HeaderValue::from_str(&secret)) {
        proof.set_sensitive(true);
        headers.insert(PROOF, proof);
    }
}

/// Whoever leads first makes it.
async fn keep_secret(api: &Api) {
    if secret(api).await.is_some() {
        return;
    }
    let mut random = [0; 32];
    let read = std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut random));
    if read.is_ok() {
        let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let made = Transaction::put(SECRET, text).when(Compare::Absent(SECRET.into()));
        // What was not written is tried again a second later.
        drop(api.store.commit(made).await);
    }
}

/// The id of a heartbeat.
fn beat_of(uri: &http::Uri, body: &[u8]) -> Option<String> {
    match uri.path() {
        "/heartbeat" => Some(fields(body)?.get("id")?.as_str()?.to_owned()),
        path => Some(path.strip_prefix("/heartbeat/")?.to_owned()),
    }
}

fn fields(body: &[u8]) -> Option<Map<String, Value>> {
    match body.is_empty() {
        true => Some(Map::new()),
        false => serde_json::from_slice(body).ok(),
    }
}

/// Whether a heartbeat says nothing but what is known here already.
fn is_quiet(api: &Api, id: &str, body: &[u8], caller: Option<&Caller>) -> bool {
    let Some((fields, record)) =
        fields(body).zip(api.keeper.read(|registry, _, _| registry.record(id)))
    else {
        return false;
    };
    if caller.is_none_or(|caller| !caller.speaks_for(&record.name)) {
        // Whoever leads finds the words.
        return false;
    }
    fields
        .iter()
        .all(|(key, value)| match (key.as_str(), value) {
            ("id", Value::String(text)) => *text == id,
            ("name", Value::String(text)) => *text == *record.name,
            ("health", Value::String(text)) => text == record.health.word(),
            ("metadata", Value::Object(pairs)) => pairs.iter().all(|(name, value)| {
                record.metadata.get(name).map(String::as_str) == value.as_str()
            }),
            ("id" | "name" | "health" | "metadata", _) => false,
            _ => true,
        })
}

/// What a follower hands on.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    signs: Signs,
    listeners: Listeners,
}

/// `POST /cluster/signs`: what a follower hands on.
pub(super) async fn signs(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer<Value>, Problem> {
    if !is_ours(&api, &headers).await {
        let title = "this page is for control planes that share a store";
        return Err(Problem::new(Code::NotFound, title));
    }
    let told: Told = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(
            Code::BadRequest,
            format!("the body is not what a control plane says: {error}"),
        )
    })?;
    if !api.keeper.leads() {
        return Err(Problem::new(
            Code::NoLeader,
            "this control plane does not lead",
        ));
    }
    let knows = api.feed.take_over(&told.signs.node, told.listeners);
    let unknown = api.keeper.signs_of(told.signs);
    Ok(Answer(json!({ "unknown": unknown, "knows": knows })))
}

/// `GET /cluster`: who is there, and who leads.
pub(super) async fn cluster(State(api): State<Arc<Api>>) -> Answer<Value> {
    let Some(cluster) = api.store.cluster() else {
        return Answer(json!({ "store": "embedded" }));
    };
    let leader = match api.keeper.leads() {
        true => Some(cluster.node.to_string()),
        false => cluster.leader().map(|member| member.node.to_string()),
    };
    let members = cluster.members();
    let members = members
        .iter()
        .map(|one| json!({ "node": one.node, "url": one.url }));
    let figures = api.store.figures();
    Answer(json!({
        "store": "etcd",
        "node": cluster.node,
        "leads": api.keeper.leads(),
        "leader": leader,
        "members": members.collect::<Vec<_>>(),
        "store_revision": figures.revision,
        "store_answers": !figures.failing,
        "revision": api.catalog.now().revision,
        "epoch": api.catalog.epoch(),
    }))
}

/// Hands on signs for as long as the process lives.
pub(crate) async fn hand_signs_on(api: Arc<Api>) {
    static NOT_TOLD: Repeated = Repeated::new();
    let Some(cluster) = api.store.cluster() else {
        return;
    };
    loop {
        tokio::time::sleep(OFTEN).await;
        if api.keeper.leads() {
            api.feed.keeps_all();
            keep_secret(&api).await;
            continue;
        }
        let Some((leader, signs)) = cluster
            .leader()
            .and_then(|l| Some((l, api.keeper.gathered()?)))
        else {
            continue;
        };
        let listeners = api.feed.hand_on(&leader.node);
        let told = Told { signs, listeners };
        let body = serde_json::to_vec(&told).unwrap_or_default();
        let mut request = http::Request::new(Full::new(body.into()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static("/cluster/signs");
        prove(&api, request.headers_mut()).await;
        let why = match api.peers.ask(&leader.url, request, GLANCE * 2).await {
            Ok(answer) if answer.status().is_success() => {
                let answer: Option<Value> = serde_json::from_slice(answer.body()).ok();
                let knows = answer.and_then(|answer| answer["knows"].as_bool());
                api.feed
                    .handed_on(told.listeners, Some(knows == Some(true)));
                continue;
            }
            Ok(answer) => answer.status().to_string(),
            Err(Failed::Unsent(why) | Failed::Unanswered(why)) => why,
        };
        api.feed.handed_on(told.listeners, None);
        api.keeper.keep_signs(told.signs);
        NOT_TOLD.warn(
            "the control plane that leads is not told of heartbeats and listeners; it is tried again",
            &[("leader", &leader.node), ("reason", &why)],
        );
    }
}

/// Who listens to the other control planes, as far as they answer.
pub(super) async fn others_nodes(api: &Api, headers: &HeaderMap) -> Vec<Value> {
    let mut all = Vec::new();
    for (_, answer) in others(api, headers, "/nodes?own=true", GLANCE).await {
        if let Ok(Value::Array(nodes)) = answer.map(|mut answer| answer["nodes"].take()) {
            all.extend(nodes);
        }
    }
    all
}

/// A page of every other control plane, each with its name; or why there is none.
pub(super) async fn others(
    api: &Api,
    headers: &HeaderMap,
    page: &str,
    patience: Duration,
) -> Vec<(String, Result<Value, String>)> {
    let Some(cluster) = api.store.cluster() else {
        return Vec::new();
    };
    let members = cluster.members();
    let asked = members
        .iter()
        .filter(|one| one.node != cluster.node)
        .map(|one| {
            let mut request = http::Request::new(Full::new(Bytes::new()));
            let target = page.parse();
            copy(headers, request.headers_mut(), &[AUTHORIZATION]);
            async move {
                *request.uri_mut() = target.map_err(|_| "no such page".to_owned())?;
                let answer = api.peers.ask(&one.url, request, patience).await;
                let answer =
                    answer.map_err(|(Failed::Unsent(why) | Failed::Unanswered(why))| why)?;
                if !answer.status().is_success() {
                    return Err(format!("it answered {}", answer.status()));
                }
                serde_json::from_slice(answer.body()).map_err(|error| error.to_string())
            }
        });
    let answers = futures_util::future::join_all(asked).await;
    let names = members.iter().filter(|one| one.node != cluster.node);
    let names = names.map(|one| one.node.to_string());
    names.zip(answers).collect()
}
