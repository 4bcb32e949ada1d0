//! The threads, and which sockets each serves. The only file that knows which runtime runs: one thread per worker, a
//! single-threaded local runtime on it, its own listening sockets on the shared ports.
//!
//! The kernel spreads connections over the sockets blindly; a worker that has more than its share hands the next one
//! over before it is served, so few long connections do not pin one core. A worker that dies takes the process down:
//! half a proxy is worse than none.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::SendError;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::door::Door;
use super::socket;
use crate::drain::Ledger;
use crate::net::accept::{Acceptor, BACKLOG, Permits};
use crate::process;
use crate::proxy::Proxy;
use crate::route::ListenerIndex;
use crate::snapshot::store::Store;
use crate::telemetry::access::AccessLog;
use crate::telemetry::log;
use crate::telemetry::metrics::{ListenerSeries, Metrics};
use crate::telemetry::spans::{Spans, WorkerSpans};
use crate::upstream::learning::Learning;

/// A worker gives a new connection away when it has this many more than the least loaded one.
const IMBALANCE: usize = 2;
const TICK: Duration = Duration::from_millis(100);

/// What the control thread asks of a worker.
pub enum Order {
    Open(Opening),
    /// Accept no more here; whoever is inside finishes, and whoever the kernel has accepted already is served.
    Close(ListenerIndex, SocketAddr),
    /// Serve this socket; another worker accepted it.
    Adopt {
        index: ListenerIndex,
        socket: TcpStream,
        peer: SocketAddr,
        held: Held,
    },
    /// Whom the mesh trusts has changed: connections of members that were revoked leave.
    LookAgain,
    /// Answers close their connections, idle ones are closed. New connections are still accepted until `Close`.
    Leave,
    /// End now, whoever is inside.
    Cut,
    /// Answered between two tasks: whatever this worker was in the middle of is done.
    #[cfg(feature = "testing")]
    Turn(std::sync::mpsc::Sender<()>),
}

pub struct Opening {
    pub name: String,
    pub index: ListenerIndex,
    pub bind: SocketAddr,
    pub socket: TcpListener,
    pub permits: Arc<Permits>,
    pub series: Arc<ListenerSeries>,
}

/// What all workers share from the start.
#[derive(Clone)]
pub struct Common {
    pub store: Arc<Store>,
    pub metrics: Arc<Metrics>,
    pub access_log: Arc<AccessLog>,
    pub spans: Arc<Spans>,
    pub ledger: Arc<Ledger>,
    pub learning: Arc<Learning>,
}

pub struct Workers {
    orders: Vec<UnboundedSender<Order>>,
    threads: Vec<JoinHandle<()>>,
    loads: Arc<[AtomicUsize]>,
}

impl Workers {
    pub fn start(count: usize, common: &Common) -> std::io::Result<Self> {
        let (mut orders, mut inboxes) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (order, inbox) = unbounded_channel();
            orders.push(order);
            inboxes.push(inbox);
        }
        let loads: Arc<[AtomicUsize]> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        let accepting = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let (common, loads, peers) = (common.clone(), loads.clone(), orders.clone());
            let accepting = accepting.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            threads.push(thread.spawn(move || {
                let run = AssertUnwindSafe(|| run(number, inbox, common, loads, accepting, peers));
                if catch_unwind(run).is_err() {
                    log::error(
                        "a worker died; the process ends with it",
                        &[("worker", &number.to_string())],
                    );
                    std::process::exit(process::exit::FAILURE.into());
                }
            })?);
        }
        Ok(Workers {
            orders,
            threads,
            loads,
        })
    }

    pub fn count(&self) -> usize {
        self.orders.len()
    }

    /// Gives an order to one worker. Only a worker that has ended does not hear it.
    pub fn order(&self, worker: usize, order: Order) {
        if let Some(inbox) = self.orders.get(worker) {
            let _ended_workers_need_no_orders = inbox.send(order);
        }
    }

    /// Connections served by each worker.
    pub fn loads(&self) -> Arc<[AtomicUsize]> {
        self.loads.clone()
    }

    pub fn clone_orders(&self) -> Vec<UnboundedSender<Order>> {
        self.orders.clone()
    }

    /// Waits for all threads; blocking.
    pub fn join(self) {
        drop(self.orders);
        for thread in self.threads {
            if thread.join().is_err() {
                std::process::exit(process::exit::FAILURE.into());
            }
        }
    }
}

/// A worker's inside.
struct Worker {
    number: usize,
    proxy: Rc<Proxy>,
    ledger: Arc<Ledger>,
    loads: Arc<[AtomicUsize]>,
    /// Sockets that any worker still accepts from: until there are none, any worker may be handed a connection.
    accepting: Arc<AtomicUsize>,
    peers: Vec<UnboundedSender<Order>>,
    doors: RefCell<HashMap<(ListenerIndex, SocketAddr), Entrance>>,
    next: std::cell::Cell<u64>,
    accept_errors: Arc<AtomicU64>,
}

