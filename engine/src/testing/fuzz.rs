//! The door for fuzz targets to what is otherwise private: bytes of a peer go in, what the engine makes of them comes
//! out. Nothing here judges; `engine/tests/fuzz` does, with readings of its own.

use bytes::Bytes;

use crate::exchange::Request;
use crate::exchange::error::Error;
use crate::exchange::headers::Sender;
use crate::http1::{Framing, encode, parse_request};
use crate::server::request;

/// A head as it comes from an HTTP/1 client, to the request that routes see.
pub fn from_http1(head: &Bytes) -> Result<Request, Error> {
    request::from_http1(parse_request(head)?)
}

/// What the HTTP/2 library lets pass, to the request that routes see.
pub fn from_http2(parts: http::request::Parts) -> Result<Request, Error> {
    request::from_http2(parts)
}

/// The whole head that an HTTP/1 upstream is sent.
pub fn to_http1(sender: &Sender<'_>, request: &Request, framing: Framing) -> Vec<u8> {
    let mut out = Vec::new();
    encode::request_line(&mut out, &request.method, request.target.as_str());
    sender.write_http1(&mut out, request);
    encode::framing(&mut out, framing);
    encode::end_of_head(&mut out);
    out
}
