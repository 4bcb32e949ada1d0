//! Keeps the registry: knows what time it is, makes registrations durable before they are true, ticks, sends probes,
//! and hands on what follows. Whoever wants something of the registry asks here; no decision about an instance is taken
//! here.
//!
//! The registry stands behind a mutex that is held for the length of one call, never across an await and never while
//! the disk is waited for. Registrations and removals go through one task (`writes`), so that the store and the
//! registry see them in the same order. Heartbeats do not: after a restart everybody is suspected anyway.

mod cluster;
mod prober;
mod signs;
mod writes;
mod written;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tollgate_engine::telemetry::log::{self, Repeated};

use crate::audit::Audit;
use crate::registry::{
    Beat, Cause, Event, News, Now, Order, Outcome, Record, Refusal, Registry, Rules, What,
};
use crate::store::{Store, StoreError, Transaction};
use cluster::Shared;
pub use signs::Signs;
use writes::Ask;

/// Where instances stand in the store.
const INSTANCES: &str = "instances/";
/// Versions up to this number may have been told; those of the next process begin above it.
const RESERVED: &str = "registry/versions";
/// So many versions are reserved at a time.
const RESERVE: u64 = 1_000_000;
/// Instances that one tick looks at before others may use the registry.
const TICK: usize = 256;

pub struct Keeper {
    registry: Mutex<Registry>,
    rules: RwLock<Arc<Rules>>,
    store: Arc<dyn Store>,
    audit: Arc<Audit>,
    started: Instant,
    writes: mpsc::UnboundedSender<Ask>,
    orders: mpsc::UnboundedSender<(Order, Instant)>,
    /// The count of all changes; its waiters ask [`Keeper::changed_since`].
    changed: watch::Sender<u64>,
    reserved: AtomicU64,
    /// `None`: this process has the store for itself.
    shared: Option<Shared>,
    pub counts: Counts,
}

/// What was done since the start.
#[derive(Debug, Default)]
pub struct Counts {
    pub registrations: AtomicU64,
    pub refused: AtomicU64,
    pub heartbeats: AtomicU64,
    pub heartbeats_unknown: AtomicU64,
    pub deregistrations: AtomicU64,
    pub lookups: AtomicU64,
    /// By cause: silence, probes, replaced.
    pub removals: [AtomicU64; 3],
    /// By outcome: good, refused, silent.
    pub probes: [AtomicU64; 3],
    pub held: AtomicU64,
}

/// Causes of removals, in the order of `Counts::removals`.
pub const REMOVALS: [Cause; 3] = [Cause::Silence, Cause::Probes, Cause::Replaced];
/// Outcomes, in the order of `Counts::probes`.
pub const OUTCOMES: [Outcome; 3] = [Outcome::Good, Outcome::Refused, Outcome::Silent];

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    Registry(Refusal),
    Store(StoreError),
}

