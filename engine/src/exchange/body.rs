//! A message's body, wherever it comes from: one enum, no boxes, pulled piece by piece. What is not pulled is not
//! read, and that is the whole of back-pressure.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::http1::Incoming;

pub enum Body {
    Empty,
    /// Ours, or small enough to be kept for another try.
    Full(Bytes),
    Http1(Incoming),
    Http2(Http2Body),
    /// Made of another body while it passes; boxed, since most bodies pass as they are.
    Remade(Box<dyn Remake>),
}

/// What makes a body of another.
pub trait Remake {
    fn poll_frame(&mut self, cx: &mut Context<'_>)
    -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;

    /// After the end: the trailers of the other body, which this one says in its own way.
    fn take_trailers(&mut self) -> Option<HeaderMap> {
        None
    }
}

/// Why a body broke off. The side it was read from is told by who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The framing is wrong.
    Malformed,
    /// It ended before its announced length.
    Truncated,
    Io(io::ErrorKind),
    /// An HTTP/2 stream was reset with this code.
    Reset(h2::Reason),
    /// Larger than `max_body`.
    TooLarge,
    /// No byte for the idle time-out.
    Idle,
}

/// A body that arrives on an HTTP/2 stream. Whatever keeps the stream's place on its connection rides along.
pub struct Http2Body {
    pub stream: h2::RecvStream,
    /// Dropped with the body: the stream no longer counts on its connection.
    pub place: Option<Box<dyn std::any::Any>>,
    pub ended: bool,
}

impl Body {
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Body::Empty => Poll::Ready(None),
            Body::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Body::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Body::Http1(incoming) => incoming.poll_frame(cx),
            Body::Http2(body) => body.poll_frame(cx),
            Body::Remade(body) => body.poll_frame(cx),
        }
    }

    pub async fn frame(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// The exact number of data bytes still to come, when it is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Body::Empty => Some(0),
            Body::Full(bytes) => Some(bytes.len() as u64),
            Body::Http1(incoming) => incoming.length(),
            Body::Http2(body) if body.stream.is_end_stream() => Some(0),
            Body::Http2(_) | Body::Remade(_) => None,
        }
    }

    /// Certainly without a single byte or trailer to come.
    pub fn is_empty(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_empty(),
            Body::Http1(incoming) => incoming.length() == Some(0),
            Body::Http2(body) => body.ended || body.stream.is_end_stream(),
            Body::Remade(_) => false,
        }
    }
}

impl Http2Body {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The window opens again as the piece is passed on; who does not pull, does not open it.
                    let _closed_streams_need_no_window =
                        self.stream.flow_control().release_capacity(data.len());
                    if data.is_empty() && !self.stream.is_end_stream() {
                        continue;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => {
                    let trailers = ready!(self.stream.poll_trailers(cx));
                    self.ended = true;
                    self.place = None;
                    return Poll::Ready(match trailers {
                        Ok(Some(fields)) => Some(Ok(Frame::trailers(fields))),
                        Ok(None) => None,
                        Err(error) => Some(Err(error.into())),
                    });
                }
            }
        }
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        // An upstream's stream has a place on its connection, and is cancelled at once.
        if !self.ended && self.place.is_none() {
            super::linger::linger(&mut self.stream);
        }
    }
}

impl From<h2::Error> for BodyError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) => BodyError::Reset(reason),
            None => BodyError::Io(
                error
                    .get_io()
                    .map_or(io::ErrorKind::ConnectionReset, io::Error::kind),
            ),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Body::poll_frame(self.get_mut(), cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.length()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BodyError::Malformed => write!(f, "malformed framing"),
            BodyError::Truncated => write!(f, "ended before its announced length"),
            BodyError::Io(kind) => write!(f, "{kind}"),
            BodyError::Reset(reason) => write!(f, "stream reset: {reason}"),
            BodyError::TooLarge => write!(f, "larger than allowed"),
            BodyError::Idle => write!(f, "no byte for too long"),
        }
    }
}

impl std::error::Error for BodyError {}
