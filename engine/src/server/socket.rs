//! A socket becomes a `Connection`: TLS if the listener has it, then one of the two protocols, by ALPN or, in clear
//! text, by the first bytes.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::net::TcpStream;
use tollgate_config::ListenerProtocol;

use super::door::Guest;
use super::http1::{self, Limits};
use super::http2;
use crate::alarm::Alarm;
use crate::net::stream::Stream;
use crate::proxy::{Connection, Proxy};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one accepted socket until it is done.
pub fn serve(proxy: Rc<Proxy>, guest: Guest, socket: TcpStream, peer: SocketAddr) -> Phase {
    Phase(Box::pin(meet(proxy, guest, socket, peer.ip())))
}

/// What a connection does now, in a box of its own; it ends with what comes next. A connection that waits holds the
/// memory of its waiting and no more.
pub struct Phase(Pin<Box<dyn Future<Output = Option<Phase>>>>);

impl Phase {
    /// After this one comes none.
    fn last(future: impl Future<Output = ()> + 'static) -> Self {
        // Not an async block, which would hold the future twice: once given, once awaited.
        Phase(Box::pin(future.map(|()| None)))
    }
}

impl Future for Phase {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(next) = ready!(self.0.as_mut().poll(cx)) {
            *self = next;
        }
        Poll::Ready(())
    }
}

/// TLS if the listener has it, then the protocol; `None` when nothing came of it.
async fn meet(proxy: Rc<Proxy>, guest: Guest, socket: TcpStream, peer: IpAddr) -> Option<Phase> {
    let door = &guest.door;
    let plan = proxy.view.current().listener(door.index).cloned()?;
    let limits = Limits::of(&plan);
    let (mut sni, mut alpn_http2) = (None, None);
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
            sni = session.server_name().map(Into::into);
            // A ticket may outlive the certificate that earned it.
            if tls
                .peer(session, rustls_pki_types::UnixTime::now())
                .is_err()
            {
                proxy
                    .metrics
                    .listener(&door.name)
                    .handshake_failed(proxy.worker);
                return None;
            }
            alpn_http2 = Some(session.alpn_protocol() == Some(b"h2"));
            Stream::Server(Box::new(stream))
        }
    };
    let connection = Rc::new(Connection {
        number: guest.number,
        listener: door.index,
        listener_name: door.name.clone(),
        peer,
        peer_text: peer.to_canonical().to_string().into(),
        is_tls: plan.tls.is_some(),
        sni,
        caller: None,
    });
    let protocol = plan.item.protocol;
    drop(plan);
    let (stream, read, is_http2) = match (protocol, alpn_http2) {
        (ListenerProtocol::Http1, _) => (stream, BytesMut::new(), false),
        (ListenerProtocol::Http2, _) | (_, Some(true)) => (stream, BytesMut::new(), true),
        (ListenerProtocol::Auto, Some(false)) => (stream, BytesMut::new(), false),
        (ListenerProtocol::Auto, None) => detect(stream, &guest, limits).await?,
    };
    Some(if is_http2 {
        Phase::last(http2::serve(proxy, connection, guest, stream, read, limits))
    } else {
        Phase::last(http1::serve(proxy, connection, guest, stream, read))
    })
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
