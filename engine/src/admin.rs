//! The operator's door: alive, ready, metrics, status, explain, reload, drain, breakers. Runs on the control thread, so that a
//! scrape cannot touch a request. Speaks HTTP/1 by hyper; nothing here is hot and nothing here decides.

mod breakers;
mod hedges;
mod jwt;
mod spans;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tollgate_config::{Action, Mesh};

use crate::clock::unix_seconds;
use crate::exchange::headers::http_date;
use crate::explain::{Ask, explain};
use crate::filter::rate_limit::LimitMemory;
use crate::identity::Identity;
use crate::reload::SharedReport;
use crate::reload::control_plane::Feed;
use crate::reload::learned::Learned;
use crate::snapshot::ListenerPlan;
use crate::snapshot::store::Store;
use crate::telemetry::log;
use crate::telemetry::metrics::{CONTENT_TYPE, Metrics};
use crate::telemetry::spans::Spans;

/// What the admin server asks of the control thread.
pub enum Command {
    /// Answers with the generation that serves, or every problem as text.
    Reload(oneshot::Sender<Result<u64, Vec<String>>>),
    Drain,
}

pub struct Admin {
    pub store: Arc<Store>,
    pub metrics: Arc<Metrics>,
    pub limits: Arc<LimitMemory>,
    pub report: SharedReport,
    pub ready: Arc<AtomicBool>,
    /// Whether the configuration that serves is all that there should be.
    pub complete: Rc<Cell<bool>>,
    pub commands: mpsc::UnboundedSender<Command>,
    /// Where each listener really listens; a document may ask for port 0.
    pub addresses: Arc<Mutex<Vec<(String, SocketAddr)>>>,
    pub started: Instant,
    pub feed: Rc<Feed>,
    pub learned: Rc<RefCell<Learned>>,
    pub identity: Rc<Identity>,
    pub spans: Arc<Spans>,
    pub connections: Box<dyn Fn() -> usize>,
}

/// Who may connect to a listener of the mesh.
fn mode(plan: &ListenerPlan) -> Option<&'static str> {
    match plan.item.mesh.value {
        Mesh::Strict => Some("strict"),
        Mesh::Permissive => Some("permissive"),
        Mesh::Off => None,
    }
}

/// Largest body of a question.
const QUESTION: usize = 64 * 1024;

