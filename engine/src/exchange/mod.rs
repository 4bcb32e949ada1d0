//! What a message is inside the proxy, whatever protocol it came by: the request, its body, our reasons to answer,
//! the fields that are ours to set. Knows no routes, no sockets of its own and no settings.

pub(crate) mod base64;
pub mod body;
mod envelope;
pub mod error;
pub mod headers;
mod linger;
pub mod noise;
pub mod request_id;
mod retry_info;
pub mod trace;

use http::{HeaderMap, HeaderName, Method, StatusCode};
use smallvec::SmallVec;
use tollgate_config::ValueMatch;

use body::Body;

/// A request as routing and filters see it: its path in normal form, its host without doubt.
pub struct Request {
    pub method: Method,
    /// `Host` or `:authority`, as sent; empty when an HTTP/1.0 request named none.
    pub authority: String,
    pub target: Target,
    pub headers: HeaderMap,
    /// Which of the fields that the proxy itself looks at are there.
    pub marks: Marks,
    /// Fields that the sender's `Connection` named: hop-by-hop, not passed on.
    pub named: SmallVec<[HeaderName; 1]>,
    pub body: Body,
    /// The protocol the client wants to switch to, for `Upgrade` and for extended CONNECT (RFC 8441).
    pub upgrade: Option<String>,
    pub is_http2: bool,
    /// It was made a gRPC call, and is sent as POST; `method` stays what the client said, by which it is tried again or not.
    pub is_call: bool,
}

impl Request {
    /// What asks for nothing but an endpoint's connection: of bytes that are not HTTP.
    pub fn for_bytes() -> Self {
        Request {
            method: Method::CONNECT,
            authority: String::new(),
            target: Target::new("/", None),
            headers: HeaderMap::new(),
            marks: Marks::default(),
            named: SmallVec::new(),
            body: Body::Empty,
            upgrade: None,
            is_http2: false,
            is_call: false,
        }
    }

    /// Wants a connection to an endpoint, to put bytes through. Extended CONNECT (RFC 8441) is an upgrade and not this.
    pub fn is_tunnel(&self) -> bool {
        self.method == Method::CONNECT && self.upgrade.is_none()
    }
}

/// Notes, in the one pass that reads a message's fields, which of those that the proxy itself looks at are there: most
/// messages have none of them, and asking a map for each costs more than reading the message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks(u16);

impl Marks {
    /// `traceparent` or `tracestate`.
    pub const TRACE: Marks = Marks(1);
    pub const REQUEST_ID: Marks = Marks(2);
    /// `grpc-timeout` or `x-request-deadline-ms`.
    pub const DEADLINE: Marks = Marks(4);
    pub const VIA: Marks = Marks(8);
    /// Any `x-forwarded-…`.
    pub const FORWARDED: Marks = Marks(16);
    pub const KEEP_ALIVE: Marks = Marks(32);
    pub const EXPECT: Marks = Marks(64);
    pub const CONTENT_TYPE: Marks = Marks(128);
    /// Whoever sent this tries again itself: `x-tollgate-attempt`, or a gRPC client's count of attempts.
    pub const ATTEMPT: Marks = Marks(512);
    /// A field that does not pass on as it is: of one hop, or ours to say.
    pub const REPLACED: Marks = Marks(256);

    /// Takes note of one field; `name` is in lower case.
    pub fn note(&mut self, name: &str) {
        self.0 |= match name {
            "traceparent" | "tracestate" => Self::TRACE.0 | Self::REPLACED.0,
            "x-request-id" => Self::REQUEST_ID.0 | Self::REPLACED.0,
            "grpc-timeout" | "x-request-deadline-ms" => Self::DEADLINE.0 | Self::REPLACED.0,
            "via" => Self::VIA.0 | Self::REPLACED.0,
            "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" => {
                Self::FORWARDED.0 | Self::REPLACED.0
            }
            "keep-alive" => Self::KEEP_ALIVE.0 | Self::REPLACED.0,
            "expect" => Self::EXPECT.0 | Self::REPLACED.0,
            "content-type" => Self::CONTENT_TYPE.0,
            "x-tollgate-attempt" | "grpc-previous-rpc-attempts" => Self::ATTEMPT.0,
            other if headers::is_replaced(other) => Self::REPLACED.0,
            _ => 0,
        };
    }

    pub fn of(headers: &HeaderMap) -> Self {
        let mut marks = Marks::default();
        headers.keys().for_each(|name| marks.note(name.as_str()));
        marks
    }

    pub fn has(self, mark: Marks) -> bool {
        self.0 & mark.0 != 0
    }
}

/// Path in normal form, then the query as it came.
#[derive(Debug, Clone, Default)]
pub struct Target {
    text: String,
    path: usize,
}

impl Target {
    pub fn new(path: &str, query: Option<&str>) -> Self {
        let mut text = String::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
        text.push_str(path);
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        Target {
            text,
            path: path.len(),
        }
    }

    pub fn path(&self) -> &str {
        self.text.get(..self.path).unwrap_or_default()
    }

    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path + 1..)
    }

    /// Takes the path out, for the books.
    pub fn take_path(&mut self) -> String {
        self.text.truncate(self.path);
        std::mem::take(&mut self.text)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// An answer's head and body, before hop-by-hop fields are taken away.
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub named: SmallVec<[HeaderName; 1]>,
    pub body: Body,
    /// It came over HTTP/1, where fields may belong to the connection.
    pub is_http1: bool,
    /// What the answer says its length is; kept for HEAD and 304, whose bodies are absent.
    pub announced: Option<u64>,
}

impl Response {
    pub fn new(status: StatusCode, headers: HeaderMap, body: Body) -> Self {
        Response {
            status,
            headers,
            named: SmallVec::new(),
            body,
            is_http1: false,
            announced: None,
        }
    }
}

/// Any of several values may fit. A value that is not UTF-8 is compared byte by byte, and fits no regular expression.
pub fn header_fits(headers: &HeaderMap, name: &HeaderName, wanted: &ValueMatch) -> bool {
    headers.get_all(name).iter().any(|value| match wanted {
        ValueMatch::Present => true,
        ValueMatch::Exact(text) => value.as_bytes() == text.as_bytes(),
        ValueMatch::Regex(regex) => {
            std::str::from_utf8(value.as_bytes()).is_ok_and(|text| regex.is_match(text))
        }
    })
}

const GRPC_STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");

/// gRPC's status codes that decide what we do next.
pub mod grpc_code {
    pub const OK: u8 = 0;
    pub const CANCELLED: u8 = 1;
    pub const UNKNOWN: u8 = 2;
    pub const DEADLINE_EXCEEDED: u8 = 4;
    pub const RESOURCE_EXHAUSTED: u8 = 8;
    pub const ABORTED: u8 = 10;
    pub const OUT_OF_RANGE: u8 = 11;
    pub const INTERNAL: u8 = 13;
    pub const UNAVAILABLE: u8 = 14;
    pub const DATA_LOSS: u8 = 15;
}

/// How a gRPC call ended, from its trailers or from a head without a body; `None` where nothing, or no number, is said.
pub fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    let status = headers.get(&GRPC_STATUS)?;
    std::str::from_utf8(status.as_bytes()).ok()?.parse().ok()
}

/// Whether a caller speaks gRPC and must be answered in it.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| {
            value
                .as_bytes()
                .strip_prefix(b"application/grpc")
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
        })
}
