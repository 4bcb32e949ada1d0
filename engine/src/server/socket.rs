//! A socket becomes a `Connection`: TLS if the listener has it, then one of the two protocols, by ALPN or, in clear
//! text, by the first bytes.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tollgate_config::ListenerProtocol;

use super::door::{Door, Guest};
use super::http1::{self, Limits};
use super::http2;
use crate::alarm::Alarm;
use crate::net::stream::Stream;
use crate::proxy::{Connection, Proxy};
use crate::snapshot::ListenerPlan;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one accepted socket until it is done. `number` is unique in this worker.
pub async fn serve(
    proxy: Rc<Proxy>,
    door: Rc<Door>,
    socket: TcpStream,
    peer: SocketAddr,
    number: u64,
) {
    // Each step in a box of its own: a connection that waits holds the memory of its waiting and no more.
    let meeting = Box::pin(meet(&proxy, &door, socket, peer, number));
    let Some(known) = meeting.await else { return };
    let Known {
        connection,
        guest,
        stream,
        read,
        limits,
        is_http2,
    } = known;
    if is_http2 {
        Box::pin(http2::serve(proxy, connection, guest, stream, read, limits)).await;
    } else {
        let (for_limits, door) = (proxy.clone(), door);
        let current = move || plan(&for_limits, &door).map(|plan| self::limits(&plan));
        Box::pin(http1::serve(
            proxy, connection, guest, stream, read, current,
        ))
        .await;
    }
}

/// TLS if the listener has it, then the protocol; `None` when nothing came of it.
async fn meet(
    proxy: &Rc<Proxy>,
    door: &Rc<Door>,
    socket: TcpStream,
    peer: SocketAddr,
    number: u64,
) -> Option<Known> {
    let plan = plan(proxy, door)?;
    let guest = door.enter(number);
    let limits = limits(&plan);
    let (mut sni, mut identity, mut alpn_http2) = (None, None, None);
    let stream = match &plan.tls {
        None => Stream::Plain(socket),
        Some(tls) => {
            let alarm = Alarm::default();
            let accepting =
                Box::pin(tokio_rustls::TlsAcceptor::from(tls.config().clone()).accept(socket));
            let by = Instant::now() + limits.header_timeout;
            let Ok(Ok(stream)) = alarm.until(Some(by), accepting).await else {
                proxy
                    .metrics
                    .listener(&door.name)
                    .handshake_failed(proxy.worker);
                return None;
            };
            let session = stream.get_ref().1;
            sni = session.server_name().map(str::to_owned);
            // A ticket may outlive the certificate that earned it.
            identity = match tls.peer(session, rustls_pki_types::UnixTime::now()) {
                Ok(identity) => identity,
                Err(_) => {
                    proxy
                        .metrics
                        .listener(&door.name)
                        .handshake_failed(proxy.worker);
                    return None;
                }
            };
            alpn_http2 = Some(session.alpn_protocol() == Some(b"h2"));
            Stream::Server(Box::new(stream))
        }
    };
    let connection = Rc::new(Connection {
        number,
        listener: door.index,
        listener_name: door.name.clone(),
        peer,
        peer_text: peer.ip().to_canonical().to_string(),
        scheme: if plan.tls.is_some() { "https" } else { "http" },
        sni,
        identity,
    });
    let protocol = plan.item.protocol;
    drop(plan);
    let (stream, read, is_http2) = match (protocol, alpn_http2) {
        (ListenerProtocol::Http1, _) => (stream, BytesMut::new(), false),
        (ListenerProtocol::Http2, _) | (_, Some(true)) => (stream, BytesMut::new(), true),
        (ListenerProtocol::Auto, Some(false)) => (stream, BytesMut::new(), false),
        (ListenerProtocol::Auto, None) => detect(stream, &guest, limits).await?,
    };
    Some(Known {
        connection,
        guest,
        stream,
        read,
        limits,
        is_http2,
    })
}

/// A connection whose protocol is known.
struct Known {
    connection: Rc<Connection>,
    guest: Guest,
    stream: Stream,
    read: BytesMut,
    limits: Limits,
    is_http2: bool,
}

fn plan(proxy: &Proxy, door: &Door) -> Option<Arc<ListenerPlan>> {
    proxy.view.current().listener(door.index).cloned()
}

fn limits(plan: &ListenerPlan) -> Limits {
    Limits {
        header_timeout: plan.item.header_timeout.value,
        idle_timeout: plan.item.idle_timeout.value,
        max_header_size: usize::try_from(plan.item.max_header_size.value).unwrap_or(usize::MAX),
    }
}

/// Reads until the first bytes are, or cannot be, the HTTP/2 preface. A client that says nothing is let go after the
/// header time-out.
async fn detect(
    mut stream: Stream,
    guest: &Guest,
    limits: Limits,
) -> Option<(Stream, BytesMut, bool)> {
    let alarm = Alarm::default();
    let by = Instant::now() + limits.header_timeout;
    let (since, leaving) = (Instant::now(), Alarm::default());
    let mut read = BytesMut::new();
    let mut first = [0u8; 2048];
    loop {
        let reading = poll_fn(|cx| {
            if let Poll::Ready(count) = stream.poll_read_into(cx, &mut first) {
                return Poll::Ready(count.ok());
            }
            if guest.is_leaving(cx) {
                // It was accepted: its first bytes may be on their way.
                return leaving.poll_at(since + http1::GRACE, cx).map(|()| None);
            }
            Poll::Pending
        });
        let count = alarm.until(Some(by), pin!(reading)).await.ok()??;
        if count == 0 {
            return None;
        }
        read.extend_from_slice(first.get(..count)?);
        let known = read.len().min(PREFACE.len());
        if read.get(..known) != PREFACE.get(..known) {
            return Some((stream, read, false));
        }
        if known == PREFACE.len() {
            return Some((stream, read, true));
        }
    }
}
