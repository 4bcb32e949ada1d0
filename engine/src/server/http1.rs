//! Serves one HTTP/1 connection: a head, an answer, again, until either side is done or the door closes.
//!
//! Between requests the connection holds no buffers and one small task; everything that one request needs lives in a
//! boxed future of its own.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};
use tokio::io::AsyncWrite;

use super::door::Guest;
use super::{linger, request};
use crate::alarm::Alarm;
use crate::clock;
use crate::exchange::body::{Body, BodyError};
use crate::exchange::error::{Code, Error, written, written_size};
use crate::exchange::headers::{upgrade_fields, with_date};
use crate::exchange::{Marks, Response};
use crate::http1::wire::{HeadFault, SharedWire};
use crate::http1::{Framing, Incoming, Wire, encode, parse_request};
use crate::net::stream::Stream;
use crate::proxy::tunnel::{self, End};
use crate::proxy::{Answer, Connection, Proxy};
use crate::snapshot::ListenerPlan;

/// A client that says nothing for so long gives the memory of its requests back.
const PAUSE: Duration = Duration::from_millis(100);
/// How long after its last answer, or after it was accepted, a connection may still bring a request when the door
/// closes: the request may have been on its way.
pub(super) const GRACE: Duration = Duration::from_millis(250);
/// Requests that a client sends ahead are read up to this much.
const AHEAD: usize = 64 * 1024;

/// What the listener allows.
#[derive(Clone, Copy)]
pub struct Limits {
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_header_size: usize,
}

/// What becomes of the connection after an answer.
enum After {
    Again,
    /// The last bytes are out; read and drop what the client still sends.
    Linger,
    Close,
}

impl Limits {
    pub fn of(plan: &ListenerPlan) -> Self {
        Limits {
            header_timeout: plan.item.header_timeout.value,
            idle_timeout: plan.item.idle_timeout.value,
            max_header_size: usize::try_from(plan.item.max_header_size.value).unwrap_or(usize::MAX),
        }
    }
}

/// No `async fn`, which would hold its arguments beside what it makes of them as long as the connection lasts.
pub fn serve(
    proxy: Rc<Proxy>,
    connection: Rc<Connection>,
    guest: Guest,
    stream: Stream,
    read: BytesMut,
) -> impl Future<Output = ()> {
    let visit = Visit {
        proxy,
        connection,
        wire: Rc::new(RefCell::new(Wire::new(stream, read))),
        alarm: Rc::default(),
        guest,
    };
    async move {
        let mut first = true;
        while let Some(limits) = visit.limits() {
            let head = visit
                .wait_for_head(&limits, limits.idle_timeout, first)
                .await;
            let after = match head {
                Ok(None) => After::Close,
                head => Box::pin(visit.burst(head, &limits)).await,
            };
            first = false;
            match after {
                After::Again => {}
                After::Linger => return Box::pin(linger(&visit.wire, &visit.alarm)).await,
                After::Close => return shut(&visit.wire).await,
            }
        }
    }
}

/// One connection with all that its requests share.
struct Visit {
    proxy: Rc<Proxy>,
    connection: Rc<Connection>,
    wire: SharedWire,
    alarm: Rc<Alarm>,
    /// The last to go: while it counts, the socket is open.
    guest: Guest,
}

impl Visit {
    /// As they are now; `None` when the listener is gone.
    fn limits(&self) -> Option<Limits> {
        let world = self.proxy.view.current();
        world
            .listener(self.connection.listener)
            .map(|plan| Limits::of(plan))
    }

    /// Requests that follow one another closely: the memory that a request needs is there once for all of them, and
    /// given back when the client pauses.
    async fn burst(&self, mut head: Result<Option<Bytes>, Code>, limits: &Limits) -> After {
        loop {
            let after = match head {
                Ok(Some(head)) => self.one(head).await,
                Ok(None) => return After::Close,
                Err(code) => self.refuse_head(code, limits).await,
            };
            if !matches!(after, After::Again) {
                return after;
            }
            // A listener's own time-outs may have changed; whoever pauses meets the new ones.
            head = match self
                .wait_for_head(limits, PAUSE.min(limits.idle_timeout), false)
                .await
            {
                Ok(None) if self.is_pausing() => return After::Again,
                head => head,
            };
        }
    }

