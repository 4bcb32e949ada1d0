//! The head of a message: start line and fields, from bytes to `http` types, strictly.
//!
//! Refused here, whatever a lenient reader might make of it: bare CR or LF, folded lines, blanks before a colon,
//! control characters, more than one length, any transfer coding other than a single `chunked`. A pure function of its
//! bytes: no I/O, no state, nothing that can panic (fuzzed).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use memchr::{memchr, memmem};
use smallvec::SmallVec;

use crate::exchange::Marks;
use crate::exchange::error::Code;

/// More fields than this are refused, however short they are (HTTP/2 Bomb and its HTTP/1 kin: HI-23, HI-30).
pub const MAX_FIELDS: usize = 200;
/// More fields than this named in `Connection` are refused: all of them must be taken away, and looked for at every field.
const MAX_NAMED: usize = 16;
/// A request target longer than this is refused with 414.
pub const MAX_TARGET: usize = 16 * 1024;

/// How a message says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    Length(u64),
    Chunked,
    /// Answers only: until the connection closes.
    Close,
}

/// What the fields say about the message itself, gathered in the one pass that reads them.
#[derive(Debug, Default)]
pub struct Fields {
    pub headers: HeaderMap,
    pub marks: Marks,
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
    /// Fields that `Connection` names, other than the standard hop-by-hop ones.
    pub named: SmallVec<[HeaderName; 1]>,
    length: Option<u64>,
    chunked: bool,
    hosts: u8,
}

#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    /// As sent: origin form, absolute form, authority form or `*`.
    pub target: Bytes,
    /// HTTP/1.0 rather than HTTP/1.1.
    pub is_1_0: bool,
    pub framing: Framing,
    pub fields: Fields,
}

#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub is_1_0: bool,
    pub framing: Framing,
    pub fields: Fields,
}

/// Finds the end of a head: the index after the blank line. `from` is how far earlier calls have looked.
pub fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let start = from.saturating_sub(3).min(bytes.len());
    memmem::find(bytes.get(start..)?, b"\r\n\r\n").map(|at| start + at + 4)
}

/// Judges a head that is not complete yet, so that garbage is refused at once and not at a time-out (HI-7, HI-14,
/// HI-17). `from` is how far earlier calls have looked.
pub fn early_fault(bytes: &[u8], from: usize) -> Option<Code> {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let mut at = from.saturating_sub(2).min(bytes.len());
    while let Some(next) = bytes.get(at..).and_then(|rest| memchr(b'\n', rest)) {
        let end = at + next;
        if end == 0 || bytes.get(end - 1) != Some(&b'\r') {
            return Some(Code::BadHeader);
        }
        at = end + 1;
    }
    let line_end = memchr(b'\r', bytes);
    let line = bytes.get(..line_end.unwrap_or(bytes.len()))?;
    match line_end {
        Some(_) if bytes.len() > line.len() + 1 => parse_request_line(line).err(),
        _ => {
            // Not even one line: a method is at most 24 token characters, then one blank, then printable characters.
            let method = line.split(|b| *b == b' ').next().unwrap_or_default();
            let clean = method.iter().all(|b| is_token(*b))
                && line.iter().all(|b| (0x20..0x7f).contains(b));
            if !clean || method.len() > 24 || (method.is_empty() && !line.is_empty()) {
                Some(Code::BadRequestLine)
            } else if line.len() > MAX_TARGET + 64 {
                Some(Code::UriTooLong)
            } else {
                None
            }
        }
    }
}

/// Parses a complete request head (through its blank line; at most one empty line before it has been removed).
pub fn parse_request(head: &Bytes) -> Result<RequestHead, Code> {
    let (line, rest) = first_line(head).ok_or(Code::BadRequestLine)?;
    let (method, target, is_1_0) = parse_request_line(line)?;
    let target = head.slice_ref(target);
    let fields = parse_fields(head, rest)?;
    let framing = match (fields.chunked, fields.length) {
        (true, Some(_)) => return Err(Code::BadFraming),
        (true, None) if is_1_0 => return Err(Code::BadFraming),
        (true, None) => Framing::Chunked,
        (false, Some(0) | None) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
    };
    if fields.hosts > 1 || (fields.hosts == 0 && !is_1_0) {
        return Err(Code::BadHost);
    }
    Ok(RequestHead {
        method,
        target,
        is_1_0,
        framing,
        fields,
    })
}

/// Parses a complete response head. `to` is the request's method: an answer to HEAD has no body.
pub fn parse_response(head: &Bytes, to: &Method) -> Result<ResponseHead, Code> {
    let (line, rest) = first_line(head).ok_or(Code::UpstreamBadResponse)?;
    let (status, is_1_0) = parse_status_line(line).ok_or(Code::UpstreamBadResponse)?;
    let fields = parse_fields(head, rest).map_err(|code| match code {
        Code::HeaderTooLarge => Code::UpstreamResponseTooLarge,
        _ => Code::UpstreamBadResponse,
    })?;
    let bodiless = *to == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let framing = match (fields.chunked, fields.length) {
        (true, Some(_)) => return Err(Code::UpstreamBadResponse),
        (true, None) if is_1_0 => return Err(Code::UpstreamBadResponse),
        _ if bodiless => Framing::None,
        (true, None) => Framing::Chunked,
        (false, Some(0)) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Close,
    };
    Ok(ResponseHead {
        status,
        is_1_0,
        framing,
        fields,
    })
}

