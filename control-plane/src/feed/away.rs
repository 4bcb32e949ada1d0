//! Who listens to other control planes, as those tell the one that leads: who is there, what each runs and refused, and
//! what it served. Sent once a second with other signs (`keeper/signs`); a list that is as it was is not sent again.
//!
//! Nothing of it is written: whoever leads next hears it within a second or two. A control plane that falls silent takes
//! its nodes along, until they listen elsewhere. What waits is bounded: figures that do not fit are lost like those of a
//! report that did not arrive.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_config::feed::Figures;

use super::Feed;
use super::nodes::{MOST_NODES, Node};

/// A control plane that said nothing for so long has no listeners.
const SILENT: Duration = Duration::from_secs(5);
/// Sums that wait to be handed on: a report has up to 600.
const MOST_WAITING: usize = 100_000;

/// What a follower tells of its listeners.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listeners {
    /// Absent: as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<Node>>,
    /// By node.
    #[serde(default)]
    figures: Vec<(String, Figures)>,
}

#[derive(Default)]
pub(super) struct Away {
    /// By control plane: when it was heard last, and its nodes.
    planes: BTreeMap<String, (Duration, Vec<Node>)>,
    /// Whose figures came from elsewhere, and when.
    figures: BTreeMap<String, Duration>,
    waiting: Vec<(String, Figures)>,
    /// What `waiting` has.
    sums: usize,
    /// The last list, and who has it.
    told: Option<(String, Vec<Node>)>,
}

fn sums(figures: &Figures) -> usize {
    1 + figures.routes.len() + figures.upstreams.len() + figures.edges.len()
}

impl Away {
    pub(super) fn wait(&mut self, node: &str, figures: Figures) {
        let sums = sums(&figures);
        if self.sums + sums <= MOST_WAITING {
            self.sums += sums;
            self.waiting.push((node.to_owned(), figures));
        }
    }

    pub(super) fn tick(&mut self, keep: Duration, now: Duration) {
        self.figures.retain(|_, heard| now < *heard + keep);
        self.planes.retain(|_, (heard, _)| now < *heard + SILENT);
    }

    pub(super) fn has(&self, node: &str) -> bool {
        self.figures.contains_key(node)
    }
}

impl Feed {
    pub(super) fn away(&self) -> MutexGuard<'_, Away> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the one that leads is to know. [`Feed::handed_on`] says what became of it.
    pub fn hand_on(&self, leader: &str) -> Listeners {
        let nodes = self.all_nodes();
        let mut away = self.away();
        let known = { away.told.as_ref() }.is_some_and(|(to, told)| to == leader && *told == nodes);
        if !known {
            away.told = Some((leader.to_owned(), nodes.clone()));
        }
        away.sums = 0;
        Listeners {
            nodes: (!known).then_some(nodes),
            figures: std::mem::take(&mut away.waiting),
        }
    }

    /// Whether it knows now who listens here; `None` = it did not answer, and gets it with the next ones.
    pub fn handed_on(&self, told: Listeners, knows: Option<bool>) {
        let mut away = self.away();
        if knows != Some(true) {
            away.told = None;
        }
        if knows.is_none() {
            let later = std::mem::take(&mut away.waiting);
            away.sums = 0;
            for (node, figures) in told.figures.into_iter().chain(later) {
                away.wait(&node, figures);
            }
        }
    }

    /// This one leads: nothing is handed on.
    pub fn keeps_all(&self) {
        let mut away = self.away();
        away.told = None;
        away.sums = 0;
        away.waiting = Vec::new();
    }

    /// Takes over what a follower tells; whether its nodes are known now.
    pub fn take_over(&self, from: &str, told: Listeners) -> bool {
        let now = self.now();
        let mut away = self.away();
        for (node, _) in &told.figures {
            if away.figures.len() < MOST_NODES || away.figures.contains_key(node) {
                away.figures.insert(node.clone(), now);
            }
        }
        let known = match told.nodes {
            Some(nodes) => {
                away.planes.insert(from.to_owned(), (now, nodes));
                true
            }
            None => match away.planes.get_mut(from) {
                Some(plane) => {
                    plane.0 = now;
                    true
                }
                None => false,
            },
        };
        let figures: Vec<(String, Figures)> = { told.figures.into_iter() }
            .filter(|(node, _)| away.has(node))
            .collect();
        drop(away);
        self.figures(|book| {
            for (node, figures) in &figures {
                book.take(node, figures, now);
            }
        });
        known
    }

    /// Everybody who listens or listened, here and, where this one leads, elsewhere: each where it is now.
    pub fn everybody(&self) -> Vec<Node> {
        let own = self.all_nodes();
        let now = self.now();
        let away = self.away();
        let fresh = { away.planes.values() }.filter(|(heard, _)| now < *heard + SILENT);
        let others = fresh.flat_map(|(_, nodes)| nodes.iter().cloned());
        let mut all: BTreeMap<String, Node> = BTreeMap::new();
        for node in own.into_iter().chain(others) {
            let one = match all.remove(&node.node) {
                Some(known) => newer(known, node),
                None => node,
            };
            all.insert(one.node.clone(), one);
        }
        all.into_values().collect()
    }
}

/// Of two sights of a node the one where it is, or was last.
fn newer(a: Node, b: Node) -> Node {
    let rank = |node: &Node| (node.connected, node.since);
    let (mut here, there) = match rank(&a) >= rank(&b) {
        true => (a, b),
        false => (b, a),
    };
    // It says again what it runs, but has only just come.
    if here.runs.is_none() && here.refused.is_none() {
        (here.runs, here.refused) = (there.runs, there.refused);
    }
    here
}

#[cfg(test)]
mod tests {
    use super::super::nodes::{Caller, Nodes};
    use super::*;

    fn node(name: &str, time: u64) -> Node {
        let mut nodes = Nodes::default();
        let caller = Caller {
            node: name.to_owned(),
            kind: "gateway",
            version: "1".to_owned(),
            address: "10.0.0.1".to_owned(),
            listeners: vec!["in".to_owned()],
            callee: None,
            services: Vec::new(),
            stands_for: None,
            instance: "a".to_owned(),
        };
        nodes.connected(caller, Duration::ZERO, time);
        nodes.all().next().expect("one").clone()
    }

    #[test]
    fn a_node_is_where_it_listens_and_what_it_ran_is_known_until_it_says_so_again() {
        let mut old = node("edge", 9);
        old.connected = false;
        old.runs = Some(super::super::nodes::Runs {
            revision: 3,
            since: 5,
            hash: None,
            micros: None,
        });
        let new = node("edge", 7);
        for (a, b) in [(old.clone(), new.clone()), (new, old)] {
            let one = newer(a, b);
            assert!(one.connected);
            assert_eq!(one.runs.map(|runs| runs.revision), Some(3));
        }
    }

    #[test]
    fn what_is_handed_on_is_read_as_it_was_and_what_waits_is_bounded() {
        let told = Listeners {
            nodes: Some(vec![node("edge", 1)]),
            figures: vec![("edge".to_owned(), Figures::default())],
        };
        let text = serde_json::to_string(&told).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Listeners>(&text).expect("read"),
            told
        );
        let mut away = Away::default();
        for _ in 0..2 * MOST_WAITING {
            away.wait("edge", Figures::default());
        }
        assert_eq!(away.waiting.len(), MOST_WAITING);
    }
}
