//! What `/status` tells of hedges: when a route's answers are late, and what second tries were good for.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tollgate_config::HedgeAfter;

use crate::snapshot::{RoutePlan, UpstreamPlan};
use crate::telemetry::metrics::{HedgeResult, Unhedged};

/// Late answers without a hedge, of which a mean says something.
const ENOUGH: u64 = 10;

/// Of an upstream; `None` before the first late answer.
pub(super) fn of(plan: &UpstreamPlan) -> Option<Value> {
    let series = &plan.series;
    let counts = |words: &[&str], count: &dyn Fn(usize) -> i64| -> Map<String, Value> {
        let named = words.iter().enumerate();
        named
            .map(|(index, word)| ((*word).to_owned(), json!(count(index))))
            .collect()
    };
    let mut value = counts(HedgeResult::WORDS, &|index| series.hedges(index));
    let unsent = counts(Unhedged::WORDS, &|index| series.unsent_hedges(index));
    let all = value.values().chain(unsent.values());
    if all.filter_map(Value::as_i64).sum::<i64>() == 0 {
        return None;
    }
    value.insert("unsent".into(), Value::Object(unsent));
    let (hedged, with) = series.late_mean(true);
    let (alone, without) = series.late_mean(false);
    if hedged > 0 {
        value.insert("wait_ms".into(), json!(milliseconds(with)));
    }
    if alone > 0 {
        value.insert("wait_alone_ms".into(), json!(milliseconds(without)));
    }
    if hedged > 0 && alone >= ENOUGH {
        let saved = milliseconds(without) - milliseconds(with);
        value.insert("saved_ms".into(), json!((saved * 1e3).round() / 1e3));
    }
    Some(Value::Object(value))
}

/// Of a route that hedges.
pub(super) fn late(plan: &RoutePlan) -> Option<Value> {
    let hedge = plan.item.hedge()?;
    let usual = || plan.compiled.late.as_ref()?.normal();
    let late = match hedge.after {
        HedgeAfter::Fixed(after) => Some(after),
        HedgeAfter::P95 => usual().map(|usual| usual.max(hedge.least)),
    };
    Some(json!({
        "route": plan.item.name,
        "p95_ms": usual().map(milliseconds),
        "late_after_ms": late.map(milliseconds),
    }))
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
