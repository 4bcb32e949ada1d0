//! `traces` and `sagas`: which requests and sagas there were lately, in a line each.

use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::Value;

use crate::control::{Asked, ask, ended, unless_empty};
use crate::diagnose::{silent, spans};
use crate::inspect::escaped;
use crate::status::{list, word};
use crate::table::row;

#[derive(Debug, clap::Args)]
pub(crate) struct Traces {
    /// All spans of this one; without it the latest ones are listed.
    trace_id: Option<String>,
    /// So many at most.
    #[arg(long, value_name = "COUNT", default_value_t = 30)]
    limit: u32,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    Active,
    Failed,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Sagas {
    #[arg(value_enum, default_value = "active")]
    which: Which,
    #[command(flatten)]
    asked: Asked,
}

pub(crate) fn traces(arguments: &Traces) -> ExitCode {
    let path = match &arguments.trace_id {
        Some(id) => format!("/debug/traces/{}", escaped(id)),
        None => format!("/debug/traces/recent?limit={}", arguments.limit),
    };
    let answer = ask(&arguments.asked, "GET", &path, "");
    ended(&arguments.asked, answer, |answer| {
        let told = match arguments.trace_id {
            Some(_) => spans(answer),
            None => recent(answer),
        };
        told + &silent(answer)
    })
}

fn recent(answer: &Value) -> String {
    let mut rows = vec![row(&[
        "BEGAN",
        "TRACE",
        "SERVICE",
        "OPERATION",
        "STATUS",
        "MS",
        "SPANS",
        "ERRORS",
    ])];
    for one in list(&answer["traces"]) {
        rows.push(row(&[
            &word(&one["began"]),
            &word(&one["trace_id"]),
            &word(&one["service"]),
            &word(&one["operation"]),
            one["status"].as_str().unwrap_or("-"),
            &format!("{:.1}", one["duration_ms"].as_f64().unwrap_or(0.0)),
            &word(&one["spans"]),
            &word(&one["errors"]),
        ]));
    }
    unless_empty(&rows, "no node tells of any request\n")
}

pub(crate) fn sagas(arguments: &Sagas) -> ExitCode {
    let path = match arguments.which {
        Which::Active => "/debug/sagas/active",
        Which::Failed => "/debug/sagas/failed",
    };
    let answer = ask(&arguments.asked, "GET", path, "");
    ended(&arguments.asked, answer, |answer| {
        let mut rows = vec![row(&[
            "SAGA",
            "ORDER",
            "STATUS",
            "FAILED STEP",
            "ERROR",
            "CHANGED",
        ])];
        for one in list(&answer["sagas"]) {
            rows.push(row(&[
                &word(&one["saga_id"]),
                &word(&one["order_id"]),
                &word(&one["status"]),
                one["failed_step"].as_str().unwrap_or("-"),
                one["error"]["reason"].as_str().unwrap_or("-"),
                &word(&one["updated_at"]),
            ]));
        }
        unless_empty(&rows, "there are none\n") + &silent(answer)
    })
}
