//! Two sidecars of ours beside two of HAProxy and two of Envoy, measured in one run on one machine: a client, the way out
//! of the first, mutual TLS, the way in of the second, an application.
//!
//! Ours have a control plane as their authority and registry, and short files, as people run them. The others have files,
//! and certificates of an authority that is made for the run. The sidecars share one core; load, application and control
//! plane share another. Everybody has a turn in each round, and ratios are taken within a round before their median is.
//!
//! Everything that is started belongs to a value whose drop stops it, so that an error or Ctrl-C leaves no process and no
//! file behind.

mod authority;
mod envoy;
mod handshakes;
mod haproxy;
mod hops;
mod learn;
mod memory;
mod ours;
mod pair;
mod ready;
mod report;
mod tcp;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;
use tempfile::TempDir;

use self::ours::Fleet;
use crate::case::Words;
use crate::peers::{Found, Peer};
use crate::process::ran;
use crate::upstream::Upstream;

pub use self::report::Report;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// Latency that two sidecars add at 1,000 requests a second, and CPU time of each; CPU time at 10,000, too
    Hops,
    /// Resident memory: idle, with dependencies in use, and with thousands of services that are nobody's concern
    Memory,
    /// From the start of a sidecar that has run before to its first answer from beyond the mesh
    Ready,
    /// CPU time of a mutual handshake with one request behind it
    Handshakes,
    /// CPU time for a GiB that is relayed, in clear text and in mutual TLS
    Tcp,
    /// Tollgate alone: the first call of a service that nobody named before
    Learn,
}

impl Words for Case {}

/// How a run is done.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    pub rounds: usize,
    /// Counted seconds of each turn.
    pub seconds: f64,
    pub sidecar_core: usize,
    pub load_core: usize,
    /// Services that a sidecar uses in `memory`, and that `learn` calls.
    pub dependencies: usize,
    /// Services that are registered and that no sidecar asks for.
    pub others: usize,
}

impl Settings {
    fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// Before the counting begins, in every turn.
const WARM_UP: Duration = Duration::from_millis(500);

/// Our programs.
#[derive(Debug, Clone)]
pub struct Ours {
    pub sidecar: PathBuf,
    pub control_plane: PathBuf,
}

/// What every case needs.
struct Stage<'a> {
    settings: &'a Settings,
    ours: Option<&'a Ours>,
    others: &'a [Found],
    upstream: Upstream,
    folder: TempDir,
}

impl Stage<'_> {
    /// Who is measured, in the order of the tables' columns.
    fn peers(&self) -> Vec<Peer> {
        { self.ours.iter() }
            .map(|_| Peer::Tollgate)
            .chain(self.others.iter().map(|found| found.peer))
            .collect()
    }

    fn other(&self, peer: Peer) -> io::Result<&Found> {
        let found = self.others.iter().find(|found| found.peer == peer);
        found.ok_or_else(|| io::Error::other(format!("{} is not there", peer.title())))
    }

    /// A control plane of its own, with nobody registered.
    fn fleet(&self) -> io::Result<Fleet> {
        let ours = self
            .ours
            .ok_or_else(|| io::Error::other("ours are not there"))?;
        Fleet::start(self, ours)
    }
}

/// Measures the cases one after the other. Dropping the future stops everything that it started.
pub async fn measure(
    cases: &[Case],
    settings: &Settings,
    ours: Option<&Ours>,
    others: &[Found],
    report: &mut Report,
    say: &dyn Fn(&str),
) -> io::Result<()> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let stage = Stage {
        settings,
        ours,
        others,
        upstream: Upstream::start(any, any, Some(settings.load_core))?,
        folder: TempDir::with_prefix("tollgate-mesh-")?,
    };
    for case in cases {
        say(&format!("{}: {}", case.name(), case.title()));
        let figures = match case {
            Case::Hops => hops::hops(&stage).await?,
            Case::Memory => memory::memory(&stage).await?,
            Case::Ready => ready::ready(&stage).await?,
            Case::Handshakes => handshakes::handshakes(&stage).await?,
            Case::Tcp => tcp::tcp(&stage).await?,
            Case::Learn => learn::learn(&stage).await?,
        };
        for figure in figures.list() {
            say(&format!("  {}", figure.line()));
        }
        report.add(*case, figures);
    }
    Ok(())
}

/// What processes did between two moments.
struct Turn {
    /// Of each process, in the order in which they were given.
    cpu: Vec<Duration>,
    /// How far the count went.
    count: u64,
    elapsed: Duration,
}

/// Reads count and CPU time at the same two moments, after a warm-up, so that neither the beginning of the load nor its
/// end is charged to anybody.
async fn turn(stage: &Stage<'_>, pids: &[u32], count: impl Fn() -> u64) -> Turn {
    let all = || pids.iter().map(|pid| ran(&[*pid])).collect::<Vec<_>>();
    tokio::time::sleep(WARM_UP).await;
    let (before, from, started) = (all(), count(), Instant::now());
    tokio::time::sleep(stage.settings.measured()).await;
    let (after, to, elapsed) = (all(), count(), started.elapsed());
    Turn {
        cpu: { after.iter().zip(before) }
            .map(|(after, before)| after.saturating_sub(before))
            .collect(),
        count: to - from,
        elapsed,
    }
}

/// Loopback addresses that are free at this moment.
fn free<const N: usize>() -> io::Result<[SocketAddr; N]> {
    let mut held = Vec::with_capacity(N);
    let mut free = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for address in &mut free {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        // All are held until the last is known, so that no two are the same.
        held.push(listener);
    }
    Ok(free)
}
