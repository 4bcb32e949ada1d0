//! The control thread: reload, upkeep of upstreams, admin, signals, handover. One loop that waits for whatever comes next;
//! `changes` applies it, `learning` learns from it, `handing` and `ending` are the two ways out. No request passes here.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, spawn_local};

use super::Options;
use super::ending::{End, all_gone, next_signal};
use super::handing::{Handing, hand_over, offer};
use super::learning;
use super::running::{Addresses, Control};
use crate::admin::{Admin, Command};
use crate::drain::DrainReport;
use crate::exporting::Exporting;
use crate::identity::{self, Identity};
use crate::leasing::leasing;
use crate::net::handover::{self, Handed};
use crate::process::{self, Request as Signal};
use crate::reload::Reloader;
use crate::reload::control_plane::{Feed, Restored};
use crate::reload::file::Watch;
use crate::reload::learned::Learned;
use crate::server::workers::{Common, Order};
use crate::state::{State, keeper};
use crate::telemetry::log;
use crate::upkeep::Upkeep;

pub(super) type Told = blocking::Sender<Result<Addresses, std::io::Error>>;

/// What the process before this one left, and when this one began.
pub(super) struct Left {
    pub(super) state: Option<State>,
    pub(super) restored: Restored,
    pub(super) membership: identity::Restored,
    pub(super) learned: Learned,
    pub(super) started: Instant,
    pub(super) becoming: watch::Sender<bool>,
}