impl Admin {
    /// Serves until the future is dropped.
    pub async fn serve(self: std::rc::Rc<Self>, listener: TcpListener) {
        loop {
            let Ok((socket, peer)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let admin = self.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| {
                    let admin = admin.clone();
                    async move { Ok::<_, Infallible>(admin.answer(peer, request).await) }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(10))
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
                // An operator who hangs up mid-answer is nobody's problem.
                drop(served);
            });
        }
    }

    async fn answer(&self, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET | &Method::HEAD, "/health/live") => {
                json_answer(StatusCode::OK, &self.health("healthy"))
            }
            (&Method::GET | &Method::HEAD, "/health" | "/health/ready" | "/ready") => {
                if self.ready.load(Ordering::Acquire) {
                    json_answer(StatusCode::OK, &self.health("healthy"))
                } else {
                    json_answer(StatusCode::SERVICE_UNAVAILABLE, &self.health("unhealthy"))
                }
            }
            (&Method::GET | &Method::HEAD, "/metrics") => {
                self.metrics.generations_alive(self.store.alive().len());
                breakers::count(&self.store.current());
                answer(StatusCode::OK, CONTENT_TYPE, self.metrics.page().into())
            }
            (&Method::GET | &Method::HEAD, "/status") => {
                json_answer(StatusCode::OK, &self.status())
            }
            (&Method::GET | &Method::HEAD, "/breakers") => json_answer(
                StatusCode::OK,
                &breakers::all(&self.store.current(), Instant::now()),
            ),
            (&Method::GET | &Method::HEAD, "/edges") => {
                json_answer(StatusCode::OK, &json!({ "edges": self.metrics.edges() }))
            }
            (&Method::GET | &Method::HEAD, "/traces") => {
                spans::recent(&self.spans, request.uri().query())
            }
            (&Method::GET | &Method::HEAD, path) if path.starts_with("/traces/") => {
                spans::of(&self.spans, &path["/traces/".len()..])
            }
            (&Method::POST, path) if path.starts_with("/breakers/") => {
                self.hold(peer, &path["/breakers/".len()..], request).await
            }
            (&Method::POST, "/reload") => self.reload().await,
            (&Method::POST, "/drain") => {
                let _ends_anyway = self.commands.send(Command::Drain);
                json_answer(StatusCode::ACCEPTED, &json!({ "draining": true }))
            }
            (&Method::POST, "/explain") => self.explain(request).await,
            (
                _,
                "/health" | "/health/live" | "/health/ready" | "/ready" | "/metrics" | "/status"
                | "/breakers" | "/edges" | "/traces",
            ) => refused("GET, HEAD"),
            (_, path) if path.starts_with("/traces/") => refused("GET, HEAD"),
            (_, "/reload" | "/drain" | "/explain") => refused("POST"),
            (_, path) if path.starts_with("/breakers/") => refused("POST"),
            _ => json_answer(
                StatusCode::NOT_FOUND,
                &json!({ "error": "no such page", "pages": ["GET /health/live", "GET /health/ready", "GET /metrics", "GET /status", "GET /breakers", "GET /edges", "GET /traces?limit=N", "GET /traces/TRACE_ID", "POST /breakers/NAME", "POST /explain", "POST /reload", "POST /drain"] }),
            ),
        }
    }

    fn health(&self, status: &str) -> serde_json::Value {
        let now = unix_seconds(SystemTime::now());
        json!({
            "status": status,
            "service": log::service(),
            "version": env!("CARGO_PKG_VERSION"),
            "timestamp": http_date(now),
            "uptime": self.started.elapsed().as_secs(),
            "checks": self.checks(),
        })
    }

    fn checks(&self) -> serde_json::Value {
        let mut checks = json!({ "configuration": self.configuration() });
        if let Some(identity) = self.certificate() {
            checks["identity"] = identity;
        }
        checks
    }

    /// Whether there is a certificate of the mesh, where one is needed; what a process that just started waits for.
    fn certificate(&self) -> Option<serde_json::Value> {
        if self.ready.load(Ordering::Acquire) || self.identity.is_enough_for(&self.store.current())
        {
            return self
                .identity
                .status()
                .map(|_| json!({ "status": "healthy" }));
        }
        Some(json!({
            "status": "unhealthy",
            "waits_for": { "a certificate of the mesh": { "why_not": self.identity.why_not() } },
        }))
    }

    /// Whether there is a complete one; what a process that just started waits for.
    fn configuration(&self) -> serde_json::Value {
        if self.ready.load(Ordering::Acquire) || self.complete.get() {
            return json!({ "status": "healthy" });
        }
        let waits_for = self.feed.status().map(|feed| {
            json!({ "the first documents of the control plane": feed["urls"], "why_not": feed["why_not"] })
        });
        json!({ "status": "unhealthy", "waits_for": waits_for })
    }

    fn status(&self) -> serde_json::Value {
        let snapshot = self.store.current();
        let now = Instant::now();
        let report = self
            .report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let generations: Vec<_> = self
            .store
            .alive()
            .into_iter()
            .map(|(generation, active)| json!({ "generation": generation, "in_flight": active }))
            .collect();
        let upstreams: Vec<_> = snapshot
            .upstreams
            .iter()
            .map(|plan| {
                let mut status = json!(plan.upstream.status(now));
                status["breakers"] = json!(breakers::of(plan, now));
                status["retry_budget"] = breakers::budget(plan, now);
                if plan.learns().is_some() {
                    status["template"] = true.into();
                }
                if let Some(learned) = &plan.learned {
                    status["template"] = learned.template.name.as_str().into();
                    status["service"] = (*learned.service).into();
                }
                if let Some(hedges) = hedges::of(plan) {
                    status["hedges"] = hedges;
                }
                status
            })
            .collect();
        let limits: Vec<_> = snapshot
            .limits()
            .into_iter()
            .map(|limit| limit.status())
            .collect();
        let milliseconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let paces: Vec<_> = snapshot
            .routes
            .iter()
            .filter_map(|plan| {
                let normal = plan.compiled.pace.as_ref()?.normal();
                Some(json!({
                    "route": plan.item.name,
                    "normal_ms": normal.map(milliseconds),
                    "timeout_ms": plan.adaptive_timeout().or(plan.item.timeout.value).map(milliseconds),
                }))
            })
            .collect();
        let hedging: Vec<_> = snapshot.routes.iter().filter_map(hedges::late).collect();
        let addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let address = |name: &str| {
            let (_, address) = addresses.iter().find(|(known, _)| known == name)?;
            Some(address.to_string())
        };
        let listeners: Vec<_> = snapshot
            .listeners
            .iter()
            .flatten()
            .map(|plan| json!({ "name": plan.item.name, "bind": plan.item.bind.to_string(), "address": address(&plan.item.name), "tls": plan.tls.is_some(), "mesh": mode(plan), "forward": forward(plan) }))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "ready": self.ready.load(Ordering::Acquire),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "generation": report.generation,
            "hash": report.hash,
            "since": report.since,
            "reload": report,
            "last_reload": { "micros": report.micros },
            "control_plane": self.feed.status(),
            "identity": self.identity.status(),
            "generations": generations,
            "connections": (self.connections)(),
            "routes": snapshot.routes.len(),
            "listeners": listeners,
            "upstreams": upstreams,
            "services": self.learned.borrow().show(),
            "limits": limits,
            "jwt": snapshot.issuers.all().map(|issuer| jwt::status(issuer)).collect::<Vec<_>>(),
            "sharing": self.limits.leases.standing(),
            "adaptive_timeouts": paces,
            "hedging": hedging,
        })
    }

    async fn reload(&self) -> Response<Full<Bytes>> {
        let (reply, answer) = oneshot::channel();
        let _ends_anyway = self.commands.send(Command::Reload(reply));
        match answer.await {
            Ok(Ok(generation)) => json_answer(StatusCode::OK, &json!({ "generation": generation })),
            Ok(Err(problems)) => json_answer(
                StatusCode::UNPROCESSABLE_ENTITY,
                &json!({ "error": "refused; the former configuration goes on serving", "problems": problems }),
            ),
            Err(_) => json_answer(
                StatusCode::SERVICE_UNAVAILABLE,
                &json!({ "error": "the process is stopping" }),
            ),
        }
    }

    async fn hold(
        &self,
        peer: SocketAddr,
        name: &str,
        request: Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        match asked(request).await {
            Ok(body) => {
                let snapshot = self.store.current();
                let (status, value) = breakers::hold(&snapshot, name, &body, peer, Instant::now());
                json_answer(status, &value)
            }
            Err(refusal) => refusal,
        }
    }

    async fn explain(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let body = match asked(request).await {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        let ask = match serde_json::from_slice::<Question>(&body)
            .map_err(|error| error.to_string())
            .and_then(Question::ask)
        {
            Ok(ask) => ask,
            Err(error) => {
                return json_answer(
                    StatusCode::BAD_REQUEST,
                    &json!({ "error": error, "expected": { "method": "GET", "url": "http://host/path?query", "headers": { "name": "value" }, "listener": "optional", "caller": "optional" } }),
                );
            }
        };
        match explain(&self.store.current(), &ask) {
            Ok(mut explained) => {
                if let Some(service) = &mut explained.service {
                    let name = service.name.as_deref();
                    service.learned = name.and_then(|name| self.learned.borrow().of(name));
                }
                json_answer(
                    StatusCode::OK,
                    &serde_json::to_value(&explained).unwrap_or_default(),
                )
            }
            Err(error) => json_answer(StatusCode::BAD_REQUEST, &json!({ "error": error })),
        }
    }
}

