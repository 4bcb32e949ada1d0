//! Heads: of a request that becomes a call, of an answer that is no gRPC any more, and of refusals that name a field.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::exchange::error::{Code, Error, written_size};
use crate::exchange::{Marks, Request, Response, Target};
use crate::proxy::books::Exchange;
use crate::snapshot::RoutePlan;
use crate::transcode::plan::Binding;
use crate::transcode::{Bound, Fault, Transcoder, Unfit, place_of};

/// Fields of an answer that say how gRPC is framed and how the call ended: none of them is the client's.
const FRAMING: [HeaderName; 8] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-retry-pushback-ms"),
    header::TRAILER,
    header::CONTENT_LENGTH,
];

/// The head of the request becomes that of the call.
pub(super) fn become_call(
    exchange: &mut Exchange,
    plan: &RoutePlan,
    request: &mut Request,
    binding: &Binding,
) {
    request.target = Target::new(&binding.path, None);
    request.is_call = true;
    exchange.is_grpc = true;
    let headers = &mut request.headers;
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::ACCEPT,
        header::ACCEPT_ENCODING,
        header::EXPECT,
    ] {
        headers.remove(name);
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    // What is left of it is written over this for each try.
    if exchange.deadline.is_some() {
        headers.insert("grpc-timeout", HeaderValue::from_static("0m"));
    } else if !binding.streams()
        && let Some(timeout) = plan.item.timeout.value
    {
        let millis = timeout.as_millis().min(99_999_999);
        if let Ok(value) = HeaderValue::from_str(&format!("{millis}m")) {
            headers.insert("grpc-timeout", value);
        }
    }
    request.marks = Marks::of(headers);
}

/// Takes gRPC out of an answer's head.
pub(super) fn head(response: &mut Response, content_type: &str) {
    for name in FRAMING {
        response.headers.remove(name);
    }
    response.announced = None;
    match HeaderValue::from_str(content_type) {
        Ok(value) if !value.is_empty() => {
            response.headers.insert(header::CONTENT_TYPE, value);
        }
        _ => {
            response.headers.remove(header::CONTENT_TYPE);
        }
    }
}

pub(super) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Why a request is no message, as an answer.
pub(super) fn refused(
    unfit: Unfit,
    body: &[u8],
    transcoder: &Transcoder,
    plan: &RoutePlan,
) -> Error {
    match unfit {
        Unfit::Faults(faults) => {
            let told: Vec<_> = faults.iter().map(|fault| told(fault, body)).collect();
            let first = faults
                .first()
                .map(|fault| format!("{}: {}", fault.field, fault.why));
            Error {
                fields: Some(serde_json::Value::from(told).to_string().into()),
                ..Error::because(Code::Unfit, first.unwrap_or_default())
            }
        }
        Unfit::Beyond(bound) => beyond(bound, transcoder, plan),
    }
}

fn told(fault: &Fault, body: &[u8]) -> serde_json::Value {
    let mut told = serde_json::json!({ "field": fault.field, "message": fault.why });
    if let Some(at) = fault.at {
        let (line, column) = place_of(body, at);
        told["line"] = line.into();
        told["column"] = column.into();
    }
    told
}

/// The bound, with its line in the document.
pub(super) fn beyond(bound: Bound, transcoder: &Transcoder, plan: &RoutePlan) -> Error {
    let rules = &transcoder.rules;
    let at = transcoder.bound_at(bound);
    let (setting, value) = match bound {
        Bound::Message => (
            "route.filters.transcode.max_message",
            written_size(rules.max_message as u64),
        ),
        Bound::Depth => (
            "route.filters.transcode.max_depth",
            rules.max_depth.to_string(),
        ),
        Bound::Fields => (
            "route.filters.transcode.max_fields",
            rules.max_fields.to_string(),
        ),
    };
    Error::governed_by(Code::MessageTooLarge, setting, value, plan.place(at))
}
