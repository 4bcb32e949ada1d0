//! The rules that texts of a document keep, each with its words and an example. What a rule does stands in `rule`.

use super::Rule;
use crate::{binding, rule, unit};

macro_rules! rules {
    ($($name:ident: $code:literal, $words:literal, $example:literal, $check:expr;)*) => {
        $(pub(crate) static $name: Rule = Rule {
            code: $code,
            words: $words,
            example: $example,
            check: |text| $check(text).map(drop),
        };)*
    };
}

rules! {
    DURATION: "bad-duration", "a duration", "5s", rule::positive_duration;
    LAG: "bad-duration", "a duration", "0s", unit::duration;
    WINDOW: "bad-duration", "a duration from 1s to 60s", "10s", rule::window;
    FLOOR: "bad-rate", "a rate", "10/s", unit::rate;
    SIZE: "bad-size", "a size", "64KiB", unit::size;
    RATE: "bad-rate", "a rate", "100/s", rule::limit_rate;
    HEADER_SIZE: "bad-size", "a size from 1KiB to 16MiB", "64KiB", rule::header_size;
    NAME: "bad-name", "a name", "orders", rule::name;
    FILE: "bad-path", "the path of a file", "edge.pem", rule::file_path;
    BIND: "bad-address", "an IP address and a port", "127.0.0.1:8000", rule::bind;
    ENDPOINT: "bad-address", "an address (`host:port`)", "10.0.0.7:7000", rule::endpoint;
    DNS: "bad-address", "a name and a port", "orders.internal:7000", rule::dns;
    CIDR: "bad-address", "a block of addresses", "10.0.0.0/8", rule::cidr;
    HOST: "bad-host", "a host", "api.example.com", rule::host;
    SERVER_NAME: "bad-host", "a name", "a.example.com", rule::server_name;
    PEER_NAME: "bad-host", "a name on a certificate", "orders.internal", rule::peer_name;
    AUTHORITY: "bad-host", "a host, with or without a port", "orders.internal", rule::authority;
    PATH: "bad-pattern", "a path pattern", "/orders/{id}", rule::path_pattern;
    PREFIX: "bad-pattern", "a path", "/api", rule::path_prefix;
    SENT_PATH: "bad-path", "a path with its query", "/orders/42", rule::sent_path;
    REGEX: "bad-regex", "a regular expression", "v[0-9]+", rule::anchored;
    METHOD: "bad-method", "a method", "GET", rule::method;
    HEADER_NAME: "bad-header", "a header name", "x-user-id", rule::header_name;
    OWN_HEADER: "bad-header", "a header name", "x-user-id", rule::own_header;
    HEADER_VALUE: "bad-header", "a header value", "1", rule::header_value;
    COOKIE: "bad-cookie", "a cookie's name", "sid", rule::cookie_name;
    BASE_URL: "bad-target", "a URL", "http://127.0.0.1:8080", crate::quick::target;
    JWKS: "bad-target", "the URL of a set of keys", "https://issuer.example/.well-known/jwks.json", crate::decode::jwks_url;
    COLLECTOR: "bad-target", "the URL of a collector", "http://127.0.0.1:4317", crate::decode::collector;
    ORIGIN: "bad-origin", "an origin", "https://shop.example.com", crate::decode::origin;
    TARGET: "bad-target", "a URL or a path", "https://example.com{path}", rule::redirect_target;
    RETRY_ON: "bad-reason", "a reason", "connect", rule::retry_on;
    KEY_HASH: "bad-key", "the hash of a key", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", crate::KeyHash::parse;
    FALLBACK_ON: "bad-reason", "a reason", "timeout", rule::fallback_on;
    STAGE: "bad-stage", "a stage", "10%", crate::control_plane::Stage::parse;
    DESCRIPTORS: "bad-path", "the path of a descriptor set", "shop.binpb", rule::file_path;
    SERVICE: "bad-name", "a full name", "shop.v1.Orders", binding::full_name;
    BINDING_PATH: "bad-binding", "a method and a path template", "GET /v1/orders/{id}", binding::parse;
    MESSAGE_SIZE: "bad-size", "a size from 1KiB to 1GiB", "4MiB", binding::message_size;
    BODY_SCHEMA: "bad-schema", "a JSON Schema", "{ \"type\": \"object\" }", crate::BodySchema::parse;
    SERVICE_NAME: "bad-name", "the name of a service", "orders", crate::sidecar::service_name;
    REASON: "bad-name", "a reason", "PAYMENT_FAILED", rule::name;
    MEMBERS: "bad-name", "a service, or several", "orders", crate::decode::members;
    GRPC_METHOD: "bad-name", "a gRPC method", "payments.v1.PaymentsService/ProcessPayment", crate::decode::grpc_method;
    SEGMENT: "bad-identity", "a service's name in an identity", "orders", crate::identity::service;
    NAMESPACE: "bad-identity", "a namespace's name in an identity", "default", crate::identity::namespace;
    MEMBER: "bad-identity", "a member's name", "orders", crate::identity::member;
    TRUST_DOMAIN: "bad-host", "a trust domain", "example.org", crate::identity::domain;
    FULL_MEMBER: "bad-name", "a namespace and a name", "shop/orders", crate::identity::full_member;
    LABEL: "bad-name", "the name of a label", "proxy", rule::label;
    PARAMETER: "bad-parameter", "a parameter's name", "v", rule::name;
}
