//! `diagnose`: what is wrong with a service, a request or a saga, and what to do, as a control plane tells it. Each report
//! in words; the whole of it with `--json`.

mod request;
mod saga;
mod service;

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;
use tollgate_engine::process::exit;

use crate::control::{Asked, ask, ended};
use crate::inspect::escaped;
use crate::status::{list, word};
pub(crate) use request::spans;

/// `tollgate diagnose orders` is the same as `tollgate diagnose service orders`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// `service NAME`, `request TRACE_ID`, or `saga ID` (its own, or the order's); a name alone is a service's.
    #[arg(value_names = ["KIND", "ID"], num_args = 1..=2, required = true)]
    words: Vec<String>,
    #[command(flatten)]
    asked: Asked,
}

/// Exits with 0 when all is well, with 1 when something is to be done.
pub(crate) fn diagnose(arguments: &Arguments) -> ExitCode {
    let (kind, id) = match arguments.words.as_slice() {
        [name] => ("service", name),
        [kind, id] => (kind.as_str(), id),
        _ => return misused(),
    };
    let told: fn(&Value) -> String = match kind {
        "service" => service::told,
        "request" => request::told,
        "saga" => saga::told,
        _ => return misused(),
    };
    let path = format!("/debug/diagnose/{kind}/{}", escaped(id));
    let answer = ask(&arguments.asked, "GET", &path, "");
    let well = answer.as_ref().is_ok_and(|answer| answer["well"] == true);
    let code = ended(&arguments.asked, answer, told);
    match well {
        false if code == ExitCode::SUCCESS => ExitCode::from(exit::FAILURE),
        _ => code,
    }
}

fn misused() -> ExitCode {
    eprintln!(
        "diagnose takes `service NAME`, `request TRACE_ID` or `saga ID`; a trace's id stands in every error as `trace_id`"
    );
    ExitCode::from(exit::BAD_DOCUMENT)
}

/// What to do, a line each, with what decides about it.
fn advice(title: &str, advice: &Value) -> String {
    let mut text = String::new();
    for one in list(advice) {
        if text.is_empty() {
            let _infallible = writeln!(text, "\n{title}");
        }
        let _infallible = writeln!(text, "- {}", word(&one["text"]));
        let by = match (one["setting"].as_str(), one["place"].as_str()) {
            (Some(setting), Some(place)) => format!("`{setting}` at {place}"),
            (Some(setting), None) => format!("`{setting}`"),
            (None, Some(place)) => place.to_owned(),
            (None, None) => continue,
        };
        let _infallible = writeln!(text, "  = {by}");
    }
    text
}

/// Words of a list, or what stands for none.
fn words(values: &Value, none: &str) -> String {
    let words: Vec<String> = list(values).iter().map(word).collect();
    match words.is_empty() {
        true => none.to_owned(),
        false => words.join(", "),
    }
}

/// Who did not answer, if anybody.
pub(crate) fn silent(answer: &Value) -> String {
    let mut text = String::new();
    for one in list(&answer["silent"]) {
        let _infallible = writeln!(
            text,
            "no answer of {}: {}",
            word(&one["who"]),
            word(&one["why"])
        );
    }
    text
}
