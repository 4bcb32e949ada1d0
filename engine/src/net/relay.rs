//! Bytes both ways between two connections, untouched, until both directions have ended. A half-close travels on by
//! itself; the other direction goes on. What breaks is passed on as a reset, and so is everything that ends before both
//! directions did: nobody takes a part for the whole.
//!
//! Each direction holds at most one piece, and reads nothing before that is written: a reader that does not read holds
//! the writer up, and no memory. A direction that waits for bytes holds none at all; pieces are lent by the worker.
//! Deadlines are the caller's.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::io::AsyncWrite;

use super::stream::Stream;

/// One read takes at most this much.
const PIECE: usize = 64 * 1024;
/// Pieces that a worker keeps while nobody needs them.
const SPARE: usize = 16;
/// Pieces that a direction moves before others have their turn.
const TURN: usize = 16;

thread_local! {
    static PIECES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both directions ended properly.
    Finished,
    /// The client's connection broke.
    ClientReset,
    /// The endpoint's connection broke.
    UpstreamReset,
}

/// Two connections and what is on its way between them.
pub struct Relay {
    client: Stream,
    upstream: Stream,
    out: Flow,
    back: Flow,
    finished: bool,
}

/// One direction.
struct Flow {
    /// Read before the relay began.
    early: BytesMut,
    piece: Option<Piece>,
    /// No more will come.
    ended: bool,
    /// And the other side knows.
    shut: bool,
    moved: u64,
}

/// Read and not yet written.
struct Piece {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

/// Whose connection broke.
enum Broke {
    Source,
    Sink,
}

impl Relay {
    /// `early`: what was read from the client already.
    pub fn new(client: Stream, upstream: Stream, early: BytesMut) -> Self {
        Relay {
            client,
            upstream,
            out: Flow::beginning_with(early),
            back: Flow::beginning_with(BytesMut::new()),
            finished: false,
        }
    }

    /// Moves what can be moved.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let out = self.out.poll(&mut self.client, &mut self.upstream, cx);
        let back = self.back.poll(&mut self.upstream, &mut self.client, cx);
        Poll::Ready(match (out, back) {
            (Poll::Ready(Err(Broke::Source)), _) | (_, Poll::Ready(Err(Broke::Sink))) => {
                End::ClientReset
            }
            (Poll::Ready(Err(Broke::Sink)), _) | (_, Poll::Ready(Err(Broke::Source))) => {
                End::UpstreamReset
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                self.finished = true;
                End::Finished
            }
            _ => return Poll::Pending,
        })
    }

    /// Bytes that were written: to the upstream, and to the client.
    pub fn moved(&self) -> (u64, u64) {
        (self.out.moved, self.back.moved)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !self.finished {
            reset(&self.client);
            reset(&self.upstream);
        }
    }
}

/// From here on, dropping the connection resets it.
pub fn reset(stream: &Stream) {
    // A connection that is gone already needs no reset.
    let _gone = SockRef::from(stream.socket()).set_linger(Some(Duration::ZERO));
}

impl Flow {
    fn beginning_with(early: BytesMut) -> Self {
        Flow {
            early,
            piece: None,
            ended: false,
            shut: false,
            moved: 0,
        }
    }

    /// Ready when this direction is over.
    fn poll(
        &mut self,
        source: &mut Stream,
        sink: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broke>> {
        for _ in 0..TURN {
            if self.shut {
                return Poll::Ready(Ok(()));
            }
            if !self.early.is_empty() || self.piece.is_some() {
                ready!(self.poll_write(sink, cx)).map_err(|_| Broke::Sink)?;
                continue;
            }
            if self.ended {
                ready!(poll_shut(sink, cx)).map_err(|_| Broke::Sink)?;
                self.shut = true;
                continue;
            }
            if self
                .poll_read(source, cx)
                .map_err(|_| Broke::Source)?
                .is_pending()
            {
                // What was written must leave before more is awaited.
                return match Pin::new(&mut *sink).poll_flush(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(Err(Broke::Sink)),
                    _ => Poll::Pending,
                };
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read(&mut self, source: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = lend();
        let read = source.poll_read_into(cx, &mut bytes);
        match read {
            Poll::Ready(Ok(to @ 1..)) => {
                self.piece = Some(Piece { bytes, from: 0, to });
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Ok(0)) => self.ended = true,
            _ => {}
        }
        give_back(bytes);
        read.map_ok(drop)
    }

    fn poll_write(&mut self, sink: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut write = |bytes: &[u8]| {
            let count = ready!(Pin::new(&mut *sink).poll_write(cx, bytes))?;
            if count == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero)));
            }
            Poll::Ready(Ok(count))
        };
        if !self.early.is_empty() {
            let count = ready!(write(&self.early))?;
            self.early.advance(count);
            if self.early.is_empty() {
                self.early = BytesMut::new();
            }
            self.moved += count as u64;
            return Poll::Ready(Ok(()));
        }
        let Some(piece) = &mut self.piece else {
            return Poll::Ready(Ok(()));
        };
        let count = ready!(write(
            piece.bytes.get(piece.from..piece.to).unwrap_or_default()
        ))?;
        piece.from += count;
        self.moved += count as u64;
        if piece.from >= piece.to
            && let Some(piece) = self.piece.take()
        {
            give_back(piece.bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if let Some(piece) = self.piece.take() {
            give_back(piece.bytes);
        }
    }
}

/// Passes a half-close on.
fn poll_shut(sink: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    match ready!(Pin::new(sink).poll_shutdown(cx)) {
        // The other side was quicker; the direction is over all the same.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
        result => Poll::Ready(result),
    }
}

fn lend() -> Box<[u8]> {
    let spare = PIECES.with_borrow_mut(Vec::pop);
    spare.unwrap_or_else(|| vec![0; PIECE].into_boxed_slice())
}

fn give_back(bytes: Box<[u8]>) {
    // Where the thread's own memory is gone already, the piece goes, too.
    let _ending = PIECES.try_with(|pieces| {
        let mut pieces = pieces.borrow_mut();
        if pieces.len() < SPARE {
            pieces.push(bytes);
        }
    });
}
