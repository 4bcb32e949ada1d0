//! What a GiB costs that is relayed by both: in clear text, and in mutual TLS between them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::pair::{Pair, Way};
use super::report::Figures;
use super::{Stage, turn};
use crate::thread::Pinned;

const STREAMS: usize = 4;
/// What a stream writes at a time.
const PIECE: usize = 256 << 10;

type Name = (&'static str, &'static str, Option<f64>);

const CLEAR: [Name; 2] = [
    ("a sidecar, in clear text", "core-seconds a GiB", None),
    ("through both, in clear text", "GiB/s", None),
];
const SECURED: [Name; 2] = [
    ("a sidecar, in mutual TLS", "core-seconds a GiB", None),
    ("through both, in mutual TLS", "GiB/s", None),
];

pub(super) async fn tcp(stage: &Stage<'_>) -> io::Result<Figures> {
    let mut figures = Figures::default();
    for (way, names) in [(Way::ClearBytes, CLEAR), (Way::SecuredBytes, SECURED)] {
        let sink = Sink::start(stage.settings.load_core)?;
        let mut pairs = Vec::new();
        for peer in stage.peers() {
            let pair = Pair::start(stage, peer, way, sink.address, 0).await?;
            through(&pair, &sink, stage).await?;
            pairs.push(pair);
        }
        for _ in 0..stage.settings.rounds {
            for pair in &pairs {
                let _flood = Flood::start(pair.entrance, stage.settings.load_core)?;
                let turn = turn(stage, &pair.ids(), || sink.bytes()).await;
                if turn.count == 0 {
                    return Err(silent(pair));
                }
                let gibibytes = turn.count as f64 / f64::from(1 << 30);
                let cpu: f64 = turn.cpu.iter().map(|cpu| cpu.as_secs_f64()).sum();
                figures.add(names[0], pair.peer, cpu / 2.0 / gibibytes);
                let rate = gibibytes / turn.elapsed.as_secs_f64();
                figures.add(names[1], pair.peer, rate);
            }
        }
    }
    Ok(figures)
}

/// Waits until bytes come through.
async fn through(pair: &Pair, sink: &Sink, stage: &Stage<'_>) -> io::Result<()> {
    let before = sink.bytes();
    let began = std::time::Instant::now();
    while sink.bytes() == before {
        if began.elapsed() > super::ours::START {
            return Err(silent(pair));
        }
        let _flood = Flood::start(pair.entrance, stage.settings.load_core)?;
        tokio::time::sleep(super::WARM_UP).await;
    }
    Ok(())
}

fn silent(pair: &Pair) -> io::Error {
    io::Error::other(format!("{} lets no bytes through", pair.peer.title()))
}

/// An application that counts what it is sent, until this is dropped.
struct Sink {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    _thread: Pinned,
}

impl Sink {
    fn start(core: usize) -> io::Result<Sink> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let bytes = Arc::new(AtomicU64::new(0));
        let count = bytes.clone();
        let thread = Pinned::run("sink", Some(core), move || async move {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            let mut tasks = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let count = count.clone();
                tasks.spawn_local(async move {
                    let mut buffer = vec![0; PIECE];
                    while let Ok(read) = stream.read(&mut buffer).await
                        && read > 0
                    {
                        count.fetch_add(read as u64, Ordering::Relaxed);
                    }
                });
            }
        })?;
        Ok(Sink {
            address,
            bytes,
            _thread: thread,
        })
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Streams that write as much as is taken, until this is dropped.
struct Flood {
    _thread: Pinned,
}

impl Flood {
    fn start(to: SocketAddr, core: usize) -> io::Result<Flood> {
        let thread = Pinned::run("flood", Some(core), move || async move {
            let mut tasks = JoinSet::new();
            for _ in 0..STREAMS {
                tasks.spawn_local(async move {
                    let piece = vec![b'x'; PIECE];
                    // Who does not listen yet is tried again by whoever started this.
                    let Ok(mut stream) = TcpStream::connect(to).await else {
                        return;
                    };
                    while stream.write_all(&piece).await.is_ok() {}
                });
            }
            while tasks.join_next().await.is_some() {}
        })?;
        Ok(Flood { _thread: thread })
    }
}
