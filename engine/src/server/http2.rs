//! Serves one HTTP/2 connection. Frames, flow control and most floods are the library's; what it does not judge is
//! judged here: cancel storms, silent peers, answers nobody reads.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Ping, PingPong, Reason};
use http::{HeaderValue, Method, StatusCode, header};

use super::desk::{Desks, Work};
use super::door::Guest;
use super::http1::Limits;
use super::liveness::{Liveness, Step};
use super::{linger, request};
use crate::alarm::Alarm;
use crate::clock;
use crate::exchange::body::{Body, BodyError, Http2Body};
use crate::exchange::error::Code;
use crate::exchange::headers::with_date;
use crate::net::batched::Batched;
use crate::net::stream::Stream;
use crate::proxy::tunnel::{self, End};
use crate::proxy::{Answer, Connection, Proxy};
use crate::upstream::pool::{CONNECTION_WINDOW, STREAM_WINDOW};

const STREAMS: u32 = 256;
/// Streams that a client may cancel before their answer began, beyond half of those it opened (HI-26, HI-27).
const CANCELS: u32 = 200;
/// How long a connection without streams lasts after it was told to go.
const FAREWELL: Duration = Duration::from_secs(1);
/// A connection without streams for so long gives back the memory that they need.
const PAUSE: Duration = Duration::from_millis(500);
#[derive(Default)]
struct Tally {
    open: Cell<usize>,
    begun: Cell<u32>,
    cancelled: Cell<u32>,
}

/// One stream, counted while it lives.
pub(super) struct Streaming(Rc<Tally>);

impl Streaming {
    fn begin(tally: &Rc<Tally>) -> Self {
        tally.open.set(tally.open.get() + 1);
        tally.begun.set(tally.begun.get().saturating_add(1));
        Streaming(tally.clone())
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get().saturating_sub(1));
    }
}

