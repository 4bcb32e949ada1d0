//! A socket that speaks HTTP/1: bytes read ahead, bytes still to be written, and how much of the current message's
//! body is left. A client's connection and an endpoint's connection are both a `Wire`; who reads heads from it decides
//! what it is.
//!
//! An idle wire holds no buffer at all: reads go through a scratch area of the worker, writes through a spare vector
//! that is given back when it is empty.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::chunked::{Chunked, Item};
use super::head::{self, Framing};
use crate::exchange::body::BodyError;
use crate::exchange::error::Code;
use crate::net::stream::Stream;
use crate::net::tls::Peer;

/// One read takes at most this much; also the largest piece of a body in memory at a time.
const READ: usize = 64 * 1024;
/// A body of which at least this much is still expected is read straight into its own memory.
const DIRECT: u64 = 16 * 1024;

/// What the first read of a message takes; larger bodies go on with larger reads.
const FIRST: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; FIRST].into_boxed_slice());
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// How much of the message being read is still to come.
#[derive(Debug)]
pub enum Remaining {
    Nothing,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    /// The framing broke: nothing more can be read from this connection.
    Broken,
}

impl From<Framing> for Remaining {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Remaining::Nothing,
            Framing::Length(length) => Remaining::Length(length),
            Framing::Chunked => Remaining::Chunked(Chunked::default()),
            Framing::Close => Remaining::UntilClose,
        }
    }
}

pub struct Wire {
    pub stream: Stream,
    /// Read and not yet used.
    pub read: BytesMut,
    /// How far `read` was searched for the end of a head.
    searched: usize,
    /// The one empty line that may stand before a head went by (HI-16).
    blank: bool,
    /// To be written; empty most of the time.
    write: Vec<u8>,
    written: usize,
    /// A large piece of a body to be written after `write`, without copying it.
    tail: Bytes,
    pub remaining: Remaining,
    /// The peer said it will send no more.
    pub ended: bool,
    /// The client waits for `100 Continue` before it sends its body; told when somebody first asks for the body.
    pub expects_continue: bool,
    /// An endpoint's wire: neither side asked to close after this message.
    pub persists: bool,
    /// An endpoint's wire: how long it may wait for another use, when the endpoint said so.
    pub idle_for: Option<Duration>,
    /// An endpoint's wire: counted as open while it lives.
    pub open: Option<Box<dyn Any>>,
    /// An endpoint's wire: the member of the mesh at its end.
    pub peer: Option<Box<Peer>>,
    /// Bytes of bodies and heads, both directions, since the wire was made.
    pub bytes_read: u64,
    pub bytes_written: u64,
}

/// Why no head came.
#[derive(Debug)]
pub enum HeadFault {
    /// The peer closed before the first byte of a head.
    Closed,
    /// The peer closed inside a head.
    Truncated,
    Io(io::Error),
    Refused(Code),
}

impl Wire {
    pub fn new(stream: Stream, read: BytesMut) -> Self {
        Wire {
            stream,
            read,
            searched: 0,
            blank: false,
            write: Vec::new(),
            written: 0,
            tail: Bytes::new(),
            remaining: Remaining::Nothing,
            ended: false,
            expects_continue: false,
            persists: true,
            idle_for: None,
            open: None,
            peer: None,
            bytes_read: 0,
            bytes_written: 0,
        }
    }

