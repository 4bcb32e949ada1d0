//! The node's side of the feed: subscribes, keeps what is told, hands it to the one writer, reports what came of it.
//!
//! All of it runs on the control thread and never in a request's way. `following` listens, over a `link`; `lines` makes
//! lines of bytes, `known` judges and keeps what they say, `turns` says whom to ask when, `last_good` is what a restart
//! begins with. `telling` says what this node saw of instances (`observing`) and what it served; `wishes` says
//! which services requests have asked for; `lender` asks for tokens of
//! shared limits; `answering` says what the control plane asks for; `registration` announces a service, when `beats` says so. Nothing here compiles or publishes: `Reloader`
//! does, when `arrived` says so. That no control plane answers changes nothing that serves.

mod answering;
mod authority;
mod beats;
mod following;
mod known;
mod last_good;
mod lender;
mod lines;
mod link;
mod observing;
mod registration;
mod start;
mod status;
mod telling;
#[cfg(test)]
mod tests;
mod turns;
mod wishes;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tollgate_config::feed::{Ask, Line, NodeKind, Outcome, Trouble};
use tollgate_config::identity::Trust;
use tollgate_config::{
    Announced, ControlPlane, Document, EndpointSource, IdentitySource, Problem, Problems, Register,
};

use super::SharedAddresses;
use super::inputs::{List, Pair};
use crate::snapshot::store::Store;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::Spans;
use crate::upstream::Upstream;
use crate::upstream::discovery::Services;
use crate::upstream::learning::Learning;
pub(crate) use authority::{Authority, Unsigned};
pub use known::Known;
use known::{Fault, News};
pub use last_good::{Content, LastGood};
pub(crate) use lender::RemoteLender;
pub use start::{Beginning, Restored, begin};
use status::Status;
use telling::Telling;
use wishes::Wishes;

/// A burst of changes is written once; this long after the first of them.
const SETTLE: Duration = Duration::from_millis(200);
/// Between two writings.
const REST: Duration = Duration::from_millis(800);
/// Problems of a refusal that are told to the control plane.
const MOST_PROBLEMS: usize = 100;

/// What the control plane told, on its way to the writer. One exists per process, on the control thread.
pub struct Feed {
    known: RefCell<Known>,
    services: Arc<Services>,
    metrics: Arc<Metrics>,
    arrived: RefCell<Arrived>,
    news: Notify,
    outcome: RefCell<Option<Outcome>>,
    told: Notify,
    status: RefCell<Status>,
    /// What serves differs from what is on disk.
    unsaved: Notify,
    dirty: Cell<bool>,
    served: RefCell<Option<Served>>,
    last_good: Option<LastGood>,
    instance: String,
    telling: Telling,
    /// A question of the line that was taken last; taken by whoever follows, before the next line.
    asked: Cell<Option<Ask>>,
    wishes: Wishes,
    /// What requests wait for; told of by whoever hears of it.
    learning: Arc<Learning>,
    /// What requests did lately; workers write it.
    spans: Arc<Spans>,
    following: RefCell<Option<Following>>,
    /// This process announces nothing any more.
    left: Cell<bool>,
    store: Arc<Store>,
    /// Where each listener listens.
    addresses: SharedAddresses,
    ready: tokio::sync::watch::Sender<bool>,
}

/// What came since the writer asked last; the latest of everything.
#[derive(Default)]
pub struct Arrived {
    pub blocks: Option<Batch>,
    /// Whose instances are others now.
    pub services: Vec<String>,
    /// Whom the mesh trusts from now on.
    pub trust: Option<Trust>,
}

pub struct Batch {
    pub epoch: String,
    pub revision: u64,
    /// Refused without a look: nobody means to take everything away.
    pub emptied: bool,
    pub list: List,
    pub began: Instant,
}

struct Served {
    epoch: String,
    revision: u64,
    blocks: List,
}

/// A task that subscribes, and what it was started with.
struct Following {
    asks: Asks,
    task: AbortHandle,
    registration: Option<AbortHandle>,
}

#[derive(Clone, PartialEq)]
struct Asks {
    settings: ControlPlane,
    node: String,
    listeners: Vec<String>,
    also: Vec<String>,
    /// The service that this node is of.
    callee: Option<String>,
    /// Whom to trust is to be told, too.
    trust: bool,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(registration) = &self.registration {
            registration.abort();
        }
    }
}

