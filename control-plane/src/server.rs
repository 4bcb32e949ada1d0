//! Sockets to requests: accepts, bounds, serves HTTP/1.1 and HTTP/2, in clear text or under TLS, and drains. Knows no page.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tollgate_config::control_plane::Server as Settings;
use tollgate_engine::drain::{DrainReport, Ledger};
use tollgate_engine::net::tls::ServerTls;
use tollgate_engine::telemetry::log::Repeated;

use crate::api::{Api, Peer};
use crate::feed::HangUp;

/// Streams of one HTTP/2 connection.
const STREAMS: u32 = 256;
/// How often a silent HTTP/2 peer is asked whether it lives.
const PING: Duration = Duration::from_secs(30);

/// Serves until `stop` is true, then lets finish what is in flight for the drain time, and cuts the rest.
pub(crate) async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    settings: &Settings,
    tls: Option<watch::Receiver<ServerTls>>,
    mut stop: watch::Receiver<bool>,
) -> DrainReport {
    static NOT_ACCEPTED: Repeated = Repeated::new();
    let router = api.clone().router();
    let ledger = Arc::new(Ledger::default());
    let room = Arc::new(Semaphore::new(settings.max_connections));
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        // Who finds no room waits in the kernel's queue.
        let accepted = tokio::select! {
            biased;
            () = stopping(&mut stop) => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let (socket, peer, place) = match accepted {
            Ok((socket, peer, place)) => (socket, peer, place),
            Err(error) => {
                // Want of descriptors passes (HI-70); a connection that died in the queue is nobody's loss.
                NOT_ACCEPTED.warn("a connection cannot be accepted", &[("reason", &error)]);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        ledger.accepted();
        let api = api.clone();
        let router = router.clone();
        let idle = settings.idle_timeout;
        let stop = stop.clone();
        let ledger = ledger.clone();
        let tls = tls.as_ref().map(|tls| tls.borrow().clone());
        open.spawn(async move {
            api.connections.fetch_add(1, Relaxed);
            let peer = Peer::of(peer);
            match tls {
                None => connection(socket, peer, router, idle, stop).await,
                Some(tls) => {
                    if let Some(socket) = crate::tls::accept(&tls, socket).await {
                        connection(socket, peer, router, idle, stop).await;
                    }
                }
            }
            api.connections.fetch_sub(1, Relaxed);
            ledger.finished();
            drop(place);
        });
    }
    drop(listener);
    let began = Instant::now();
    let all = async { while open.join_next().await.is_some() {} };
    let finished = tokio::time::timeout(settings.drain, all).await;
    let longest = began.elapsed();
    if finished.is_err() {
        let left = open.len() as u64;
        ledger.cut(left);
        open.shutdown().await;
        // They have ended, too; the report takes those that were cut off again.
        (0..left).for_each(|_| ledger.finished());
    }
    ledger.report(longest)
}

type Accepted = (
    TcpStream,
    std::net::SocketAddr,
    tokio::sync::OwnedSemaphorePermit,
);

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> io::Result<Accepted> {
    let place = { room.clone() }
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (socket, peer) = listener.accept().await?;
    // Answers are small, and somebody waits for each.
    socket.set_nodelay(true)?;
    Ok((socket, peer, place))
}

/// One connection until its end. When the process stops it finishes the requests that it has begun.
async fn connection(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    idle: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let hang_up = HangUp::default();
    let hung_up = hang_up.0.clone();
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(hang_up.clone());
        let mut router = router.clone();
        async move {
            // A router is always ready.
            Ok::<_, Infallible>(call(&mut router, request).await)
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Runs while the next request is waited for, so it is the idle time, too.
        .header_read_timeout(idle)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let served = builder.serve_connection(TokioIo::new(socket), service);
    let mut served = std::pin::pin!(served);
    // A peer that hangs up or talks nonsense is nobody's problem.
    tokio::select! {
        ended = served.as_mut() => drop(ended),
        // A feed that nobody reads: what waits for the peer is dropped with the connection.
        () = hung_up.notified() => {}
        () = stopping(&mut stop) => {
            served.as_mut().graceful_shutdown();
            drop(served.await);
        }
    }
}

/// Waits until the process stops.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

async fn call(router: &mut Router, request: axum::extract::Request) -> axum::response::Response {
    use tower_service::Service as _;
    match router.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
