//! What is kept, in memory: keys, leases, the latest changes. And the draft of a batch: what the transactions in it
//! would do one after the other, before anything of it is durable. Pure; leases are told the time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Compare, Event, Kept, LeaseId, StoreError, Transaction, Write};

/// Changes that a watch may still ask for.
const HISTORY: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct State {
    keys: BTreeMap<Arc<str>, Kept>,
    pub(super) revision: u64,
    /// Time to live of each lease, in milliseconds.
    leases: BTreeMap<u64, u64>,
    last_lease: u64,
    history: VecDeque<Event>,
    /// Changes up to this revision are forgotten.
    forgotten: u64,
}

/// One transaction as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Written {
    #[serde(rename = "r")]
    pub(super) revision: u64,
    #[serde(rename = "w")]
    pub(super) steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    #[serde(rename = "put")]
    Put(Arc<str>, Arc<str>, Option<u64>),
    #[serde(rename = "del")]
    Delete(Arc<str>),
    /// A lease and its time in milliseconds.
    #[serde(rename = "lease")]
    Grant(u64, u64),
    #[serde(rename = "end")]
    Revoke(u64),
}

/// A part of the state, as it stands in the file after a compaction.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Base {
    revision: u64,
    last_lease: u64,
    leases: BTreeMap<u64, u64>,
    keys: Vec<Row>,
}

/// Key, value, created, revision, lease.
type Row = (Arc<str>, Arc<str>, u64, u64, Option<u64>);

impl State {
    pub(super) fn one(&self, key: &str) -> Option<Kept> {
        self.keys.get(key).cloned()
    }

    pub(super) fn range(&self, prefix: &str) -> Vec<Kept> {
        let from = self.keys.range::<str, _>((
            std::ops::Bound::Included(prefix),
            std::ops::Bound::Unbounded,
        ));
        from.take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, kept)| kept.clone())
            .collect()
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = (u64, Duration)> {
        let leases = self.leases.iter();
        leases.map(|(id, time)| (*id, Duration::from_millis(*time)))
    }

    pub(super) fn lease(&self, id: u64) -> Option<Duration> {
        self.leases
            .get(&id)
            .map(|time| Duration::from_millis(*time))
    }

    /// Changes under `prefix` after a revision. An error when some of them are forgotten.
    pub(super) fn since(&self, prefix: &str, revision: u64) -> Result<Vec<Event>, StoreError> {
        if revision < self.forgotten {
            return Err(StoreError::Compacted(self.revision));
        }
        let from = self
            .history
            .partition_point(|event| event.revision <= revision);
        let later = self.history.range(from..);
        Ok(later
            .filter(|event| event.key.starts_with(prefix))
            .cloned()
            .collect())
    }

    pub(super) fn apply(&mut self, written: &Written) {
        self.revision = written.revision;
        for step in &written.steps {
            match step {
                Step::Put(key, value, lease) => {
                    let created = self
                        .keys
                        .get(key)
                        .map_or(self.revision, |kept| kept.created);
                    let kept = Kept {
                        key: key.clone(),
                        value: value.clone(),
                        created,
                        revision: self.revision,
                        lease: lease.map(LeaseId),
                    };
                    self.keys.insert(key.clone(), kept);
                    self.happened(key.clone(), Some(value.clone()));
                }
                Step::Delete(key) => {
                    if self.keys.remove(key).is_some() {
                        self.happened(key.clone(), None);
                    }
                }
                Step::Grant(id, time) => {
                    self.leases.insert(*id, *time);
                    self.last_lease = self.last_lease.max(*id);
                }
                Step::Revoke(id) => {
                    self.leases.remove(id);
                }
            }
        }
    }

    fn happened(&mut self, key: Arc<str>, value: Option<Arc<str>>) {
        self.history.push_back(Event {
            revision: self.revision,
            key,
            value,
        });
        while self.history.len() > HISTORY
            && let Some(event) = self.history.pop_front()
        {
            self.forgotten = event.revision;
        }
    }

    pub(super) fn parts(&self, step: usize) -> Vec<Base> {
        let mut parts = vec![Base {
            revision: self.revision,
            last_lease: self.last_lease,
            leases: self.leases.clone(),
            keys: Vec::new(),
        }];
        for kept in self.keys.values() {
            if parts.last().is_none_or(|part| part.keys.len() >= step) {
                parts.push(Base::default());
            }
            if let Some(part) = parts.last_mut() {
                part.keys.push((
                    kept.key.clone(),
                    kept.value.clone(),
                    kept.created,
                    kept.revision,
                    kept.lease.map(|lease| lease.0),
                ));
            }
        }
        parts
    }

    pub(super) fn restore(&mut self, part: Base) {
        self.revision = self.revision.max(part.revision);
        self.last_lease = self.last_lease.max(part.last_lease);
        self.leases.extend(part.leases);
        for (key, value, created, revision, lease) in part.keys {
            let kept = Kept {
                key: key.clone(),
                value,
                created,
                revision,
                lease: lease.map(LeaseId),
            };
            self.keys.insert(key, kept);
        }
    }

    /// Nothing that happened before can be watched.
    pub(super) fn begin(&mut self) {
        self.history.clear();
        self.forgotten = self.revision;
    }
}

