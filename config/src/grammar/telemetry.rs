//! The section `[telemetry]`. As in `sections`, a line here is what the reader accepts, the schema says and the page shows.

use super::rules::*;
use super::sections::{NOTHING, default, optional, required};
use super::{Kind, Section};

pub(super) static TELEMETRY: Section = Section {
    title: "[telemetry]",
    doc: "What is told about requests.",
    keys: &[
        default(
            "access_log",
            Kind::Either(&[Kind::Rule(&FILE), Kind::Table(&ACCESS_LOG)]),
            "\"stdout\"",
            "\"off\", \"stdout\" or a file, or a table.",
        ),
        default(
            "labels",
            Kind::Map(&LABEL, &Kind::Text),
            "{}",
            "Labels that all series of this process have besides their own, such as `{ proxy = \"sidecar\" }`. A series' own label of that name stays.",
        ),
        optional(
            "traces",
            Kind::Table(&TRACES),
            "Tells a collector of spans. Absent: trace context is passed on, and the latest spans are shown at the admin address all the same.",
        ),
    ],
    ..NOTHING
};

pub(super) static ACCESS_LOG: Section = Section {
    title: "access_log = { … }",
    doc: "One line for each request.",
    keys: &[
        default(
            "to",
            Kind::Rule(&FILE),
            "\"stdout\"",
            "\"off\", \"stdout\" or a file.",
        ),
        default(
            "format",
            Kind::Word(&["json"]),
            "\"json\"",
            "How a line is written.",
        ),
        default(
            "sample",
            Kind::Share,
            "1.0",
            "Share of lines written; answers of 500 and above always are.",
        ),
    ],
    ..NOTHING
};

static TRACES: Section = Section {
    title: "traces = { … }",
    doc: "A span for each request and one for each time it was sent, told to a collector that speaks OTLP: batched, beside the \
          requests and never for one; what the collector does not take is dropped and counted. Whether a trace is sampled is decided \
          where it begins, and told in `traceparent`; who gets a trace from somebody else does as that one decided.",
    keys: &[
        required(
            "otlp",
            Kind::Rule(&COLLECTOR),
            "The collector: gRPC, or HTTP where the path is `/v1/traces`.",
        ),
        optional(
            "ca",
            Kind::Rule(&FILE),
            "The authority that signed the collector's certificate. Absent: the system's.",
        ),
        default(
            "sample",
            Kind::Share,
            "0.01",
            "Share of the traces that begin here.",
        ),
        default(
            "always_on_error",
            Kind::Flag,
            "true",
            "Of a request that fails, this node's spans are told whether or not its trace is sampled.",
        ),
        optional(
            "service",
            Kind::Rule(&NAME),
            "The `service.name`. Absent: that of `[identity]` or of `control_plane.register`, else the program's.",
        ),
        default(
            "attributes",
            Kind::Map(&NAME, &Kind::Text),
            "{}",
            "Attributes of the resource, such as `{ \"deployment.environment.name\" = \"staging\" }`, besides service, instance and version.",
        ),
        default(
            "batch_size",
            Kind::Count(1, 8192),
            "512",
            "Spans in one message at the most.",
        ),
        default(
            "batch_timeout",
            Kind::Rule(&DURATION),
            "\"1s\"",
            "The longest that a span waits for others.",
        ),
    ],
    ..NOTHING
};
