//! Two sidecars of one maker: what enters the first, beside `orders`, leaves the second, beside `products`.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::authority::{Authority, Files};
use super::ours::{Beside, Fleet, START, Sidecar};
use super::{Stage, envoy, free, haproxy};
use crate::fleet::{Caller, Program};
use crate::peers::Peer;
use crate::thread;

/// Who calls, and who is called.
pub(super) const CALLER: &str = "orders";
pub(super) const CALLED: &str = "products";

/// What crosses from one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Requests in mutual TLS, with all policy.
    Requests,
    /// Bytes in mutual TLS.
    SecuredBytes,
    /// Bytes in clear text.
    ClearBytes,
}

/// What the files of another maker's two are made of.
pub(super) struct Sides {
    pub(super) way: Way,
    pub(super) entrance: SocketAddr,
    /// Where the second lets the first in.
    pub(super) inner: SocketAddr,
    pub(super) app: SocketAddr,
    pub(super) roots: PathBuf,
    pub(super) caller: Files,
    pub(super) called: Files,
    /// Services that the first knows besides, by their hosts; all of them are the second.
    pub(super) dependencies: usize,
}

/// The name of a service that is used besides.
pub(super) fn dependency(number: usize) -> String {
    format!("dep-{number}")
}

/// Two that run; they end with this.
pub(super) struct Pair {
    pub(super) peer: Peer,
    pub(super) entrance: SocketAddr,
    /// Where the second lets members in.
    pub(super) inner: SocketAddr,
    out: One,
    into: One,
    /// Ours have it.
    pub(super) fleet: Option<Fleet>,
    /// Others have it, and its folder.
    pub(super) authority: Option<(Authority, TempDir)>,
}

/// One sidecar.
enum One {
    Ours(Sidecar),
    Other(Other),
}

impl Pair {
    /// Starts both, and waits until bytes come through.
    pub(super) async fn start(
        stage: &Stage<'_>,
        peer: Peer,
        way: Way,
        app: SocketAddr,
        dependencies: usize,
    ) -> io::Result<Pair> {
        match peer {
            Peer::Tollgate => Pair::of_ours(stage, way, app).await,
            _ => Pair::of_others(stage, peer, way, app, dependencies),
        }
    }

    async fn of_ours(stage: &Stage<'_>, way: Way, app: SocketAddr) -> io::Result<Pair> {
        let fleet = stage.fleet()?;
        let [entrance] = free()?;
        let beside = |service: &str, ports| Beside {
            service: service.to_owned(),
            app,
            ports,
            policy: way != Way::ClearBytes,
            bytes: way != Way::Requests,
            core: stage.settings.sidecar_core,
        };
        let into = fleet.sidecar(&beside(CALLED, Vec::new())).await?;
        let ports = vec![(entrance, CALLED.to_owned())];
        let out = fleet.sidecar(&beside(CALLER, ports)).await?;
        Ok(Pair {
            peer: Peer::Tollgate,
            entrance,
            inner: into.inbound,
            out: One::Ours(out),
            into: One::Ours(into),
            fleet: Some(fleet),
            authority: None,
        })
    }

    fn of_others(
        stage: &Stage<'_>,
        peer: Peer,
        way: Way,
        app: SocketAddr,
        dependencies: usize,
    ) -> io::Result<Pair> {
        let folder = TempDir::new_in(stage.folder.path())?;
        let authority = Authority::new(folder.path())?;
        let [entrance, inner] = free()?;
        let sides = Sides {
            way,
            entrance,
            inner,
            app,
            roots: authority.roots.clone(),
            caller: authority.member(CALLER)?,
            called: authority.member(CALLED)?,
            dependencies,
        };
        let [out, into] = match peer {
            Peer::Envoy => envoy::files(&sides),
            _ => haproxy::files(&sides),
        };
        let start = |name: &str, text: &str| {
            let end = if peer == Peer::Envoy { "json" } else { "cfg" };
            let file = folder.path().join(format!("{name}.{end}"));
            fs::write(&file, text)?;
            let program = stage.other(peer)?.program.clone();
            let core = stage.settings.sidecar_core;
            Other::start(peer, program, file, core).map(One::Other)
        };
        let (into, out) = (start("into", &into)?, start("out", &out)?);
        Ok(Pair {
            peer,
            entrance,
            inner,
            out,
            into,
            fleet: None,
            authority: Some((authority, folder)),
        })
    }

    /// The first and the second.
    pub(super) fn ids(&self) -> [u32; 2] {
        [self.out.id(), self.into.id()]
    }

    /// Waits for an answer from behind both.
    pub(super) async fn answers(&self, host: &str) -> io::Result<()> {
        let began = Instant::now();
        while !answered(self.entrance, host) {
            if began.elapsed() > START {
                let log = self.out.log() + &self.into.log();
                let name = self.peer.title();
                return Err(io::Error::other(format!(
                    "{name} does not answer; it says:\n{log}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Ends the first, and starts it again with what it has kept.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        match &mut self.out {
            One::Ours(sidecar) => sidecar.restart(),
            One::Other(other) => other.restart(),
        }
    }
}

/// Whether somebody answers a request for this host with success.
pub(super) fn answered(at: SocketAddr, host: &str) -> bool {
    let caller = Caller::for_host(at, host);
    caller.is_ok_and(|mut caller| {
        caller
            .ask("GET", "/1k", "")
            .is_ok_and(|(status, _)| status == 200)
    })
}

impl One {
    fn id(&self) -> u32 {
        match self {
            One::Ours(sidecar) => sidecar.id(),
            One::Other(other) => other.program.id(),
        }
    }

    fn log(&self) -> String {
        let file = match self {
            One::Ours(sidecar) => &sidecar.file,
            One::Other(other) => &other.file,
        };
        let log = fs::read_to_string(file.with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n") + "\n"
    }
}

/// A sidecar of another maker.
struct Other {
    peer: Peer,
    executable: PathBuf,
    file: PathBuf,
    core: usize,
    program: Program,
}

impl Other {
    fn start(peer: Peer, executable: PathBuf, file: PathBuf, core: usize) -> io::Result<Other> {
        let program = run(peer, &executable, &file, core)?;
        Ok(Other {
            peer,
            executable,
            file,
            core,
            program,
        })
    }

    fn restart(&mut self) -> io::Result<()> {
        self.program.end()?;
        self.program = run(self.peer, &self.executable, &self.file, self.core)?;
        Ok(())
    }
}

fn run(peer: Peer, executable: &Path, file: &Path, core: usize) -> io::Result<Program> {
    let log = fs::File::create(file.with_extension("log"))?;
    let mut command = Command::new(executable);
    if peer == Peer::Envoy {
        command.arg("-c").arg(file);
        command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"]);
    } else {
        command.args(["-db", "-f"]).arg(file);
    }
    command
        .current_dir(file.parent().unwrap_or(file))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    thread::pinned(core, || Program::start(&mut command))?
}
