//! The one file that builds everything: binds all sockets, then serves. `Engine::start` returns a running proxy or
//! the reason why not; nothing half-started is left behind.

mod learning;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tollgate_config::{Document, Loader, Problems};

use crate::admin::{Admin, Command};
use crate::drain::{DrainReport, Ledger};
use crate::identity::{self, Identity};
use crate::leasing::leasing;
use crate::net::accept::{self, Permits};
use crate::net::handover::{self, Handed, Kind, Offer, Taken};
use crate::process::{self, Request as Signal};
use crate::reload::control_plane::{self, Beginning, Feed, Restored};
use crate::reload::file::Watch;
use crate::reload::inputs::Inputs;
use crate::reload::learned::Learned;
use crate::reload::place::Place;
use crate::reload::{Origin, Reloader};
use crate::server::workers::{Common, Order, Workers};
use crate::snapshot::compile::compile;
use crate::snapshot::memory::Memory;
use crate::snapshot::proof::prove;
use crate::snapshot::store::Store;
use crate::state::{State, keeper};
use crate::telemetry::access::AccessLog;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::transcode::Reflected;
use crate::upkeep::Upkeep;
use crate::upstream::learning::Learning;

/// How often a listener that drains is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long the last access lines may take at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Options {
    /// Reads the document, now and at every reload.
    pub loader: Loader,
    /// Listen to SIGTERM, SIGINT and SIGHUP; only the program's own process should.
    pub signals: bool,
    /// Reload when the document's files change.
    pub watch: bool,
    /// Offer the sockets to a successor, and take a predecessor's over if there is one.
    pub handover: bool,
    /// What a predecessor handed over.
    pub taken: Option<Taken>,
    /// Who decides how to stop when the admin address is asked to (`POST /drain`). `None`: it simply does.
    pub drain_asked: Option<watch::Sender<bool>>,
}

#[derive(Debug)]
pub enum StartError {
    Problems(Problems),
    /// A socket could not be bound.
    Bind {
        what: String,
        address: SocketAddr,
        error: std::io::Error,
    },
    Io(std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Problems(problems) => problems.fmt(f),
            StartError::Bind {
                what,
                address,
                error,
            } => {
                write!(
                    f,
                    "{what}: cannot bind {address}: {error}; choose a free address, stop what uses it, or take it over with `upgrade`"
                )
            }
            StartError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl StartError {
    /// The exit code that tells this apart.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Problems(_) => process::exit::BAD_DOCUMENT,
            StartError::Bind { .. } => process::exit::ADDRESS_IN_USE,
            StartError::Io(_) => process::exit::FAILURE,
        }
    }
}

pub struct Engine;

/// A proxy that serves. Dropping it stops it.
pub struct Running {
    handle: Handle,
    thread: Option<JoinHandle<DrainReport>>,
    addresses: Addresses,
    admin: Option<SocketAddr>,
}

/// Gives orders to a running proxy, from any task. What a proxy that has ended is told changes nothing.
#[derive(Clone)]
pub struct Handle {
    orders: mpsc::UnboundedSender<Control>,
    /// Written by the control thread, which drops it when it ends.
    ready: watch::Receiver<bool>,
}

/// What the owner asks of the control thread.
enum Control {
    Reload(blocking::Sender<Result<u64, Problems>>),
    /// Turn unready and take the word back that an instance is here; what serves goes on.
    Withdraw(Reply),
    /// Close these listeners for good; answered when nobody is inside any more.
    Close(Vec<String>, Reply),
    /// Dropped by each worker at its next turn.
    #[cfg(feature = "testing")]
    Turn(blocking::Sender<()>),
    /// As the document says, or at once with so long for what is in flight.
    Stop(Option<Duration>),
}

/// Dropped when it is done.
type Reply = mpsc::Sender<()>;

impl Handle {
    /// Returns once a complete snapshot serves; `false`: the proxy ended before.
    pub async fn ready(&self) -> bool {
        { self.ready.clone() }
            .wait_for(|ready| *ready)
            .await
            .is_ok()
    }