fn first_line(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', head)?;
    let line = head.get(..end)?.strip_suffix(b"\r")?;
    Some((line, head.get(end + 1..)?))
}

fn parse_request_line(line: &[u8]) -> Result<(Method, &[u8], bool), Code> {
    let blank = memchr(b' ', line).ok_or(Code::BadRequestLine)?;
    let (method, rest) = line.split_at(blank);
    let rest = rest.get(1..).unwrap_or_default();
    let last = rest
        .iter()
        .rposition(|b| *b == b' ')
        .ok_or(Code::BadRequestLine)?;
    let (target, version) = rest.split_at(last);
    if method.len() > 24
        || method.is_empty()
        || target.is_empty()
        || !method.iter().all(|b| is_token(*b))
    {
        return Err(Code::BadRequestLine);
    }
    if !target.iter().all(|b| (0x21..=0x7e).contains(b)) {
        return Err(Code::BadRequestLine);
    }
    let is_1_0 = match version.get(1..).unwrap_or_default() {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Code::UnsupportedVersion);
        }
        _ => return Err(Code::BadRequestLine),
    };
    if target.len() > MAX_TARGET {
        return Err(Code::UriTooLong);
    }
    let method = Method::from_bytes(method).map_err(|_| Code::BadRequestLine)?;
    Ok((method, target, is_1_0))
}

fn parse_status_line(line: &[u8]) -> Option<(StatusCode, bool)> {
    let is_1_0 = match line.get(..9)? {
        b"HTTP/1.1 " => false,
        b"HTTP/1.0 " => true,
        _ => return None,
    };
    let status = StatusCode::from_bytes(line.get(9..12)?).ok()?;
    // The reason phrase may be absent, even its blank; it is never forwarded.
    let reason = line.get(12..)?;
    let clean = reason.is_empty()
        || reason[0] == b' '
            && reason
                .iter()
                .all(|b| *b == b'\t' || *b >= 0x20 && *b != 0x7f);
    (clean && status.as_u16() <= 599).then_some((status, is_1_0))
}

/// Parses field lines up to the blank line. Values share the head's allocation.
fn parse_fields(head: &Bytes, mut rest: &[u8]) -> Result<Fields, Code> {
    let mut fields = Fields {
        headers: HeaderMap::with_capacity(16),
        ..Fields::default()
    };
    let mut count = 0;
    loop {
        let end = memchr(b'\n', rest).ok_or(Code::BadHeader)?;
        let line = rest
            .get(..end)
            .and_then(|line| line.strip_suffix(b"\r"))
            .ok_or(Code::BadHeader)?;
        rest = rest.get(end + 1..).unwrap_or_default();
        if line.is_empty() {
            return if rest.is_empty() {
                Ok(fields)
            } else {
                Err(Code::BadHeader)
            };
        }
        count += 1;
        if count > MAX_FIELDS {
            return Err(Code::HeaderTooLarge);
        }
        let (name, value) = parse_field(line)?;
        fields.note(&name, value)?;
        // Cannot be refused for its length in practice: a map holds 24,576 names, `MAX_FIELDS` is far below.
        let value =
            HeaderValue::from_maybe_shared(head.slice_ref(value)).map_err(|_| Code::BadHeader)?;
        fields.headers.append(name, value);
    }
}

/// One `name: value` line without its line end; the value is trimmed. Used for trailers as well.
pub(super) fn parse_field(line: &[u8]) -> Result<(HeaderName, &[u8]), Code> {
    let colon = memchr(b':', line).ok_or(Code::BadHeader)?;
    let (name, value) = line.split_at(colon);
    // A name of the wrong characters (a blank before the colon, a fold's leading blank) is refused by this.
    let name = HeaderName::from_bytes(name).map_err(|_| Code::BadHeader)?;
    let value = value.get(1..).unwrap_or_default();
    Ok((name, trim(value)))
}

impl Fields {
    /// Takes note of what a field says about the message itself.
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<(), Code> {
        match name.as_str() {
            "content-length" => {
                if self.length.is_some() {
                    return Err(Code::BadFraming);
                }
                self.length = Some(parse_length(value).ok_or(Code::BadFraming)?);
            }
            "transfer-encoding" => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Code::BadFraming);
                }
                self.chunked = true;
            }
            "connection" => self.note_connection(value)?,
            "host" => self.hosts = self.hosts.saturating_add(1),
            other => self.marks.note(other),
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) -> Result<(), Code> {
        for token in value.split(|b| *b == b',') {
            let token = trim(token);
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if !token.is_empty() {
                let name = HeaderName::from_bytes(token).map_err(|_| Code::BadHeader)?;
                if self.named.contains(&name) {
                    continue;
                }
                if self.named.len() == MAX_NAMED {
                    return Err(Code::HeaderTooLarge);
                }
                self.named.push(name);
            }
        }
        Ok(())
    }

    /// Whether the connection goes on after this message.
    pub fn persists(&self, is_1_0: bool) -> bool {
        !self.close && (!is_1_0 || self.keep_alive)
    }
}

