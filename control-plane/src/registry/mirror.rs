//! One registry judges, and others show what it found: what a verdict looks like from outside, so that it can be written
//! down; how a registry shows such verdicts without judging; and how another one goes on judging from them.
//!
//! A registry that shows has no agenda and no evidence. Its versions are those that it is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::effects::{Change, What};
use super::entry::Entry;
use super::record::{Cause, Record, State};
use super::service::Service;
use super::{Now, Registry, Rules};

/// One instance as it was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub record: Arc<Record>,
    pub state: State,
    pub cause: Cause,
    pub held: bool,
    /// In its service's list.
    pub shown: bool,
    /// Milliseconds since 1970, when this was written.
    pub last_seen: u64,
}

impl Mark {
    /// Whether others need not be told of the difference: only the last sign is another.
    pub fn says_the_same(&self, other: &Mark) -> bool {
        let figures = self.record == other.record
            || (self.record.reads_like(&other.record)
                && self.record.health_endpoint == other.record.health_endpoint
                && self.record.registered_at == other.record.registered_at);
        figures
            && (self.state, self.cause, self.held, self.shown)
                == (other.state, other.cause, other.held, other.shown)
    }
}

/// A service as it was judged: the version of its list, and all of its instances.
pub type Marks = (u64, BTreeMap<Arc<str>, Mark>);

impl Registry {
    /// What is to be told of a service; `None`: there is no such service any more.
    pub fn marks(&self, service: &str) -> Option<Marks> {
        let service = self.services.get(service)?;
        let mark = |entry: &Entry| Mark {
            record: entry.record.clone(),
            state: entry.state,
            cause: entry.cause,
            held: entry.held,
            shown: entry.shown,
            last_seen: entry.seen_at,
        };
        let entries = service.entries.iter();
        let marks = entries.map(|(id, entry)| (id.clone(), mark(entry)));
        Some((service.version, marks.collect()))
    }

    /// When an instance was heard last, in milliseconds since 1970, and what it said then.
    pub fn heard(&self, id: &str) -> Option<(u64, Arc<Record>)> {
        let entry = self.entry(id)?;
        Some((entry.seen_at, entry.record.clone()))
    }

    /// Goes on judging a service where another left off: its list keeps the version that was told.
    pub fn resume_service(&mut self, service: &Arc<str>, version: u64) {
        let floor = self.floor;
        let entry = { self.services.entry(service.clone()) }.or_insert_with(|| Service::new(floor));
        entry.version = version;
    }

    /// Goes on judging an instance: its lease begins anew, and nothing else changes by that. `mark` is what was told of
    /// it; `unproven` makes it suspected until something is heard of it (REG-501).
    pub fn resume(
        &mut self,
        rules: &Rules,
        record: Arc<Record>,
        mark: Option<&Mark>,
        unproven: bool,
        now: Now,
    ) {
        let heard = self.attention.advance(now);
        let mut entry = Entry::new(record.clone(), heard, record.registered_at);
        let (name, id) = (record.name.clone(), record.id.clone());
        let mut shown = false;
        if let Some(mark) = mark {
            entry.state = mark.state;
            entry.cause = mark.cause;
            entry.seen_at = mark.last_seen;
            entry.shown = mark.shown;
            shown = mark.shown;
            if mark.shown && !mark.record.reads_like(&record) {
                self.touched.insert(name.clone());
            }
        }
        if unproven && entry.state != State::Draining {
            entry.unproven = true;
            entry.state = State::Suspected;
            entry.cause = Cause::Restart;
            self.event(&record, What::Restored, Cause::Restart, None, None, now);
        }
        self.put(rules, entry);
        if shown && let Some(service) = self.services.get_mut(&name) {
            service.shown += 1;
        }
        self.settle(rules, &id, heard, now);
        self.close();
    }

    /// A list reads differently than what was told, for a reason that lies in the past.
    pub fn touch(&mut self, service: &Arc<str>) {
        if self.services.contains_key(service) {
            self.touched.insert(service.clone());
        }
        self.close();
    }

    /// Shows an instance as it was judged.
    pub fn show(&mut self, rules: &Rules, mark: &Mark) {
        self.hide(&mark.record.id);
        let mut entry = Entry::new(mark.record.clone(), Duration::MAX, mark.last_seen);
        entry.state = mark.state;
        entry.cause = mark.cause;
        entry.held = mark.held;
        entry.shown = mark.shown;
        let name = mark.record.name.clone();
        self.put(rules, entry);
        if mark.shown
            && let Some(service) = self.services.get_mut(&name)
        {
            service.shown += 1;
        }
        self.untouch();
    }

    /// Shows an instance no longer.
    pub fn hide(&mut self, id: &str) {
        self.remove(id);
        self.untouch();
    }

    /// The list of a service has this version now.
    pub fn show_version(&mut self, name: &Arc<str>, version: u64) {
        let service =
            { self.services.entry(name.clone()) }.or_insert_with(|| Service::new(version));
        if service.version == version && service.sequence > 0 {
            return;
        }
        service.version = version;
        self.sequence += 1;
        self.order.remove(&service.sequence);
        service.sequence = self.sequence;
        self.order.insert(self.sequence, name.clone());
        self.effects.changes.push(Change {
            service: name.clone(),
            version,
        });
    }

    /// There is no such service any more.
    pub fn hide_service(&mut self, name: &str) {
        if { self.services.get(name) }.is_some_and(|service| service.entries.is_empty())
            && let Some(service) = self.services.remove(name)
        {
            self.order.remove(&service.sequence);
            self.floor = self.floor.max(service.version);
            self.forgotten = self.forgotten.max(service.sequence);
        }
    }

    /// Versions are told, not made.
    fn untouch(&mut self) {
        self.touched.clear();
        self.effects.stirred.clear();
    }
}
