//! A worker's own connections to each endpoint: HTTP/1 wires that are truly idle, HTTP/2 lanes that have room.
//!
//! Nothing here is shared between workers, so nothing is locked. A wire comes back only when the answer on it was read
//! to its last byte, nothing unread lies behind it and neither side wants to close; the last one in is the first one
//! out, so that surplus connections grow old and are closed by `sweep`.

mod lane;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::Notify;

pub use lane::{CONNECTION_WINDOW, Lane, Place, STREAM_WINDOW};

use super::Endpoint;
use crate::clock;
use crate::http1::Wire;
use crate::http1::wire::{Home, SharedWire};
use crate::net::connect::{DialTls, dial};
use crate::net::original::Own;
use crate::net::stream::Stream;
use crate::net::tls::{ClientTls, Peer};

/// Kept idle at most this long, below what common servers allow; a server that says less is believed.
pub const IDLE: Duration = Duration::from_secs(50);

/// All pools of one worker, found by an endpoint's number.
#[derive(Default)]
pub struct Pools {
    by_endpoint: RefCell<Vec<Option<Rc<Pool>>>>,
}

impl Pools {
    pub fn of(&self, endpoint: &Arc<Endpoint>) -> Rc<Pool> {
        let index = endpoint.id() as usize;
        let mut pools = self.by_endpoint.borrow_mut();
        if pools.len() <= index {
            pools.resize_with(index + 1, || None);
        }
        match &mut pools[index] {
            Some(pool) if Arc::ptr_eq(&pool.endpoint, endpoint) => pool.clone(),
            slot => slot.insert(Rc::new(Pool::new(endpoint.clone()))).clone(),
        }
    }

    /// Closes what is too old or was closed by its endpoint, and forgets endpoints that are gone.
    pub fn sweep(&self, now: Instant) {
        for slot in self.by_endpoint.borrow_mut().iter_mut() {
            if let Some(pool) = slot {
                pool.sweep(now);
                if pool.endpoint.is_removed() && pool.open.get() == 0 {
                    *slot = None;
                }
            }
        }
    }
}

/// One worker's connections to one endpoint.
pub struct Pool {
    pub endpoint: Arc<Endpoint>,
    idle: RefCell<Vec<Idle>>,
    keep: Cell<usize>,
    /// Connections of either kind that are open or being opened.
    pub open: Rc<Cell<usize>>,
    lanes: RefCell<Vec<Rc<Lane>>>,
    /// HTTP/2 connections being made, and who waits for them.
    connecting: Cell<usize>,
    arrived: Notify,
    /// When more than few were in flight.
    crowded: Cell<Option<Instant>>,
    /// Asked which it speaks, the endpoint did not choose HTTP/2.
    no_http2: Cell<bool>,
}

struct Idle {
    wire: SharedWire,
    until: Instant,
}

/// Counts a connection as open while it lives: here for the worker, at the endpoint for all workers together.
pub struct Open {
    here: Rc<Cell<usize>>,
    endpoint: Arc<Endpoint>,
    /// Known as ours, should it come back to us.
    own: Option<Own>,
}

