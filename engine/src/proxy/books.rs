//! Everything we know of one exchange, from its first byte to its last, and the one place where its books are closed:
//! the slot returns, balancer and outlier watch hear the outcome, metrics and the access line are written. Closing
//! happens in `Drop`, so an exchange that is abandoned anywhere is still counted, once.

use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tollgate_config::identity::SpiffeId;

use super::Proxy;
use super::carry::Carried;
use super::connection::Connection;
use super::guard::{self, Pass};
use super::learn::Named;
use super::replay::SharedSource;
use super::spans::Tried;
use super::transcode::Translated;
use crate::alarm::Alarm;
use crate::clock;
use crate::exchange::body::Body;
use crate::exchange::error::{Code, Error};
use crate::exchange::headers::deadline;
use crate::exchange::request_id::RequestId;
use crate::exchange::trace::TraceContext;
use crate::exchange::{Marks, Request, grpc_code, grpc_status, is_grpc};
use crate::filter::Notes;
use crate::route::RouteId;
use crate::snapshot::{RoutePlan, Snapshot};
use crate::telemetry::access::{Failure, Line, Services};
use crate::telemetry::metrics::{HedgeResult, Observation};
use crate::upstream::bulkhead::Permit;
use crate::upstream::{Outcome, Slot};

pub struct Exchange {
    pub proxy: Rc<Proxy>,
    pub world: Rc<Arc<Snapshot>>,
    pub connection: Rc<Connection>,
    pub alarm: Rc<Alarm>,
    pub started: Instant,
    /// The caller's own deadline.
    pub deadline: Option<Instant>,
    pub trace: TraceContext,
    pub request_id: RequestId,
    pub method: Method,
    pub path: String,
    pub host: String,
    pub user_agent: Option<HeaderValue>,
    pub is_http2: bool,
    /// What is sent to the upstream is gRPC.
    pub is_grpc: bool,
    /// The client speaks something else.
    pub translated: Option<Translated>,
    pub route: Option<RouteId>,
    /// The service that it names, where its route goes by that.
    pub(super) named: Named,
    /// Which of the route's branches.
    pub branch: Option<usize>,
    pub endpoint: Option<SocketAddr>,
    pub attempts: Cell<u32>,
    pub(super) tried: Tried,
    /// What came of a second try beside the first.
    pub hedge: Cell<Option<HedgeResult>>,
    /// Why it was not tried once more, where the route would have.
    pub not_retried: Option<&'static str>,
    pub status: StatusCode,
    pub error: Option<Code>,
    pub cause: Option<Box<str>>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// The endpoint that answers; it is busy until the last byte.
    pub slot: Option<Slot>,
    pub outcome: Outcome,
    /// Held, over all tries, until the last byte.
    pub permit: Option<Permit>,
    /// Why the route's fallback answers, or is about to.
    pub fallback: Option<&'static str>,
    /// The request's body, kept for a fallback.
    pub(super) source: Option<SharedSource>,
    /// What the upstream's breaker is owed.
    pub pass: Pass,
    /// What the route's filters remember until the answer.
    pub notes: Notes,
    /// A connection's bytes are carried, and no request.
    pub(super) carried: Option<Carried>,
    closed: bool,
}

impl Exchange {
    pub fn begin(
        proxy: &Rc<Proxy>,
        connection: &Rc<Connection>,
        alarm: &Rc<Alarm>,
        request: &Request,
    ) -> Self {
        let started = clock::now();
        let world = proxy.view.current();
        world.begin(proxy.worker);
        let (trace, request_id) = proxy.identify(&request.headers, request.marks);
        Exchange {
            proxy: proxy.clone(),
            world,
            connection: connection.clone(),
            alarm: alarm.clone(),
            started,
            deadline: if request.marks.has(Marks::DEADLINE) {
                deadline(&request.headers).and_then(|left| started.checked_add(left))
            } else {
                None
            },
            trace,
            request_id,
            method: request.method.clone(),
            path: String::new(),
            host: String::new(),
            user_agent: None,
            is_http2: request.is_http2,
            is_grpc: request.marks.has(Marks::CONTENT_TYPE) && is_grpc(&request.headers),
            translated: None,
            route: None,
            named: Named::Nothing,
            branch: None,
            endpoint: None,
            attempts: Cell::new(0),
            tried: Tried::default(),
            hedge: Cell::new(None),
            not_retried: None,
            status: Code::ClientClosed.status(),
            error: Some(Code::ClientClosed),
            cause: None,
            bytes_in: 0,
            bytes_out: 0,
            slot: None,
            outcome: Outcome::Cancelled,
            permit: None,
            fallback: None,
            source: None,
            pass: Pass::default(),
            notes: Notes::default(),
            carried: None,
            closed: false,
        }
    }

    /// Goes on in the newest world. To be called before anything was done with the request.
    pub(super) fn look_again(&mut self) {
        let world = self.proxy.view.current();
        self.world.end(self.proxy.worker);
        world.begin(self.proxy.worker);
        self.world = world;
        self.route = None;
    }

