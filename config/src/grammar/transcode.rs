//! JSON to gRPC: the filters `transcode` and `grpc_web`. As in `sections`, a line here is what the reader accepts, the
//! schema says and the page shows.

use super::rules::*;
use super::sections::{NOTHING, default, optional, required};
use super::{Kind, Section};

pub(super) static TRANSCODE: Section = Section {
    title: "{ transcode = { … } }",
    doc: "Answers JSON over HTTP with calls of a gRPC service, whose upstream speaks HTTP/2. Requests that are gRPC already pass \
          untouched. See [transcoding](transcoding.md).",
    keys: &[
        optional(
            "descriptors",
            Kind::Rule(&DESCRIPTORS),
            "What `protoc --include_imports --descriptor_set_out=…` wrote. A file that changes is read again. This or `reflection`.",
        ),
        default(
            "reflection",
            Kind::Flag,
            "false",
            "Instead of a file: the route's upstream (of a split, the first) is asked by gRPC server reflection, at the start and again and again.",
        ),
        default(
            "refresh",
            Kind::Rule(&DURATION),
            "\"1m\"",
            "From one such question to the next.",
        ),
        default(
            "services",
            Kind::List(&Kind::Rule(&SERVICE)),
            "all",
            "The services that are called, by full name.",
        ),
        default(
            "convention",
            Kind::Flag,
            "false",
            "Methods without `google.api.http` are found by their names: `ListOrders` is `GET /orders`, `GetOrder` is `GET /orders/{id}`.",
        ),
        default(
            "bindings",
            Kind::List(&Kind::Table(&BINDING)),
            "[]",
            "Methods that are called otherwise than the descriptors say.",
        ),
        default(
            "names",
            Kind::Word(&["json", "proto"]),
            "\"json\"",
            "How keys of answers are spelled: in camel case, or as the descriptors do. Requests may use either.",
        ),
        default(
            "defaults",
            Kind::Flag,
            "false",
            "Write fields also when they have their default value.",
        ),
        default(
            "enums",
            Kind::Word(&["name", "number"]),
            "\"name\"",
            "How answers write enums.",
        ),
        default(
            "unknown_fields",
            Kind::Word(&["refuse", "ignore"]),
            "\"refuse\"",
            "What becomes of fields and query parameters that the message does not have.",
        ),
        default(
            "unmatched",
            Kind::Word(&["refuse", "pass"]),
            "\"refuse\"",
            "What becomes of requests that call no method: 404, or on to the upstream as they are.",
        ),
        default(
            "envelope",
            Kind::Flag,
            "false",
            "Answers of one message are `{\"success\": true, \"data\": …}`; of a message with a list and a `pagination` the list is the data, and `pagination` stands beside it.",
        ),
        optional(
            "status_header",
            Kind::Rule(&HEADER_NAME),
            "Metadata in which a service may say another status from 200 to 299, such as \"x-http-code\". Not passed on.",
        ),
        default(
            "statuses",
            Kind::Map(&REASON, &Kind::Count(400, 599)),
            "{}",
            "The HTTP status of errors whose `google.rpc.ErrorInfo` gives this reason, such as `{ PAYMENT_FAILED = 402 }`.",
        ),
        default(
            "max_message",
            Kind::Rule(&MESSAGE_SIZE),
            "\"4MiB\"",
            "One message, as JSON and as protobuf, in either direction. Of a stream one message is held at a time.",
        ),
        default(
            "max_depth",
            Kind::Count(1, 200),
            "100",
            "Objects and arrays in one another.",
        ),
        default(
            "max_fields",
            Kind::Count(1, 10_000_000),
            "100000",
            "Fields and elements of one message, with all in it.",
        ),
    ],
    ..NOTHING
};

static BINDING: Section = Section {
    title: "bindings = [{ … }, …]",
    doc: "What is written here takes the place of everything that the descriptors say about the method.",
    keys: &[
        required(
            "method",
            Kind::Rule(&SERVICE),
            "The full name: package, service and method.",
        ),
        required(
            "http",
            Kind::Rule(&BINDING_PATH),
            "Method and path template, such as `POST /v1/orders/{id}:cancel`.",
        ),
        default(
            "body",
            Kind::Text,
            "\"\"",
            "The field that the request's body is, \"*\" for the whole message, or \"\" for none.",
        ),
        default(
            "response_body",
            Kind::Text,
            "\"\"",
            "The field that is the answer's body, or \"\" for the whole message.",
        ),
        optional(
            "status",
            Kind::Count(200, 299),
            "Of an answer that is no error. Default: 201 when a POST calls a method whose name begins with `Create`, else 200.",
        ),
    ],
    ..NOTHING
};