/// The control thread: reload, upkeep of upstreams, admin, signals, handover.
pub(super) fn control(
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
            common.spans.clone(),
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

pub(super) struct Conductor {
    pub(super) reloader: Reloader,
    /// What the control plane tells.
    pub(super) feed: Rc<Feed>,
    /// What serves is all that there should be.
    pub(super) complete: Rc<Cell<bool>>,
    /// Who we are in the mesh.
    pub(super) identity: Rc<Identity>,
    pub(super) common: Common,
    pub(super) options: Options,
    /// The folder for what outlives the process.
    pub(super) state: Option<Rc<State>>,
    /// Services that requests asked for.
    pub(super) learned: Rc<RefCell<Learned>>,
    /// What was learned may not be on disk.
    pub(super) unwritten: Rc<Notify>,
    pub(super) started: Instant,
    /// Tells the owner.
    pub(super) becoming: watch::Sender<bool>,
    /// Nobody should come any more.
    pub(super) withdrawn: bool,
    /// What an owner in a hurry gives to those who are inside.
    pub(super) at_most: Option<Duration>,
    /// Copies of all listening sockets, for a successor.
    pub(super) handed: Rc<RefCell<Vec<Handed>>>,
}

/// What goes on beside the loop, on its thread.
struct Beside {
    /// Speaks with control planes.
    feed: AbortHandle,
    /// Writes what was learned.
    learned: AbortHandle,
    /// Writes certificates, and sees files that hold them change.
    identity: [AbortHandle; 2],
    /// Writes the counts of limits.
    keeper: AbortHandle,
    /// Asks for tokens of shared limits. Ends with the process: whoever drains still serves.
    leasing: AbortHandle,
    /// Tells a collector of spans. Ends last: whoever drains still has spans to tell.
    exporting: Exporting,
    admin: Option<AbortHandle>,
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
        let mut upkeep = self.first_upkeep().await;
        if let Err(error) = self.reloader.begin() {
            let _starter_waits = told.send(Err(error));
            return self.common.ledger.report(Duration::ZERO);
        }
        let admin_copy = admin_socket
            .as_ref()
            .and_then(|socket| socket.try_clone().ok());
        let admin = admin_socket.and_then(|socket| self.admin(socket, &ready, commands.clone()));
        let mut watch = Watch::new();
        if self.options.watch {
            watch.follow(&self.reloader.document.sources);
        }
        let mut signals = self
            .options
            .signals
            .then(process::Signals::new)
            .and_then(Result::ok);
        self.take_asked();
        let beside = self.begin_beside(admin);
        let mut look = Box::pin(tokio::time::sleep(self.look_again()));
        if !self.becomes_ready(&ready) {
            self.say_why_not_ready();
        }
        self.copy_sockets(admin_copy.as_ref());
        let handing = Rc::new(Handing::default());
        let mut succeeded = std::pin::pin!(self.successor(&handing));
        // Last: whoever is told that we serve may start our successor.
        let _starter_waits = told.send(Ok(self.reloader.addresses.clone()));
        let feed = self.feed.clone();
        let identity = self.identity.clone();
        let learning = self.common.learning.clone();
        let reflected = self.reloader.memory.reflected.clone();
        let end = loop {
            tokio::select! {
                control = inbox.recv() => {
                    if let Some(end) = self.ordered(control, &ready, &mut upkeep, &mut watch) {
                        break end;
                    }
                }
                Some(command) = asked.recv() => {
                    if let Some(end) = self.commanded(command, &mut upkeep, &mut watch) {
                        break end;
                    }
                }
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
        self.leave(end, &ready, &beside, upkeep).await;
        drop(admin_copy);
        let report = self.drain(end, &mut signals, &mut inbox).await;
        beside.exporting.finish().await;
        beside.leasing.abort();
        if let Some(admin) = beside.admin {
            admin.abort();
        }
        report
    }

    /// Follows the first snapshot, and waits for what it cannot serve without.
    async fn first_upkeep(&mut self) -> Upkeep {
        let mut upkeep = Upkeep::new(self.common.metrics.clone());
        upkeep.follow(&self.common.store.current(), &self.reloader.memory);
        upkeep.first_answers(&self.reloader.memory).await;
        self.reflected(&mut upkeep);
        upkeep
    }

    fn begin_beside(&self, admin: Option<AbortHandle>) -> Beside {
        let file = &self.reloader.inputs.served().file;
        self.feed.follow(file);
        self.identity.follow(file);
        let limits = &self.reloader.memory.limits;
        let store = &self.common.store;
        let keeper = keeper(store.clone(), limits.clone(), self.state.clone());
        let leasing = leasing(store.clone(), limits.clone(), self.common.metrics.clone());
        let learned = learning::keep(self.learned.clone(), self.unwritten.clone());
        let identity = &self.identity;
        Beside {
            feed: spawn_local(self.feed.clone().keep()).abort_handle(),
            learned: spawn_local(learned).abort_handle(),
            identity: [
                spawn_local(identity.clone().write()).abort_handle(),
                spawn_local(identity.clone().watch_files()).abort_handle(),
            ],
            keeper: spawn_local(keeper).abort_handle(),
            leasing: spawn_local(leasing).abort_handle(),
            exporting: Exporting::start(self.common.spans.clone(), self.common.metrics.clone()),
            admin,
        }
    }

    fn say_why_not_ready(&self) {
        let why = match self.reloader.inputs.served().is_complete() {
            true => "not ready: this data plane has no certificate of the mesh yet",
            false => "not ready: no route is known before the control plane tells the first",
        };
        log::warn(why, &[]);
    }

    /// Returns when a successor serves on our sockets; from now on one can ask for them.
    fn successor(&self, handing: &Rc<Handing>) -> impl Future<Output = ()> + use<> {
        let document = &self.reloader.document;
        let first = document.listeners.first();
        let offer = first
            .filter(|_| self.options.handover)
            .map(|first| handover::key(document.server.admin, first.bind))
            .and_then(offer);
        let (handed, handing) = (self.handed.clone(), handing.clone());
        async move {
            match offer {
                Some(offer) => hand_over(offer, &handed, &handing).await,
                None => std::future::pending().await,
            }
        }
    }

    /// The owner's orders. `None` as an order: there is no owner any more.
    fn ordered(
        &mut self,
        order: Option<Control>,
        ready: &AtomicBool,
        upkeep: &mut Upkeep,
        watch: &mut Watch,
    ) -> Option<End> {
        match order {
            Some(Control::Reload(reply)) => {
                let result = self.reload(upkeep, watch);
                let _asker_may_be_gone = reply.send(result);
            }
            #[cfg(feature = "testing")]
            Some(Control::Turn(asker)) => {
                for order in self.reloader.workers.clone_orders() {
                    let _ended_workers_are_done = order.send(Order::Turn(asker.clone()));
                }
            }
            Some(Control::Withdraw(reply)) => {
                self.withdrawn = true;
                ready.store(false, Ordering::Release);
                let feed = self.feed.clone();
                // Ends by itself, soon.
                spawn_local(async move {
                    feed.unregister().await;
                    drop(reply);
                });
            }
            Some(Control::Close(names, reply)) => {
                // A door that closes must not be kept open by a copy.
                self.handed.borrow_mut().clear();
                let permits = self.reloader.close(&names);
                spawn_local(async move {
                    all_gone(permits).await;
                    drop(reply);
                });
            }
            Some(Control::Stop(at_most)) => {
                self.at_most = at_most;
                return Some(End::Stop);
            }
            None => return Some(End::Stop),
        }
        None
    }

    /// What the admin address was asked for.
    fn commanded(
        &mut self,
        command: Command,
        upkeep: &mut Upkeep,
        watch: &mut Watch,
    ) -> Option<End> {
        match command {
            Command::Reload(reply) => {
                let result = self.reload(upkeep, watch);
                let words =
                    result.map_err(|problems| problems.0.iter().map(ToString::to_string).collect());
                let _asker_may_be_gone = reply.send(words);
                None
            }
            Command::Drain => match &self.options.drain_asked {
                Some(owner) if owner.send(true).is_ok() => None,
                _ => Some(End::Stop),
            },
        }
    }

    /// Lets go of what others see or a successor has, before those who are inside are waited for.
    async fn leave(&mut self, end: End, ready: &AtomicBool, beside: &Beside, upkeep: Upkeep) {
        beside.feed.abort();
        beside.learned.abort();
        beside.identity.iter().for_each(AbortHandle::abort);
        match (end, &beside.admin) {
            // Whoever asks this address from now on asks the successor, and it is ready.
            (End::Succeeded, Some(admin)) => admin.abort(),
            _ => {
                ready.store(false, Ordering::Release);
                // First of all: nobody should come any more. A successor is the same instance.
                self.feed.leave().await;
            }
        }
        self.feed.end(end != End::Succeeded);
        // A successor has learned what we knew, and writes it.
        let writing = self.learned.borrow_mut().unwritten();
        if let Some(writing) = writing.filter(|_| end != End::Succeeded) {
            writing.write();
        }
        self.identity.end(end != End::Succeeded);
        drop(upkeep);
        beside.keeper.abort();
        // Whoever still holds a copy of a listening socket keeps it open.
        self.handed.borrow_mut().clear();
    }

    fn admin(
        &self,
        socket: TcpListener,
        ready: &Arc<AtomicBool>,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Option<AbortHandle> {
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
            spans: self.common.spans.clone(),
            connections: Box::new(move || {
                loads.iter().map(|load| load.load(Ordering::Relaxed)).sum()
            }),
        };
        Some(spawn_local(Rc::new(admin).serve(listener)).abort_handle())
    }
}
