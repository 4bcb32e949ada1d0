//! JSON over HTTP to gRPC and back (GW-2xx), and gRPC-Web. Everything that is decided about a service is decided when a
//! document is loaded: `descriptor` reads its types into a `schema`, `plan` binds its methods to paths (`template`,
//! `table`, `convention`), `store` keeps what did not change, and `reflected` what upstreams told of themselves in the words of
//! `reflection`. For a request, `request` makes a message of body, query and
//! path (`encode`), and `reply` JSON of an answer (`decode`), both in one pass between text and wire, without a tree in
//! between: `oracle` holds them against another implementation. `status` says how a call ended, `stream` translates what
//! goes on.
//!
//! Nothing here knows sockets, routes or time; `proxy::transcode` is where it becomes part of a request's life.

mod bounds;
mod convention;
mod decode;
pub mod descriptor;
mod details;
mod encode;
pub(crate) mod frames;
mod json;
mod known;
mod openapi;
pub mod plan;
mod reflected;
pub(crate) mod reflection;
pub(crate) mod reply;
pub(crate) mod request;
mod scalar;
pub mod schema;
pub(crate) mod status;
pub mod store;
mod table;
mod template;
mod wire;

pub(crate) use bounds::Bound;
pub(crate) use decode::Unreadable;
pub(crate) use encode::{Fault, Unfit};
pub use plan::Transcoder;
pub use reflected::Reflected;
pub use store::Transcoders;

/// A message from its JSON, for benchmarks.
#[cfg(feature = "testing")]
pub(crate) fn encoded(
    schema: &schema::Schema,
    id: schema::MessageId,
    json: &[u8],
    out: &mut Vec<u8>,
) {
    encode::message(schema, &bounds::Rules::default(), id, json, out)
        .expect("the benchmark's message fits");
}

/// The JSON of a message, for benchmarks.
#[cfg(feature = "testing")]
pub(crate) fn decoded(
    schema: &schema::Schema,
    id: schema::MessageId,
    bytes: &[u8],
    out: &mut Vec<u8>,
) {
    decode::message(schema, &bounds::Rules::default(), id, bytes, out)
        .expect("the benchmark's message is one");
}

/// Line and column of a byte of a text, from 1; columns count characters.
pub(crate) fn place_of(text: &[u8], at: usize) -> (usize, usize) {
    let before = &text[..at.min(text.len())];
    let begin = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    (
        line,
        String::from_utf8_lossy(&before[begin..]).chars().count() + 1,
    )
}

/// Groups of base64, of which each may end with padding.
pub(crate) fn text_of_base64(groups: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(groups.len() / 4 * 3);
    let text = std::str::from_utf8(groups).ok()?;
    for part in text.split_inclusive('=') {
        // The second of two signs.
        if part != "=" {
            scalar::base64(&mut bytes, part)?;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod oracle;
