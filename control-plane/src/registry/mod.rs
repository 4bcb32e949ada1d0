//! The registry: which instances there are, and which of them may be given to others (REG-1xx, REG-3xx).
//!
//! Pure: it reads no clock, does no I/O and draws no chance. Whoever calls it says what time it is, and takes the
//! [`Effects`] of the call: changed lists, lines for the audit log, probes to send, records to forget. Three kinds of
//! evidence are made into one state of each instance (`entry`): its lease, what probes found, and what data planes saw.
//! What a service may lose at once is bounded (`guard`). Nothing here knows HTTP, files or tasks.

mod attention;
mod effects;
mod entry;
mod guard;
mod look;
mod mirror;
mod record;
mod service;
mod settle;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tollgate_config::control_plane::{Probe, Registry as Lifecycle};

pub use attention::Now;
pub use effects::{Change, Effects, Event, Order, Outcome, What};
pub use look::{Detail, Since};
pub use mirror::{Mark, Marks};
pub use record::{Cause, Health, MOST_METADATA, Metadata, Record, State};
pub use service::Seen;

use attention::Attention;
use entry::{Entry, MOST_REPORTS, Report};
use service::Service;

/// Every interval and bound, as the document has them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    pub lifecycle: Lifecycle,
    pub probe: Probe,
}

/// All instances of all services. Memory: it holds no setting.
#[derive(Debug, Default)]
pub struct Registry {
    services: BTreeMap<Arc<str>, Service>,
    /// The service of each instance.
    ids: BTreeMap<Arc<str>, Arc<str>>,
    /// The instances at each address, in the order of their registrations.
    addresses: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// When each instance is to be looked at next.
    agenda: BTreeSet<(Duration, Arc<str>)>,
    attention: Attention,
    /// Versions of new services begin above it: a name that was dropped and comes back must not count from zero.
    floor: u64,
    /// Counts the changes of all services. `order` has each service once, at its latest.
    sequence: u64,
    order: BTreeMap<u64, Arc<str>>,
    /// The latest change of a service that was dropped since.
    forgotten: u64,
    orders: u64,
    next_cleanup: Duration,
    effects: Effects,
    /// Services whose lists changed in the current call.
    touched: BTreeSet<Arc<str>>,
}

/// Why a registration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The id belongs to an instance of this other service.
    OtherService(Arc<str>),
    /// `registry.max_instances` are registered.
    Full,
    /// `registry.max_per_service` of this service are registered.
    ServiceFull,
}

/// What became of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beat {
    Kept,
    /// The same, and it says another health than the record in the store.
    Changed(Arc<Record>),
    /// Nobody is registered under this id, so the sender has to register.
    Unknown,
    /// The id belongs to an instance of this other service.
    OtherService(Arc<str>),
    /// With these names it would have more metadata than is allowed.
    TooMuchMetadata,
}

/// What a beat may bring along.
#[derive(Debug, Default)]
pub struct News<'a> {
    pub service: Option<&'a str>,
    pub health: Option<Health>,
    pub metadata: Option<Metadata>,
}

impl Registry {
    /// `floor`: no version that was ever told may be above it.
    pub fn new(floor: u64) -> Registry {
        Registry {
            floor,
            ..Registry::default()
        }
    }

    /// Whether a registration would be accepted.
    pub fn check(&self, rules: &Rules, record: &Record) -> Result<(), Refusal> {
        if let Some(service) = self.ids.get(&record.id) {
            return match *service == record.name {
                true => Ok(()),
                false => Err(Refusal::OtherService(service.clone())),
            };
        }
        if self.ids.len() >= rules.lifecycle.max_instances {
            return Err(Refusal::Full);
        }
        let there = self.services.get(&record.name);
        if there.is_some_and(|s| s.entries.len() >= rules.lifecycle.max_per_service) {
            return Err(Refusal::ServiceFull);
        }
        Ok(())
    }

