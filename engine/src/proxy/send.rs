//! One request over one way: writes the head, passes the body on while the answer may already come, reads the answer's
//! head. Says of every failure whether anything may have left.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri, Version, header};

use super::forward::Limit;
use super::replay::SharedSource;
use super::retry::Ending;
use crate::exchange::body::{Body, BodyError, Http2Body};
use crate::exchange::error::{Code, Error};
use crate::exchange::headers::{Sender, is_idempotent};
use crate::exchange::{Marks, Request, Response};
use crate::http1::wire::{HeadFault, Home, SharedWire};
use crate::http1::{Framing, Incoming, ResponseHead, encode, parse_response};
use crate::upstream::Outcome;
use crate::upstream::pool::{Place, Pool};

/// Largest answer head.
const HEAD: usize = 64 * 1024;
/// Interim answers (1xx) before the real one.
const INTERIM: usize = 64;

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
    /// After a 101: the endpoint's wire.
    pub tunnel: Option<SharedWire>,
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
            again: why == Code::PerTryTimeout,
        }
    }

    fn reset(cause: impl Into<Box<str>>, left: bool, stale: bool) -> Self {
        let error = Error::because(Code::UpstreamReset, cause);
        Failure {
            error,
            ending: Ending::Reset,
            outcome: Outcome::Failure,
            left,
            stale,
            again: true,
        }
    }

    fn bad(code: Code) -> Self {
        Failure {
            error: code.into(),
            ending: Ending::Reset,
            outcome: Outcome::Failure,
            left: true,
            stale: false,
            again: false,
        }
    }

    fn client(error: BodyError) -> Self {
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
        }
    }
}

/// Safe to send twice even if the first may have been taken.
pub(super) fn is_safe(request: &Request) -> bool {
    is_idempotent(&request.method, &request.headers)
}

pub(super) async fn over_http1(
    wire: SharedWire,
    reused: bool,
    pool: Rc<Pool>,
    sender: &Sender<'_>,
    request: &Request,
    source: &SharedSource,
    limit: &Limit,
) -> Result<Sent, Failure> {
    let framing = framing(request, source);
    if reused && !is_safe(request) && is_closed(&wire) {
        // Costs one system call, and only for what could not be repeated.
        return Err(Failure::reset(
            "a pooled connection had been closed",
            false,
            true,
        ));
    }
    {
        let mut wire = wire.borrow_mut();
        let out = wire.queue();
        // A WebSocket that came by extended CONNECT goes on as the GET it once was (RFC 8441 section 5).
        let method = if request.upgrade.is_some() && request.is_http2 {
            &Method::GET
        } else {
            &request.method
        };
        encode::request_line(out, method, request.target.as_str());
        sender.write_http1(out, request);
        encode::framing(out, framing);
        if framing == Framing::None
            && matches!(request.method, Method::POST | Method::PUT | Method::PATCH)
        {
            encode::field(out, "content-length", b"0");
        }
        encode::end_of_head(out);
    }
    let mut pump: Option<Pump> = match framing {
        Framing::None => None,
        _ => Some(Box::pin(pump_http1(
            wire.clone(),
            source.clone(),
            framing == Framing::Chunked,
        ))),
    };
    let mut broken = false;
    let mut interim = 0;
    let head = loop {
        let head = poll_fn(|cx| {
            if !broken {
                match poll_sending(&wire, &mut pump, source, limit, cx) {
                    Ok(()) => {}
                    Err(PumpError::Client(error)) => {
                        return Poll::Ready(Err(Failure::client(error)));
                    }
                    // What it has said before it stopped listening may still be read (HI-47).
                    Err(PumpError::Upstream) => broken = true,
                }
            }
            let mut borrowed = wire.borrow_mut();
            let untouched = borrowed.read.is_empty();
            let result = ready!(borrowed.poll_head(cx, HEAD, false));
            Poll::Ready(result.map_err(|fault| {
                let silent = untouched && borrowed.read.is_empty();
                match fault {
                    HeadFault::Refused(Code::UpstreamResponseTooLarge) => {
                        Failure::bad(Code::UpstreamResponseTooLarge)
                    }
                    HeadFault::Refused(_) => Failure::bad(Code::UpstreamBadResponse),
                    HeadFault::Closed => Failure::reset(
                        "closed before an answer",
                        true,
                        reused && silent && interim == 0,
                    ),
                    HeadFault::Truncated => {
                        Failure::reset("closed inside the answer's head", true, false)
                    }
                    HeadFault::Io(error) => {
                        Failure::reset(error.to_string(), true, reused && silent && interim == 0)
                    }
                }
            }))
        })
        .await?;
        let head = parse_response(&head, &request.method).map_err(Failure::bad)?;
        if !head.status.is_informational() {
            break head;
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            if request.upgrade.is_none() {
                return Err(Failure::bad(Code::UpstreamBadResponse));
            }
            break head;
        }
        interim += 1;
        if interim > INTERIM {
            return Err(Failure::bad(Code::UpstreamBadResponse));
        }
    };
    Ok(answered_http1(wire, pool, head, pump, broken))
}