/// One listener here. It has several sockets when a predecessor had more workers than we have.
struct Entrance {
    door: Rc<Door>,
    sockets: Vec<oneshot::Sender<()>>,
}

fn run(
    number: usize,
    inbox: UnboundedReceiver<Order>,
    common: Common,
    loads: Arc<[AtomicUsize]>,
    accepting: Arc<AtomicUsize>,
    peers: Vec<UnboundedSender<Order>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(61)
        .build_local(Default::default())
        .expect(
            "a runtime needs an epoll descriptor and an event descriptor, both opened at start",
        );
    let log = common.access_log.worker(fastrand::u64(..));
    let proxy = Rc::new(Proxy::new(
        number,
        common.store,
        common.metrics,
        common.learning,
        log,
        WorkerSpans::new(common.spans, number),
    ));
    let worker = Rc::new(Worker {
        number,
        proxy,
        ledger: common.ledger,
        loads,
        accepting,
        peers,
        doors: RefCell::default(),
        next: std::cell::Cell::new(number as u64),
        accept_errors: Arc::default(),
    });
    runtime.block_on(worker.clone().work(inbox));
    let left = worker.loads[number].load(Ordering::Relaxed);
    worker.ledger.cut(left as u64);
    worker.proxy.tick(Instant::now(), false);
}

