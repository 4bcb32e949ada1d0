//! The compact form of a finished span: a run of bytes, written once when its request ends, read when somebody asks for it or
//! a collector is told. Writing formats nothing and allocates nothing of its own; reading trusts no length.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use tollgate_config::span::SpanKind;

use crate::moment::{Moment, nanoseconds};

/// The longest text of a tag. Longer ones are cut, so that a client's path cannot fill what is kept.
const LONGEST: usize = 255;
/// Length, trace, span, parent, begin, duration, flags.
const HEAD: usize = 2 + 16 + 8 + 8 + 8 + 8 + 1;

const FAILED: u8 = 1;

/// What every span has.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub parent: Option<[u8; 8]>,
    pub kind: SpanKind,
    pub failed: bool,
    pub started: Instant,
    pub ended: Instant,
}

/// What a tag's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Number,
    Socket,
    Address,
}

macro_rules! tags {
    ($($name:ident $form:ident $word:literal $attribute:literal;)*) => {
        /// What is told besides, in the words of the access log and in those of OpenTelemetry.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Tag { $($name),* }

        impl Tag {
            const ALL: &'static [Tag] = &[$(Tag::$name),*];

            pub fn word(self) -> &'static str {
                match self { $(Tag::$name => $word),* }
            }

            /// The name of OpenTelemetry's semantic conventions, where they have one.
            pub fn attribute(self) -> &'static str {
                match self { $(Tag::$name => $attribute),* }
            }

            fn form(self) -> Form {
                match self { $(Tag::$name => Form::$form),* }
            }
        }
    };
}

tags! {
    Route Text "route" "http.route";
    Upstream Text "upstream" "tollgate.upstream";
    Listener Text "listener" "tollgate.listener";
    Method Text "method" "http.request.method";
    Path Text "path" "url.path";
    Host Text "host" "server.address";
    Status Number "status" "http.response.status_code";
    Code Text "code" "error.type";
    Client Address "client" "client.address";
    UserAgent Text "user_agent" "user_agent.original";
    RequestId Text "request_id" "tollgate.request_id";
    Endpoint Socket "endpoint" "network.peer.address";
    Attempt Number "attempt" "tollgate.attempt";
    Attempts Number "attempts" "tollgate.attempts";
    Hedge Text "hedge" "tollgate.hedge";
    Fallback Text "fallback" "tollgate.fallback";
    Source Text "source" "tollgate.source";
    Destination Text "destination" "tollgate.destination";
    BytesIn Number "bytes_in" "tollgate.bytes_in";
    BytesOut Number "bytes_out" "tollgate.bytes_out";
    End Text "end" "tollgate.end";
}

/// A tag's value, as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    Text(&'a str),
    Number(u64),
    Socket(SocketAddr),
    Address(IpAddr),
}

impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Number(number) => number.fmt(f),
            Value::Socket(socket) => socket.fmt(f),
            Value::Address(address) => address.fmt(f),
        }
    }
}

/// The tags of one span, while it is written.
pub struct Tags<'a>(&'a mut Vec<u8>);

impl Tags<'_> {
    /// Nothing is written of an empty text.
    pub fn text(&mut self, tag: Tag, text: &str) {
        debug_assert_eq!(tag.form(), Form::Text);
        let text = text.get(..text.floor_char_boundary(LONGEST)).unwrap_or("");
        if !text.is_empty() {
            self.put(tag, text.as_bytes());
        }
    }

    pub fn number(&mut self, tag: Tag, number: u64) {
        debug_assert_eq!(tag.form(), Form::Number);
        self.put(tag, &number.to_le_bytes());
    }

    pub fn address(&mut self, tag: Tag, address: IpAddr) {
        debug_assert_eq!(tag.form(), Form::Address);
        self.put(tag, &wide(address).octets());
    }

    pub fn socket(&mut self, tag: Tag, socket: SocketAddr) {
        debug_assert_eq!(tag.form(), Form::Socket);
        let mut bytes = [0; 18];
        let (address, port) = bytes.split_at_mut(16);
        address.copy_from_slice(&wide(socket.ip()).octets());
        port.copy_from_slice(&socket.port().to_le_bytes());
        self.put(tag, &bytes);
    }

    fn put(&mut self, tag: Tag, bytes: &[u8]) {
        let Ok(length) = u8::try_from(bytes.len()) else {
            return;
        };
        self.0.extend_from_slice(&[tag as u8, length]);
        self.0.extend_from_slice(bytes);
    }
}

fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Appends one span.
pub(super) fn write(out: &mut Vec<u8>, head: &Head, tags: impl FnOnce(&mut Tags<'_>)) {
    let begin = out.len();
    let duration = head.ended.saturating_duration_since(head.started);
    let mut flags = match head.kind {
        SpanKind::Server => 0,
        SpanKind::Client => 2,
        SpanKind::Internal => 4,
    };
    if head.failed {
        flags |= FAILED;
    }
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&head.trace_id);
    out.extend_from_slice(&head.span_id);
    out.extend_from_slice(&head.parent.unwrap_or_default());
    out.extend_from_slice(&Moment::from(head.started).0.to_le_bytes());
    out.extend_from_slice(&nanoseconds(duration).to_le_bytes());
    out.push(flags);
    tags(&mut Tags(out));
    let length = u16::try_from(out.len() - begin);
    match (length, out.get_mut(begin..begin + 2)) {
        (Ok(length), Some(place)) => place.copy_from_slice(&length.to_le_bytes()),
        // More tags than there are kinds of.
        _ => out.truncate(begin),
    }
}

/// A span as it is read.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub parent: Option<[u8; 8]>,
    pub kind: SpanKind,
    pub failed: bool,
    pub(crate) started: Moment,
    pub nanoseconds: u64,
    tags: &'a [u8],
}

impl<'a> Record<'a> {
    /// In the order in which they were written.
    pub fn tags(&self) -> impl Iterator<Item = (Tag, Value<'a>)> {
        let mut rest = self.tags;
        std::iter::from_fn(move || {
            let ([tag, length], behind) = rest.split_first_chunk()?;
            let (bytes, behind) = behind.split_at_checked(usize::from(*length))?;
            rest = behind;
            let tag = *Tag::ALL.get(usize::from(*tag))?;
            Some((tag, value(tag, bytes)?))
        })
    }

    /// What it is called: the route, the upstream, or the listener where there is no route.
    pub fn operation(&self) -> &'a str {
        match self.tags().next() {
            Some((_, Value::Text(name))) => name,
            _ => "",
        }
    }
}

fn value(tag: Tag, bytes: &[u8]) -> Option<Value<'_>> {
    let address = |bytes: &[u8; 16]| Ipv6Addr::from(*bytes).to_canonical();
    Some(match tag.form() {
        Form::Text => Value::Text(std::str::from_utf8(bytes).ok()?),
        Form::Number => Value::Number(u64::from_le_bytes(bytes.try_into().ok()?)),
        Form::Address => Value::Address(address(bytes.try_into().ok()?)),
        Form::Socket => {
            let (ip, port) = bytes.split_first_chunk::<16>()?;
            let port = u16::from_le_bytes(port.try_into().ok()?);
            Value::Socket(SocketAddr::new(address(ip), port))
        }
    })
}

/// The spans in a run of bytes, in the order in which they ended.
pub(crate) fn read(mut bytes: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_le_bytes(*bytes.first_chunk()?));
        let (one, behind) = bytes.split_at_checked(length.max(HEAD))?;
        bytes = behind;
        record(one)
    })
}

fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let (_length, bytes) = bytes.split_first_chunk::<2>()?;
    let (trace_id, bytes) = bytes.split_first_chunk()?;
    let (span_id, bytes) = bytes.split_first_chunk()?;
    let (parent, bytes) = bytes.split_first_chunk()?;
    let (started, bytes) = bytes.split_first_chunk()?;
    let (nanoseconds, bytes) = bytes.split_first_chunk()?;
    let (flags, tags) = bytes.split_first()?;
    Some(Record {
        trace_id: *trace_id,
        span_id: *span_id,
        parent: (*parent != [0; 8]).then_some(*parent),
        kind: match flags >> 1 {
            0 => SpanKind::Server,
            1 => SpanKind::Client,
            _ => SpanKind::Internal,
        },
        failed: flags & FAILED != 0,
        started: Moment(u64::from_le_bytes(*started)),
        nanoseconds: u64::from_le_bytes(*nanoseconds),
        tags,
    })
}
