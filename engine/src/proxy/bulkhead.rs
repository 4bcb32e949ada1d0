//! Before the first try: a permit of the upstream's bulkhead, at once or after waiting for it. The wait ends with the
//! queue's patience, the route's time-out or the caller's deadline, whichever comes first; a request that has no time
//! left is not sent. The exchange holds the permit, over all its tries, until its books are closed.

use std::time::{Duration, Instant};

use tollgate_config::{MaxInFlight, Priority};

use super::Proxy;
use super::books::Exchange;
use super::guard;
use crate::clock;
use crate::exchange::Request;
use crate::exchange::error::{Code, Error, written};
use crate::snapshot::{Branch, RoutePlan, UpstreamPlan};
use crate::telemetry::metrics::{Refusal, TimeoutKind};
use crate::upstream::bulkhead::{Entry, Shed, Wait};

/// Clients that come back sooner find the same queue.
const COME_BACK: Duration = Duration::from_secs(1);

impl Proxy {
    /// Gives the exchange its permit, or says why it has none.
    pub(super) async fn admit(
        &self,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        branch: &Branch,
        request: &Request,
    ) -> Result<(), Error> {
        let upstream = &*branch.upstream;
        let priority = plan.item.priority.value;
        let now = clock::recent();
        let entry = match upstream.upstream.enter(priority, now) {
            None => return Ok(()),
            Some(Entry::Permit(permit)) => {
                exchange.permit = Some(permit);
                return Ok(());
            }
            Some(entry) => entry,
        };
        let own = branch.guards.of(&request.method);
        if let Some(policy) = &upstream.item.breaker
            && own.breaker.refuses(policy, now)
        {
            // Nobody waits for an upstream that is left alone; the breaker says what the client is told.
            guard::admit(exchange, upstream, own, now)?;
        }
        match entry {
            Entry::Wait(wait) => Box::pin(self.wait(exchange, plan, upstream, request, wait)).await,
            _ => {
                upstream
                    .series
                    .refused(self.worker, priority, Refusal::Full);
                Err(full(upstream))
            }
        }
    }

    async fn wait(
        &self,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        upstream: &UpstreamPlan,
        request: &Request,
        mut wait: Wait,
    ) -> Result<(), Error> {
        let priority = plan.item.priority.value;
        let began = clock::now();
        let (by, why) = end(exchange, plan, upstream, request, began);
        let ended = exchange.alarm.until(Some(by), &mut wait).await;
        let now = clock::now();
        let series = &upstream.series;
        match ended {
            Ok(Ok(permit)) => {
                series.waited(self.worker, now.saturating_duration_since(began));
                if exchange.left(now).is_some_and(|left| left.is_zero()) {
                    series.timed_out(self.worker, TimeoutKind::Deadline);
                    return Err(Code::DeadlineExceeded.into());
                }
                exchange.permit = Some(permit);
                Ok(())
            }
            Ok(Err(Shed)) => {
                series.refused(self.worker, priority, Refusal::Shed);
                Err(shed(plan))
            }
            Err(_) => {
                wait.expire();
                series.refused(self.worker, priority, Refusal::Expired);
                match why {
                    Code::DeadlineExceeded => series.timed_out(self.worker, TimeoutKind::Deadline),
                    Code::RouteTimeout => series.timed_out(self.worker, TimeoutKind::Route),
                    _ => {}
                }
                Err(late(why, plan, upstream))
            }
        }
    }
}

/// When waiting is over, and what it is called then.
fn end(
    exchange: &Exchange,
    plan: &RoutePlan,
    upstream: &UpstreamPlan,
    request: &Request,
    began: Instant,
) -> (Instant, Code) {
    let queue = upstream.item.queue.as_ref();
    let patience = queue.map_or(Duration::ZERO, |queue| queue.timeout.value);
    // A body that still comes has not used up any of the route's time yet.
    let whole = plan
        .item
        .timeout
        .value
        .filter(|_| request.body.is_empty())
        .map(|timeout| (exchange.started + timeout, Code::RouteTimeout));
    let callers = exchange
        .deadline
        .map(|deadline| (deadline, Code::DeadlineExceeded));
    [whole, callers].into_iter().flatten().fold(
        (began + patience, Code::Overloaded),
        |first, other| {
            if other.0 < first.0 { other } else { first }
        },
    )
}

fn full(upstream: &UpstreamPlan) -> Error {
    let limit = upstream.item.max_in_flight;
    let value = match limit.value {
        Some(MaxInFlight::Fixed(most)) => most.to_string(),
        Some(MaxInFlight::Adaptive { .. }) => "adaptive".into(),
        None => "off".into(),
    };
    Error {
        retry_after: Some(COME_BACK),
        ..Error::governed_by(
            Code::Overloaded,
            "upstream.max_in_flight",
            value,
            upstream.item.place(limit.at),
        )
    }
}

fn shed(plan: &RoutePlan) -> Error {
    let priority = plan.item.priority;
    let word = match priority.value {
        Priority::Critical => "critical",
        Priority::Default => "default",
        Priority::Sheddable => "sheddable",
    };
    Error {
        retry_after: Some(COME_BACK),
        ..Error::governed_by(
            Code::Shed,
            "route.priority",
            word.into(),
            plan.place(priority.at),
        )
    }
}

fn late(why: Code, plan: &RoutePlan, upstream: &UpstreamPlan) -> Error {
    match (why, &upstream.item.queue, plan.item.timeout) {
        (Code::Overloaded, Some(queue), _) => Error {
            retry_after: Some(COME_BACK),
            ..Error::governed_by(
                Code::Overloaded,
                "upstream.queue.timeout",
                written(queue.timeout.value),
                upstream.item.place(queue.timeout.at),
            )
        },
        (Code::RouteTimeout, _, timeout) => Error::governed_by(
            Code::RouteTimeout,
            "route.timeout",
            timeout.value.map_or_else(|| "off".into(), written),
            plan.place(timeout.at),
        ),
        _ => why.into(),
    }
}
