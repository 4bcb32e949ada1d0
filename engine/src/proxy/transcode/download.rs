//! A stream of the service's: each message becomes a line of JSON, or an event, as soon as it is there. An error in the
//! middle is a last line or event of its own, since the status has gone out already. Of `google.api.HttpBody` the bytes go
//! out as they are.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Frame;

use super::upload::Trouble;
use crate::exchange::body::{Body, BodyError, Remake};
use crate::exchange::error::Code;
use crate::transcode::Transcoder;
use crate::transcode::frames::Frames;
use crate::transcode::plan::Binding;
use crate::transcode::status::{self, Status};

/// How messages stand behind one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One a line.
    Lines,
    /// Server-sent events.
    Events,
}

impl Form {
    /// As the client accepts it; lines, unless it asks for events.
    pub(super) fn of(headers: &HeaderMap) -> Form {
        let events = headers.get_all(header::ACCEPT).iter().any(|value| {
            let mut kinds = value.as_bytes().split(|byte| *byte == b',');
            kinds.any(|kind| {
                let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
                kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
            })
        });
        if events { Form::Events } else { Form::Lines }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Lines => "application/x-ndjson",
            Form::Events => "text/event-stream",
        }
    }
}

pub(super) struct Download {
    transcoder: Arc<Transcoder>,
    /// Which of the filter's bindings.
    binding: usize,
    raw: bool,
    form: Form,
    request_id: String,
    trouble: Trouble,
    body: Body,
    frames: Frames,
    /// Of bytes: what was taken for the head's sake.
    queued: Option<Bytes>,
    trailers: Option<HeaderMap>,
    /// Broken off, after the client was told.
    broken: bool,
    over: bool,
}

impl Download {
    pub(super) fn new(
        transcoder: Arc<Transcoder>,
        binding: &Binding,
        form: Form,
        request_id: String,
        trouble: Trouble,
    ) -> Self {
        Download {
            binding: transcoder.place(binding),
            raw: binding.raw_response,
            frames: Frames::new(transcoder.rules.max_message),
            transcoder,
            form,
            request_id,
            trouble,
            body: Body::Empty,
            queued: None,
            trailers: None,
            broken: false,
            over: false,
        }
    }

    /// Goes on with the rest of an answer.
    pub(super) fn over(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Takes a piece of a stream of bytes; their type, once the first message is whole.
    pub(super) fn begin(&mut self, piece: Bytes) -> Result<Option<String>, &'static str> {
        self.frames.push(piece);
        let Some(message) = self.frames.next().map_err(|why| why.words())? else {
            return Ok(None);
        };
        let binding = &self.transcoder.bindings()[self.binding];
        let plain = self
            .transcoder
            .plain(binding, &message)
            .map_err(|why| why.words())?;
        self.queued = Some(plain.data);
        Ok(Some(plain.content_type))
    }

    /// The next message that is whole, as the client gets it.
    fn next(&mut self) -> Result<Option<Bytes>, &'static str> {
        if let Some(queued) = self.queued.take() {
            return Ok(Some(queued));
        }
        let Some(message) = self.frames.next().map_err(|why| why.words())? else {
            return Ok(None);
        };
        let binding = &self.transcoder.bindings()[self.binding];
        if self.raw {
            let plain = self
                .transcoder
                .plain(binding, &message)
                .map_err(|why| why.words())?;
            return Ok(Some(plain.data));
        }
        let mut out = Vec::with_capacity(message.len() * 2 + 64);
        if self.form == Form::Events {
            out.extend_from_slice(b"data: ");
        }
        self.transcoder
            .json(binding, &message, &mut out)
            .map_err(|why| why.words())?;
        out.extend_from_slice(if self.form == Form::Events {
            b"\n\n"
        } else {
            b"\n"
        });
        Ok(Some(out.into()))
    }

    /// The last line of a stream that did not end well.
    fn last(&self, problem: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(problem.len() + 32);
        match self.form {
            _ if self.raw => {}
            Form::Lines => {
                out.extend_from_slice(b"{\"error\":");
                out.extend_from_slice(problem);
                out.extend_from_slice(b"}\n");
            }
            Form::Events => {
                out.extend_from_slice(b"event: error\ndata: ");
                out.extend_from_slice(problem);
                out.extend_from_slice(b"\n\n");
            }
        }
        out.into()
    }

    /// Tells the client why nothing more comes; then the stream breaks off. What the client did wrong itself ends it in
    /// order: over HTTP/2 a reset may overtake the line that tells.
    fn break_off(&mut self, code: Code) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let trouble = self.trouble.take();
        (self.over, self.broken) = (trouble.is_some(), trouble.is_none());
        let error = trouble.unwrap_or_else(|| code.into());
        let (_, _, problem) = error.problem(&self.request_id);
        let last = self.last(&problem);
        if last.is_empty() {
            return Poll::Ready(Some(Err(BodyError::Malformed)));
        }
        Poll::Ready(Some(Ok(Frame::data(last))))
    }

    fn ended(&mut self, trailers: HeaderMap) -> Option<Bytes> {
        self.over = true;
        let ended = Status::of(&trailers).unwrap_or_else(Status::unknown);
        self.trailers = Some(trailers);
        if ended.code == status::OK {
            return None;
        }
        let transcoder = &self.transcoder;
        let status = ended.http(&transcoder.statuses);
        let problem = ended.problem(
            &transcoder.schema,
            &transcoder.rules,
            status,
            &self.request_id,
        );
        let last = self.last(&problem);
        self.broken = last.is_empty();
        Some(last).filter(|last| !last.is_empty())
    }
}

impl Remake for Download {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.broken {
                return Poll::Ready(Some(Err(BodyError::Malformed)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            match self.next() {
                Ok(Some(piece)) if piece.is_empty() => continue,
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Ok(None) => {}
                Err(_) => return self.break_off(Code::UpstreamBadMessage),
            }
            match ready!(self.body.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.frames.push(data),
                    Err(_) if self.frames.end().is_err() => {
                        return self.break_off(Code::UpstreamBadMessage);
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        if let Some(last) = self.ended(trailers) {
                            return Poll::Ready(Some(Ok(Frame::data(last))));
                        }
                    }
                },
                // A call that ends without saying how has not ended well.
                None | Some(Err(_)) => return self.break_off(Code::StreamAborted),
            }
        }
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }
}