    /// Adds an instance, or makes the one with this id what the record says. A registration is the best of signs:
    /// whatever spoke against the instance is forgotten, except how often it left the lookups.
    pub fn register(
        &mut self,
        rules: &Rules,
        record: Arc<Record>,
        by: Option<&str>,
        now: Now,
    ) -> Result<(), Refusal> {
        self.check(rules, &record)?;
        let heard = self.attention.advance(now);
        let mut entry = Entry::new(record.clone(), heard, now.time);
        let what = match self.entry(&record.id) {
            Some(former) => {
                entry.drops = former.drops.clone();
                entry.lost = former.lost;
                entry.shown = former.shown;
                entry.due = former.due;
                let mut same = Record::clone(&former.record);
                same.registered_at = record.registered_at;
                let changed = same != *record || former.state != entry.state;
                if former.state == entry.state {
                    entry.since = former.since;
                }
                changed.then_some(What::Updated)
            }
            None => Some(What::Registered),
        };
        if let Some(what) = what {
            self.event(&record, what, Cause::Request, None, by, now);
        }
        self.put(rules, entry);
        self.replace_silent(rules, &record, heard, now);
        self.settle(rules, &record.id, heard, now);
        self.close();
        Ok(())
    }

    /// Takes over what the store remembers of a former process (REG-501): suspected until it beats or answers.
    pub fn restore(&mut self, rules: &Rules, record: Arc<Record>, now: Now) -> Result<(), Refusal> {
        self.check(rules, &record)?;
        let heard = self.attention.advance(now);
        let mut entry = Entry::new(record.clone(), heard, record.registered_at);
        entry.unproven = true;
        entry.cause = Cause::Restart;
        entry.state = State::Suspected;
        self.event(&record, What::Restored, Cause::Restart, None, None, now);
        self.put(rules, entry);
        self.settle(rules, &record.id, heard, now);
        self.close();
        Ok(())
    }

    /// A heartbeat (REG-307).
    pub fn beat(&mut self, rules: &Rules, id: &str, news: News<'_>, now: Now) -> Beat {
        let heard = self.attention.advance(now);
        let Some(service) = self.ids.get(id).cloned() else {
            return Beat::Unknown;
        };
        if news.service.is_some_and(|name| *name != *service) {
            return Beat::OtherService(service);
        }
        let Some(entry) = self.entry_mut(id) else {
            return Beat::Unknown;
        };
        let mut changed = None;
        let health = news.health.unwrap_or(entry.record.health);
        let other = { news.metadata.iter().flatten() }
            .any(|(name, value)| entry.record.metadata.get(name) != Some(value));
        if other || health != entry.record.health {
            let mut record = Record::clone(&entry.record);
            record.metadata.extend(news.metadata.into_iter().flatten());
            if record.metadata.len() > MOST_METADATA {
                return Beat::TooMuchMetadata;
            }
            let says_else = health != record.health;
            record.health = health;
            let record = Arc::new(record);
            let former = std::mem::replace(&mut entry.record, record.clone());
            // A list that reads the same is no news, but it must hold the newest figures.
            if entry.shown && !former.reads_like(&record) {
                self.touched.insert(service);
            }
            changed = says_else.then_some(record);
        }
        let quiet = self.entry_mut(id).is_some_and(|entry| {
            entry.seen(heard, now.time);
            // Nothing speaks against it: its place in the agenda is early enough.
            changed.is_none() && entry.state == State::Active && !entry.held
        });
        if !quiet {
            let id = Arc::from(id);
            self.settle(rules, &id, heard, now);
        }
        self.close();
        changed.map_or(Beat::Kept, Beat::Changed)
    }

    /// Removes an instance at once; whether it was there.
    pub fn deregister(&mut self, id: &str, by: Option<&str>, now: Now) -> bool {
        self.attention.advance(now);
        let Some(entry) = self.remove(id) else {
            return false;
        };
        self.event(
            &entry.record,
            What::Deregistered,
            Cause::Request,
            Some((entry.state, None)),
            by,
            now,
        );
        self.close();
        true
    }

    /// An operator says that the held instances of a service are really gone; returns how many there were.
    pub fn confirm(&mut self, rules: &Rules, service: &str, by: Option<&str>, now: Now) -> usize {
        let heard = self.attention.advance(now);
        let Some(there) = self.services.get_mut(service) else {
            return 0;
        };
        let held = there.entries.values_mut().filter(|entry| entry.held);
        let held: Vec<_> = held
            .map(|entry| {
                entry.confirmed = true;
                entry.record.clone()
            })
            .collect();
        for record in &held {
            self.event(record, What::Confirmed, Cause::Request, None, by, now);
            self.settle(rules, &record.id, heard, now);
        }
        self.close();
        held.len()
    }

