//! The one writer. Takes a document, from its file and from the control plane's feed, checks it, compiles it against the world that serves, proves its tests, and only
//! then moves the pointer; on any problem the old world stays and everybody can see why. The third input are the services
//! that requests asked for (`learned`).

pub mod control_plane;
pub mod file;
pub mod inputs;
pub mod learned;
pub mod place;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use serde::Serialize;
use tollgate_config::{Document, Loader, Problem, Problems};

use crate::clock::unix_seconds;
use crate::net::accept::{self, Permits};
use crate::route::ListenerIndex;
use crate::server::workers::{Common, Opening, Order, Workers};
use crate::snapshot::compile::compile;
use crate::snapshot::memory::Memory;
use crate::snapshot::proof::prove;
use crate::snapshot::store::Store;
use crate::snapshot::{ListenerPlan, Snapshot};
use crate::telemetry::access::AccessLog;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::Spans;
use control_plane::Batch;
use inputs::{Changed, Inputs};
use place::Place;

/// Where documents come from.
pub enum Origin {
    File(PathBuf),
    /// Made by `run --to`; cannot change.
    Fixed(Box<Document>),
}

impl Origin {
    pub fn load(&self, loader: &mut Loader) -> Result<Document, Problems> {
        match self {
            Origin::File(path) => loader.load(path),
            Origin::Fixed(document) => Ok((**document).clone()),
        }
    }
}

/// What `/status` tells of reloads.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Report {
    pub generation: u64,
    pub hash: String,
    /// Unix seconds.
    pub since: u64,
    pub reloads: u64,
    pub refusals: u64,
    /// From reading the file to serving the new world.
    pub micros: u64,
    pub last_refusal: Option<Refusal>,
    /// Settings of `[server]` that changed and wait for a restart or an upgrade.
    pub pending_restart: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Refusal {
    /// Unix seconds.
    pub at: u64,
    pub problems: Vec<String>,
}

/// Where each listener really listens; a document may ask for port 0. Written by the reloader alone.
pub type SharedAddresses = Arc<Mutex<Vec<(String, SocketAddr)>>>;
/// Shared with the admin server, which only reads it.
pub type SharedReport = Arc<Mutex<Report>>;

pub struct Reloader {
    pub origin: Origin,
    loader: Loader,
    pub inputs: Inputs,
    pub document: Document,
    store: Arc<Store>,
    pub memory: Memory,
    pub workers: Workers,
    metrics: Arc<Metrics>,
    access_log: Arc<AccessLog>,
    spans: Arc<Spans>,
    /// Masters of every listening socket, by the address that the document names; workers hold duplicates, and a
    /// successor process is given these.
    sockets: HashMap<Place, Vec<TcpListener>>,
    open: HashMap<(ListenerIndex, SocketAddr), (String, Arc<Permits>)>,
    /// Listeners that were closed for good, by name; no document opens them again.
    closed: HashSet<String>,
    pub report: SharedReport,
    pub addresses: SharedAddresses,
}

impl Reloader {
    /// `sockets`: bound already, for every listener of the first document.
    pub fn new(
        origin: Origin,
        loader: Loader,
        (inputs, document): (Inputs, Document),
        memory: Memory,
        workers: Workers,
        sockets: HashMap<Place, Vec<TcpListener>>,
        common: &Common,
    ) -> Self {
        let report = SharedReport::default();
        warn(&document);
        common.spans.follow(&document);
        Reloader {
            origin,
            loader,
            inputs,
            document,
            store: common.store.clone(),
            memory,
            workers,
            metrics: common.metrics.clone(),
            access_log: common.access_log.clone(),
            spans: common.spans.clone(),
            sockets,
            open: HashMap::new(),
            closed: HashSet::new(),
            report,
            addresses: Arc::default(),
        }
    }

    /// Lets the first clients in. Whoever came before waits in the kernel's queue, or is served by a predecessor: it would be
    /// answered with less than is known a moment later.
    pub fn begin(&mut self) -> io::Result<()> {
        let snapshot = self.store.current();
        self.open_doors(&snapshot)?;
        self.tell_addresses();
        self.tell(&snapshot, 0);
        Ok(())
    }