    /// Nobody is leaving and nothing was said: only the pause was long.
    fn is_pausing(&self) -> bool {
        let wire = self.wire.borrow();
        !wire.ended && wire.read.is_empty() && !self.guest.is_asked_to_leave()
    }

    async fn refuse_head(&self, code: Code, limits: &Limits) -> After {
        let governed = match code {
            Code::HeaderTimeout => {
                Some(("listener.header_timeout", written(limits.header_timeout)))
            }
            Code::HeaderTooLarge => Some((
                "listener.max_header_size",
                written_size(limits.max_header_size as u64),
            )),
            _ => None,
        };
        let error = match governed {
            Some((setting, value)) => Error::governed_by(
                code,
                setting,
                value,
                self.proxy.listener_place(&self.connection, code),
            ),
            None => code.into(),
        };
        self.refuse(&error).await
    }
}

impl Visit {
    /// `None`: nothing came for `patience`, nothing more will, or it is time to leave.
    fn wait_for_head<'v>(
        &'v self,
        limits: &'v Limits,
        patience: Duration,
        first: bool,
    ) -> impl Future<Output = Result<Option<Bytes>, Code>> + 'v {
        let since = if first { clock::now() } else { clock::recent() };
        let mut begun: Option<Instant> = first.then_some(since);
        self.wire.borrow_mut().rest();
        poll_fn(move |cx| {
            let Visit {
                wire, alarm, guest, ..
            } = self;
            let mut wire = wire.borrow_mut();
            match wire.poll_head(cx, limits.max_header_size, true) {
                Poll::Ready(Ok(head)) => return Poll::Ready(Ok(Some(head))),
                Poll::Ready(Err(HeadFault::Refused(code))) => return Poll::Ready(Err(code)),
                Poll::Ready(Err(HeadFault::Closed | HeadFault::Truncated | HeadFault::Io(_))) => {
                    return Poll::Ready(Ok(None));
                }
                Poll::Pending => {}
            }
            let silent = wire.read.is_empty();
            if silent && guest.is_leaving(cx) {
                // A request may be on its way; who has been silent for longer leaves at once.
                return alarm.poll_at(since + GRACE, cx).map(|()| Ok(None));
            }
            if silent && begun.is_none() {
                return alarm.poll_at(since + patience, cx).map(|()| Ok(None));
            }
            let begun = *begun.get_or_insert_with(Instant::now);
            alarm.poll_at(begun + limits.header_timeout, cx).map(|()| {
                if silent {
                    Ok(None)
                } else {
                    Err(Code::HeaderTimeout)
                }
            })
        })
    }

    /// One request and its answer.
    async fn one(&self, head: Bytes) -> After {
        let Visit {
            proxy,
            connection,
            wire,
            alarm,
            guest,
        } = self;
        let head = match parse_request(&head) {
            Ok(head) => head,
            Err(code) => return Box::pin(self.refuse(&code.into())).await,
        };
        let (framing, is_1_0) = (head.framing, head.is_1_0);
        // Behind a CONNECT that is refused, what the client sent ahead for its tunnel could be taken for requests.
        let persists = head.fields.persists(is_1_0) && head.method != Method::CONNECT;
        let is_head = head.method == Method::HEAD;
        let expects = !is_1_0 && head.fields.marks.has(Marks::EXPECT);
        let mut request = match request::from_http1(head) {
            Ok(request) => request,
            Err(error) => return Box::pin(self.refuse(&error)).await,
        };
        if framing != Framing::None {
            let mut borrowed = wire.borrow_mut();
            borrowed.remaining = framing.into();
            borrowed.expects_continue = expects;
            drop(borrowed);
            request.body = Body::Http1(Incoming::of_client(wire.clone()));
        }
        let answer = {
            let mut handling = pin!(proxy.handle(connection, alarm, request));
            poll_fn(|cx| match handling.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending if is_gone(wire, cx) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        // Dropping it abandons the exchange: the client went away.
        let Some(mut answer) = answer else {
            return After::Close;
        };
        if answer.is_cut {
            answer.finish();
            return After::Close;
        }
        if let Some(upstream) = answer.tunnel.take() {
            // Rare and large.
            return Box::pin(switch(wire, upstream, answer)).await;
        }
        let drained = drain_ready(wire);
        let persists = persists && drained && !guest.is_asked_to_leave();
        match write(wire, &mut answer, is_head, is_1_0, persists).await {
            Ok(true) => answer.finish(),
            Ok(false) => {
                // Cut: the client sees no proper end (HI-41).
                drop(answer);
                return After::Close;
            }
            Err(_) => {
                answer.abandoned(Code::ClientClosed);
                return After::Close;
            }
        }
        match (persists, drained) {
            (true, _) => After::Again,
            (false, false) => After::Linger,
            (false, true) => After::Close,
        }
    }
}

/// Whether the client has gone while its request is being answered; reads ahead what it pipelines.
fn is_gone(wire: &SharedWire, cx: &mut Context<'_>) -> bool {
    let mut wire = wire.borrow_mut();
    while wire.is_complete() && wire.read.len() < AHEAD {
        match wire.poll_fill(cx) {
            Poll::Ready(Ok(0) | Err(_)) => return true,
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => return false,
        }
    }
    false
}

/// Takes what is left of the request's body if it has arrived; whether the request is complete.
fn drain_ready(wire: &SharedWire) -> bool {
    let mut wire = wire.borrow_mut();
    if wire.is_complete() {
        return true;
    }
    if wire.expects_continue {
        return false;
    }
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut budget = AHEAD;
    while budget > 0 {
        match wire.poll_body(&mut cx) {
            Poll::Ready(None) => return true,
            Poll::Ready(Some(Ok(frame))) => {
                budget = budget.saturating_sub(frame.data_ref().map_or(1, |data| data.len().max(1)))
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
        }
    }
    wire.is_complete()
}

/// Writes a whole answer. `Ok(false)`: it broke off and must not look complete.
async fn write(
    wire: &SharedWire,
    answer: &mut Answer,
    is_head: bool,
    is_1_0: bool,
    persists: bool,
) -> Result<bool, ()> {
    let framing = write_head(
        &mut wire.borrow_mut(),
        &answer.response,
        is_head,
        is_1_0,
        persists,
    );
    let mut trailers_sent = false;
    loop {
        let frame = match framing {
            Framing::None => None,
            _ => {
                poll_fn(|cx| {
                    let frame = answer.poll_frame(cx);
                    if frame.is_pending() {
                        // The head, and every piece, leave before the next is awaited.
                        let flushed = wire.borrow_mut().poll_flush(cx);
                        if matches!(flushed, Poll::Ready(Err(_))) || is_gone(wire, cx) {
                            return Poll::Ready(Err(()));
                        }
                    }
                    frame.map(Ok)
                })
                .await?
            }
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                // What came before the break is the client's; then it sees the break.
                return match (error, flush(wire, answer).await) {
                    (BodyError::Idle, _) | (_, Ok(())) => Ok(false),
                    (_, Err(())) => Err(()),
                };
            }
            None => break,
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                answer.wrote(data.len() as u64);
                let large = data.len() > 8 * 1024;
                {
                    let mut wire = wire.borrow_mut();
                    if framing == Framing::Chunked {
                        encode::chunk_size(wire.queue(), &data);
                    }
                    wire.queue_data(data);
                }
                if large || wire.borrow().queued() > 32 * 1024 {
                    flush(wire, answer).await?;
                }
                if framing == Framing::Chunked {
                    wire.borrow_mut().queue().extend_from_slice(b"\r\n");
                }
            }
            Err(frame) => {
                if framing == Framing::Chunked {
                    encode::last_chunk(wire.borrow_mut().queue(), frame.trailers_ref());
                    trailers_sent = true;
                }
            }
        }
    }
    if framing == Framing::Chunked && !trailers_sent {
        encode::last_chunk(wire.borrow_mut().queue(), None);
    }
    flush(wire, answer).await?;
    Ok(true)
}

