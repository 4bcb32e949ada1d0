//! Lists of services as lines, made once for all who want them, and who wants which.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tollgate_config::feed::{Health, Instance, Line, Service};

use super::Feed;
use super::told::{List, line};
use crate::registry::{Health as Said, Seen};

/// After a change others are waited for so long: a burst is told once.
const FOLD: Duration = Duration::from_millis(2);

#[derive(Default)]
pub(super) struct Services {
    wanted: HashMap<Arc<str>, Wanted>,
}

struct Wanted {
    /// `None` when no such service is registered.
    list: Option<List>,
    by: HashMap<u64, Arc<Notify>>,
}

/// Names the listeners of one process.
pub(super) fn next_listener() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

impl Feed {
    /// What a listener wants from now on. Returns the lists of those services that are registered.
    pub(super) fn want(
        &self,
        listener: u64,
        before: &BTreeSet<Arc<str>>,
        now: &BTreeSet<Arc<str>>,
        notify: &Arc<Notify>,
    ) -> BTreeMap<Arc<str>, List> {
        let mut audiences = Vec::new();
        let mut lists = BTreeMap::new();
        {
            let mut services = self.services();
            for name in before.difference(now) {
                if let Some(wanted) = services.wanted.get_mut(name) {
                    wanted.by.remove(&listener);
                    audiences.push((name.clone(), wanted.by.len()));
                    if wanted.by.is_empty() {
                        services.wanted.remove(name);
                    }
                }
            }
            for name in now {
                let wanted = { services.wanted.entry(name.clone()) }.or_insert_with(|| Wanted {
                    list: self.list(name),
                    by: HashMap::new(),
                });
                if wanted.by.insert(listener, notify.clone()).is_none() {
                    audiences.push((name.clone(), wanted.by.len()));
                }
                if let Some(list) = &wanted.list {
                    lists.insert(name.clone(), list.clone());
                }
            }
        }
        for (name, nodes) in audiences {
            self.keeper.audience(&name, nodes);
        }
        lists
    }

    fn list(&self, name: &Arc<str>) -> Option<List> {
        let (version, seen) = self.keeper.read(|registry, _, _| registry.service(name))?;
        Some((version, service(name, version, &seen)))
    }

    /// Makes the lists that changed, and wakes who wants them.
    pub(super) async fn follow_registry(self: Arc<Self>) {
        let mut changes = self.keeper.changes();
        let mut sequence = 0;
        loop {
            let since = self
                .keeper
                .read(|registry, _, _| registry.changed_since(sequence));
            sequence = since.sequence;
            {
                let mut services = self.services();
                let names: Vec<Arc<str>> = match since.gap {
                    true => services.wanted.keys().cloned().collect(),
                    false => since.changes.into_iter().map(|one| one.service).collect(),
                };
                for name in names {
                    let Some(wanted) = services.wanted.get_mut(&name) else {
                        continue;
                    };
                    // A service that was dropped had nobody in its last list.
                    if let Some(list) = self.list(&name)
                        && wanted.list.as_ref().map(|known| known.0) != Some(list.0)
                    {
                        wanted.list = Some(list);
                        wanted.by.values().for_each(|notify| notify.notify_one());
                    }
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
            // The first of a burst is told at once, where few listen.
            if self.is_storm() {
                tokio::time::sleep(FOLD).await;
            }
        }
    }

    /// Whether so many listen that every turn counts.
    fn is_storm(&self) -> bool {
        self.listeners() > 32
    }
}

fn service(name: &Arc<str>, version: u64, seen: &[Seen]) -> Bytes {
    let instance = |seen: &Seen| {
        let record = &seen.record;
        let metadata = &record.metadata;
        Instance {
            id: record.id.to_string(),
            address: record.address.to_string(),
            health: match record.health {
                Said::Healthy => Health::Healthy,
                Said::Degraded => Health::Degraded,
                Said::Unhealthy => Health::Unhealthy,
                Said::Unknown => Health::Unknown,
            },
            weight: { metadata.get("weight") }
                .and_then(|weight| weight.parse().ok())
                .unwrap_or(1),
            zone: metadata
                .get("zone")
                .filter(|zone| !zone.is_empty())
                .cloned(),
            metadata: metadata.clone(),
        }
    };
    line(&Line::Service(Service {
        name: name.to_string(),
        version,
        instances: seen.iter().map(instance).collect(),
    }))
}
