//! `services` and `nodes`: who is there, what each runs and serves.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use crate::control::{Plain, ask, ended, problems, unless_empty};
use crate::status::{list, word};
use crate::table::{row, span, table};

pub(crate) fn services(arguments: &Plain) -> ExitCode {
    let answer = ask(&arguments.asked, "GET", "/debug/registry/services", "");
    ended(&arguments.asked, answer, |answer| {
        let mut rows = vec![row(&[
            "SERVICE", "VERSION", "INSTANCE", "ADDRESS", "STATE", "HEALTH",
        ])];
        let mut serves = Vec::new();
        for service in list(&answer["services"]) {
            if !service["serves"].is_null() {
                let name = word(&service["name"]);
                serves.push([vec![name], red(&service["serves"]).to_vec()].concat());
            }
            for one in list(&service["instances"]) {
                rows.push(row(&[
                    &word(&service["name"]),
                    &word(&service["version"]),
                    &word(&one["id"]),
                    &word(&one["address"]),
                    &word(&one["state"]),
                    &word(&one["health"]),
                ]));
            }
        }
        let mut text = unless_empty(&rows, "no service is registered\n");
        if !serves.is_empty() {
            serves.insert(0, row(&["SERVICE", "REQ/S", "ERRORS", "P95"]));
            text += "\n";
            text += &table("", &serves);
        }
        text
    })
}

pub(crate) fn nodes(arguments: &Plain) -> ExitCode {
    let answer = ask(&arguments.asked, "GET", "/nodes", "");
    ended(&arguments.asked, answer, |answer| {
        let mut rows = vec![row(&[
            "NODE",
            "KIND",
            "FROM",
            "CONNECTED",
            "RUNS",
            "TARGET",
            "REFUSED",
            "REQ/S",
            "ERRORS",
            "P95",
            "SERVICES",
            "CERTIFICATE",
            "VERSION",
        ])];
        let mut refusals = String::new();
        for node in list(&answer["nodes"]) {
            let refused = &node["refused"];
            let [rate, errors, p95] = red(&node["serves"]);
            rows.push(row(&[
                &word(&node["node"]),
                &word(&node["kind"]),
                &word(&node["address"]),
                if node["connected"] == true {
                    "yes"
                } else {
                    "no"
                },
                &word(&node["runs"]["revision"]),
                &word(&node["target"]),
                &word(&refused["revision"]),
                &rate,
                &errors,
                &p95,
                &list(&node["services"]).len().to_string(),
                &certificate(&node["certificate"]),
                &word(&node["version"]),
            ]));
            if !refused.is_null() {
                let name = word(&node["node"]);
                let revision = word(&refused["revision"]);
                let _infallible = writeln!(refusals, "\n{name} refused revision {revision}:");
                refusals += &problems(&refused["problems"]);
            }
        }
        unless_empty(&rows, "no node listens\n") + &refusals
    })
}

/// How long the latest certificate of the service that a node is of is good.
fn certificate(certificate: &Value) -> String {
    match certificate["seconds_left"].as_u64() {
        None => "-".to_owned(),
        Some(0) => "EXPIRED".to_owned(),
        Some(left) => span(left),
    }
}

/// Requests a second, the share of errors, and what 95 of 100 took at most.
fn red(serves: &Value) -> [String; 3] {
    let number = |key: &str| serves[key].as_f64();
    [
        number("requests_per_second").map(|rate| format!("{rate:.1}")),
        number("error_share").map(|share| format!("{:.2} %", share * 100.0)),
        number("p95_ms").map(|millis| format!("{millis} ms")),
    ]
    .map(|figure| figure.unwrap_or_else(|| "-".to_owned()))
}
