//! One request over one way: writes the head, passes the body on while the answer may already come, reads the answer's
//! head. Says of every failure whether anything may have left. `http1`, `http2` and `extended` (upgrades over HTTP/2) speak;
//! here is what all of them say.

mod extended;
mod http1;
mod http2;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::header;

use super::replay::SharedSource;
use super::retry::Ending;
use super::tunnel::End;
use crate::exchange::body::BodyError;
use crate::exchange::error::{Code, Error};
use crate::exchange::headers::is_idempotent;
use crate::exchange::{Request, Response};
use crate::http1::Framing;
use crate::upstream::Outcome;

pub(super) use extended::over_extended;
pub(super) use http1::over_http1;
pub(super) use http2::over_http2;

/// Passes a request's body on; ends when the last byte was written.
pub(super) type Pump = Pin<Box<dyn Future<Output = Result<(), PumpError>>>>;

/// Why passing on ended early.
#[derive(Debug)]
pub(super) enum PumpError {
    /// The client's side.
    Client(BodyError),
    /// The endpoint does not take it; its answer may still come.
    Upstream,
}

/// An answer's head, and what still runs.
pub(super) struct Sent {
    pub response: Response,
    /// The rest of the request's body.
    pub pump: Option<Pump>,
    /// After a 101: the endpoint's end.
    pub tunnel: Option<End>,
    /// How long its head was waited for after the request had left.
    pub waited: Option<Duration>,
}

/// A try that brought no answer.
pub(super) struct Failure {
    pub error: Error,
    pub ending: Ending,
    pub outcome: Outcome,
    /// Some of the request may have been taken.
    pub left: bool,
    /// A reused connection that was closed before it took or said anything.
    pub stale: bool,
    /// Another try could help.
    pub again: bool,
    /// How long an answer was waited for in vain, when a time-out ended that.
    pub waited: Option<Duration>,
}

impl Failure {
    pub(super) fn connect(error: Error) -> Self {
        Failure {
            error,
            ending: Ending::Connect,
            outcome: Outcome::Failure,
            left: false,
            stale: false,
            again: true,
            waited: None,
        }
    }

    /// Our own bound; says nothing about the endpoint.
    pub(super) fn refused(error: Error) -> Self {
        Failure {
            outcome: Outcome::Cancelled,
            again: false,
            ..Self::connect(error)
        }
    }

    pub(super) fn late(why: Code, error: Error) -> Self {
        let outcome = if matches!(why, Code::BodyTimeout | Code::DeadlineExceeded) {
            Outcome::Cancelled
        } else {
            Outcome::Failure
        };
        Failure {
            error,
            ending: Ending::PerTry,
            outcome,
            left: true,
            stale: false,
            again: matches!(why, Code::PerTryTimeout | Code::AdaptiveTimeout),
            waited: None,
        }
    }

    /// The endpoint is a member of the mesh and refused our certificate, which in TLS 1.3 a client learns after it has
    /// sent: nothing of it was looked at.
    pub(super) fn refused_us(error: &std::io::Error) -> Self {
        Self::connect(Error::because(Code::ConnectFailed, error.to_string()))
    }

    /// Whether it is such a one: nothing else that happens after sending counts as a connection that failed.
    pub(super) fn is_refusal_of_us(&self) -> bool {
        self.ending == Ending::Connect && self.outcome == Outcome::Failure
    }

    pub(super) fn reset(cause: impl Into<Box<str>>, left: bool, stale: bool) -> Self {
        let error = Error::because(Code::UpstreamReset, cause);
        Failure {
            error,
            ending: Ending::Reset,
            outcome: Outcome::Failure,
            left,
            stale,
            again: true,
            waited: None,
        }
    }

    pub(super) fn bad(code: Code) -> Self {
        Failure {
            error: code.into(),
            ending: Ending::Reset,
            outcome: Outcome::Failure,
            left: true,
            stale: false,
            again: false,
            waited: None,
        }
    }

    pub(super) fn client(error: BodyError) -> Self {
        let code = match error {
            BodyError::Malformed => Code::BadChunk,
            BodyError::TooLarge => Code::BodyTooLarge,
            BodyError::Idle => Code::BodyTimeout,
            BodyError::Truncated | BodyError::Io(_) | BodyError::Reset(_) => Code::BodyAborted,
        };
        let error = Error::because(code, error.to_string());
        Failure {
            error,
            ending: Ending::Reset,
            outcome: Outcome::Cancelled,
            left: true,
            stale: false,
            again: false,
            waited: None,
        }
    }
}

/// Safe to send twice even if the first may have been taken.
pub(super) fn is_safe(request: &Request) -> bool {
    is_idempotent(&request.method, &request.headers)
}

fn framing(request: &Request, source: &SharedSource) -> Framing {
    let source = source.borrow();
    match source.length() {
        Some(0) => Framing::None,
        None if source.ended => Framing::None,
        _ if request.upgrade.is_some() => Framing::None,
        // An HTTP/2 body whose length was announced keeps it; the stream has been checked against it.
        None => match request
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| crate::http1::head::parse_length(value.as_bytes()))
        {
            Some(length) if request.is_http2 => Framing::Length(length),
            _ => Framing::Chunked,
        },
        Some(length) => Framing::Length(length),
    }
}
