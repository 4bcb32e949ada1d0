//! Fields that belong to one hop, and fields that are ours to set (RFC 9110 section 7.6). Everything else passes
//! untouched.
//!
//! A sender's `Connection` can take away only what it could have sent itself: the fields we set are written after the
//! removal, so no client can make an upstream miss them (HI-22).

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use smallvec::SmallVec;
use tollgate_config::identity::SpiffeId;

use super::trace::TraceContext;
use super::{Marks, Request, Response};
pub use crate::clock::http_date;
use crate::clock::unix_seconds;
use crate::http1::encode;

/// Who we are in `Via`.
const VIA_1_1: &[u8] = b"1.1 tollgate";
const VIA_2: &[u8] = b"2 tollgate";
/// Tells the next hop that we send a request again when it fails, so that only one layer does (GW-509).
const ATTEMPT: &str = "x-tollgate-attempt";

/// Tells the application which member of the mesh calls (MESH-302), as Envoy and Istio do.
pub const CLIENT_CERT: &str = "x-forwarded-client-cert";

/// What never passes to the next hop, in either direction.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "content-length"
            | "http2-settings"
    )
}

/// Whether a request's field may have to be taken away; which ones are, `Sender` decides.
pub(super) fn is_replaced(name: &str) -> bool {
    // A length is replaced on the way to HTTP/1 alone, where all fields are looked at anyway.
    (name != "content-length" && is_hop_by_hop(name)) || is_ours(name, false)
}

/// Request fields that are replaced by what `Sender::fields` sets, or that the connection itself answers for.
fn is_ours(name: &str, trusted: bool) -> bool {
    match name {
        "host"
        | "expect"
        | "traceparent"
        | "tracestate"
        | "x-request-id"
        | "via"
        | "x-forwarded-for"
        | "x-forwarded-proto"
        | "x-forwarded-host"
        | "x-request-deadline-ms" => true,
        "forwarded" | "x-forwarded-port" | "x-real-ip" | CLIENT_CERT => !trusted,
        _ => false,
    }
}

/// What the proxy says about itself and the client to an upstream.
pub struct Sender<'a> {
    /// The peer's address as text.
    pub peer: &'a str,
    pub scheme: &'static str,
    /// The peer is one of the listener's `trusted_proxies`: what it forwarded is believed and extended.
    pub trusted: bool,
    pub trace: &'a TraceContext,
    /// Our span for this try: the parent of whatever receives it.
    pub span_id: [u8; 8],
    pub request_id: &'a str,
    /// What is left of the caller's own deadline.
    pub deadline: Option<Duration>,
    /// Which try this is, from 1, where whoever comes next should leave retrying to us.
    pub attempt: Option<u32>,
    /// It is made beside another that is still under way.
    pub hedge: bool,
    /// The member of the mesh that calls, where the listener lets members in.
    pub caller: Option<&'a SpiffeId>,
    /// `rewrite.host`.
    pub host: Option<&'a HeaderValue>,
}

