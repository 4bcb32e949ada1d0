//! A stream of the client's: lines of JSON become messages, one at a time. Of a method that takes `google.api.HttpBody` any
//! bytes do, piece by piece. A line that is no message ends the call; what was wrong stands in `Trouble`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;

use super::head::refused;
use crate::exchange::Target;
use crate::exchange::body::{Body, BodyError, Remake};
use crate::exchange::error::Error;
use crate::snapshot::RoutePlan;
use crate::transcode::Transcoder;
use crate::transcode::plan::Call;
use crate::transcode::request::Said;

/// What was wrong with a line. The request's task takes it, and nobody else.
#[derive(Clone, Default)]
pub(super) struct Trouble(Rc<RefCell<Option<Error>>>);

impl Trouble {
    pub(super) fn take(&self) -> Option<Error> {
        self.0.borrow_mut().take()
    }
}

pub(super) struct Upload {
    transcoder: Arc<Transcoder>,
    /// The route as it was when the request began, for the places of its settings.
    plan: RoutePlan,
    method: http::Method,
    target: Target,
    content_type: String,
    body: Body,
    line: BytesMut,
    /// How much of `line` holds no line end.
    looked: usize,
    raw: bool,
    ended: bool,
    trouble: Trouble,
}

impl Upload {
    pub(super) fn new(
        transcoder: Arc<Transcoder>,
        plan: &RoutePlan,
        call: &Call<'_>,
        target: Target,
        content_type: &str,
        body: Body,
        trouble: Trouble,
    ) -> Self {
        Upload {
            transcoder,
            plan: RoutePlan {
                item: plan.item.clone(),
                compiled: plan.compiled.clone(),
            },
            method: call.binding.verb.clone(),
            target,
            content_type: content_type.to_owned(),
            body,
            line: BytesMut::new(),
            looked: 0,
            raw: call.binding.raw_request,
            ended: false,
            trouble,
        }
    }

    /// One line, or one piece, as a message.
    fn message(&self, body: &[u8]) -> Result<Bytes, BodyError> {
        let crate::transcode::plan::Called::Method(call) =
            self.transcoder.find(&self.method, self.target.path())
        else {
            return Err(BodyError::Malformed);
        };
        let said = Said {
            path: self.target.path(),
            query: self.target.query(),
            content_type: &self.content_type,
            body,
        };
        let mut framed = Vec::with_capacity(body.len() + 16);
        match call.message(&self.transcoder, &said, &mut framed) {
            Ok(()) => Ok(framed.into()),
            Err(unfit) => Err(self.refuse(refused(unfit, body, &self.transcoder, &self.plan))),
        }
    }

    fn refuse(&self, error: Error) -> BodyError {
        *self.trouble.0.borrow_mut() = Some(error);
        BodyError::Malformed
    }

    /// The next line that was taken as a whole; empty ones are passed over.
    fn next_line(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            let end = match memchr::memchr(b'\n', &self.line[self.looked..]) {
                Some(end) => self.looked + end,
                None => {
                    self.looked = self.line.len();
                    if self.ended && !self.line.is_empty() {
                        self.looked = 0;
                        let line = self.line.split();
                        return (!line.iter().all(u8::is_ascii_whitespace))
                            .then(|| self.message(&line));
                    }
                    if self.line.len() > self.transcoder.rules.max_message {
                        return Some(self.message(&self.line));
                    }
                    return None;
                }
            };
            let line = self.line.split_to(end + 1);
            self.looked = 0;
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some(self.message(&line));
            }
        }
    }
}

impl Remake for Upload {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if !self.raw
                && let Some(message) = self.next_line()
            {
                return Poll::Ready(Some(message.map(Frame::data)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match ready!(self.body.poll_frame(cx)) {
                None => self.ended = true,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if self.raw && !data.is_empty() {
                        return Poll::Ready(Some(self.message(&data).map(Frame::data)));
                    }
                    self.line.extend_from_slice(&data);
                }
            }
        }
    }
}