    /// Says that nobody should come any more: not ready, and deregistered. Whoever comes is served all the same.
    /// Returns when the control plane knows, or could not be told in time.
    pub async fn withdraw(&self) {
        self.ask(Control::Withdraw).await;
    }

    /// Closes listeners while the others go on, and returns when the last connection that came in by one of them has
    /// ended. No reload opens them again.
    pub async fn drain(&self, listeners: Vec<String>) {
        self.ask(|reply| Control::Close(listeners, reply)).await;
    }

    /// Reads the document again and applies it; what comes of it is in the log and in `/status`.
    pub fn reload(&self) {
        let (reply, _nobody_waits) = blocking::channel();
        let _ended_has_nothing_to_reload = self.orders.send(Control::Reload(reply));
    }

    /// Stops now: nobody waits for callers to hear of it, and what is in flight gets this long. Once more: at once.
    pub fn stop(&self, at_most: Duration) {
        let _may_have_stopped_itself = self.orders.send(Control::Stop(Some(at_most)));
    }

    async fn ask(&self, control: impl FnOnce(Reply) -> Control) {
        let (reply, mut done) = mpsc::channel(1);
        let _ended_has_nothing_to_do = self.orders.send(control(reply));
        // It is never sent on: it closes when the last copy is dropped.
        let _closed = done.recv().await;
    }
}

impl Engine {
    pub fn start(path: &Path, options: Options) -> Result<Running, StartError> {
        Self::start_origin(Origin::File(path.to_owned()), options)
    }

    /// Starts on a document that has no file.
    pub fn start_document(document: Document, options: Options) -> Result<Running, StartError> {
        Self::start_origin(Origin::Fixed(Box::new(document)), options)
    }

    fn start_origin(origin: Origin, mut options: Options) -> Result<Running, StartError> {
        let started = Instant::now();
        let mut loader = std::mem::take(&mut options.loader);
        let file = origin.load(&mut loader).map_err(StartError::Problems)?;
        let count = file.server.workers.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        });
        let metrics = Arc::new(Metrics::new(count));
        let mut memory = Memory::default();
        let mut state = None;
        if let Some(folder) = &file.server.state_dir {
            let limits;
            (state, limits) = State::open(folder);
            memory.limits = Arc::new(limits);
            memory.reflected = Arc::new(Reflected::kept_in(folder));
        }
        let mut learned = Learned::open(file.server.state_dir.as_deref());
        // Nobody is asked: what an earlier process left makes us a member before the first connection.
        let membership = identity::restore(
            file.identity.as_ref(),
            file.server.state_dir.as_deref(),
            &memory.member,
        );
        let services = memory.services.clone();
        let Beginning {
            pair,
            document,
            snapshot: first,
            restored,
        } = control_plane::begin(file, &mut loader, &services, |document| {
            learned.knows(&services);
            memory.learned = learned.names();
            let first = compile(document, None, &mut memory, &metrics, count)?;
            prove(document, &first)?;
            Ok(first)
        })
        .map_err(StartError::Problems)?;
        if let Some(held) = &first.held {
            memory.hold(held);
        }
        let inputs = Inputs::new(pair);
        let mut inherited: Vec<Handed> = options
            .taken
            .as_mut()
            .map(|taken| std::mem::take(&mut taken.sockets))
            .unwrap_or_default();
        let mut sockets: HashMap<Place, Vec<TcpListener>> = HashMap::new();
        for plan in first.listeners.iter().flatten() {
            let bind = plan.item.bind;
            let bound = match take(&mut inherited, Kind::Listener, &plan.item.name, bind) {
                Some(taken) => {
                    accept::share(taken, count).map(|shares| shares.into_iter().flatten().collect())
                }
                None => accept::bind_workers(bind, count),
            };
            let bound = bound.map_err(|error| StartError::Bind {
                what: format!("listener {}", plan.item.name),
                address: bind,
                error,
            })?;
            sockets.insert(Place::of(&plan.item), bound);
        }
        let admin_socket = match document.server.admin {
            None => None,
            Some(address) => Some(
                match take(&mut inherited, Kind::Admin, "admin", address)
                    .and_then(|mut sockets| sockets.pop())
                {
                    Some(socket) => socket,
                    None => {
                        accept::bind(address, false, 128).map_err(|error| StartError::Bind {
                            what: "admin".into(),
                            address,
                            error,
                        })?
                    }
                },
            ),
        };
        drop(inherited);
        let admin_address = admin_socket
            .as_ref()
            .and_then(|socket| socket.local_addr().ok());
        let access_log = Arc::new(AccessLog::start(&document.telemetry).map_err(StartError::Io)?);
        metrics.watch_access_log(access_log.dropped_counter());
        metrics.label(&document.telemetry.labels);
        let store = Arc::new(Store::new(Arc::new(first)));
        let common = Common {
            store,
            metrics: metrics.clone(),
            access_log,
            ledger: Arc::new(Ledger::default()),
            learning: Arc::new(Learning::new(started)),
        };
        let workers = Workers::start(count, &common).map_err(StartError::Io)?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let (becoming, ready_now) = watch::channel(false);
        let (told, ready) = blocking::channel();
        let shared = common.clone();
        let build = move || {
            let inputs = (inputs, document);
            Reloader::new(origin, loader, inputs, memory, workers, sockets, &shared)
        };
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                control(
                    build,
                    common,
                    admin_socket,
                    inbox,
                    &told,
                    options,
                    Left {
                        state,
                        restored,
                        membership,
                        learned,
                        started,
                        becoming,
                    },
                )
            })
            .map_err(StartError::Io)?;
        match ready.recv() {
            Ok(Ok(addresses)) => Ok(Running {
                handle: Handle {
                    orders,
                    ready: ready_now,
                },
                thread: Some(thread),
                addresses,
                admin: admin_address,
            }),
            Ok(Err(error)) => Err(StartError::Io(error)),
            Err(_) => Err(StartError::Io(std::io::Error::other(
                "the control thread died while starting",
            ))),
        }
    }
}

