//! An answer on its way to the client: its head, its body piece by piece, and beside it whatever of the request's body
//! is still being passed on. A stream is governed by idle time alone; the last byte (or the drop) closes the books.

use std::cell::Cell;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::books::{Asked, Exchange};
use super::replay::SharedSource;
use super::send::{Pump, PumpError, Sent};
use super::tunnel::End;
use crate::clock;
use crate::exchange::Response;
use crate::exchange::body::{Body, BodyError};
use crate::exchange::error::Code;
use crate::upstream::Outcome;

pub struct Answer {
    pub response: Response,
    /// After a 101: the endpoint's end, for `tunnel`.
    pub tunnel: Option<End>,
    /// Nothing of it may be sent: the client is to see a reset.
    pub is_cut: bool,
    pump: Option<Pump>,
    /// The client's side of the request's body ended badly.
    client_failed: bool,
    source: Option<SharedSource>,
    /// `None`: ours, or "off".
    idle: Option<Duration>,
    /// When a byte moved last; `None`: just now, and nobody has waited since.
    moved: Cell<Option<Instant>>,
    exchange: Option<Box<Asked>>,
}

impl Answer {
    /// An answer of our own.
    pub fn of(response: Response) -> Self {
        Answer {
            response,
            tunnel: None,
            is_cut: false,
            pump: None,
            client_failed: false,
            source: None,
            idle: None,
            moved: Cell::new(None),
            exchange: None,
        }
    }

    pub(super) fn from_upstream(sent: Sent, source: SharedSource, idle: Option<Duration>) -> Self {
        Answer {
            tunnel: sent.tunnel,
            pump: sent.pump,
            source: Some(source),
            idle,
            ..Answer::of(sent.response)
        }
    }

    /// From here on the exchange's end is the answer's end.
    pub(super) fn open(mut self, mut exchange: Box<Asked>) -> Self {
        exchange.remember();
        exchange.status = self.response.status;
        if let Some(source) = &self.source {
            exchange.bytes_in = source.borrow().seen;
        }
        self.exchange = Some(exchange);
        self
    }

    pub fn exchange(&self) -> Option<&Exchange> {
        self.exchange.as_deref().map(|asked| &asked.exchange)
    }

    pub(super) fn books(&mut self) -> Option<&mut Exchange> {
        self.exchange
            .as_deref_mut()
            .map(|asked| &mut asked.exchange)
    }

    /// The next piece for the client. `Err(BodyError::Idle)`: neither side moved a byte for the route's idle time-out.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_pump(cx);
        match self.response.body.poll_frame(cx) {
            Poll::Ready(frame) => {
                self.moved();
                match &frame {
                    Some(Err(error)) => self.broke(*error),
                    Some(Ok(frame)) => self.looked_at(frame.trailers_ref()),
                    None => {
                        if let Body::Remade(body) = &mut self.response.body {
                            let trailers = body.take_trailers();
                            self.looked_at(trailers.as_ref());
                        }
                    }
                }
                Poll::Ready(frame)
            }
            Poll::Pending => self.poll_idle(cx).map(|()| {
                self.broke(BodyError::Idle);
                Some(Err(BodyError::Idle))
            }),
        }
    }

    /// Passes on what there is of the request's body.
    pub fn poll_pump(&mut self, cx: &mut Context<'_>) {
        let Some(pump) = &mut self.pump else { return };
        let seen = |source: &Option<SharedSource>| {
            source.as_ref().map_or(0, |source| source.borrow().seen)
        };
        let before = seen(&self.source);
        if let Poll::Ready(result) = pump.as_mut().poll(cx) {
            self.pump = None;
            if let Err(PumpError::Client(_)) = result {
                self.client_failed = true;
                if let Some(exchange) = &mut self.exchange {
                    exchange.error = Some(Code::BodyAborted);
                }
            }
        }
        let after = seen(&self.source);
        if after != before {
            self.moved();
            if let Some(exchange) = &mut self.exchange {
                exchange.bytes_in = after;
            }
        }
    }

    /// Ready when nothing has moved for too long; called wherever the answer waits for the client.
    pub fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (Some(idle), Some(exchange)) = (self.idle, &self.exchange) else {
            return Poll::Pending;
        };
        let since = self.moved.get().unwrap_or_else(|| {
            let now = clock::now();
            self.moved.set(Some(now));
            now
        });
        exchange.alarm.poll_at(since + idle, cx)
    }

    /// A byte moved.
    pub fn moved(&self) {
        self.moved.set(None);
    }

    /// Bytes of body that went to the client.
    pub fn wrote(&mut self, count: u64) {
        if let Some(exchange) = &mut self.exchange {
            exchange.bytes_out += count;
        }
    }

    /// Whether it was the client who broke the exchange off.
    pub(super) fn client_failed(&self) -> bool {
        self.client_failed
    }

    /// Bytes of the request's body that were taken so far.
    pub(super) fn seen(&self) -> u64 {
        { self.source.as_ref() }.map_or(0, |source| source.borrow().seen)
    }

    /// The client stopped taking it.
    pub fn abandoned(&mut self, code: Code) {
        if let Some(exchange) = &mut self.exchange {
            exchange.error = Some(code);
            exchange.outcome = Outcome::Cancelled;
        }
    }

    /// A gRPC call fails in its trailers, or says there that the endpoint wants less.
    #[inline]
    fn looked_at(&mut self, trailers: Option<&HeaderMap>) {
        if let (Some(trailers), Some(exchange)) = (trailers, &mut self.exchange)
            && exchange.is_grpc
        {
            exchange.heard(trailers);
        }
    }

    fn broke(&mut self, error: BodyError) {
        if let Some(exchange) = &mut self.exchange {
            if self.client_failed && error != BodyError::Idle {
                // The stream was reset because the client's body could not go on: that says nothing of the endpoint.
                exchange.outcome = Outcome::Cancelled;
                return;
            }
            exchange.error = Some(if error == BodyError::Idle {
                Code::IdleTimeout
            } else {
                Code::StreamAborted
            });
            exchange.cause = Some(error.to_string().into());
            exchange.outcome = Outcome::Failure;
        }
    }

    /// The last byte is out.
    pub fn finish(mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.close(clock::now());
        }
    }

    /// The route's idle time-out, for tunnels.
    pub fn idle(&self) -> Option<Duration> {
        self.idle
    }
}