/// Flushes the head, or passes the body on.
fn poll_sending(
    wire: &SharedWire,
    pump: &mut Option<Pump>,
    source: &SharedSource,
    limit: &Limit,
    cx: &mut Context<'_>,
) -> Result<(), PumpError> {
    match pump {
        Some(pumping) => {
            let before = source.borrow().seen;
            let polled = pumping.as_mut().poll(cx);
            let seen = source.borrow().seen;
            if seen != before {
                limit.moved(seen);
            }
            match polled {
                Poll::Ready(result) => {
                    *pump = None;
                    limit.sent();
                    result
                }
                Poll::Pending => Ok(()),
            }
        }
        None => {
            let flushed = wire.borrow_mut().poll_flush(cx);
            if matches!(flushed, Poll::Ready(Err(_))) {
                Err(PumpError::Upstream)
            } else {
                Ok(())
            }
        }
    }
}

fn answered_http1(
    wire: SharedWire,
    pool: Rc<Pool>,
    head: ResponseHead,
    pump: Option<Pump>,
    broken: bool,
) -> Sent {
    let announced = head
        .fields
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| crate::http1::head::parse_length(value.as_bytes()));
    let mut response = Response::new(head.status, HeaderMap::new(), Body::Empty);
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        response.headers = head.fields.headers;
        response.is_http1 = true;
        return Sent {
            response,
            pump: None,
            tunnel: Some(wire),
        };
    }
    {
        let mut wire = wire.borrow_mut();
        wire.remaining = head.framing.into();
        wire.idle_for = match head.fields.marks.has(Marks::KEEP_ALIVE) {
            true => head
                .fields
                .headers
                .get("keep-alive")
                .and_then(|value| idle_hint(value.as_bytes())),
            false => None,
        };
        wire.persists =
            head.fields.persists(head.is_1_0) && head.framing != Framing::Close && !broken;
        // Less than two seconds is a race that nobody needs.
        wire.persists &= wire.idle_for.is_none_or(|idle| !idle.is_zero());
    }
    response.announced = announced;
    response.headers = head.fields.headers;
    response.named = head.fields.named;
    response.is_http1 = true;
    if head.framing == Framing::None {
        if pump.is_none() {
            pool.welcome(wire);
        }
    } else {
        response.body = Body::Http1(Incoming::of_upstream(wire, Some(pool)));
    }
    Sent {
        response,
        pump,
        tunnel: None,
    }
}

/// `timeout=N` of a `Keep-Alive` field, less one second for the way.
fn idle_hint(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    let seconds: u64 = text
        .split(',')
        .find_map(|part| part.trim().strip_prefix("timeout="))?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.saturating_sub(1)))
}

/// Asks the kernel whether the endpoint has closed; sees what the poller has not been told yet.
fn is_closed(wire: &SharedWire) -> bool {
    let wire = wire.borrow();
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
    !matches!(
        rustix::net::recv(wire.stream.socket(), &mut [0u8; 1], flags),
        Err(rustix::io::Errno::AGAIN)
    )
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

async fn pump_http1(
    wire: SharedWire,
    source: SharedSource,
    chunked: bool,
) -> Result<(), PumpError> {
    loop {
        let frame = poll_fn(|cx| {
            let frame = source.borrow_mut().poll_frame(cx);
            if frame.is_pending() {
                // The head, and what is queued, leave while the next piece is awaited.
                if let Poll::Ready(Err(_)) = wire.borrow_mut().poll_flush(cx) {
                    return Poll::Ready(Err(PumpError::Upstream));
                }
            }
            frame.map(Ok)
        })
        .await?;
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Err(PumpError::Client(error)),
            None => {
                if chunked {
                    encode::last_chunk(wire.borrow_mut().queue(), None);
                }
                return flush(&wire).await;
            }
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                let full = {
                    let mut wire = wire.borrow_mut();
                    if chunked {
                        encode::chunk_size(wire.queue(), &data);
                    }
                    let large = data.len() > 8 * 1024;
                    wire.queue_data(data);
                    large || wire.queued() > 32 * 1024
                };
                if full {
                    flush(&wire).await?;
                }
                if chunked {
                    wire.borrow_mut().queue().extend_from_slice(b"\r\n");
                }
            }
            Err(frame) => {
                if chunked {
                    encode::last_chunk(wire.borrow_mut().queue(), frame.trailers_ref());
                    return flush(&wire).await;
                }
            }
        }
    }
}

