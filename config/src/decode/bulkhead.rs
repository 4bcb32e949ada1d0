//! The bulkhead of an upstream: how much may be in flight, and who waits.

use std::time::Duration;

use super::{at, count, duration, setting, text};
use crate::document::{MaxInFlight, Queue, Setting};
use crate::parse::Node;
use crate::report::ItemReport;

pub(super) fn max_in_flight(
    node: &Node,
    report: &mut ItemReport<'_>,
) -> Setting<Option<MaxInFlight>> {
    let Some(node) = node.get("max_in_flight") else {
        return Setting::default_of(None);
    };
    let value = match node.text() {
        Some("off") => None,
        _ => match node.count() {
            Some(most) => Some(MaxInFlight::Fixed(u32::try_from(most).unwrap_or(u32::MAX))),
            None => Some(adaptive(node, report)),
        },
    };
    Setting {
        value,
        at: at(node),
    }
}

fn adaptive(node: &Node, report: &mut ItemReport<'_>) -> MaxInFlight {
    let bound = |key: &str, default| {
        count(node, key)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(default)
    };
    let (least, most) = (bound("least", 5), bound("most", 1000));
    if least > most {
        report.add(
            "contradiction",
            node.spot,
            format!("the limit cannot be at least {least} and at most {most}"),
            "make `most` at least as large as `least`",
        );
    }
    MaxInFlight::Adaptive {
        least,
        most: most.max(least),
    }
}

pub(super) fn queue(node: &Node, report: &mut ItemReport<'_>) -> Option<Queue> {
    let Some(queue) = node.get("queue") else {
        return Some(Queue {
            length: Setting::default_of(100),
            timeout: Setting::default_of(Duration::from_millis(100)),
        });
    };
    if queue.text() == Some("off") {
        return None;
    }
    if text(node, "max_in_flight") == Some("off") {
        report.add(
            "contradiction",
            queue.spot,
            format!(
                "nobody ever waits in this queue: `max_in_flight` is \"off\"{}",
                report.written_at(node.get("max_in_flight").map(at).unwrap_or_default()),
            ),
            "give `max_in_flight` a number, or take `queue` out",
        );
    }
    Some(Queue {
        length: setting(
            queue,
            "length",
            |n| n.count().and_then(|n| u32::try_from(n).ok()),
            100,
        ),
        timeout: setting(queue, "timeout", duration, Duration::from_millis(100)),
    })
}