impl Open {
    fn new(pool: &Pool) -> Self {
        pool.open.set(pool.open.get() + 1);
        pool.endpoint.connection_opens();
        Open {
            here: pool.open.clone(),
            endpoint: pool.endpoint.clone(),
            own: None,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.here.set(self.here.get().saturating_sub(1));
        self.endpoint.connection_closes();
    }
}

/// What a request is sent on.
pub enum Way {
    Http1 { wire: SharedWire, reused: bool },
    Http2(Place),
}

/// Between two sidecars a request by itself costs a fifth less CPU time over HTTP/1.1 than over HTTP/2, whose streams have a
/// task and frames more; with sixteen at once HTTP/2 costs an eighth less, since many share a `send` (docs/benchmarks.md).
pub const FEW: u32 = 4;
/// How long it is that more were in flight, so that few are not an accident: answers that come together leave few behind
/// for a moment, and then requests of one burst would go both ways.
const CALM: Duration = Duration::from_millis(100);

/// How to reach the endpoints of an upstream.
pub struct Dial {
    pub tls: Option<ClientTls>,
    pub http2: Option<bool>,
    /// Where both may be spoken: what came over HTTP/1 goes over HTTP/1.1 while few are in flight (`FEW`).
    pub few_over_http1: bool,
    pub keep: usize,
    pub max_connections: Option<u64>,
}

/// Why no way was found.
#[derive(Debug)]
pub enum NoWay {
    Io(io::Error),
    /// `max_connections` are open.
    Full,
    Http2(String),
}

impl Pool {
    fn new(endpoint: Arc<Endpoint>) -> Self {
        Pool {
            endpoint,
            idle: RefCell::default(),
            keep: Cell::new(0),
            open: Rc::default(),
            lanes: RefCell::default(),
            connecting: Cell::new(0),
            arrived: Notify::new(),
            crowded: Cell::new(None),
            no_http2: Cell::new(false),
        }
    }

    /// A way that is there already: an idle connection, or room on an HTTP/2 one. `client` is the number of the client's
    /// connection: streams that belong together are laid onto one upstream connection, so that their answers come, and
    /// are written, together.
    pub fn ready(&self, dial: &Dial, client: u64, http1_only: bool, now: Instant) -> Option<Way> {
        self.keep.set(dial.keep);
        let http1_fits = match dial.http2 {
            Some(http2) => !http2,
            None => !dial.few_over_http1 || self.no_http2.get(),
        };
        if (http1_fits || http1_only)
            && let Some(wire) = self.take_idle(now)
        {
            return Some(Way::Http1 { wire, reused: true });
        }
        if dial.http2 == Some(false) || http1_only {
            return None;
        }
        self.lanes.borrow_mut().retain(|lane| !lane.is_closed());
        Lane::choose(&self.lanes.borrow(), client).map(Way::Http2)
    }

    /// Whether few are in flight, and have been for a while.
    pub fn is_calm(&self, now: Instant) -> bool {
        if self.endpoint.in_flight() > FEW {
            self.crowded.set(Some(now));
        }
        { self.crowded.get() }.is_none_or(|then| now.saturating_duration_since(then) > CALM)
    }

    /// Makes a way when none is ready. Of several who want an HTTP/2 connection one makes it and the others wait for it;
    /// `fresh` wants one of its own (a stale one was just met).
    pub async fn make(
        self: &Rc<Self>,
        dial: &Dial,
        client: u64,
        mut fresh: bool,
        http1_only: bool,
    ) -> Result<Way, NoWay> {
        if dial.http2 == Some(false) || http1_only {
            return self.connect(dial, http1_only).await;
        }
        loop {
            if !fresh && let Some(way) = self.ready(dial, client, http1_only, clock::recent()) {
                return Ok(way);
            }
            fresh = false;
            if self.connecting.get() == 0 {
                let _making = Making::new(self);
                return self.connect(dial, false).await;
            }
            self.arrived.notified().await;
        }
    }

    /// A connection for bytes that are not HTTP; it belongs to one client, and never comes back here.
    pub async fn bytes(&self, plan: &Dial) -> Result<SharedWire, NoWay> {
        Ok(self.open(plan, DialTls::for_bytes).await?.into_wire())
    }

    async fn connect(self: &Rc<Self>, plan: &Dial, http1_only: bool) -> Result<Way, NoWay> {
        let asks = plan.http2.is_none() && !http1_only;
        let secured = match http1_only {
            true => DialTls::for_http1,
            false => DialTls::of,
        };
        let opened = self.open(plan, secured).await?;
        if asks {
            self.no_http2.set(!opened.alpn_http2);
        }
        if plan.http2.unwrap_or(opened.alpn_http2) {
            let lane = Lane::start(opened.stream, opened.open, opened.peer)
                .await
                .map_err(NoWay::Http2)?;
            let place = Place::take(&lane);
            self.lanes.borrow_mut().push(lane);
            return Ok(Way::Http2(place));
        }
        Ok(Way::Http1 {
            wire: opened.into_wire(),
            reused: false,
        })
    }

