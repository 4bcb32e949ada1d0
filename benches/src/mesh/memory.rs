//! What of a sidecar is in memory: its own pages, and those of its program, of which a host has one copy for all.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Stage;
use super::pair::{CALLED, Pair, Way, dependency};
use super::report::Figures;
use crate::fleet::Caller;
use crate::peers::Peer;
use crate::process::resident;

/// So that what is freed a moment later counts as freed.
const SETTLE: Duration = Duration::from_millis(1500);
/// Requests to each dependency.
const REQUESTS: usize = 20;
/// Connections over which many are registered; each registration waits for a disk.
const REGISTRARS: usize = 64;

type Names = [(&'static str, &'static str, Option<f64>); 3];

const IDLE: Names = [
    ("idle", "MiB", Some(10.0)),
    ("idle, its own", "MiB", None),
    ("idle, of files", "MiB", None),
];
const USED: Names = [
    ("with dependencies in use", "MiB", Some(14.0)),
    ("with dependencies, its own", "MiB", None),
    ("with dependencies, of files", "MiB", None),
];
const AMONG_MANY: Names = [
    ("the same among others", "MiB", Some(14.0)),
    ("among others, its own", "MiB", None),
    ("among others, of files", "MiB", None),
];

/// Each time on a fresh process: memory that was used once often stays.
pub(super) async fn memory(stage: &Stage<'_>) -> io::Result<Figures> {
    let mut figures = Figures::default();
    for peer in stage.peers() {
        match peer {
            Peer::Tollgate => ours(stage, &mut figures).await?,
            _ => others(stage, peer, &mut figures).await?,
        }
    }
    Ok(figures)
}

async fn ours(stage: &Stage<'_>, figures: &mut Figures) -> io::Result<()> {
    let (fleet, count) = (stage.fleet()?, stage.settings.dependencies);
    let _dependencies = fleet.dependencies(stage, count).await?;
    let rounds = stage.settings.rounds.min(3);
    for _ in 0..rounds {
        let sidecar = fleet.caller(stage).await?;
        note(figures, IDLE, Peer::Tollgate, sidecar.id()).await;
        call(sidecar.outbound, count)?;
        note(figures, USED, Peer::Tollgate, sidecar.id()).await;
    }
    register(fleet.address(), stage.settings.others).await?;
    for _ in 0..rounds {
        let sidecar = fleet.caller(stage).await?;
        call(sidecar.outbound, count)?;
        note(figures, AMONG_MANY, Peer::Tollgate, sidecar.id()).await;
    }
    Ok(())
}

async fn others(stage: &Stage<'_>, peer: Peer, figures: &mut Figures) -> io::Result<()> {
    let count = stage.settings.dependencies;
    for _ in 0..stage.settings.rounds.min(3) {
        // As many as are used would be known: their names stand in the file. One alone is idle.
        let alone = Pair::start(stage, peer, Way::Requests, stage.upstream.http1, 0).await?;
        alone.answers(CALLED).await?;
        note(figures, IDLE, peer, alone.ids()[0]).await;
        drop(alone);
        let pair = Pair::start(stage, peer, Way::Requests, stage.upstream.http1, count).await?;
        pair.answers(CALLED).await?;
        call(pair.entrance, count)?;
        note(figures, USED, peer, pair.ids()[0]).await;
    }
    Ok(())
}

async fn note(figures: &mut Figures, names: Names, peer: Peer, pid: u32) {
    tokio::time::sleep(SETTLE).await;
    let resident = resident(pid);
    let values = [resident.all, resident.own, resident.of_files];
    for (name, bytes) in names.into_iter().zip(values) {
        figures.add(name, peer, bytes as f64 / f64::from(1 << 20));
    }
}

/// Uses each dependency.
fn call(at: SocketAddr, count: usize) -> io::Result<()> {
    for host in (0..count).map(dependency) {
        let mut caller = Caller::for_host(at, &host)?;
        for _ in 0..REQUESTS {
            crate::fleet::expect(&caller.ask("GET", "/1k", "")?, 200)?;
        }
    }
    Ok(())
}

/// Registers so many services that nobody asks for, an instance each.
async fn register(control: SocketAddr, count: usize) -> io::Result<()> {
    let mut registrars = JoinSet::new();
    for first in 0..REGISTRARS {
        registrars.spawn_local(async move {
            let mut stream = TcpStream::connect(control).await?;
            stream.set_nodelay(true)?;
            for number in (first..count).step_by(REGISTRARS) {
                let name = format!("other-{number}");
                let body =
                    json!({ "id": name, "name": name, "address": "127.0.0.1:9" }).to_string();
                let head = format!(
                    "POST /register HTTP/1.1\r\nHost: cp\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(format!("{head}{body}").as_bytes()).await?;
                // One at a time, and an answer is smaller than this.
                let mut answer = [0; 2048];
                let read = stream.read(&mut answer).await?;
                let told = String::from_utf8_lossy(&answer[..read]);
                if !told.starts_with("HTTP/1.1 201") {
                    return Err(io::Error::other(format!("not registered: {told}")));
                }
            }
            Ok(())
        });
    }
    while let Some(ended) = registrars.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    Ok(())
}