/// Sockets for an address that a predecessor handed over.
fn take(
    inherited: &mut Vec<Handed>,
    kind: Kind,
    name: &str,
    bind: SocketAddr,
) -> Option<Vec<TcpListener>> {
    let wanted = Place::new(name, bind);
    let position = inherited.iter().position(|handed| {
        handed.kind == kind && Place::new(&handed.name, handed.bind) == wanted
    })?;
    let sockets = inherited.swap_remove(position).sockets;
    (!sockets.is_empty()).then_some(sockets)
}

impl Running {
    /// A listener's real address.
    pub fn listener(&self, name: &str) -> Option<SocketAddr> {
        self.listeners()
            .into_iter()
            .find(|(known, _)| known == name)
            .map(|(_, address)| address)
    }

    /// Every listener that is open now.
    pub fn listeners(&self) -> Vec<(String, SocketAddr)> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// For orders from elsewhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Reads the document again and applies it; blocking.
    pub fn reload(&self) -> Result<u64, Problems> {
        let (reply, answer) = blocking::channel();
        let stopped = || Problems(Vec::new());
        { &self.handle.orders }
            .send(Control::Reload(reply))
            .map_err(|_| stopped())?;
        answer.recv().unwrap_or_else(|_| Err(stopped()))
    }

    /// Waits until every worker has finished what it was in the middle of; blocking. A client may hold the last byte of an
    /// answer before its books are closed: after this they are.
    #[cfg(feature = "testing")]
    pub fn settle(&self) {
        let (asker, answer) = blocking::channel();
        if self.handle.orders.send(Control::Turn(asker)).is_ok() {
            // Nothing is ever sent: it ends when the last worker has dropped its end.
            let _all_have_had_their_turn = answer.recv_timeout(crate::testing::PATIENCE);
        }
    }