/// The tasks of a keeper; they end when this is dropped.
pub struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Keeper {
    /// Reads what the store remembers, and begins to tick, to write and to probe.
    pub async fn start(
        store: Arc<dyn Store>,
        audit: Arc<Audit>,
        rules: Rules,
    ) -> Result<(Arc<Keeper>, Tasks), StoreError> {
        let told = store.one(RESERVED).await?;
        let told: u64 = told.and_then(|kept| kept.value.parse().ok()).unwrap_or(0);
        let (writes, asks) = mpsc::unbounded_channel();
        let (orders, waiting) = mpsc::unbounded_channel();
        let keeper = Arc::new(Keeper {
            registry: Mutex::new(Registry::new(told)),
            rules: RwLock::new(Arc::new(rules)),
            audit,
            started: Instant::now(),
            writes,
            orders,
            changed: watch::Sender::new(0),
            reserved: AtomicU64::new(told),
            shared: store.cluster().map(|_| Shared::default()),
            store,
            counts: Counts::default(),
        });
        let mut tasks = match &keeper.shared {
            None => {
                keeper.reserve().await?;
                keeper.restore().await?;
                Vec::new()
            }
            Some(_) => keeper.share().await?,
        };
        tasks.extend([
            tokio::spawn(keeper.clone().write(asks)),
            tokio::spawn(keeper.clone().probe(waiting)),
            tokio::spawn(keeper.clone().tick()),
        ]);
        Ok((keeper, Tasks(tasks)))
    }

    /// Registers an instance; returns its id when that is durable. An empty id means: the one at this address, or a new
    /// one.
    pub async fn register(&self, mut record: Record, by: Arc<str>) -> Result<Arc<str>, Refused> {
        if record.id.is_empty() {
            let known =
                self.judged(|registry, _, _| registry.at_address(&record.name, &record.address));
            record.id = known.unwrap_or_else(|| new_id(&record));
        }
        let id = record.id.clone();
        self.ask(|reply| Ask::Register(Box::new(record), by, reply))
            .await?;
        self.counts.registrations.fetch_add(1, Relaxed);
        Ok(id)
    }

    /// Removes an instance; whether it was there. Returns when that is durable.
    pub async fn deregister(&self, id: &str, by: Arc<str>) -> Result<bool, Refused> {
        let there = self
            .ask(|reply| Ask::Deregister(id.into(), by, reply))
            .await?;
        self.counts
            .deregistrations
            .fetch_add(u64::from(there), Relaxed);
        Ok(there)
    }

    pub fn beat(&self, id: &str, news: News<'_>) -> Beat {
        let beat = self.call(|registry, rules, now| registry.beat(rules, id, news, now));
        match &beat {
            Beat::Kept => self.counts.heartbeats.fetch_add(1, Relaxed),
            Beat::Changed(record) => {
                // Nobody waits for it: the next beat says it again.
                drop(self.writes.send(Ask::Refresh(record.clone())));
                self.counts.heartbeats.fetch_add(1, Relaxed)
            }
            Beat::Unknown => self.counts.heartbeats_unknown.fetch_add(1, Relaxed),
            Beat::OtherService(_) | Beat::TooMuchMetadata => 0,
        };
        beat
    }

    /// An operator says that the held instances of a service are gone; how many there were.
    pub fn confirm(&self, service: &str, by: &str) -> usize {
        self.call(|registry, rules, now| registry.confirm(rules, service, Some(by), now))
    }

    /// Looks at what is shown to others, as every control plane shows it; must not take long.
    pub fn read<T>(&self, look: impl FnOnce(&Registry, &Rules, Now) -> T) -> T {
        match &self.shared {
            None => self.judged(look),
            Some(shared) => look(&shared.shown(), &self.rules(), self.now()),
        }
    }

    /// Looks at the registry that judges: empty while another control plane leads. Must not take long.
    pub fn judged<T>(&self, look: impl FnOnce(&Registry, &Rules, Now) -> T) -> T {
        let rules = self.rules();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        look(&registry, &rules, self.now())
    }

    /// For the feed: its value grows whenever a service has a new version. Then `Registry::changed_since` tells which.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Other rules from now on.
    pub fn change(&self, rules: Rules) {
        *{ self.rules.write() }.unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        self.call(|registry, rules, now| registry.reconsider(rules, now));
    }

    pub fn rules(&self) -> Arc<Rules> {
        self.rules
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn now(&self) -> Now {
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            tick: self.started.elapsed(),
            time: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
        }
    }

    async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, Refused>>) -> Ask,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let sent = self.writes.send(ask(reply));
        let answer = match sent {
            Ok(()) => answer
                .await
                .unwrap_or(Err(Refused::Store(StoreError::Closed))),
            Err(_) => Err(Refused::Store(StoreError::Closed)),
        };
        if answer.is_err() {
            self.counts.refused.fetch_add(1, Relaxed);
        }
        answer
    }

    /// Calls the registry and hands on what follows, in the order in which it happened.
    fn call<T>(&self, call: impl FnOnce(&mut Registry, &Rules, Now) -> T) -> T {
        let rules = self.rules();
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let result = call(&mut registry, &rules, self.now());
        let effects = registry.effects();
        self.audit.note(&effects.events);
        self.count(&effects.events);
        // Both tasks live as long as the keeper does.
        for order in effects.probes {
            drop(self.orders.send((order, Instant::now())));
        }
        for record in effects.removed {
            drop(self.writes.send(Ask::Forget(record)));
        }
        if let Some(shared) = &self.shared {
            // Told when it is written.
            shared.stir(effects.stirred);
        } else if !effects.changes.is_empty() {
            let sequence = registry.changed_since(u64::MAX).sequence;
            self.changed.send_replace(sequence);
        }
        result
    }

    fn count(&self, events: &[Event]) {
        static HELD: Repeated = Repeated::new();
        for event in events {
            match event.what {
                What::Removed => {
                    let at = REMOVALS.iter().position(|cause| *cause == event.cause);
                    if let Some(count) = at.and_then(|at| self.counts.removals.get(at)) {
                        count.fetch_add(1, Relaxed);
                    }
                }
                What::Held => {
                    self.counts.held.fetch_add(1, Relaxed);
                    HELD.warn(
                        "an instance would leave the lookups, but too many of its service do at once; it is held until \
                         its machine refuses a probe, time passes or an operator confirms the loss",
                        &[("service", &event.service), ("id", &event.id), ("cause", &event.cause)],
                    );
                }
                _ => {}
            }
        }
    }

    async fn restore(&self) -> Result<(), StoreError> {
        let range = self.store.range(INSTANCES).await?;
        for kept in range.kept {
            let record = serde_json::from_str::<Record>(&kept.value);
            let restored = record
                .map_err(|error| error.to_string())
                .and_then(|record| {
                    self.call(|registry, rules, now| registry.restore(rules, Arc::new(record), now))
                        .map_err(|refusal| format!("{refusal:?}"))
                });
            if let Err(why) = restored {
                log::warn(
                    "an instance in the store is left out",
                    &[("key", &kept.key), ("reason", &why)],
                );
            }
        }
        Ok(())
    }

    /// Makes sure that the next process begins with higher versions than this one can have told.
    async fn reserve(&self) -> Result<(), StoreError> {
        let highest = self.judged(|registry, _, _| registry.highest_version());
        if highest + RESERVE / 2 < self.reserved.load(Relaxed) {
            return Ok(());
        }
        let reserved = highest + RESERVE;
        self.store
            .commit(Transaction::put(RESERVED, reserved.to_string()))
            .await?;
        self.reserved.store(reserved, Relaxed);
        Ok(())
    }

    async fn tick(self: Arc<Self>) {
        static NOT_RESERVED: Repeated = Repeated::new();
        let mut next_reserve = Duration::ZERO;
        loop {
            if !self.leads() {
                self.until_it_leads().await;
            }
            self.call(|registry, rules, now| registry.tick(rules, TICK, now));
            let due = self.judged(|registry, _, now| registry.next_due(now));
            if due.is_some_and(|due| due.is_zero()) {
                // Others first.
                tokio::task::yield_now().await;
                continue;
            }
            let longest = Duration::from_secs(1);
            tokio::time::sleep(due.map_or(longest, |due| due.min(longest))).await;
            if self.started.elapsed() >= next_reserve && self.leads() {
                next_reserve = self.started.elapsed() + Duration::from_secs(10);
                if let Err(error) = self.reserve().await {
                    NOT_RESERVED.warn("versions cannot be reserved", &[("reason", &error)]);
                }
            }
        }
    }
}