    /// Dials, within what may be open.
    async fn open(
        &self,
        dial_plan: &Dial,
        secured: fn(&ClientTls, &str) -> io::Result<DialTls>,
    ) -> Result<Opened, NoWay> {
        if dial_plan
            .max_connections
            .is_some_and(|most| u64::from(self.endpoint.connections()) >= most)
        {
            return Err(NoWay::Full);
        }
        let mut open = Open::new(self);
        let tls = dial_plan
            .tls
            .as_ref()
            .map(|tls| secured(tls, self.endpoint.name()))
            .transpose()
            .map_err(NoWay::Io)?;
        let (stream, alpn_http2) = dial(self.endpoint.address(), tls.as_ref())
            .await
            .map_err(NoWay::Io)?;
        // An endpoint's member is remembered, so that nothing more is sent to it once its certificate was revoked.
        let peer = { tls.as_ref().and_then(|tls| tls.member.as_ref()) }
            .map(|member| member.peer(stream.peer_certificates()))
            .transpose()
            .map_err(|refusal| NoWay::Io(io::Error::other(refusal)))?;
        open.own = Own::note(stream.socket());
        clock::now();
        Ok(Opened {
            stream,
            alpn_http2,
            open,
            peer,
        })
    }

    fn take_idle(&self, now: Instant) -> Option<SharedWire> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { wire, until }) = idle.pop() {
            let wanted = {
                let wire = wire.borrow();
                until > now && wire.is_idle() && !wire.peer.as_ref().is_some_and(|p| p.is_revoked())
            };
            if wanted {
                return Some(wire);
            }
        }
        None
    }

    fn sweep(&self, now: Instant) {
        let gone = self.endpoint.is_removed();
        self.idle.borrow_mut().retain(|idle| {
            let wire = idle.wire.borrow();
            let revoked = wire.peer.as_ref().is_some_and(|peer| peer.is_revoked());
            !gone && !revoked && idle.until > now && wire.is_idle()
        });
        self.lanes.borrow_mut().retain(|lane| {
            if gone || lane.is_stale(now) || lane.is_revoked() {
                lane.retire();
            }
            !lane.is_closed()
        });
    }
}

/// A connection that was just made.
struct Opened {
    stream: Stream,
    alpn_http2: bool,
    open: Open,
    /// The member of the mesh at its other end.
    peer: Option<Peer>,
}

impl Opened {
    fn into_wire(self) -> SharedWire {
        let mut wire = Wire::new(self.stream, BytesMut::new());
        wire.open = Some(Box::new(self.open));
        wire.peer = self.peer.map(Box::new);
        Rc::new(RefCell::new(wire))
    }
}

/// One HTTP/2 connection in the making; whoever waits is told when it is there, or failed.
struct Making<'a>(&'a Pool);

impl<'a> Making<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.connecting.set(pool.connecting.get() + 1);
        Making(pool)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0
            .connecting
            .set(self.0.connecting.get().saturating_sub(1));
        self.0.arrived.notify_waiters();
    }
}

impl Home for Pool {
    fn welcome(&self, wire: SharedWire) {
        // Somebody else still writes a request body to it: the exchange is not over, so it cannot be reused.
        if Rc::strong_count(&wire) > 1 || self.endpoint.is_removed() {
            return;
        }
        let until = {
            let mut wire = wire.borrow_mut();
            if !wire.persists || !wire.is_idle() {
                return;
            }
            wire.rest();
            clock::recent() + wire.idle_for.unwrap_or(IDLE)
        };
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.keep.get() {
            idle.push(Idle { wire, until });
        }
    }
}
