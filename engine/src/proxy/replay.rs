//! A request's body that can be sent twice, up to a limit: pieces are kept while they pass, until there are too many
//! of them. Bodies of any length pass; only the keeping is bounded.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use crate::exchange::body::{Body, BodyError};
use crate::exchange::headers::disown_client_cert;

pub(super) struct Source {
    live: Body,
    /// Announced by the client, whatever was read already.
    length: Option<u64>,
    kept: Vec<Bytes>,
    kept_size: u64,
    limit: u64,
    /// The next of `kept` to hand out; equal to its length when the live body is next.
    next: usize,
    /// A piece or a trailer went by that was not kept.
    lost: bool,
    max: Option<u64>,
    /// Data bytes that came from the client.
    pub seen: u64,
    /// Why the client's side ended, if it ended badly.
    pub fault: Option<BodyError>,
    /// The last piece was handed out, this time.
    pub ended: bool,
    /// The last piece has come.
    drained: bool,
}

pub(super) type SharedSource = Rc<RefCell<Source>>;

impl Source {
    /// `limit`: bytes kept for another try; `max`: bytes allowed at all.
    pub(super) fn new(live: Body, limit: u64, max: Option<u64>) -> Self {
        let length = live.length();
        Source {
            ended: live.is_empty(),
            drained: live.is_empty(),
            live,
            length,
            kept: Vec::new(),
            kept_size: 0,
            limit,
            next: 0,
            lost: false,
            max,
            seen: 0,
            fault: None,
        }
    }

    /// The whole length, when it was announced.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the body can be sent again from its first byte.
    pub(super) fn is_repeatable(&self) -> bool {
        !self.lost && self.fault.is_none()
    }

    /// Whether all of it has come and can be sent again.
    pub(super) fn is_complete(&self) -> bool {
        self.drained && self.is_repeatable()
    }

    /// The same body from its first byte, for a try beside another. Only of one that is complete.
    pub(super) fn copy(source: &SharedSource) -> SharedSource {
        let known = source.borrow();
        if known.kept.is_empty() {
            return source.clone();
        }
        let copy = Source {
            length: known.length,
            kept: known.kept.clone(),
            kept_size: known.kept_size,
            ended: false,
            ..Source::new(Body::Empty, known.limit, known.max)
        };
        Rc::new(RefCell::new(copy))
    }

    /// Begins again. Only after `is_repeatable`.
    pub(super) fn rewind(&mut self) {
        self.next = 0;
        self.ended = self.drained && self.kept.is_empty();
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(piece) = self.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if self.drained {
            self.ended = true;
            return Poll::Ready(None);
        }
        let mut frame = ready!(self.live.poll_frame(cx));
        match &mut frame {
            None => {
                self.ended = true;
                self.drained = true;
            }
            Some(Err(error)) => self.fault = Some(*error),
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => {
                    self.seen += data.len() as u64;
                    if self.max.is_some_and(|max| self.seen > max) {
                        self.fault = Some(BodyError::TooLarge);
                        return Poll::Ready(Some(Err(BodyError::TooLarge)));
                    }
                    self.kept_size += data.len() as u64;
                    if !self.lost && self.kept_size <= self.limit {
                        self.kept.push(data.clone());
                        self.next = self.kept.len();
                    } else {
                        self.lost = true;
                        self.kept = Vec::new();
                        self.next = 0;
                    }
                }
                None => {
                    self.lost = true;
                    if let Some(trailers) = frame.trailers_mut() {
                        // What is said of the caller stands in the head, and nowhere else.
                        disown_client_cert(trailers);
                    }
                }
            },
        }
        Poll::Ready(frame)
    }
}
