//! Bodies that are checked before anybody gets them: the filter `validate`.

use super::rules::*;
use super::sections::{NOTHING, default, required};
use super::{Kind, Section};

pub(super) static VALIDATE: Section = Section {
    title: "{ validate = { … } }",
    doc: "Checks the JSON bodies of requests that are not gRPC, before they are transcoded. Methods that have a body, POST, PUT and PATCH, must send one.",
    keys: &[
        required(
            "schema",
            Kind::Rule(&BODY_SCHEMA),
            "The text of a JSON Schema, best as `${file:order.schema.json}`. What of it is not understood is refused. `\"sanitize\": [\"trim\", \"nul\", \"strip_html\", \"escape_html\"]` beside a text's `type` changes that text before it is checked and passed on (docs/transcoding.md).",
        ),
        default(
            "max_body",
            Kind::Rule(&SIZE),
            "\"1MiB\"",
            "The largest body; it is held until it is checked.",
        ),
    ],
    ..NOTHING
};
