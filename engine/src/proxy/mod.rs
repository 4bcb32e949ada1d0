//! The life of a request, from a head that was read to a head that can be written. `Proxy::handle` is the page
//! everyone reads first.
//!
//! A `Proxy` belongs to one worker. It knows no TOML, no TLS types and no sockets other than through the pool.

mod answer;
mod books;
mod bulkhead;
mod carry;
pub mod connection;
mod edges;
mod fallback;
mod forward;
pub(crate) mod guard;
mod hedge;
mod learn;
mod limit;
mod preflight;
mod replay;
mod retry;
mod send;
mod spans;
mod split;
#[cfg(test)]
mod storm;
mod transcode;
mod tries;
pub mod tunnel;
mod validate;

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tollgate_config::identity::SpiffeId;
use tollgate_config::{Abort, Action, ErrorBody, Place};

pub use answer::Answer;
use books::Asked;
pub use books::Exchange;
pub use connection::Connection;

use crate::alarm::Alarm;
use crate::clock;
use crate::exchange::base64;
use crate::exchange::body::Body;
use crate::exchange::error::{Code, Error, written};
use crate::exchange::headers::disown_client_cert;
use crate::exchange::noise::Noise;
use crate::exchange::request_id::RequestId;
use crate::exchange::trace::TraceContext;
use crate::exchange::{Marks, Request, Response};
use crate::filter::{Caller, jwt};
use crate::route::{Found, Lookup, normal_host};
use crate::snapshot::store::{Store, View};
use crate::snapshot::{RoutePlan, Snapshot};
use crate::telemetry::access::{Failure, Line, Services, WorkerLog};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::WorkerSpans;
use crate::upstream::learning::Learning;
use crate::upstream::pool::Pools;
use replay::{SharedSource, Source};
use transcode::Translated;

pub struct Proxy {
    /// This worker's number, from 0.
    pub worker: usize,
    pub view: View,
    pub pools: Pools,
    pub metrics: Arc<Metrics>,
    /// Services that are not known yet are asked for here.
    learning: Arc<Learning>,
    log: RefCell<WorkerLog>,
    spans: RefCell<WorkerSpans>,
    random: RefCell<fastrand::Rng>,
    noise: RefCell<Noise>,
    /// The body of every request that has none.
    empty: SharedSource,
    /// Tokens that were verified.
    tokens: jwt::Cache,
    /// Services that called.
    callers: RefCell<edges::Callers>,
    /// Late answers so far, of which some are left without a hedge.
    late: Cell<u32>,
    /// Set when the process stops: answers close their connections.
    pub stopping: Cell<bool>,
}

impl Proxy {
    pub fn new(
        worker: usize,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        learning: Arc<Learning>,
        log: WorkerLog,
        spans: WorkerSpans,
    ) -> Self {
        Proxy {
            worker,
            view: View::new(store),
            pools: Pools::default(),
            metrics,
            learning,
            log: RefCell::new(log),
            spans: RefCell::new(spans),
            random: RefCell::new(fastrand::Rng::new()),
            noise: RefCell::default(),
            empty: Rc::new(RefCell::new(Source::new(Body::Empty, 0, None))),
            tokens: jwt::Cache::default(),
            callers: RefCell::default(),
            late: Cell::new(0),
            stopping: Cell::new(false),
        }
    }