/// A question's body.
async fn asked(request: Request<Incoming>) -> Result<Bytes, Response<Full<Bytes>>> {
    match Limited::new(request.into_body(), QUESTION).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(json_answer(
            StatusCode::BAD_REQUEST,
            &json!({ "error": error.to_string() }),
        )),
    }
}

/// Where the bytes of a listener go, if it has any.
fn forward(listener: &ListenerPlan) -> Option<&str> {
    match &listener.item.forward.as_ref()?.action {
        Action::Upstream(name) => Some(name),
        _ => None,
    }
}

/// What `POST /explain` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    #[serde(default = "get")]
    pub method: String,
    /// `http://host/path?query`, or only `/path?query`.
    pub url: String,
    #[serde(default)]
    pub headers: std::collections::BTreeMap<String, String>,
    pub listener: Option<String>,
    /// The service that calls: `orders`, or `shop/orders`.
    #[serde(default)]
    pub caller: Option<String>,
}

fn get() -> String {
    "GET".into()
}

impl Question {
    pub fn ask(self) -> Result<Ask, String> {
        let method = Method::from_bytes(self.method.as_bytes())
            .map_err(|_| format!("{} is not a method", self.method))?;
        let (host, target) = match self.url.split_once("://") {
            Some((_, rest)) => match rest.find('/') {
                Some(slash) => (rest[..slash].to_owned(), rest[slash..].to_owned()),
                None => (rest.to_owned(), "/".to_owned()),
            },
            None => (String::new(), self.url),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("{name} is not a header name"))?;
            let value = HeaderValue::from_str(&value)
                .map_err(|_| format!("the value of {name} is not valid"))?;
            headers.append(name, value);
        }
        let named = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .map(str::to_owned);
        let caller = self.caller.as_deref().map(tollgate_config::member);
        Ok(Ask {
            caller: caller.transpose().map_err(|fault| fault.message)?,
            listener: self.listener,
            method,
            host: named.unwrap_or(host),
            target,
            headers,
        })
    }
}

fn refused(allow: &'static str) -> Response<Full<Bytes>> {
    let mut response = json_answer(
        StatusCode::METHOD_NOT_ALLOWED,
        &json!({ "error": "this page does not take this method" }),
    );
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

fn json_answer(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    answer(status, "application/json", format!("{value}\n").into())
}

fn answer(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