/// Takes optional white space away: blank and tab, nothing else (RFC 9110 section 5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A length is digits and nothing else, below 2^63 (HI-3).
pub fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = value.iter().try_fold(0u64, |sum, digit| {
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    (length < 1 << 63).then_some(length)
}

/// RFC 9110 `tchar`.
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<RequestHead, Code> {
        parse_request(&Bytes::copy_from_slice(text.as_bytes()))
    }

    fn fault(text: &str) -> Option<Code> {
        request(text).err()
    }

    #[test]
    fn a_plain_request_is_read() {
        let head =
            request("GET /a?b=c HTTP/1.1\r\nHost: x\r\nAccept:  */* \r\n\r\n").expect("valid");
        assert_eq!(head.method, Method::GET);
        assert_eq!(&head.target[..], b"/a?b=c");
        assert_eq!(head.fields.headers["accept"], "*/*");
        assert_eq!(head.framing, Framing::None);
    }

    /// HI-1 to HI-8, HI-13, HI-14, HI-18.
    #[test]
    fn every_ambiguous_head_is_refused() {
        let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 2\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 1_0\r\n",
            "Content-Length: \r\n",
            "Content-Length: 9223372036854775808\r\n",
            "Content-Length: 99999999999999999999999\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "X : 1\r\n",
            " X: 1\r\n",
            "X\r\n",
            ": 1\r\n",
            "X: a\r\n b\r\n",
            "X: a\rb\r\n",
            "X: a\r\r\n",
            "Transfer-Encoding: \x0cchunked\r\n",
            "X: a\nY: b\r\n",
            "X: a\0b\r\n",
            "X: a\x01b\r\n",
            "X\u{e9}: 1\r\n",
            "Host: y\r\n",
        ] {
            assert!(fault(&with(fields)).is_some(), "{fields:?} was accepted");
        }
        assert_eq!(
            fault("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Some(Code::BadFraming)
        );
        assert_eq!(fault("GET / HTTP/1.1\r\n\r\n"), Some(Code::BadHost));
        for line in [
            "GET  / HTTP/1.1",
            "GET /",
            "get / http/1.1",
            "GET /\x01 HTTP/1.1",
            "GET / a HTTP/1.1",
            " GET / HTTP/1.1",
        ] {
            assert_eq!(
                fault(&format!("{line}\r\nHost: x\r\n\r\n")),
                Some(Code::BadRequestLine),
                "{line:?}"
            );
        }
        assert_eq!(
            fault("GET / HTTP/2.0\r\nHost: x\r\n\r\n"),
            Some(Code::UnsupportedVersion)
        );
    }

    /// HI-7, HI-17.
    #[test]
    fn garbage_is_refused_before_it_is_complete() {
        assert_eq!(
            early_fault(b"\x16\x03\x01\x02\x00", 0),
            Some(Code::BadRequestLine)
        );
        assert_eq!(
            early_fault(b"SSH-2.0-OpenSSH_9.2\r\n", 0),
            Some(Code::BadRequestLine)
        );
        assert_eq!(
            early_fault(b"GET / HTTP/1.1\nHost", 0),
            Some(Code::BadHeader)
        );
        assert_eq!(early_fault(b"GET / HTTP/1.1\r\nHost: x\r\n", 0), None);
        assert_eq!(early_fault(b"GE", 0), None);
        assert_eq!(early_fault(b"GET / HTTP/1.1\r", 0), None);
    }

    /// HI-22, HI-25: none of them may slip through because there were many.
    #[test]
    fn more_fields_named_in_connection_than_we_remember_are_refused() {
        let with = |count: usize| {
            let names: Vec<_> = (0..count).map(|at| format!("x-{at}, X-0")).collect();
            request(&format!(
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: {}\r\n\r\n",
                names.join(", ")
            ))
        };
        assert_eq!(
            with(MAX_NAMED).expect("valid").fields.named.len(),
            MAX_NAMED
        );
        assert_eq!(with(MAX_NAMED + 1).err(), Some(Code::HeaderTooLarge));
    }

    /// HI-43.
    #[test]
    fn an_odd_answer_is_refused() {
        for text in [
            "hello\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 099 X\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        ] {
            assert!(
                parse_response(&Bytes::copy_from_slice(text.as_bytes()), &Method::GET).is_err(),
                "{text:?}"
            );
        }
        let head = parse_response(
            &Bytes::from_static(b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n"),
            &Method::HEAD,
        )
        .expect("valid");
        assert_eq!(head.framing, Framing::None);
    }
}
