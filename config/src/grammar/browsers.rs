//! What browsers and clients are told: the filters `cors` and `security_headers`, and the section `[errors]`. As in
//! `sections`, a line here is what the reader accepts, the schema says and the page shows.

use super::rules::*;
use super::sections::{NOTHING, OFF, default};
use super::{Kind, Section};

const HEADER_NAMES: Kind = Kind::List(&Kind::Rule(&HEADER_NAME));
const VALUE_OR_OFF: Kind = Kind::Either(&[Kind::Rule(&HEADER_VALUE), OFF]);

pub(super) static CORS: Section = Section {
    title: "{ cors = { … } }",
    doc: "Cross-origin requests. Answers that name an origin vary by it; what an upstream says of the same is replaced.",
    keys: &[
        default(
            "origins",
            Kind::List(&Kind::Rule(&ORIGIN)),
            "[\"http://localhost:3000\"]",
            "Whose scripts may read answers: \"https://shop.example.com\", \"https://*.example.com\" for every name below it, or \"*\" for all.",
        ),
        default(
            "methods",
            Kind::List(&Kind::Rule(&METHOD)),
            "[\"GET\", \"POST\", \"PUT\", \"PATCH\", \"DELETE\"]",
            "Methods that scripts may use; GET, HEAD and POST need no leave.",
        ),
        default(
            "headers",
            HEADER_NAMES,
            "[\"content-type\", \"authorization\", \"x-api-key\", \"idempotency-key\", \"traceparent\"]",
            "Fields that scripts may send.",
        ),
        default(
            "expose",
            HEADER_NAMES,
            "[\"x-total-count\", \"x-page-count\", \"ratelimit\", \"ratelimit-policy\", \"x-ratelimit-limit\", \"x-ratelimit-remaining\", \"x-ratelimit-reset\", \"retry-after\"]",
            "Fields of an answer that scripts may read.",
        ),
        default(
            "credentials",
            Kind::Flag,
            "true",
            "Whether cookies and `Authorization` may go along. Never with \"*\".",
        ),
        default(
            "max_age",
            Kind::Rule(&LAG),
            "\"10m\"",
            "How long a browser may remember a preflight.",
        ),
    ],
    ..NOTHING
};

pub(super) static SECURITY_HEADERS: Section = Section {
    title: "{ security_headers = { … } }",
    doc: "Each is set on answers that do not have it; \"off\" leaves it out.",
    keys: &[
        default(
            "content_security_policy",
            VALUE_OR_OFF,
            "\"default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self'; img-src 'self' data: https:\"",
            "`Content-Security-Policy`.",
        ),
        default(
            "hsts",
            VALUE_OR_OFF,
            "\"max-age=31536000; includeSubDomains; preload\"",
            "`Strict-Transport-Security`, over TLS only.",
        ),
        default(
            "content_type_options",
            VALUE_OR_OFF,
            "\"nosniff\"",
            "`X-Content-Type-Options`.",
        ),
        default(
            "frame_options",
            VALUE_OR_OFF,
            "\"DENY\"",
            "`X-Frame-Options`.",
        ),
        default(
            "referrer_policy",
            VALUE_OR_OFF,
            "\"strict-origin-when-cross-origin\"",
            "`Referrer-Policy`.",
        ),
    ],
    ..NOTHING
};

pub(super) static ERRORS: Section = Section {
    title: "[errors]",
    doc: "How the proxy's own answers look. What an upstream answers is left as it is.",
    keys: &[default(
        "body",
        Kind::Word(&["problem", "envelope"]),
        "\"problem\"",
        "\"problem\": `application/problem+json` (RFC 9457), with the setting that decided. \"envelope\": `{\"success\": false, \"error\": {\"code\", \"message\", \"status\", \"trace_id\", \"correlation_id\"}}`, which names no setting.",
    )],
    ..NOTHING
};
