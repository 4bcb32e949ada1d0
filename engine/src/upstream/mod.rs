//! Everything about which endpoint a request goes to: what is remembered of each address, who is healthy, and the
//! balance policies. `Upstream::pick` gives a `Slot`; how bytes get to the endpoint is the pool's business, where
//! endpoints come from is discovery's.
//!
//! Workers share all of this through `Arc`s and never wait for one another on the way of a request. No state machine
//! in here reads a clock or makes chance: `now` and `random` are arguments. Only `Prober`, which runs on the control
//! thread, waits and speaks to the network.

mod balance;
pub mod breaker;
mod budget;
pub mod bulkhead;
pub mod discovery;
mod endpoint;
mod guards;
mod health;
mod latency;
pub mod learning;
mod memory;
mod originals;
mod outlier;
pub mod pace;
pub mod pool;
mod probe;
mod set;
mod slot;
mod slow_start;
mod status;
mod tables;
mod tally;
#[cfg(test)]
mod tests;
mod window;

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tollgate_config::{Item, Priority};

pub use breaker::Breaker;
pub use budget::{Budget, BudgetStatus};
pub use endpoint::Endpoint;
pub use guards::{Guard, GuardMemory, Guards, Part, RouteGuards};
pub use health::{Turn, Watch};
pub use memory::{EndpointMemory, Resolved};
pub use probe::{AsyncReadWrite, Connect, Connecting, Prober};
pub use set::Endpoints;
pub use slot::{Outcome, Slot};
pub use slow_start::RAMP;
pub use status::{EndpointStatus, HealthStatus, UpstreamStatus};
pub use tables::hash_key;

// The rooms in here speak of it as a neighbour.
use crate::moment;
use crate::telemetry::metrics::Known;
use balance::Lot;
use bulkhead::{Bulkhead, BulkheadStatus, Entry, Rules};
use moment::Moment;
use originals::Originals;
use set::{Ask, Deviation};

/// A named service and its endpoints, as one snapshot has it. Its settings never change; its endpoints may.
#[derive(Debug)]
pub struct Upstream {
    /// What was written: time-outs and limits are read from here, with their places.
    pub settings: Item<tollgate_config::Upstream>,
    /// Where this upstream's numbers are counted.
    pub series: u32,
    endpoints: ArcSwap<Endpoints>,
    /// What is in flight and who waits; the same in every snapshot that has an upstream of this name.
    bulkhead: Arc<Bulkhead>,
    /// `None`: nothing is bounded.
    rules: Option<Rules>,
    eject_after: u32,
    deviation: Option<Deviation>,
    /// Ever made under this name.
    ejections: Arc<AtomicU64>,
    /// Whose turn it is. On a cache line of its own: with round robin all workers write it.
    turn: Turns,
    /// With `endpoints = "original"`: where connections were going.
    originals: Arc<Originals>,
    /// Tells the prober that there are other endpoints.
    changed: Notify,
    /// Tells whoever waits for an endpoint that there are others.
    replaced: Notify,
    /// Tells whoever waits that a probe ended.
    probed: Notify,
}

/// What probes say of an upstream as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// An endpoint passed its last probe.
    Well,
    /// None did, and not enough failed to say more; or none was asked yet.
    Unsure,
    /// Every endpoint fails its probes.
    Failing,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Turns(AtomicU64);

/// Why no endpoint was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickError {
    /// The upstream has none: not found by discovery, or nothing written.
    NoEndpoints,
}

impl fmt::Display for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream has no endpoints; check its addresses and name resolution")
    }
}

impl std::error::Error for PickError {}

impl Upstream {
    /// `before` is the upstream of that name in the snapshot before this one: endpoints that it did not have begin
    /// slowly. What settings no longer watch is forgiven.
    pub fn new(
        settings: Item<tollgate_config::Upstream>,
        series: u32,
        endpoints: Vec<Arc<Endpoint>>,
        before: Option<&Upstream>,
        now: Instant,
    ) -> Self {
        let set = Endpoints::new(endpoints, &settings.balance);
        if let Some(before) = before {
            begin_slowly(&before.endpoints.load(), &set, now.into());
        }
        for endpoint in set.iter() {
            if settings.outlier.is_none() {
                endpoint.evidence.pardon(now.into());
            }
            if settings.health.is_none() {
                endpoint.verdict.forget();
            }
        }
        let eject_after = settings
            .outlier
            .as_ref()
            .map_or(u32::MAX, |outlier| outlier.failures.value.max(1));
        let deviation = settings.outlier.as_ref().and_then(|outlier| {
            Some(Deviation {
                share: outlier.deviation.value?,
                volume: outlier.volume.into(),
            })
        });
        Upstream {
            deviation,
            ejections: before.map_or_else(Arc::default, |before| before.ejections.clone()),
            bulkhead: before.map_or_else(Arc::default, |before| before.bulkhead.clone()),
            rules: Rules::of(&settings),
            series,
            endpoints: ArcSwap::from_pointee(set),
            eject_after,
            turn: Turns::default(),
            originals: before
                .filter(|before| before.settings.tls == settings.tls)
                .map_or_else(Arc::default, |before| before.originals.clone()),
            changed: Notify::new(),
            replaced: Notify::new(),
            probed: Notify::new(),
            settings,
        }
    }

