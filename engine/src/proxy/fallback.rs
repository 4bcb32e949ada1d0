//! What a route answers when its upstream cannot: a fixed answer, or another upstream's (GW-701). Comes after the last try,
//! and never for what the client did wrong or gave up waiting for. The client sees by `x-tollgate-fallback` that it was
//! not the usual answer; metrics and the access line say so too.
//!
//! Another upstream is asked within the time that is left, and only for what may be sent again: what never left, or what
//! is idempotent, with a body that was kept.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate_config::{Fallback, FallbackAction, FallbackOn};

use super::Proxy;
use super::answer::Answer;
use super::books::Exchange;
use super::guard::{self, Pass};
use super::replay::{SharedSource, Source};
use super::send;
use crate::clock;
use crate::exchange::body::Body;
use crate::exchange::error::{Code, Error, Phase};
use crate::exchange::{Request, Response, grpc_code, grpc_status};
use crate::snapshot::RoutePlan;
use crate::telemetry::metrics::FallbackResult;

/// On every answer of a fallback: the word of the failure that it stands in for.
const MARK: HeaderName = HeaderName::from_static("x-tollgate-fallback");
/// Bytes of a body that are kept for another upstream when nothing is kept for retries.
const KEPT: u64 = 64 << 10;

/// Why the upstream's answer, or its absence, does not do.
struct Cause {
    kind: FallbackOn,
    word: &'static str,
    /// Some of the request may have been taken.
    left: bool,
}

impl Proxy {
    /// Forwards, and falls back if that fails and the route says how.
    pub(super) async fn serve(
        self: &Rc<Self>,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        branch: usize,
        request: &mut Request,
    ) -> Result<Answer, Error> {
        let forwarded = self.forward(exchange, plan, branch, request).await;
        let Some(fallback) = &plan.item.fallback else {
            return forwarded;
        };
        let cause = match &forwarded {
            Ok(answer) => refused(&answer.response),
            Err(error) => failed(error.code),
        };
        match cause.filter(|cause| fallback.on.contains(&cause.kind)) {
            // Rare and large: boxed, so that other requests do not carry its size.
            Some(cause) => {
                Box::pin(self.fall_back(exchange, plan, fallback, request, forwarded, cause)).await
            }
            None => forwarded,
        }
    }

    async fn fall_back(
        self: &Rc<Self>,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        fallback: &Fallback,
        request: &mut Request,
        forwarded: Result<Answer, Error>,
        cause: Cause,
    ) -> Result<Answer, Error> {
        let series = &plan.compiled.series;
        let mut answer = match &fallback.action {
            // A gRPC caller could not read it.
            FallbackAction::Respond { .. } if exchange.answers_grpc() => return forwarded,
            FallbackAction::Respond {
                status,
                body,
                headers,
            } => {
                leave(exchange, forwarded.ok());
                series.fell_back(FallbackResult::Respond);
                let headers: HeaderMap = headers.iter().cloned().collect();
                let body = Body::Full(Bytes::copy_from_slice(body.as_bytes()));
                exchange.fallback = Some(cause.word);
                Answer::of(Response::new(*status, headers, body))
            }
            FallbackAction::Upstream(_) => {
                let repeatable = exchange
                    .source
                    .as_ref()
                    .is_none_or(|source| source.borrow().is_repeatable());
                let may = repeatable
                    && request.upgrade.is_none()
                    && (!cause.left || send::is_safe(request));
                let (Some(branch), true) = (plan.compiled.fallback, may) else {
                    return forwarded;
                };
                // Of the route's own time nothing is left.
                let first = match forwarded {
                    Err(error) if error.code == Code::RouteTimeout => return Err(error),
                    Err(error) => Some(error),
                    Ok(answer) => {
                        leave(exchange, Some(answer));
                        None
                    }
                };
                leave(exchange, None);
                exchange.fallback = Some(cause.word);
                match self.forward(exchange, plan, branch, request).await {
                    Ok(answer) => {
                        series.fell_back(FallbackResult::Upstream);
                        answer
                    }
                    Err(error) => {
                        series.fell_back(FallbackResult::Failed);
                        exchange.fallback = None;
                        return Err(first.unwrap_or(error));
                    }
                }
            }
        };
        let word = HeaderValue::from_static(cause.word);
        answer.response.headers.insert(MARK, word);
        Ok(answer)
    }

    /// The request's body as it can be sent, once or again: the one that was kept when a fallback sends it.
    pub(super) fn source(
        &self,
        exchange: &mut Exchange,
        plan: &RoutePlan,
        request: &mut Request,
    ) -> SharedSource {
        if let Some(kept) = exchange.source.take() {
            kept.borrow_mut().rewind();
            return kept;
        }
        if request.body.is_empty() {
            return self.empty.clone();
        }
        let body = std::mem::replace(&mut request.body, Body::Empty);
        let for_retries = plan.item.retry.value.as_ref().map(|rules| rules.max_replay);
        let for_fallback = plan.compiled.fallback.map(|_| KEPT);
        let limit = for_retries.or(for_fallback).unwrap_or(0);
        let source = Source::new(body, limit, plan.item.max_body.value);
        let source = Rc::new(RefCell::new(source));
        exchange.source = plan.compiled.fallback.map(|_| source.clone());
        source
    }
}

/// What was taken of the first upstream is given back.
fn leave(exchange: &mut Exchange, answer: Option<Answer>) {
    drop(answer);
    exchange.tried.end_all();
    guard::settle(exchange, clock::now());
    exchange.pass = Pass::default();
    if let Some(slot) = exchange.slot.take() {
        slot.finish(exchange.outcome, clock::now());
    }
    exchange.permit = None;
}

/// An answer that says that the upstream could not.
fn refused(response: &Response) -> Option<Cause> {
    let unavailable = grpc_status(&response.headers) == Some(grpc_code::UNAVAILABLE);
    let status = if unavailable {
        503
    } else {
        response.status.as_u16()
    };
    let word = match status {
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        501..=599 => "5xx",
        _ => return None,
    };
    Some(Cause {
        kind: FallbackOn::Status(status),
        word,
        left: true,
    })
}

/// What of our own refusals means that the upstream could not.
fn failed(code: Code) -> Option<Cause> {
    let kind = match code {
        Code::NoEndpoint
        | Code::UnknownService
        | Code::ServiceLookupFailed
        | Code::TooManyServices => FallbackOn::Connect,
        Code::RouteTimeout | Code::PerTryTimeout | Code::AdaptiveTimeout => FallbackOn::Timeout,
        Code::UpstreamReset | Code::UpstreamBadResponse | Code::UpstreamResponseTooLarge => {
            FallbackOn::Reset
        }
        _ => match code.phase() {
            Phase::Balance => FallbackOn::Overloaded,
            Phase::Connect => FallbackOn::Connect,
            _ => return None,
        },
    };
    Some(Cause {
        kind,
        word: code.word(),
        left: !matches!(code.phase(), Phase::Route | Phase::Balance | Phase::Connect),
    })
}