    /// Reads again and applies, or refuses whole. Returns the generation that serves.
    pub fn reload(&mut self) -> Result<u64, Problems> {
        let (began, former) = (Instant::now(), self.store.current().generation);
        let result = self.origin.load(&mut self.loader).and_then(|file| {
            self.inputs.file(file);
            self.apply_best(Changed::File, began)
        });
        match &result {
            Ok(generation) if *generation == former => {}
            Ok(generation) => log::info(
                "reloaded",
                &[
                    ("generation", &generation.to_string()),
                    ("micros", &began.elapsed().as_micros().to_string()),
                ],
            ),
            Err(problems) => self.refused(problems),
        }
        result
    }

    /// Applies what the control plane tells, or refuses it whole.
    pub fn feed(&mut self, batch: &Batch) -> Result<u64, Problems> {
        let former = self.store.current().generation;
        let result = if batch.emptied {
            Err(control_plane::emptied())
        } else {
            self.inputs.blocks(batch.list.clone());
            self.apply_best(Changed::Feed, batch.began)
        };
        match &result {
            Ok(generation) if *generation == former => {}
            Ok(generation) => log::info(
                "applied what the control plane told",
                &[
                    ("revision", &batch.revision),
                    ("generation", generation),
                    ("micros", &batch.began.elapsed().as_micros()),
                ],
            ),
            Err(problems) => self.refused(problems),
        }
        result
    }

    /// Serves the same document with what upstreams have told of themselves since. Whether that is another world.
    pub fn reflected(&mut self) -> bool {
        let (began, former) = (Instant::now(), self.store.current());
        if former.transcoders.reflected().next().is_none() {
            return false;
        }
        let next = compile(
            &self.document,
            Some(&former),
            &mut self.memory,
            &self.metrics,
            self.workers.count(),
        );
        let next = match next {
            Ok(next) if next.transcoders.is_same(&former.transcoders) => return false,
            Ok(next) => Arc::new(next),
            // Such as a certificate that cannot be read any more.
            Err(problems) => {
                self.refused(&problems);
                return false;
            }
        };
        self.store.publish(next.clone());
        self.tell(
            &next,
            u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        );
        true
    }

    /// Applies the latest of both inputs, or of the one that changed. What is told of a refusal is of the former.
    fn apply_best(&mut self, changed: Changed, began: Instant) -> Result<u64, Problems> {
        let mut refusal = None;
        for pair in self.inputs.candidates(changed) {
            let document = pair.document(&mut self.loader);
            match document.and_then(|document| self.apply(document, changed, began)) {
                Ok(generation) => {
                    self.inputs.serves(pair);
                    return Ok(generation);
                }
                Err(problems) => refusal = refusal.or(Some(problems)),
            }
        }
        Err(refusal.unwrap_or_default())
    }

    fn apply(
        &mut self,
        document: Document,
        changed: Changed,
        began: Instant,
    ) -> Result<u64, Problems> {
        let former = self.store.current();
        if document.hash == former.hash
            && document.keys == self.document.keys
            && Arc::ptr_eq(&former.services, &self.memory.learned)
        {
            return Ok(former.generation);
        }
        let next = compile(
            &document,
            Some(&former),
            &mut self.memory,
            &self.metrics,
            self.workers.count(),
        )?;
        prove(&document, &next)?;
        self.bind_new(&next)?;
        let next = Arc::new(next);
        if changed == Changed::File {
            self.pending(&document);
            // Whoever writes the control plane's documents is warned there.
            warn(&document);
        }
        if self.document.telemetry != document.telemetry {
            self.access_log
                .change(&document.telemetry)
                .map_err(|error| Problems(vec![unlogged(&error)]))?;
            self.metrics.label(&document.telemetry.labels);
        }
        if let Some(held) = &next.held {
            self.memory.hold(held);
        }
        self.store.publish(next.clone());
        self.document = document;
        self.spans.follow(&self.document);
        if let Err(error) = self.open_doors(&next) {
            log::error(
                "a listener that was bound cannot be served",
                &[("error", &error.to_string())],
            );
        }
        self.close_doors(&next);
        self.tell_addresses();
        self.tell(
            &next,
            u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        );
        Ok(next.generation)
    }