    /// The trailers of a gRPC answer: its head was found good, and they may belie it.
    pub(super) fn heard(&mut self, trailers: &HeaderMap) {
        self.pass.belied |= guard::grpc_failed(trailers);
        let exhausted = grpc_status(trailers) == Some(grpc_code::RESOURCE_EXHAUSTED);
        if exhausted && self.outcome == Outcome::Success {
            self.outcome = Outcome::RateLimited;
        }
    }

    /// Whether answers of ours are to be gRPC.
    pub fn answers_grpc(&self) -> bool {
        self.is_grpc && !matches!(self.translated, Some(Translated::Json { .. }))
    }

    pub fn route(&self) -> Option<&RoutePlan> {
        self.route.map(|id| self.world.route(id))
    }

    /// The answer is ours, for this reason.
    pub fn failed(&mut self, error: &Error) {
        self.error = Some(error.code);
        self.cause.clone_from(&error.cause);
        self.permit = None;
    }

    /// What is left of the caller's deadline.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(now))
    }

    /// The exchange came to its proper end.
    pub fn close(&mut self, now: Instant) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.world.end(self.proxy.worker);
        guard::settle(self, now);
        if let Some(slot) = self.slot.take() {
            slot.finish(self.outcome, now);
        }
        self.permit = None;
        if let Some(carried) = self.carried.take() {
            return carried.close(self, now);
        }
        let plan = self.route();
        let branch = plan.and_then(|plan| plan.compiled.branches.get(self.branch?));
        let series = plan.map_or(&self.world.unmatched, |plan| &plan.compiled.series);
        let duration = now.saturating_duration_since(self.started);
        if let Some(code) = self.error {
            self.proxy.metrics.answered_error(self.proxy.worker, code);
        }
        let ends = self.count_edges(self.outcome_status(), duration, now);
        self.tell_spans(&ends, None, now);
        // Last of all that is counted: whoever sees the request in the figures sees the rest of it, too.
        series.observe(
            self.proxy.worker,
            &Observation {
                method: &self.method,
                status: self.status.as_u16(),
                upstream: self.branch,
                duration,
                bytes_in: self.bytes_in,
                bytes_out: self.bytes_out,
            },
        );
        let mut log = self.proxy.log();
        if !log.is_on() {
            return;
        }
        log.write(&Line {
            now: SystemTime::now(),
            method: self.method.as_str(),
            path: &self.path,
            status: self.status.as_u16(),
            duration,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            client: Some(self.connection.peer),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            host: &self.host,
            protocol: if self.is_http2 { "HTTP/2" } else { "HTTP/1.1" },
            route: plan.map_or("none", |plan| &plan.item.name),
            upstream: branch.map(|branch| branch.upstream.item.name.as_str()),
            endpoint: self.endpoint,
            attempts: self.attempts.get(),
            not_retried: self.not_retried,
            hedge: self.hedge.get().map(HedgeResult::word),
            request_id: self.request_id.as_str(),
            trace_id: self.trace.trace_id,
            span_id: self.trace.span_id,
            fallback: self.fallback,
            error: self.error.map(|code| Failure {
                code: code.word(),
                details: self.cause.as_deref(),
            }),
            fault: self.notes.fault(),
            services: Services {
                edge: ends.both(),
                peer: { self.connection.caller.as_ref() }.map(SpiffeId::as_str),
                access: self.judged(),
            },
            listener: &self.connection.listener_name,
            generation: self.world.generation,
        });
    }
}

/// An exchange and its request, in one box from begin to end. Also of a request that its client gave up before there was
/// an answer the books keep what the access line tells.
pub(super) struct Asked {
    pub(super) exchange: Exchange,
    pub(super) request: Request,
}

impl Asked {
    pub(super) fn begin(
        proxy: &Rc<Proxy>,
        connection: &Rc<Connection>,
        alarm: &Rc<Alarm>,
        request: Request,
    ) -> Box<Self> {
        let exchange = Exchange::begin(proxy, connection, alarm, &request);
        Box::new(Asked { exchange, request })
    }

    /// The request is not needed any more but for what the access line tells.
    pub(super) fn remember(&mut self) {
        let request = &mut self.request;
        self.exchange.path = match &mut self.exchange.translated {
            Some(Translated::Json { path }) => std::mem::take(path),
            _ => request.target.take_path(),
        };
        self.exchange.host = std::mem::take(&mut request.authority);
        self.exchange.user_agent = request.headers.remove(header::USER_AGENT);
        request.headers = HeaderMap::new();
        request.body = Body::Empty;
    }
}

impl Deref for Asked {
    type Target = Exchange;
    fn deref(&self) -> &Exchange {
        &self.exchange
    }
}

impl DerefMut for Asked {
    fn deref_mut(&mut self) -> &mut Exchange {
        &mut self.exchange
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Every request has a path.
        if self.exchange.path.is_empty() {
            self.remember();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.close(clock::now());
    }
}
