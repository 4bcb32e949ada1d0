//! Our own answers in the form that clients of a uniform API expect (GW-807): stable codes in upper snake case, and what to
//! search for in logs and traces. It holds no setting, no place and no cause.

use std::fmt::Write as _;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::error::{Error, whole_seconds};

/// `correlation`: the request id. `trace`: all zero where there is none.
pub(super) fn body(
    error: &Error,
    status: StatusCode,
    correlation: &str,
    trace: &[u8; 16],
) -> Bytes {
    let mut told = json!({
        "code": error.code.word().to_ascii_uppercase(),
        "message": error.code.sentence(),
        "status": status.as_u16(),
        "correlation_id": correlation,
    });
    if trace.iter().any(|byte| *byte != 0) {
        let mut hex = String::with_capacity(32);
        for byte in trace {
            let _infallible = write!(hex, "{byte:02x}");
        }
        told["trace_id"] = hex.into();
    }
    if let Some(detail) = error.detail() {
        told["details"]["reason"] = detail.into();
    }
    if let Some(after) = error.retry_after {
        told["details"]["retry_after"] = whole_seconds(after).into();
    }
    // Made of JSON where the message was read.
    if let Some(fields) =
        { error.fields.as_deref() }.and_then(|text| serde_json::from_str(text).ok())
    {
        let fields: serde_json::Value = fields;
        told["details"]["errors"] = fields;
    }
    Bytes::from(json!({ "success": false, "error": told }).to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::error::Code;
    use super::*;

    #[test]
    fn gw_807_an_envelope_names_code_trace_and_correlation_and_no_setting() {
        let mut error = Error::governed_by(Code::RateLimited, "limit.rate", "5/s".into(), None);
        error.retry_after = Some(Duration::from_millis(1500));
        let (status, headers, body) = error.envelope("r-1", &[0xab; 16]);
        assert_eq!(status, 429);
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["retry-after"], "2");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        let wanted = json!({
            "success": false,
            "error": {
                "code": "RATE_LIMITED", "message": Code::RateLimited.sentence(), "status": 429,
                "trace_id": "ab".repeat(16), "correlation_id": "r-1", "details": { "retry_after": 2 },
            },
        });
        assert_eq!(body, wanted);
    }

    #[test]
    fn gw_807_fields_that_are_wrong_are_named() {
        let fields = json!([{ "field": "items[0].quantity", "message": "it should be positive" }]);
        let error = Error {
            fields: Some(fields.to_string().into()),
            ..Error::from(Code::Unfit)
        };
        let (_, _, body) = error.envelope("r-1", &[0; 16]);
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["error"]["details"]["errors"], fields);
    }
}
