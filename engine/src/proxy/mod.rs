//! The life of a request, from a head that was read to a head that can be written. `Proxy::handle` is the page
//! everyone reads first.
//!
//! A `Proxy` belongs to one worker. It knows no TOML, no TLS types and no sockets other than through the pool.

mod answer;
mod books;
pub mod connection;
mod forward;
mod replay;
mod retry;
mod send;
mod split;
pub mod tunnel;

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tollgate_config::Action;

pub use answer::Answer;
pub use books::Exchange;
pub use connection::Connection;

use crate::alarm::Alarm;
use crate::exchange::body::Body;
use crate::exchange::error::{Code, Error};
use crate::exchange::trace::TraceContext;
use crate::exchange::{Request, Response};
use crate::route::{Found, Lookup};
use crate::snapshot::store::{Store, View};
use crate::telemetry::access::WorkerLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::pool::Pools;

pub struct Proxy {
    /// This worker's number, from 0.
    pub worker: usize,
    pub view: View,
    pub pools: Pools,
    pub metrics: Arc<Metrics>,
    log: Option<RefCell<WorkerLog>>,
    random: RefCell<fastrand::Rng>,
    /// Set when the process stops: answers close their connections.
    pub stopping: Cell<bool>,
}

impl Proxy {
    pub fn new(worker: usize, store: Arc<Store>, metrics: Arc<Metrics>, log: Option<WorkerLog>) -> Self {
        Proxy {
            worker,
            view: View::new(store),
            pools: Pools::default(),
            metrics,
            log: log.map(RefCell::new),
            random: RefCell::new(fastrand::Rng::new()),
            stopping: Cell::new(false),
        }
    }

    /// Answers one request. Dropping the future abandons the exchange: what was asked of an upstream is cancelled and
    /// the books are closed as `client_closed`.
    pub async fn handle(self: &Rc<Self>, connection: &Rc<Connection>, alarm: &Rc<Alarm>, mut request: Request) -> Answer {
        let mut exchange = Exchange::begin(self, connection, alarm, &request);
        let answered = match self.route(&mut exchange, &request) {
            Ok(()) => self.act(&mut exchange, &mut request).await,
            Err(error) => Err(error),
        };
        let mut answer = match answered {
            Ok(answer) => answer,
            Err(error) => Answer::of(self.explain(&mut exchange, &error)),
        };
        if let Some(plan) = exchange.route() {
            plan.compiled.chain.on_response(&mut answer.response);
        }
        exchange.remember(&mut request);
        answer.open(exchange)
    }

    /// Finds the route; refuses what no route may have.
    fn route(&self, exchange: &mut Exchange, request: &Request) -> Result<(), Error> {
        let world = exchange.world.clone();
        let found = world.table.find(&Lookup {
            listener: exchange.connection.listener,
            host: &request.authority,
            path: request.target.path(),
            query: request.target.query(),
            method: &request.method,
            headers: &request.headers,
        });
        match found {
            Found::Route(id) => exchange.route = Some(id),
            Found::MethodNotAllowed(allowed) => {
                return Err(Error { allow: Some(allowed.to_string().into()), ..Code::MethodNotAllowed.into() });
            }
            Found::NotFound => return Err(Code::NoRoute.into()),
        }
        let listener = world.listener(exchange.connection.listener);
        let covered = listener
            .and_then(|listener| listener.tls.as_ref())
            .is_none_or(|tls| tls.serves(exchange.connection.sni.as_deref(), &request.authority));
        if !covered {
            return Err(Code::Misdirected.into());
        }
        let named = |method: Method| exchange.route().is_some_and(|plan| plan.item.matches.methods.contains(&method));
        let tunnel = request.is_http2 && request.upgrade.is_some();
        match request.method {
            Method::TRACE if !named(Method::TRACE) => Err(Code::MethodRefused.into()),
            Method::CONNECT if !tunnel => Err(Code::MethodRefused.into()),
            _ => Ok(()),
        }
    }

    /// Runs the route's filters, then does what the route says.
    async fn act(self: &Rc<Self>, exchange: &mut Exchange, request: &mut Request) -> Result<Answer, Error> {
        let world = exchange.world.clone();
        let Some(id) = exchange.route else { return Err(Code::NoRoute.into()) };
        let plan = world.route(id);
        plan.compiled.chain.on_request(request)?;
        match &plan.item.action {
            Action::Upstream(_) => self.forward(exchange, plan, 0, request).await,
            Action::Split { sticky, .. } => {
                let branch = split::choose(&plan.compiled, sticky.as_ref(), request, &exchange.connection, self.random());
                self.forward(exchange, plan, branch, request).await
            }
            Action::Respond { status, body, headers } => {
                let headers: HeaderMap = headers.iter().cloned().collect();
                Ok(Answer::of(Response::new(*status, headers, Body::Full(Bytes::copy_from_slice(body.as_bytes())))))
            }
            Action::Redirect { to, status } => {
                let pattern = crate::route::pattern_of(&plan.item.matches);
                let target = crate::route::redirect_target(to, pattern, request.target.path(), request.target.query());
                let location = HeaderValue::from_str(&target).map_err(|_| Error::from(Code::RewriteRefused))?;
                let headers = HeaderMap::from_iter([(header::LOCATION, location)]);
                Ok(Answer::of(Response::new(*status, headers, Body::Empty)))
            }
        }
        .inspect(|_| exchange.error = None)
    }

    /// Our own answer, in the caller's language.
    pub fn explain(&self, exchange: &mut Exchange, error: &Error) -> Response {
        exchange.failed(error);
        if exchange.is_grpc {
            return Response::new(StatusCode::OK, error.grpc(), Body::Empty);
        }
        let (status, headers, body) = error.problem(&exchange.request_id);
        Response::new(status, headers, Body::Full(body))
    }

    /// Who this request is: its place in a trace and its id.
    fn identify(&self, headers: &HeaderMap) -> (TraceContext, String) {
        let mut random = self.random.borrow_mut();
        let trace = TraceContext::from_headers(headers, || random.u64(..));
        let id = crate::exchange::request_id::of(headers, || random.u64(..));
        (trace, id)
    }

    pub fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    fn log(&self) -> Option<RefMut<'_, WorkerLog>> {
        self.log.as_ref().map(RefCell::borrow_mut)
    }

    /// Once in a while: log lines leave and, when `sweep` says so, old connections are closed.
    pub fn tick(&self, now: Instant, sweep: bool) {
        if sweep {
            self.pools.sweep(now);
        }
        if let Some(mut log) = self.log() {
            log.flush();
        }
    }
}
