//! A request over a stream of an HTTP/2 lane, and its answer's head.

use std::future::{Future, poll_fn};
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri, Version, header};

use super::super::limit::Limit;
use super::super::replay::SharedSource;
use super::{Failure, Pump, PumpError, Sent, framing};
use crate::exchange::body::{Body, Http2Body};
use crate::exchange::error::Code;
use crate::exchange::headers::Sender;
use crate::exchange::{Request, Response};
use crate::http1::Framing;
use crate::net::tls::REFUSED_US;
use crate::upstream::pool::Place;

pub(in crate::proxy) async fn over_http2(
    place: Place,
    secure: bool,
    sender: &Sender<'_>,
    request: &Request,
    source: &SharedSource,
    limit: &Limit,
) -> Result<Sent, Failure> {
    let head = head_of(request, secure, sender)?;
    let ends = framing(request, source) == Framing::None;
    let (answer, stream) = open(&place, head, ends).await?;
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
        answer
            .as_mut()
            .poll(cx)
            .map_err(|error| unanswered(&place, &error))
    })
    .await?;
    Ok(Sent {
        response: response_of(answer, place),
        pump,
        tunnel: None,
        waited: None,
    })
}

/// Opens a stream with this head.
pub(super) async fn open(
    place: &Place,
    head: http::Request<()>,
    ends: bool,
) -> Result<(ResponseFuture, SendStream<Bytes>), Failure> {
    let mut send = place.ready().await.map_err(|error| unsent(&error))?;
    send.send_request(head, ends).map_err(|error| {
        place.retire();
        Failure::reset(error.to_string(), false, true)
    })
}

/// The connection ended before anything was sent on it.
pub(super) fn unsent(error: &h2::Error) -> Failure {
    match error.get_io() {
        Some(error) if error.kind() == REFUSED_US => Failure::refused_us(error),
        _ => Failure::reset(error.to_string(), false, true),
    }
}

/// The stream ended without an answer's head.
pub(super) fn unanswered(place: &Place, error: &h2::Error) -> Failure {
    if let Some(error) = error.get_io().filter(|error| error.kind() == REFUSED_US) {
        place.retire();
        return Failure::refused_us(error);
    }
    let untaken = error.reason() == Some(h2::Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.is_remote());
    if error.is_go_away() || error.is_io() {
        place.retire();
    }
    if error.is_library()
        || (error.reason() == Some(h2::Reason::PROTOCOL_ERROR) && !error.is_remote())
    {
        return Failure::bad(Code::UpstreamBadResponse);
    }
    Failure::reset(error.to_string(), !untaken, error.is_go_away() && untaken)
}

/// An answer with its body still to come.
pub(super) fn response_of(answer: http::Response<RecvStream>, place: Place) -> Response {
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
    response
}

/// The head of a request as HTTP/2 has it.
pub(super) fn head_of(
    request: &Request,
    secure: bool,
    sender: &Sender<'_>,
) -> Result<http::Request<()>, Failure> {
    let authority = sender
        .host
        .map_or(request.authority.as_bytes(), |host| host.as_bytes());
    let uri = uri_of(request, authority, secure).ok_or_else(|| Failure::bad(Code::BadHost))?;
    let mut head = http::Request::new(());
    *head.method_mut() = if request.is_call {
        Method::POST
    } else {
        request.method.clone()
    };
    *head.uri_mut() = uri;
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = sender.for_http2(request);
    Ok(head)
}

fn uri_of(request: &Request, authority: &[u8], secure: bool) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(Authority::try_from(authority).ok()?);
    parts.path_and_query = Some(PathAndQuery::try_from(request.target.as_str()).ok()?);
    Uri::from_parts(parts).ok()
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
async fn send_http2(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
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