impl Feed {
    /// `store` is what serves; the feed only looks at it.
    pub fn new(
        restored: Restored,
        services: Arc<Services>,
        metrics: Arc<Metrics>,
        store: Arc<Store>,
        addresses: SharedAddresses,
        learning: Arc<Learning>,
        spans: Arc<Spans>,
    ) -> Rc<Feed> {
        let Restored {
            known,
            serves,
            last_good,
        } = restored;
        let mut status = Status::default();
        let served = serves.then(|| {
            status.begins_with_last_good(known.revision());
            metrics.control_plane().serves(known.revision());
            Served {
                epoch: known.epoch().to_owned(),
                revision: known.revision(),
                blocks: known.blocks(),
            }
        });
        Rc::new(Feed {
            known: RefCell::new(known),
            services,
            metrics,
            arrived: RefCell::default(),
            news: Notify::new(),
            outcome: RefCell::default(),
            told: Notify::new(),
            status: RefCell::new(status),
            unsaved: Notify::new(),
            dirty: Cell::new(false),
            served: RefCell::new(served),
            last_good,
            instance: instance(),
            telling: Telling::new(store.clone()),
            asked: Cell::default(),
            wishes: Wishes::default(),
            learning,
            spans,
            following: RefCell::default(),
            left: Cell::default(),
            store,
            addresses,
            ready: tokio::sync::watch::Sender::default(),
        })
    }

    /// Subscribes as this file says from now on, or not at all. What is known is kept.
    pub fn follow(self: &Rc<Self>, file: &Document) {
        let Some(settings) = &file.control_plane else {
            self.withdraw(None);
            let nobody = "the document names none any longer";
            self.learning.away(Some(nobody), Instant::now());
            self.status.borrow_mut().off();
            self.metrics.control_plane().off();
            return;
        };
        let mut settings = settings.clone();
        if self.left.get() {
            settings.register = None;
        }
        if let Some(register) = &mut settings.register {
            self.locate(register);
        }
        let settings = &settings;
        let asks = Asks {
            settings: settings.clone(),
            node: settings.node.clone().unwrap_or_else(machine),
            listeners: file
                .listeners
                .iter()
                .map(|item| item.name.clone())
                .collect(),
            also: services_of(file),
            callee: file.own_service().as_ref().map(ToString::to_string),
            trust: asks_for_trust(file),
        };
        let same = |following: &Following| following.asks == asks;
        if self.following.borrow().as_ref().is_some_and(same) {
            return;
        }
        self.status.borrow_mut().on(&asks.node, &asks.settings);
        self.metrics.control_plane().on();
        self.telling.begin(&self.metrics);
        if settings.kind == NodeKind::Sidecar {
            // What it has may be the answer to other services.
            self.known.borrow_mut().asks_anew();
        }
        let task = tokio::task::spawn_local(following::subscribe(self.clone(), asks.clone()));
        let task = task.abort_handle();
        let id = { settings.register.as_ref() }
            .map(|register| registration::id_of(register, &asks.node, &machine()));
        self.withdraw(id.as_deref());
        let registration = settings.register.clone().zip(id).map(|(register, id)| {
            let keeping = registration::keep(self.clone(), settings.clone(), register, id);
            tokio::task::spawn_local(keeping).abort_handle()
        });
        *self.following.borrow_mut() = Some(Following {
            asks,
            task,
            registration,
        });
    }

    /// A listener is announced with the address that it has now.
    fn locate(&self, register: &mut Register) {
        let Announced::Listener(name) = &register.address else {
            return;
        };
        let addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let found = addresses.iter().find(|(known, _)| known == name);
        if let Some((_, address)) = found {
            register.address = Announced::Address(address.to_string());
        }
    }

