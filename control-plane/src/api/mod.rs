//! HTTP in, HTTP out: paths, bodies, statuses. No decision about an instance is taken here; `keeper` is asked.

mod asking;
mod audit;
mod catalog;
mod diagnose;
pub(crate) mod elsewhere;
mod feed;
mod fields;
mod figures;
mod guard;
mod identity;
mod lease;
mod lookup;
pub(crate) mod peers;
mod precondition;
mod problem;
mod registration;
mod rollout;
mod sagas;
mod serving;
mod traces;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post, put};
use http::header;
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::Semaphore;
use tollgate_config::span::MOST_SPAN_BYTES;

use crate::access::Access;
use crate::audit::Audit;
use crate::authority::Authority;
use crate::catalog::Catalog;
use crate::feed::Feed;
use crate::keeper::Keeper;
use crate::lending::Lending;
use crate::rollout::Rollouts;
use crate::store::Store;
use figures::Requests;
use peers::Peers;
use problem::{Code, Problem};

/// What the pages are made of.
pub struct Api {
    pub keeper: Arc<Keeper>,
    pub audit: Arc<Audit>,
    pub store: Arc<dyn Store>,
    pub catalog: Arc<Catalog>,
    pub feed: Arc<Feed>,
    pub rollouts: Arc<Rollouts>,
    pub lending: Arc<Lending>,
    pub access: Arc<Access>,
    pub authority: Arc<Authority>,
    /// The registry listens on loopback only, so instances may be there, too.
    pub local: bool,
    pub max_body: usize,
    /// The same for changes of the catalog.
    pub max_change: usize,
    pub ready: AtomicBool,
    pub started: Instant,
    /// Open ones.
    pub connections: AtomicU64,
    pub(crate) requests: Requests,
    pub(crate) peers: Peers,
    /// Places for questions that connect to many instances.
    pub(crate) diagnoses: Semaphore,
}

impl Api {
    #[expect(clippy::too_many_arguments, reason = "one of each room below")]
    pub(crate) fn new(
        keeper: Arc<Keeper>,
        audit: Arc<Audit>,
        store: Arc<dyn Store>,
        catalog: Arc<Catalog>,
        (feed, lending, rollouts): (Arc<Feed>, Arc<Lending>, Arc<Rollouts>),
        (access, authority): (Arc<Access>, Arc<Authority>),
        local: bool,
        (max_body, max_change): (usize, usize),
        peers: Peers,
    ) -> Api {
        Api {
            keeper,
            audit,
            store,
            catalog,
            feed,
            rollouts,
            lending,
            access,
            authority,
            local,
            max_body,
            max_change,
            ready: AtomicBool::new(true),
            started: Instant::now(),
            connections: AtomicU64::new(0),
            requests: Requests::default(),
            peers,
            diagnoses: Semaphore::new(diagnose::AT_ONCE),
        }
    }