    /// Drains and stops; blocking.
    pub fn stop(mut self) -> DrainReport {
        let _may_have_stopped_itself = self.handle.orders.send(Control::Stop(None));
        self.join()
    }

    /// Waits until the process was asked to stop and has drained; blocking.
    pub fn wait(mut self) -> DrainReport {
        self.join()
    }

    fn join(&mut self) -> DrainReport {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(report)) => report,
            Some(Err(_)) => std::process::exit(process::exit::FAILURE.into()),
            None => Ledger::default().report(Duration::ZERO),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _may_have_stopped_itself = self.handle.orders.send(Control::Stop(None));
            self.join();
        }
    }
}

type Told = blocking::Sender<Result<Addresses, std::io::Error>>;
/// Written by the control thread after each reload, read by the owner.
type Addresses = Arc<Mutex<Vec<(String, SocketAddr)>>>;

/// What the process before this one left, and when this one began.
struct Left {
    state: Option<State>,
    restored: Restored,
    membership: identity::Restored,
    learned: Learned,
    started: Instant,
    becoming: watch::Sender<bool>,
}

/// The control thread: reload, upkeep of upstreams, admin, signals, handover.
fn control(
    build: impl FnOnce() -> Reloader,
    common: Common,
    admin_socket: Option<TcpListener>,
    inbox: mpsc::UnboundedReceiver<Control>,
    told: &Told,
    options: Options,
    left: Left,
) -> DrainReport {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _starter_waits = told.send(Err(error));
            return common.ledger.report(Duration::ZERO);
        }
    };
    runtime.block_on(async move {
        let reloader = build();
        // After the workers were started: a thread begins with its parent's priority.
        process::give_way();
        let services = reloader.memory.services.clone();
        let feed = Feed::new(
            left.restored,
            services,
            common.metrics.clone(),
            common.store.clone(),
            reloader.addresses.clone(),
            common.learning.clone(),
        );
        let member = reloader.memory.member.clone();
        common.metrics.identity().watch(&member);
        let orders = reloader.workers.clone_orders();
        let look_again = move || {
            for worker in &orders {
                let _ended_workers_need_no_orders = worker.send(Order::LookAgain);
            }
        };
        let metrics = common.metrics.clone();
        let identity = Identity::new(left.membership, member, metrics, look_again);
        Conductor {
            feed,
            complete: Rc::default(),
            identity,
            reloader,
            common,
            options,
            state: left.state.map(Rc::new),
            learned: Rc::new(RefCell::new(left.learned)),
            unwritten: Rc::default(),
            started: left.started,
            becoming: left.becoming,
            withdrawn: false,
            at_most: None,
            handed: Rc::default(),
        }
        .run(admin_socket, inbox, told)
        .await
    })
}

struct Conductor {
    reloader: Reloader,
    /// What the control plane tells.
    feed: Rc<Feed>,
    /// What serves is all that there should be.
    complete: Rc<Cell<bool>>,
    /// Who we are in the mesh.
    identity: Rc<Identity>,
    common: Common,
    options: Options,
    /// The folder for what outlives the process.
    state: Option<Rc<State>>,
    /// Services that requests asked for.
    learned: Rc<RefCell<Learned>>,
    /// What was learned may not be on disk.
    unwritten: Rc<Notify>,
    started: Instant,
    /// Tells the owner.
    becoming: watch::Sender<bool>,
    /// Nobody should come any more.
    withdrawn: bool,
    /// What an owner in a hurry gives to those who are inside.
    at_most: Option<Duration>,
    /// Copies of all listening sockets, for a successor.
    handed: Rc<RefCell<Vec<Handed>>>,
}

/// Why the loop ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The owner or the admin address asked for it.
    Stop,
    /// SIGTERM or SIGINT.
    Signal,
    /// A successor serves on the same sockets.
    Succeeded,
}