    /// Answers one request. Dropping the future abandons the exchange: what was asked of an upstream is cancelled and
    /// the books are closed as `client_closed`.
    pub async fn handle(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        alarm: &Rc<Alarm>,
        request: Request,
    ) -> Answer {
        let mut asked = Asked::begin(self, connection, alarm, request);
        let Asked { exchange, request } = &mut *asked;
        let listener = exchange.world.listener(exchange.connection.listener);
        if listener.is_some_and(|listener| listener.mesh.is_some()) {
            // Before anything looks at it, and with or without TLS: who calls is for the handshake to say.
            disown_client_cert(&mut request.headers);
        }
        let mut routed = self.route(exchange, request);
        if routed.is_ok() && self.lacks_service(exchange, request) {
            // Rare and large: boxed, so that other requests do not carry its size.
            routed = Box::pin(self.learn(exchange, request)).await;
        }
        let answered = match routed {
            Ok(()) => self.act(exchange, request).await,
            Err(error) => Err(error),
        };
        let mut answer = match answered {
            Ok(answer) => answer,
            Err(error) => {
                let mut answer = Answer::of(self.explain(exchange, &error));
                answer.is_cut = error.abort == Some(Abort::Reset);
                answer
            }
        };
        if let Some(plan) = exchange.route() {
            plan.compiled
                .chain
                .on_response(&mut answer.response, &exchange.notes);
        }
        answer.open(asked)
    }

    /// Finds the route; refuses what no route may have.
    fn route(&self, exchange: &mut Exchange, request: &Request) -> Result<(), Error> {
        let world = exchange.world.clone();
        let lookup = Lookup {
            listener: exchange.connection.listener,
            host: &request.authority,
            path: request.target.path(),
            query: request.target.query(),
            method: &request.method,
            headers: &request.headers,
        };
        let found = match preflight::route(&world, request, &lookup) {
            Some(id) => Found::Route(id),
            None => world.table.find(&lookup),
        };
        match found {
            Found::Route(id) => exchange.route = Some(id),
            Found::MethodNotAllowed(allowed) => {
                return Err(Error {
                    allow: Some(allowed.header().into()),
                    ..Code::MethodNotAllowed.into()
                });
            }
            Found::NotFound => return Err(Code::NoRoute.into()),
        }
        let listener = world.listener(exchange.connection.listener);
        let covered = listener
            .and_then(|listener| listener.tls.as_ref())
            .is_none_or(|tls| {
                tls.serves(
                    exchange.connection.sni.as_deref(),
                    &normal_host(&request.authority),
                )
            });
        if !covered {
            return Err(Code::Misdirected.into());
        }
        let named = |method: Method| {
            exchange
                .route()
                .is_some_and(|plan| plan.item.matches.methods.contains(&method))
        };
        // A tunnel goes around everything that looks at requests, so a route gives it only by name.
        match request.method {
            Method::TRACE if !named(Method::TRACE) => Err(Code::MethodRefused.into()),
            Method::CONNECT if !named(Method::CONNECT) => Err(Code::MethodRefused.into()),
            _ => Ok(()),
        }
    }

    /// Runs the route's filters, then does what the route says.
    async fn act(
        self: &Rc<Self>,
        exchange: &mut Exchange,
        request: &mut Request,
    ) -> Result<Answer, Error> {
        let world = exchange.world.clone();
        let Some(id) = exchange.route else {
            return Err(Code::NoRoute.into());
        };
        let plan = world.route(id);
        if let Some(answer) = { &plan.compiled.chain }.preflight(request, &mut exchange.notes) {
            exchange.error = None;
            return Ok(Answer::of(answer));
        }
        if !plan.compiled.chain.is_empty() {
            let filtered = self.filter(&world, exchange, plan, request);
            if let Some(delay) = exchange.notes.delay() {
                // Rare: requests that are not delayed do not carry its size.
                Box::pin(self.delay(exchange, plan, delay)).await?;
            }
            filtered?;
            request.marks = Marks::of(&request.headers);
        }
        if let Some(bodies) = plan.compiled.chain.bodies() {
            // As with what is translated: large, and not everybody's.
            Box::pin(self.validate(exchange, plan, request, bodies)).await?;
        }
        match &plan.item.action {
            Action::Upstream(_) if plan.compiled.chain.translates() => {
                // Large, and not everybody's: requests that pass as they are do not carry its size.
                Box::pin(self.translate(exchange, plan, 0, request)).await
            }
            Action::Upstream(_) => self.serve(exchange, plan, 0, request).await,
            Action::Split { sticky, .. } => {
                let branch = split::choose(
                    &plan.compiled,
                    sticky.as_ref(),
                    request,
                    &exchange.connection,
                    self.random(),
                );
                if plan.compiled.chain.translates() {
                    Box::pin(self.translate(exchange, plan, branch, request)).await
                } else {
                    self.serve(exchange, plan, branch, request).await
                }
            }
            Action::Respond {
                status,
                body,
                headers,
            } => {
                let headers: HeaderMap = headers.iter().cloned().collect();
                Ok(Answer::of(Response::new(
                    *status,
                    headers,
                    Body::Full(Bytes::copy_from_slice(body.as_bytes())),
                )))
            }
            Action::Redirect { to, status } => {
                let pattern = crate::route::pattern_of(&plan.item.matches);
                let target = crate::route::redirect_target(
                    to,
                    pattern,
                    request.target.path(),
                    request.target.query(),
                );
                let location = HeaderValue::from_str(&target)
                    .map_err(|_| Error::from(Code::RewriteRefused))?;
                let headers = HeaderMap::from_iter([(header::LOCATION, location)]);
                Ok(Answer::of(Response::new(*status, headers, Body::Empty)))
            }
        }
        .and_then(|answer| tunnel::agreed(request, answer))
        .inspect(|_| exchange.error = None)
    }