async fn flush(wire: &SharedWire, answer: &mut Answer) -> Result<(), ()> {
    poll_fn(|cx| {
        answer.poll_pump(cx);
        let before = wire.borrow().queued();
        let flushed = wire.borrow_mut().poll_flush(cx);
        if wire.borrow().queued() != before {
            answer.moved();
        }
        match flushed {
            Poll::Ready(result) => Poll::Ready(result.map_err(|_| ())),
            Poll::Pending => answer.poll_idle(cx).map(|()| Err(())),
        }
    })
    .await
}

/// Queues an answer's head and says how its body is framed.
fn write_head(
    wire: &mut Wire,
    response: &Response,
    is_head: bool,
    is_1_0: bool,
    persists: bool,
) -> Framing {
    let bodiless = is_head
        || matches!(
            response.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let length = response.body.length().or(response.announced);
    let framing = match length {
        _ if bodiless => Framing::None,
        Some(length) => Framing::Length(length),
        None if is_1_0 => Framing::Close,
        None => Framing::Chunked,
    };
    let out = wire.queue();
    encode::status_line(out, response.status);
    let mut dated = false;
    for (name, value) in &response.headers {
        if !response.skips(name) {
            dated |= name == header::DATE;
            encode::field(out, name.as_str(), value.as_bytes());
        }
    }
    if !dated {
        with_date(|date| encode::field(out, "date", date.as_bytes()));
    }
    match framing {
        Framing::None if response.status != StatusCode::NO_CONTENT => {
            // A HEAD or a 304 tells the length that the body would have had, when it is known.
            if let Some(length) = response
                .announced
                .or(response.body.length().filter(|length| *length > 0))
            {
                encode::framing(out, Framing::Length(length));
            }
        }
        _ => encode::framing(out, framing),
    }
    if !persists || framing == Framing::Close {
        out.extend_from_slice(b"connection: close\r\n");
    } else if is_1_0 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    encode::end_of_head(out);
    framing
}

/// The endpoint said 101, or is connected to: the head goes to the client, then bytes pass both ways.
async fn switch(wire: &SharedWire, upstream: End, mut answer: Answer) -> After {
    {
        let mut wire = wire.borrow_mut();
        let out = wire.queue();
        let response = &answer.response;
        encode::status_line(out, response.status);
        for (name, value) in &response.headers {
            if !response.skips(name) {
                encode::field(out, name.as_str(), value.as_bytes());
            }
        }
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            upgrade_fields(
                out,
                response
                    .headers
                    .get(header::UPGRADE)
                    .map_or(b"", |value| value.as_bytes()),
            );
        }
        encode::end_of_head(out);
    }
    if flush(wire, &mut answer).await.is_err() {
        answer.abandoned(Code::ClientClosed);
        return After::Close;
    }
    tunnel::run(End::Wire(wire.clone()), upstream, answer).await;
    After::Close
}

impl Visit {
    /// Answers a head that never became a request, and ends: nothing behind it can be trusted.
    async fn refuse(&self, error: &Error) -> After {
        let Visit {
            proxy,
            connection,
            wire,
            alarm,
            ..
        } = self;
        let mut answer = Answer::of(proxy.refuse(connection, error));
        let until = Instant::now() + linger::TIME;
        let written = alarm
            .until(Some(until), write(wire, &mut answer, false, false, false))
            .await;
        if matches!(written, Ok(Ok(true))) {
            After::Linger
        } else {
            After::Close
        }
    }
}

async fn linger(wire: &SharedWire, alarm: &Alarm) {
    let mut dropped = 0;
    let dropping = poll_fn(|cx| linger::poll(&mut wire.borrow_mut().stream, &mut dropped, cx));
    let until = Instant::now() + linger::TIME;
    let _late_or_done = alarm.until(Some(until), dropping).await;
}

/// Says goodbye on a TLS connection; a plain one just closes.
async fn shut(wire: &SharedWire) {
    if wire.borrow().stream.is_tls() {
        poll_fn(|cx| {
            let _best_effort = Pin::new(&mut wire.borrow_mut().stream).poll_shutdown(cx);
            Poll::Ready(())
        })
        .await;
    }
}