    /// Reads once; zero at the end. Callers stop calling while much is unused: that is the back-pressure.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let expected = match &self.remaining {
            Remaining::Length(left) => *left,
            Remaining::Chunked(chunked) => chunked.expected(),
            Remaining::UntilClose => DIRECT,
            Remaining::Nothing | Remaining::Broken => 0,
        };
        let count = if expected >= DIRECT && self.read.is_empty() {
            // The piece that goes out is the memory that was read into.
            let size = usize::try_from(expected).unwrap_or(READ).min(READ);
            if self.read.capacity() < size {
                self.read = BytesMut::with_capacity(size);
            }
            ready!(pin!(self.stream.read_buf(&mut self.read)).poll(cx))?
        } else {
            ready!(SCRATCH.with_borrow_mut(|scratch| {
                // A head and whatever came with it: what is read here may have to wait for a slow reader.
                let scratch = scratch.get_mut(..FIRST).unwrap_or_default();
                let count = ready!(self.stream.poll_read_into(cx, scratch))?;
                self.read
                    .extend_from_slice(scratch.get(..count).unwrap_or_default());
                Poll::Ready(Ok::<_, io::Error>(count))
            }))?
        };
        self.bytes_read += count as u64;
        self.ended = count == 0;
        Poll::Ready(Ok(count))
    }

    /// Waits for a complete head of at most `limit` bytes and takes it, without the one empty line that may stand
    /// before it (RFC 9112 section 2.2).
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
        is_request: bool,
    ) -> Poll<Result<Bytes, HeadFault>> {
        loop {
            if is_request && self.read.starts_with(b"\r\n") {
                self.read.advance(2);
                if mem::replace(&mut self.blank, true) || self.read.starts_with(b"\r\n") {
                    return Poll::Ready(Err(HeadFault::Refused(Code::BadRequestLine)));
                }
            }
            match head::end_of_head(&self.read, self.searched) {
                Some(end) if end > limit => return Poll::Ready(Err(self.too_large(is_request))),
                Some(end) => {
                    self.searched = 0;
                    self.blank = false;
                    return Poll::Ready(Ok(self.read.split_to(end).freeze()));
                }
                None => {
                    if is_request && let Some(code) = head::early_fault(&self.read, self.searched) {
                        return Poll::Ready(Err(HeadFault::Refused(code)));
                    }
                    if self.read.len() >= limit {
                        return Poll::Ready(Err(self.too_large(is_request)));
                    }
                    self.searched = self.read.len();
                }
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.read.is_empty() => return Poll::Ready(Err(HeadFault::Closed)),
                Ok(0) => return Poll::Ready(Err(HeadFault::Truncated)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(HeadFault::Io(error))),
            }
        }
    }

    fn too_large(&self, is_request: bool) -> HeadFault {
        let first_line_open = memchr::memchr(
            b'\n',
            self.read.get(..head::MAX_TARGET).unwrap_or(&self.read),
        )
        .is_none();
        HeadFault::Refused(match is_request {
            true if first_line_open => Code::UriTooLong,
            true => Code::HeaderTooLarge,
            false => Code::UpstreamResponseTooLarge,
        })
    }

    /// The next piece of the current message's body, trailers last; `None` when it is complete.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.expects_continue && !matches!(self.remaining, Remaining::Nothing) {
            self.expects_continue = false;
            if self.read.is_empty() {
                self.queue()
                    .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                // A failed write shows again at the next read.
                let _unless_gone = self.poll_flush(cx);
            }
        }
        loop {
            match &mut self.remaining {
                Remaining::Nothing => return Poll::Ready(None),
                Remaining::Broken => return Poll::Ready(Some(Err(BodyError::Malformed))),
                Remaining::Length(left) if !self.read.is_empty() => {
                    let take = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(self.read.len());
                    *left -= take as u64;
                    if *left == 0 {
                        self.remaining = Remaining::Nothing;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(self.read.split_to(take).freeze()))));
                }
                Remaining::UntilClose if !self.read.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(self.read.split().freeze()))));
                }
                Remaining::Chunked(chunked) => match chunked.decode(&mut self.read) {
                    Ok(Item::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Item::End(trailers)) => {
                        self.remaining = Remaining::Nothing;
                        return Poll::Ready(trailers.map(|fields| Ok(Frame::trailers(fields))));
                    }
                    Ok(Item::Wait) => {}
                    Err(_) => {
                        self.remaining = Remaining::Broken;
                        return Poll::Ready(Some(Err(BodyError::Malformed)));
                    }
                },
                Remaining::Length(_) | Remaining::UntilClose => {}
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if matches!(self.remaining, Remaining::UntilClose) => {
                    self.remaining = Remaining::Nothing;
                    return Poll::Ready(None);
                }
                Ok(0) => {
                    self.remaining = Remaining::Broken;
                    return Poll::Ready(Some(Err(BodyError::Truncated)));
                }
                Ok(_) => {}
                Err(error) => {
                    self.remaining = Remaining::Broken;
                    return Poll::Ready(Some(Err(BodyError::Io(error.kind()))));
                }
            }
        }
    }

    /// Where bytes to be written are put; `poll_flush` sends them.
    pub fn queue(&mut self) -> &mut Vec<u8> {
        if self.write.capacity() == 0 {
            self.write = SPARE
                .with_borrow_mut(Vec::pop)
                .unwrap_or_else(|| Vec::with_capacity(4096));
        }
        &mut self.write
    }

    /// Queues a piece of a body. Small pieces join what is queued; a large one is written from where it lies, and the
    /// next must wait until `poll_flush` is done.
    pub fn queue_data(&mut self, data: Bytes) {
        if data.len() <= 8 * 1024 && self.tail.is_empty() {
            self.queue().extend_from_slice(&data);
        } else {
            debug_assert!(self.tail.is_empty(), "flush before the next large piece");
            self.tail = data;
        }
    }

    /// Bytes queued and not yet written.
    pub fn queued(&self) -> usize {
        self.write.len() - self.written + self.tail.len()
    }

    /// Writes everything queued.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.queued() > 0 {
            let first = self.write.get(self.written..).unwrap_or_default();
            let stream = Pin::new(&mut self.stream);
            // One buffer goes by `send`, which is cheaper than `writev`.
            let count = ready!(match (first.is_empty(), self.tail.is_empty()) {
                (false, true) => stream.poll_write(cx, first),
                (true, _) => stream.poll_write(cx, &self.tail),
                (false, false) =>
                    stream.poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(&self.tail)]),
            })?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes_written += count as u64;
            let of_first = count.min(first.len());
            self.written += of_first;
            self.tail.advance(count - of_first);
        }
        if self.write.capacity() > 0 {
            self.written = 0;
            let mut spare = mem::take(&mut self.write);
            spare.clear();
            SPARE.with_borrow_mut(|spares| {
                if spares.len() < 64 && spare.capacity() <= 64 * 1024 {
                    spares.push(spare);
                }
            });
        }
        if self.stream.is_tls() {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the message being read is complete.
    pub fn is_complete(&self) -> bool {
        matches!(self.remaining, Remaining::Nothing)
    }

    /// Whether this connection can wait for another use: complete, nothing unread, nothing unwritten, still open.
    pub fn is_idle(&self) -> bool {
        self.is_complete()
            && self.read.is_empty()
            && self.queued() == 0
            && !self.ended
            && self.stream.is_quiet()
    }

    /// Gives back memory that an idle connection does not need.
    pub fn rest(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        self.tail = Bytes::new();
    }
}

