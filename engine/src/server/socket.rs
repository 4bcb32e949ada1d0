//! A socket becomes a `Connection`: TLS if the listener has it, then one of the two protocols, or bytes that are neither, by
//! ALPN or by the first of them.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::net::TcpStream;
use tollgate_config::ListenerProtocol;

use super::detect::{self, Speech};
use super::door::Guest;
use super::http1::{self, Limits};
use super::secure::{Secured, secure};
use super::{http2, relay};
use crate::alarm::Alarm;
use crate::net::original;
use crate::net::relay::reset;
use crate::net::stream::Stream;
use crate::proxy::{Connection, Proxy};
use crate::telemetry::log;

/// Serves one accepted socket until it is done.
pub fn serve(proxy: Rc<Proxy>, guest: Guest, socket: TcpStream, peer: SocketAddr) -> Phase {
    Phase(Box::pin(meet(proxy, guest, socket, peer)))
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
async fn meet(
    proxy: Rc<Proxy>,
    guest: Guest,
    socket: TcpStream,
    peer: SocketAddr,
) -> Option<Phase> {
    let door = &guest.door;
    let plan = proxy.view.current().listener(door.index).cloned()?;
    let limits = Limits::of(&plan);
    let mut original = None;
    if *plan.item.capture {
        original = original::destination(&socket);
        if goes_round(original, &socket, peer, &door.name) {
            reset(&Stream::Plain(socket));
            return None;
        }
    }
    let Secured {
        mut stream,
        sni,
        caller,
        speech,
    } = secure(&proxy, &guest, &plan, socket, peer.ip(), limits).await?;
    let connection = Rc::new(Connection {
        number: guest.number,
        listener: door.index,
        listener_name: door.name.clone(),
        peer: peer.ip(),
        peer_text: peer.ip().to_canonical().to_string().into(),
        is_tls: stream.is_tls(),
        sni,
        original,
        caller,
    });
    let (protocol, silence) = (plan.item.protocol, plan.item.detect_timeout.value);
    drop(plan);
    let known = |speech| (speech, BytesMut::new());
    let (speech, read) = match (protocol, speech) {
        (ListenerProtocol::Tcp, _) => known(Speech::Bytes),
        (ListenerProtocol::Http1, _) => known(Speech::Http1),
        (ListenerProtocol::Http2, _) => known(Speech::Http2),
        (_, Some(speech)) => known(speech),
        (ListenerProtocol::Auto, None) => listen(&mut stream, &guest, limits, None).await?,
        (ListenerProtocol::Detect, None) => {
            listen(&mut stream, &guest, limits, Some(silence)).await?
        }
    };
    Some(match speech {
        Speech::Bytes => Phase::last(relay::serve(proxy, connection, guest, stream, read)),
        Speech::Http2 => Phase::last(http2::serve(proxy, connection, guest, stream, read, limits)),
        Speech::Http1 | Speech::Unclear => {
            Phase::last(http1::serve(proxy, connection, guest, stream, read))
        }
    })
}

/// Whether a captured connection would come back here, again and again. Said once in a while: there will be many.
fn goes_round(
    original: Option<SocketAddr>,
    socket: &TcpStream,
    peer: SocketAddr,
    listener: &str,
) -> bool {
    let why = match original {
        Some(destination) if original::comes_back(destination, socket) => {
            "its original destination is this listener; exclude the listener's port from what is redirected"
        }
        Some(_) if original::is_own(peer) => {
            "it is one of our own; what this process dials must not be redirected: exclude the user that it runs as"
        }
        _ => return false,
    };
    if original::may_tell(Instant::now()) {
        let peer = peer.to_string();
        log::error(
            "a redirected connection is refused, for it would go round in circles",
            &[("listener", &listener), ("client", &peer), ("why", &why)],
        );
    }
    true
}

/// Reads until the first bytes say what follows. With `silence`, that may be no HTTP, and a client that says nothing for
/// so long waits for the server to begin; else it is let go after the header time-out.
async fn listen(
    stream: &mut Stream,
    guest: &Guest,
    limits: Limits,
    silence: Option<Duration>,
) -> Option<(Speech, BytesMut)> {
    let judge = if silence.is_some() {
        detect::anything
    } else {
        detect::version
    };
    let alarm = Alarm::default();
    let (since, leaving) = (Instant::now(), Alarm::default());
    let late = since + limits.header_timeout;
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
        let by = match silence {
            Some(silence) if read.is_empty() => since + silence,
            _ => late,
        };
        let count = match (alarm.until(Some(by), pin!(reading)).await, silence) {
            (Ok(count), _) => count?,
            (Err(_), Some(_)) if read.is_empty() => return Some((Speech::Bytes, read)),
            // What looks like HTTP is held to its rules.
            (Err(_), Some(_)) => return Some((Speech::Http1, read)),
            (Err(_), None) => return None,
        };
        if count == 0 {
            // That a client has no more to say does not mean that it has nothing to hear.
            return silence.map(|_| (Speech::Bytes, read));
        }
        read.extend_from_slice(first.get(..count)?);
        let speech = judge(&read);
        if speech != Speech::Unclear {
            return Some((speech, read));
        }
    }
}
