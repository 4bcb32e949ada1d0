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
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tollgate_config::identity::SpiffeId;
use tollgate_config::{ListenerProtocol, Mesh};

use super::door::Guest;
use super::http1::{self, Limits};
use super::http2;
use super::linger;
use crate::alarm::Alarm;
use crate::net::stream::Stream;
use crate::net::tls::{MemberTls, Reason, Refusal, Side};
use crate::proxy::{Connection, Proxy};
use crate::snapshot::ListenerPlan;
use crate::telemetry::log;

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
    let Secured {
        stream,
        sni,
        caller,
        alpn_http2,
    } = secure(&proxy, &guest, &plan, socket, peer, limits).await?;
    let connection = Rc::new(Connection {
        number: guest.number,
        listener: door.index,
        listener_name: door.name.clone(),
        peer,
        peer_text: peer.to_canonical().to_string().into(),
        is_tls: stream.is_tls(),
        sni,
        caller,
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

/// A connection whose TLS, if it has one, is complete.
struct Secured {
    stream: Stream,
    sni: Option<Box<str>>,
    caller: Option<SpiffeId>,
    /// `None`: without TLS there is no ALPN.
    alpn_http2: Option<bool>,
}

impl Secured {
    fn plain(socket: TcpStream) -> Self {
        Secured {
            stream: Stream::Plain(socket),
            sni: None,
            caller: None,
            alpn_http2: None,
        }
    }
}

/// Shakes hands as the listener wants it; `None` when nothing came of it.
async fn secure(
    proxy: &Proxy,
    guest: &Guest,
    plan: &ListenerPlan,
    socket: TcpStream,
    peer: IpAddr,
    limits: Limits,
) -> Option<Secured> {
    let by = Instant::now() + limits.header_timeout;
    let failed = || {
        let series = proxy.metrics.listener(&guest.door.name);
        series.handshake_failed(proxy.worker);
    };
    if let Some(mesh) = &plan.mesh {
        let begins_tls = match mesh.mode {
            Mesh::Permissive => speaks_tls(&socket, guest, by).await?,
            _ => true,
        };
        if !begins_tls {
            return Some(Secured::plain(socket));
        }
        return match Box::pin(meet_member(mesh, guest, socket, by)).await {
            Ok(secured) => Some(secured),
            Err((refusal, socket)) => {
                failed();
                let refusal = mesh.member.refuse(Side::Server, refusal);
                static REFUSED: log::Repeated = log::Repeated::new();
                REFUSED.warn(
                    "a connection was refused: it is not from a member of the mesh",
                    &[
                        ("listener", &guest.door.name),
                        ("peer", &peer),
                        ("reason", &refusal.reason.word()),
                        ("why", &refusal),
                    ],
                );
                if let Some(socket) = socket {
                    last_word(socket).await;
                }
                None
            }
        };
    }
    let Some(tls) = &plan.tls else {
        return Some(Secured::plain(socket));
    };
    let alarm = Alarm::default();
    let accepting = Box::pin(TlsAcceptor::from(tls.config().clone()).accept(socket));
    let Ok(Ok(stream)) = alarm.until(Some(by), accepting).await else {
        failed();
        return None;
    };
    let session = stream.get_ref().1;
    // A ticket may outlive the certificate that earned it.
    if tls
        .peer(session, rustls_pki_types::UnixTime::now())
        .is_err()
    {
        failed();
        return None;
    }
    Some(Secured {
        sni: session.server_name().map(Into::into),
        caller: None,
        alpn_http2: Some(session.alpn_protocol() == Some(b"h2")),
        stream: Stream::Server(Box::new(stream)),
    })
}

/// Mutual TLS with a member of the mesh (MESH-302).
async fn meet_member(
    mesh: &MemberTls,
    guest: &Guest,
    socket: TcpStream,
    by: Instant,
) -> Result<Secured, (Refusal, Option<TcpStream>)> {
    if let Some(refusal) = mesh.member.lacks() {
        return Err((refusal, None));
    }
    let alarm = Alarm::default();
    let accepting = TlsAcceptor::from(mesh.config().clone()).accept(socket);
    let accepting = Box::pin(accepting.into_fallible());
    let accepted = alarm.until(Some(by), accepting).await;
    let late = |_| {
        (
            Refusal::new(Reason::TimedOut, "its handshake took too long"),
            None,
        )
    };
    let broken = |(error, socket)| (Refusal::of(&error), Some(socket));
    let stream = { accepted.map_err(late)? }.map_err(broken)?;
    let session = stream.get_ref().1;
    let peer =
        { mesh.member.peer(session.peer_certificates()) }.map_err(|refusal| (refusal, None))?;
    let caller = Some(peer.id.clone());
    guest.is_member(peer);
    Ok(Secured {
        sni: None,
        caller,
        alpn_http2: Some(session.alpn_protocol() == Some(b"h2")),
        stream: Stream::Server(Box::new(stream)),
    })
}

/// Lets the other side read why it was refused.
async fn last_word(mut socket: TcpStream) {
    let (alarm, mut dropped) = (Alarm::default(), 0);
    let by = Instant::now() + linger::TIME;
    let lingering = poll_fn(|cx| linger::poll(&mut socket, &mut dropped, cx));
    let _in_time_or_not = alarm.until(Some(by), pin!(lingering)).await;
}

/// The first byte of a TLS handshake; no protocol in clear text begins with it.
const HANDSHAKE: u8 = 22;

/// Looks at the first byte without taking it; `None` when there will be none.
async fn speaks_tls(socket: &TcpStream, guest: &Guest, by: Instant) -> Option<bool> {
    let (alarm, since, leaving) = (Alarm::default(), Instant::now(), Alarm::default());
    let mut first = [0u8; 1];
    let looking = poll_fn(|cx| {
        let mut seen = ReadBuf::new(&mut first);
        if let Poll::Ready(looked) = socket.poll_peek(cx, &mut seen) {
            return Poll::Ready(looked.ok().and_then(|_| seen.filled().first().copied()));
        }
        if guest.is_leaving(cx) {
            return leaving.poll_at(since + http1::GRACE, cx).map(|()| None);
        }
        Poll::Pending
    });
    let first = alarm.until(Some(by), pin!(looking)).await.ok()??;
    Some(first == HANDSHAKE)
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
