//! Who listens and who listened: what each node is told, runs and refused. Pure, and bounded: whoever is gone for a
//! while is forgotten, and the longest gone gives way.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_config::feed::{Outcome, Trouble};
use tollgate_config::member;

use crate::view::{Kinds, Wishes};

/// Nodes that are remembered.
pub const MOST_NODES: usize = 20_000;
/// Problems that are kept of one refusal.
const MOST_PROBLEMS: usize = 20;

/// One node, as operators see it. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    pub node: String,
    pub kind: String,
    pub version: String,
    pub address: String,
    pub listeners: Vec<String>,
    /// `namespace/service` that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callee: Option<String>,
    /// Those that it named; it may be told of more, which its routes need.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stands_for: Option<String>,
    /// Of the process that listens, or listened last.
    pub instance: String,
    /// Feeds that are open.
    pub feeds: usize,
    pub connected: bool,
    /// Since when it is connected, or is not.
    pub since: u64,
    /// The revision of the last thing that it was told.
    pub told: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<Runs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    #[serde(skip)]
    changed: Duration,
}

impl Node {
    /// What it asks for.
    pub fn wishes(&self) -> Wishes {
        let kind = match self.kind.as_str() {
            "sidecar" => Kinds::Sidecar,
            _ => Kinds::Gateway,
        };
        let services = self.services.iter().map(String::as_str);
        let callee = { self.callee.as_deref() }.and_then(|name| member(name).ok());
        Wishes::new(kind, &self.listeners, services, self.stands_for.as_deref()).of(callee)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    pub revision: u64,
    pub since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micros: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    pub revision: u64,
    pub since: u64,
    pub problems: Vec<Trouble>,
}

/// What is known from the request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) node: String,
    pub(super) kind: &'static str,
    pub(super) version: String,
    pub(super) address: String,
    pub(super) listeners: Vec<String>,
    pub(super) callee: Option<String>,
    pub(super) services: Vec<String>,
    pub(super) stands_for: Option<String>,
    pub(super) instance: String,
}

#[derive(Debug, Default)]
pub(super) struct Nodes(BTreeMap<String, Node>);

impl Nodes {
    pub(super) fn connected(&mut self, caller: Caller, tick: Duration, time: u64) {
        if !self.0.contains_key(&caller.node) {
            self.make_room();
        }
        let former = self.0.remove(&caller.node);
        let (feeds, since) = match &former {
            Some(node) if node.connected => (node.feeds + 1, node.since),
            _ => (1, time),
        };
        let (told, runs, refused) =
            former.map_or((0, None, None), |node| (node.told, node.runs, node.refused));
        let node = Node {
            node: caller.node.clone(),
            kind: caller.kind.to_owned(),
            version: caller.version,
            address: caller.address,
            listeners: caller.listeners,
            callee: caller.callee,
            services: caller.services,
            stands_for: caller.stands_for,
            instance: caller.instance,
            feeds,
            connected: true,
            since,
            told,
            runs,
            refused,
            changed: tick,
        };
        self.0.insert(caller.node, node);
    }

    /// It asks for other services than before.
    pub(super) fn wants(&mut self, name: &str, services: Vec<String>) {
        if let Some(node) = self.0.get_mut(name) {
            node.services = services;
        }
    }

    pub(super) fn gone(&mut self, name: &str, tick: Duration, time: u64) {
        if let Some(node) = self.0.get_mut(name) {
            node.feeds = node.feeds.saturating_sub(1);
            if node.feeds == 0 {
                node.connected = false;
                node.since = time;
                node.changed = tick;
            }
        }
    }

    pub(super) fn told(&mut self, name: &str, revision: u64) {
        if let Some(node) = self.0.get_mut(name) {
            node.told = revision;
        }
    }

    /// Whether the node is known.
    pub(super) fn outcome(&mut self, name: &str, mut outcome: Outcome, time: u64) -> bool {
        let Some(node) = self.0.get_mut(name) else {
            return false;
        };
        if outcome.applied {
            node.runs = Some(Runs {
                revision: outcome.revision,
                since: time,
                hash: outcome.hash,
                micros: outcome.micros,
            });
            node.refused = None;
        } else {
            outcome.problems.truncate(MOST_PROBLEMS);
            node.refused = Some(Refusal {
                revision: outcome.revision,
                since: time,
                problems: outcome.problems,
            });
        }
        true
    }

    /// Forgets who has no feed for longer than `keep`.
    pub(super) fn tick(&mut self, keep: Duration, tick: Duration) {
        self.0
            .retain(|_, node| node.connected || tick < node.changed + keep);
    }

    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.0.values()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn make_room(&mut self) {
        if self.0.len() < MOST_NODES {
            return;
        }
        let away = self.0.values().filter(|node| !node.connected);
        let oldest = away.min_by_key(|node| node.changed);
        if let Some(oldest) = oldest.map(|node| node.node.clone()) {
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> Caller {
        Caller {
            node: name.to_owned(),
            kind: "gateway",
            version: "1".to_owned(),
            address: "10.0.0.1".to_owned(),
            listeners: Vec::new(),
            callee: None,
            services: Vec::new(),
            stands_for: None,
            instance: "a".to_owned(),
        }
    }

    fn outcome(revision: u64, applied: bool) -> Outcome {
        Outcome {
            instance: "a".to_owned(),
            revision,
            applied,
            hash: None,
            micros: None,
            problems: Vec::new(),
        }
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_that_refuses_keeps_what_it_runs_and_a_good_revision_ends_the_refusal() {
        let mut nodes = Nodes::default();
        assert!(!nodes.outcome("edge", outcome(1, true), 0));
        nodes.connected(caller("edge"), s(0), 1);
        assert!(nodes.outcome("edge", outcome(1, true), 2));
        nodes.outcome("edge", outcome(2, false), 3);
        let node = nodes.all().next().expect("one");
        assert_eq!(
            node.runs.as_ref().map(|runs| (runs.revision, runs.since)),
            Some((1, 2))
        );
        assert_eq!(
            node.refused.as_ref().map(|refused| refused.revision),
            Some(2)
        );
        nodes.outcome("edge", outcome(3, true), 4);
        assert!(nodes.all().next().expect("one").refused.is_none());
    }

    #[test]
    fn who_is_gone_is_forgotten_after_a_while_and_two_feeds_are_one_node() {
        let mut nodes = Nodes::default();
        nodes.connected(caller("edge"), s(0), 1);
        nodes.connected(caller("edge"), s(1), 2);
        nodes.gone("edge", s(2), 3);
        nodes.tick(s(10), s(100));
        assert_eq!(
            nodes.all().next().map(|node| (node.connected, node.since)),
            Some((true, 1))
        );
        nodes.gone("edge", s(100), 4);
        nodes.tick(s(10), s(109));
        assert_eq!(nodes.all().len(), 1);
        nodes.tick(s(10), s(110));
        assert_eq!(nodes.all().len(), 0);
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let mut nodes = Nodes::default();
        for number in 0..MOST_NODES + 10 {
            let name = format!("edge-{number}");
            nodes.connected(caller(&name), s(number as u64), 0);
            nodes.gone(&name, s(number as u64), 0);
        }
        assert_eq!(nodes.all().len(), MOST_NODES);
        assert!(!nodes.has("edge-0"));
    }
}