impl Sender<'_> {
    /// Every field we set, in order.
    fn fields(&self, request: &Request, mut set: impl FnMut(&'static str, &[u8])) {
        let traceparent = self.trace.traceparent_of(&self.span_id);
        set("traceparent", &traceparent);
        if let Some(state) = &self.trace.state {
            set("tracestate", state.as_bytes());
        }
        set("x-request-id", self.request_id.as_bytes());
        if let Some(caller) = self.caller {
            set(CLIENT_CERT, &[b"URI=", caller.as_str().as_bytes()].concat());
        }
        let marks = request.marks;
        let existing = |name: &str| {
            (self.trusted && marks.has(Marks::FORWARDED))
                .then(|| joined(&request.headers, name))
                .flatten()
        };
        match existing("x-forwarded-for") {
            Some(mut chain) => {
                chain.extend_from_slice(b", ");
                chain.extend_from_slice(self.peer.as_bytes());
                set("x-forwarded-for", &chain);
            }
            None => set("x-forwarded-for", self.peer.as_bytes()),
        }
        match existing("x-forwarded-proto") {
            Some(value) => set("x-forwarded-proto", &value),
            None => set("x-forwarded-proto", self.scheme.as_bytes()),
        }
        match existing("x-forwarded-host") {
            Some(value) => set("x-forwarded-host", &value),
            None => set("x-forwarded-host", request.authority.as_bytes()),
        }
        let via = if request.is_http2 { VIA_2 } else { VIA_1_1 };
        match marks
            .has(Marks::VIA)
            .then(|| joined(&request.headers, "via"))
            .flatten()
        {
            Some(mut chain) => {
                chain.extend_from_slice(b", ");
                chain.extend_from_slice(via);
                set("via", &chain);
            }
            None => set("via", via),
        }
        if let Some(attempt) = self.attempt {
            // What came with a request is passed on and never met here: such a request is not tried again.
            match attempt {
                1 => set(ATTEMPT, b"1"),
                _ if self.hedge => set(ATTEMPT, &[&*itoa(attempt.into()), b";hedge"].concat()),
                _ => set(ATTEMPT, &itoa(attempt.into())),
            }
        }
        if let Some(left) = self.deadline {
            let mut text = itoa(left.as_millis().try_into().unwrap_or(u64::MAX));
            set("x-request-deadline-ms", &text);
            if request.headers.contains_key("grpc-timeout") {
                text.push(b'm');
                if text.len() > 9 {
                    // The grammar allows eight digits; the whole seconds of so long a time are exact enough.
                    text = itoa(left.as_secs().min(99_999_999));
                    text.push(b'S');
                }
                set("grpc-timeout", &text);
            }
        }
    }

    fn skips(&self, request: &Request, name: &HeaderName) -> bool {
        let text = name.as_str();
        is_hop_by_hop(text)
            || is_ours(text, self.trusted)
            || (self.deadline.is_some() && text == "grpc-timeout")
            || (self.caller.is_some() && text == CLIENT_CERT)
            || request.named.contains(name)
    }

    /// Writes a request's fields for an HTTP/1 upstream, without framing and the final blank line.
    pub fn write_http1(&self, out: &mut Vec<u8>, request: &Request) {
        encode::field(
            out,
            "host",
            self.host
                .map_or(request.authority.as_bytes(), HeaderValue::as_bytes),
        );
        for (name, value) in &request.headers {
            let crumb = request.is_http2 && name == header::COOKIE;
            if !crumb && !self.skips(request, name) {
                encode::field(out, name.as_str(), value.as_bytes());
            }
        }
        if request.is_http2 && request.headers.contains_key(header::COOKIE) {
            // RFC 9113 section 8.2.3: crumbs are one line again outside HTTP/2.
            let crumbs: Vec<_> = request
                .headers
                .get_all(header::COOKIE)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            encode::field(out, "cookie", &crumbs.join(&b"; "[..]));
        }
        self.fields(request, |name, value| encode::field(out, name, value));
        if let Some(protocol) = &request.upgrade {
            encode::field(out, "connection", b"upgrade");
            encode::field(out, "upgrade", protocol.as_bytes());
        }
    }

    /// The fields of a request for an HTTP/2 upstream.
    pub fn for_http2(&self, request: &Request) -> HeaderMap {
        // Taking over the whole map and mending it is cheaper than filling a new one; most requests need no mending.
        let mut headers = request.headers.clone();
        let trailers = headers
            .get_all(header::TE)
            .iter()
            .any(|value| has_token(value, "trailers"));
        if !request.is_http2 || request.marks.has(Marks::REPLACED) {
            let doomed: SmallVec<[HeaderName; 8]> = request
                .headers
                .keys()
                .filter(|name| **name != header::CONTENT_LENGTH && self.skips(request, name))
                .cloned()
                .collect();
            for name in doomed {
                headers.remove(name);
            }
        }
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        self.fields(request, |name, value| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.insert(ours(name), value);
            }
        });
        headers
    }
}

/// The name of a field of ours, made at compile time.
fn ours(name: &'static str) -> HeaderName {
    const NAMES: [HeaderName; 11] = [
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("tracestate"),
        HeaderName::from_static("x-request-id"),
        HeaderName::from_static("x-forwarded-for"),
        HeaderName::from_static("x-forwarded-proto"),
        HeaderName::from_static("x-forwarded-host"),
        HeaderName::from_static("x-request-deadline-ms"),
        HeaderName::from_static("grpc-timeout"),
        HeaderName::from_static(ATTEMPT),
        header::VIA,
        HeaderName::from_static(CLIENT_CERT),
    ];
    let [
        parent,
        state,
        id,
        peer,
        proto,
        host,
        deadline,
        grpc,
        attempt,
        via,
        cert,
    ] = NAMES;
    match name {
        "traceparent" => parent,
        "tracestate" => state,
        "x-request-id" => id,
        "x-forwarded-for" => peer,
        "x-forwarded-proto" => proto,
        "x-forwarded-host" => host,
        "x-request-deadline-ms" => deadline,
        "grpc-timeout" => grpc,
        ATTEMPT => attempt,
        "via" => via,
        CLIENT_CERT => cert,
        other => HeaderName::from_static(other),
    }
}