    /// Runs the chain with what it may know of who asks.
    fn filter(
        &self,
        world: &Snapshot,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        request: &mut Request,
    ) -> Result<(), Error> {
        let chain = &plan.compiled.chain;
        let trusted = world.listener(exchange.connection.listener);
        let caller = Caller {
            peer: exchange.connection.peer,
            trusted: trusted.map_or(&[], |listener| &listener.item.trusted_proxies),
            secure: exchange.connection.is_tls,
            worker: self.worker,
            tokens: &self.tokens,
            now: exchange.started,
            unix: if chain.wants_time() {
                clock::unix_seconds(SystemTime::now())
            } else {
                0
            },
            draw: if chain.has_faults() { self.random() } else { 0 },
            member: exchange.connection.caller.as_ref(),
            access: &world.access,
        };
        chain.on_request(request, &caller, &mut exchange.notes, &plan.item)
    }

    /// Waits as a fault asks for; not past the route's time-out, nor past the caller's deadline. Dropped with the
    /// exchange when the client leaves.
    async fn delay(
        &self,
        exchange: &Exchange,
        plan: &RoutePlan,
        delay: Duration,
    ) -> Result<(), Error> {
        let until = exchange.started + delay;
        let timeout = plan.item.timeout;
        let ends = [
            exchange.deadline,
            timeout.value.map(|timeout| exchange.started + timeout),
        ];
        let first = ends.into_iter().flatten().fold(until, Instant::min);
        let waiting = std::future::pending::<()>();
        let _elapsed = exchange.alarm.until(Some(first), waiting).await;
        clock::now();
        if first == until {
            return Ok(());
        }
        if exchange.deadline == Some(first) {
            return Err(Code::DeadlineExceeded.into());
        }
        Err(Error::governed_by(
            Code::RouteTimeout,
            "route.timeout",
            timeout.value.map_or_else(String::new, written),
            plan.place(timeout.at),
        ))
    }

    /// Our own answer, in the caller's language.
    pub fn explain(&self, exchange: &mut Exchange, error: &Error) -> Response {
        exchange.failed(error);
        if exchange.answers_grpc() {
            let mut headers = error.grpc();
            if let Some(Translated::Web(form)) = &exchange.translated {
                headers.insert(header::CONTENT_TYPE, form.content_type());
            }
            return Response::new(StatusCode::OK, headers, Body::Empty);
        }
        let id = exchange.request_id.as_str();
        let (status, headers, body) = match exchange.world.errors {
            ErrorBody::Problem => error.problem(id),
            ErrorBody::Envelope => error.envelope(id, &exchange.trace.trace_id),
        };
        Response::new(status, headers, Body::Full(body))
    }

