//! HTTP/2 as the generator speaks it: the h2 crate, some streams at once on each connection, windows wide enough that
//! flow control on this side is never what is measured.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Shared;
use crate::summary::Failure;

/// A TLS session on the connection.
pub(super) async fn secured(
    connector: &TlsConnector,
    stream: TcpStream,
    host: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    connector.connect(name, stream).await
}

/// Keeps the streams of one connection busy until the run is over, on a new connection when the old one ends.
pub(super) async fn connection(shared: Rc<Shared>, number: usize, streams: usize) {
    let scheme = if shared.plan.tls { "https" } else { "http" };
    let mut made = Vec::new();
    for path in &shared.plan.paths {
        let mut request = Request::builder().uri(format!("{scheme}://{}{path}", shared.plan.host));
        for (name, value) in &shared.plan.headers {
            request = request.header(name, value);
        }
        match request.body(()) {
            Ok(request) => made.push(request),
            Err(error) => return eprintln!("cannot ask for {path}: {error}"),
        }
    }
    let made = Rc::new(made);
    let mut first = true;
    while !shared.live.stop.load(std::sync::atomic::Ordering::Relaxed) {
        if !std::mem::take(&mut first) {
            shared.recorder.borrow_mut().reconnected();
        }
        let Ok(send) = connect(&shared).await else {
            shared.failed(Failure::Connect);
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let mut tasks = JoinSet::new();
        for stream in 0..streams {
            tasks.spawn_local(requests(
                shared.clone(),
                send.clone(),
                made.clone(),
                number * streams + stream,
            ));
        }
        drop(send);
        let mut ended = true;
        while let Some(task) = tasks.join_next().await {
            // A stream that got no more tickets says that the run is over; otherwise the connection is.
            ended &= task.unwrap_or(true);
        }
        if ended {
            return;
        }
    }
}

async fn connect(shared: &Shared) -> io::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(shared.plan.to).await?;
    stream.set_nodelay(true)?;
    match &shared.connector {
        None => handshake(stream).await,
        Some(connector) => handshake(secured(connector, stream, &shared.plan.host).await?).await,
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
) -> io::Result<SendRequest<Bytes>> {
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(2 << 20)
        .initial_connection_window_size(64 << 20)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    // Ends when the last `SendRequest` is dropped or the server closes; the streams hear of errors themselves.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(send)
}

/// One stream after the other. True when the run is over, false when the connection is.
async fn requests(
    shared: Rc<Shared>,
    send: SendRequest<Bytes>,
    made: Rc<Vec<Request<()>>>,
    mut next: usize,
) -> bool {
    loop {
        // Ready first: a ticket taken on a connection that is going away would be a failure of nobody's.
        let Ok(mut ready) = send.clone().ready().await else {
            return false;
        };
        let Some(ticket) = shared.next().await else {
            return true;
        };
        let request = made[next % made.len()].clone();
        next += 1;
        match exchange(&mut ready, request).await {
            Ok((status, body)) => shared.answered(status, body, ticket.from.elapsed()),
            Err(error) if error.is_reset() => shared.failed(Failure::Reset),
            Err(_) => {
                shared.failed(Failure::Closed);
                return false;
            }
        }
    }
}

async fn exchange(
    send: &mut SendRequest<Bytes>,
    request: Request<()>,
) -> Result<(u16, usize), h2::Error> {
    let (response, _) = send.send_request(request, true)?;
    let response = response.await?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        length += data.len();
        body.flow_control().release_capacity(data.len())?;
    }
    Ok((status, length))
}
