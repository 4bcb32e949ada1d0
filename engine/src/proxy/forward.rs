//! Attempts under one deadline: pick an endpoint, find a way to it, send, and judge how it ended, until there is an
//! answer to pass on or nothing left to try.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, StatusCode};
use tollgate_config::{Balance, EndpointSource, HashKey};
use xxhash_rust::xxh3::xxh3_64;

use super::Proxy;
use super::answer::Answer;
use super::books::Exchange;
use super::hedge::{Alone, Race};
use super::learn;
use super::limit::Limit;
use super::replay::SharedSource;
use super::send::{self, Failure, Sent};
use super::split;
use super::tries::{self, Tries};
use super::tunnel::End;
use crate::clock;
use crate::exchange::body::Body;
use crate::exchange::error::{Code, Error, written, written_size};
use crate::exchange::headers::{Sender, is_idempotent};
use crate::exchange::{Request, Response, Target, grpc_code, grpc_status};
use crate::net::tls::{ClientTls, Reason, Refusal, Side};
use crate::snapshot::{RoutePlan, Snapshot, UpstreamPlan};
use crate::telemetry::log;
use crate::telemetry::metrics::{ConnectResult, TimeoutKind};
use crate::upstream::pool::{NoWay, Pool, Way};
use crate::upstream::{Outcome, Slot};

impl Proxy {
    pub(super) async fn forward(
        self: &Rc<Self>,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        branch: usize,
        request: &mut Request,
    ) -> Result<Answer, Error> {
        if exchange
            .left(clock::recent())
            .is_some_and(|left| left.is_zero())
        {
            return Err(Code::DeadlineExceeded.into());
        }
        let branch = learn::branch(exchange, plan, branch)?;
        let Some(target) = plan.compiled.branches.get(branch) else {
            return Err(Code::Internal.into());
        };
        let upstream = target.upstream.clone();
        exchange.branch = Some(branch);
        // A fallback finds the path rewritten already, and so does what was made a call.
        if exchange.fallback.is_none() && !request.is_call {
            rewrite(plan, request)?;
        }
        if let (Some(max), Some(length)) = (plan.item.max_body.value, request.body.length())
            && length > max
        {
            return Err(too_large(plan));
        }
        self.admit(exchange, plan, target, request).await?;
        let source = self.source(exchange, plan, request);
        let key = hash_key(&upstream.item.balance, request, exchange);
        let mut tries = Tries::new(self, plan, target, request, exchange.fallback.is_some());
        let mut fresh = false;
        loop {
            tries.admit(exchange)?;
            let mut now = clock::recent();
            let mut slot = self.pick(exchange, &upstream, key, &tries.tried, now)?;
            exchange.endpoint = Some(slot.endpoint().address());
            let number = slot.endpoint().id();
            exchange.pass.endpoint = number;
            exchange.attempts.set(exchange.attempts.get() + 1);
            let mut made = exchange.attempts.get();
            let attempt = Attempt {
                proxy: self,
                plan,
                upstream: &upstream,
                request,
                source: &source,
                fresh,
                announced: tries.announced,
                number: made,
                hedge: false,
                span_id: self.draw_span_id(),
            };
            attempt.begins(exchange, &slot, now);
            let (ended, beside) = {
                let asked = &*exchange;
                let mut race = Race::Alone(Alone {
                    first: pin!(attempt.run(asked, &mut slot)),
                    attempt: &attempt,
                    tries: &tries,
                    exchange: asked,
                    endpoint: number,
                });
                std::future::poll_fn(|cx| race.poll(cx)).await
            };
            if let Some(beside) = beside {
                made += u32::from(beside.won());
                now = beside.settle(exchange, &mut slot, &mut tries, now);
            }
            let pause = match ended {
                Ok(sent) => match tries.after_answer(exchange, made, &sent, request, &source) {
                    None => {
                        let answer = attempt.accept(exchange, slot, sent);
                        if exchange.outcome == Outcome::Success {
                            upstream.upstream.learn(now, clock::recent());
                        }
                        return Ok(answer);
                    }
                    Some(pause) => {
                        slot.finish(Outcome::Failure, clock::now());
                        exchange.tried.end(made);
                        pause
                    }
                },
                Err(failure)
                    if failure.stale
                        && !fresh
                        && source.borrow().is_repeatable()
                        && (!failure.left || send::is_safe(request)) =>
                {
                    // A pooled connection that its endpoint had closed: no verdict on anybody, and at most one of
                    // these, because a fresh connection is never stale.
                    drop(slot);
                    exchange.tried.forget(made);
                    exchange.attempts.set(exchange.attempts.get() - 1);
                    fresh = true;
                    source.borrow_mut().rewind();
                    continue;
                }
                Err(failure) => {
                    slot.finish(failure.outcome, clock::now());
                    exchange.tried.failed(made, failure.error.code);
                    if matches!(
                        failure.error.code,
                        Code::RouteTimeout | Code::PerTryTimeout | Code::AdaptiveTimeout
                    ) {
                        upstream.upstream.learn(now, clock::recent());
                    }
                    match tries.after_failure(exchange, &failure, request, &source) {
                        Some(pause) => pause,
                        None => {
                            exchange.bytes_in = source.borrow().seen;
                            return Err(failure.error);
                        }
                    }
                }
            };
            tries.tried.push(number);
            fresh = false;
            tries::pause(pause).await;
            source.borrow_mut().rewind();
        }
    }
}

