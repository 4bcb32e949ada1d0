//! OTLP's words: the messages of `opentelemetry/proto/collector/trace/v1`, as far as they are used here, and spans in them.
//! Numbers and names of attributes are OpenTelemetry's.

use prost::Message;
use prost::Oneof;
use tollgate_config::span::SpanKind;

use crate::telemetry::spans::{Record, Value, Wall};

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

const ERROR: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 3")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

impl KeyValue {
    fn new(key: &str, value: Any) -> Self {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
        }
    }

    fn text(key: &str, value: impl Into<String>) -> Self {
        Self::new(key, Any::Text(value.into()))
    }

    fn number(key: &str, value: u64) -> Self {
        Self::new(key, Any::Number(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

/// Who speaks.
pub(super) struct Source {
    /// Tells this process from every other.
    instance: String,
}

impl Source {
    pub(super) fn new() -> Self {
        let machine = rustix::system::uname();
        let machine = machine.nodename().to_string_lossy();
        Source {
            instance: format!("{machine}:{}", std::process::id()),
        }
    }

    /// The whole message, as protobuf.
    pub(super) fn message(
        &self,
        service: &str,
        attributes: &[(String, String)],
        wall: &Wall,
        records: &[Record<'_>],
    ) -> Vec<u8> {
        let mut own = vec![
            KeyValue::text("service.name", service),
            KeyValue::text("service.instance.id", self.instance.as_str()),
            KeyValue::text("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let named = attributes.iter();
        own.extend(named.map(|(key, value)| KeyValue::text(key, value.as_str())));
        let spans = ScopeSpans {
            scope: Some(Scope {
                name: "tollgate".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            spans: records.iter().map(|record| span(record, wall)).collect(),
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes: own }),
                scope_spans: vec![spans],
            }],
        };
        request.encode_to_vec()
    }
}

fn span(record: &Record<'_>, wall: &Wall) -> Span {
    let start = wall.nanoseconds(record.started);
    let mut attributes = Vec::new();
    for (tag, value) in record.tags() {
        match value {
            Value::Text(text) => attributes.push(KeyValue::text(tag.attribute(), text)),
            Value::Number(number) => attributes.push(KeyValue::number(tag.attribute(), number)),
            Value::Address(address) => {
                attributes.push(KeyValue::text(tag.attribute(), address.to_string()));
            }
            Value::Socket(socket) => {
                let (ip, port) = (socket.ip().to_string(), u64::from(socket.port()));
                attributes.push(KeyValue::text("network.peer.address", ip));
                attributes.push(KeyValue::number("network.peer.port", port));
            }
        }
    }
    Span {
        trace_id: record.trace_id.to_vec(),
        span_id: record.span_id.to_vec(),
        parent_span_id: record.parent.map_or(Vec::new(), |parent| parent.to_vec()),
        name: record.operation().to_owned(),
        kind: match record.kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
        },
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(record.nanoseconds),
        attributes,
        status: record.failed.then_some(Status { code: ERROR }),
    }
}

/// How many spans an answer rejects. One that cannot be read is of a collector that took the message all the same.
pub(super) fn rejected(answer: &[u8]) -> usize {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    usize::try_from(partial.rejected_spans).unwrap_or(0)
}
