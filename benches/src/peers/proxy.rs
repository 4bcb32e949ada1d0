//! A proxy that runs: its directory, its files, its process group, and the end of all of them.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::find::Found;
use super::text::{self, Certificate, Front, Routes};
use super::{Peer, Stage};
use crate::load::{Arrivals, Live, Plan, Protocol};
use crate::process::{self, Usage};

/// How long a proxy may take until it answers.
const START: Duration = Duration::from_secs(20);
/// How long it may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(3);

/// What a proxy is asked to be.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    pub(super) tls: bool,
    pub(super) http2: bool,
    pub(super) protected: bool,
    /// JSON to gRPC.
    pub(super) transcode: bool,
    /// An upstream of its own behind `/chaos/*`; Tollgate only.
    pub(super) chaos: Option<SocketAddr>,
    pub(super) routes: Routes,
}

/// A running proxy; dropping it stops it and removes its files.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) peer: Peer,
    pub(super) front: Front,
    pub(super) file: PathBuf,
    /// Once it had answered for the first time.
    pub(super) at_start: Usage,
    group: Group,
    _directory: TempDir,
}

impl Proxy {
    /// Starts it and waits until it answers.
    pub(super) async fn start(
        stage: &Stage<'_>,
        found: &Found,
        shape: &Shape,
    ) -> io::Result<Proxy> {
        let mut problem = None;
        // A port that was free may be taken by the time it is used; three in a row are another problem.
        for _ in 0..3 {
            match Proxy::attempt(stage, found, shape).await {
                Ok(proxy) => return Ok(proxy),
                Err(error) => problem = Some(error),
            }
        }
        Err(problem.unwrap_or_else(|| io::Error::other("it did not start")))
    }

    async fn attempt(stage: &Stage<'_>, found: &Found, shape: &Shape) -> io::Result<Proxy> {
        let directory = TempDir::with_prefix("tollgate-peers-")?;
        let upstream = if shape.http2 || shape.transcode {
            stage.upstream.http2
        } else {
            stage.upstream.http1
        };
        let front = front(directory.path(), upstream, shape)?;
        let file = write(found.peer, &front)?;
        let log = fs::File::create(front.directory.join("output.log"))?;
        let mut command = Command::new(&found.program);
        command
            .args(arguments(found.peer, &file))
            .current_dir(&front.directory)
            .stdin(Stdio::null());
        command
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = crate::thread::pinned(stage.settings.proxy_core, || command.spawn())??;
        let group = Group(child);
        let mut proxy = Proxy {
            peer: found.peer,
            front,
            file,
            at_start: Usage::default(),
            group,
            _directory: directory,
        };
        proxy.ready(shape).await?;
        proxy.at_start = proxy.usage()?;
        Ok(proxy)
    }

