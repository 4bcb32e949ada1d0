//! Breakers and retry budgets for operators: shown in `/status` and `GET /breakers`, held open or closed by
//! `POST /breakers/NAME`. An operator's word has an end, a line in the log, and a place in the breaker's history.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_config::unit;

use crate::proxy::guard::tell;
use crate::snapshot::{Snapshot, UpstreamPlan};
use crate::telemetry::log;
use crate::telemetry::metrics::BreakerState;
use crate::upstream::breaker::Hold;

/// How long an operator's word holds when nothing is said, and at most.
const USUAL: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Characters of a name or a reason that are kept.
const KEPT: usize = 200;

/// What `POST /breakers/NAME` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    state: State,
    /// A duration such as "5m".
    #[serde(rename = "for")]
    span: Option<String>,
    /// Of the upstream; absent: every breaker it has.
    part: Option<String>,
    #[serde(default)]
    by: String,
    #[serde(default)]
    why: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Open,
    Closed,
    /// As its counts say.
    Auto,
}

/// An upstream's breakers, each with its part.
pub(super) fn of(plan: &UpstreamPlan, now: Instant) -> Vec<Value> {
    let guards = plan.guards.all(plan.grain());
    let shown = guards.iter().map(|guard| {
        let status = guard.breaker.status(plan.item.breaker.as_ref(), now);
        let mut value = json!(status);
        value["part"] = json!(guard.part.to_string());
        value
    });
    shown.collect()
}

pub(super) fn budget(plan: &UpstreamPlan, now: Instant) -> Value {
    match &plan.item.retry_budget {
        Some(policy) => json!(plan.guards.budget.status(policy, now)),
        None => json!("off"),
    }
}

pub(super) fn all(snapshot: &Snapshot, now: Instant) -> Value {
    let upstreams = snapshot.upstreams.iter();
    let breakers: Vec<_> = upstreams.flat_map(|plan| rows(plan, now)).collect();
    json!({ "breakers": breakers })
}

fn rows(plan: &UpstreamPlan, now: Instant) -> Vec<Value> {
    let budget = budget(plan, now);
    let row =
        |breaker| json!({ "upstream": plan.item.name, "breaker": breaker, "retry_budget": budget });
    of(plan, now).into_iter().map(row).collect()
}

/// Counts breakers by state, just before somebody reads the metrics: nothing has to be kept in step with them.
pub(super) fn count(snapshot: &Snapshot) {
    for plan in &snapshot.upstreams {
        let guards = plan.guards.all(plan.grain());
        for state in [
            BreakerState::Closed,
            BreakerState::Open,
            BreakerState::HalfOpen,
        ] {
            let alike = guards.iter().filter(|guard| guard.breaker.state() == state);
            // One that is off is in no state.
            let number = plan.item.breaker.map_or(0, |_| alike.count());
            plan.series.set_breakers(state, number);
        }
    }
}

/// Does what an operator wants, and answers with the breakers as they are then.
pub(super) fn hold(
    snapshot: &Snapshot,
    name: &str,
    body: &[u8],
    peer: SocketAddr,
    now: Instant,
) -> (StatusCode, Value) {
    let refused = |status, why: String| {
        let expected = json!({ "state": "open, closed or auto", "for": "5m", "part": "optional", "by": "optional", "why": "optional" });
        (status, json!({ "error": why, "expected": expected }))
    };
    let name = decoded(name);
    let Some(plan) = snapshot
        .upstreams
        .iter()
        .find(|plan| plan.item.name == name)
    else {
        return refused(
            StatusCode::NOT_FOUND,
            format!("there is no upstream {name}"),
        );
    };
    if plan.item.breaker.is_none() {
        return refused(
            StatusCode::CONFLICT,
            format!("the breaker of {name} is off in the document"),
        );
    }
    let wanted = match serde_json::from_slice::<Wanted>(body) {
        Ok(wanted) => wanted,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let span = match wanted.span.as_deref().map(unit::duration) {
        None => USUAL,
        Some(Ok(span)) if !span.is_zero() && span <= LONGEST => span,
        Some(Ok(_)) => {
            return refused(
                StatusCode::BAD_REQUEST,
                "`for` is from 1ms to 24h, so that nothing is forgotten".to_owned(),
            );
        }
        Some(Err(fault)) => return refused(StatusCode::BAD_REQUEST, fault.message),
    };
    let mut guards = plan.guards.all(plan.grain());
    if let Some(part) = &wanted.part {
        guards.retain(|guard| guard.part.to_string() == *part);
        if guards.is_empty() {
            return refused(
                StatusCode::NOT_FOUND,
                format!("{name} has no breaker of its own for {part}"),
            );
        }
    }
    let kept = |text: String| text.chars().take(KEPT).collect::<String>();
    let hold = Hold {
        by: kept(wanted.by),
        why: kept(wanted.why),
    };
    let word = match wanted.state {
        State::Open => "open",
        State::Closed => "closed",
        State::Auto => "auto",
    };
    // The audit: who said what, for how long and why, whether or not it changes anything.
    log::warn(
        "an operator set a circuit breaker",
        &[
            ("upstream", &name),
            ("part", &wanted.part.as_deref().unwrap_or("all")),
            ("state", &word),
            ("for_ms", &span.as_millis()),
            ("by", &hold.by),
            ("why", &hold.why),
            ("peer", &peer),
        ],
    );
    for guard in &guards {
        let (breaker, mut told) = (&guard.breaker, |change| tell(plan, guard, change));
        match wanted.state {
            State::Open => breaker.hold(true, span, hold.clone(), now, &mut told),
            State::Closed => breaker.hold(false, span, hold.clone(), now, &mut told),
            State::Auto => breaker.release(now, &mut told),
        }
    }
    (StatusCode::OK, json!({ "breakers": rows(plan, now) }))
}

/// A name as it stands in a path: `%20` and its like are what they stand for; what is no such code stays.
fn decoded(name: &str) -> String {
    let (bytes, mut decoded, mut at) = (name.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let code = (bytes[at] == b'%')
            .then(|| name.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_and_what_is_no_code_stays() {
        for (sent, meant) in [
            ("orders", "orders"),
            ("a%20b%2Fc", "a b/c"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%e2%98%83", "\u{2603}"),
        ] {
            assert_eq!(decoded(sent), meant);
        }
    }
}
