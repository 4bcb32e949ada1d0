//! A parsed head becomes a request: one host, one path in normal form, or a reason why not. Both protocols pass here.

use http::header;
use tollgate_config::path;

use crate::exchange::body::Body;
use crate::exchange::error::{Code, Error};
use crate::exchange::{Marks, Request, Target};
use crate::http1::head::is_token;
use crate::http1::{Framing, RequestHead};

/// From HTTP/1. The body is attached by the caller.
pub(crate) fn from_http1(head: RequestHead) -> Result<Request, Error> {
    let RequestHead {
        method,
        target,
        fields,
        is_1_0,
        framing,
    } = head;
    let text = std::str::from_utf8(&target).map_err(|_| Error::from(Code::BadRequestLine))?;
    let host = match fields.headers.get(header::HOST) {
        Some(value) => value.to_str().map_err(|_| Error::from(Code::BadHost))?,
        None => "",
    };
    let (authority, rest) = match text.as_bytes() {
        // The tunnel's bytes follow the head; a body between them could be taken for either (RFC 9110 section 9.3.6).
        _ if method == http::Method::CONNECT => match has_port(text) {
            false => return Err(Code::BadRequestLine.into()),
            true if framing != Framing::None => return Err(Code::BadFraming.into()),
            true => (text, "/"),
        },
        [b'/', ..] => (host, text),
        b"*" if method == http::Method::OPTIONS => (host, text),
        // RFC 9112 section 3.2.2: the absolute form overrides Host.
        _ => absolute(text).ok_or(Error::from(Code::BadRequestLine))?,
    };
    // HTTP/1.0 may leave Host out; what is there must be good, also where the absolute form overrides it.
    let is_good = |text: &str| is_authority(text) || is_1_0 && text.is_empty();
    let overridden = !std::ptr::eq(authority, host);
    if !is_good(authority) || overridden && !is_good(host) {
        return Err(Code::BadHost.into());
    }
    let target = normal(rest)?;
    let upgrade = match fields.headers.get(header::UPGRADE) {
        // With a body it would be unclear which bytes are the body's and which the tunnel's: the wish is ignored, as RFC
        // 9110 section 7.8 allows.
        Some(value) if fields.upgrade && !is_1_0 && framing == Framing::None => {
            value.to_str().ok().map(str::to_owned)
        }
        _ => None,
    };
    // Clear-text HTTP/2 is spoken with prior knowledge; the deprecated upgrade to it is ignored (RFC 9113 section 3.1).
    let upgrade =
        upgrade.filter(|protocol| !protocol.is_empty() && !protocol.eq_ignore_ascii_case("h2c"));
    if fields.marks.has(Marks::EXPECT)
        && let Some(expect) = fields.headers.get(header::EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Code::ExpectationFailed.into());
    }
    Ok(Request {
        method,
        authority: authority.to_owned(),
        target,
        headers: fields.headers,
        marks: fields.marks,
        named: fields.named,
        body: Body::Empty,
        upgrade,
        is_http2: false,
        is_call: false,
    })
}

