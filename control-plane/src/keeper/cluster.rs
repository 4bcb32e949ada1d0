//! Several control planes over one store: one of them leads, and its registry alone judges. What it judges is written
//! (`marks/{id}`, `versions/{service}`), and all of them, the leader too, show what is written: lists have the same
//! versions everywhere, and a leader that does not know yet that it is none tells nobody anything new.
//!
//! A heartbeat is not written: a follower hands on which instances beat, once a second (`signs`). What is written is
//! what a heartbeat, or its absence, changes. The next leader gives everybody a whole lease again, so that it
//! need not know when somebody was heard last; who is dead is found out a `service_timeout` later, under the mass-loss
//! guard.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tollgate_engine::telemetry::log::{self, Repeated};

use super::signs::Gathered;
use super::written::{MARKS, VERSIONS, Written, mark_of, show, version_of};
use super::{INSTANCES, Keeper, RESERVED};
use crate::registry::{Now, Record, Registry, Rules, Seen};
use crate::store::{Event, Role, StoreError};

/// What a keeper needs that is not alone.
#[derive(Default)]
pub(super) struct Shared {
    /// What is shown: made of what is written.
    shown: Mutex<Registry>,
    /// This registry judges.
    judges: AtomicBool,
    /// Somebody else led while this process ran: then the registry has not stopped to be.
    followed: AtomicBool,
    stirred: Mutex<BTreeSet<Arc<str>>>,
    stir: Notify,
    /// What was written of each service.
    written: Mutex<Written>,
    turn: Notify,
    pub(super) signs: Mutex<Gathered>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn shown(&self) -> MutexGuard<'_, Registry> {
        lock(&self.shown)
    }

    pub(super) fn stir(&self, services: BTreeSet<Arc<str>>) {
        if !services.is_empty() {
            lock(&self.stirred).extend(services);
            self.stir.notify_one();
        }
    }
}

