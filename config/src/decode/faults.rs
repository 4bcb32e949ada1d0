//! Faults on purpose: what, for how many, for whom.

use http::StatusCode;

use super::route::predicates;
use super::{at, duration, setting};
use crate::document::{Abort, InjectedFault, Setting};
use crate::parse::Node;
use crate::report::ItemReport;
use crate::rule;

pub(super) fn fault(node: &Node, report: &mut ItemReport<'_>) -> Option<InjectedFault> {
    if node.get("delay").is_none() && node.get("abort").is_none() {
        report.add(
            "missing-key",
            node.spot,
            "a fault that neither delays nor aborts does nothing",
            "write `delay = \"200ms\"`, `abort = 503`, or both",
        );
        return None;
    }
    Some(InjectedFault {
        delay: node.get("delay").and_then(|node| {
            Some(Setting {
                value: duration(node)?,
                at: at(node),
            })
        }),
        abort: node.get("abort").and_then(|node| {
            Some(Setting {
                value: abort(node)?,
                at: at(node),
            })
        }),
        percent: setting(node, "percent", Node::number, 100.0),
        headers: predicates(node.get("headers"))
            .into_iter()
            .filter_map(|(name, value)| Some((rule::header_name(name).ok()?, value)))
            .collect(),
    })
}

fn abort(node: &Node) -> Option<Abort> {
    if node.text() == Some("reset") {
        return Some(Abort::Reset);
    }
    let status = u16::try_from(node.count()?).ok()?;
    StatusCode::from_u16(status).ok().map(Abort::Status)
}
