//! Nodes that learn of services while they listen: a node says which it wants from now on, and its feed goes on with what
//! it lacks for them. Nothing of the feed is lost or said again, and whoever did not change its wishes hears nothing.

use std::collections::HashMap;

use tokio::sync::watch;
use tollgate_config::feed::{Wants, WantsAnswer};

use super::Feed;
use super::services::next_listener;

/// Feeds that are open, by node.
#[derive(Default)]
pub(super) struct Talks(HashMap<String, Vec<Talk>>);

struct Talk {
    number: u64,
    instance: String,
    /// Read by the listener.
    also: watch::Sender<Vec<String>>,
}

impl Talks {
    /// The number of the listener that begins.
    pub(super) fn begin(
        &mut self,
        node: &str,
        instance: &str,
        also: watch::Sender<Vec<String>>,
    ) -> u64 {
        let number = next_listener();
        self.0.entry(node.to_owned()).or_default().push(Talk {
            number,
            instance: instance.to_owned(),
            also,
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

    /// Whether anybody heard it.
    fn say(&self, node: &str, wants: &Wants) -> bool {
        let talks = self.0.get(node).into_iter().flatten();
        let mut heard = false;
        for talk in talks.filter(|talk| talk.instance == wants.instance) {
            talk.also.send_if_modified(|also| {
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
