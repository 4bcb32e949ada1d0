//! The load generator: many connections on one thread, in a closed loop (the next request when the answer is there) or an
//! open one (requests at fixed moments, whatever the answers do).
//!
//! In an open loop latency counts from the moment a request should have been sent. When the other side stalls, the
//! requests that had to wait for a free connection show it; a generator that only times what it sent hides exactly the
//! seconds that matter. In a closed loop nothing is scheduled and latency counts from the first byte sent.
//!
//! It verifies no certificate and follows no redirect.

mod beside;
mod chunks;
mod http1;
mod http2;
mod pace;
pub(crate) mod tls;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::summary::{Failure, Recorder, Summary};
use crate::thread::Pinned;

pub use self::beside::{Got, Idle, Stream, Wire, get};
pub use self::pace::{Schedule, Timer};

/// How long requests in flight may take once a run is over.
const PATIENCE: Duration = Duration::from_secs(5);
/// A run in which nothing at all completes for this long is given up.
const STALLED: Duration = Duration::from_secs(15);

/// What to ask, of whom, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    pub to: SocketAddr,
    pub host: String,
    /// Asked in turn.
    pub paths: Vec<String>,
    pub headers: Vec<(String, String)>,
    pub protocol: Protocol,
    pub tls: bool,
    pub connections: usize,
    /// A shorter body is a failure.
    pub expect_body: usize,
    pub arrivals: Arrivals,
    /// Stop after so many requests; 0 = no such end.
    pub requests: u64,
    /// Stop after this long; `None` = no such end.
    pub duration: Option<Duration>,
}

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, one request at a time on each connection.
    KeepAlive,
    /// HTTP/1.1 with `connection: close`, a connection for every request.
    NewConnection,
    /// HTTP/2 with so many streams at once on each connection; prior knowledge, or ALPN on TLS.
    Http2 { streams: usize },
}

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// Whenever the last answer is complete.
    Closed,
    /// So many in a second, evenly spaced.
    Open { per_second: f64 },
}

/// What can be read and told while a run goes on, from another thread.
#[derive(Debug, Default)]
pub struct Live {
    completed: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

impl Live {
    /// Complete answers so far.
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Requests without a good answer so far.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Ends the run: no request is started any more.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A run on a thread of its own. Dropping it breaks it off.
#[derive(Debug)]
pub struct Running {
    pub live: Arc<Live>,
    /// The thread holds the sending end and drops it without a word only when it was broken off.
    result: oneshot::Receiver<io::Result<Summary>>,
    _thread: Pinned,
}

impl Running {
    /// Starts the plan on a thread on `core`.
    pub fn start(plan: Plan, core: Option<usize>) -> io::Result<Running> {
        let live = Arc::new(Live::default());
        let (send, result) = oneshot::channel();
        let of_thread = live.clone();
        let thread = Pinned::run("load", core, move || async move {
            // The receiver is gone when the owner lost interest.
            drop(send.send(run(plan, of_thread).await));
        })?;
        Ok(Running {
            live,
            result,
            _thread: thread,
        })
    }

    /// Tells it to stop and waits for the summary.
    pub async fn finish(mut self) -> io::Result<Summary> {
        self.live.stop();
        self.wait().await
    }

