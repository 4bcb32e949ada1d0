//! After the switch: bytes both ways, untouched, until both directions have ended or neither has moved for the route's
//! idle time-out. A half-close travels on by itself; the other direction goes on.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::AsyncWrite;

use super::answer::Answer;
use crate::exchange::Request;
use crate::exchange::error::{Code, Error};
use crate::http1::Wire;
use crate::http1::wire::SharedWire;
use crate::upstream::pool::Place;

/// One end of a tunnel.
pub enum End {
    Wire(SharedWire),
    Stream {
        receive: RecvStream,
        send: SendStream<Bytes>,
        /// Its place on the endpoint's connection; it counts there while it is held.
        place: Option<Place>,
    },
}

/// To extended CONNECT any good answer means that the switch was made: one that is a page is no answer to it, while over
/// HTTP/1 it is a polite refusal.
pub(super) fn agreed(request: &Request, answer: Answer) -> Result<Answer, Error> {
    let extended = request.is_http2 && request.upgrade.is_some();
    if !extended || answer.tunnel.is_some() || !answer.response.status.is_success() {
        return Ok(answer);
    }
    let cause = format!(
        "it was answered {}, without a switch",
        answer.response.status
    );
    Err(Error::because(Code::UpgradeRefused, cause))
}

/// One direction's state.
#[derive(Default)]
struct Flow {
    piece: Bytes,
    ended: bool,
    shut: bool,
}

/// Runs until both sides are done. The answer's books stay open for as long.
pub async fn run(mut client: End, mut upstream: End, mut answer: Answer) {
    let idle = answer.idle();
    let (mut out, mut back) = (Flow::default(), Flow::default());
    let mut moved = Instant::now();
    let done = poll_fn(|cx| {
        let mut any = false;
        let there = step(&mut client, &mut upstream, &mut out, &mut any, cx);
        let here = step(&mut upstream, &mut client, &mut back, &mut any, cx);
        if any {
            moved = Instant::now();
        }
        match (there, here) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(None),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(None),
            // Who has said all may leave without another word.
            (Poll::Pending, Poll::Ready(Ok(()))) if upstream.is_gone(cx) => Poll::Ready(None),
            (Poll::Ready(Ok(())), Poll::Pending) if client.is_gone(cx) => Poll::Ready(None),
            _ => match (idle, answer.exchange()) {
                (Some(idle), Some(exchange)) => exchange
                    .alarm
                    .poll_at(moved + idle, cx)
                    .map(|()| Some(Code::IdleTimeout)),
                _ => Poll::Pending,
            },
        }
    })
    .await;
    match done {
        Some(code) => {
            answer.abandoned(code);
            drop(answer);
        }
        None => answer.finish(),
    }
}

/// Moves what can be moved from one end to the other; ready when this direction is over.
fn step(
    from: &mut End,
    to: &mut End,
    flow: &mut Flow,
    any: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    loop {
        if flow.shut {
            return Poll::Ready(Ok(()));
        }
        if !flow.piece.is_empty() {
            ready!(to.poll_write(&mut flow.piece, cx))?;
            *any = true;
        } else if flow.ended {
            ready!(to.poll_shut(cx))?;
            flow.shut = true;
        } else {
            // What was written must leave before more is awaited.
            let piece = from.poll_piece(cx);
            if piece.is_pending() {
                ready!(to.poll_flush(cx))?;
            }
            match ready!(piece)? {
                Some(piece) => flow.piece = piece,
                None => flow.ended = true,
            }
            *any = true;
        }
    }
}

impl End {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        match self {
            End::Wire(wire) => {
                let mut wire = wire.borrow_mut();
                if wire.read.is_empty() && ready!(wire.poll_fill(cx))? == 0 {
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(Ok(Some(wire.read.split().freeze())))
            }
            End::Stream { receive, .. } => match ready!(receive.poll_data(cx)) {
                Some(Ok(data)) => {
                    let _closed_streams_need_no_window =
                        receive.flow_control().release_capacity(data.len());
                    Poll::Ready(Ok(Some(data)))
                }
                Some(Err(error)) => Poll::Ready(Err(io::Error::other(error))),
                None => Poll::Ready(Ok(None)),
            },
        }
    }

    /// Writes some of the piece.
    fn poll_write(&mut self, piece: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            End::Wire(wire) => {
                let wire: &mut Wire = &mut wire.borrow_mut();
                let count = ready!(Pin::new(&mut wire.stream).poll_write(cx, piece))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                piece.advance(count);
                Poll::Ready(Ok(()))
            }
            End::Stream { send, .. } => {
                send.reserve_capacity(piece.len());
                let capacity = match send.capacity() {
                    0 => match ready!(send.poll_capacity(cx)) {
                        Some(Ok(capacity)) => capacity,
                        Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                        None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                    },
                    capacity => capacity,
                };
                let part = piece.split_to(capacity.min(piece.len()));
                Poll::Ready(send.send_data(part, false).map_err(io::Error::other))
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            End::Wire(wire) => Pin::new(&mut wire.borrow_mut().stream).poll_flush(cx),
            End::Stream { .. } => Poll::Ready(Ok(())),
        }
    }

    /// Whether a stream that still takes bytes was reset, or its connection ended.
    fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            End::Wire(_) => false,
            End::Stream { send, .. } => send.poll_reset(cx).is_ready(),
        }
    }

    /// Passes a half-close on.
    fn poll_shut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            End::Wire(wire) => {
                match ready!(Pin::new(&mut wire.borrow_mut().stream).poll_shutdown(cx)) {
                    // The other side was quicker; the direction is over all the same.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                        Poll::Ready(Ok(()))
                    }
                    result => Poll::Ready(result),
                }
            }
            End::Stream { send, .. } => {
                Poll::Ready(send.send_data(Bytes::new(), true).map_err(io::Error::other))
            }
        }
    }
}