    /// The upstream of this name that serves.
    fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        let snapshot = self.store.current();
        let plan = { snapshot.upstreams.iter() }.find(|plan| plan.item.name == name)?;
        Some(plan.upstream.clone())
    }

    /// Announces nothing any longer, unless it is this instance again.
    fn withdraw(&self, stays: Option<&str>) {
        let former = self.following.take();
        let registered = self.status.borrow().registered();
        if let (Some(id), Some(former)) = (registered, former)
            && stays != Some(&id)
        {
            self.status.borrow_mut().forget_registration();
            let settings = former.asks.settings.clone();
            // Ends by itself, soon.
            tokio::task::spawn_local(async move { registration::leave(&settings, &id).await });
        }
    }

    /// What serves is complete.
    pub fn ready(&self) {
        self.ready.send_replace(true);
    }

    async fn is_ready(&self) {
        // The sender is ours: it does not go away.
        let mut told = self.ready.subscribe();
        drop(told.wait_for(|ready| *ready).await);
    }

    /// Takes the word back that an instance is here, for good, and goes on listening.
    pub async fn unregister(&self) {
        self.left.set(true);
        let settings = self.following.borrow_mut().as_mut().and_then(|following| {
            following.registration.take()?.abort();
            let settings = following.asks.settings.clone();
            // What `follow` wants from now on: a reload shall change nothing.
            following.asks.settings.register = None;
            Some(settings)
        });
        let registered = self.status.borrow().registered();
        if let (Some(settings), Some(id)) = (settings, registered) {
            registration::leave(&settings, &id).await;
            self.status.borrow_mut().forget_registration();
        }
    }

    /// Takes the word back that an instance is here; before a process drains.
    pub async fn leave(&self) {
        let registered = self.status.borrow().registered();
        let following = self.following.take();
        if let (Some(id), Some(following)) = (registered, following) {
            let settings = following.asks.settings.clone();
            drop(following);
            registration::leave(&settings, &id).await;
        }
    }

    /// Says no more; what is not on disk yet is written, unless a successor does.
    pub fn end(&self, write: bool) {
        self.following.take();
        if write
            && self.dirty.get()
            && let (Some(file), Some(content)) = (&self.last_good, self.content())
        {
            self.saved(file.write(&content));
        }
    }

    /// Returns when there is something to take.
    pub async fn arrived(&self) {
        self.news.notified().await;
    }

    pub fn take(&self) -> Arrived {
        self.arrived.take()
    }

    /// What came of a batch: what serves now and its hash, or why not.
    pub fn outcome(&self, batch: &Batch, result: Result<(&Pair, &str), &Problems>) {
        let micros = u64::try_from(batch.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let outcome = Outcome {
            instance: self.instance.clone(),
            revision: batch.revision,
            applied: result.is_ok(),
            hash: result.ok().map(|(_, hash)| hash.to_owned()),
            micros: result.is_ok().then_some(micros),
            problems: result.err().map_or_else(Vec::new, |problems| {
                problems
                    .0
                    .iter()
                    .take(MOST_PROBLEMS)
                    .map(Trouble::from)
                    .collect()
            }),
        };
        match result {
            Ok((pair, _)) => {
                self.cut(self.served_revision());
                if let Some(blocks) = pair.blocks.clone() {
                    *self.served.borrow_mut() = Some(Served {
                        epoch: batch.epoch.clone(),
                        revision: batch.revision,
                        blocks,
                    });
                }
                self.metrics.control_plane().applied(batch.revision);
                self.status.borrow_mut().applied(batch.revision, micros);
                self.save();
            }
            Err(problems) => {
                self.metrics.control_plane().refused();
                self.status.borrow_mut().refused(batch.revision, problems);
            }
        }
        *self.outcome.borrow_mut() = Some(outcome);
        self.told.notify_one();
    }

    /// What serves; 0 while that is nothing of a control plane.
    fn served_revision(&self) -> u64 {
        let served = self.served.borrow();
        served.as_ref().map_or(0, |served| served.revision)
    }

    /// What operators see.
    pub fn status(&self) -> Option<serde_json::Value> {
        let known = self.known.borrow();
        self.status.borrow().show(&known)
    }

    /// What is on disk is old.
    pub fn save(&self) {
        if self.last_good.is_some() {
            self.dirty.set(true);
            self.unsaved.notify_one();
        }
    }

    /// Writes what serves soon after it changed, for as long as the process serves.
    pub async fn keep(self: Rc<Self>) {
        loop {
            self.unsaved.notified().await;
            sleep(SETTLE).await;
            let (Some(file), Some(content)) = (self.last_good.as_ref(), self.content()) else {
                continue;
            };
            self.dirty.set(false);
            let file = file.clone();
            // A slow disk must not hold up what comes next.
            let writing = tokio::task::spawn_blocking(move || file.write(&content));
            let written = writing.await.unwrap_or_else(|error| Err(error.into()));
            if written.is_err() {
                self.dirty.set(true);
            }
            self.saved(written);
            sleep(REST).await;
        }
    }

    fn saved(&self, written: std::io::Result<()>) {
        let error = written.err().map(|error| error.to_string());
        if let Some(error) = &error {
            self.metrics.control_plane().unsaved();
            if !self.status.borrow().is_unsaved() {
                log::error(
                    "the last good configuration cannot be written; a restart would begin with an older one",
                    &[("error", error)],
                );
            }
        } else if self.status.borrow().is_unsaved() {
            log::info("the last good configuration is written again", &[]);
        }
        self.status.borrow_mut().saved(error);
    }

    fn content(&self) -> Option<Content> {
        let served = self.served.borrow();
        let served = served.as_ref()?;
        let known = self.known.borrow();
        let services = known.services();
        Some(Content {
            epoch: served.epoch.clone(),
            revision: served.revision,
            blocks: served.blocks.clone(),
            services: services
                .map(|(name, version, list)| (name.to_owned(), version, list.clone()))
                .collect(),
        })
    }

    /// Takes a line of a link; what it brings is ready for the writer.
    fn line(&self, bytes: &[u8], now: Instant) -> Result<bool, Fault> {
        let line = Line::read(bytes).map_err(|fault| {
            self.known.borrow_mut().distrust();
            Fault::Wrong(fault.message)
        })?;
        let mut news = self.known.borrow_mut().line(line, now)?;
        self.asked.set(news.ask.take());
        let good = news.batch || self.known.borrow().have().is_some();
        self.pass_on(news);
        Ok(good)
    }

    fn pass_on(&self, news: News) {
        if news == News::default() {
            return;
        }
        let known = self.known.borrow();
        for name in &news.services {
            match known.instances(name) {
                Some(instances) => self.services.set(name, instances),
                None => self.services.forget(name),
            }
        }
        if !news.services.is_empty() {
            self.metrics.control_plane().services();
            self.save();
        }
        let mut arrived = self.arrived.borrow_mut();
        arrived.trust = news.trust.or(arrived.trust.take());
        for name in news.services {
            if !arrived.services.contains(&name) {
                arrived.services.push(name);
            }
        }
        if news.batch {
            arrived.blocks = Some(Batch {
                epoch: known.epoch().to_owned(),
                revision: known.revision(),
                emptied: news.emptied,
                list: known.blocks(),
                began: Instant::now(),
            });
        }
        self.news.notify_one();
    }
}

