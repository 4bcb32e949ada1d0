//! Tells data planes what is true, for as long as they listen: the catalog's revisions as each should see them, and the
//! lists of services; and, to members of the mesh, whom they shall trust.
//!
//! A listener is a task that waits until it can write, and then says the difference from what it was told to what is
//! true at that moment. There is no queue: a burst is one difference, a slow listener gets a larger one, and one that
//! takes nothing for a while is let go. What many are told is made once.

mod asking;
mod away;
mod listener;
mod nodes;
mod services;
#[cfg(test)]
mod tests;
mod told;
mod wants;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tollgate_config::control_plane::Feed as Settings;
use tollgate_config::feed::{NodeKind, Outcome, Report, Subscribe, Wanted};
use tollgate_config::member;

use crate::authority::Told as Trusted;
use crate::catalog::{Catalog, World, millis};
use crate::figures::Book;
use crate::keeper::Keeper;
use crate::view::{View, Wishes, view};

use asking::Questions;
pub use asking::{Answered, Asked, NotTaken, Silent};
use away::Away;
pub use away::Listeners;
pub use listener::{HangUp, Lines};
use nodes::{Caller, Nodes};
pub use nodes::{MOST_NODES, Node};
use services::Services;
use told::Told;
use wants::{Ends, Talks};

pub struct Feed {
    /// What this control plane is called.
    server: String,
    catalog: Arc<Catalog>,
    keeper: Arc<Keeper>,
    /// Whom members of the mesh trust; the authority holds the other end. `None`: there is no authority, or none yet.
    trust: watch::Receiver<Option<Arc<Trusted>>>,
    settings: Settings,
    started: Instant,
    nodes: Mutex<Nodes>,
    /// What nodes served.
    book: Mutex<Book>,
    away: Mutex<Away>,
    services: Mutex<Services>,
    talks: Mutex<Talks>,
    questions: Mutex<Questions>,
    shared: Mutex<Shared>,
    listeners: AtomicUsize,
    /// Ends every feed.
    stop: watch::Sender<bool>,
    pub counts: Counts,
}

/// What was done since the start.
#[derive(Debug, Default)]
pub struct Counts {
    pub opened: std::sync::atomic::AtomicU64,
    /// Took nothing for too long.
    pub let_go: std::sync::atomic::AtomicU64,
    pub bytes: std::sync::atomic::AtomicU64,
    pub full: std::sync::atomic::AtomicU64,
    pub applied: std::sync::atomic::AtomicU64,
    pub refused: std::sync::atomic::AtomicU64,
}

/// How a feed begins.
struct Begun {
    told: Told,
    epoch: String,
    /// That it has this is its own word: with the next revision it is told everything.
    assumed: bool,
}

/// What listeners share at one revision.
#[derive(Default)]
struct Shared {
    views: HashMap<Wishes, Views>,
    /// Lines from one view to another; forgotten with the next revision.
    bodies: Vec<Body>,
}

/// Of the latest worlds, the latest last.
type Views = Vec<(Arc<World>, Arc<View>)>;

/// The lines that lead from one view, or from nothing, to another.
type Body = (Option<Arc<View>>, Arc<View>, Option<Bytes>);

/// Differently told listeners at one moment; more are made again.
const MOST_BODIES: usize = 32;
/// Worlds whose views are remembered: two while a revision is rolled out, and the one that ends it.
const WORLDS: usize = 3;
/// Different questions that are remembered.
const MOST_WISHES: usize = 256;

/// Why a feed is not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOpened {
    TooMany(usize),
    Stopping,
}

