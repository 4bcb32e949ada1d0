//! What is wrong with a service, for people.

use std::fmt::Write as _;

use serde_json::Value;

use super::advice;
use crate::status::{list, word};
use crate::table::{row, table};

pub(super) fn told(report: &Value) -> String {
    let mut text = String::new();
    let (health, resolution) = (&report["health_checks"], &report["resolution"]);
    let _infallible = writeln!(
        text,
        "{}: {}\n\nregistration   {}, {} instances\nhealth checks  {}: {} passing, {} failing, {} without an answer\nresolution     {}, {} instances\nnodes          {} listen",
        word(&report["service"]),
        if report["well"] == true {
            "well"
        } else {
            "something is to be done"
        },
        word(&report["registration"]["status"]),
        word(&report["registration"]["instances"]),
        word(&health["status"]),
        word(&health["passing"]),
        word(&health["failing"]),
        word(&health["timeout"]),
        word(&resolution["status"]),
        word(&resolution["instances"]),
        word(&report["balancing"]["nodes_listening"]),
    );
    for upstream in list(&report["balancing"]["upstreams"]) {
        let _infallible = writeln!(
            text,
            "upstream       {} ({}): {} endpoints",
            word(&upstream["upstream"]),
            word(&upstream["place"]),
            word(&upstream["endpoints"])
        );
    }
    let mut rows = vec![row(&[
        "INSTANCE", "ADDRESS", "STATE", "LOOKUPS", "PROBE", "MS", "ERROR",
    ])];
    for one in list(&report["instances"]) {
        let shown = if one["in_lookups"] == true {
            "yes"
        } else {
            "no"
        };
        rows.push(row(&[
            &word(&one["id"]),
            &word(&one["address"]),
            &word(&one["state"]),
            shown,
            &word(&one["status"]),
            &one["response_ms"]
                .as_f64()
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}")),
            one["error"].as_str().unwrap_or_default(),
        ]));
    }
    if rows.len() > 1 {
        text += &format!("\n{}", table("", &rows));
    }
    text += &advice("what to do:", &report["recommendations"]);
    text
}
