//! Again, or done: what may be repeated, when, and how long to wait first. Pure; the caller holds clock and dice.
//!
//! What certainly never left is always safe to repeat. What may have left is repeated only for idempotent methods (or
//! with an `Idempotency-Key`). Nothing is repeated once a byte of an answer has gone to the client: such outcomes never
//! come here.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use tollgate_config::{Retry, RetryMethods, RetryOn};

use crate::exchange::headers::is_idempotent;

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// No connection, or it was refused before the request left.
    Connect,
    /// The connection or stream broke before an answer.
    Reset,
    /// The time for one try passed.
    PerTry,
    Status(StatusCode),
    /// gRPC `UNAVAILABLE`.
    Unavailable,
}

/// What is known when a try has ended.
pub(super) struct Try<'a> {
    pub ending: Ending,
    /// Some of the request may have reached the endpoint.
    pub left: bool,
    /// The body can be sent again from its start.
    pub repeatable: bool,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// Retries made already.
    pub made: u32,
}

/// The pause before the next try, or `None` when this was the last. `random` is uniform over all of `u64`.
pub(super) fn decide(rules: Option<&Retry>, tried: &Try<'_>, random: u64) -> Option<Duration> {
    let rules = rules?;
    if tried.made >= rules.attempts.value || !tried.repeatable || !names(rules, tried.ending) {
        return None;
    }
    let allowed = match &rules.methods {
        RetryMethods::Idempotent => is_idempotent(tried.method, tried.headers),
        RetryMethods::Only(methods) => methods.contains(tried.method),
    };
    if tried.left && !allowed {
        return None;
    }
    let ceiling = rules.backoff_base.saturating_mul(1 << tried.made.min(16)).min(rules.backoff_max);
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    Some(Duration::from_nanos(if nanos == 0 { 0 } else { random % nanos }))
}

fn names(rules: &Retry, ending: Ending) -> bool {
    rules.on.iter().any(|on| match (on, ending) {
        (RetryOn::Connect, Ending::Connect) | (RetryOn::Reset, Ending::Reset) | (RetryOn::Unavailable, Ending::Unavailable) => true,
        (RetryOn::Status(504), Ending::PerTry) => true,
        (RetryOn::Status(number), Ending::Status(status)) => status.as_u16() == *number,
        _ => false,
    })
}