    /// Answers what never became a request: counted and logged, but no route's business.
    pub fn refuse(&self, connection: &Connection, error: &Error) -> Response {
        self.metrics
            .listener(&connection.listener_name)
            .rejected(self.worker, error.code);
        self.metrics.answered_error(self.worker, error.code);
        let (_, id) = self.identify(&HeaderMap::new(), Marks::default());
        let (status, headers, body) = match self.view.current().errors {
            ErrorBody::Problem => error.problem(id.as_str()),
            ErrorBody::Envelope => error.envelope(id.as_str(), &[0; 16]),
        };
        self.log().write(&Line {
            now: SystemTime::now(),
            method: "",
            path: "",
            status: status.as_u16(),
            duration: Duration::ZERO,
            bytes_in: 0,
            bytes_out: body.len() as u64,
            client: Some(connection.peer),
            user_agent: None,
            host: "",
            protocol: "",
            route: "none",
            upstream: None,
            endpoint: None,
            attempts: 0,
            not_retried: None,
            hedge: None,
            request_id: id.as_str(),
            trace_id: [0; 16],
            span_id: [0; 8],
            fallback: None,
            error: Some(Failure {
                code: error.code.word(),
                details: error.cause.as_deref(),
            }),
            fault: None,
            services: Services {
                peer: { connection.caller.as_ref() }.map(SpiffeId::as_str),
                ..Services::default()
            },
            listener: &connection.listener_name,
            generation: self.view.current().generation,
        });
        Response::new(status, headers, Body::Full(body))
    }

    /// The line of the listener's setting behind a refusal.
    pub fn listener_place(&self, connection: &Connection, code: Code) -> Option<Place> {
        let world = self.view.current();
        let item = &world.listener(connection.listener)?.item;
        item.place(match code {
            Code::HeaderTimeout => item.header_timeout.at,
            _ => item.max_header_size.at,
        })
    }

    /// A WebSocket that came by extended CONNECT goes on as an HTTP/1 upgrade, which needs a key of its own (RFC 8441
    /// section 5.1).
    pub fn websocket_key(&self, request: &mut Request) {
        if request.upgrade.as_deref() != Some("websocket") {
            return;
        }
        let bytes: [u8; 16] =
            (u128::from(self.random()) << 64 | u128::from(self.random())).to_be_bytes();
        if let Ok(key) = HeaderValue::from_str(&base64::padded(&bytes)) {
            request.headers.insert(header::SEC_WEBSOCKET_KEY, key);
        }
        request
            .headers
            .entry(header::SEC_WEBSOCKET_VERSION)
            .or_insert(HeaderValue::from_static("13"));
    }

    /// Who this request is: its place in a trace and its id.
    fn identify(&self, headers: &HeaderMap, marks: Marks) -> (TraceContext, RequestId) {
        let mut noise = self.noise.borrow_mut();
        let mut trace = if marks.has(Marks::TRACE) {
            TraceContext::from_headers(headers, || noise.draw())
        } else {
            TraceContext::begin(|| noise.draw())
        };
        // Decided where a trace begins; whoever began it before us has decided.
        if trace.parent.is_none() && self.spans().shared().samples(&trace.trace_id) {
            trace.sample();
        }
        let id = if marks.has(Marks::REQUEST_ID) {
            RequestId::from_headers(headers, || noise.draw())
        } else {
            RequestId::make(|| noise.draw())
        };
        (trace, id)
    }

    pub fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    fn log(&self) -> RefMut<'_, WorkerLog> {
        self.log.borrow_mut()
    }

    /// Once in a while: log lines leave and, when `sweep` says so, old connections are closed.
    pub fn tick(&self, now: Instant, sweep: bool) {
        // A worker without requests lets go of the former world, too.
        self.view.current();
        if sweep {
            self.pools.sweep(now);
        }
        self.log().flush();
        self.spans().tick();
    }
}
