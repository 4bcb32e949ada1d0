//! Gathers what one turn of an HTTP/2 connection writes into one `send`.
//!
//! The HTTP/2 library flushes after every frame; each flush would be a system call. Here its flush does nothing, and
//! the task that drives the connection calls `flush_now` when the turn is over. Measured in `docs/benchmarks.md`.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Stream;

/// Above this much unsent, writers wait: an unread connection costs no more memory than this.
const HIGH: usize = 128 * 1024;

/// Two handles share one stream: the library's, and the driver's.
#[derive(Clone)]
pub struct Batched(Rc<RefCell<Gathered>>);

struct Gathered {
    stream: Stream,
    /// To be sent; the first `sent` bytes of it are out already.
    out: Vec<u8>,
    sent: usize,
    failed: Option<io::ErrorKind>,
    /// Bytes read before the protocol was known.
    before: BytesMut,
}

impl Batched {
    pub fn new(stream: Stream, before: BytesMut) -> Self {
        Batched(Rc::new(RefCell::new(Gathered {
            stream,
            out: Vec::new(),
            sent: 0,
            failed: None,
            before,
        })))
    }

    /// A quiet connection keeps no buffer.
    pub fn rest(&self) {
        let mut gathered = self.0.borrow_mut();
        if gathered.out.is_empty() {
            gathered.out = Vec::new();
        }
    }

    /// Sends what was gathered. Pending: the socket is full, and the task is woken when it is not.
    pub fn flush_now(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.borrow_mut();
        let result = gathered.poll_send(cx);
        if let Poll::Ready(Err(error)) = &result {
            gathered.failed = Some(error.kind());
        }
        result
    }
}

impl Gathered {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.out.clear();
        self.sent = 0;
        if self.stream.is_tls() {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if self.out.len() >= HIGH {
            ready!(self.poll_send(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Batched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut gathered = self.0.borrow_mut();
        if !gathered.before.is_empty() {
            let count = gathered.before.len().min(buffer.remaining());
            buffer.put_slice(&gathered.before.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut gathered.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Batched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = self.0.borrow_mut();
        ready!(gathered.poll_room(cx))?;
        gathered.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = self.0.borrow_mut();
        ready!(gathered.poll_room(cx))?;
        let mut count = 0;
        for part in bytes {
            gathered.out.extend_from_slice(part);
            count += part.len();
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.borrow().failed {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.0.borrow_mut();
        ready!(gathered.poll_send(cx))?;
        Pin::new(&mut gathered.stream).poll_shutdown(cx)
    }
}
