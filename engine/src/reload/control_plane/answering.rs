//! What a control plane asks this node, beside its feed: spans that it remembers, and how its breakers stand. Answered on
//! the control thread, from what is there anyway, and never in a request's way. A few answers are under way at a time;
//! what is asked beyond them is not answered, and whoever asked has waited for a bounded time.

use std::rc::Rc;
use std::time::Instant;

use tokio::task::JoinSet;
use tollgate_config::EndpointSource;
use tollgate_config::feed::{Answer, Ask, Breaker, MOST_BREAKERS, Told, What};

use super::Feed;
use super::link::Desk;
use crate::snapshot::{Snapshot, UpstreamPlan};
use crate::telemetry::log;

/// Answers that are under way.
const AT_ONCE: usize = 4;

/// The answers that are on their way over one connection; they end when this is dropped.
#[derive(Default)]
pub(super) struct Answering(JoinSet<()>);

impl Answering {
    pub(super) fn begin(&mut self, feed: &Rc<Feed>, desk: Desk, node: &str, ask: Ask) {
        while self.0.try_join_next().is_some() {}
        if self.0.len() >= AT_ONCE {
            return;
        }
        let (feed, node) = (feed.clone(), node.to_owned());
        self.0.spawn_local(async move {
            let answer = Answer {
                instance: feed.instance.clone(),
                told: feed.told_of(&ask.what),
            };
            let Ok(body) = serde_json::to_vec(&answer) else {
                return;
            };
            drop((answer, feed));
            if let Err(error) = desk.answer(&node, &ask.id, body).await {
                static UNTOLD: log::Repeated = log::Repeated::new();
                UNTOLD.warn(
                    "the control plane did not take an answer to its question",
                    &[("error", &error)],
                );
            }
        });
    }
}

impl Feed {
    fn told_of(&self, what: &What) -> Told {
        match what {
            What::Trace(id) => Told::Spans(self.spans.of(id)),
            What::Traces(most) => Told::Spans(self.spans.recent(*most as usize)),
            What::Breakers => Told::Breakers(breakers(&self.store.current())),
        }
    }
}

/// Of every upstream whose breaker is not off, those of its parts. Opened and half-open ones come first, should there be too
/// many of them.
fn breakers(snapshot: &Snapshot) -> Vec<Breaker> {
    let now = Instant::now();
    let upstreams = { snapshot.upstreams.iter() }.filter(|plan| plan.item.breaker.is_some());
    let mut all: Vec<Breaker> = upstreams.flat_map(|plan| of(plan, now)).collect();
    if all.len() > MOST_BREAKERS {
        all.sort_by_key(|breaker| breaker.state == "closed");
        all.truncate(MOST_BREAKERS);
    }
    all
}

fn of(plan: &UpstreamPlan, now: Instant) -> Vec<Breaker> {
    let service = match &plan.item.endpoints {
        EndpointSource::Service { name, .. } => Some(name.clone()),
        _ => None,
    };
    let guards = plan.guards.all(plan.grain());
    let told = guards.iter().map(|guard| Breaker {
        upstream: plan.item.name.clone(),
        service: service.clone(),
        part: guard.part.to_string(),
        state: { guard.breaker.status(plan.item.breaker.as_ref(), now).state }.to_owned(),
    });
    told.collect()
}
