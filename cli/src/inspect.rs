//! `audit`: what was done, and by whom, as a control plane tells it.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use crate::control::{Asked, ask, ended, unless_empty};
use crate::status::list;
use crate::table::row;

#[derive(Debug, clap::Args)]
pub(crate) struct Audit {
    /// Only what this token's owner did.
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Only this: apply, rollback, confirm, denied, revision, registered, state, removed, …
    #[arg(long, value_name = "WORD")]
    what: Option<String>,
    /// Only with this result: done, same, refused, denied.
    #[arg(long, value_name = "WORD")]
    result: Option<String>,
    /// Only instances of this service.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only from this day or time on, in UTC: 2026-11-21, or 2026-11-21T19:00.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only before this day or time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// So many lines at most.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    asked: Asked,
}

pub(crate) fn audit(arguments: &Audit) -> ExitCode {
    let mut path = format!("/audit?limit={}", arguments.limit);
    for (name, value) in [
        ("who", &arguments.who),
        ("what", &arguments.what),
        ("result", &arguments.result),
        ("service", &arguments.service),
        ("since", &arguments.since),
        ("until", &arguments.until),
    ] {
        if let Some(value) = value {
            let _infallible = write!(path, "&{name}={}", escaped(value));
        }
    }
    let answer = ask(&arguments.asked, "GET", &path, "");
    ended(&arguments.asked, answer, |answer| {
        let mut rows = vec![row(&["TIME", "WHO", "FROM", "WHAT", "ABOUT", "RESULT"])];
        rows.extend(list(&answer["events"]).iter().map(event));
        unless_empty(&rows, "nothing was found\n")
    })
}

/// One line of the log: somebody's request, a revision, or what became of an instance.
fn event(one: &Value) -> Vec<String> {
    let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let change = |one: &Value| match (one["before"].as_u64(), one["after"].as_u64()) {
        (Some(before), Some(after)) if before != after => format!("{before} → {after}"),
        _ => String::new(),
    };
    let joined = |parts: &[String]| {
        let parts: Vec<&str> = { parts.iter() }
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        parts.join(", ")
    };
    let (by, address) = match text("by").rsplit_once('@') {
        Some((by, address)) => (by.to_owned(), address.to_owned()),
        None => (text("by"), String::new()),
    };
    let about = match one["revision"].as_u64() {
        Some(revision) => joined(&[format!("revision {revision}"), text("note")]),
        None if one["id"].is_string() => joined(&[text("service"), text("id")]),
        None => joined(&[text("target"), change(one), text("note")]),
    };
    let about = match about.is_empty() {
        true => text("request"),
        false => about,
    };
    let result = match (text("result"), text("to")) {
        (result, to) if result.is_empty() => joined(&[to, text("cause")]),
        (result, _) => joined(&[result, text("code")]),
    };
    vec![
        text("time"),
        if text("who").is_empty() {
            by
        } else {
            text("who")
        },
        if address.is_empty() {
            text("address")
        } else {
            address
        },
        text("what"),
        about,
        result,
    ]
}

/// As a part of a path or a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => path.push(char::from(byte)),
            false => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_of_every_kind_are_told_in_the_same_columns() {
        let change = json!({"time": "t", "what": "apply", "result": "done", "who": "ada", "address": "10.0.0.1",
            "request": "POST /apply", "target": "shop.toml", "before": 1, "after": 2, "note": "why"});
        assert_eq!(
            event(&change),
            [
                "t",
                "ada",
                "10.0.0.1",
                "apply",
                "shop.toml, 1 → 2, why",
                "done"
            ]
        );
        let denied = json!({"time": "t", "what": "denied", "result": "denied", "address": "10.0.0.9",
            "request": "GET /nodes", "code": "unauthorized", "status": 401});
        assert_eq!(
            event(&denied),
            [
                "t",
                "",
                "10.0.0.9",
                "denied",
                "GET /nodes",
                "denied, unauthorized"
            ]
        );
        let state = json!({"time": "t", "what": "state", "service": "orders", "id": "o1", "from": "active",
            "to": "suspected", "cause": "silence"});
        assert_eq!(
            event(&state),
            ["t", "", "", "state", "orders, o1", "suspected, silence"]
        );
        let registered = json!({"time": "t", "what": "registered", "service": "orders", "id": "o1",
            "cause": "request", "by": "orders-token@10.0.0.7"});
        assert_eq!(event(&registered)[1..3], ["orders-token", "10.0.0.7"]);
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped("a b&c/ä"), "a%20b%26c%2F%C3%A4");
    }
}
