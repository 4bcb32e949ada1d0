//! Small news for whoever leads: which instances beat at a follower, what data planes that listen there saw, and how
//! many of them use a service. Gathered, and handed on together once a second; whoever leads takes its own at once.
//! Nothing of it is written: lost news comes again with the next beat or report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Keeper;
use crate::registry::News;

/// What a follower hands on.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signs {
    /// The follower.
    pub node: String,
    /// Ids of instances that beat, and said nothing new.
    #[serde(default)]
    pub beats: BTreeSet<String>,
    #[serde(default)]
    pub sights: Vec<Sight>,
    /// Data planes by service.
    #[serde(default)]
    pub audiences: BTreeMap<String, usize>,
}

/// What a data plane saw of an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    node: String,
    service: String,
    address: String,
    failures: u64,
    successes: u64,
}

/// So many sights wait for whoever leads, at most; those that come then say the same as others.
const MOST_SIGHTS: usize = 10_000;

#[derive(Default)]
pub(super) struct Gathered {
    beats: BTreeSet<String>,
    sights: Vec<Sight>,
    /// Of those that listen here.
    own: BTreeMap<String, usize>,
    /// What followers said.
    others: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Gathered {
    /// From now on signs are taken here. What followers of a former leader said does not count; they say it again.
    /// Returns the audiences of those that listen here.
    pub(super) fn begin(&mut self) -> BTreeMap<String, usize> {
        self.others.clear();
        self.own.clone()
    }

    fn audience(&self, service: &str) -> usize {
        let others = self.others.values().filter_map(|of| of.get(service));
        self.own.get(service).copied().unwrap_or(0) + others.sum::<usize>()
    }
}

impl Keeper {
    fn signs(&self) -> Option<MutexGuard<'_, Gathered>> {
        let signs: &Mutex<Gathered> = &self.shared.as_ref()?.signs;
        Some(signs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An instance that is known beat at this follower; whether it is known.
    pub fn beat_here(&self, id: &str) -> bool {
        let known = self.read(|registry, _, _| registry.contains(id));
        if let Some(mut signs) = self.signs().filter(|_| known) {
            signs.beats.insert(id.to_owned());
        }
        known
    }

    /// What a data plane saw of an address of a service.
    pub fn observed(
        &self,
        node: &str,
        service: &str,
        address: &str,
        failures: u64,
        successes: u64,
    ) {
        if self.leads() {
            self.call(|registry, rules, now| {
                registry.observed(rules, node, service, address, failures, successes, now);
            });
        } else if let Some(mut signs) = self.signs()
            && signs.sights.len() < MOST_SIGHTS
        {
            signs.sights.push(Sight {
                node: node.to_owned(),
                service: service.to_owned(),
                address: address.to_owned(),
                failures,
                successes,
            });
        }
    }

    /// How many data planes that listen here use a service.
    pub fn audience(&self, service: &str, nodes: usize) {
        let mut all = nodes;
        if let Some(mut signs) = self.signs() {
            match nodes {
                0 => signs.own.remove(service),
                _ => signs.own.insert(service.to_owned(), nodes),
            };
            all = signs.audience(service);
        }
        if self.leads() {
            self.call(|registry, _, _| registry.audience(service, all));
        }
    }

    /// What waits to be handed on; `None` where nobody else leads.
    pub fn gathered(&self) -> Option<Signs> {
        let node = self.store.cluster()?.node.to_string();
        let mut signs = self.signs()?;
        Some(Signs {
            node,
            beats: std::mem::take(&mut signs.beats),
            sights: std::mem::take(&mut signs.sights),
            audiences: signs.own.clone(),
        })
    }

    /// They could not be handed on: with the next ones.
    pub fn keep_signs(&self, mut kept: Signs) {
        if let Some(mut signs) = self.signs() {
            signs.beats.append(&mut kept.beats);
            kept.sights.append(&mut signs.sights);
            kept.sights.truncate(MOST_SIGHTS);
            signs.sights = kept.sights;
        }
    }

    /// Takes over what a follower hands on. Returns the ids that nobody is registered under.
    pub fn signs_of(&self, told: Signs) -> Vec<String> {
        let members = self.store.cluster().map(|cluster| cluster.members());
        let mut audiences = Vec::new();
        if let Some(mut signs) = self.signs() {
            let before = signs.others.insert(told.node, told.audiences.clone());
            signs.others.retain(|node, _| {
                members
                    .iter()
                    .any(|all| all.iter().any(|one| *one.node == **node))
            });
            let names = before.unwrap_or_default().into_keys();
            let names: BTreeSet<String> = names.chain(told.audiences.into_keys()).collect();
            audiences.extend(names.into_iter().map(|name| (signs.audience(&name), name)));
        }
        for (all, name) in audiences {
            self.call(|registry, _, _| registry.audience(&name, all));
        }
        for sight in told.sights {
            let (bad, good) = (sight.failures, sight.successes);
            self.observed(&sight.node, &sight.service, &sight.address, bad, good);
        }
        let unknown = |id: &String| {
            matches!(
                self.beat(id, News::default()),
                crate::registry::Beat::Unknown
            )
        };
        told.beats.into_iter().filter(unknown).collect()
    }
}
