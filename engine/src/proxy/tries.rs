//! What the tries of one request have in common: which endpoints had theirs, how many were made, and whether another is
//! worth making. `retry` says whether the route wants it; here the caller's deadline, the upstream's breaker and its
//! budget have their word. Whoever is refused another try gets what the last one brought.

use std::time::Duration;

use tollgate_config::Retry;

use super::Proxy;
use super::books::Exchange;
use super::guard;
use super::hedge::First;
use super::replay::SharedSource;
use super::retry::{self, Ending, Try, Wish};
use super::send::{Failure, Sent};
use crate::clock;
use crate::exchange::error::Error;
use crate::exchange::{Marks, Request, grpc_code, grpc_status};
use crate::snapshot::{Branch, RoutePlan, UpstreamPlan};
use crate::telemetry::metrics::RetryClass;
use crate::upstream::{Guard, Outcome};

pub(super) struct Tries<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) plan: &'a RoutePlan,
    pub(super) upstream: &'a UpstreamPlan,
    pub(super) guard: &'a Guard,
    /// `None`: off, or whoever asks us tries again itself.
    rules: Option<&'a Retry>,
    /// The next hop is told to leave trying again to us (GW-509).
    pub announced: bool,
    /// Numbers of the endpoints that failed.
    pub tried: Vec<u32>,
    /// Retries made.
    made: u32,
    /// The budget knows of this request.
    counted: bool,
    /// The first try, where it may get another beside it.
    pub(super) first: First,
}

impl<'a> Tries<'a> {
    pub(super) fn new(
        proxy: &'a Proxy,
        plan: &'a RoutePlan,
        branch: &'a Branch,
        request: &Request,
        is_fallback: bool,
    ) -> Self {
        let rules = plan.item.retry.value.as_ref();
        let rules = rules.filter(|_| !request.marks.has(Marks::ATTEMPT));
        let announced =
            rules.is_some_and(|rules| retry::repeats(rules, &request.method, &request.headers));
        let hedge = rules.and_then(|rules| rules.hedge.value);
        Tries {
            first: match hedge {
                Some(hedge) if announced && !is_fallback && request.upgrade.is_none() => {
                    First::of(hedge, plan)
                }
                _ => First::default(),
            },
            proxy,
            plan,
            upstream: &branch.upstream,
            guard: branch.guards.of(&request.method),
            rules,
            announced,
            tried: Vec::new(),
            made: 0,
            counted: false,
        }
    }

    /// Before each try: the breaker is asked, before anything is looked up or connected (GW-401).
    pub(super) fn admit(&mut self, exchange: &mut Exchange) -> Result<(), Error> {
        let now = clock::recent();
        guard::admit(exchange, self.upstream, self.guard, now)?;
        if !std::mem::replace(&mut self.counted, true) && self.upstream.item.retry_budget.is_some()
        {
            self.upstream
                .guards
                .budget
                .first_try(self.proxy.worker, now);
        }
        Ok(())
    }

    /// After the head of the answer to the try of this number: the pause before another try, or `None` when this answer is passed on.
    pub(super) fn after_answer(
        &mut self,
        exchange: &mut Exchange,
        number: u32,
        sent: &Sent,
        request: &Request,
        source: &SharedSource,
    ) -> Option<Duration> {
        let (status, headers) = (sent.response.status, &sent.response.headers);
        let good = guard::is_good(status, headers, exchange.is_grpc);
        exchange.tried.answered(number, status, good);
        let worker = self.proxy.worker;
        exchange.pass.judge(
            worker,
            self.upstream,
            self.guard,
            good,
            sent.waited,
            clock::recent(),
        );
        if good {
            return None;
        }
        let unavailable = grpc_status(headers) == Some(grpc_code::UNAVAILABLE);
        let tried = Try {
            ending: if unavailable {
                Ending::Unavailable
            } else {
                Ending::Status(status)
            },
            left: true,
            repeatable: source.borrow().is_repeatable() && sent.tunnel.is_none(),
            ..self.so_far(request, Wish::of(headers))
        };
        self.again(exchange, &tried, source)
    }

    /// After a try without an answer: the pause before another, or `None` when this failure is told.
    pub(super) fn after_failure(
        &mut self,
        exchange: &mut Exchange,
        failure: &Failure,
        request: &Request,
        source: &SharedSource,
    ) -> Option<Duration> {
        if failure.outcome == Outcome::Failure {
            exchange.pass.judge(
                self.proxy.worker,
                self.upstream,
                self.guard,
                false,
                failure.waited,
                clock::recent(),
            );
        } else {
            exchange.pass.give_back(self.guard);
        }
        let tried = Try {
            ending: failure.ending,
            left: failure.left,
            repeatable: source.borrow().is_repeatable() && failure.again,
            ..self.so_far(request, None)
        };
        self.again(exchange, &tried, source)
    }

    fn so_far<'r>(&self, request: &'r Request, wish: Option<Wish>) -> Try<'r> {
        Try {
            ending: Ending::Reset,
            left: true,
            repeatable: false,
            method: &request.method,
            headers: &request.headers,
            made: self.made,
            wish,
            elsewhere: self.upstream.upstream.endpoints().len() > self.tried.len() + 1,
        }
    }

    fn again(
        &mut self,
        exchange: &mut Exchange,
        tried: &Try<'_>,
        source: &SharedSource,
    ) -> Option<Duration> {
        let pause = retry::decide(self.rules, tried, self.proxy.random())?;
        let (now, worker) = (clock::now(), self.proxy.worker);
        let (item, guards) = (&self.upstream.item, &self.upstream.guards);
        // The route's time runs from the end of the request; of a body we do not know when that was.
        let bodiless = source.borrow().length() == Some(0);
        let by = match self.plan.item.timeout.value {
            Some(timeout) if bodiless => Some(exchange.started + timeout),
            _ => None,
        };
        let late = |at: Option<std::time::Instant>| at.is_some_and(|at| now + pause >= at);
        let why_not = if late(exchange.deadline) || late(by) {
            "deadline"
        } else if item
            .breaker
            .as_ref()
            .is_some_and(|policy| self.guard.breaker.refuses(policy, now))
        {
            "circuit_open"
        } else if item
            .retry_budget
            .as_ref()
            .is_some_and(|policy| !guards.budget.spend(policy, now))
        {
            self.upstream.series.budget_exhausted(worker);
            "retry_budget_exhausted"
        } else {
            self.upstream.series.retried(worker, class(tried.ending));
            self.made += 1;
            return Some(pause);
        };
        exchange.not_retried = Some(why_not);
        None
    }
}

/// Waits before the next try.
pub(super) async fn pause(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
        clock::now();
    }
}

fn class(ending: Ending) -> RetryClass {
    match ending {
        Ending::Connect => RetryClass::Connect,
        Ending::Reset => RetryClass::Reset,
        Ending::PerTry => RetryClass::PerTryTimeout,
        Ending::Status(_) => RetryClass::Status,
        Ending::Unavailable => RetryClass::Unavailable,
    }
}
