//! What an answer says of the limits it met (GW-308, GW-317): `RateLimit` and `RateLimit-Policy` as
//! draft-ietf-httpapi-ratelimit-headers-10 has them, an item for each limit, and the older
//! `X-RateLimit-Limit/-Remaining/-Reset` for the one that is nearest to its end.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate_config::unit::Rate;

use crate::exchange::error::whole_seconds;
use crate::telemetry::json::number;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
/// How many these are.
const FIELDS: usize = 5;

/// One limit as it stands after this request.
pub(super) struct Standing<'a> {
    pub(super) policy: &'a Policy,
    pub(super) remaining: u64,
    /// Until nothing is missing any more.
    pub(super) reset: Duration,
    pub(super) refused: bool,
}

/// The part that does not change, written once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// `"login";`, ready for what follows.
    name: Box<str>,
    /// `"login";q=5;w=900`
    item: HeaderValue,
    /// `5`
    limit: HeaderValue,
}

impl Policy {
    /// A window is told in whole seconds: 7 in 250 ms are 28 in a second.
    pub(super) fn of_rate(name: &str, rate: Rate) -> Self {
        let milliseconds = u64::try_from(rate.per.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let times = 1000 / common(milliseconds, 1000);
        let (quota, window) = (
            rate.count.saturating_mul(times),
            milliseconds.saturating_mul(times) / 1000,
        );
        Self::new(name, quota, window)
    }

    pub(super) fn new(name: &str, quota: u64, window: u64) -> Self {
        let mut quoted = String::from('"');
        for letter in name.chars() {
            match letter {
                '"' | '\\' => quoted.extend(['\\', letter]),
                ' '..='~' => quoted.push(letter),
                // A structured field's string is ASCII.
                _ => quoted.push('?'),
            }
        }
        quoted.push_str("\";");
        let item = format!("{quoted}q={quota};w={window}");
        Policy {
            name: quoted.into(),
            item: HeaderValue::try_from(item).unwrap_or(HeaderValue::from_static("")),
            limit: HeaderValue::from(quota),
        }
    }
}

/// Writes them all. `unix`: seconds now.
pub(super) fn write(headers: &mut HeaderMap, standings: &[Standing<'_>], unix: u64) {
    let Some(nearest) = standings
        .iter()
        .min_by_key(|standing| (!standing.refused, standing.remaining))
    else {
        return;
    };
    let mut state = Vec::with_capacity(64);
    for standing in standings {
        if !state.is_empty() {
            state.extend_from_slice(b", ");
        }
        state.extend_from_slice(standing.policy.name.as_bytes());
        state.extend_from_slice(b"r=");
        number(&mut state, standing.remaining);
        state.extend_from_slice(b";t=");
        number(&mut state, seconds(standing.reset));
    }
    headers.reserve(FIELDS);
    if let Ok(state) = HeaderValue::from_maybe_shared(Bytes::from(state)) {
        headers.insert(STATE, state);
    }
    let policy = match standings {
        [only] => only.policy.item.clone(),
        several => {
            let items: Vec<&[u8]> = several
                .iter()
                .map(|standing| standing.policy.item.as_bytes())
                .collect();
            HeaderValue::from_bytes(&items.join(&b", "[..]))
                .unwrap_or_else(|_| nearest.policy.item.clone())
        }
    };
    headers.insert(POLICY, policy);
    headers.insert(LIMIT, nearest.policy.limit.clone());
    headers.insert(REMAINING, HeaderValue::from(nearest.remaining));
    headers.insert(
        RESET,
        HeaderValue::from(unix.saturating_add(seconds(nearest.reset))),
    );
}

fn seconds(span: Duration) -> u64 {
    if span.is_zero() {
        0
    } else {
        whole_seconds(span)
    }
}

fn common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, count: u64, milliseconds: u64) -> String {
        let per = Duration::from_millis(milliseconds);
        let policy = Policy::of_rate(name, Rate { count, per });
        policy.item.to_str().expect("ASCII").to_owned()
    }

    #[test]
    fn gw_317_a_policy_counts_in_whole_seconds_and_its_name_is_a_string() {
        assert_eq!(policy("login", 5, 900_000), r#""login";q=5;w=900"#);
        assert_eq!(policy("a", 7, 250), r#""a";q=28;w=1"#);
        assert_eq!(policy("a", 1, 700), r#""a";q=10;w=7"#);
        assert_eq!(policy("a\"\\é", 1, 1000), r#""a\"\\?";q=1;w=1"#);
    }

    #[test]
    fn gw_308_of_several_limits_the_nearest_to_its_end_is_told_the_old_way() {
        let rate = |count| Rate {
            count,
            per: Duration::from_secs(60),
        };
        let (a, b) = (
            Policy::of_rate("a", rate(10)),
            Policy::of_rate("b", rate(5)),
        );
        let mut headers = HeaderMap::new();
        let standing = |policy, remaining| Standing {
            policy,
            remaining,
            reset: Duration::from_millis(1500),
            refused: false,
        };
        write(&mut headers, &[standing(&a, 9), standing(&b, 4)], 100);
        let text = |name: &str| headers[name].to_str().expect("ASCII").to_owned();
        assert_eq!(text("ratelimit"), r#""a";r=9;t=2, "b";r=4;t=2"#);
        assert_eq!(text("ratelimit-policy"), r#""a";q=10;w=60, "b";q=5;w=60"#);
        assert_eq!(text("x-ratelimit-limit"), "5");
        assert_eq!(text("x-ratelimit-remaining"), "4");
        assert_eq!(text("x-ratelimit-reset"), "102");
    }
}
