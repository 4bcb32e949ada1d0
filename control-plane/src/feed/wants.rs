//! Nodes that learn of services while they listen: a node says which it wants from now on, and its feed goes on with what
//! it lacks for them. Nothing of the feed is lost or said again, and whoever did not change its wishes hears nothing.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tollgate_config::feed::{Wants, WantsAnswer};

use super::Feed;
use super::services::next_listener;

/// Feeds that are open, by node.
#[derive(Default)]
pub(super) struct Talks(HashMap<String, Vec<Talk>>);

struct Talk {
    number: u64,
    instance: String,
    ends: Ends,
}

/// What the listener hears.
pub(super) struct Ends {
    pub(super) also: watch::Sender<Vec<String>>,
    /// Questions, as lines; `None`: it answers none.
    pub(super) questions: Option<mpsc::Sender<Bytes>>,
}

/// Somebody who listens and may be asked.
pub(super) struct Listening {
    pub(super) node: String,
    pub(super) instance: String,
    pub(super) questions: Option<mpsc::Sender<Bytes>>,
}

impl Talks {
    /// The number of the listener that begins.
    pub(super) fn begin(&mut self, node: &str, instance: &str, ends: Ends) -> u64 {
        let number = next_listener();
        self.0.entry(node.to_owned()).or_default().push(Talk {
            number,
            instance: instance.to_owned(),
            ends,
        });
        number
    }

    pub(super) fn end(&mut self, node: &str, number: u64) {
        if let Some(talks) = self.0.get_mut(node) {
            talks.retain(|talk| talk.number != number);
            if talks.is_empty() {
                self.0.remove(node);
            }
        }
    }

    /// Each process that listens, once: where it has several feeds, the latest of them.
    pub(super) fn listening(&self) -> Vec<Listening> {
        let mut all = Vec::new();
        for (node, talks) in &self.0 {
            let latest = |at: usize, one: &Talk| {
                let mut later = { talks.iter() }.skip(at + 1);
                later.all(|other| other.instance != one.instance)
            };
            for (_, talk) in talks
                .iter()
                .enumerate()
                .filter(|(at, one)| latest(*at, one))
            {
                all.push(Listening {
                    node: node.clone(),
                    instance: talk.instance.clone(),
                    questions: talk.ends.questions.clone(),
                });
            }
        }
        all
    }

    /// Whether anybody heard it.
    fn say(&self, node: &str, wants: &Wants) -> bool {
        let talks = self.0.get(node).into_iter().flatten();
        let mut heard = false;
        for talk in talks.filter(|talk| talk.instance == wants.instance) {
            talk.ends.also.send_if_modified(|also| {
                let other = *also != wants.also;
                if other {
                    also.clone_from(&wants.also);
                }
                other
            });
            heard = true;
        }
        heard
    }
}

impl Feed {
    /// What a node that listens wants from now on. `None`: this process of it does not listen here.
    pub fn wants(&self, node: &str, wants: &Wants) -> Option<WantsAnswer> {
        if !self.talks().say(node, wants) {
            return None;
        }
        self.nodes().wants(node, wants.also.clone());
        // Said after the feed was: who registers in between comes over the feed, and that is believed.
        let is_unknown = |name: &&String| {
            let known = |name| self.keeper.read(|registry, _, _| registry.service(name));
            known(name).is_none()
        };
        let unknown = wants.also.iter().filter(is_unknown).cloned().collect();
        Some(WantsAnswer { unknown })
    }
}
