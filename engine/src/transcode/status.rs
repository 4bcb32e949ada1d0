//! How a call ended, in the words of HTTP (GW-206, GW-207): status, sentence, and what the service said about it. Says
//! nothing of what only the service's people should know: messages of internal errors and traces stay behind.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::bounds::Rules;
use super::decode;
use super::scalar;
use super::schema::Schema;
use super::wire::{Fields, Raw};
use crate::exchange::error::whole_seconds;

/// The numbers of gRPC.
pub(crate) const OK: u8 = 0;
const UNKNOWN: u8 = 2;
const FAILED_PRECONDITION: u8 = 9;

/// By gRPC's number: its name, HTTP's status and the sentence for a client.
const TABLE: [(&str, u16, &str); 17] = [
    ("ok", 200, ""),
    ("cancelled", 499, "Cancelled"),
    ("unknown", 500, "Internal server error"),
    ("invalid_argument", 400, "Invalid request parameters"),
    ("deadline_exceeded", 504, "Request timeout"),
    ("not_found", 404, "Resource not found"),
    ("already_exists", 409, "Resource already exists"),
    ("permission_denied", 403, "Insufficient permissions"),
    ("resource_exhausted", 429, "Rate limit exceeded"),
    (
        "failed_precondition",
        409,
        "The request does not fit the state of the resource",
    ),
    ("aborted", 409, "Conflict, retry"),
    ("out_of_range", 400, "Invalid request parameters"),
    ("unimplemented", 501, "Not implemented"),
    ("internal", 500, "Internal server error"),
    ("unavailable", 503, "Service temporarily unavailable"),
    ("data_loss", 500, "Internal server error"),
    ("unauthenticated", 401, "Authentication required"),
];

/// Bytes of details that are looked at; a field of metadata is rarely larger.
const DETAILS: usize = 64 << 10;

/// What to search for in logs and traces.
pub(crate) struct Correlated<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) trace: &'a [u8; 16],
}

impl Correlated<'_> {
    fn trace_id(&self) -> String {
        self.trace
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// The end of a call, taken from its trailers, or from the head of an answer that has nothing else.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) code: u8,
    message: String,
    /// `google.rpc.Status`, as it came.
    details: Vec<u8>,
    pushback: Option<Duration>,
}

impl Status {
    /// `None`: these fields do not say how the call ended.
    pub(crate) fn of(fields: &HeaderMap) -> Option<Status> {
        let number = fields.get("grpc-status")?;
        let number: Option<u8> = number
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let text = |name: &str| fields.get(name).and_then(|value| value.to_str().ok());
        let mut details = Vec::new();
        if let Some(text) = text("grpc-status-details-bin").filter(|text| text.len() <= DETAILS)
            && scalar::base64(&mut details, text).is_none()
        {
            details.clear();
        }
        let pushback = text("grpc-retry-pushback-ms").and_then(|text| text.trim().parse().ok());
        Some(Status {
            code: number
                .filter(|number| usize::from(*number) < TABLE.len())
                .unwrap_or(UNKNOWN),
            message: text("grpc-message").map(said).unwrap_or_default(),
            details,
            pushback: pushback.map(Duration::from_millis),
        })
    }

    /// A call that ended without saying how.
    pub(crate) fn unknown() -> Status {
        Status {
            code: UNKNOWN,
            message: String::new(),
            details: Vec::new(),
            pushback: None,
        }
    }

    /// HTTP's status; `statuses` has those of the reasons that services give in `google.rpc.ErrorInfo`.
    pub(crate) fn http(&self, statuses: &[(String, StatusCode)]) -> StatusCode {
        let by_reason = (!statuses.is_empty() && self.code != OK)
            .then(|| self.reason())
            .flatten()
            .and_then(|reason| statuses.iter().find(|(known, _)| *known == reason));
        if let Some((_, status)) = by_reason {
            return *status;
        }
        let (_, status, _) = TABLE[usize::from(self.code)];
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// When it is worth coming back.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.detail("google.rpc.RetryInfo")
            .and_then(retry_delay)
            .or(self.pushback)
    }

    /// Whether what the service said is for its own people.
    fn is_internal(&self) -> bool {
        TABLE[usize::from(self.code)].1 == 500
    }

