//! What one line of the access log says, and how it is written. The names are fixed (OBS-203); so is their order, for
//! people who read with their eyes.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use crate::telemetry::json::{Clock, address, hex, number, socket, string, thousandths};
use crate::telemetry::log::{self, Level};

/// One exchange. Absent parts leave their field out.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// When the exchange ended.
    pub now: SystemTime,
    /// A token (RFC 9110 section 5.6.2).
    pub method: &'a str,
    /// Without its query: never pass one.
    pub path: &'a str,
    pub status: u16,
    pub duration: Duration,
    /// Of the request's body.
    pub bytes_in: u64,
    /// Of the answer's body.
    pub bytes_out: u64,
    pub client: Option<IpAddr>,
    /// As it came; bytes that are not text are replaced.
    pub user_agent: Option<&'a [u8]>,
    pub host: &'a str,
    /// Such as `HTTP/1.1`.
    pub protocol: &'a str,
    pub route: &'a str,
    pub upstream: Option<&'a str>,
    pub endpoint: Option<SocketAddr>,
    /// How many times it was sent to an upstream.
    pub attempts: u32,
    /// Why it was not sent once more, where the route would have.
    pub not_retried: Option<&'a str>,
    /// What came of a second try beside the first.
    pub hedge: Option<&'a str>,
    /// As [`RequestId`](crate::exchange::request_id::RequestId) admits it.
    pub request_id: &'a str,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// Why a fallback answered instead of the upstream.
    pub fallback: Option<&'a str>,
    /// When we answered, or broke off, instead of the upstream.
    pub error: Option<Failure<'a>>,
    /// The faults on purpose that it met.
    pub fault: Option<&'a str>,
    pub services: Services<'a>,
    pub listener: &'a str,
    /// The configuration that served it.
    pub generation: u64,
}

/// Why we answered.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// A word of `exchange::error::Code`.
    pub code: &'a str,
    /// The cause, which clients are not told.
    pub details: Option<&'a str>,
}

/// What is known of the services at both ends.
#[derive(Debug, Clone, Copy, Default)]
pub struct Services<'a> {
    /// Which called, and which was called.
    pub edge: Option<(&'a str, &'a str)>,
    /// The whole name on the caller's certificate.
    pub peer: Option<&'a str>,
    /// What the rules of access said, and which of them.
    pub access: Option<Judged<'a>>,
}

/// What rules of access said.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    /// "allowed", "refused" or "would_refuse".
    pub verdict: &'a str,
    /// Which allowed it, or came nearest.
    pub rule: Option<&'a str>,
}

impl Services<'_> {
    /// No rule of access speaks, or would speak, against it.
    pub(super) fn are_allowed(&self) -> bool {
        self.access.is_none_or(|judged| judged.verdict == "allowed")
    }

    pub(super) fn format(&self, out: &mut Vec<u8>) {
        if let Some((source, destination)) = self.edge {
            text(out, b",\"source\":", source);
            text(out, b",\"destination\":", destination);
        }
        if let Some(peer) = self.peer {
            text(out, b",\"peer\":", peer);
        }
        if let Some(Judged { verdict, rule }) = self.access {
            text(out, b",\"access\":{\"verdict\":", verdict);
            if let Some(rule) = rule {
                text(out, b",\"rule\":", rule);
            }
            out.push(b'}');
        }
    }
}

impl Line<'_> {
    /// Whether a sample may leave it out.
    pub(super) fn is_usual(&self) -> bool {
        self.status < 500 && self.services.are_allowed()
    }

    pub(super) fn format(&self, out: &mut Vec<u8>, clock: &mut Clock) {
        let level = if self.status >= 500 {
            Level::Error
        } else {
            Level::Info
        };
        out.extend_from_slice(b"{\"timestamp\":");
        clock.write(out, self.now);
        plain(out, b",\"level\":\"", level.word());
        plain(out, b"\",\"service\":\"", log::service());
        plain(
            out,
            b"\",\"message\":\"request\",\"method\":\"",
            self.method,
        );
        out.push(b'"');
        text(out, b",\"path\":", self.path);
        count(out, b",\"status\":", u64::from(self.status));
        out.extend_from_slice(b",\"duration_ms\":");
        thousandths(
            out,
            u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
        );
        count(out, b",\"bytes_in\":", self.bytes_in);
        count(out, b",\"bytes_out\":", self.bytes_out);
        if let Some(client) = self.client {
            out.extend_from_slice(b",\"client\":");
            address(out, client);
        }
        if let Some(user_agent) = self.user_agent {
            out.extend_from_slice(b",\"user_agent\":");
            string(out, user_agent);
        }
        text(out, b",\"host\":", self.host);
        plain(out, b",\"protocol\":\"", self.protocol);
        out.push(b'"');
        text(out, b",\"route\":", self.route);
        if let Some(upstream) = self.upstream {
            text(out, b",\"upstream\":", upstream);
        }
        if let Some(endpoint) = self.endpoint {
            out.extend_from_slice(b",\"endpoint\":");
            socket(out, endpoint);
        }
        count(out, b",\"attempts\":", u64::from(self.attempts));
        if let Some(why) = self.not_retried {
            text(out, b",\"not_retried\":", why);
        }
        if let Some(hedge) = self.hedge {
            text(out, b",\"hedge\":", hedge);
        }
        plain(out, b",\"request_id\":\"", self.request_id);
        out.extend_from_slice(b"\",\"trace_id\":");
        hex(out, &self.trace_id);
        out.extend_from_slice(b",\"span_id\":");
        hex(out, &self.span_id);
        if let Some(fallback) = self.fallback {
            text(out, b",\"fallback\":", fallback);
        }
        failure(out, self.error);
        if let Some(fault) = self.fault {
            text(out, b",\"fault\":", fault);
        }
        self.services.format(out);
        text(out, b",\"listener\":", self.listener);
        count(out, b",\"generation\":", self.generation);
        out.extend_from_slice(b"}\n");
    }
}

/// Why, where it is told.
pub(super) fn failure(out: &mut Vec<u8>, error: Option<Failure<'_>>) {
    let Some(Failure { code, details }) = error else {
        return;
    };
    text(out, b",\"error\":{\"code\":", code);
    if let Some(details) = details {
        text(out, b",\"details\":", details);
    }
    out.push(b'}');
}

/// For what has no character that JSON would escape, because it was checked where it came in: tokens, ids, words of ours.
pub(super) fn plain(out: &mut Vec<u8>, name: &[u8], value: &str) {
    out.extend_from_slice(name);
    out.extend_from_slice(value.as_bytes());
}

pub(super) fn text(out: &mut Vec<u8>, name: &[u8], value: &str) {
    out.extend_from_slice(name);
    string(out, value.as_bytes());
}

pub(super) fn count(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    number(out, value);
}
