//! An accepted socket is secured as its listener wants it: by TLS, by mutual TLS with a member of the mesh, or, where both
//! come to one port, by what the first byte says. Nothing here knows what is spoken afterwards but by ALPN.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tollgate_config::identity::SpiffeId;
use tollgate_config::{ListenerProtocol, Mesh};

use super::detect::Speech;
use super::door::Guest;
use super::http1::{self, Limits};
use super::linger;
use crate::alarm::Alarm;
use crate::net::stream::Stream;
use crate::net::tls::{BYTES, MemberTls, Reason, Refusal, Side};
use crate::proxy::Proxy;
use crate::snapshot::ListenerPlan;
use crate::telemetry::log;

/// A connection whose TLS, if it has one, is complete.
pub(super) struct Secured {
    pub(super) stream: Stream,
    pub(super) sni: Option<Box<str>>,
    pub(super) caller: Option<SpiffeId>,
    /// What ALPN chose; `None`: the first bytes tell.
    pub(super) speech: Option<Speech>,
}

impl Secured {
    fn plain(socket: TcpStream) -> Self {
        Secured {
            stream: Stream::Plain(socket),
            sni: None,
            caller: None,
            speech: None,
        }
    }
}

/// Shakes hands as the listener wants it; `None` when nothing came of it.
pub(super) async fn secure(
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
        return match Box::pin(meet_member(mesh, plan, guest, socket, by)).await {
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
        speech: speech(session.alpn_protocol(), plan.item.protocol),
        stream: Stream::Server(Box::new(stream)),
    })
}

/// Mutual TLS with a member of the mesh (MESH-302).
async fn meet_member(
    mesh: &MemberTls,
    plan: &ListenerPlan,
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
        speech: speech(session.alpn_protocol(), plan.item.protocol),
        stream: Stream::Server(Box::new(stream)),
    })
}

/// What follows, by ALPN.
fn speech(alpn: Option<&[u8]>, protocol: ListenerProtocol) -> Option<Speech> {
    match alpn {
        Some(b"h2") => Some(Speech::Http2),
        Some(BYTES) => Some(Speech::Bytes),
        Some(_) => Some(Speech::Http1),
        // Whoever names nothing speaks HTTP/1.1, where there is nothing else.
        None if protocol == ListenerProtocol::Detect => None,
        None => Some(Speech::Http1),
    }
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