impl Proxy {
    /// The endpoint that is tried next: one of the upstream's, or the one where a captured connection was going.
    fn pick(
        &self,
        exchange: &Exchange,
        upstream: &UpstreamPlan,
        key: Option<u64>,
        tried: &[u32],
        now: Instant,
    ) -> Result<Slot, Error> {
        let none = |why: &str| {
            let name = &upstream.item.name;
            Error::because(Code::NoEndpoint, format!("upstream {name} {why}"))
        };
        if !matches!(upstream.item.endpoints, EndpointSource::Original { .. }) {
            let picked = upstream.upstream.pick(key, tried, now, self.random());
            return picked.map_err(|_| none("has no endpoint"));
        }
        match exchange.connection.original {
            Some(original) => Ok(upstream.upstream.at(original, now)),
            None => Err(none(
                "goes where connections were going, and this one was going nowhere but here",
            )),
        }
    }
}

/// Gives the request the path that the route sends on.
pub(super) fn rewrite(plan: &RoutePlan, request: &mut Request) -> Result<(), Error> {
    if let Some(rewrite) = &plan.item.rewrite {
        let pattern = crate::route::pattern_of(&plan.item.matches);
        let path = crate::route::rewritten(rewrite, pattern, request.target.path())
            .map_err(|_| Error::from(Code::RewriteRefused))?;
        request.target = Target::new(&path, request.target.query());
    }
    Ok(())
}

/// One try against one endpoint.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    proxy: &'a Rc<Proxy>,
    plan: &'a RoutePlan,
    upstream: &'a Arc<UpstreamPlan>,
    request: &'a Request,
    pub(super) source: &'a SharedSource,
    /// Wants a new connection.
    pub(super) fresh: bool,
    /// The next hop is told that we try again.
    announced: bool,
    /// Which try this is, from 1.
    pub(super) number: u32,
    /// It is made beside another.
    hedge: bool,
    /// What the next hop takes for its parent.
    span_id: [u8; 8],
}

impl<'a> Attempt<'a> {
    /// What the balancer goes by.
    pub(super) fn key(&self, exchange: &Exchange) -> Option<u64> {
        hash_key(&self.upstream.item.balance, self.request, exchange)
    }