    /// All pages.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/register", post(registration::register))
            .route("/heartbeat", post(registration::heartbeat))
            .route("/heartbeat/{id}", put(registration::heartbeat_of))
            .route("/deregister", delete(registration::deregister))
            .route("/services", get(lookup::services))
            .route("/registry/services", get(lookup::services))
            // A name for GET, an id for DELETE.
            .route(
                "/services/{name}",
                get(lookup::service).delete(registration::deregister_of),
            )
            .route("/services/{name}/confirm", post(registration::confirm))
            .route("/debug/registry/services", get(lookup::debug_services))
            .route("/debug/registry/health", get(lookup::debug_health))
            .route("/debug/registry/audit", get(lookup::debug_audit))
            .route("/audit", get(audit::audit))
            .route("/debug/metrics/services", get(serving::services))
            .route("/debug/answers", get(asking::ask))
            .route("/debug/traces/recent", get(traces::recent))
            .route("/debug/traces/{trace_id}", get(traces::trace))
            .route("/debug/sagas/active", get(sagas::active))
            .route("/debug/sagas/failed", get(sagas::failed))
            .route("/debug/diagnose/service/{name}", get(diagnose::service))
            .route("/debug/diagnose/request/{trace_id}", get(traces::diagnose))
            .route("/debug/diagnose/saga/{id}", get(sagas::diagnose))
            .route("/apply", post(catalog::apply))
            .route("/plan", post(catalog::plan))
            .route("/rollback", post(catalog::rollback))
            .route("/revisions", get(catalog::revisions))
            .route("/revisions/{number}", get(catalog::revision))
            .route("/diff", get(catalog::diff))
            .route("/rollout", get(rollout::status))
            .route("/rollout/pause", post(rollout::pause))
            .route("/rollout/resume", post(rollout::resume))
            .route("/rollout/promote", post(rollout::promote))
            .route("/rollout/abort", post(rollout::abort))
            .route("/figures", get(rollout::figures))
            .route("/edges", get(rollout::edges))
            .route("/feed", get(feed::look).post(feed::subscribe))
            .route("/leases", get(lease::look).post(lease::lend))
            .route("/identity", get(identity::look))
            .route("/identity/trust", get(identity::trust))
            .route("/identity/certificate", post(identity::certificate))
            .route("/identity/token", post(identity::token))
            .route("/identity/revoke", post(identity::revoke))
            .route("/identity/allow", post(identity::allow))
            .route("/identity/rotate", post(identity::rotate))
            .route("/nodes", get(feed::nodes))
            .route("/cluster", get(elsewhere::cluster))
            .route("/cluster/signs", post(elsewhere::signs))
            .route("/nodes/{node}/report", post(feed::report))
            .route("/nodes/{node}/wants", post(feed::wants))
            .route("/nodes/{node}/answers/{id}", post(asking::answer))
            .route("/health", get(figures::ready))
            .route("/health/ready", get(figures::ready))
            .route("/health/live", get(figures::live))
            .route("/metrics", get(figures::metrics))
            .route("/{name}", get(lookup::service))
            .fallback(lookup::nothing)
            .method_not_allowed_fallback(lookup::other_method)
            .layer(middleware::from_fn_with_state(
                self.clone(),
                elsewhere::hand_on,
            ))
            // `whole_body` bounds them.
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn_with_state(self.clone(), whole_body))
            .layer(middleware::from_fn_with_state(self.clone(), guard::guard))
            .layer(middleware::from_fn_with_state(self.clone(), figures::count))
            .with_state(self)
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// Who is at the other end of the connection; put into every request by `server`.
#[derive(Debug, Clone)]
pub struct Peer(pub Arc<str>);

impl Peer {
    pub fn of(address: SocketAddr) -> Peer {
        Peer(address.ip().to_canonical().to_string().into())
    }
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Peer, Infallible> {
        let peer = parts.extensions.get::<Peer>().cloned();
        Ok(peer.unwrap_or_else(|| Peer("unknown".into())))
    }
}

/// How long a body may take; none of ours is long.
const BODY: Duration = Duration::from_secs(10);

/// Takes the body in before anything is done: whole, not too large, not too slow.
async fn whole_body(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let (most, setting) = match parts.uri.path() {
        "/apply" | "/plan" => (api.max_change, "catalog.max_change"),
        // Ids of everybody who beat within a second or more.
        "/cluster/signs" => (api.max_body.max(64 << 20), "server.max_body"),
        // As many clients as a question may be about.
        "/leases" => (api.max_body.max(128 << 10), "server.max_body"),
        // Certificates and tokens, as they are.
        "/identity/certificate" => (api.max_body.max(64 << 10), "server.max_body"),
        path if path.starts_with("/nodes/") && path.contains("/answers/") => {
            (api.max_body.max(MOST_SPAN_BYTES), "server.max_body")
        }
        // Problems quote lines of documents.
        // And so many names may a node want.
        path if path.ends_with("/report") || path.ends_with("/wants") => {
            (api.max_body.max(1 << 20), "server.max_body")
        }
        _ => (api.max_body, "server.max_body"),
    };
    let read = Limited::new(body, most).collect();
    let body = match tokio::time::timeout(BODY, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let title = format!("the body is larger than `{setting}`, {most} bytes");
            return Problem::new(Code::TooLarge, title).into_response();
        }
        // Nobody is there to read this.
        Ok(Err(error)) => {
            return Problem::new(Code::BadRequest, format!("the body is broken: {error}"))
                .into_response();
        }
        Err(_) => {
            return Problem::new(Code::SlowBody, "the body did not come within 10 seconds")
                .into_response();
        }
    };
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    if response.status().is_client_error() && kind.is_none_or(|kind| kind != problem::CONTENT_TYPE)
    {
        // Of the framework: a path or a query that is no text.
        let title = "the path or the query is not understood; both are UTF-8, percent-encoded";
        return Problem::new(Code::BadRequest, title).into_response();
    }
    response
}
