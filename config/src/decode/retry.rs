//! `[route.retry]`: what is tried again. A preset changes defaults; a key that is written always wins over it, unless
//! the two contradict each other.

use std::time::Duration;

use super::{at, duration, or_off, setting, size, text, texts};
use crate::document::*;
use crate::parse::{Node, Value};
use crate::report::ItemReport;
use crate::rule;

pub(crate) fn retry(node: Option<&Node>, report: &mut ItemReport<'_>) -> Setting<Option<Retry>> {
    let Some(node) = node else {
        let none = Node {
            value: Value::Table(Vec::new()),
            spot: (0, 1),
        };
        return Setting::default_of(Some(table(&none, report)));
    };
    let off = node.text() == Some("off") || is_critical(node, report);
    Setting {
        value: (!off).then(|| table(node, report)),
        at: at(node),
    }
}

/// `preset = "critical"` is "off" by another name (GW-503): a person looks at what failed. Keys beside it would do
/// nothing.
fn is_critical(node: &Node, report: &mut ItemReport<'_>) -> bool {
    let critical = text(node, "preset") == Some("critical");
    if let Some(other) = node
        .entries()
        .iter()
        .find(|entry| critical && entry.key != "preset")
    {
        let preset = report.written_at(node.get("preset").map(at).unwrap_or_default());
        report.add(
            "contradiction",
            other.node.spot,
            format!(
                "`{}` says how to retry, but `preset = \"critical\"`{preset} never does",
                other.key
            ),
            "take one of the two out",
        );
    }
    critical
}

/// Tries after the first, first and longest wait in milliseconds.
fn defaults(preset: Option<RetryPreset>) -> (u32, u64, u64) {
    match preset {
        None => (2, 25, 250),
        Some(RetryPreset::Read) => (3, 100, 1000),
        Some(RetryPreset::Write) => (1, 100, 1000),
    }
}

fn table(node: &Node, report: &mut ItemReport<'_>) -> Retry {
    let preset = node.get("preset").and_then(|node| {
        let value = match node.text() {
            Some("read") => RetryPreset::Read,
            Some("write") => RetryPreset::Write,
            _ => return None,
        };
        Some(Setting {
            value,
            at: at(node),
        })
    });
    let (attempts, first, longest) = defaults(preset.map(|preset| preset.value));
    let backoff = |key: &str| {
        node.get("backoff")
            .and_then(|b| b.get(key))
            .and_then(duration)
    };
    let base = backoff("base").unwrap_or(Duration::from_millis(first));
    let max = backoff("max").unwrap_or(Duration::from_millis(longest));
    if base > max {
        report.add(
            "contradiction",
            node.get("backoff").map_or(node.spot, |n| n.spot),
            format!("the first wait ({base:?}) is longer than the longest ({max:?})"),
            "make `max` at least as long as `base`",
        );
    }
    if let Some(on) = node.get("on").filter(|on| on.list().is_empty()) {
        report.add(
            "contradiction",
            on.spot,
            "`on` names nothing, so nothing is tried again",
            "name a reason, such as \"connect\", or write `retry = \"off\"`",
        );
    }
    let reason = |node: &Node| match node.text() {
        Some(text) => rule::retry_on(text).ok(),
        None => node
            .count()
            .and_then(|n| u16::try_from(n).ok())
            .map(RetryOn::Status),
    };
    Retry {
        attempts: setting(node, "attempts", Node::small_count, attempts),
        on: match node.get("on") {
            Some(on) => on.list().iter().filter_map(reason).collect(),
            None => vec![
                RetryOn::Connect,
                RetryOn::Reset,
                RetryOn::Status(502),
                RetryOn::Status(503),
                RetryOn::Status(504),
                RetryOn::Unavailable,
            ],
        },
        backoff_base: base,
        backoff_max: max,
        methods: match node.get("methods") {
            Some(list) if list.text().is_none() => RetryMethods::Only(
                texts(Some(list))
                    .into_iter()
                    .filter_map(|method| rule::method(method).ok())
                    .collect(),
            ),
            Some(word) if word.text() == Some("keyed") => RetryMethods::Keyed,
            None if preset.is_some_and(|preset| preset.value == RetryPreset::Write) => {
                RetryMethods::Keyed
            }
            _ => RetryMethods::Idempotent,
        },
        per_try_timeout: setting(node, "per_try_timeout", or_off(duration), None),
        max_replay: node.get("max_replay").and_then(size).unwrap_or(64 << 10),
        preset,
    }
}
