//! What one line of the access log says of a connection whose bytes were relayed: one when it ends.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use super::line::{Failure, Services, count, failure, plain, text};
use crate::telemetry::json::{Clock, address, socket, thousandths};
use crate::telemetry::log::{self, Level};

/// One connection. Absent parts leave their field out.
#[derive(Debug, Clone)]
pub struct Relayed<'a> {
    /// When it ended.
    pub now: SystemTime,
    /// Since it was accepted, or detected.
    pub duration: Duration,
    /// From the client to the upstream.
    pub bytes_in: u64,
    /// From the upstream to the client.
    pub bytes_out: u64,
    /// Why it ended; a word of ours.
    pub end: &'a str,
    pub client: IpAddr,
    /// The name that the client gave on TLS.
    pub sni: Option<&'a str>,
    /// Where a captured connection was going.
    pub original: Option<SocketAddr>,
    pub upstream: Option<&'a str>,
    pub endpoint: Option<SocketAddr>,
    /// How many endpoints were tried.
    pub attempts: u32,
    /// As of a request: what breaks off here can be found at the next hop by time and address only.
    pub request_id: &'a str,
    /// Why no endpoint was connected to.
    pub error: Option<Failure<'a>>,
    pub services: Services<'a>,
    pub listener: &'a str,
    /// The configuration that served it.
    pub generation: u64,
}

impl Relayed<'_> {
    pub(super) fn format(&self, out: &mut Vec<u8>, clock: &mut Clock) {
        let level = match self.error {
            Some(_) => Level::Error,
            None => Level::Info,
        };
        out.extend_from_slice(b"{\"timestamp\":");
        clock.write(out, self.now);
        plain(out, b",\"level\":\"", level.word());
        plain(out, b"\",\"service\":\"", log::service());
        plain(out, b"\",\"message\":\"connection\",\"end\":\"", self.end);
        out.extend_from_slice(b"\",\"duration_ms\":");
        thousandths(
            out,
            u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
        );
        count(out, b",\"bytes_in\":", self.bytes_in);
        count(out, b",\"bytes_out\":", self.bytes_out);
        out.extend_from_slice(b",\"client\":");
        address(out, self.client);
        if let Some(sni) = self.sni {
            text(out, b",\"sni\":", sni);
        }
        if let Some(original) = self.original {
            out.extend_from_slice(b",\"original\":");
            socket(out, original);
        }
        if let Some(upstream) = self.upstream {
            text(out, b",\"upstream\":", upstream);
        }
        if let Some(endpoint) = self.endpoint {
            out.extend_from_slice(b",\"endpoint\":");
            socket(out, endpoint);
        }
        count(out, b",\"attempts\":", u64::from(self.attempts));
        plain(out, b",\"request_id\":\"", self.request_id);
        out.push(b'"');
        failure(out, self.error);
        self.services.format(out);
        text(out, b",\"listener\":", self.listener);
        count(out, b",\"generation\":", self.generation);
        out.extend_from_slice(b"}\n");
    }
}