pub async fn serve(
    proxy: Rc<Proxy>,
    connection: Rc<Connection>,
    guest: Guest,
    stream: Stream,
    read: BytesMut,
    limits: Limits,
) {
    let mut io = Batched::new(stream, read);
    let alarm = Alarm::default();
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.max_header_size).unwrap_or(64 * 1024))
        .max_concurrent_reset_streams(64)
        .max_pending_accept_reset_streams(64)
        .max_local_error_reset_streams(Some(128))
        .max_send_buffer_size(64 * 1024)
        .enable_connect_protocol();
    let mut shaking = pin!(builder.handshake::<_, Bytes>(io.clone()));
    let shaken = alarm
        .until(
            Some(Instant::now() + limits.header_timeout),
            poll_fn(|cx| {
                let polled = shaking.as_mut().poll(cx);
                let _shows_at_the_next_read = io.flush_now(cx);
                polled
            }),
        )
        .await;
    let mut http2 = match shaken {
        Ok(Ok(http2)) => http2,
        // The bad preface was not read to its end (HI-38; RFC 9113 section 3.4).
        Ok(Err(error)) if error.is_library() => {
            return Box::pin(part(&mut io, &alarm)).await;
        }
        Ok(Err(_)) | Err(_) => return flush(&io).await,
    };
    let tally = Rc::new(Tally::default());
    let mut pings = http2.ping_pong().map(Pings::new);
    let mut idle_since = Instant::now();
    let desks = Rc::new(Desks::default());
    let (mut leaving, mut farewell) = (false, None::<Instant>);
    let mut resting = true;
    let refused = loop {
        let accepted = poll_fn(|cx| {
            if !leaving && guest.is_leaving(cx) {
                leaving = true;
                http2.graceful_shutdown();
            }
            let polled = http2.poll_accept(cx);
            if let Poll::Ready(Err(_)) = io.flush_now(cx) {
                return Poll::Ready(None);
            }
            if polled.is_ready() {
                return polled;
            }
            if is_storm(&tally) {
                http2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            let now_idle = tally.open.get() == 0;
            if !now_idle {
                resting = false;
                idle_since = clock::recent();
                if let Some(pings) = &mut pings {
                    return pings.poll_dead(&alarm, cx).map(|()| None);
                }
                return Poll::Pending;
            }
            if !resting {
                if alarm.poll_at(idle_since + PAUSE, cx).is_pending() {
                    return Poll::Pending;
                }
                resting = true;
                desks.dismiss();
                io.rest();
            }
            if leaving {
                // Streams that were on their way are here by now; who does not close then is not waited for.
                let since = *farewell.get_or_insert_with(clock::now);
                return alarm
                    .poll_at(since.max(idle_since) + FAREWELL, cx)
                    .map(|()| None);
            }
            if alarm
                .poll_at(idle_since + limits.idle_timeout, cx)
                .is_ready()
            {
                leaving = true;
                http2.graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
        match accepted {
            Some(Ok((request, respond))) => {
                let streaming = Streaming::begin(&tally);
                if let Some(work) = desks.give((streaming, request, respond)) {
                    let visit = Visit {
                        proxy: proxy.clone(),
                        connection: connection.clone(),
                        alarm: Rc::default(),
                    };
                    tokio::task::spawn_local(Box::pin(visit.answer(desks.clone(), work)));
                }
            }
            // We said why in a GOAWAY, and the client may be sending still (HI-37; RFC 9113 section 5.4.1).
            Some(Err(error)) => break error.is_library(),
            None => break is_storm(&tally),
        }
    };
    desks.close();
    if refused {
        // Its streams end now, and not after the farewell.
        drop(http2);
        Box::pin(part(&mut io, &alarm)).await;
    } else {
        flush(&io).await;
    }
}

async fn flush(io: &Batched) {
    poll_fn(|cx| {
        let _best_effort = io.flush_now(cx);
        Poll::Ready(())
    })
    .await;
}

/// Sends what was gathered, and lets the client read it.
async fn part(io: &mut Batched, alarm: &Alarm) {
    let mut dropped = 0;
    let dropping = poll_fn(|cx| linger::poll(io, &mut dropped, cx));
    let until = Instant::now() + linger::TIME;
    let _late_or_done = alarm.until(Some(until), dropping).await;
}

/// Counts cancelled work, not open streams.
fn is_storm(tally: &Tally) -> bool {
    let (begun, cancelled) = (tally.begun.get(), tally.cancelled.get());
    cancelled > CANCELS && cancelled > begun / 2
}

struct Pings {
    pings: PingPong,
    liveness: Liveness,
}

impl Pings {
    fn new(pings: PingPong) -> Self {
        let liveness = Liveness::new(clock::now());
        Pings { pings, liveness }
    }

    /// Ready when the peer did not answer.
    fn poll_dead(&mut self, alarm: &Alarm, cx: &mut Context<'_>) -> Poll<()> {
        if self.liveness.is_asked() && self.pings.poll_pong(cx).is_ready() {
            self.liveness.answered(clock::now());
        }
        loop {
            match self.liveness.step(clock::recent()) {
                Step::Dead => return Poll::Ready(()),
                Step::Ask => {
                    // One that cannot be sent is one that is not answered.
                    let _dead_in_time = self.pings.send_ping(Ping::opaque());
                    let _registered = self.pings.poll_pong(cx);
                    cx.waker().wake_by_ref();
                }
                Step::Wait(until) => {
                    if alarm.poll_at(until, cx).is_pending() {
                        return Poll::Pending;
                    }
                    clock::now();
                }
            }
        }
    }
}

/// What one task of a connection needs for its streams.
struct Visit {
    proxy: Rc<Proxy>,
    connection: Rc<Connection>,
    alarm: Rc<Alarm>,
}

impl Visit {
    /// Answers this stream, then the next ones that it is given.
    async fn answer(self, desks: Rc<Desks>, mut work: Work) {
        let desk = Rc::default();
        loop {
            one(&self, work).await;
            match desks.next(&desk).await {
                Some(next) => work = next,
                None => return,
            }
        }
    }
}

/// One stream: a request and its answer.
async fn one(visit: &Visit, (streaming, head, mut respond): Work) {
    let Visit {
        proxy,
        connection,
        alarm,
    } = visit;
    let (parts, receive) = head.into_parts();
    let is_head = parts.method == Method::HEAD;
    let mut request = match request::from_http2(parts) {
        Ok(request) => request,
        Err(error) => {
            let response = proxy.refuse(connection, &error);
            // The client may be sending still; it is let finish reading before its stream ends (HI-47).
            let _lingers = Body::Http2(Http2Body {
                stream: receive,
                place: None,
                ended: false,
            });
            return Box::pin(write(Answer::of(response), respond, is_head)).await;
        }
    };
    let tunnel = request.upgrade.is_some() || request.is_tunnel();
    let mut held = None;
    if tunnel {
        held = Some(receive);
        proxy.websocket_key(&mut request);
    } else if !receive.is_end_stream() {
        request.body = Body::Http2(Http2Body {
            stream: receive,
            place: None,
            ended: false,
        });
    }
    let answer = {
        let mut handling = pin!(proxy.handle(connection, alarm, request));
        poll_fn(|cx| match handling.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
        })
        .await
    };
    let Some(mut answer) = answer else {
        streaming
            .0
            .cancelled
            .set(streaming.0.cancelled.get().saturating_add(1));
        return;
    };
    if answer.is_cut {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return answer.finish();
    }
    match (answer.tunnel.take(), held) {
        (Some(upstream), Some(receive)) => {
            let mut head = http::Response::new(());
            answer.response.strip();
            answer.response.headers.remove("sec-websocket-accept");
            *head.headers_mut() = std::mem::take(&mut answer.response.headers);
            match respond.send_response(head, false) {
                Ok(send) => {
                    let client = End::Stream {
                        receive,
                        send,
                        place: None,
                    };
                    // Rare and large.
                    Box::pin(tunnel::run(client, upstream, answer)).await;
                }
                Err(_) => answer.abandoned(Code::ClientClosed),
            }
        }
        _ => write(answer, respond, is_head).await,
    }
}

async fn write(mut answer: Answer, mut respond: SendResponse<Bytes>, is_head: bool) {
    let mut head = http::Response::new(());
    *head.status_mut() = answer.response.status;
    answer.response.strip();
    let length = answer.response.body.length().or(answer.response.announced);
    let bodiless = is_head
        || matches!(
            answer.response.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let announced = if bodiless {
        answer.response.announced
    } else {
        length
    };
    let mut headers = std::mem::take(&mut answer.response.headers);
    if let Some(length) = announced.filter(|_| {
        answer.response.status != StatusCode::NO_CONTENT
            && !headers.contains_key(header::CONTENT_LENGTH)
    }) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !headers.contains_key(header::DATE)
        && let Ok(date) = with_date(HeaderValue::from_str)
    {
        headers.insert(header::DATE, date);
    }
    *head.headers_mut() = headers;
    let ends = bodiless || answer.response.body.is_empty();
    let mut stream = match respond.send_response(head, ends) {
        Ok(stream) => stream,
        Err(_) => return answer.abandoned(Code::ClientClosed),
    };
    if ends {
        return answer.finish();
    }
    let mut pending = Bytes::new();
    loop {
        // A piece that waits for the client's window is governed by the idle time-out like one that does not come.
        if !pending.is_empty() {
            stream.reserve_capacity(pending.len());
            let room = poll_fn(|cx| {
                answer.poll_pump(cx);
                if stream.capacity() > 0 {
                    return Poll::Ready(Some(stream.capacity()));
                }
                match stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(0))) => {
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Poll::Ready(Some(Ok(capacity))) => Poll::Ready(Some(capacity)),
                    Poll::Ready(_) => Poll::Ready(None),
                    Poll::Pending => answer.poll_idle(cx).map(|()| None),
                }
            })
            .await;
            let Some(room) = room else {
                stream.send_reset(Reason::CANCEL);
                return answer.abandoned(Code::ClientClosed);
            };
            let part = pending.split_to(room.min(pending.len()));
            answer.wrote(part.len() as u64);
            answer.moved();
            let last = pending.is_empty() && answer.response.body.is_empty();
            if stream.send_data(part, last).is_err() {
                return answer.abandoned(Code::ClientClosed);
            }
            if last {
                return answer.finish();
            }
            continue;
        }
        // Nothing is read for a client whose window is shut: its share of memory is what was read with the head.
        stream.reserve_capacity(1);
        let frame = poll_fn(|cx| {
            let room = stream.capacity() > 0
                || matches!(stream.poll_capacity(cx), Poll::Ready(Some(Ok(capacity))) if capacity > 0);
            let polled = if room {
                answer.poll_frame(cx)
            } else {
                answer.poll_pump(cx);
                answer.poll_idle(cx).map(|()| Some(Err(BodyError::Idle)))
            };
            if let Poll::Ready(frame) = polled {
                return Poll::Ready(Ok(frame));
            }
            stream.poll_reset(cx).map(|_| Err(()))
        })
        .await;
        match frame {
            Err(()) => return answer.abandoned(Code::ClientClosed),
            Ok(None) => {
                let sent = stream.send_data(Bytes::new(), true);
                return if sent.is_ok() {
                    answer.finish()
                } else {
                    answer.abandoned(Code::ClientClosed)
                };
            }
            Ok(Some(Err(error))) => {
                // Whatever broke it, the client must not take it for whole (HI-41, HI-51).
                return stream.send_reset(match error {
                    BodyError::Reset(reason) => reason,
                    BodyError::Idle => Reason::CANCEL,
                    _ => Reason::INTERNAL_ERROR,
                });
            }
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => pending = data,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let sent = stream.send_trailers(trailers);
                    return if sent.is_ok() {
                        answer.finish()
                    } else {
                        answer.abandoned(Code::ClientClosed)
                    };
                }
            },
        }
    }
}