/// Why a full batch without blocks is not applied.
pub fn emptied() -> Problems {
    Problems(vec![Problem {
        code: "emptied",
        place: None,
        message: "the control plane took every block away at once".to_owned(),
        text: None,
        hint: Some(
            "what served goes on; to take the last blocks away, remove them as a change".to_owned(),
        ),
    }])
}

impl Arrived {
    fn is_empty(&self) -> bool {
        self.blocks.is_none() && self.services.is_empty() && self.trust.is_none()
    }
}

/// Whether this process is a member of the mesh by the word of the control plane.
fn asks_for_trust(file: &Document) -> bool {
    let source = file.identity.as_ref().map(|identity| &identity.source);
    matches!(source, Some(IdentitySource::Authority { .. }))
}

/// Services that a file's own upstreams name, each once.
fn services_of(file: &Document) -> Vec<String> {
    let mut names: Vec<String> = { file.upstreams.iter() }
        .filter_map(|upstream| match &upstream.endpoints {
            EndpointSource::Service { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn machine() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// Tells this process from every other.
fn instance() -> String {
    uuid(fastrand::u128(..), 4)
}

/// As RFC 9562 writes one of this version.
fn uuid(bits: u128, version: u128) -> String {
    let bits = bits & !(0xf000 << 64) & !(0b11 << 62) | version << 76 | 0b10 << 62;
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        bits >> 96,
        bits >> 80 & 0xffff,
        bits >> 64 & 0xffff,
        bits >> 48 & 0xffff,
        bits & 0xffff_ffff_ffff
    )
}
