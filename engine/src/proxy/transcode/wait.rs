//! Waiting for what is needed as a whole: a request's body, an answer of one message, the first message of a stream. Ends
//! with the route's time-out, the caller's deadline, or the idle time-out where a stream is still under way.

use std::time::Instant;

use bytes::Bytes;
use http_body::Frame;

use super::download::Download;
use super::upload::Trouble;
use crate::clock;
use crate::exchange::body::{Body, BodyError};
use crate::exchange::error::{Code, Error, written};
use crate::proxy::answer::Answer;
use crate::proxy::books::Exchange;
use crate::proxy::send::Failure;
use crate::snapshot::RoutePlan;
use crate::transcode::Transcoder;
use crate::transcode::frames::Frames;
use crate::transcode::plan::Binding;
use crate::transcode::status::Status;
use crate::upstream::Outcome;

/// The next piece of a request's body.
pub(in crate::proxy) async fn body_frame(
    exchange: &Exchange,
    plan: &RoutePlan,
    body: &mut Body,
) -> Result<Option<Frame<Bytes>>, Error> {
    if body.is_empty() {
        return Ok(None);
    }
    let idle = plan.item.idle_timeout;
    let patience = idle.value.map(|idle| clock::now() + idle);
    let ends = [patience, exchange.deadline].into_iter().flatten().min();
    match exchange.alarm.until(ends, body.frame()).await {
        Ok(None) => Ok(None),
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(error))) => Err(Failure::client(error).error),
        Err(_) if ends == exchange.deadline => Err(Code::DeadlineExceeded.into()),
        Err(_) => Err(Error::governed_by(
            Code::BodyTimeout,
            "route.idle_timeout",
            idle.value.map_or_else(String::new, written),
            plan.place(idle.at),
        )),
    }
}

pub(super) struct Wait {
    /// When the route's own time is over; `None`: a stream of the client's, which idle time governs.
    until: Option<Instant>,
}

impl Wait {
    pub(super) fn new(exchange: &Exchange, plan: &RoutePlan, binding: &Binding) -> Self {
        let whole = plan.item.timeout.value.filter(|_| !binding.client_streams);
        Wait {
            until: whole.map(|timeout| exchange.started + timeout),
        }
    }

    /// The next piece of the answer.
    async fn frame(
        &self,
        exchange: &Exchange,
        plan: &RoutePlan,
        answer: &mut Answer,
    ) -> Result<Option<Result<Frame<Bytes>, BodyError>>, Error> {
        let idle = plan.item.idle_timeout;
        loop {
            let patience = idle.value.map(|idle| clock::now() + idle);
            let ends = [self.until, patience, exchange.deadline]
                .into_iter()
                .flatten()
                .min();
            let before = answer.seen();
            let next = std::future::poll_fn(|cx| answer.poll_frame(cx));
            if let Ok(frame) = exchange.alarm.until(ends, next).await {
                return Ok(frame);
            }
            return Err(match ends {
                // The client still sends.
                _ if ends == patience && answer.seen() != before => continue,
                _ if ends == exchange.deadline => Code::DeadlineExceeded.into(),
                _ if ends == self.until => Error::governed_by(
                    Code::RouteTimeout,
                    "route.timeout",
                    plan.item.timeout.value.map_or_else(String::new, written),
                    plan.place(plan.item.timeout.at),
                ),
                _ => Error::governed_by(
                    Code::IdleTimeout,
                    "route.idle_timeout",
                    idle.value.map_or_else(String::new, written),
                    plan.place(idle.at),
                ),
            });
        }
    }

    /// An answer of one message, and how the call ended.
    pub(super) async fn whole(
        &self,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        answer: &mut Answer,
        transcoder: &Transcoder,
        trouble: &Trouble,
    ) -> Result<(Option<Bytes>, Status), Error> {
        let bad = |why: &str| Error::because(Code::UpstreamBadMessage, why);
        let mut frames = Frames::new(transcoder.rules.max_message);
        let (mut message, mut ended) = (None, None);
        loop {
            let frame = match self.frame(exchange, plan, answer).await {
                Ok(frame) => frame,
                Err(error) => {
                    exchange.outcome = Outcome::Failure;
                    return Err(error);
                }
            };
            let frame = match frame {
                None => break,
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    return Err(trouble
                        .take()
                        .unwrap_or_else(|| broken(exchange, answer, error)));
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    frames.push(data);
                    while let Some(next) = frames.next().map_err(|why| bad(why.words()))? {
                        if message.replace(next).is_some() {
                            return Err(bad("a method that answers with one message sent two"));
                        }
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        exchange.heard(&trailers);
                        ended = Status::of(&trailers);
                    }
                }
            }
        }
        if let Some(error) = trouble.take() {
            return Err(error);
        }
        frames.end().map_err(|why| bad(why.words()))?;
        let ended = ended.unwrap_or_else(|| {
            exchange.pass.belied = true;
            Status::unknown()
        });
        Ok((message, ended))
    }

    /// The first message of a stream of bytes says of which type they are; `Err`: how the call ended without one.
    pub(super) async fn first(
        &self,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        answer: &mut Answer,
        download: &mut Download,
    ) -> Result<Result<String, Status>, Error> {
        let bad = |why: &str| Error::because(Code::UpstreamBadMessage, why);
        loop {
            match self.frame(exchange, plan, answer).await? {
                None => return Ok(Err(Status::unknown())),
                Some(Err(error)) => {
                    return Err(broken(exchange, answer, error));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Some(kind) = download.begin(data).map_err(bad)? {
                            return Ok(Ok(kind));
                        }
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        exchange.heard(&trailers);
                        return Ok(Err(Status::of(&trailers).unwrap_or_else(Status::unknown)));
                    }
                },
            }
        }
    }
}

/// An answer that broke off before it was whole, and whose doing that was.
fn broken(exchange: &mut Exchange, answer: &Answer, error: BodyError) -> Error {
    let (outcome, code) = if answer.client_failed() {
        (Outcome::Cancelled, Code::BodyAborted)
    } else {
        (Outcome::Failure, Code::UpstreamReset)
    };
    exchange.outcome = outcome;
    Error::because(code, error.to_string())
}