impl Conductor {
    async fn run(
        mut self,
        admin_socket: Option<TcpListener>,
        mut inbox: mpsc::UnboundedReceiver<Control>,
        told: &Told,
    ) -> DrainReport {
        let (commands, mut asked) = mpsc::unbounded_channel();
        let ready = Arc::new(AtomicBool::new(false));
        let document = &self.reloader.document;
        let key = document
            .listeners
            .first()
            .map(|first| handover::key(document.server.admin, first.bind));
        let mut upkeep = Upkeep::new(self.common.metrics.clone());
        upkeep.follow(&self.common.store.current(), &self.reloader.memory);
        upkeep.first_answers(&self.reloader.memory).await;
        if let Err(error) = self.reloader.begin() {
            let _starter_waits = told.send(Err(error));
            return self.common.ledger.report(Duration::ZERO);
        }
        let reflected = self.reloader.memory.reflected.clone();
        self.reflected(&mut upkeep);
        let admin_copy = admin_socket
            .as_ref()
            .and_then(|socket| socket.try_clone().ok());
        let serving = admin_socket.and_then(|socket| self.admin(socket, &ready, commands.clone()));
        let limits = self.reloader.memory.limits.clone();
        let keeper = keeper(self.common.store.clone(), limits, self.state.clone());
        let keeper = tokio::task::spawn_local(keeper).abort_handle();
        let leasing = leasing(
            self.common.store.clone(),
            self.reloader.memory.limits.clone(),
            self.common.metrics.clone(),
        );
        // Ends with the process: whoever drains still serves.
        let leasing = tokio::task::spawn_local(leasing).abort_handle();
        let mut watch = Watch::new();
        if self.options.watch {
            watch.follow(&self.reloader.document.sources);
        }
        let mut signals = self
            .options
            .signals
            .then(process::Signals::new)
            .and_then(Result::ok);
        let feed = self.feed.clone();
        self.take_asked();
        feed.follow(&self.reloader.inputs.served().file);
        let keeping = tokio::task::spawn_local(feed.clone().keep()).abort_handle();
        let remembering = learning::keep(self.learned.clone(), self.unwritten.clone());
        let remembering = tokio::task::spawn_local(remembering).abort_handle();
        let learning = self.common.learning.clone();
        let mut look = Box::pin(tokio::time::sleep(self.look_again()));
        let identity = self.identity.clone();
        identity.follow(&self.reloader.inputs.served().file);
        let identity_tasks = [
            tokio::task::spawn_local(identity.clone().write()).abort_handle(),
            tokio::task::spawn_local(identity.clone().watch_files()).abort_handle(),
        ];
        if !self.becomes_ready(&ready) {
            let why = match self.reloader.inputs.served().is_complete() {
                true => "not ready: this data plane has no certificate of the mesh yet",
                false => "not ready: no route is known before the control plane tells the first",
            };
            log::warn(why, &[]);
        }
        self.copy_sockets(admin_copy.as_ref());
        let offered = self.handed.clone();
        let handing = Rc::new(Handing::default());
        let busy = handing.clone();
        let offer = key.filter(|_| self.options.handover).and_then(offer);
        // Last: whoever is told that we serve may start our successor.
        let _starter_waits = told.send(Ok(self.reloader.addresses.clone()));
        let mut succeeded = std::pin::pin!(async {
            match offer {
                Some(offer) => hand_over(offer, &offered, &busy).await,
                None => std::future::pending().await,
            }
        });
        let end = loop {
            tokio::select! {
                control = inbox.recv() => match control {
                    Some(Control::Reload(reply)) => {
                        let result = self.reload(&mut upkeep, &mut watch);
                        let _asker_may_be_gone = reply.send(result);
                    }
                    #[cfg(feature = "testing")]
                    Some(Control::Turn(asker)) => for order in self.reloader.workers.clone_orders() {
                        let _ended_workers_are_done = order.send(Order::Turn(asker.clone()));
                    },
                    Some(Control::Withdraw(reply)) => {
                        self.withdrawn = true;
                        ready.store(false, Ordering::Release);
                        let feed = self.feed.clone();
                        // Ends by itself, soon.
                        tokio::task::spawn_local(async move {
                            feed.unregister().await;
                            drop(reply);
                        });
                    }
                    Some(Control::Close(names, reply)) => {
                        // A door that closes must not be kept open by a copy.
                        self.handed.borrow_mut().clear();
                        let permits = self.reloader.close(&names);
                        tokio::task::spawn_local(async move {
                            all_gone(permits).await;
                            drop(reply);
                        });
                    }
                    Some(Control::Stop(at_most)) => {
                        self.at_most = at_most;
                        break End::Stop;
                    }
                    None => break End::Stop,
                },
                Some(command) = asked.recv() => match command {
                    Command::Reload(reply) => {
                        let result = self.reload(&mut upkeep, &mut watch);
                        let words = result.map_err(|problems| problems.0.iter().map(ToString::to_string).collect());
                        let _asker_may_be_gone = reply.send(words);
                    }
                    Command::Drain => match &self.options.drain_asked {
                        Some(owner) if owner.send(true).is_ok() => {}
                        _ => break End::Stop,
                    },
                },
                () = identity.changed() => {}
                () = feed.arrived() => self.fed(&mut upkeep, &mut watch),
                () = reflected.news.notified() => self.reflected(&mut upkeep),
                () = learning.asked() => self.asked(&mut upkeep),
                () = &mut look => {
                    self.forget(&mut upkeep);
                    look.as_mut().reset(tokio::time::Instant::now() + self.look_again());
                }
                () = watch.changed(), if self.options.watch => if !handing.postpones() {
                    let _told_in_log_and_status = self.reload(&mut upkeep, &mut watch);
                },
                () = handing.over.notified() => {
                    let _told_in_log_and_status = self.reload(&mut upkeep, &mut watch);
                }
                signal = next_signal(&mut signals) => match signal {
                    Signal::Stop => break End::Signal,
                    Signal::Reload => if !handing.postpones() {
                        let _told_in_log_and_status = self.reload(&mut upkeep, &mut watch);
                    }
                },
                () = &mut succeeded => break End::Succeeded,
            }
            self.becomes_ready(&ready);
            self.copy_sockets(admin_copy.as_ref());
        };
        keeping.abort();
        remembering.abort();
        identity_tasks
            .iter()
            .for_each(tokio::task::AbortHandle::abort);
        match (end, &serving) {
            // Whoever asks this address from now on asks the successor, and it is ready.
            (End::Succeeded, Some(serving)) => serving.abort(),
            _ => {
                ready.store(false, Ordering::Release);
                // First of all: nobody should come any more. A successor is the same instance.
                self.feed.leave().await;
            }
        }
        feed.end(end != End::Succeeded);
        // A successor has learned what we knew, and writes it.
        let writing = self.learned.borrow_mut().unwritten();
        if let Some(writing) = writing.filter(|_| end != End::Succeeded) {
            writing.write();
        }
        identity.end(end != End::Succeeded);
        drop(upkeep);
        keeper.abort();
        // Whoever still holds a copy of a listening socket keeps it open.
        self.handed.borrow_mut().clear();
        drop(admin_copy);
        let report = self.drain(end, &mut signals, &mut inbox).await;
        leasing.abort();
        if let Some(serving) = serving {
            serving.abort();
        }
        report
    }