    /// Waits for the first complete answers in the protocol that will be measured.
    async fn ready(&mut self, shape: &Shape) -> io::Result<()> {
        let until = Instant::now() + START;
        loop {
            if let Some(status) = self.group.0.try_wait()? {
                return Err(self.trouble(&format!("it ended with {status}")));
            }
            // A listening socket first: the generator would count each refused connection.
            if tokio::net::TcpStream::connect(self.front.listen)
                .await
                .is_ok()
            {
                let plan = Plan {
                    requests: 8,
                    duration: Some(Duration::from_secs(5)),
                    ..self.plan(shape, 2)
                };
                let summary = crate::load::run(plan, Arc::new(Live::default())).await?;
                if summary.bad() == 0 && summary.requests == 8 {
                    return Ok(());
                }
                if Instant::now() > until {
                    return Err(self.trouble(&format!(
                        "it answers badly: {:?} {:?}",
                        summary.status, summary.failures
                    )));
                }
            }
            if Instant::now() > until {
                return Err(self.trouble("it does not listen"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn trouble(&self, what: &str) -> io::Error {
        let log = fs::read_to_string(self.front.directory.join("output.log")).unwrap_or_default();
        let log =
            log + &fs::read_to_string(self.front.directory.join("error.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n");
        io::Error::other(format!(
            "{} cannot be measured: {what}; its last words:\n{last}",
            self.peer.title()
        ))
    }

    /// A closed loop of 1 KiB requests over so many connections.
    pub(super) fn plan(&self, shape: &Shape, connections: usize) -> Plan {
        Plan {
            to: self.front.listen,
            host: "localhost".to_owned(),
            paths: vec![
                if shape.transcode {
                    "/v1/orders/7?verbose=true"
                } else {
                    "/1k"
                }
                .to_owned(),
            ],
            headers: if shape.protected {
                vec![("x-api-key".to_owned(), text::KEY.to_owned())]
            } else {
                Vec::new()
            },
            protocol: if shape.http2 {
                Protocol::Http2 { streams: 16 }
            } else {
                Protocol::KeepAlive
            },
            tls: shape.tls,
            connections,
            expect_body: if shape.transcode {
                crate::upstream::ORDER_JSON
            } else {
                crate::upstream::SMALL
            },
            arrivals: Arrivals::Closed,
            requests: 0,
            duration: None,
        }
    }

    /// All of its processes.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        process::tree(self.group.0.id())
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> io::Result<Usage> {
        Ok(process::usage(&self.pids()?))
    }
}

fn front(directory: &Path, upstream: SocketAddr, shape: &Shape) -> io::Result<Front> {
    let [listen, admin] = free_addresses()?;
    Ok(Front {
        listen,
        admin,
        upstream,
        http2: shape.http2,
        protected: shape.protected,
        chaos: shape.chaos,
        certificate: if shape.tls {
            Some(certificate(directory)?)
        } else {
            None
        },
        descriptors: if shape.transcode {
            Some(descriptors(directory)?)
        } else {
            None
        },
        directory: directory.to_owned(),
        routes: shape.routes.clone(),
    })
}

/// The descriptor set of the shop that the engine's tests use.
fn descriptors(directory: &Path) -> io::Result<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/tests/protos");
    let mut compiler = protox::Compiler::new([folder]).map_err(io::Error::other)?;
    compiler
        .include_imports(true)
        .open_file("shop.proto")
        .map_err(io::Error::other)?;
    let path = directory.join("shop.binpb");
    fs::write(&path, compiler.encode_file_descriptor_set())?;
    Ok(path)
}

/// Two loopback addresses that are free at this moment.
fn free_addresses() -> io::Result<[SocketAddr; 2]> {
    let (one, two) = (
        TcpListener::bind(("127.0.0.1", 0))?,
        TcpListener::bind(("127.0.0.1", 0))?,
    );
    Ok([one.local_addr()?, two.local_addr()?])
}

/// A self-signed P-256 certificate for `localhost`.
fn certificate(directory: &Path) -> io::Result<Certificate> {
    let made =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let file = |name: &str, text: &str| -> io::Result<PathBuf> {
        let path = directory.join(name);
        fs::write(&path, text)?;
        Ok(path)
    };
    Ok(Certificate {
        chain: file("front.pem", &chain)?,
        key: file("front.key", &key)?,
        both: file("both.pem", &format!("{chain}{key}"))?,
    })
}

/// Writes the configuration whole: a proxy that watches its file never reads half of it.
pub(super) fn write(peer: Peer, front: &Front) -> io::Result<PathBuf> {
    let (name, text) = match peer {
        Peer::Tollgate => ("gateway.toml", text::tollgate(front)),
        Peer::Nginx => ("nginx.conf", text::nginx(front)),
        Peer::Haproxy => ("haproxy.cfg", text::haproxy(front)),
        Peer::Envoy => ("envoy.json", text::envoy(front)),
    };
    let file = front.directory.join(name);
    let next = front.directory.join(format!(".{name}.next"));
    fs::write(&next, text)?;
    fs::rename(next, &file)?;
    Ok(file)
}

fn arguments(peer: Peer, file: &Path) -> Vec<PathBuf> {
    let directory = file.parent().unwrap_or(file).to_owned();
    match peer {
        Peer::Tollgate => vec!["run".into(), file.into()],
        Peer::Nginx => vec!["-p".into(), directory, "-c".into(), file.into()],
        Peer::Haproxy => vec!["-db".into(), "-f".into(), file.into()],
        Peer::Envoy => {
            let mut all: Vec<PathBuf> = vec!["-c".into(), file.into()];
            all.extend(
                ["--concurrency", "1", "--disable-hot-restart", "-l", "error"].map(PathBuf::from),
            );
            all
        }
    }
}

/// A process and whatever it started, in a group of their own: Ctrl-C reaches this program alone, which then stops them.
#[derive(Debug)]
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // A group bears its first process's number, which is ours as long as that is not waited for, and after that as long
        // as one of the group is left.
        let group = Pid::from_child(&self.0);
        // It may have ended by itself.
        kill_process_group(group, Signal::TERM).ok();
        let until = Instant::now() + STOP;
        while Instant::now() < until && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        kill_process_group(group, Signal::KILL).ok();
        drop(self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::{Programs, find};

    /// Each proxy's own check mode reads what we wrote for it.
    #[test]
    fn the_configuration_of_each_peer_passes_its_own_check() {
        for peer in Peer::ALL {
            let found = match find(peer, &Programs::default()) {
                Ok(found) => found,
                Err(reason) => {
                    eprintln!("SKIPPED: {reason}");
                    continue;
                }
            };
            let shapes = [
                (false, false, false),
                (true, false, false),
                (false, true, false),
                (false, false, true),
            ];
            for (tls, http2, protected) in shapes {
                let directory = TempDir::new().unwrap();
                let shape = Shape {
                    tls,
                    http2,
                    protected,
                    ..Shape::default()
                };
                let front = front(directory.path(), ([127, 0, 0, 1], 9).into(), &shape).unwrap();
                let file = write(peer, &front).unwrap();
                let mut arguments = arguments(peer, &file);
                match peer {
                    Peer::Tollgate => arguments[0] = "check".into(),
                    Peer::Nginx => arguments.insert(0, "-t".into()),
                    Peer::Haproxy => arguments[0] = "-c".into(),
                    Peer::Envoy => arguments.extend(["--mode", "validate"].map(PathBuf::from)),
                }
                let checked = Command::new(&found.program)
                    .args(arguments)
                    .output()
                    .unwrap();
                let words = String::from_utf8_lossy(&checked.stderr);
                assert!(
                    checked.status.success(),
                    "{} tls {tls} http2 {http2} protected {protected}: {words}",
                    peer.title()
                );
                assert!(
                    !words.contains("WARNING"),
                    "{} tls {tls} http2 {http2} protected {protected}: {words}",
                    peer.title()
                );
            }
        }
    }

    #[test]
    fn a_dropped_group_is_gone_with_all_its_processes() {
        let child = Command::new("sh")
            .args(["-c", "sleep 1000 & sleep 1000"])
            .process_group(0)
            .spawn()
            .unwrap();
        let id = child.id();
        let group = Group(child);
        let until = Instant::now() + Duration::from_secs(60);
        let mut all = process::tree(id).unwrap();
        while all.len() < 3 && Instant::now() < until {
            std::thread::yield_now();
            all = process::tree(id).unwrap();
        }
        drop(group);
        // Orphans are reaped by whoever adopts them, so a zombie counts as gone.
        let alive = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
        };
        while all.iter().any(alive) {
            assert!(Instant::now() < until, "still there: {all:?}");
            std::thread::yield_now();
        }
    }
}