/// Transactions that come one after the other on top of a state, none of them durable yet.
pub(super) struct Draft<'a> {
    state: &'a State,
    /// Revision and lease of keys that the draft wrote; `None` where it deleted.
    keys: BTreeMap<Arc<str>, Option<(u64, Option<u64>)>>,
    /// `false` where the draft ended it.
    leases: BTreeMap<u64, bool>,
    last_lease: u64,
    revision: u64,
    pub(super) written: Vec<Written>,
}

impl<'a> Draft<'a> {
    pub(super) fn on(state: &'a State) -> Draft<'a> {
        Draft {
            state,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: state.last_lease,
            revision: state.revision,
            written: Vec::new(),
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Writes, if the comparisons hold.
    pub(super) fn transaction(&mut self, transaction: Transaction) -> Result<bool, StoreError> {
        if !transaction.when.iter().all(|compare| self.holds(compare)) {
            return Ok(false);
        }
        let mut steps = Vec::with_capacity(transaction.then.len());
        for write in transaction.then {
            match write {
                Write::Put { key, value, lease } => {
                    let lease = lease.map(|lease| lease.0);
                    if lease.is_some_and(|lease| !self.has_lease(lease)) {
                        return Err(StoreError::NoLease);
                    }
                    steps.push(Step::Put(key, value, lease));
                }
                Write::Delete(key) => {
                    if self.key(&key).is_some() {
                        steps.push(Step::Delete(key));
                    }
                }
            }
        }
        self.take(steps);
        Ok(true)
    }

    pub(super) fn grant(&mut self, time: Duration) -> u64 {
        self.last_lease += 1;
        let id = self.last_lease;
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.leases.insert(id, true);
        self.take(vec![Step::Grant(id, time)]);
        id
    }

    pub(super) fn revoke(&mut self, id: u64) -> bool {
        if !self.has_lease(id) {
            return false;
        }
        let kept =
            self.state.keys.values().filter(|kept| {
                kept.lease == Some(LeaseId(id)) && !self.keys.contains_key(&kept.key)
            });
        let drafted = self.keys.iter();
        let drafted = drafted.filter(|(_, key)| key.is_some_and(|(_, lease)| lease == Some(id)));
        let mut steps: Vec<Step> = kept
            .map(|kept| kept.key.clone())
            .chain(drafted.map(|(key, _)| key.clone()))
            .map(Step::Delete)
            .collect();
        steps.push(Step::Revoke(id));
        self.leases.insert(id, false);
        self.take(steps);
        true
    }

    fn take(&mut self, steps: Vec<Step>) {
        if steps.is_empty() {
            return;
        }
        self.revision += 1;
        for step in &steps {
            match step {
                Step::Put(key, _, lease) => {
                    self.keys.insert(key.clone(), Some((self.revision, *lease)));
                }
                Step::Delete(key) => {
                    self.keys.insert(key.clone(), None);
                }
                Step::Grant(..) | Step::Revoke(..) => {}
            }
        }
        self.written.push(Written {
            revision: self.revision,
            steps,
        });
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => self.key(key).is_none(),
            Compare::Present(key) => self.key(key).is_some(),
            Compare::At(key, revision) => self.key(key) == Some(*revision),
        }
    }

    /// The revision of a key.
    fn key(&self, key: &str) -> Option<u64> {
        match self.keys.get(key) {
            Some(drafted) => drafted.map(|(revision, _)| revision),
            None => self.state.keys.get(key).map(|kept| kept.revision),
        }
    }

    fn has_lease(&self, id: u64) -> bool {
        let drafted = self.leases.get(&id).copied();
        drafted.unwrap_or_else(|| self.state.leases.contains_key(&id))
    }
}
