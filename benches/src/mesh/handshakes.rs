//! What a mutual handshake costs the side that is called: members that open a connection, ask once, and leave. The load
//! allows one suite and one curve only, so that all have the same to do.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::authority::{connector, join};
use super::pair::{CALLED, CALLER, Pair, Way};
use super::report::Figures;
use super::{Stage, turn};
use crate::thread::Pinned;

/// Handshakes at once.
const AT_ONCE: usize = 8;

pub(super) async fn handshakes(stage: &Stage<'_>) -> io::Result<Figures> {
    let mut figures = Figures::default();
    let mut pairs = Vec::new();
    for peer in stage.peers() {
        let pair = Pair::start(stage, peer, Way::Requests, stage.upstream.http1, 0).await?;
        pair.answers(CALLED).await?;
        let member = match (&pair.fleet, &pair.authority) {
            (Some(fleet), _) => join(&mut fleet.control()?, CALLER, &fleet.token(CALLER)?)?,
            (None, Some((authority, _))) => connector(&authority.member(CALLER)?)?,
            (None, None) => continue,
        };
        pairs.push((pair, member));
    }
    for _ in 0..stage.settings.rounds {
        for (pair, member) in &pairs {
            let shaking = Shaking::start(pair.inner, member.clone(), stage.settings.load_core)?;
            let turn = turn(stage, &pair.ids()[1..], || {
                shaking.done.load(Ordering::Relaxed)
            })
            .await;
            let (cpu, failed) = (
                turn.cpu[0].as_secs_f64(),
                shaking.failed.load(Ordering::Relaxed),
            );
            let count = turn.count as f64;
            for (name, value) in [
                (
                    ("a handshake with a request", "µs CPU", None),
                    cpu * 1e6 / count,
                ),
                (("on one core", "1/s", None), count / cpu),
                (
                    ("as the load was", "1/s", None),
                    count / turn.elapsed.as_secs_f64(),
                ),
                (("that failed", "", Some(0.0)), failed as f64),
            ] {
                figures.add(name, pair.peer, value);
            }
        }
    }
    Ok(figures)
}

/// Members that come and go, until this is dropped.
struct Shaking {
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    _thread: Pinned,
}

impl Shaking {
    fn start(to: SocketAddr, member: TlsConnector, core: usize) -> io::Result<Shaking> {
        let (done, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (well, badly) = (done.clone(), failed.clone());
        let thread = Pinned::run("handshakes", Some(core), move || async move {
            let mut tasks = JoinSet::new();
            for _ in 0..AT_ONCE {
                let (member, well, badly) = (member.clone(), well.clone(), badly.clone());
                tasks.spawn_local(async move {
                    loop {
                        let count = match once(to, &member).await {
                            Ok(()) => &well,
                            Err(_) => &badly,
                        };
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            // They end with this future.
            while tasks.join_next().await.is_some() {}
        })?;
        Ok(Shaking {
            done,
            failed,
            _thread: thread,
        })
    }
}

async fn once(to: SocketAddr, member: &TlsConnector) -> io::Result<()> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(CALLED).map_err(io::Error::other)?;
    let mut stream = member.connect(name, stream).await?;
    let request = format!("GET /1k HTTP/1.1\r\nhost: {CALLED}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(4096);
    stream.read_to_end(&mut answer).await?;
    match answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(()),
        false => Err(io::Error::other("another answer")),
    }
}
