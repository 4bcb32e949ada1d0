//! `edges`: which service calls which, as the data planes at both ends tell the control plane; for people, for programs
//! (`--json`), or as a picture (`--dot`).

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use crate::control::{Asked, ask, ended, unless_empty};
use crate::status::{list, word};
use crate::table::row;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The map in Graphviz' language: `tollgate edges --dot | dot -Tsvg > map.svg`.
    #[arg(long)]
    dot: bool,
    #[command(flatten)]
    asked: Asked,
}

pub(crate) fn edges(arguments: &Arguments) -> ExitCode {
    let answer = ask(&arguments.asked, "GET", "/edges", "");
    ended(&arguments.asked, answer, |answer| match arguments.dot {
        true => dot(answer),
        false => told(answer),
    })
}

fn told(answer: &Value) -> String {
    let mut rows = vec![row(&[
        "FROM", "TO", "REQ/S", "ERRORS", "REFUSED", "P50", "P95", "P99", "LAST", "SEEN BY",
    ])];
    for edge in list(&answer["edges"]) {
        rows.push(row(&[
            &word(&edge["source"]),
            &word(&edge["destination"]),
            &number(&edge["requests_per_second"], 1.0, ""),
            &number(&edge["error_share"], 100.0, " %"),
            &number(&edge["refused_share"], 100.0, " %"),
            &number(&edge["p50_ms"], 1.0, " ms"),
            &number(&edge["p95_ms"], 1.0, " ms"),
            &number(&edge["p99_ms"], 1.0, " ms"),
            &format!("{} s ago", word(&edge["last_seen_seconds"])),
            match edge["seen_by"].as_str() {
                Some("inbound") => "callee",
                _ => "caller",
            },
        ]));
    }
    unless_empty(&rows, "no service called another within the last hour\n")
}

fn number(value: &Value, times: f64, unit: &str) -> String {
    let value = value.as_f64();
    value.map_or_else(
        || "-".to_owned(),
        |value| format!("{:.1}{unit}", value * times),
    )
}

/// Thick where much is asked, red where it fails.
fn dot(answer: &Value) -> String {
    let mut text = "digraph mesh {\n  rankdir = LR;\n  node [shape = box];\n".to_owned();
    for edge in list(&answer["edges"]) {
        let quoted = |name: &str| {
            let text = edge[name].as_str().unwrap_or_default();
            format!("\"{}\"", text.replace(['"', '\\'], "_"))
        };
        let rate = edge["requests_per_second"].as_f64().unwrap_or(0.0);
        let failing = edge["error_share"].as_f64().unwrap_or(0.0) > 0.01;
        let _infallible = writeln!(
            text,
            "  {} -> {} [label = \"{rate:.1}/s\", penwidth = {:.1}{}];",
            quoted("source"),
            quoted("destination"),
            1.0 + rate.max(1.0).log10(),
            if failing { ", color = red" } else { "" }
        );
    }
    text + "}\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map() -> Value {
        json!({ "edges": [
            { "source": "default/orders", "destination": "default/payments", "requests_per_second": 100.0,
              "error_share": 0.5, "refused_share": 0.0, "p50_ms": 5.0, "p95_ms": 10.0, "p99_ms": 25.0,
              "last_seen_seconds": 3, "seen_by": "inbound" },
            { "source": "default/web", "destination": "default/orders", "last_seen_seconds": 900, "seen_by": "outbound" },
        ] })
    }

    #[test]
    fn edges_are_told_with_rates_failures_and_latencies_mesh_504() {
        let text = told(&map());
        for expected in [
            "default/orders",
            "100.0",
            "50.0 %",
            "25.0 ms",
            "3 s ago",
            "callee",
            "900 s ago",
            "caller",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(told(&json!({ "edges": [] })).contains("no service called another"));
    }

    #[test]
    fn a_map_can_be_drawn_and_no_name_breaks_out_of_it() {
        let text = dot(&map());
        assert!(
            text.contains("\"default/orders\" -> \"default/payments\""),
            "{text}"
        );
        assert!(
            text.contains("color = red") && text.contains("penwidth = 3.0"),
            "{text}"
        );
        let hostile = json!({ "edges": [{ "source": "a\"]; evil", "destination": "b\\", "seen_by": "inbound" }] });
        let text = dot(&hostile);
        assert!(text.contains("\"a_]; evil\" -> \"b_\""), "{text}");
    }
}