    fn reload(&mut self, upkeep: &mut Upkeep, watch: &mut Watch) -> Result<u64, Problems> {
        // A door that closes must not be kept open by a copy. They are made again before anybody can ask for them.
        self.handed.borrow_mut().clear();
        let result = self.reloader.reload();
        if result.is_ok() {
            upkeep.follow(&self.common.store.current(), &self.reloader.memory);
            self.feed.follow(&self.reloader.inputs.served().file);
            self.identity.follow(&self.reloader.inputs.served().file);
            if self.options.watch {
                watch.follow(&self.reloader.document.sources);
            }
        }
        result
    }

    /// An upstream told other descriptors than before; or it may have, before anybody could hear of it.
    fn reflected(&mut self, upkeep: &mut Upkeep) {
        if self.reloader.reflected() {
            upkeep.follow(&self.common.store.current(), &self.reloader.memory);
        }
    }

    /// The control plane told something.
    fn fed(&mut self, upkeep: &mut Upkeep, watch: &mut Watch) {
        let arrived = self.feed.take();
        self.learned.borrow_mut().told(&arrived.services);
        // First: what is compiled next knows of them.
        self.take_asked();
        if let Some(batch) = &arrived.blocks {
            self.handed.borrow_mut().clear();
            let result = self.reloader.feed(batch);
            let served = self.reloader.inputs.served();
            let hash = &self.reloader.document.hash;
            match &result {
                Ok(_) => {
                    self.feed.outcome(batch, Ok((served, hash)));
                    upkeep.follow(&self.common.store.current(), &self.reloader.memory);
                    if self.options.watch {
                        watch.follow(&self.reloader.document.sources);
                    }
                }
                Err(problems) => self.feed.outcome(batch, Err(problems)),
            }
        }
        if let Some(trust) = arrived.trust {
            self.identity.told(trust);
        }
        if !arrived.services.is_empty() {
            upkeep.services_changed(&arrived.services, &self.reloader.memory);
        }
        self.learn(upkeep);
    }

