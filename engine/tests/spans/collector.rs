//! A collector in this process: a gRPC service that does as it is told, and reads what it gets by a description of its own.

use std::collections::{BTreeMap, HashSet};
use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::Value;
use tollgate_engine::testing::grpc::{Call, GrpcUpstream, Reply};
use tollgate_engine::testing::waiting::wait;

pub(crate) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A span as it was told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) service: String,
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty where the trace begins.
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    pub(crate) failed: bool,
    pub(crate) attributes: BTreeMap<String, String>,
}

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/protos");
        let mut compiler = protox::Compiler::new([folder]).expect("a folder");
        compiler.open_file("otlp.proto").expect("it compiles");
        let set = compiler.encode_file_descriptor_set();
        DescriptorPool::decode(&set[..]).expect("a descriptor set")
    })
}

/// The spans of one message.
pub(crate) fn read(message: &[u8]) -> Vec<Told> {
    let kind = pool()
        .get_message_by_name("otlp.Request")
        .expect("is there");
    let message = DynamicMessage::decode(kind, message).expect("it is a message");
    assert_eq!(message.unknown_fields().count(), 0, "{message:?}");
    let options = SerializeOptions::new().use_proto_field_name(true);
    let json = message.serialize_with_options(serde_json::value::Serializer, &options);
    let json = json.expect("it has JSON");
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let mut told = Vec::new();
    for resource in list(&json, "resource_spans") {
        let attributes = pairs(&resource["resource"]);
        for scope in list(&resource, "scope_spans") {
            assert_eq!(scope["scope"]["name"], "tollgate");
            told.extend(
                list(&scope, "spans")
                    .iter()
                    .map(|one| span(one, &attributes)),
            );
        }
    }
    told
}

fn span(span: &Value, resource: &BTreeMap<String, String>) -> Told {
    let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
    let time = |name: &str| text(name).parse().expect("nanoseconds");
    Told {
        service: resource["service.name"].clone(),
        resource: resource.clone(),
        trace: digits(&text("trace_id")),
        id: digits(&text("span_id")),
        parent: digits(&text("parent_span_id")),
        name: text("name"),
        kind: text("kind"),
        began: time("start_time_unix_nano"),
        ended: time("end_time_unix_nano"),
        failed: span["status"]["code"] == "ERROR",
        attributes: pairs(span),
    }
}

fn pairs(value: &Value) -> BTreeMap<String, String> {
    let pairs = value["attributes"].as_array().cloned().unwrap_or_default();
    let pair = |pair: &Value| {
        let value = &pair["value"];
        let text = value["string_value"]
            .as_str()
            .or(value["int_value"].as_str());
        let key = pair["key"].as_str().expect("each has a key").to_owned();
        (key, text.expect("each has a value").to_owned())
    };
    pairs.iter().map(pair).collect()
}

/// Base 64 to hexadecimal digits.
fn digits(text: &str) -> String {
    let mut bits = text
        .bytes()
        .filter(|byte| *byte != b'=')
        .map(|byte| match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        });
    let (mut bytes, mut held, mut count) = (String::new(), 0u32, 0);
    for six in &mut bits {
        held = held << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push_str(&format!("{:02x}", held >> count & 255));
        }
    }
    bytes
}

pub(crate) struct Collector(GrpcUpstream);

impl Collector {
    /// Takes everything.
    pub(crate) fn start() -> Collector {
        Collector::with(|_| Reply::ok(&[vec![]]))
    }

    pub(crate) fn with(script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Collector {
        Collector(GrpcUpstream::start(script))
    }

    /// `traces = { … }` of a document, with these keys besides.
    pub(crate) fn traces(&self, keys: &str) -> String {
        traces(&format!("http://{}", self.0.address()), keys)
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.calls()
    }

    /// Of all messages that came, whatever they were answered. A span that was told again, as after a time-out, is in it once.
    pub(crate) fn spans(&self) -> Vec<Told> {
        let calls = self.calls();
        let messages = calls.iter().flat_map(|call| &call.messages);
        let mut known = HashSet::new();
        messages
            .flat_map(|message| read(message))
            .filter(|span| known.insert(span.id.clone()))
            .collect()
    }

    #[track_caller]
    pub(crate) fn wait(&self, count: usize) -> Vec<Told> {
        wait("spans", || self.spans(), |spans| spans.len() >= count)
    }
}

/// `[telemetry]` with a collector at this URL, which is told soon.
pub(crate) fn traces(url: &str, keys: &str) -> String {
    let timeout = match keys.contains("batch_timeout") {
        true => "",
        false => ", batch_timeout = \"10ms\"",
    };
    format!("\n[telemetry]\naccess_log = \"off\"\ntraces = {{ otlp = \"{url}\"{timeout}{keys} }}\n")
}

/// An answer that says that so many spans were not taken.
pub(crate) fn rejecting(spans: u8) -> Vec<u8> {
    vec![0x0a, 2, 0x08, spans]
}
