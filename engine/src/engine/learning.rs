//! The control thread's part in learning services: what requests asked for becomes a wish to the control plane, what it
//! tells becomes upstreams that serve, and whoever waits is told. And what nobody asks for is forgotten.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tollgate_config::EndpointSource;

use super::conductor::Conductor;
use crate::clock::unix_seconds;
use crate::reload::learned::{Learned, forget_after};
use crate::snapshot::{Snapshot, UpstreamPlan};
use crate::telemetry::log;
use crate::upkeep::Upkeep;
use crate::upstream::learning::Refusal;

/// A burst of first uses is written once; this long after the first of them.
const SETTLE: Duration = Duration::from_millis(200);
/// The shortest and the longest time between two looks at what is used.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(300));
/// How long a request waits for the addresses of instances that have names.
const ADDRESSES: Duration = Duration::from_secs(2);

impl Conductor {
    /// What requests wait for: whose instances are known is learned, the others are wished for. To be called before
    /// anything is compiled, and `learn` after it. Whether other services are wished for than before.
    pub(super) fn take_asked(&mut self) -> bool {
        let now = unix_seconds(SystemTime::now());
        let learning = &self.common.learning;
        let services = &self.reloader.memory.services;
        let mut learned = self.learned.borrow_mut();
        let mut wanted = BTreeSet::new();
        for (service, most) in learning.waiting() {
            if !learned.has(&service) && learned.count() >= most {
                learning.tell(&service, Err(Refusal::Full), Instant::now());
            } else if services.has(&service) {
                learned.add(&service, now);
            } else {
                wanted.insert(service);
            }
        }
        if learned.knows(services) {
            self.reloader.memory.learned = learned.names();
        }
        learning.knows(learned.count());
        wanted.extend(learned.wanted().cloned());
        drop(learned);
        self.unwritten.notify_one();
        self.feed.want(wanted)
    }

    /// Requests asked for something.
    pub(super) fn asked(&mut self, upkeep: &mut Upkeep) {
        if !self.take_asked() {
            self.feed.hurry();
        }
        self.learn(upkeep);
    }

    /// Serves what was learned, and tells whoever waits for it.
    pub(super) fn learn(&mut self, upkeep: &mut Upkeep) {
        let before = self.common.store.current().generation;
        if let Err(problems) = self.reloader.learn() {
            log::error(
                "a service that was asked for cannot be served",
                &[("problems", &problems)],
            );
        }
        let world = self.common.store.current();
        if world.generation != before {
            upkeep.follow(&world, &self.reloader.memory);
        }
        let learning = &self.common.learning;
        for (service, _) in learning.waiting() {
            if world.services.position(&service).is_none() {
                if self.learned.borrow().names().position(&service).is_some() {
                    let why = "what it told cannot be served; see the log".into();
                    learning.tell(&service, Err(Refusal::Away(why)), Instant::now());
                }
                continue;
            }
            let sought = sought(&world, &service, upkeep);
            if sought.is_empty() {
                learning.tell(&service, Ok(()), Instant::now());
                continue;
            }
            // Ends by itself, soon.
            let learning = learning.clone();
            tokio::task::spawn_local(async move {
                found(&sought).await;
                learning.tell(&service, Ok(()), Instant::now());
            });
        }
    }

    /// Forgets what nobody asked for.
    pub(super) fn forget(&mut self, upkeep: &mut Upkeep) {
        let forget = forget_after(&self.reloader.document);
        let now = unix_seconds(SystemTime::now());
        let world = self.common.store.current();
        let mut sent: HashMap<&str, u64> = HashMap::new();
        for plan in &world.upstreams {
            if let EndpointSource::Service { name, .. } = &plan.item.endpoints {
                let endpoints = plan.upstream.endpoints();
                let picks = endpoints.iter().map(|endpoint| endpoint.picks());
                *sent.entry(name).or_default() += picks.sum::<u64>();
            }
        }
        let gone = self.learned.borrow_mut().look(forget, &sent, now);
        if !gone.is_empty() {
            self.reloader.memory.learned = self.learned.borrow().names();
            log::info(
                "services that nobody asks for any longer are forgotten",
                &[("services", &gone.join(", "))],
            );
        }
        self.take_asked();
        self.learn(upkeep);
    }

    /// How long until the next look.
    pub(super) fn look_again(&self) -> Duration {
        let forget = forget_after(&self.reloader.document);
        forget.map_or(LOOKS.1, |forget| (forget / 8).clamp(LOOKS.0, LOOKS.1))
    }
}

/// Upstreams of a service whose instances have names, of which none was found yet.
fn sought(world: &Snapshot, service: &str, upkeep: &Upkeep) -> Vec<Arc<UpstreamPlan>> {
    let of_service = |plan: &&Arc<UpstreamPlan>| {
        let learned = plan.learned.as_ref();
        plan.item.name == service || learned.is_some_and(|learned| *learned.service == *service)
    };
    let all = world.upstreams.iter().filter(of_service);
    all.filter(|plan| upkeep.seeks(plan)).cloned().collect()
}

/// Waits until each has an endpoint, and not for long.
async fn found(sought: &[Arc<UpstreamPlan>]) {
    let all = async {
        for plan in sought {
            plan.upstream.found().await;
        }
    };
    let _late = tokio::time::timeout(ADDRESSES, all).await;
}

/// Writes what was learned soon after it changed, for as long as the process serves.
pub(super) async fn keep(learned: Rc<std::cell::RefCell<Learned>>, unwritten: Rc<Notify>) {
    loop {
        unwritten.notified().await;
        tokio::time::sleep(SETTLE).await;
        let Some(writing) = learned.borrow_mut().unwritten() else {
            continue;
        };
        // A slow disk must not hold up what comes next.
        let written = tokio::task::spawn_blocking(move || writing.write()).await;
        if !written.unwrap_or(false) {
            learned.borrow_mut().is_unwritten();
        }
    }
}