    /// The same request once more, while this try is under way.
    pub(super) fn beside(&self, source: &'a SharedSource) -> Attempt<'a> {
        Attempt {
            source,
            fresh: false,
            number: self.number + 1,
            hedge: true,
            span_id: self.proxy.draw_span_id(),
            ..*self
        }
    }

    pub(super) fn begins(&self, exchange: &Exchange, slot: &Slot, now: Instant) {
        let (which, endpoint) = ((self.number, self.hedge), slot.endpoint().address());
        { &exchange.tried }.begin(self.span_id, which, exchange.branch, endpoint, now);
    }
}

impl Attempt<'_> {
    pub(super) async fn run(&self, exchange: &Exchange, slot: &mut Slot) -> Result<Sent, Failure> {
        if self.request.is_tunnel() {
            // Rare, and no part of other requests' size.
            return Box::pin(self.tunnel(exchange, slot)).await;
        }
        let way = self.way(exchange, slot).await?;
        let sender = self.sender(exchange);
        let began = clock::recent();
        let limit = Limit::of(exchange, self.plan, self.source, began);
        let pool = self.proxy.pools.of(slot.endpoint());
        let sending = async {
            match way {
                Way::Http1 { .. } if self.request.is_call => Err(Failure::refused(Error::because(
                    Code::ConnectFailed,
                    "the endpoint speaks HTTP/1, and gRPC needs HTTP/2",
                ))),
                Way::Http1 { wire, reused } => {
                    send::over_http1(
                        wire,
                        reused,
                        pool,
                        &sender,
                        self.request,
                        self.source,
                        &limit,
                    )
                    .await
                }
                Way::Http2(place) if self.request.upgrade.is_some() => {
                    let secure = self.upstream.dial.tls.is_some();
                    // Rare, and no part of other requests' size.
                    Box::pin(send::over_extended(place, secure, &sender, self.request)).await
                }
                Way::Http2(place) => {
                    let secure = self.upstream.dial.tls.is_some();
                    send::over_http2(place, secure, &sender, self.request, self.source, &limit)
                        .await
                }
            }
        };
        let mut sending = std::pin::pin!(sending);
        let outcome = std::future::poll_fn(|cx| {
            if let std::task::Poll::Ready(outcome) = sending.as_mut().poll(cx) {
                return std::task::Poll::Ready(Ok(outcome));
            }
            match limit.next() {
                Some((when, why)) => exchange.alarm.poll_at(when, cx).map(|()| Err(why)),
                None => std::task::Poll::Pending,
            }
        })
        .await;
        match outcome {
            Ok(Ok(mut sent)) => {
                let now = clock::now();
                slot.first_byte(now);
                limit.answered(&sent.response, self.plan, now);
                sent.waited = limit.waited(now);
                Ok(sent)
            }
            Ok(Err(mut failure)) => {
                if failure.error.code == Code::BodyTooLarge {
                    failure.error = too_large(self.plan);
                }
                if failure.is_refusal_of_us() {
                    self.refused_us(slot, &failure);
                }
                Err(failure)
            }
            Err(why) => {
                let now = clock::now();
                limit.gave_up(self.plan, now);
                if let Some(kind) = kind(why) {
                    self.upstream.series.timed_out(self.proxy.worker, kind);
                }
                Err(Failure {
                    waited: limit.waited(now),
                    ..Failure::late(why, limit.error(why, self.plan))
                })
            }
        }
    }

    /// A connection of its own; what is said on it is not ours to know.
    async fn tunnel(&self, exchange: &Exchange, slot: &mut Slot) -> Result<Sent, Failure> {
        let pool = self.proxy.pools.of(slot.endpoint());
        let dialling = pool.bytes(&self.upstream.dial);
        let wire = self.connect(exchange, slot, dialling).await?;
        slot.first_byte(clock::now());
        Ok(Sent {
            response: Response::new(StatusCode::OK, HeaderMap::new(), Body::Empty),
            pump: None,
            tunnel: Some(End::Wire(wire)),
            waited: None,
        })
    }

    /// The endpoint, a member of the mesh, did not take our certificate: no connection came about.
    fn refused_us(&self, slot: &Slot, failure: &Failure) {
        let why = failure.error.cause.as_deref().unwrap_or_default();
        let refusal = Refusal::new(Reason::RefusedUs, why);
        if let Some(member) = self.upstream.dial.tls.as_ref().and_then(ClientTls::mesh) {
            member.refuse(Side::Client, refusal.clone());
        }
        { &self.upstream.series }.connected(self.proxy.worker, ConnectResult::Failed);
        self.not_met(slot, &refusal);
    }