/// `{service}-{host}-{port}-{uuid}` (REG-101).
fn new_id(record: &Record) -> Arc<str> {
    let host: String = { record.address.chars() }
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => letter,
            ':' => '-',
            _ => '_',
        })
        .collect();
    let random = fastrand::u128(..);
    // Version 4, variant 1.
    let uuid = format!(
        "{:032x}",
        (random & !(0xf << 76 | 0x3 << 62)) | 0x4 << 76 | 0x2 << 62
    );
    let (a, rest) = uuid.split_at(8);
    let (b, rest) = rest.split_at(4);
    let (c, rest) = rest.split_at(4);
    let (d, e) = rest.split_at(4);
    format!("{}-{host}-{a}-{b}-{c}-{d}-{e}", record.name).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Health, Metadata};

    #[test]
    fn a_new_id_is_of_the_documented_form() {
        let record = Record {
            id: "".into(),
            name: "orders".into(),
            address: "[fd00::7]:80".into(),
            health: Health::Healthy,
            health_endpoint: "/".into(),
            metadata: Metadata::new(),
            registered_at: 0,
        };
        let id = new_id(&record);
        let uuid = id.strip_prefix("orders-_fd00--7_-80-").expect("the form");
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uuid.as_bytes()[19]));
        assert_ne!(new_id(&record), id);
    }
}