/// A wire shared between who reads a message's body from it and who writes to it; both live in one worker.
pub type SharedWire = Rc<RefCell<Wire>>;

/// Where an endpoint's wire goes when the answer on it has been read to its end.
pub trait Home {
    fn welcome(&self, wire: SharedWire);
}

/// The body of a message being read from a wire.
pub struct Incoming {
    wire: Option<SharedWire>,
    home: Option<Rc<dyn Home>>,
}

impl Incoming {
    /// Of a request: the wire stays with the connection's own loop.
    pub fn of_client(wire: SharedWire) -> Self {
        Incoming {
            wire: Some(wire),
            home: None,
        }
    }

    /// Of an answer: at its end the wire goes home; dropped before, it is closed.
    pub fn of_upstream(wire: SharedWire, home: Option<Rc<dyn Home>>) -> Self {
        Incoming {
            wire: Some(wire),
            home,
        }
    }

    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(wire) = &self.wire else {
            return Poll::Ready(None);
        };
        let frame = ready!(wire.borrow_mut().poll_body(cx));
        if wire.borrow().is_complete() {
            let wire = self.wire.take();
            if let (Some(home), Some(wire)) = (self.home.take(), wire) {
                home.welcome(wire);
            }
        }
        Poll::Ready(frame)
    }

    /// The exact length, when the message announced one.
    pub fn length(&self) -> Option<u64> {
        match self.wire.as_ref().map(|wire| wire.borrow()) {
            None => Some(0),
            Some(wire) => match wire.remaining {
                Remaining::Nothing => Some(0),
                Remaining::Length(left) => Some(left),
                _ => None,
            },
        }
    }
}