    /// Says that an endpoint is not the member that it should be, or that we are none to it.
    fn not_met(&self, slot: &Slot, refusal: &Refusal) {
        static NOT_MET: log::Repeated = log::Repeated::new();
        NOT_MET.warn(
            "an endpoint was not met as a member of the mesh",
            &[
                ("upstream", &self.upstream.item.name),
                ("endpoint", &slot.endpoint().address()),
                ("reason", &refusal.reason.word()),
                ("why", refusal),
            ],
        );
    }

    /// Finds a way to the endpoint.
    async fn way(&self, exchange: &Exchange, slot: &Slot) -> Result<Way, Failure> {
        let pool = self.proxy.pools.of(slot.endpoint());
        let now = clock::recent();
        let http1_only = self.is_for_http1(&pool, now);
        let (dial, client) = (&self.upstream.dial, exchange.connection.number);
        if !self.fresh
            && let Some(way) = pool.ready(dial, client, http1_only, now)
        {
            return Ok(way);
        }
        // Rare and large: boxed, so that requests that find a way do not carry its size.
        let way = Box::pin(self.make_way(exchange, slot, &pool, http1_only)).await;
        clock::now();
        way
    }

    /// Whether nothing but HTTP/1.1 will do, or that is the cheaper where both are spoken. What may not be sent twice goes over
    /// HTTP/2 there: a connection that ends says by GOAWAY what it has not taken, where HTTP/1.1 leaves it open.
    fn is_for_http1(&self, pool: &Pool, now: Instant) -> bool {
        let (request, dial) = (self.request, &self.upstream.dial);
        if request.upgrade.is_some() {
            // Every HTTP/1 endpoint may agree to an upgrade, and few HTTP/2 ones.
            return dial.http2 != Some(true);
        }
        let may = dial.few_over_http1 && !request.is_http2 && !request.is_call;
        may && pool.is_calm(now) && is_idempotent(&request.method, &request.headers)
    }

    async fn make_way(
        &self,
        exchange: &Exchange,
        slot: &Slot,
        pool: &Rc<Pool>,
        http1_only: bool,
    ) -> Result<Way, Failure> {
        let (dial, client) = (&self.upstream.dial, exchange.connection.number);
        let making = pool.make(dial, client, self.fresh, http1_only);
        self.connect(exchange, slot, making).await
    }

    /// Connects within `connect_timeout` and the caller's deadline.
    async fn connect<T>(
        &self,
        exchange: &Exchange,
        slot: &Slot,
        making: impl Future<Output = Result<T, NoWay>>,
    ) -> Result<T, Failure> {
        let item = &self.upstream.item;
        let connect_by = clock::now() + item.connect_timeout.value;
        let by = exchange
            .deadline
            .map_or(connect_by, |deadline| deadline.min(connect_by));
        match exchange.alarm.until(Some(by), making).await {
            Ok(Ok(way)) => Ok(way),
            Ok(Err(NoWay::Full)) => Err(Failure::refused(Error::governed_by(
                Code::Overloaded,
                "upstream.max_connections",
                item.max_connections
                    .value
                    .map_or_else(String::new, |most| most.to_string()),
                item.place(item.max_connections.at),
            ))),
            Ok(Err(no_way)) => {
                self.upstream
                    .series
                    .connected(self.proxy.worker, ConnectResult::Failed);
                if let NoWay::Io(error) = &no_way
                    && let Some(inner) = error.get_ref()
                    && let Some(refusal) = inner.downcast_ref::<Refusal>()
                {
                    self.not_met(slot, refusal);
                }
                let cause = match no_way {
                    NoWay::Io(error) => error.to_string(),
                    NoWay::Http2(error) => error,
                    NoWay::Full => String::new(),
                };
                Err(Failure::connect(Error::because(
                    Code::ConnectFailed,
                    format!("{}: {cause}", slot.endpoint().address()),
                )))
            }
            Err(_) if by < connect_by => Err(Failure::late(
                Code::DeadlineExceeded,
                Code::DeadlineExceeded.into(),
            )),
            Err(_) => {
                self.upstream
                    .series
                    .connected(self.proxy.worker, ConnectResult::TimedOut);
                self.upstream
                    .series
                    .timed_out(self.proxy.worker, TimeoutKind::Connect);
                let mut error = Error::governed_by(
                    Code::ConnectTimeout,
                    "upstream.connect_timeout",
                    written(item.connect_timeout.value),
                    item.place(item.connect_timeout.at),
                );
                error.cause = Some(slot.endpoint().address().to_string().into());
                Err(Failure::connect(error))
            }
        }
    }

