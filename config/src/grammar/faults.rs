//! Faults on purpose: the filter `fault`. As in `sections`, a line here is what the reader accepts, the schema says and
//! the page shows.

use super::rules::*;
use super::sections::{NOTHING, VALUE, default, optional};
use super::{Kind, Section};

pub(super) static FAULT: Section = Section {
    title: "{ fault = { … } }",
    doc: "At least one of `delay` and `abort`. Requests that are chosen wait first, then are aborted. A delay counts against \
          `route.timeout` and the caller's deadline.",
    keys: &[
        optional(
            "delay",
            Kind::Rule(&DURATION),
            "How long a request waits before it goes on.",
        ),
        optional(
            "abort",
            Kind::Either(&[Kind::Count(400, 599), Kind::Word(&["reset"])]),
            "Answer with this status instead; \"reset\" gives no answer: it closes an HTTP/1 connection, and resets an HTTP/2 stream.",
        ),
        default(
            "percent",
            Kind::Percent,
            "100",
            "The share of requests that meets it, chosen by chance; fractions are fine.",
        ),
        default(
            "headers",
            Kind::Map(&HEADER_NAME, &VALUE),
            "{}",
            "Only requests with all of these headers, as in `match`.",
        ),
    ],
    ..NOTHING
};
