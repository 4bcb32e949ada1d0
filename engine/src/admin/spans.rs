//! `GET /traces` and `GET /traces/{trace_id}`: the spans of the last while, as `tollgate_config::span` writes them.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tollgate_config::span::{MOST_SPANS, Spans as Told};

use super::json_answer;
use crate::telemetry::spans::Spans;

/// Spans that are shown to who names no limit.
const SHOWN: usize = 100;

pub(super) fn recent(spans: &Spans, query: Option<&str>) -> Response<Full<Bytes>> {
    match limit(query) {
        Some(limit) => told(spans.recent(limit)),
        None => refused(&format!("`limit` is a number from 1 to {MOST_SPANS}")),
    }
}

pub(super) fn of(spans: &Spans, trace_id: &str) -> Response<Full<Bytes>> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match trace_id.len() == 32 && trace_id.bytes().all(is_digit) {
        true => told(spans.of(trace_id)),
        false => refused("a trace id is 32 hexadecimal digits in lower case"),
    }
}

/// `None`: not a limit.
fn limit(query: Option<&str>) -> Option<usize> {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Some(SHOWN);
    };
    let limit = query.strip_prefix("limit=")?.parse().ok()?;
    (1..=MOST_SPANS).contains(&limit).then_some(limit)
}

fn told(spans: Vec<tollgate_config::span::Span>) -> Response<Full<Bytes>> {
    json_answer(StatusCode::OK, &json!(Told { spans }))
}

fn refused(why: &str) -> Response<Full<Bytes>> {
    json_answer(
        StatusCode::BAD_REQUEST,
        &json!({ "error": why, "expected": ["GET /traces?limit=100", "GET /traces/TRACE_ID"] }),
    )
}