    fn sender<'s>(&'s self, exchange: &'s Exchange) -> Sender<'s> {
        Sender {
            peer: &exchange.connection.peer_text,
            scheme: exchange.connection.scheme(),
            trusted: is_trusted(&exchange.world, exchange),
            trace: &exchange.trace,
            span_id: self.span_id,
            request_id: exchange.request_id.as_str(),
            deadline: exchange.left(clock::recent()),
            attempt: self.announced.then_some(self.number),
            hedge: self.hedge,
            caller: exchange.connection.caller.as_ref(),
            host: self
                .plan
                .item
                .rewrite
                .as_ref()
                .and_then(|rewrite| rewrite.host.as_ref()),
        }
    }

    /// This answer is the one that is passed on.
    fn accept(&self, exchange: &mut Exchange, slot: Slot, sent: Sent) -> Answer {
        exchange.slot = Some(slot);
        exchange.outcome = outcome(&sent.response);
        Answer::from_upstream(sent, self.source.clone(), self.plan.item.idle_timeout.value)
    }
}

/// What an answer's head says about its endpoint.
pub(super) fn outcome(response: &Response) -> Outcome {
    match response.status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Outcome::Failure
        }
        StatusCode::TOO_MANY_REQUESTS => Outcome::RateLimited,
        _ if grpc_status(&response.headers) == Some(grpc_code::RESOURCE_EXHAUSTED) => {
            Outcome::RateLimited
        }
        _ => Outcome::Success,
    }
}

fn kind(why: Code) -> Option<TimeoutKind> {
    match why {
        Code::RouteTimeout => Some(TimeoutKind::Route),
        Code::PerTryTimeout => Some(TimeoutKind::PerTry),
        Code::AdaptiveTimeout => Some(TimeoutKind::Adaptive),
        Code::DeadlineExceeded => Some(TimeoutKind::Deadline),
        _ => None,
    }
}

pub(super) fn too_large(plan: &RoutePlan) -> Error {
    let max = plan.item.max_body;
    Error::governed_by(
        Code::BodyTooLarge,
        "route.max_body",
        max.value.map_or_else(String::new, written_size),
        plan.place(max.at),
    )
}

fn is_trusted(world: &Snapshot, exchange: &Exchange) -> bool {
    let connection = &exchange.connection;
    world.listener(connection.listener).is_some_and(|listener| {
        listener
            .item
            .trusted_proxies
            .iter()
            .any(|block| block.contains(connection.peer))
    })
}

fn hash_key(balance: &Balance, request: &Request, exchange: &Exchange) -> Option<u64> {
    let Balance::Hash(key) = balance else {
        return None;
    };
    match key {
        HashKey::Header(name) => request
            .headers
            .get(name)
            .map(HeaderValue::as_bytes)
            .map(xxh3_64),
        HashKey::Cookie(name) => split::cookie(request, name).map(xxh3_64),
        HashKey::Client => Some(xxh3_64(exchange.connection.peer_text.as_bytes())),
        // All tunnels have the same.
        HashKey::Path if request.is_tunnel() => None,
        HashKey::Path => Some(xxh3_64(request.target.path().as_bytes())),
    }
}