/// From HTTP/2. The library has judged frames and pseudo-fields; what it lets pass is judged here.
pub(crate) fn from_http2(parts: http::request::Parts) -> Result<Request, Error> {
    let upgrade = parts
        .extensions
        .get::<h2::ext::Protocol>()
        .map(|protocol| protocol.as_str().to_owned());
    let hosts = parts.headers.get_all(header::HOST);
    let authority = match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => match hosts.iter().next() {
            Some(host) => host.to_str().map_err(|_| Error::from(Code::BadHost))?,
            None => return Err(Code::BadHost.into()),
        },
    };
    if !is_authority(authority)
        || hosts
            .iter()
            .any(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()))
    {
        return Err(Code::BadHost.into());
    }
    if parts.headers.len() > crate::http1::head::MAX_FIELDS {
        return Err(Code::HeaderTooLarge.into());
    }
    // The library takes any text for `:protocol`; towards an HTTP/1 upstream it becomes the value of a field.
    if let Some(protocol) = &upgrade
        && (protocol.is_empty() || !protocol.bytes().all(is_token))
    {
        return Err(Code::BadHeader.into());
    }
    if parts.method == http::Method::CONNECT && upgrade.is_none() && !has_port(authority) {
        return Err(Code::BadHost.into());
    }
    let text = parts
        .uri
        .path_and_query()
        .map_or("", http::uri::PathAndQuery::as_str);
    if text.len() > crate::http1::head::MAX_TARGET {
        return Err(Code::UriTooLong.into());
    }
    let text = if text.is_empty() { "/" } else { text };
    if text == "*" && parts.method != http::Method::OPTIONS {
        return Err(Code::BadPath.into());
    }
    // The library holds the body against the first length; a second one would pass on to an HTTP/2 upstream unread.
    if parts
        .headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .nth(1)
        .is_some()
    {
        return Err(Code::BadFraming.into());
    }
    // RFC 9113 section 8.2.1: a value neither begins nor ends with white space.
    let padded = |value: &http::HeaderValue| {
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        edge(value.as_bytes().first()) || edge(value.as_bytes().last())
    };
    if parts.headers.values().any(padded) {
        return Err(Code::BadHeader.into());
    }
    let target = normal(text)?;
    if let Some(expect) = parts.headers.get(header::EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Code::ExpectationFailed.into());
    }
    // An upgrade by extended CONNECT is the GET that it would be over HTTP/1 (RFC 8441 section 5): routes, rules and retries
    // know one kind.
    let method = match upgrade {
        Some(_) => http::Method::GET,
        None => parts.method,
    };
    Ok(Request {
        method,
        authority: authority.to_owned(),
        target,
        marks: Marks::of(&parts.headers),
        headers: parts.headers,
        named: smallvec::SmallVec::new(),
        body: Body::Empty,
        upgrade,
        is_http2: true,
        is_call: false,
    })
}

fn normal(text: &str) -> Result<Target, Error> {
    if text == "*" {
        return Ok(Target::new("*", None));
    }
    let (raw, query) = match memchr::memchr(b'?', text.as_bytes()) {
        Some(mark) => (&text[..mark], Some(&text[mark + 1..])),
        None => (text, None),
    };
    let refuse = |error: path::PathError| Error::because(Code::BadPath, error.to_string());
    let path = path::normalize(raw).map_err(refuse)?;
    if let Some(query) = query {
        path::check_query(query).map_err(refuse)?;
    }
    Ok(Target::new(&path, query))
}

/// `http://host/path` as host and path; without a path it is `/`.
fn absolute(text: &str) -> Option<(&str, &str)> {
    let rest = match text.split_once("://")? {
        (scheme, rest)
            if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
        {
            rest
        }
        _ => return None,
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    match rest.as_bytes() {
        [] => Some((authority, "/")),
        [b'/', ..] => Some((authority, rest)),
        // `http://host?query` has no path to match; nobody sends it by accident.
        _ => None,
    }
}

/// What a registered name is made of (RFC 3986 section 3.2.2), but for commas.
const NAME: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        allowed[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut others: &[u8] = b"-._~!$&'()*+;=%";
    while let [first, rest @ ..] = others {
        allowed[*first as usize] = true;
        others = rest;
    }
    allowed
};

/// A registered name or address literal with an optional port; no user info, no list, no blank (HI-13).
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((inside, port)) => {
                if inside.parse::<std::net::Ipv6Addr>().is_err() {
                    return false;
                }
                return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            }
            None => return false,
        },
        None => text
            .split_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port))),
    };
    !host.is_empty()
        && host.len() <= 255
        && host.bytes().all(|byte| NAME[usize::from(byte)])
        && port.is_none_or(is_port)
}

/// Whether an authority names its port, as that of a tunnel must.
fn has_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.parse::<u16>().is_ok() && text.bytes().all(|b| b.is_ascii_digit())
}