impl Keeper {
    /// Whether what is said of instances is decided here, at this very moment.
    pub fn leads(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| {
            shared.judges.load(Relaxed) && self.store.cluster().is_some_and(|one| one.leads())
        })
    }

    pub(super) async fn until_it_leads(&self) {
        if let Some(shared) = &self.shared {
            while !self.leads() {
                let turn = tokio::time::timeout(Duration::from_secs(1), shared.turn.notified());
                drop(turn.await);
            }
        }
    }

    /// Shows what is written, and begins to follow it.
    pub(super) async fn share(self: &Arc<Self>) -> Result<Vec<JoinHandle<()>>, StoreError> {
        let revision = self.show_all().await?;
        Ok(vec![
            tokio::spawn(self.clone().follow_roles()),
            tokio::spawn(self.clone().publish()),
            tokio::spawn(self.clone().show(revision)),
        ])
    }

    async fn follow_roles(self: Arc<Self>) {
        let (Some(shared), Some(cluster)) = (&self.shared, self.store.cluster()) else {
            return;
        };
        let mut roles = cluster.roles();
        loop {
            let role = roles.borrow_and_update().clone();
            match role {
                Role::Leads(term) => {
                    self.resign(shared);
                    match self.take_over(shared).await {
                        Ok(count) => log::info(
                            "the registry is led from here",
                            &[("term", &term), ("instances", &count)],
                        ),
                        Err(error) => {
                            log::error("the registry cannot be led", &[("reason", &error)]);
                            // The store says so again when it can be written to.
                            tokio::time::sleep(Duration::from_millis(200)).await;
                            if *roles.borrow() == Role::Leads(term) {
                                roles.mark_changed();
                            }
                        }
                    }
                }
                Role::Follows(leader) => {
                    if leader.is_some() {
                        shared.followed.store(true, Relaxed);
                    }
                    self.resign(shared);
                }
            }
            if roles.changed().await.is_err() {
                return;
            }
        }
    }

    /// Another one judges, or nobody.
    fn resign(&self, shared: &Shared) {
        shared.judges.store(false, Relaxed);
        *lock(&self.registry) = Registry::default();
        lock(&shared.stirred).clear();
    }

    /// Goes on judging from what is written. Nobody else writes any more.
    async fn take_over(&self, shared: &Shared) -> Result<usize, StoreError> {
        let told = self.store.one(RESERVED).await?;
        let told: u64 = told.and_then(|kept| kept.value.parse().ok()).unwrap_or(0);
        *lock(&self.registry) = Registry::new(told);
        self.reserved.store(told, Relaxed);
        self.reserve().await?;
        let versions = self.store.range(VERSIONS).await?.kept;
        let marks = self.store.range(MARKS).await?.kept;
        let written = Written::read(&versions, &marks);
        let unproven = !shared.followed.load(Relaxed);
        let instances = self.store.range(INSTANCES).await?.kept;
        let instances: Vec<Arc<Record>> = { instances.iter() }
            .filter_map(|kept| match serde_json::from_str(&kept.value) {
                Ok(record) => Some(Arc::new(record)),
                Err(error) => {
                    log::warn(
                        "an instance in the store is left out",
                        &[("key", &kept.key), ("reason", &error)],
                    );
                    None
                }
            })
            .collect();
        let count = instances.len();
        let audiences = lock(&shared.signs).begin();
        let stirred = self.call(|registry, rules, now| {
            let stirred = written.resume(registry, rules, instances, unproven, now);
            for (service, nodes) in &audiences {
                registry.audience(service, *nodes);
            }
            stirred
        });
        *lock(&shared.written) = written;
        shared.judges.store(true, Relaxed);
        shared.stir(stirred);
        shared.turn.notify_waiters();
        Ok(count)
    }

    /// Writes what was judged, as much of it as there is at a time.
    async fn publish(self: Arc<Self>) {
        static NOT_WRITTEN: Repeated = Repeated::new();
        let Some(shared) = &self.shared else { return };
        loop {
            shared.stir.notified().await;
            let services = std::mem::take(&mut *lock(&shared.stirred));
            if services.is_empty() || !self.leads() {
                continue;
            }
            let judged: Vec<_> = self.judged(|registry, _, _| {
                let services = services.iter();
                services
                    .map(|name| (name.clone(), registry.marks(name)))
                    .collect()
            });
            let transaction = lock(&shared.written).difference(&judged);
            if transaction.then.is_empty() {
                continue;
            }
            match self.store.commit(transaction).await {
                Ok(_) => {
                    let mut written = lock(&shared.written);
                    for (name, marks) in judged {
                        written.take(name, marks);
                    }
                }
                Err(error) => {
                    NOT_WRITTEN.error(
                        "what became of instances cannot be written; what was known is shown",
                        &[("reason", &error)],
                    );
                    // A new term begins with what is written, whatever that is.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    shared.stir(services);
                }
            }
        }
    }

    /// Shows what is written, whoever wrote it.
    async fn show(self: Arc<Self>, mut revision: u64) {
        let Some(shared) = &self.shared else { return };
        loop {
            let mut watch = self.store.watch("", revision);
            let why = loop {
                match watch.next().await {
                    Ok(events) => self.show_events(shared, &events),
                    Err(why) => break why,
                }
            };
            match (why, self.show_all().await) {
                (StoreError::Closed, _) | (_, Err(_)) => return,
                (_, Ok(at)) => revision = at,
            }
        }
    }

    fn show_events(&self, shared: &Shared, events: &[Event]) {
        let rules = self.rules();
        let mut shown = shared.shown();
        show(&mut shown, &rules, events);
        self.tell_changes(&mut shown);
    }

    /// Shows everything that is written, and nothing else; returns the revision of it.
    async fn show_all(&self) -> Result<u64, StoreError> {
        let Some(shared) = &self.shared else {
            return Ok(0);
        };
        let marks = self.store.range(MARKS).await?;
        let versions = self.store.range(VERSIONS).await?;
        let rules = self.rules();
        let mut shown = shared.shown();
        let there: BTreeSet<&str> = { marks.kept.iter() }
            .filter_map(|kept| kept.key.strip_prefix(MARKS))
            .collect();
        let names = shown.names();
        let known: Vec<Seen> = names.iter().flat_map(|name| shown.all(name)).collect();
        for seen in known
            .iter()
            .filter(|seen| !there.contains(&*seen.record.id))
        {
            shown.hide(&seen.record.id);
        }
        for mark in marks.kept.iter().filter_map(mark_of) {
            shown.show(&rules, &mark);
        }
        for kept in &versions.kept {
            if let Some((service, version)) = version_of(&kept.key, &kept.value) {
                shown.show_version(&service, version);
            }
        }
        self.tell_changes(&mut shown);
        Ok(marks.revision.min(versions.revision))
    }

    fn tell_changes(&self, shown: &mut Registry) {
        if !shown.effects().changes.is_empty() {
            self.changed
                .send_replace(shown.changed_since(u64::MAX).sequence);
        }
    }

    /// Looks at everything that is known of instances here: the evidence, where it is judged, else what is shown.
    pub fn best<T>(&self, look: impl FnOnce(&Registry, &Rules, Now) -> T) -> T {
        match self.leads() {
            true => self.judged(look),
            false => self.read(look),
        }
    }

    /// Whoever judges knows better when somebody was heard last, and the newest figures.
    pub fn freshen(&self, seen: &mut [Seen]) {
        if self.shared.is_some() && self.leads() {
            self.judged(|registry, _, _| {
                for one in seen {
                    if let Some((heard, record)) = registry.heard(&one.record.id) {
                        (one.last_seen, one.record) = (heard, record);
                    }
                }
            });
        }
    }
}