    /// Whether a complete snapshot serves; the first time it is told to whoever waits for it.
    fn becomes_ready(&mut self, ready: &AtomicBool) -> bool {
        let complete = self.reloader.inputs.served().is_complete();
        self.complete.set(complete);
        let member = (self.identity).is_enough_for(&self.common.store.current());
        if self.withdrawn || !complete || !member {
            return ready.load(Ordering::Acquire);
        }
        self.becoming.send_replace(true);
        ready.store(true, Ordering::Release);
        self.feed.ready();
        if let Some(taken) = self.options.taken.take()
            && let Err(error) = taken.confirm.serving()
        {
            log::warn(
                "the predecessor could not be told that we serve",
                &[("error", &error.to_string())],
            );
        }
        true
    }

    fn admin(
        &self,
        socket: TcpListener,
        ready: &Arc<AtomicBool>,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Option<tokio::task::AbortHandle> {
        let listener = tokio::net::TcpListener::from_std(socket).ok()?;
        let loads = self.reloader.workers.loads();
        let admin = Admin {
            store: self.common.store.clone(),
            metrics: self.common.metrics.clone(),
            limits: self.reloader.memory.limits.clone(),
            report: self.reloader.report.clone(),
            ready: ready.clone(),
            complete: self.complete.clone(),
            commands,
            addresses: self.reloader.addresses.clone(),
            started: self.started,
            feed: self.feed.clone(),
            learned: self.learned.clone(),
            identity: self.identity.clone(),
            connections: Box::new(move || {
                loads.iter().map(|load| load.load(Ordering::Relaxed)).sum()
            }),
        };
        Some(tokio::task::spawn_local(Rc::new(admin).serve(listener)).abort_handle())
    }

    fn copy_sockets(&self, admin: Option<&TcpListener>) {
        let listeners = self
            .reloader
            .sockets()
            .into_iter()
            .map(|(name, bind, sockets)| Handed {
                kind: Kind::Listener,
                name,
                bind,
                sockets,
            });
        let admin = admin.and_then(|socket| {
            let bind = self.reloader.document.server.admin?;
            Some(Handed {
                kind: Kind::Admin,
                name: "admin".into(),
                bind,
                sockets: vec![socket.try_clone().ok()?],
            })
        });
        *self.handed.borrow_mut() = listeners.chain(admin).collect();
    }

    /// Stops taking, lets finish, then cuts.
    async fn drain(
        mut self,
        end: End,
        signals: &mut Option<process::Signals>,
        inbox: &mut mpsc::UnboundedReceiver<Control>,
    ) -> DrainReport {
        let began = Instant::now();
        let server = &self.reloader.document.server;
        let (drain, lag) = match self.at_most {
            Some(at_most) => (at_most, Duration::ZERO),
            None => (server.drain, server.drain_lag),
        };
        let mut hurry = std::pin::pin!(async {
            tokio::select! {
                () = second_stop(end, signals) => {}
                () = stop_ordered(inbox) => {}
            }
        });
        let mut hurried = false;
        if end != End::Succeeded && !lag.is_zero() {
            hurried = tokio::time::timeout(lag, hurry.as_mut()).await.is_ok();
        }
        self.reloader.close_all();
        self.reloader.leave();
        let Reloader {
            workers, memory, ..
        } = self.reloader;
        let orders = workers.clone_orders();
        let joined = tokio::task::spawn_blocking(move || workers.join());
        let mut joined = std::pin::pin!(joined);
        let all_left = !hurried
            && tokio::select! {
                _ended = joined.as_mut() => true,
                () = tokio::time::sleep(drain) => false,
                () = hurry => false,
            };
        if !all_left {
            for order in &orders {
                let _ended_workers_need_no_orders = order.send(Order::Cut);
            }
            let _workers_end_at_once = joined.await;
        }
        // A successor has the counts in its own hands, and writes them.
        if let Some(state) = self.state.filter(|_| end != End::Succeeded) {
            state.keep(&memory.limits);
        }
        let report = self.common.ledger.report(began.elapsed());
        log::info("stopped", &[("report", &report.to_string())]);
        if !self.common.access_log.close(LAST_LINES) {
            log::warn("the last access lines could not be written in time", &[]);
        }
        report
    }
}

/// Whether a successor has been given our sockets and has yet to say that it serves. Until then the document is its
/// own: a reload here could bind an address that it is about to bind.
#[derive(Default)]
struct Handing {
    begun: Cell<bool>,
    missed: Cell<bool>,
    /// It will not serve, and a reload was postponed for it.
    over: Notify,
}

impl Handing {
    /// Whether a reload has to wait; it is made up for if the successor fails.
    fn postpones(&self) -> bool {
        if self.begun.get() {
            self.missed.set(true);
        }
        self.begun.get()
    }

