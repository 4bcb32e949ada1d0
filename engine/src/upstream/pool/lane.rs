//! One HTTP/2 connection to an endpoint, shared by many streams of one worker.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use tokio::sync::OnceCell;

use super::{IDLE, Open};
use crate::clock;
use crate::net::batched::Batched;
use crate::net::stream::Stream;
use crate::net::tls::Peer;

/// Windows large enough that a stream of many tiny messages never meets the library's flood guard, and that one long
/// body fills a fast path.
pub const STREAM_WINDOW: u32 = 1 << 20;
pub const CONNECTION_WINDOW: u32 = 8 << 20;
/// Until an endpoint says otherwise (RFC 9113 section 6.5.2 recommends at least 100).
const STREAMS: usize = 100;

pub struct Lane {
    send: SendRequest<Bytes>,
    streams: Cell<usize>,
    closed: Cell<bool>,
    /// No new streams; closes when the last one ends.
    retired: Cell<bool>,
    used: Cell<Instant>,
    /// The member of the mesh at its end.
    peer: Option<Peer>,
    /// The endpoint's settings have come: what it offers is known.
    settled: OnceCell<()>,
    question: RefCell<Question>,
}

/// A ping whose answer comes behind the settings.
struct Question {
    pings: Option<PingPong>,
    asked: bool,
}

impl Lane {
    /// Speaks the preface and starts the task that drives the connection; the task ends with the connection.
    pub(super) async fn start(
        stream: Stream,
        open: Open,
        peer: Option<Peer>,
    ) -> Result<Rc<Self>, String> {
        let io = Batched::new(stream, BytesMut::new());
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(64 * 1024)
            .max_concurrent_reset_streams(50)
            .max_send_buffer_size(256 * 1024)
            .enable_push(false);
        let driver = io.clone();
        let mut shaking = pin!(builder.handshake::<_, Bytes>(io));
        let (send, mut connection) = poll_fn(|cx| {
            let polled = shaking.as_mut().poll(cx);
            if let Poll::Ready(Err(error)) = driver.flush_now(cx) {
                return Poll::Ready(Err(error.to_string()));
            }
            polled.map_err(|error| error.to_string())
        })
        .await?;
        let lane = Rc::new(Lane {
            send,
            streams: Cell::new(0),
            closed: Cell::new(false),
            retired: Cell::new(false),
            used: Cell::new(Instant::now()),
            peer,
            settled: OnceCell::new(),
            question: RefCell::new(Question {
                pings: connection.ping_pong(),
                asked: false,
            }),
        });
        let watched = Rc::downgrade(&lane);
        tokio::task::spawn_local(async move {
            let _open = open;
            let mut connection = pin!(connection);
            poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                match driver.flush_now(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(()),
                    _ => polled.map(|_| ()),
                }
            })
            .await;
            if let Some(lane) = watched.upgrade() {
                lane.closed.set(true);
            }
        });
        Ok(lane)
    }

    /// The lane for a client's connection: its own if it has room, else any with room.
    pub(super) fn choose(lanes: &[Rc<Lane>], client: u64) -> Option<Place> {
        let count = lanes.len();
        if count == 0 {
            return None;
        }
        let first = (client % count as u64) as usize;
        (0..count)
            .map(|step| &lanes[(first + step) % count])
            .find(|lane| lane.has_room())
            .map(Place::take)
    }

    fn has_room(&self) -> bool {
        let most = match self.send.current_max_send_streams() {
            0 => 0,
            most => most.min(4 * STREAMS),
        };
        !self.closed.get() && !self.retired.get() && self.streams.get() < most && !self.is_revoked()
    }

    /// Whether the certificate at its end was revoked since.
    pub(super) fn is_revoked(&self) -> bool {
        self.peer.as_ref().is_some_and(Peer::is_revoked)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get() || (self.retired.get() && self.streams.get() == 0)
    }

    pub fn is_stale(&self, now: Instant) -> bool {
        self.streams.get() == 0 && now.saturating_duration_since(self.used.get()) > IDLE
    }

    /// Takes no new streams (the endpoint said GOAWAY, or is gone).
    pub fn retire(&self) {
        self.retired.set(true);
    }
}

/// One stream's place on a lane.
pub struct Place {
    lane: Rc<Lane>,
}

impl Place {
    pub(super) fn take(lane: &Rc<Lane>) -> Self {
        lane.streams.set(lane.streams.get() + 1);
        Place { lane: lane.clone() }
    }

    /// Waits for the connection to take one more stream.
    pub async fn ready(&self) -> Result<SendRequest<Bytes>, h2::Error> {
        let result = self.lane.send.clone().ready().await;
        if result.is_err() {
            self.lane.retire();
        }
        result
    }

    /// Whether the endpoint takes extended CONNECT (RFC 8441), which its settings say. They are the first that it sends,
    /// and nothing tells that they came: but the answer to a ping comes behind them.
    pub async fn takes_upgrades(&self) -> Result<bool, h2::Error> {
        let lane = &*self.lane;
        if !lane.send.is_extended_connect_protocol_enabled() {
            let answered = poll_fn(|cx| lane.question.borrow_mut().poll_answer(cx));
            lane.settled.get_or_try_init(|| answered).await?;
        }
        Ok(lane.send.is_extended_connect_protocol_enabled())
    }

    pub fn retire(&self) {
        self.lane.retire();
    }
}

impl Question {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let Some(pings) = &mut self.pings else {
            return Poll::Ready(Ok(()));
        };
        // Whoever asked may have gone; the next one waits for the same answer.
        if !std::mem::replace(&mut self.asked, true) {
            pings.send_ping(Ping::opaque())?;
        }
        pings.poll_pong(cx).map_ok(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lane
            .streams
            .set(self.lane.streams.get().saturating_sub(1));
        if self.lane.streams.get() == 0 {
            self.lane.used.set(clock::recent());
        }
    }
}
