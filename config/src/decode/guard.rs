//! What stands between an upstream and too much of us: its breaker and its retry budget. Both are on unless a document
//! says "off".

use super::{at, duration, or_off, setting, text};
use crate::document::*;
use crate::parse::Node;
use crate::report::ItemReport;
use crate::unit;

pub(crate) fn breaker(node: Option<&Node>, report: &mut ItemReport<'_>) -> Option<Breaker> {
    let default = Breaker::default();
    let Some(node) = node else {
        return Some(default);
    };
    if node.text() == Some("off") {
        return None;
    }
    let times =
        |key: &str, default: Setting<u32>| setting(node, key, Node::small_count, default.value);
    let breaker = Breaker {
        failures: times("failures", default.failures),
        volume: times("volume", default.volume),
        window: setting(node, "window", duration, default.window.value),
        error_rate: setting(node, "error_rate", or_off(Node::number), None),
        open_for: setting(node, "open_for", duration, default.open_for.value),
        probes: times("probes", default.probes),
        successes: times("successes", default.successes),
        grain: match text(node, "grain") {
            Some("route") => BreakerGrain::Route,
            Some("operation") => BreakerGrain::Operation,
            _ => BreakerGrain::Upstream,
        },
        kind: setting(node, "kind", kind, BreakerKind::Fixed),
    };
    if breaker.successes.value > breaker.probes.value {
        let (successes, probes) = (breaker.successes, breaker.probes);
        report.add(
            "contradiction",
            spot(&[successes.at, probes.at], node),
            format!(
                "`successes` ({}) is more than `probes` ({}{}), so the breaker could never close",
                successes.value,
                probes.value,
                report.written_at(probes.at)
            ),
            "let at least as many probes through as must succeed",
        );
    }
    if breaker.error_rate.value.is_some_and(|rate| rate == 1.0) {
        report.add(
            "contradiction",
            spot(&[breaker.error_rate.at], node),
            "no share of failures is larger than 1.0, so this never opens",
            "write a share below 1.0, such as 0.5, or \"off\"",
        );
    }
    Some(breaker)
}

fn kind(node: &Node) -> Option<BreakerKind> {
    (node.text() == Some("adaptive")).then_some(BreakerKind::Adaptive)
}

pub(crate) fn retry_budget(node: Option<&Node>) -> Option<RetryBudget> {
    let default = RetryBudget::default();
    let Some(node) = node else {
        return Some(default);
    };
    if node.text() == Some("off") {
        return None;
    }
    let rate = |node: &Node| unit::rate(node.text()?).ok();
    Some(RetryBudget {
        ratio: setting(node, "ratio", Node::number, default.ratio.value),
        floor: setting(node, "floor", rate, default.floor.value),
        window: setting(node, "window", duration, default.window.value),
    })
}

/// The first of these that was written, else where the table stands.
fn spot(settings: &[At], node: &Node) -> crate::report::Spot {
    settings
        .iter()
        .find_map(|at| at.0)
        .or(at(node).0)
        .unwrap_or(node.spot)
}
