//! Looking at the registry without changing it: lookups, lists for the feed, everything for operators.

use std::sync::Arc;
use std::time::Duration;

use super::effects::{Change, Outcome};
use super::record::{Cause, Record};
use super::service::{Seen, seen};
use super::{Now, Registry, Rules};

/// What changed since somebody last asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    pub changes: Vec<Change>,
    /// What to ask with the next time.
    pub sequence: u64,
    /// Services were dropped meanwhile: who holds lists has to compare all of them.
    pub gap: bool,
}

/// One instance with everything that is known of it.
#[derive(Debug, Clone)]
pub struct Detail {
    pub seen: Seen,
    pub since: Duration,
    pub age: Duration,
    pub cause: Cause,
    pub held: bool,
    /// In lookups.
    pub shown: bool,
    pub last_probe: Option<Outcome>,
    /// In a row.
    pub failed_probes: u32,
    /// Data planes that see it fail, and all that reported on it lately.
    pub observers: (usize, usize),
}

impl Registry {
    /// The instances of a service that may be used (REG-202).
    pub fn lookup(&self, rules: &Rules, service: &str, now: Now) -> Vec<Seen> {
        let heard = self.attention.at(now);
        let service = self.services.get(service);
        service.map_or_else(Vec::new, |service| service.lookup(rules, heard))
    }

    /// The version of a service and the list that belongs to it, for the feed.
    pub fn service(&self, name: &str) -> Option<(u64, Vec<Seen>)> {
        let service = self.services.get(name)?;
        Some((service.version, service.list()))
    }

    /// All instances of a service, whatever their state (REG-203).
    pub fn all(&self, service: &str) -> Vec<Seen> {
        let service = self.services.get(service);
        service.map_or_else(Vec::new, |service| {
            service.entries.values().map(seen).collect()
        })
    }

    /// All instances of a service with what is known of them.
    pub fn details(&self, rules: &Rules, service: &str, now: Now) -> Vec<Detail> {
        let heard = self.attention.at(now);
        let age = rules.lifecycle.observation_age;
        let Some(service) = self.services.get(service) else {
            return Vec::new();
        };
        let details = service.entries.values().map(|entry| {
            let recent = entry.reports.values().filter(|r| heard < r.at + age);
            let failing = recent.clone().filter(|report| report.failing).count();
            Detail {
                seen: seen(entry),
                since: heard.saturating_sub(entry.since),
                age: entry.age(heard),
                cause: entry.cause,
                held: entry.held,
                shown: entry.shown,
                last_probe: entry.probe.last,
                failed_probes: entry.probe.failed,
                observers: (failing, recent.count()),
            }
        });
        details.collect()
    }

    /// Names of all services with instances.
    pub fn names(&self) -> Vec<Arc<str>> {
        let there = self.services.iter().filter(|(_, s)| !s.entries.is_empty());
        there.map(|(name, _)| name.clone()).collect()
    }

    /// Services whose lists changed after `sequence`. Nobody has to be told every change: a reader remembers one
    /// number, and finds each service once, at its latest version.
    pub fn changed_since(&self, sequence: u64) -> Since {
        let later = self.order.range(sequence.saturating_add(1)..);
        let changes = later.filter_map(|(_, service)| {
            Some(Change {
                service: service.clone(),
                version: self.services.get(service)?.version,
            })
        });
        Since {
            changes: changes.collect(),
            sequence: self.sequence,
            gap: sequence < self.forgotten,
        }
    }

    /// The highest version that was given to any service.
    pub fn highest_version(&self) -> u64 {
        let versions = self.services.values().map(|service| service.version);
        versions.fold(self.floor, u64::max)
    }

    /// The instance of a service at an address, the one that registered last.
    pub fn at_address(&self, service: &str, address: &str) -> Option<Arc<str>> {
        let ids = self.addresses.get(address)?;
        let mut own =
            { ids.iter().rev() }.filter(|id| self.ids.get(*id).is_some_and(|of| **of == *service));
        own.next().cloned()
    }

    pub fn contains(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }

    pub fn record(&self, id: &str) -> Option<Arc<Record>> {
        self.entry(id).map(|entry| entry.record.clone())
    }

    /// How many instances there are in each state, in the order of `State::ALL`, and how many are held.
    pub fn counts(&self) -> ([usize; 4], usize) {
        let mut states = [0; 4];
        let mut held = 0;
        for entry in self.services.values().flat_map(|s| s.entries.values()) {
            states[entry.state as usize] += 1;
            held += usize::from(entry.held);
        }
        (states, held)
    }
}
