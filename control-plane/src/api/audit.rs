//! `GET /audit`: who did what, who was refused, what became of instances.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tollgate_engine::telemetry::log;

use super::Api;
use super::fields::short;
use super::problem::{Code, Field, Problem};
use crate::audit::Filter;

/// Fields that a question may name.
const FIELDS: [&str; 7] = ["who", "what", "result", "service", "id", "address", "role"];
const USUAL: usize = 100;
const MOST: usize = 1000;

/// `GET /audit?who=…&what=…&since=…&limit=…`.
pub(super) async fn audit(
    State(api): State<Arc<Api>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let found = api.audit.search(filter(query)?).await.map_err(|error| {
        log::error("the audit log cannot be read", &[("reason", &error)]);
        Problem::new(
            Code::StoreUnavailable,
            format!("the audit log cannot be read: {error}"),
        )
    })?;
    let answer = json!({ "events": found.lines, "complete": found.complete });
    Ok(Answer(answer).into_response())
}

fn filter(query: Vec<(String, String)>) -> Result<Filter, Problem> {
    let mut filter = Filter {
        most: USUAL,
        ..Filter::default()
    };
    let mut wrong = Vec::new();
    let mut bad = |field: &str, reason: &str, hint: String| {
        wrong.push(Field {
            field: short(field),
            reason: reason.to_owned(),
            hint,
        });
    };
    for (name, value) in query {
        match name.as_str() {
            "limit" => match value.parse::<usize>() {
                Ok(most @ 1..=MOST) => filter.most = most,
                _ => bad(
                    "limit",
                    "is no number from 1 to 1000",
                    "send ?limit=100".to_owned(),
                ),
            },
            "since" | "until" => {
                let beginning = |text: &str| {
                    let shape = "0000-00-00T00:00:00.000Z".bytes().zip(text.bytes());
                    let good = |(shape, byte): (u8, u8)| match shape {
                        b'0' => byte.is_ascii_digit(),
                        other => byte == other,
                    };
                    (10..=24).contains(&text.len()) && shape.into_iter().all(good)
                };
                if !beginning(&value) {
                    let hint =
                        format!("send a day or a time in UTC, such as ?{name}=2026-11-21T19:00");
                    bad(&name, "is no time", hint);
                    continue;
                }
                match name.as_str() {
                    "since" => filter.since = Some(value),
                    _ => filter.until = Some(value),
                }
            }
            other => match FIELDS.iter().find(|field| **field == other) {
                Some(field) => filter.fields.push((field, value)),
                None => bad(
                    other,
                    "is nothing that can be asked for",
                    format!("ask for {}, since, until or limit", FIELDS.join(", ")),
                ),
            },
        }
    }
    match wrong.is_empty() {
        true => Ok(filter),
        false => Err(Problem::fields(wrong)),
    }
}