impl Worker {
    async fn work(self: Rc<Self>, mut inbox: UnboundedReceiver<Order>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0u32;
        loop {
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(Order::Open(opening)) => self.open(opening),
                    Some(Order::Close(index, bind)) => self.close(index, bind),
                    Some(Order::Adopt { index, socket, peer, held }) => self.adopt(index, socket, peer, held),
                    Some(Order::LookAgain) => self.look_again(),
                    Some(Order::Leave) => self.leave(),
                    #[cfg(feature = "testing")]
                    Some(Order::Turn(asker)) => {
                        self.proxy.tick(Instant::now(), false);
                        drop(asker);
                    }
                    Some(Order::Cut) | None => return,
                },
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.proxy.tick(Instant::now(), ticks.is_multiple_of(10));
                    if self.proxy.stopping.get() && self.is_empty() {
                        return;
                    }
                }
            }
            if self.proxy.stopping.get() && self.is_empty() {
                return;
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.accepting.load(Ordering::Acquire) == 0
            && self.doors.borrow().is_empty()
            && self.loads[self.number].load(Ordering::Relaxed) == 0
    }

    fn open(self: &Rc<Self>, opening: Opening) {
        let both = opening.socket.try_clone().and_then(|socket| {
            Ok((
                socket,
                Acceptor::new(opening.socket, self.accept_errors.clone())?,
            ))
        });
        let (socket, acceptor) = match both {
            Ok(both) => both,
            Err(error) => {
                return log::error(
                    "a listening socket cannot be used",
                    &[("listener", &opening.name), ("error", &error.to_string())],
                );
            }
        };
        let (tell, closed) = oneshot::channel();
        let mut doors = self.doors.borrow_mut();
        let entrance = doors
            .entry((opening.index, opening.bind))
            .or_insert_with(|| Entrance {
                door: Door::new(&opening.name, opening.index),
                sockets: Vec::new(),
            });
        entrance.sockets.push(tell);
        let reception = Reception {
            _accepting: Accepting::begin(&self.accepting),
            worker: self.clone(),
            door: entrance.door.clone(),
            permits: opening.permits,
            series: opening.series,
        };
        tokio::task::spawn_local(reception.receive(acceptor, socket, closed));
    }

    /// Serves a connection here, or hands it to a worker that has clearly less to do.
    fn place(
        self: &Rc<Self>,
        door: &Rc<Door>,
        socket: tokio::net::TcpStream,
        peer: SocketAddr,
        held: Held,
    ) {
        let mine = self.loads[self.number].load(Ordering::Relaxed);
        let least = self
            .loads
            .iter()
            .enumerate()
            .min_by_key(|(_, load)| load.load(Ordering::Relaxed));
        if let Some((other, load)) = least
            && mine >= load.load(Ordering::Relaxed) + IMBALANCE
        {
            // A registered socket can always be taken back from the poller.
            let Ok(socket) = socket.into_std() else {
                return;
            };
            // Counted there at once, so that a burst does not all go the same way.
            load.fetch_add(1, Ordering::Relaxed);
            let adopt = Order::Adopt {
                index: door.index,
                socket,
                peer,
                held,
            };
            if let Err(SendError(order)) = self.peers[other].send(adopt) {
                // That worker has ended already; then it is ours after all.
                load.fetch_sub(1, Ordering::Relaxed);
                if let Order::Adopt { socket, held, .. } = order
                    && let Ok(socket) = tokio::net::TcpStream::from_std(socket)
                {
                    self.loads[self.number].fetch_add(1, Ordering::Relaxed);
                    self.serve(door.clone(), socket, peer, held);
                }
            }
            return;
        }
        self.loads[self.number].fetch_add(1, Ordering::Relaxed);
        self.serve(door.clone(), socket, peer, held);
    }

    fn adopt(
        self: &Rc<Self>,
        index: ListenerIndex,
        socket: TcpStream,
        peer: SocketAddr,
        held: Held,
    ) {
        let door = self
            .doors
            .borrow()
            .iter()
            .find(|((of, _), _)| *of == index)
            .map(|(_, entrance)| entrance.door.clone());
        let door = door.unwrap_or_else(|| {
            // The listener closed in between: the connection was accepted, so it is served, once.
            let door = Door::new("", index);
            door.close();
            door
        });
        match tokio::net::TcpStream::from_std(socket) {
            Ok(socket) => self.serve(door, socket, peer, held),
            Err(_) => {
                self.loads[self.number].fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn serve(
        self: &Rc<Self>,
        door: Rc<Door>,
        socket: tokio::net::TcpStream,
        peer: SocketAddr,
        held: Held,
    ) {
        let number = self.next.get();
        self.next.set(number + self.peers.len() as u64);
        let stay = Stay {
            held,
            _load: Load(self.clone()),
        };
        let guest = door.enter(number, stay);
        tokio::task::spawn_local(socket::serve(self.proxy.clone(), guest, socket, peer));
    }

    fn close(&self, index: ListenerIndex, bind: SocketAddr) {
        if let Some(entrance) = self.doors.borrow_mut().remove(&(index, bind)) {
            for socket in entrance.sockets {
                let _ends_only_when_told = socket.send(());
            }
            entrance.door.close();
        }
    }

    fn look_again(&self) {
        for entrance in self.doors.borrow().values() {
            entrance.door.look_again();
        }
    }

    fn leave(&self) {
        self.proxy.stopping.set(true);
        for entrance in self.doors.borrow().values() {
            entrance.door.close();
        }
    }
}

/// Takes connections from one socket until it is told that the door is closed.
struct Reception {
    worker: Rc<Worker>,
    door: Rc<Door>,
    permits: Arc<Permits>,
    series: Arc<ListenerSeries>,
    _accepting: Accepting,
}

impl Reception {
    /// `socket` is the acceptor's, without its poller: what waits at the end must be seen whether or not it was
    /// announced. It is served here even when a successor holds the same socket, for we cannot know whether its document
    /// still wants it: what nobody accepts is reset with the last copy of the socket.
    async fn receive(
        self,
        acceptor: Acceptor,
        socket: TcpListener,
        mut closed: oneshot::Receiver<()>,
    ) {
        loop {
            tokio::select! {
                biased;
                _told = &mut closed => break,
                (stream, peer) = acceptor.accept() => self.welcome(stream, peer),
            }
        }
        drop(acceptor);
        // Who comes while these are taken came too late; a flood of them must not keep us.
        for _ in 0..BACKLOG {
            let Ok((stream, peer)) = socket.accept() else {
                return;
            };
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| tokio::net::TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.welcome(stream, peer);
            }
        }
    }

    fn welcome(&self, stream: tokio::net::TcpStream, peer: SocketAddr) {
        let worker = &self.worker;
        let Some(permit) = self.permits.take() else {
            return self.series.refused(worker.number);
        };
        self.series.accepted(worker.number);
        worker.ledger.accepted();
        let held = Held {
            _permit: permit,
            series: self.series.clone(),
            worker: worker.number,
            ledger: worker.ledger.clone(),
        };
        worker.place(&self.door, stream, peer, held);
    }
}

/// Counts a socket that is accepted from.
struct Accepting(Arc<AtomicUsize>);

impl Accepting {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Release);
        Accepting(count.clone())
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// A connection's place under its listener's bound, wherever it is served.
pub struct Held {
    _permit: crate::net::accept::Permit,
    series: Arc<ListenerSeries>,
    worker: usize,
    ledger: Arc<Ledger>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.series.closed(self.worker);
        self.ledger.finished();
    }
}

/// What a connection counts for while it is served here.
pub struct Stay {
    held: Held,
    _load: Load,
}

impl Stay {
    /// Where its listener's numbers are counted.
    pub fn series(&self) -> &Arc<ListenerSeries> {
        &self.held.series
    }
}

struct Load(Rc<Worker>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.loads[self.0.number].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
