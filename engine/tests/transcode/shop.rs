//! The shop of `protos/shop.proto`: its descriptors, its messages, and a gateway before it.

use std::sync::OnceLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, SerializeOptions};
use serde_json::Value;
use tollgate_engine::testing::client::{Client, Response};
use tollgate_engine::testing::gateway::{Gateway, line_of};
use tollgate_engine::testing::grpc::{Call, GrpcUpstream, Reply};

/// The descriptor set, as `protoc --include_imports` writes it.
pub(crate) fn set() -> &'static [u8] {
    static SET: OnceLock<Vec<u8>> = OnceLock::new();
    SET.get_or_init(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/protos");
        let mut compiler = protox::Compiler::new([folder]).expect("a folder");
        compiler
            .include_imports(true)
            .open_file("shop.proto")
            .expect("it compiles");
        // Unlike the types of `prost`, this keeps annotations.
        compiler.encode_file_descriptor_set()
    })
}

fn pool() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(set()).expect("a descriptor set"))
}

/// A message of this type, from JSON.
pub(crate) fn message(name: &str, json: Value) -> Vec<u8> {
    let kind = pool().get_message_by_name(name).expect("the shop has it");
    let message = DynamicMessage::deserialize_with_options(kind, json, &DeserializeOptions::new());
    message.expect("it fits").encode_to_vec()
}

/// The JSON of a message, keys as in the descriptors.
pub(crate) fn read(name: &str, bytes: &[u8]) -> Value {
    let kind = pool().get_message_by_name(name).expect("the shop has it");
    let message = DynamicMessage::decode(kind, bytes).expect("it is a message");
    let options = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .expect("it has JSON")
}

pub(crate) fn order(json: Value) -> Vec<u8> {
    message("shop.v1.Order", json)
}

pub(crate) struct Shop {
    pub(crate) gateway: Gateway,
    pub(crate) upstream: GrpcUpstream,
    pub(crate) document: String,
}

impl Shop {
    /// `filter`: further keys of the filter; `route`: further lines of the route.
    pub(crate) fn with(
        filter: &str,
        route: &str,
        script: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> Shop {
        Shop::under("", filter, route, script)
    }

    /// With more lines above all others.
    pub(crate) fn under(
        top: &str,
        filter: &str,
        route: &str,
        script: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> Shop {
        let upstream = GrpcUpstream::start(script);
        let document = format!("{top}{}", document(&upstream, filter, route));
        Shop {
            gateway: Gateway::start(&document),
            upstream,
            document,
        }
    }

    pub(crate) fn answering(script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Shop {
        Shop::with("", "", script)
    }

    /// Answers every call with this order.
    pub(crate) fn of_order(json: Value) -> Shop {
        let order = order(json);
        Shop::answering(move |_| Reply::ok(std::slice::from_ref(&order)))
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        self.gateway.get(target)
    }

    /// A request with a body of JSON.
    pub(crate) fn send(&self, line: &str, json: &str) -> Response {
        self.send_as(line, "application/json", json.as_bytes())
    }

    pub(crate) fn send_as(&self, line: &str, content_type: &str, body: &[u8]) -> Response {
        let mut client = Client::connect(self.gateway.address());
        let (method, _) = line.split_once(' ').expect("a method and a target");
        let head = format!(
            "{line} HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        client.send([head.as_bytes(), body].concat());
        client.read_response_to(method)
    }

    /// What the service was asked, as JSON.
    pub(crate) fn asked(&self, name: &str) -> Value {
        read(name, &self.upstream.call().messages[0])
    }

    pub(crate) fn line_of(&self, text: &str) -> usize {
        line_of(&self.document, text)
    }
}

/// One listener, one route with the filter, the service behind it. The descriptors are named by where they are.
pub(crate) fn document(upstream: &GrpcUpstream, filter: &str, route: &str) -> String {
    static FILE: OnceLock<tempfile::TempPath> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let mut file = tempfile::NamedTempFile::new().expect("a file for the test");
        std::io::Write::write_all(&mut file, set()).expect("it can be written");
        file.into_temp_path()
    });
    let comma = if filter.is_empty() { "" } else { ",\n" };
    // Such as no machine reaches by standing still, unless the test is about it.
    let patient = match route.lines().any(|line| line.starts_with("timeout")) {
        true => "",
        false => "timeout = \"60s\"\n",
    };
    format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n[[route]]\nname = \"shop\"\nupstream = \"shop\"\n{patient}{route}\n\
         filters = [{{ transcode = {{\n  descriptors = \"{}\",\n  services = [\"shop.v1.Orders\"]{comma}{filter}\n}} }}]\n\n\
         [[upstream]]\nname = \"shop\"\nendpoints = [\"{}\"]\nprotocol = \"http2\"\n",
        file.display(),
        upstream.address()
    )
}

pub(crate) fn json(response: &Response) -> Value {
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}
