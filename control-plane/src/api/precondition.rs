//! Writes for one revision (CP-203): which one a change is for, and how an answer tells where the catalog is.

use axum::Json as Answer;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;

use super::problem::{Code, Problem};

/// The revision that a change is for: `if_revision` of the body, or `If-Match: "42"` (CP-203).
pub(super) fn expected(headers: &HeaderMap, body: Option<u64>) -> Result<Option<u64>, Problem> {
    let mut lines = headers.get_all(header::IF_MATCH).iter();
    let Some(line) = lines.next() else {
        return Ok(body);
    };
    let text = line.to_str().unwrap_or_default().trim();
    let number = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let number = number.unwrap_or(text).parse::<u64>().ok();
    match (number, body) {
        _ if lines.next().is_some() => {}
        (Some(number), None) => return Ok(Some(number)),
        (Some(number), Some(other)) if number == other => return Ok(body),
        _ => {}
    }
    let title = "`If-Match` is not one revision such as `\"42\"`, or another than `if_revision`; send one of the two";
    Err(Problem::new(Code::BadRequest, title))
}

/// The revision as a validator, for `If-Match`.
pub(super) fn tagged(revision: u64, answer: Value) -> Response {
    let mut response = Answer(answer).into_response();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
