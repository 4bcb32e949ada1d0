//! Between an exchange and its upstream's breaker: asks for each try, tells how each ended, says what a client is told
//! when the answer is no. Decides nothing; the breaker does.

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use tollgate_config::At;

use super::books::Exchange;
use crate::exchange::error::{Code, Error, written};
use crate::exchange::{grpc_code, grpc_status};
use crate::snapshot::UpstreamPlan;
use crate::telemetry::log;
use crate::telemetry::metrics::{BreakerReason, BreakerResult, BreakerState};
use crate::upstream::breaker::{Change, Permit, Refused};
use crate::upstream::{Guard, Outcome};

/// What an exchange holds of its upstream's breaker.
#[derive(Default)]
pub struct Pass {
    permit: Option<Permit>,
    /// The answer's head was found good; what comes after may belie it.
    judged: bool,
    /// Trailers told of a failure.
    pub belied: bool,
    /// The number of the endpoint that is being tried.
    pub endpoint: u32,
}

/// Asks the breaker, unless a permit is still unused.
#[inline]
pub(super) fn admit(
    exchange: &mut Exchange,
    upstream: &UpstreamPlan,
    guard: &Guard,
    now: Instant,
) -> Result<(), Error> {
    let (Some(policy), None) = (&upstream.item.breaker, &exchange.pass.permit) else {
        return Ok(());
    };
    let worker = exchange.proxy.worker;
    let admitted = guard
        .breaker
        .admit(policy, now, &mut |change| tell(upstream, guard, change));
    match admitted {
        Ok(permit) => {
            let result = if permit.is_probe() {
                BreakerResult::Probe
            } else {
                BreakerResult::Admitted
            };
            upstream.series.breaker_said(worker, result);
            exchange.pass.permit = Some(permit);
            Ok(())
        }
        Err(refused) => {
            upstream.series.breaker_said(worker, BreakerResult::Refused);
            Err(error(upstream, guard, refused))
        }
    }
}

impl Pass {
    /// A permit for a try beside another, from a breaker that is closed. While it is half-open, the answer of each probe
    /// is what we want to know: none of them is raced, and nobody takes a probe's place for being impatient.
    pub(super) fn beside(
        worker: usize,
        upstream: &UpstreamPlan,
        guard: &Guard,
        now: Instant,
    ) -> Option<Pass> {
        let Some(policy) = &upstream.item.breaker else {
            return Some(Pass::default());
        };
        if guard.breaker.state() != BreakerState::Closed {
            return None;
        }
        let admitted = guard
            .breaker
            .admit(policy, now, &mut |change| tell(upstream, guard, change));
        let permit = admitted.ok()?;
        if permit.is_probe() {
            guard.breaker.cancelled(permit);
            return None;
        }
        upstream
            .series
            .breaker_said(worker, BreakerResult::Admitted);
        Some(Pass {
            permit: Some(permit),
            ..Pass::default()
        })
    }

    /// A try has had its answer's head (good or not), or failed without one, after waiting for it so long.
    #[inline]
    pub(super) fn judge(
        &mut self,
        worker: usize,
        upstream: &UpstreamPlan,
        guard: &Guard,
        good: bool,
        waited: Option<Duration>,
        now: Instant,
    ) {
        let (Some(policy), Some(permit)) = (&upstream.item.breaker, &mut self.permit) else {
            return;
        };
        let mut hear = |change| tell(upstream, guard, change);
        let slow = waited.is_some_and(|waited| {
            guard
                .breaker
                .timed(policy, worker, permit, waited, now, &mut hear)
        });
        let good = good && !slow;
        if !good {
            place(permit, upstream, self.endpoint, now);
        }
        guard
            .breaker
            .answered(policy, worker, permit, good, now, &mut hear);
        self.judged = good;
        if !good {
            self.permit = None;
        }
    }

    /// A try was given up for another, after waiting for its answer so long. That it was slow may be certain already; more
    /// is not known.
    pub(super) fn outrun(
        &mut self,
        worker: usize,
        upstream: &UpstreamPlan,
        guard: &Guard,
        waited: Duration,
        now: Instant,
    ) {
        let (Some(policy), Some(permit)) = (&upstream.item.breaker, self.permit.take()) else {
            return;
        };
        if waited > policy.slow_after.value {
            let mut hear = |change| tell(upstream, guard, change);
            let _no_probe = guard
                .breaker
                .timed(policy, worker, &permit, waited, now, &mut hear);
        }
        guard.breaker.cancelled(permit);
    }

    /// A try ended without saying anything about the upstream.
    pub(super) fn give_back(&mut self, guard: &Guard) {
        if let Some(permit) = self.permit.take() {
            guard.breaker.cancelled(permit);
        }
    }
}