    /// What probes say.
    pub fn standing(&self) -> Standing {
        let set = self.endpoints();
        if set.iter().any(|endpoint| endpoint.verdict.is_passing()) {
            return Standing::Well;
        }
        match set.iter().all(|endpoint| endpoint.verdict.is_failing()) {
            true => Standing::Failing,
            false => Standing::Unsure,
        }
    }

    /// Why the last failed probe of an endpoint failed.
    pub fn complaint(&self) -> Option<String> {
        let set = self.endpoints();
        set.iter().find_map(|endpoint| endpoint.verdict.reason())
    }

    /// Returns after the next probe of any endpoint.
    pub fn probed(&self) -> Notified<'_> {
        self.probed.notified()
    }

    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// The endpoints as they are now.
    pub fn endpoints(&self) -> Arc<Endpoints> {
        self.endpoints.load_full()
    }

    /// Discovery found these. New ones beside others begin slowly; requests at the ones that are gone finish there.
    pub fn replace(&self, endpoints: Vec<Arc<Endpoint>>, now: Instant) {
        let set = Endpoints::new(endpoints, &self.settings.balance);
        begin_slowly(&self.endpoints.load(), &set, now.into());
        self.endpoints.store(Arc::new(set));
        self.changed.notify_one();
        self.replaced.notify_waiters();
    }

    /// Returns as soon as there is an endpoint.
    pub async fn found(&self) {
        loop {
            // Before the look: what is replaced after it is heard of.
            let mut replaced = std::pin::pin!(self.replaced.notified());
            replaced.as_mut().enable();
            if !self.endpoints().is_empty() {
                return;
            }
            replaced.await;
        }
    }

    /// Asks for a permit to be in flight here; `None`: none is needed.
    #[inline]
    pub fn enter(&self, priority: Priority, now: Instant) -> Option<Entry> {
        let rules = self.rules.as_ref()?;
        Some(self.bulkhead.enter(rules, priority, now))
    }

    /// A permit without a queue. `Ok(None)`: none is needed; `Err`: there is none now.
    pub fn try_enter(&self) -> Result<Option<bulkhead::Permit>, bulkhead::Full> {
        match &self.rules {
            None => Ok(None),
            Some(rules) => self
                .bulkhead
                .try_enter(rules)
                .map(Some)
                .ok_or(bulkhead::Full),
        }
    }

    /// An answer's head came, or was waited for in vain, since `began`.
    pub fn learn(&self, began: Instant, now: Instant) {
        if let Some(rules) = &self.rules {
            self.bulkhead.learn(rules, began, now);
        }
    }

    /// `None`: nothing is bounded.
    pub fn bulkhead(&self) -> Option<BulkheadStatus> {
        let rules = self.rules.as_ref()?;
        Some(self.bulkhead.status(rules))
    }

    /// Picks an endpoint and takes a slot there. `key` is the request's `hash_key` (a request without one goes
    /// anywhere); `tried` are numbers of endpoints that failed this request already; `random` is any 64 random bits.
    /// Healthy endpoints come first; when there are none, all are asked.
    #[inline]
    pub fn pick(
        &self,
        key: Option<u64>,
        tried: &[u32],
        now: Instant,
        random: u64,
    ) -> Result<Slot, PickError> {
        let now = Moment::from(now);
        let set = self.endpoints.load();
        let ask = Ask {
            tried,
            now,
            eject_after: self.eject_after,
            deviation: self.deviation,
            ejections: &self.ejections,
        };
        let lot = Lot {
            key,
            random,
            turn: &self.turn.0,
        };
        match balance::choose(&set, &self.settings.balance, &ask, lot) {
            Some(position) => Ok(Slot::take(set.member(position).endpoint.clone(), now)),
            None => Err(PickError::NoEndpoints),
        }
    }

    /// A slot at the place where a captured connection was going.
    pub fn at(&self, original: SocketAddr, now: Instant) -> Slot {
        let now = Moment::from(now);
        Slot::take(self.originals.endpoint(original, now), now)
    }

    /// What the metrics page tells.
    pub fn known(&self, now: Instant) -> Known {
        status::known(self, now.into())
    }

    /// What an operator wants to know.
    pub fn status(&self, now: Instant) -> UpstreamStatus {
        status::of(self, now.into())
    }
}

/// New endpoints beside ones that serve already begin with a small share. When all are new there is nobody to leave
/// the rest to, and slow start would change nothing.
fn begin_slowly(before: &Endpoints, after: &Endpoints, now: Moment) {
    let known: HashSet<u32> = before.iter().map(|endpoint| endpoint.id()).collect();
    let (old, new): (Vec<_>, Vec<_>) = after
        .iter()
        .partition(|endpoint| known.contains(&endpoint.id()));
    if !old.is_empty() {
        for endpoint in new {
            endpoint.begin_slowly(now);
        }
    }
}
