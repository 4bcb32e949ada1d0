//! The messages in which gRPC services explain their errors (`google.rpc`): every descriptor set has them, whether they
//! were imported or not. Written as descriptors, so that they are read like any others.

use super::wire;

/// A field: its name, its number, its type (of `descriptor.proto`), whether it repeats, and the name of its type.
type Field = (&'static str, u32, u64, bool, &'static str);

const STRING: u64 = 9;
const MESSAGE: u64 = 11;

const fn text(name: &'static str, number: u32) -> Field {
    (name, number, STRING, false, "")
}

const MESSAGES: &[(&str, &str, &[Field])] = &[
    (
        "google.protobuf",
        "Duration",
        &[("seconds", 1, 3, false, ""), ("nanos", 2, 5, false, "")],
    ),
    (
        "google.rpc",
        "ErrorInfo",
        &[
            text("reason", 1),
            text("domain", 2),
            (
                "metadata",
                3,
                MESSAGE,
                true,
                ".google.rpc.ErrorInfo.MetadataEntry",
            ),
        ],
    ),
    (
        "google.rpc",
        "RetryInfo",
        &[(
            "retry_delay",
            1,
            MESSAGE,
            false,
            ".google.protobuf.Duration",
        )],
    ),
    (
        "google.rpc",
        "QuotaFailure",
        &[(
            "violations",
            1,
            MESSAGE,
            true,
            ".google.rpc.QuotaFailure.Violation",
        )],
    ),
    (
        "google.rpc.QuotaFailure",
        "Violation",
        &[text("subject", 1), text("description", 2)],
    ),
    (
        "google.rpc",
        "PreconditionFailure",
        &[(
            "violations",
            1,
            MESSAGE,
            true,
            ".google.rpc.PreconditionFailure.Violation",
        )],
    ),
    (
        "google.rpc.PreconditionFailure",
        "Violation",
        &[text("type", 1), text("subject", 2), text("description", 3)],
    ),
    (
        "google.rpc",
        "BadRequest",
        &[(
            "field_violations",
            1,
            MESSAGE,
            true,
            ".google.rpc.BadRequest.FieldViolation",
        )],
    ),
    (
        "google.rpc.BadRequest",
        "FieldViolation",
        &[text("field", 1), text("description", 2)],
    ),
    (
        "google.rpc",
        "RequestInfo",
        &[text("request_id", 1), text("serving_data", 2)],
    ),
    (
        "google.rpc",
        "ResourceInfo",
        &[
            text("resource_type", 1),
            text("resource_name", 2),
            text("owner", 3),
            text("description", 4),
        ],
    ),
    (
        "google.rpc",
        "Help",
        &[("links", 1, MESSAGE, true, ".google.rpc.Help.Link")],
    ),
    (
        "google.rpc.Help",
        "Link",
        &[text("description", 1), text("url", 2)],
    ),
    (
        "google.rpc",
        "LocalizedMessage",
        &[text("locale", 1), text("message", 2)],
    ),
    (
        "google.rpc.ErrorInfo",
        "MetadataEntry",
        &[text("key", 1), text("value", 2)],
    ),
];

/// Each as a file of its own: the name of its message, the package, and the descriptor of the message.
pub(super) fn files() -> impl Iterator<Item = (String, &'static str, Vec<u8>)> {
    MESSAGES.iter().map(|(package, name, fields)| {
        let mut message = Vec::new();
        wire::bytes(&mut message, 1, name.as_bytes());
        for (field, number, kind, repeats, type_name) in *fields {
            wire::tag(&mut message, 2, wire::BYTES);
            let begin = wire::open(&mut message);
            wire::bytes(&mut message, 1, field.as_bytes());
            for (key, value) in [
                (3, u64::from(*number)),
                (4, if *repeats { 3 } else { 1 }),
                (5, *kind),
            ] {
                wire::tag(&mut message, key, wire::VARINT);
                wire::varint(&mut message, value);
            }
            if !type_name.is_empty() {
                wire::bytes(&mut message, 6, type_name.as_bytes());
            }
            wire::close(&mut message, begin);
        }
        if name.ends_with("Entry") {
            // `options { map_entry = true }`
            wire::bytes(&mut message, 7, &[7 << 3, 1]);
        }
        (format!("{package}.{name}"), *package, message)
    })
}