    /// The result of an order; `false` when it is no longer of use.
    pub fn probe_result(
        &mut self,
        rules: &Rules,
        id: &str,
        number: u64,
        outcome: Outcome,
        now: Now,
    ) -> bool {
        let heard = self.attention.advance(now);
        let Some(entry) = self.entry(id) else {
            return false;
        };
        if { entry.probe.under_way }.is_none_or(|(expected, _)| expected != number) {
            return false;
        }
        // Whoever answers at an address that was registered again since is somebody else.
        let address = entry.record.address.clone();
        let latest = self.addresses.get(&address).and_then(|ids| ids.last());
        let own = latest.is_some_and(|latest| **latest == *id);
        let Some(entry) = self.entry_mut(id) else {
            return false;
        };
        let silent = entry.unproven || entry.age(heard) >= rules.lifecycle.suspect_after;
        if outcome == Outcome::Good && silent && !own {
            entry.probed(Outcome::Silent);
        } else {
            entry.probed(outcome);
            if outcome == Outcome::Good && (silent || entry.state == State::Draining) {
                if silent {
                    entry.seen(heard, now.time);
                } else {
                    entry.good = entry.good.saturating_add(1);
                }
            }
        }
        entry.probe.next = heard + entry.probe_every(rules).unwrap_or_default();
        let id = entry.record.id.clone();
        self.settle(rules, &id, heard, now);
        self.close();
        true
    }

    /// What a data plane saw of an address of a service since its last report.
    #[expect(clippy::too_many_arguments, reason = "one fact, told in full")]
    pub fn observed(
        &mut self,
        rules: &Rules,
        node: &str,
        service: &str,
        address: &str,
        failures: u64,
        successes: u64,
        now: Now,
    ) {
        let heard = self.attention.advance(now);
        let Some(there) = self.services.get_mut(service) else {
            return;
        };
        let ids = self.addresses.get(address).map_or(&[][..], Vec::as_slice);
        let ids: Vec<_> = { ids.iter() }
            .filter(|id| there.entries.contains_key(*id))
            .cloned()
            .collect();
        if ids.is_empty() {
            return;
        }
        let node: Arc<str> = Arc::from(node);
        let age = rules.lifecycle.observation_age;
        there.reporters.insert(node.clone(), heard);
        there.reporters.retain(|_, at| heard < *at + age);
        let report = Report {
            failing: failures > successes,
            at: heard,
        };
        for id in &ids {
            let Some(entry) = self.entry_mut(id) else {
                continue;
            };
            entry.reports.retain(|_, report| heard < report.at + age);
            entry.reports.insert(node.clone(), report);
            if entry.reports.len() > MOST_REPORTS {
                let oldest = entry.reports.iter().min_by_key(|(_, report)| report.at);
                if let Some(oldest) = oldest.map(|(node, _)| node.clone()) {
                    entry.reports.remove(&oldest);
                }
            }
            self.settle(rules, id, heard, now);
        }
        self.close();
    }

    /// How many data planes use a service, as the feed knows: more than half of them must see an instance fail.
    pub fn audience(&mut self, service: &str, nodes: usize) {
        if let Some(service) = self.services.get_mut(service) {
            service.audience = nodes;
        }
    }

    /// Looks at those whose time has come, at most `most` of them. To be called at [`Registry::next_due`] and at least
    /// every second.
    pub fn tick(&mut self, rules: &Rules, most: usize, now: Now) {
        let heard = self.attention.advance(now);
        for _ in 0..most {
            let Some((due, id)) = self.agenda.first().cloned() else {
                break;
            };
            if due > heard {
                break;
            }
            self.settle(rules, &id, heard, now);
        }
        if heard >= self.next_cleanup {
            self.next_cleanup = heard + rules.lifecycle.cleanup;
            self.drop_empty();
        }
        self.close();
    }

    /// Looks at everybody: the rules have changed.
    pub fn reconsider(&mut self, rules: &Rules, now: Now) {
        let heard = self.attention.advance(now);
        let ids: Vec<_> = self.ids.keys().cloned().collect();
        for id in ids {
            self.settle(rules, &id, heard, now);
        }
        self.close();
    }

    /// How long until somebody's time comes, if nothing else happens.
    pub fn next_due(&self, now: Now) -> Option<Duration> {
        let heard = self.attention.at(now);
        let (due, _) = self.agenda.first()?;
        Some(due.saturating_sub(heard))
    }

    /// What followed from the calls since this was last asked.
    pub fn effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    fn entry(&self, id: &str) -> Option<&Entry> {
        let service = self.ids.get(id)?;
        self.services.get(service)?.entries.get(id)
    }

    fn entry_mut(&mut self, id: &str) -> Option<&mut Entry> {
        let service = self.ids.get(id)?;
        self.services.get_mut(service)?.entries.get_mut(id)
    }
}