    /// A problem (RFC 9457). `status` is the one that is sent, or would have been.
    pub(crate) fn problem(
        &self,
        schema: &Schema,
        rules: &Rules,
        status: StatusCode,
        request_id: &str,
    ) -> Vec<u8> {
        let (word, _, sentence) = TABLE[usize::from(self.code)];
        let json = |text: &str| serde_json::Value::from(text).to_string();
        let mut body = String::with_capacity(256);
        // Of a failed precondition the service's own sentence says more than any of ours.
        let own = self.code == FAILED_PRECONDITION && !self.message.is_empty();
        let title = if own { &self.message } else { sentence };
        let _infallible = write!(
            body,
            r#"{{"type":"about:blank","title":{},"status":{},"code":"{word}""#,
            json(title),
            status.as_u16(),
        );
        if !self.message.is_empty() && !self.is_internal() {
            let _infallible = write!(body, r#","detail":{}"#, json(&self.message));
        }
        let mut body = body.into_bytes();
        self.write_details(schema, rules, &mut body);
        if !request_id.is_empty() {
            body.extend_from_slice(b",\"request_id\":");
            body.extend_from_slice(json(request_id).as_bytes());
        }
        body.push(b'}');
        body
    }

    /// The same in the form of a uniform API (GW-807): the service's own reason as the code, what it said of it as details.
    pub(crate) fn envelope(
        &self,
        schema: &Schema,
        rules: &Rules,
        status: StatusCode,
        told: Correlated<'_>,
    ) -> Vec<u8> {
        let (word, _, sentence) = TABLE[usize::from(self.code)];
        let mut body = b"{\"none\":0".to_vec();
        self.write_details(schema, rules, &mut body);
        body.push(b'}');
        // Ours, and small: it was bounded where it came in.
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (mut code, mut details) = (word.to_ascii_uppercase(), Map::new());
        for detail in said["details"].as_array().into_iter().flatten() {
            if let Some(reason) = detail["reason"].as_str() {
                reason.clone_into(&mut code);
            }
            details.extend(detail["metadata"].as_object().cloned().unwrap_or_default());
            // Spelled as the filter says.
            let violations = [&detail["fieldViolations"], &detail["field_violations"]];
            if let Some(violations) = violations.into_iter().find_map(Value::as_array) {
                let wrong = violations
                    .iter()
                    .map(|one| json!({ "field": one["field"], "message": one["description"] }));
                details.insert("errors".to_owned(), wrong.collect());
            }
        }
        if let Some(after) = self.retry_after() {
            details.insert("retry_after".to_owned(), whole_seconds(after).into());
        }
        let own = !self.message.is_empty() && !self.is_internal();
        let mut error = json!({
            "code": code,
            "message": if own { &self.message } else { sentence },
            "status": status.as_u16(),
            "correlation_id": told.request_id,
            "trace_id": told.trace_id(),
        });
        if !details.is_empty() {
            error["details"] = details.into();
        }
        json!({ "success": false, "error": error })
            .to_string()
            .into_bytes()
    }

    fn write_details(&self, schema: &Schema, rules: &Rules, body: &mut Vec<u8>) {
        let before = body.len();
        body.extend_from_slice(b",\"details\":[");
        let mut first = true;
        for detail in self.details().filter(|_| !self.is_internal()) {
            let is_trace =
                type_of(detail).is_some_and(|name| name.ends_with("google.rpc.DebugInfo"));
            let begin = body.len();
            if !first {
                body.push(b',');
            }
            // A detail of a type that nobody knows here is left out.
            if is_trace || decode::any(schema, rules, detail, body).is_err() {
                body.truncate(begin);
            } else {
                first = false;
            }
        }
        body.push(b']');
        if first {
            body.truncate(before);
        }
    }

    /// The `Any`s of `google.rpc.Status.details`.
    fn details(&self) -> impl Iterator<Item = &[u8]> {
        let mut fields = Fields::new(&self.details);
        std::iter::from_fn(move || {
            loop {
                match fields.next() {
                    Ok(Some((3, Raw::Bytes(any)))) => return Some(any),
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return None,
                }
            }
        })
    }

    fn detail(&self, wanted: &str) -> Option<&[u8]> {
        self.details()
            .find(|any| type_of(any).is_some_and(|name| name.rsplit('/').next() == Some(wanted)))
            .and_then(|any| part(any, 2))
    }

    fn reason(&self) -> Option<&str> {
        std::str::from_utf8(part(self.detail("google.rpc.ErrorInfo")?, 1)?).ok()
    }
}

fn retry_delay(info: &[u8]) -> Option<Duration> {
    let delay = part(info, 1)?;
    let (mut seconds, mut nanos) = (0, 0);
    let mut fields = Fields::new(delay);
    while let Ok(Some((number, raw))) = fields.next() {
        match (number, raw) {
            (1, Raw::Varint(value)) => seconds = i64::try_from(value).ok()?.max(0),
            (2, Raw::Varint(value)) => nanos = u32::try_from(value).ok()?.min(999_999_999),
            _ => {}
        }
    }
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

fn type_of(any: &[u8]) -> Option<&str> {
    std::str::from_utf8(part(any, 1)?).ok()
}

/// The last field of bytes with this number.
fn part(message: &[u8], wanted: u32) -> Option<&[u8]> {
    let mut found = None;
    let mut fields = Fields::new(message);
    while let Ok(Some((number, raw))) = fields.next() {
        if let (true, Raw::Bytes(bytes)) = (number == wanted, raw) {
            found = Some(bytes);
        }
    }
    found
}

/// `grpc-message`: percent-encoded UTF-8; what is not stays as it came.
fn said(text: &str) -> String {
    scalar::unescaped(text, false).unwrap_or_else(|| text.to_owned())
}