    fn failed(&self) {
        self.begun.set(false);
        if self.missed.replace(false) {
            self.over.notify_one();
        }
    }
}

/// From now on a successor can ask.
fn offer(key: String) -> Option<Offer> {
    Offer::new(&key)
        .inspect_err(|error| {
            log::warn(
                "no upgrade in place: the handover address cannot be used",
                &[("error", &error.to_string())],
            );
        })
        .ok()
}

/// Hands the sockets to whoever asks; returns when a successor serves on them.
async fn hand_over(offer: Offer, handed: &RefCell<Vec<Handed>>, handing: &Handing) {
    let copies = || {
        let copy = |one: &Handed| Handed {
            kind: one.kind,
            name: one.name.clone(),
            bind: one.bind,
            sockets: one
                .sockets
                .iter()
                .filter_map(|socket| socket.try_clone().ok())
                .collect(),
        };
        handing.begun.set(true);
        handed.borrow().iter().map(copy).collect()
    };
    let successor = offer.serve(copies, || handing.failed()).await;
    log::info(
        "a successor serves on our sockets; draining",
        &[("pid", &successor.pid.to_string())],
    );
}

/// Returns when nobody else holds one of these.
async fn all_gone(permits: Vec<Arc<Permits>>) {
    while permits.iter().any(|permits| Arc::strong_count(permits) > 1) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Returns when the owner says once more to stop.
async fn stop_ordered(inbox: &mut mpsc::UnboundedReceiver<Control>) {
    loop {
        match inbox.recv().await {
            Some(Control::Stop(_)) => return,
            // Whoever asked is answered by the drop.
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Returns when a draining process is told to stop once more: the drain's own signal does not count.
async fn second_stop(end: End, signals: &mut Option<process::Signals>) {
    let more = if end == End::Signal { 1 } else { 2 };
    for _ in 0..more {
        while next_signal(signals).await != Signal::Stop {}
    }
}

async fn next_signal(signals: &mut Option<process::Signals>) -> Signal {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}
