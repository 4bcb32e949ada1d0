//! What a route answers when its upstream cannot.

use http::StatusCode;

use super::{at, count, headers, setting_text, text};
use crate::document::{Fallback, FallbackAction, FallbackOn};
use crate::parse::Node;
use crate::report::ItemReport;
use crate::rule;

pub(super) fn fallback(route: &Node, report: &mut ItemReport<'_>) -> Option<Fallback> {
    let node = route.get("fallback")?;
    if let Some(own) = ["respond", "redirect"]
        .iter()
        .find_map(|key| route.get(key))
    {
        report.add(
            "contradiction",
            node.spot,
            format!(
                "the route answers by itself{}, so there is nothing to fall back from",
                report.written_at(at(own))
            ),
            "take `fallback` out, or send the route to an upstream",
        );
    }
    let action = match node.get("respond") {
        Some(respond) => FallbackAction::Respond {
            status: count(respond, "status")
                .and_then(|n| u16::try_from(n).ok())
                .and_then(|n| StatusCode::from_u16(n).ok())
                .unwrap_or(StatusCode::OK),
            body: text(respond, "body").unwrap_or_default().to_owned(),
            headers: headers(respond.get("headers")),
        },
        None => {
            let other = setting_text(node, "upstream")?;
            if text(route, "upstream") == Some(other.value.as_str()) {
                report.add(
                    "contradiction",
                    node.get("upstream").map_or(node.spot, |n| n.spot),
                    "the fallback is the very upstream that it stands in for",
                    "name another upstream, or give a fixed answer with `respond`",
                );
            }
            FallbackAction::Upstream(other)
        }
    };
    Some(Fallback {
        action,
        on: node
            .get("on")
            .map_or_else(always, |on| on.list().iter().filter_map(reason).collect()),
        at: at(node),
    })
}

fn always() -> Vec<FallbackOn> {
    vec![
        FallbackOn::Connect,
        FallbackOn::Reset,
        FallbackOn::Timeout,
        FallbackOn::Overloaded,
        FallbackOn::Status(502),
        FallbackOn::Status(503),
        FallbackOn::Status(504),
    ]
}

fn reason(node: &Node) -> Option<FallbackOn> {
    match node.text() {
        Some(text) => rule::fallback_on(text).ok(),
        None => node
            .count()
            .and_then(|n| u16::try_from(n).ok())
            .map(FallbackOn::Status),
    }
}