    /// Serves what is known of services now (`Memory::learned`), with the documents that serve. Costs what one more
    /// upstream does, not what the documents do.
    pub fn learn(&mut self) -> Result<u64, Problems> {
        let former = self.store.current();
        if Arc::ptr_eq(&former.services, &self.memory.learned) {
            return Ok(former.generation);
        }
        let workers = self.workers.count();
        let (document, memory) = (&self.document, &mut self.memory);
        let next = compile(document, Some(&former), memory, &self.metrics, workers)?;
        let next = Arc::new(next);
        self.store.publish(next.clone());
        self.tell_generation(&next);
        Ok(next.generation)
    }

    /// Binds what the next world needs and this one has not; on failure nothing was changed.
    fn bind_new(&mut self, next: &Snapshot) -> Result<(), Problems> {
        let mut bound = Vec::new();
        for plan in next
            .listeners
            .iter()
            .flatten()
            .filter(|plan| !self.sockets.contains_key(&Place::of(&plan.item)))
            .filter(|plan| !self.closed.contains(&plan.item.name))
        {
            match accept::bind_workers(plan.item.bind, self.workers.count()) {
                Ok(sockets) => bound.push((Place::of(&plan.item), sockets)),
                Err(error) => return Err(Problems(vec![unbound(plan, &error)])),
            }
        }
        self.sockets.extend(bound);
        Ok(())
    }

    fn open_doors(&mut self, world: &Snapshot) -> io::Result<()> {
        for plan in world.listeners.iter().flatten() {
            if self.closed.contains(&plan.item.name) {
                continue;
            }
            let key = (plan.index, plan.item.bind);
            let most = plan.item.max_connections.value;
            if let Some((_, permits)) = self.open.get(&key) {
                permits.set_max(most);
                continue;
            }
            let permits = Permits::new(most);
            let series = self.metrics.listener(&plan.item.name);
            let sockets = self
                .sockets
                .get(&Place::of(&plan.item))
                .map_or(&[][..], Vec::as_slice);
            for (number, socket) in sockets.iter().enumerate() {
                let opening = Opening {
                    name: plan.item.name.clone(),
                    index: plan.index,
                    bind: plan.item.bind,
                    socket: socket.try_clone()?,
                    permits: permits.clone(),
                    series: series.clone(),
                };
                self.workers
                    .order(number % self.workers.count(), Order::Open(opening));
            }
            self.open.insert(key, (plan.item.name.clone(), permits));
        }
        Ok(())
    }

    fn close_doors(&mut self, world: &Snapshot) {
        let wanted = |key: &(ListenerIndex, SocketAddr)| {
            world
                .listener(key.0)
                .is_some_and(|plan| plan.item.bind == key.1)
        };
        let gone: Vec<_> = self
            .open
            .keys()
            .filter(|key| !wanted(key))
            .copied()
            .collect();
        for key in &gone {
            self.open.remove(key);
        }
        self.shut(gone);
    }

    /// Closes the masters of doors that are not open any more, then the doors.
    fn shut(&mut self, gone: Vec<(ListenerIndex, SocketAddr)>) {
        let open: HashSet<Place> = { self.open.iter() }
            .map(|((_, bind), (name, _))| Place::new(name, *bind))
            .collect();
        self.sockets.retain(|place, _| open.contains(place));
        self.order_closed(gone);
    }

    /// To be called when the masters are closed: a worker serves who waits and closes the socket, and if that were not the
    /// last copy, whoever came after would be reset with the last one.
    fn order_closed(&self, gone: Vec<(ListenerIndex, SocketAddr)>) {
        for (index, bind) in gone {
            for worker in 0..self.workers.count() {
                self.workers.order(worker, Order::Close(index, bind));
            }
        }
    }

    /// Stops accepting everywhere; whoever is inside finishes.
    pub fn leave(&mut self) {
        for worker in 0..self.workers.count() {
            self.workers.order(worker, Order::Leave);
        }
    }