impl Response {
    /// Whether a field of an upstream's answer stays with that hop (HI-25; in the direction that most proxies forget).
    pub fn skips(&self, name: &HeaderName) -> bool {
        is_hop_by_hop(name.as_str()) || self.named.contains(name)
    }

    /// Takes away what belongs to the upstream's connection.
    pub fn strip(&mut self) {
        if !self.is_http1 {
            // HTTP/2 has no such fields, and the library has refused who sent them.
            return;
        }
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "transfer-encoding",
            "upgrade",
            "proxy-authenticate",
            "content-length",
        ] {
            self.headers.remove(name);
        }
        for name in &self.named {
            self.headers.remove(name);
        }
    }
}

/// Whether a field would tell an application which member of the mesh calls; also with underscores, which some read as
/// dashes.
pub fn is_client_cert(name: &str) -> bool {
    let dash = |byte: u8| if byte == b'_' { b'-' } else { byte };
    name.len() == CLIENT_CERT.len() && name.bytes().map(dash).eq(CLIENT_CERT.bytes())
}

/// Takes away whatever a client says about who it is in the mesh.
pub fn disown_client_cert(headers: &mut HeaderMap) {
    let told: SmallVec<[HeaderName; 1]> = { headers.keys() }
        .filter(|name| is_client_cert(name.as_str()))
        .cloned()
        .collect();
    for name in told {
        headers.remove(name);
    }
}

/// All lines of a field as one list.
fn joined(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(name).iter();
    let mut chain = lines.next()?.as_bytes().to_vec();
    for line in lines {
        chain.extend_from_slice(b", ");
        chain.extend_from_slice(line.as_bytes());
    }
    Some(chain)
}

fn itoa(number: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(20);
    encode::decimal(&mut text, number);
    text
}

/// Whether a comma list holds a token; case is ignored.
pub fn has_token(value: &HeaderValue, token: &str) -> bool {
    value
        .as_bytes()
        .split(|b| *b == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// RFC 9110 section 9.2.2, and whoever brings an idempotency key.
pub fn is_idempotent(method: &Method, headers: &HeaderMap) -> bool {
    method.is_idempotent() || headers.contains_key("idempotency-key")
}

/// The caller's own deadline: `grpc-timeout` (1 to 8 digits and a unit) or `x-request-deadline-ms`. Anything malformed
/// is as if absent.
pub fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let grpc = headers.get("grpc-timeout").and_then(|value| {
        let (digits, unit) = value
            .as_bytes()
            .split_at_checked(value.len().checked_sub(1)?)?;
        let number = small_number(digits)?;
        Some(match unit {
            b"H" => Duration::from_secs(number * 3600),
            b"M" => Duration::from_secs(number * 60),
            b"S" => Duration::from_secs(number),
            b"m" => Duration::from_millis(number),
            b"u" => Duration::from_micros(number),
            b"n" => Duration::from_nanos(number),
            _ => return None,
        })
    });
    let plain = || {
        headers
            .get("x-request-deadline-ms")
            .and_then(|value| small_number(value.as_bytes()))
            .map(Duration::from_millis)
    };
    grpc.or_else(plain)
}

fn small_number(digits: &[u8]) -> Option<u64> {
    let fits = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    fits.then(|| {
        digits
            .iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
    })
}

/// Fields of an answer that make it the start of a tunnel are ours to write.
pub fn upgrade_fields(out: &mut Vec<u8>, protocol: &[u8]) {
    encode::field(out, "connection", b"upgrade");
    encode::field(out, "upgrade", protocol);
}

thread_local! {
    static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// The current `Date`, put together once a second.
pub fn with_date<R>(use_it: impl FnOnce(&str) -> R) -> R {
    let now = unix_seconds(SystemTime::now());
    DATE.with_borrow_mut(|(second, text)| {
        if *second != now {
            *second = now;
            *text = http_date(now);
        }
        use_it(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_the_standard_shows_it() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
    }

    #[test]
    fn a_deadline_is_read_in_both_spellings() {
        let with = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )])
        };
        assert_eq!(
            deadline(&with("grpc-timeout", "250m")),
            Some(Duration::from_millis(250))
        );
        assert_eq!(
            deadline(&with("grpc-timeout", "2H")),
            Some(Duration::from_secs(7200))
        );
        assert_eq!(
            deadline(&with("x-request-deadline-ms", "75")),
            Some(Duration::from_millis(75))
        );
        for odd in ["", "m", "123456789m", "-1m", "1x", "1"] {
            assert_eq!(
                deadline(&HeaderMap::from_iter([(
                    HeaderName::from_static("grpc-timeout"),
                    HeaderValue::from_static(odd)
                )])),
                None,
                "{odd:?}"
            );
        }
    }
}