/// The tasks of a feed; they end when this is dropped.
pub struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Feed {
    pub fn start(
        catalog: Arc<Catalog>,
        keeper: Arc<Keeper>,
        trust: watch::Receiver<Option<Arc<Trusted>>>,
        settings: Settings,
        server: String,
    ) -> (Arc<Feed>, Tasks) {
        let feed = Arc::new(Feed {
            server,
            catalog,
            keeper,
            trust,
            settings,
            started: Instant::now(),
            nodes: Mutex::default(),
            book: Mutex::default(),
            away: Mutex::default(),
            services: Mutex::default(),
            talks: Mutex::default(),
            questions: Mutex::default(),
            shared: Mutex::default(),
            listeners: AtomicUsize::new(0),
            stop: watch::Sender::new(false),
            counts: Counts::default(),
        });
        let tasks = vec![
            tokio::spawn(feed.clone().follow_registry()),
            tokio::spawn(feed.clone().forget()),
        ];
        (feed, Tasks(tasks))
    }

    /// Opens a feed. `hang_up` ends the connection that it goes over.
    pub fn open(
        self: &Arc<Feed>,
        subscribe: &Subscribe,
        address: &str,
        hang_up: HangUp,
    ) -> Result<Lines, NotOpened> {
        if *self.stop.borrow() {
            return Err(NotOpened::Stopping);
        }
        if self.listeners.load(Relaxed) >= self.settings.max_feeds {
            return Err(NotOpened::TooMany(self.settings.max_feeds));
        }
        let named: &[String] = match &subscribe.services {
            Wanted::Routed(_) => &[],
            Wanted::Names(names) => names,
        };
        let services = subscribe.also.iter().chain(named).map(String::as_str);
        let wishes = Wishes::new(
            subscribe.kind.into(),
            &subscribe.listeners,
            services,
            subscribe.stands_for.as_deref(),
        )
        .of({ subscribe.callee.as_deref() }.and_then(|name| member(name).ok()));
        let begun = self.told(subscribe, &wishes);
        let caller = Caller {
            node: subscribe.node.clone(),
            kind: match subscribe.kind {
                NodeKind::Gateway => "gateway",
                NodeKind::Sidecar => "sidecar",
            },
            version: subscribe.version.clone(),
            address: address.to_owned(),
            listeners: subscribe.listeners.clone(),
            callee: subscribe.callee.clone(),
            services: subscribe.also.iter().chain(named).cloned().collect(),
            stands_for: subscribe.stands_for.clone(),
            instance: subscribe.instance.clone(),
        };
        self.nodes()
            .connected(caller, self.started.elapsed(), millis());
        self.counts.opened.fetch_add(1, Relaxed);
        self.listeners.fetch_add(1, Relaxed);
        let (wants, also) = watch::channel(subscribe.also.clone());
        let (ask, questions) = mpsc::channel(asking::MOST_WAITING);
        let ends = Ends {
            also: wants,
            questions: subscribe.answers.then_some(ask),
        };
        let talk = { self.talks() }.begin(&subscribe.node, &subscribe.instance, ends);
        let listener = listener::Listener {
            feed: self.clone(),
            number: talk,
            node: subscribe.node.clone(),
            wishes,
            stands_for: subscribe.stands_for.clone(),
            routed: matches!(subscribe.services, Wanted::Routed(_)),
            named: named.to_vec(),
            also,
            told: begun.told,
            epoch: begun.epoch,
            assumed: begun.assumed,
            hang_up,
            ahead: self.is_ahead(subscribe),
            questions,
            trust: subscribe.trust.then_some(0),
        };
        Ok(listener.start())
    }

    /// What the node has already, if that is certain: it asked the same question of this control plane or of another
    /// that shares its store, and the revision is still known.
    fn told(&self, subscribe: &Subscribe, wishes: &Wishes) -> Begun {
        let now = self.catalog.now();
        let stale = self.catalog.is_stale(&now);
        let epoch = self.epoch(wishes, stale);
        let begun = |told, epoch, assumed| Begun {
            told,
            epoch,
            assumed,
        };
        let Some(have) = &subscribe.have else {
            return begun(Told::default(), epoch, false);
        };
        if stale && have.revision == now.revision && have.epoch == self.epoch(wishes, false) {
            // It has what we cannot tell, from one that could: it keeps it.
            let told = Told::has(self.view(&now, wishes), now.revision);
            return begun(told, have.epoch.clone(), true);
        }
        let former = match have.epoch == epoch {
            true => self.catalog.former(have.revision),
            false => None,
        };
        let told = former.map_or_else(Told::default, |world| {
            let shown = self
                .catalog
                .world_of(&subscribe.node, self.is_ahead(subscribe));
            let view = match Arc::ptr_eq(&world, &shown) {
                // Everybody comes back at once when a network does.
                true => self.view(&world, wishes),
                false => Arc::new(view(&world, wishes)),
            };
            Told::has(view, world.revision)
        });
        begun(told, epoch, false)
    }

    /// Revisions may be compared between those who ask the same question of the same store, whichever control plane
    /// they ask. A sidecar's services are no part of it: they come and go within one feed, and whoever has changed them
    /// since it was told everything does not say what it has. And an older revision that stands in for one that is refused is not that one.
    fn epoch(&self, wishes: &Wishes, stale: bool) -> String {
        let mut question = format!("{:?}", wishes.kind);
        for listener in &wishes.listeners {
            question.push('\n');
            question.push_str(listener);
        }
        let question = xxhash_rust::xxh3::xxh3_64(question.as_bytes());
        let old = if stale { "-older" } else { "" };
        format!("{}-{question:016x}{old}", self.catalog.epoch())
    }

    /// Whether it has what is rolled out already: no node is told a number below one that it had.
    fn is_ahead(&self, subscribe: &Subscribe) -> bool {
        let staging = self.catalog.staging();
        let have = subscribe.have.as_ref();
        // Whatever it asked for: numbers are the store's.
        let ours = |epoch: &str| epoch.strip_prefix(self.catalog.epoch()).is_some();
        let have = have.filter(|have| ours(&have.epoch));
        have.zip(staging)
            .is_some_and(|(have, staging)| have.revision >= staging.record.revision)
    }

    /// What a node says of itself; whether it is known.
    pub fn report(&self, node: &str, report: Report) -> bool {
        match report {
            Report::Outcome(outcome) => self.outcome(node, outcome),
            Report::Observed { observed } => {
                let known = self.nodes().has(node);
                for one in observed.iter().filter(|_| known) {
                    let (good, bad) = (one.successes, one.failures);
                    self.keeper
                        .observed(node, &one.service, &one.address, bad, good);
                }
                known
            }
            Report::Figures { figures } => {
                let known = self.nodes().has(node);
                if known {
                    let now = self.started.elapsed();
                    self.figures(|book| book.take(node, &figures, now));
                    if !self.keeper.leads() {
                        self.away().wait(node, figures);
                    }
                }
                known
            }
        }
    }

    /// Looks at what nodes served; must not take long.
    pub fn figures<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The time that the book of figures counts in.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn outcome(&self, node: &str, outcome: Outcome) -> bool {
        let count = match outcome.applied {
            true => &self.counts.applied,
            false => &self.counts.refused,
        };
        count.fetch_add(1, Relaxed);
        self.nodes().outcome(node, outcome, millis())
    }

    /// Everybody who listens or listened.
    pub fn all_nodes(&self) -> Vec<Node> {
        self.nodes().all().cloned().collect()
    }

    pub fn listeners(&self) -> usize {
        self.listeners.load(Relaxed)
    }

    /// Ends every feed, and opens no other.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn services(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn talks(&self) -> MutexGuard<'_, Talks> {
        self.talks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view of a world; the very same one as before, if nothing in it is different. While a revision is rolled out,
    /// two worlds are looked at in turns.
    fn view(&self, world: &Arc<World>, wishes: &Wishes) -> Arc<View> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &mut *shared;
        if shared.views.len() >= MOST_WISHES && !shared.views.contains_key(wishes) {
            shared.views.clear();
        }
        let known = shared.views.entry(wishes.clone()).or_default();
        if let Some((_, view)) = known.iter().find(|(of, _)| Arc::ptr_eq(of, world)) {
            return view.clone();
        }
        let now = view(world, wishes);
        let same = known.iter().find(|(_, former)| is_same(former, &now));
        let now = match same {
            Some((_, same)) => same.clone(),
            None => {
                shared.bodies.clear();
                Arc::new(now)
            }
        };
        if known.len() >= WORLDS {
            known.remove(0);
        }
        known.push((world.clone(), now.clone()));
        now
    }

    /// The lines from one view to another, made once.
    fn body(&self, from: Option<&Arc<View>>, to: &Arc<View>) -> Option<Bytes> {
        let same = |a: Option<&Arc<View>>, b: Option<&Arc<View>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let known =
            { shared.bodies.iter() }.find(|(a, b, _)| same(a.as_ref(), from) && Arc::ptr_eq(b, to));
        if let Some((_, _, body)) = known {
            return body.clone();
        }
        let body = told::body(from.map(|view| &**view), to);
        if shared.bodies.len() >= MOST_BODIES {
            shared.bodies.remove(0);
        }
        shared
            .bodies
            .push((from.cloned(), to.clone(), body.clone()));
        body
    }

    async fn forget(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let keep = self.settings.forget_nodes;
            self.nodes().tick(keep, self.started.elapsed());
            let now = self.started.elapsed();
            let mut away = self.away();
            away.tick(keep, now);
            let nodes = self.nodes();
            self.figures(|book| book.tick(|node| nodes.has(node) || away.has(node), now));
        }
    }
}

fn is_same(a: &View, b: &View) -> bool {
    a.services == b.services
        && a.blocks.len() == b.blocks.len()
        && a.blocks
            .iter()
            .zip(&b.blocks)
            .all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
}
