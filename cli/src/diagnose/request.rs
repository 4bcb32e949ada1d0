//! What became of a request, for people: the first cause, the call tree, and what is missing of it.

use std::fmt::Write as _;

use serde_json::Value;

use super::{advice, saga, silent, words};
use crate::status::{list, word};
use crate::table::{row, table};

pub(super) fn told(report: &Value) -> String {
    let completeness = &report["completeness"];
    let mut text = format!(
        "trace {}: {}\n\nroot cause     {}\nspans          {}{}\nlogs           with: {}; without: {}\n",
        word(&report["trace_id"]),
        match report["well"] == true {
            true => "well",
            false => "something is to be done",
        },
        word(&report["root_cause"]["text"]),
        word(&completeness["total"]),
        match completeness["complete"] == true {
            true => ", complete",
            false => ", not complete",
        },
        words(&report["logs"]["with"], "nobody"),
        words(&report["logs"]["without"], "nobody"),
    );
    text += &spans(report);
    for one in list(&completeness["missing"]) {
        let _infallible = writeln!(text, "missing: {}", word(&one["why"]));
    }
    for one in list(&completeness["timing_faults"]) {
        let (service, operation) = (word(&one["service"]), word(&one["operation"]));
        let _infallible = writeln!(text, "time: {service} {operation}: {}", word(&one["fault"]));
    }
    for one in list(&report["contexts"]) {
        if one["propagation"] != "correct" {
            let (from, to) = (word(&one["from"]), word(&one["to"]));
            let how = word(&one["propagation"]);
            let _infallible = writeln!(text, "context from {from} to {to}: {how}");
        }
    }
    text += &silent(report);
    text += &lines(&report["logs"]);
    if report["saga"].is_object() {
        let _infallible = write!(text, "\n{}", saga::summary(&report["saga"]));
    }
    text + &advice("what to do:", &report["resolution_steps"])
}

/// The call tree, as a table.
pub(crate) fn spans(report: &Value) -> String {
    let mut rows = vec![row(&["SPAN", "KIND", "AT", "FOR", "", "TOLD BY", "TAGS"])];
    for one in list(&report["spans"]) {
        let depth = one["depth"].as_u64().unwrap_or(0).min(40);
        let indent = "  ".repeat(usize::try_from(depth).unwrap_or(0));
        let tags = one["tags"].as_object();
        let tags: Vec<String> = { tags.into_iter().flatten() }
            .map(|(key, value)| format!("{key}={}", word(value)))
            .collect();
        rows.push(row(&[
            &format!(
                "{indent}{} {}",
                word(&one["service"]),
                word(&one["operation"])
            ),
            &word(&one["kind"]),
            &millis(&one["offset_us"]),
            &millis(&one["duration_us"]),
            match one["status"] == "error" {
                true => "ERROR",
                false => "",
            },
            &word(&one["told_by"]),
            &tags.join(" "),
        ]));
    }
    match rows.len() {
        1 => String::new(),
        _ => format!("\n{}\n", table("", &rows)),
    }
}

fn millis(micros: &Value) -> String {
    let micros = micros.as_f64().unwrap_or(0.0);
    format!("{:.1} ms", micros / 1000.0)
}

fn lines(logs: &Value) -> String {
    let mut text = String::new();
    for one in list(&logs["error_patterns"]) {
        let _infallible = writeln!(
            text,
            "log of {}, {} times ({}): {}",
            words(&one["services"], "nobody"),
            word(&one["frequency"]),
            word(&one["severity"]),
            word(&one["pattern"])
        );
    }
    for one in list(&logs["issues"]) {
        let _infallible = writeln!(
            text,
            "log of {}: {} lines with {}: {}",
            word(&one["service"]),
            word(&one["lines"]),
            word(&one["issue"]).replace('_', " "),
            word(&one["impact"])
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_is_told_as_a_tree_with_its_cause_first() {
        let span = |service: &str, depth: u64, status: &str| {
            json!({ "service": service, "operation": "Op", "kind": "server", "offset_us": 1500, "duration_us": 2500,
                "status": status, "told_by": "node edge-1", "depth": depth, "tags": { "code": "timeout" } })
        };
        let report = json!({
            "trace_id": "abc", "well": false, "root_cause": { "text": "payments failed" },
            "completeness": { "total": 2, "complete": false, "missing": [{ "why": "orders told nothing" }] },
            "spans": [span("gateway", 0, "ok"), span("payments", 1, "error")],
            "logs": { "with": ["payments"], "without": [], "error_patterns": [
                { "pattern": "card declined", "services": ["payments"], "frequency": 2, "severity": "high" }] },
            "silent": [{ "who": "node edge-2", "why": "no answer" }],
            "resolution_steps": [{ "text": "pay again" }],
        });
        let text = told(&report);
        for expected in [
            "trace abc: something is to be done",
            "root cause     payments failed",
            "2, not complete",
            "\n  payments Op",
            "2.5 ms",
            "ERROR",
            "code=timeout",
            "missing: orders told nothing",
            "no answer of node edge-2: no answer",
            "log of payments, 2 times (high): card declined",
            "- pay again",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
