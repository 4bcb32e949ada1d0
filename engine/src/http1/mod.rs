//! HTTP/1 as we speak it: one strict codec for both sides. A client's request and an upstream's answer are read by the
//! same rules, and every message that leaves is framed anew, so nothing ambiguous crosses the proxy.
//!
//! `head` parses message heads, `chunked` is the chunked coding, `wire` joins both to a socket, `encode` writes.
//! Nothing here knows routes, time-outs or upstreams. Sources: RFC 9110, RFC 9112.

pub mod chunked;
pub mod encode;
pub mod head;
pub mod wire;

pub use head::{Framing, RequestHead, ResponseHead, parse_request, parse_response};
pub use wire::{Incoming, Wire};
