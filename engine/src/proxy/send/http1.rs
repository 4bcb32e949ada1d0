//! A request over an HTTP/1 wire, and its answer's head.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};

use super::super::limit::Limit;
use super::super::replay::SharedSource;
use super::super::tunnel::End;
use super::{Failure, Pump, PumpError, Sent, framing, is_safe};
use crate::exchange::body::Body;
use crate::exchange::error::Code;
use crate::exchange::headers::Sender;
use crate::exchange::{Marks, Request, Response};
use crate::http1::wire::{HeadFault, Home, SharedWire};
use crate::http1::{Framing, Incoming, ResponseHead, encode, parse_response};
use crate::net::tls::REFUSED_US;
use crate::upstream::pool::Pool;

/// Largest answer head.
const HEAD: usize = 64 * 1024;
/// Interim answers (1xx) before the real one.
const INTERIM: usize = 64;

pub(in crate::proxy) async fn over_http1(
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
        encode::request_line(out, &request.method, request.target.as_str());
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
                    HeadFault::Io(error) if error.kind() == REFUSED_US => {
                        Failure::refused_us(&error)
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
            tunnel: Some(End::Wire(wire)),
            waited: None,
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
        waited: None,
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
