//! Again, or done: what may be repeated, when, and how long to wait first. Pure; the caller holds clock and dice.
//!
//! What certainly never left is always safe to repeat. What may have left is repeated only for idempotent methods (or
//! with an `Idempotency-Key`). Nothing is repeated once a byte of an answer has gone to the client: such outcomes never
//! come here. How many retries an upstream can bear is the budget's business (`upstream::budget`), not one request's.

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
    /// What the endpoint itself said about trying again.
    pub wish: Option<Wish>,
    /// The upstream has an endpoint that was not tried yet; this one's wish does not bind that one.
    pub elsewhere: bool,
}

/// What an endpoint says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// `Retry-After` in seconds, or `grpc-retry-pushback-ms`.
    After(Duration),
    /// A negative `grpc-retry-pushback-ms`: nobody should (gRFC A6).
    Never,
}

impl Wish {
    /// Of an answer's head. A date in `Retry-After` is for people and is not read.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        if let Some(text) = text("grpc-retry-pushback-ms") {
            let wait = text.trim().parse().map(Duration::from_millis);
            return Some(wait.map_or(Wish::Never, Wish::After));
        }
        let seconds = text("retry-after")?.trim().parse().ok()?;
        Some(Wish::After(Duration::from_secs(seconds)))
    }
}

/// The pause before the next try, or `None` when this was the last. `random` is uniform over all of `u64`.
pub(super) fn decide(rules: Option<&Retry>, tried: &Try<'_>, random: u64) -> Option<Duration> {
    let rules = rules?;
    if tried.made >= rules.attempts.value || !tried.repeatable || !names(rules, tried.ending) {
        return None;
    }
    if tried.left && !repeats(rules, tried.method, tried.headers) {
        return None;
    }
    let ceiling = rules
        .backoff_base
        .saturating_mul(1 << tried.made.min(16))
        .min(rules.backoff_max);
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    let pause = Duration::from_nanos(if nanos == 0 { 0 } else { random % nanos });
    match tried.wish {
        Some(Wish::Never) => None,
        // Whom it asks to wait longer than the longest wait is better off with its answer than in a queue of ours.
        Some(Wish::After(wait)) if !tried.elsewhere => {
            (wait <= rules.backoff_max).then(|| wait + pause)
        }
        _ => Some(pause),
    }
}

/// Whether a request that may have left is sent again under these rules.
pub(super) fn repeats(rules: &Retry, method: &Method, headers: &HeaderMap) -> bool {
    match &rules.methods {
        RetryMethods::Idempotent => is_idempotent(method, headers),
        RetryMethods::Keyed => headers.contains_key("idempotency-key"),
        RetryMethods::Only(methods) => methods.contains(method),
    }
}

fn names(rules: &Retry, ending: Ending) -> bool {
    rules.on.iter().any(|on| match (on, ending) {
        (RetryOn::Connect, Ending::Connect)
        | (RetryOn::Reset, Ending::Reset)
        | (RetryOn::Unavailable, Ending::Unavailable) => true,
        (RetryOn::Status(504), Ending::PerTry) => true,
        (RetryOn::Status(number), Ending::Status(status)) => status.as_u16() == *number,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use tollgate_config::Setting;

    use super::*;

    fn rules(methods: RetryMethods) -> Retry {
        Retry {
            preset: None,
            attempts: Setting::default_of(2),
            on: vec![RetryOn::Connect, RetryOn::Reset, RetryOn::Status(503)],
            backoff_base: Duration::from_millis(100),
            backoff_max: Duration::from_millis(2_000),
            methods,
            per_try_timeout: Setting::default_of(None),
            max_replay: 0,
        }
    }

    fn decided(
        method: &Method,
        fields: &[(&'static str, &str)],
        change: fn(&mut Try<'_>),
    ) -> Option<Duration> {
        decided_by(&rules(RetryMethods::Idempotent), method, fields, change)
    }

    fn decided_by(
        rules: &Retry,
        method: &Method,
        fields: &[(&'static str, &str)],
        change: fn(&mut Try<'_>),
    ) -> Option<Duration> {
        let headers = fields
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    value.parse().expect("a value"),
                )
            })
            .collect();
        let mut tried = Try {
            ending: Ending::Status(StatusCode::SERVICE_UNAVAILABLE),
            left: true,
            repeatable: true,
            method,
            headers: &headers,
            made: 0,
            wish: None,
            elsewhere: false,
        };
        change(&mut tried);
        decide(Some(rules), &tried, 7_000_000)
    }

    const JITTER: Duration = Duration::from_millis(7);

    #[test]
    fn gw_504_what_may_have_left_is_repeated_for_idempotent_methods_and_keys_only() {
        assert_eq!(decided(&Method::GET, &[], |_| {}), Some(JITTER));
        assert_eq!(decided(&Method::POST, &[], |_| {}), None);
        let key = [("idempotency-key", "1")];
        assert_eq!(decided(&Method::POST, &key, |_| {}), Some(JITTER));
        let never_left = decided(&Method::POST, &[], |tried| {
            tried.left = false;
            tried.ending = Ending::Connect;
        });
        assert_eq!(never_left, Some(JITTER));
    }

    #[test]
    fn gw_503_keyed_repeats_nothing_without_a_key() {
        let keyed = rules(RetryMethods::Keyed);
        assert_eq!(decided_by(&keyed, &Method::GET, &[], |_| {}), None);
        let key = [("idempotency-key", "1")];
        assert_eq!(decided_by(&keyed, &Method::PUT, &key, |_| {}), Some(JITTER));
    }

    #[test]
    fn an_endpoint_that_asks_for_time_is_given_it_up_to_the_longest_wait() {
        let waits = |wish, elsewhere| {
            let headers = HeaderMap::new();
            let tried = Try {
                ending: Ending::Reset,
                left: true,
                repeatable: true,
                method: &Method::GET,
                headers: &headers,
                made: 0,
                wish,
                elsewhere,
            };
            decide(Some(&rules(RetryMethods::Idempotent)), &tried, 7_000_000)
        };
        let second = Duration::from_secs(1);
        assert_eq!(
            waits(Some(Wish::After(second)), false),
            Some(second + JITTER)
        );
        assert_eq!(waits(Some(Wish::After(second * 3)), false), None);
        assert_eq!(waits(Some(Wish::After(second * 3)), true), Some(JITTER));
        assert_eq!(waits(Some(Wish::Never), true), None);
    }

    #[test]
    fn wishes_are_read_as_they_are_defined_and_anything_else_is_none() {
        let wish = |name: &'static str, value: &str| {
            Wish::of(&HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                value.parse().expect("a value"),
            )]))
        };
        let after = |milliseconds| Some(Wish::After(Duration::from_millis(milliseconds)));
        assert_eq!(wish("retry-after", "2"), after(2000));
        assert_eq!(wish("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), None);
        assert_eq!(wish("retry-after", "-1"), None);
        assert_eq!(wish("grpc-retry-pushback-ms", "30"), after(30));
        assert_eq!(wish("grpc-retry-pushback-ms", "-1"), Some(Wish::Never));
        assert_eq!(wish("grpc-retry-pushback-ms", "soon"), Some(Wish::Never));
    }
}
