//! Services that requests have asked for, besides those that documents name: the control plane is told which, and its feed
//! goes on with their instances. One question is under way at a time; whatever is asked for meanwhile is in the next.
//!
//! A service that is wanted no longer is forgotten when the control plane knows that: until then it goes on to be told.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tollgate_config::EndpointSource;
use tollgate_config::feed::{NodeKind, Wants};

use super::link::Desk;
use super::{Asks, Feed};
use crate::telemetry::log;
use crate::upstream::learning::Refusal;

/// After a question that was not answered; doubled each time.
const AGAIN: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Wishes {
    wanted: RefCell<BTreeSet<Arc<str>>>,
    /// Not wanted any longer, but the control plane may not know.
    dropped: RefCell<BTreeSet<Arc<str>>>,
    changed: Notify,
}

/// A task that tells a control plane what is wanted; ends when this is dropped.
pub(super) struct Wisher(AbortHandle);

impl Drop for Wisher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Feed {
    /// From now on these services are wanted, besides those that documents name. Whether they are others than before.
    pub fn want(&self, services: BTreeSet<Arc<str>>) -> bool {
        let former = self.wishes.wanted.replace(services);
        let wanted = self.wishes.wanted.borrow();
        if *wanted == former {
            return false;
        }
        let mut dropped = self.wishes.dropped.borrow_mut();
        dropped.extend(former.difference(&wanted).cloned());
        dropped.retain(|name| !wanted.contains(name));
        if self.is_sidecar() {
            self.known.borrow_mut().asks_anew();
        }
        self.wishes.changed.notify_one();
        true
    }

    /// A request asks again for one that is wanted, and of which nothing was told.
    pub fn hurry(&self) {
        self.wishes.changed.notify_one();
    }

    /// Whether what is wanted decides which blocks are told, too.
    fn is_sidecar(&self) -> bool {
        let following = self.following.borrow();
        let kind = following.as_ref().map(|one| one.asks.settings.kind);
        kind == Some(NodeKind::Sidecar)
    }

    /// Every service that is named in a subscription.
    pub(super) fn also(&self, asks: &Asks) -> Vec<String> {
        let wanted = self.wishes.wanted.borrow();
        let named = asks.also.iter().cloned();
        let all: BTreeSet<String> = named
            .chain(wanted.iter().map(ToString::to_string))
            .collect();
        all.into_iter().collect()
    }

    /// Tells whoever is at the other end of this connection, which was subscribed to with `told`.
    pub(super) fn wisher(self: &Rc<Self>, desk: Desk, asks: &Asks, told: Vec<String>) -> Wisher {
        self.drop_unwanted(&told);
        let task = wish(self.clone(), desk, asks.clone(), told);
        Wisher(tokio::task::spawn_local(task).abort_handle())
    }

    /// The control plane tells of these, and of what its routes need, and of nothing else.
    fn drop_unwanted(&self, told: &[String]) {
        let mut dropped = self.wishes.dropped.borrow_mut();
        if dropped.is_empty() {
            return;
        }
        let snapshot = self.telling.store().current();
        let is_named = |name: &str| {
            let mut upstreams = snapshot.upstreams.iter();
            upstreams.any(|plan| {
                matches!(&plan.item.endpoints, EndpointSource::Service { name: of, .. } if of == name)
            })
        };
        dropped.retain(|name| {
            let still_told = told.iter().any(|told| **told == **name);
            if !still_told && !is_named(name) {
                self.known.borrow_mut().forget(name);
                self.services.forget(name);
            }
            still_told
        });
        self.save();
    }
}

async fn wish(feed: Rc<Feed>, desk: Desk, asks: Asks, mut told: Vec<String>) {
    let mut pause = AGAIN;
    loop {
        let also = feed.also(&asks);
        if also != told || feed.learning.is_awaited() {
            let wants = Wants {
                instance: feed.instance.clone(),
                also: also.clone(),
            };
            match desk.clone().wants(&asks.node, &wants).await {
                Ok(answer) => {
                    pause = AGAIN;
                    told = also;
                    feed.drop_unwanted(&told);
                    let now = Instant::now();
                    for (service, _) in feed.learning.waiting() {
                        if answer.unknown.iter().any(|unknown| **unknown == *service) {
                            feed.learning.tell(&service, Err(Refusal::Unknown), now);
                        }
                    }
                }
                Err(why) => {
                    static UNTOLD: log::Repeated = log::Repeated::new();
                    UNTOLD.warn(
                        "the control plane was not told which services are wanted; it is told again",
                        &[("error", &why)],
                    );
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST);
                    continue;
                }
            }
        }
        feed.wishes.changed.notified().await;
    }
}
