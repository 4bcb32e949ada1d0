//! One service: its instances, the version of its list, and what its guard remembers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Rules;
use super::entry::Entry;
use super::guard::Guard;
use super::record::{Record, State};

#[derive(Debug)]
pub(super) struct Service {
    /// By id.
    pub(super) entries: BTreeMap<Arc<str>, Entry>,
    pub(super) version: u64,
    /// Its place in the order of all changes.
    pub(super) sequence: u64,
    /// How many entries are shown.
    pub(super) shown: usize,
    pub(super) guard: Guard,
    /// How many data planes use it, as the feed knows.
    pub(super) audience: usize,
    /// Data planes that reported on any of its instances, and when last.
    pub(super) reporters: BTreeMap<Arc<str>, Duration>,
}

/// An instance as others see it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub record: Arc<Record>,
    pub state: State,
    /// Milliseconds since 1970.
    pub last_seen: u64,
}

impl Service {
    pub(super) fn new(version: u64) -> Service {
        Service {
            entries: BTreeMap::new(),
            version,
            sequence: 0,
            shown: 0,
            guard: Guard::default(),
            audience: 0,
            reporters: BTreeMap::new(),
        }
    }

    /// How many data planes use it, as far as anybody knows.
    pub(super) fn users(&self, rules: &Rules, heard: Duration) -> usize {
        let age = rules.lifecycle.observation_age;
        let recent = self.reporters.values().filter(|at| heard < **at + age);
        recent.count().max(self.audience)
    }

    /// What lookups return: whoever is shown, without those whose time is over since the registry last looked
    /// (REG-303), as far as the guard will let them go. Degraded ones come last.
    pub(super) fn lookup(&self, rules: &Rules, heard: Duration) -> Vec<Seen> {
        let mut over: Vec<&Entry> = { self.entries.values() }
            .filter(|entry| entry.shown && !entry.held && entry.is_over(rules, heard))
            .collect();
        if over.is_empty() {
            return self.list();
        }
        let mut allowance = self.guard.allowance(&rules.lifecycle, self.shown, heard);
        over.sort_by_key(|entry| entry.last_seen);
        over.retain(|entry| {
            let confirmed = entry.is_confirmed();
            if !confirmed && allowance > 0 {
                allowance -= 1;
                return true;
            }
            confirmed
        });
        self.listed(|entry| {
            entry.shown && !over.iter().any(|gone| gone.record.id == entry.record.id)
        })
    }

    /// The list that belongs to the version.
    pub(super) fn list(&self) -> Vec<Seen> {
        self.listed(|entry| entry.shown)
    }

    fn listed(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Seen> {
        let entries = self.entries.values().filter(|entry| wanted(entry));
        let mut list: Vec<Seen> = entries.map(seen).collect();
        list.sort_by_key(|seen| seen.record.health as u8);
        list
    }
}

pub(super) fn seen(entry: &Entry) -> Seen {
    Seen {
        record: entry.record.clone(),
        state: entry.state,
        last_seen: entry.seen_at,
    }
}