    /// Closes the doors of these names for good: whoever is inside finishes, and whoever the kernel has accepted is
    /// served. Nobody but the caller holds one of the answer's permits once the last of them has gone.
    pub fn close(&mut self, names: &[String]) -> Vec<Arc<Permits>> {
        self.closed.extend(names.iter().cloned());
        let (mut gone, mut permits) = (Vec::new(), Vec::new());
        self.open.retain(|key, (name, held)| {
            let stays = !names.contains(name);
            if !stays {
                gone.push(*key);
                permits.push(held.clone());
            }
            stays
        });
        self.shut(gone);
        self.tell_addresses();
        permits
    }

    /// Closes every door. The sockets are closed too, unless a successor holds them.
    pub fn close_all(&mut self) {
        let gone = self.open.drain().map(|(key, _)| key).collect();
        self.sockets.clear();
        self.order_closed(gone);
    }

    /// Every listening socket with its listener's name, for a successor.
    pub fn sockets(&self) -> Vec<(String, SocketAddr, Vec<TcpListener>)> {
        let mut handed = Vec::new();
        for ((_, bind), (name, _)) in &self.open {
            let copies = self
                .sockets
                .get(&Place::new(name, *bind))
                .into_iter()
                .flatten()
                .filter_map(|socket| socket.try_clone().ok())
                .collect();
            handed.push((name.clone(), *bind, copies));
        }
        handed
    }

    /// Tells the real addresses by listener name (a document may ask for port 0).
    fn tell_addresses(&self) {
        let real = |place: Place| self.sockets.get(&place)?.first()?.local_addr().ok();
        let open = self
            .document
            .listeners
            .iter()
            .filter_map(|item| Some((item.name.clone(), real(Place::of(item))?)));
        *self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = open.collect();
    }

    fn pending(&self, document: &Document) {
        let (old, new) = (&self.document.server, &document.server);
        let mut pending = Vec::new();
        let mut note = |changed: bool, name: &str| {
            if changed {
                pending.push(name.to_owned());
            }
        };
        note(old.workers != new.workers, "server.workers");
        note(old.admin != new.admin, "server.admin");
        note(old.drain != new.drain, "server.drain");
        note(old.drain_lag != new.drain_lag, "server.drain_lag");
        note(old.state_dir != new.state_dir, "server.state_dir");
        if !pending.is_empty() {
            log::warn(
                "settings that are read at start have changed; restart or upgrade to apply them",
                &[("settings", &pending.join(", "))],
            );
        }
        self.report
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pending_restart = pending;
    }

    fn tell(&self, serving: &Snapshot, micros: u64) {
        self.tell_generation(serving);
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.micros = micros;
        report.reloads += u64::from(serving.generation > 1);
    }

    fn tell_generation(&self, serving: &Snapshot) {
        self.metrics
            .config_serves(serving.generation, serving.since);
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.generation = serving.generation;
        report.hash.clone_from(&serving.hash);
        report.since = unix_seconds(serving.since);
    }

    fn refused(&self, problems: &Problems) {
        self.metrics.config_reload_failed();
        let words: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        log::error(
            "reload refused; the former configuration goes on serving",
            &[("problems", &words.join("; "))],
        );
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.refusals += 1;
        report.last_refusal = Some(Refusal {
            at: unix_seconds(SystemTime::now()),
            problems: words,
        });
    }
}

fn warn(document: &Document) {
    for warning in tollgate_config::warnings(document) {
        let hint = warning.hint.as_deref().unwrap_or_default();
        let at = warning.place.as_ref().map_or_else(
            || "default".to_owned(),
            |place| format!("{}:{}", place.file, place.line),
        );
        log::warn(&warning.message, &[("at", &at), ("hint", &hint)]);
    }
}

fn unlogged(error: &io::Error) -> Problem {
    Problem {
        code: "cannot-log",
        place: None,
        message: format!("the access log cannot be opened: {error}"),
        text: None,
        hint: Some("check the folder and its permissions in telemetry.access_log".into()),
    }
}

fn unbound(plan: &ListenerPlan, error: &io::Error) -> Problem {
    Problem {
        code: "cannot-bind",
        place: Some(plan.item.begins()),
        message: format!(
            "listener {}: cannot bind {}: {error}",
            plan.item.name, plan.item.bind
        ),
        text: None,
        hint: Some("choose a free address, or stop what uses this one".into()),
    }
}