    /// Waits until the plan is done. May be dropped and asked again until it has answered once.
    pub async fn wait(&mut self) -> io::Result<Summary> {
        (&mut self.result)
            .await
            .map_err(|_| io::Error::other("the load generator was broken off"))?
    }
}

/// What the tasks of one run share. One thread; no borrow is held across an await.
struct Shared {
    plan: Plan,
    live: Arc<Live>,
    recorder: RefCell<Recorder>,
    pace: pace::Pace,
    connector: Option<tokio_rustls::TlsConnector>,
}

impl Shared {
    fn answered(&self, status: u16, body: usize, latency: Duration) {
        if body < self.plan.expect_body && (200..300).contains(&status) {
            return self.failed(Failure::ShortBody);
        }
        self.recorder.borrow_mut().answered(status, latency);
        self.live.completed.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, failure: Failure) {
        self.recorder.borrow_mut().failed(failure);
        self.live.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// The moment from which the next request's latency counts, or `None` when no more is to be sent.
    async fn next(&self) -> Option<pace::Ticket> {
        if self.live.stop.load(Ordering::Relaxed) {
            return None;
        }
        self.pace.next(&self.live).await
    }
}

/// Runs the plan on the calling thread's runtime, which must allow local tasks.
pub async fn run(plan: Plan, live: Arc<Live>) -> io::Result<Summary> {
    if plan.paths.is_empty() || plan.connections == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a load needs at least one path and one connection",
        ));
    }
    let connector = plan
        .tls
        .then(|| tls::connector(matches!(plan.protocol, Protocol::Http2 { .. })))
        .transpose()?;
    let (duration, connections, protocol) = (plan.duration, plan.connections, plan.protocol);
    let shared = Rc::new(Shared {
        pace: pace::Pace::new(&plan),
        recorder: RefCell::default(),
        live: live.clone(),
        connector,
        plan,
    });
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        match protocol {
            Protocol::KeepAlive => {
                drop(tasks.spawn_local(http1::keep_alive(shared.clone(), number)))
            }
            Protocol::NewConnection => {
                drop(tasks.spawn_local(http1::new_connections(shared.clone(), number)))
            }
            Protocol::Http2 { streams } => {
                drop(tasks.spawn_local(http2::connection(shared.clone(), number, streams)))
            }
        }
    }
    let dispatch = shared.clone();
    // Owned by this function: aborted below, when the run is over.
    let dispatcher =
        tokio::task::spawn_local(async move { dispatch.pace.dispatch(&dispatch.live).await });
    let mut stopped_at: Option<Instant> = None;
    let (mut seen, mut moved) = (0, started);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            joined = tasks.join_next() => if joined.is_none() { break },
            _ = tick.tick() => {}
        }
        let progress = live.completed() + live.failed();
        if progress != seen {
            (seen, moved) = (progress, Instant::now());
        }
        if duration.is_some_and(|duration| started.elapsed() >= duration)
            || moved.elapsed() > STALLED
        {
            live.stop();
        }
        if live.stop.load(Ordering::Relaxed) {
            shared.pace.wake_all();
            if stopped_at.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                break;
            }
        }
    }
    let elapsed = stopped_at.unwrap_or_else(Instant::now) - started;
    dispatcher.abort();
    let unfinished = shared.pace.in_flight();
    tasks.shutdown().await;
    for _ in 0..unfinished {
        shared.failed(Failure::Unfinished);
    }
    let summary = shared.recorder.borrow().summary(elapsed);
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{LARGE, SMALL, Upstream};

    fn plan(to: SocketAddr, protocol: Protocol) -> Plan {
        Plan {
            to,
            host: "localhost".into(),
            paths: vec!["/1k".into()],
            headers: Vec::new(),
            protocol,
            tls: false,
            connections: 3,
            expect_body: SMALL,
            arrivals: Arrivals::Closed,
            requests: 100,
            duration: Some(Duration::from_secs(30)),
        }
    }

    fn upstream() -> Upstream {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Upstream::start(any, any, None).unwrap()
    }

    fn summary(plan: Plan) -> Summary {
        crate::thread::runtime()
            .unwrap()
            .block_on(run(plan, Arc::default()))
            .unwrap()
    }

    #[test]
    fn each_protocol_sends_exactly_the_requests_of_its_plan() {
        let upstream = upstream();
        for (to, protocol) in [
            (upstream.http1, Protocol::KeepAlive),
            (upstream.http1, Protocol::NewConnection),
            (upstream.http2, Protocol::Http2 { streams: 4 }),
        ] {
            let summary = summary(plan(to, protocol));
            assert_eq!(
                (summary.requests, summary.bad(), summary.reconnects),
                (100, 0, 0),
                "{protocol:?}"
            );
        }
    }

    #[test]
    fn large_bodies_arrive_whole() {
        let upstream = upstream();
        for (to, protocol) in [
            (upstream.http1, Protocol::KeepAlive),
            (upstream.http2, Protocol::Http2 { streams: 2 }),
        ] {
            let large = Plan {
                paths: vec!["/1m".into()],
                expect_body: LARGE,
                requests: 10,
                ..plan(to, protocol)
            };
            assert_eq!((summary(large).requests, protocol), (10, protocol));
        }
    }

    #[test]
    fn a_short_body_is_a_failure_and_no_answer() {
        let upstream = upstream();
        let wants_more = Plan {
            expect_body: SMALL + 1,
            ..plan(upstream.http1, Protocol::KeepAlive)
        };
        let summary = summary(wants_more);
        assert_eq!(
            (summary.requests, summary.failures.get(&Failure::ShortBody)),
            (0, Some(&100))
        );
    }

    #[test]
    fn an_open_loop_takes_as_long_as_its_rate_says() {
        let upstream = upstream();
        let open = Plan {
            arrivals: Arrivals::Open { per_second: 500.0 },
            ..plan(upstream.http1, Protocol::KeepAlive)
        };
        let summary = summary(open);
        assert_eq!((summary.requests, summary.bad()), (100, 0));
        // The last of 100 is due after 99 / 500 s; nothing bounds it from above on a busy machine.
        assert!(summary.seconds >= 0.198, "{}", summary.seconds);
    }

    #[test]
    fn nobody_there_is_counted_and_ends_the_run() {
        let gone = tollgate_engine::testing::upstream::Upstream::nobody();
        let summary = summary(Plan {
            requests: 3,
            ..plan(gone, Protocol::KeepAlive)
        });
        assert_eq!(
            (summary.requests, summary.failures.get(&Failure::Connect)),
            (0, Some(&3))
        );
    }
}