async fn flush(wire: &SharedWire) -> Result<(), PumpError> {
    poll_fn(|cx| wire.borrow_mut().poll_flush(cx))
        .await
        .map_err(|_| PumpError::Upstream)
}

pub(super) async fn over_http2(
    place: Place,
    secure: bool,
    sender: &Sender<'_>,
    request: &Request,
    source: &SharedSource,
    limit: &Limit,
) -> Result<Sent, Failure> {
    if request.upgrade.is_some() {
        return Err(Failure::refused(Error::because(
            Code::UpgradeRefused,
            "the upstream speaks HTTP/2, which has no Upgrade",
        )));
    }
    let authority = sender
        .host
        .map_or(request.authority.as_bytes(), |host| host.as_bytes());
    let head = http2_head(request, authority, secure, sender.for_http2(request))
        .ok_or_else(|| Failure::bad(Code::BadHost))?;
    let mut send = place
        .ready()
        .await
        .map_err(|error| Failure::reset(error.to_string(), false, true))?;
    let ends = framing(request, source) == Framing::None;
    let (answer, stream) = send.send_request(head, ends).map_err(|error| {
        place.retire();
        Failure::reset(error.to_string(), false, true)
    })?;
    let mut pump: Option<Pump> =
        (!ends).then(|| Box::pin(pump_http2(stream, source.clone())) as Pump);
    let mut answer = std::pin::pin!(answer);
    let answer = poll_fn(|cx| {
        if let Some(pumping) = &mut pump {
            let before = source.borrow().seen;
            let polled = pumping.as_mut().poll(cx);
            let seen = source.borrow().seen;
            if seen != before {
                limit.moved(seen);
            }
            if let Poll::Ready(result) = polled {
                pump = None;
                limit.sent();
                if let Err(PumpError::Client(error)) = result {
                    return Poll::Ready(Err(Failure::client(error)));
                }
            }
        }
        answer.as_mut().poll(cx).map_err(|error| {
            let untaken = error.reason() == Some(h2::Reason::REFUSED_STREAM)
                || (error.is_go_away() && error.is_remote());
            if error.is_go_away() || error.is_io() {
                place.retire();
            }
            let mut failure =
                Failure::reset(error.to_string(), !untaken, error.is_go_away() && untaken);
            if error.is_library()
                || (error.reason() == Some(h2::Reason::PROTOCOL_ERROR) && !error.is_remote())
            {
                failure = Failure::bad(Code::UpstreamBadResponse);
            }
            failure
        })
    })
    .await?;
    let (parts, stream) = answer.into_parts();
    let mut response = Response::new(parts.status, parts.headers, Body::Empty);
    response.announced = response
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| crate::http1::head::parse_length(value.as_bytes()));
    if !stream.is_end_stream() {
        response.body = Body::Http2(Http2Body {
            stream,
            place: Some(Box::new(place)),
            ended: false,
        });
    }
    Ok(Sent {
        response,
        pump,
        tunnel: None,
    })
}

fn http2_head(
    request: &Request,
    authority: &[u8],
    secure: bool,
    headers: HeaderMap,
) -> Option<http::Request<()>> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(Authority::try_from(authority).ok()?);
    parts.path_and_query = Some(PathAndQuery::try_from(request.target.as_str()).ok()?);
    let mut head = http::Request::new(());
    *head.method_mut() = request.method.clone();
    *head.uri_mut() = Uri::from_parts(parts).ok()?;
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = headers;
    Some(head)
}

async fn pump_http2(mut stream: SendStream<Bytes>, source: SharedSource) -> Result<(), PumpError> {
    loop {
        let frame = poll_fn(|cx| source.borrow_mut().poll_frame(cx)).await;
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                stream.send_reset(h2::Reason::CANCEL);
                return Err(PumpError::Client(error));
            }
            None => {
                return stream
                    .send_data(Bytes::new(), true)
                    .map_err(|_| PumpError::Upstream);
            }
        };
        match frame.into_data() {
            Ok(data) => send_http2(&mut stream, data)
                .await
                .map_err(|_| PumpError::Upstream)?,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                return stream
                    .send_trailers(trailers)
                    .map_err(|_| PumpError::Upstream);
            }
        }
    }
}

/// Sends one piece as the window allows, waiting for room before taking more.
pub(super) async fn send_http2(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        if stream.capacity() == 0 {
            poll_fn(|cx| {
                loop {
                    return match ready!(stream.poll_capacity(cx)) {
                        Some(Ok(0)) => continue,
                        Some(Ok(_)) => Poll::Ready(Ok(())),
                        Some(Err(error)) => Poll::Ready(Err(error)),
                        None => Poll::Ready(Err(h2::Error::from(h2::Reason::CANCEL))),
                    };
                }
            })
            .await?;
        }
        let count = stream.capacity().min(data.len());
        stream.send_data(data.split_to(count), false)?;
    }
    Ok(())
}
