//! Tollgate beside nginx, HAProxy and Envoy, measured in one run on one machine.
//!
//! Each proxy runs with one worker on one core; the load and the upstream share another. What is compared is CPU time for
//! a request, because it does not depend on how fast the generator is, and because rounds are taken in turn, so that
//! whatever else the machine does meets every proxy alike. Ratios are taken within a round before their median is.
//!
//! A proxy that is not installed is named and skipped. Everything that is started belongs to a value whose drop stops it,
//! so that an error or Ctrl-C leaves no process and no file behind.

mod cost;
mod find;
mod memory;
mod own;
mod proxy;
mod report;
mod soak;
mod strace;
mod text;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use crate::case::Words;
use crate::upstream::Upstream;

pub use self::find::{Found, Programs, find};
pub use self::report::{Machine, Report};

/// A proxy that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    Tollgate,
    Nginx,
    Haproxy,
    Envoy,
}

impl Peer {
    /// All, in the order of the tables' columns.
    pub const ALL: [Peer; 4] = [Peer::Tollgate, Peer::Nginx, Peer::Haproxy, Peer::Envoy];

    /// As its makers write it.
    pub fn title(self) -> &'static str {
        match self {
            Peer::Tollgate => "Tollgate",
            Peer::Nginx => "nginx",
            Peer::Haproxy => "HAProxy",
            Peer::Envoy => "Envoy",
        }
    }
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// HTTP/1.1, 1 KiB, 64 keep-alive connections
    #[value(name = "h1-1k")]
    #[serde(rename = "h1-1k")]
    Http1,
    /// The same with a limit by key, JSON log, request id, ejection and retries on
    #[value(name = "h1-protected")]
    #[serde(rename = "h1-protected")]
    Protected,
    /// The same as h1-1k over TLS 1.3
    #[value(name = "tls-1k")]
    #[serde(rename = "tls-1k")]
    Tls,
    /// HTTP/2 to HTTP/2 in clear text, 1 KiB, 16 connections × 16 streams
    #[value(name = "h2-h2")]
    #[serde(rename = "h2-h2")]
    Http2,
    /// JSON over HTTP/1.1 to gRPC and back, an answer of 1 KiB, 64 keep-alive connections
    #[value(name = "transcode")]
    #[serde(rename = "transcode")]
    Transcode,
    /// HTTP/1.1, 1 MiB, 16 keep-alive connections
    #[value(name = "body-1m")]
    #[serde(rename = "body-1m")]
    LargeBody,
    /// HTTP/1.1, 1 KiB, a new connection for each request, 64 at once
    #[value(name = "new-conn")]
    #[serde(rename = "new-conn")]
    NewConnection,
    /// Memory of an idle keep-alive connection
    Idle,
    /// Tollgate alone: memory and cost with one route and with 5,000
    Routes,
    /// Tollgate alone: 1,000 reloads under full load
    Reload,
    /// Tollgate alone: one changed route at 5,000, from file write to served
    ChangeOne,
    /// Tollgate alone: mixed traffic and faults for half an hour; only when asked for by name
    Soak,
}

impl Words for Case {}

/// How a run is done.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    pub rounds: usize,
    pub seconds: f64,
    /// Load before the counting begins, in every round.
    pub warm_up: f64,
    pub proxy_core: usize,
    pub load_core: usize,
    pub idle_connections: usize,
    pub routes: usize,
    pub reloads: usize,
    pub changes: usize,
    pub soak_minutes: u64,
    pub strace: bool,
}

impl Settings {
    fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn warming(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }
}

/// What every case needs.
struct Stage<'a> {
    settings: &'a Settings,
    found: &'a [Found],
    upstream: Upstream,
    /// Tells a watcher what is being done.
    say: &'a dyn Fn(&str),
}

/// Measures the cases one after the other. Dropping the future stops everything that it started.
pub async fn measure(
    cases: &[Case],
    settings: &Settings,
    found: &[Found],
    report: &mut Report,
    say: &dyn Fn(&str),
) -> io::Result<()> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let upstream = Upstream::start(any, any, Some(settings.load_core))?;
    let stage = Stage {
        settings,
        found,
        upstream,
        say,
    };
    for case in cases {
        say(&format!("{}: {}", case.name(), case.title()));
        match case {
            Case::Idle => report.add(memory::idle(&stage).await?),
            Case::Routes => report.add(own::routes(&stage).await?),
            Case::Reload => report.add(own::reload(&stage).await?),
            Case::ChangeOne => report.add(own::change_one(&stage).await?),
            Case::Soak => report.add(soak::soak(&stage).await?),
            _ => report.add(cost::cost(&stage, *case).await?),
        }
    }
    Ok(())
}
