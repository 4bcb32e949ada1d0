//! The times that end a try before its answer came: the route's, the try's own, the caller's, and those of a request
//! body that is still on its way. Says when the next one falls due and how it is explained; waits for nothing itself.

use std::time::{Duration, Instant};

use http::StatusCode;

use super::books::Exchange;
use super::replay::SharedSource;
use crate::clock;
use crate::exchange::error::{Code, Error, written};
use crate::exchange::{Response, grpc_code, grpc_status};
use crate::snapshot::RoutePlan;

/// The slowest a request body may come over HTTP/1, in bytes a second, once the idle time-out has passed (HI-24).
const SLOWEST_BODY: u64 = 256;
/// The times that end a try before its answer came.
pub(super) struct Limit {
    began: Instant,
    timeout: Option<Duration>,
    per_try: Option<Duration>,
    /// Found by watching the route's answers.
    adaptive: Option<Duration>,
    deadline: Option<Instant>,
    body_idle: Option<Duration>,
    /// A body over HTTP/1 must come at `SLOWEST_BODY` on average, beyond one idle time-out: a byte now and then would
    /// hold a connection for ever. Streams over HTTP/2 (gRPC) may be as slow as they like.
    hurried: bool,
    /// Bytes of the body that came.
    seen: std::cell::Cell<u64>,
    /// When the request had been sent as a whole; a body that still comes is governed by its own times.
    sent: std::cell::Cell<Option<Instant>>,
    moved: std::cell::Cell<Instant>,
}

impl Limit {
    pub(super) fn of(
        exchange: &Exchange,
        plan: &RoutePlan,
        source: &SharedSource,
        began: Instant,
    ) -> Self {
        let item = &plan.item;
        let source = source.borrow();
        let started = exchange.started;
        Limit {
            began,
            timeout: item.timeout.value,
            per_try: item
                .retry
                .value
                .as_ref()
                .and_then(|retry| retry.per_try_timeout.value),
            adaptive: plan.adaptive_timeout(),
            deadline: exchange.deadline,
            body_idle: item.idle_timeout.value,
            hurried: !exchange.is_http2,
            seen: std::cell::Cell::new(0),
            sent: std::cell::Cell::new(
                (source.ended || source.length() == Some(0)).then_some(started),
            ),
            moved: std::cell::Cell::new(began),
        }
    }

    /// A piece of the request's body went by.
    pub(super) fn moved(&self, seen: u64) {
        self.seen.set(seen);
        self.moved.set(clock::now());
    }

    /// The last byte of the request went out.
    pub(super) fn sent(&self) {
        if self.sent.get().is_none() {
            self.sent.set(Some(clock::now()));
        }
    }

    /// The next moment at which this try is over, and why.
    pub(super) fn next(&self) -> Option<(Instant, Code)> {
        let own = match self.sent.get() {
            Some(sent) => {
                let whole = self.timeout.map(|after| (sent + after, Code::RouteTimeout));
                let once = self
                    .per_try
                    .map(|after| (sent.max(self.began) + after, Code::PerTryTimeout));
                let usual = self
                    .adaptive
                    .map(|after| (sent.max(self.began) + after, Code::AdaptiveTimeout));
                earlier(earlier(whole, once), usual)
            }
            None => {
                let idle = self
                    .body_idle
                    .map(|after| (self.moved.get() + after, Code::BodyTimeout));
                let earned = Duration::from_secs(self.seen.get() / SLOWEST_BODY);
                let whole = self
                    .body_idle
                    .filter(|_| self.hurried)
                    .map(|after| (self.began + after + earned, Code::BodyTimeout));
                earlier(idle, whole)
            }
        };
        earlier(own, self.deadline.map(|at| (at, Code::DeadlineExceeded)))
    }

    /// The route's pace learns from answers that took an endpoint's work; refusals and failures may come at any time.
    pub(super) fn answered(&self, response: &Response, plan: &RoutePlan, now: Instant) {
        if let (Some(pace), Some(waited)) = (&plan.compiled.pace, self.waited(now))
            && !response.status.is_server_error()
            && response.status != StatusCode::TOO_MANY_REQUESTS
            && grpc_status(&response.headers).is_none_or(|code| code == grpc_code::OK)
        {
            pace.answered(waited);
        }
    }

    /// A try is over before its answer came, whichever time it was that passed.
    pub(super) fn gave_up(&self, plan: &RoutePlan, now: Instant) {
        if let (Some(pace), Some(waited)) = (&plan.compiled.pace, self.waited(now)) {
            pace.gave_up(waited);
        }
    }

    /// How long the answer has been waited for; `None` while the request is still on its way.
    pub(super) fn waited(&self, now: Instant) -> Option<Duration> {
        let sent = self.sent.get()?.max(self.began);
        Some(now.saturating_duration_since(sent))
    }

    pub(super) fn error(&self, why: Code, plan: &RoutePlan) -> Error {
        let item = &plan.item;
        let governed = |setting, after: Option<Duration>, at| {
            Error::governed_by(
                why,
                setting,
                after.map_or_else(|| "off".into(), written),
                plan.place(at),
            )
        };
        match why {
            Code::RouteTimeout => governed("route.timeout", self.timeout, item.timeout.at),
            Code::PerTryTimeout => {
                let at = item
                    .retry
                    .value
                    .as_ref()
                    .map(|retry| retry.per_try_timeout.at)
                    .unwrap_or_default();
                governed("route.retry.per_try_timeout", self.per_try, at)
            }
            Code::AdaptiveTimeout => governed(
                "route.adaptive_timeout",
                self.adaptive,
                item.adaptive_timeout.at,
            ),
            Code::BodyTimeout => {
                governed("route.idle_timeout", self.body_idle, item.idle_timeout.at)
            }
            _ => why.into(),
        }
    }
}

fn earlier(
    one: Option<(Instant, Code)>,
    other: Option<(Instant, Code)>,
) -> Option<(Instant, Code)> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.0 < one.0 { other } else { one }),
        (one, other) => one.or(other),
    }
}