/// Says where the failure was, when it is for outlier detection to deal with a few endpoints that fail.
#[cold]
fn place(permit: &mut Permit, upstream: &UpstreamPlan, endpoint: u32, now: Instant) {
    if upstream.item.outlier.is_some() {
        let endpoints = upstream.upstream.endpoints();
        let out = endpoints.iter().filter(|one| !one.is_healthy(now));
        permit.went_to(endpoint, endpoints.len(), out.map(|one| one.id()));
    }
}

/// The exchange is over: what is still held goes back, and what was belied is told.
#[inline]
pub(super) fn settle(exchange: &mut Exchange, now: Instant) {
    let failed = exchange.pass.belied || exchange.outcome == Outcome::Failure;
    if exchange.pass.permit.is_some() && (failed || !exchange.pass.judged) {
        settle_rest(exchange, now);
    }
}

#[cold]
fn settle_rest(exchange: &mut Exchange, now: Instant) {
    let (Some(mut permit), Some(branch)) = (exchange.pass.permit.take(), exchange.branch) else {
        return;
    };
    let Some(plan) = exchange.route() else { return };
    let Some(branch) = plan.compiled.branches.get(branch) else {
        return;
    };
    let (upstream, guard) = (&*branch.upstream, branch.guards.of(&exchange.method));
    match &upstream.item.breaker {
        Some(policy) if exchange.pass.judged => {
            let worker = exchange.proxy.worker;
            place(&mut permit, upstream, exchange.pass.endpoint, now);
            guard
                .breaker
                .belied(policy, worker, permit, now, &mut |change| {
                    tell(upstream, guard, change);
                });
        }
        _ => guard.breaker.cancelled(permit),
    }
}

/// GW-405: what counts as a failure of the upstream.
pub(super) fn is_good(status: StatusCode, headers: &HeaderMap, is_grpc: bool) -> bool {
    !(status.is_server_error() || is_grpc && grpc_failed(headers))
}

/// UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE or DATA_LOSS.
pub(super) fn grpc_failed(headers: &HeaderMap) -> bool {
    matches!(
        grpc_status(headers),
        Some(
            grpc_code::UNKNOWN
                | grpc_code::DEADLINE_EXCEEDED
                | grpc_code::INTERNAL
                | grpc_code::UNAVAILABLE
                | grpc_code::DATA_LOSS
        )
    )
}

/// What a client is told: the setting that opened it, or the one that bounds probes.
#[cold]
fn error(upstream: &UpstreamPlan, guard: &Guard, refused: Refused) -> Error {
    let item = &upstream.item;
    let policy = item.breaker.unwrap_or_default();
    let governed = |setting, value: String, at: At| {
        Error::governed_by(Code::CircuitOpen, setting, value, item.place(at))
    };
    let opened = || {
        governed(
            "upstream.breaker.open_for",
            written(policy.open_for.value),
            policy.open_for.at,
        )
    };
    let mut error = match refused.reason {
        _ if refused.probing => governed(
            "upstream.breaker.probes",
            policy.probes.value.to_string(),
            policy.probes.at,
        ),
        Some(BreakerReason::Failures) => governed(
            "upstream.breaker.failures",
            policy.failures.value.to_string(),
            policy.failures.at,
        ),
        Some(BreakerReason::ErrorRate) => governed(
            "upstream.breaker.error_rate",
            policy
                .error_rate
                .value
                .map_or_else(|| "off".into(), |rate| rate.to_string()),
            policy.error_rate.at,
        ),
        Some(BreakerReason::Deviation) => {
            governed("upstream.breaker.kind", "adaptive".into(), policy.kind.at)
        }
        Some(BreakerReason::Slow) => governed(
            "upstream.breaker.slow_share",
            policy.slow_share.value.to_string(),
            policy.slow_share.at,
        ),
        Some(BreakerReason::Operator) => Code::CircuitOpen.into(),
        _ => opened(),
    };
    let why = match refused.reason {
        _ if refused.probing => "half_open",
        Some(reason) => reason.word(),
        None => "open",
    };
    error.cause = Some(format!("upstream {}, {}: {why}", item.name, guard.part).into());
    error.retry_after = Some(refused.retry_in);
    error
}

/// A breaker has changed: into metrics, and one line into the log (GW-409). Rare: a few times for each `open_for`.
#[cold]
pub(crate) fn tell(upstream: &UpstreamPlan, guard: &Guard, change: Change) {
    upstream.series.breaker_changed(change.reason);
    let seen = change.evidence;
    log::warn(
        match change.to {
            BreakerState::Closed => "circuit breaker closed",
            BreakerState::Open => "circuit breaker opened",
            BreakerState::HalfOpen => "circuit breaker is half-open",
        },
        &[
            ("upstream", &upstream.item.name),
            ("part", &guard.part),
            ("from", &change.from.word()),
            ("to", &change.to.word()),
            ("reason", &change.reason.word()),
            ("failures_in_a_row", &seen.failures_in_a_row),
            ("tries", &seen.tries),
            ("failed", &seen.failed),
        ],
    );
}
