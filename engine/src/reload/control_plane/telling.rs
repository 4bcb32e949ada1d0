//! What a node tells besides what became of a batch: which instances fail (`observing`), and what it served since it told
//! last. One task of the control thread per connection; it reads counters that workers write anyway, and a report that
//! does not arrive is not sent again, so that nothing is counted twice.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until};
use tollgate_config::EndpointSource;
use tollgate_config::feed::{Edge, Figures, MOST_FIGURES, Report, Tally};

use super::Feed;
use super::link::Desk;
use super::observing::{LOOK, Observing, Sight};
use crate::snapshot::store::Store;
use crate::telemetry::log;
use crate::telemetry::metrics::{Metrics, Taken};

/// A control plane that wants figures more often does not get them more often.
const SHORTEST: Duration = Duration::from_millis(50);
/// Reports of former revisions that wait to be sent.
const WAITING: usize = 8;

/// What was said before, and what waits to be said. Outlives connections.
pub(super) struct Telling {
    store: Arc<Store>,
    observing: RefCell<Observing>,
    /// Since when is counted what is told next.
    since: Cell<Instant>,
    waiting: RefCell<VecDeque<Figures>>,
    due: Notify,
}

impl Telling {
    pub(super) fn new(store: Arc<Store>) -> Telling {
        Telling {
            store,
            observing: RefCell::default(),
            since: Cell::new(Instant::now()),
            waiting: RefCell::default(),
            due: Notify::new(),
        }
    }

    /// What serves.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// What was counted before is nobody's business.
    pub(super) fn begin(&self, metrics: &Metrics) {
        drop(metrics.take_figures());
        drop(metrics.take_edges());
        self.since.set(Instant::now());
        self.waiting.borrow_mut().clear();
    }

    fn sights(&self) -> Vec<Sight> {
        let snapshot = self.store.current();
        let now = Instant::now();
        let mut sights = Vec::new();
        for plan in &snapshot.upstreams {
            let EndpointSource::Service { name, .. } = &plan.item.endpoints else {
                continue;
            };
            for endpoint in plan.upstream.endpoints().iter() {
                // Nothing ever spoke against it: of thousands, most.
                if endpoint.failures() == 0 && endpoint.is_healthy(now) {
                    continue;
                }
                sights.push(Sight {
                    service: name.clone(),
                    address: endpoint.name().to_owned(),
                    finished: { endpoint.picks() }.saturating_sub(endpoint.in_flight().into()),
                    failed: endpoint.failures(),
                    fit: endpoint.is_healthy(now),
                });
            }
        }
        sights
    }
}

/// A task that tells; ends when this is dropped.
pub(super) struct Teller(AbortHandle);

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Feed {
    /// Tells whoever is at the other end of this connection.
    pub(super) fn teller(self: &Rc<Self>, desk: Desk, node: &str) -> Teller {
        self.telling.observing.borrow_mut().anew();
        let task = tell(self.clone(), desk, node.to_owned());
        Teller(tokio::task::spawn_local(task).abort_handle())
    }

    /// Another revision serves from now on: what was counted so far belongs to the one before it.
    pub(super) fn cut(&self, before: u64) {
        if self.following.borrow().is_none() {
            return;
        }
        if let Some(figures) = self.figures(before) {
            let mut waiting = self.telling.waiting.borrow_mut();
            if waiting.len() >= WAITING {
                waiting.pop_front();
            }
            waiting.push_back(figures);
        }
        self.telling.due.notify_one();
    }

    /// What was counted since the last time; `None` when that is nothing.
    fn figures(&self, revision: u64) -> Option<Figures> {
        let now = Instant::now();
        let taken = self.metrics.take_figures();
        let edges = self.metrics.take_edges();
        let span = now.saturating_duration_since(self.telling.since.replace(now));
        if taken == Taken::default() && edges.is_empty() {
            return None;
        }
        Some(Figures {
            instance: self.instance.clone(),
            revision,
            span: Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            total: taken.total,
            routes: busiest(taken.routes),
            upstreams: busiest(taken.upstreams),
            refused: taken.refused,
            edges: most_used(edges),
        })
    }
}

fn busiest(mut all: BTreeMap<String, Tally>) -> BTreeMap<String, Tally> {
    if all.len() > MOST_FIGURES {
        let mut counts: Vec<u64> = all.values().map(|tally| tally.requests).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let least = counts.get(MOST_FIGURES - 1).copied().unwrap_or_default();
        let mut equal = MOST_FIGURES - counts.iter().filter(|count| **count > least).count();
        all.retain(|_, tally| match tally.requests.cmp(&least) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => {
                let fits = equal > 0;
                equal -= usize::from(fits);
                fits
            }
        });
    }
    all
}

fn most_used(mut all: Vec<Edge>) -> Vec<Edge> {
    if all.len() > MOST_FIGURES {
        all.sort_by_key(|edge| std::cmp::Reverse(edge.tally.requests));
        all.truncate(MOST_FIGURES);
    }
    all
}

async fn tell(feed: Rc<Feed>, desk: Desk, node: String) {
    let mut look_at = Instant::now() + LOOK;
    let mut told_at = Instant::now();
    loop {
        let pace = feed.known.borrow().figures();
        let figures_due = async {
            match pace {
                Some(pace) => sleep_until((told_at + pace.max(SHORTEST)).into()).await,
                // Asked again after the next look: the first line may not be here yet.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = feed.telling.due.notified() => {}
            () = sleep(look_at.saturating_duration_since(Instant::now())) => {
                look_at = Instant::now() + LOOK;
                let sights = feed.telling.sights();
                let observed = { feed.telling.observing.borrow_mut() }.look(sights, Instant::now());
                if !observed.is_empty() {
                    send(&desk, &node, Report::Observed { observed }).await;
                }
            }
            () = figures_due => {
                told_at = Instant::now();
                let revision = feed.served_revision();
                if let Some(figures) = feed.figures(revision) {
                    feed.telling.waiting.borrow_mut().push_back(figures);
                }
            }
        }
        if pace.is_none() {
            feed.telling.waiting.borrow_mut().clear();
            continue;
        }
        loop {
            let next = feed.telling.waiting.borrow_mut().pop_front();
            let Some(figures) = next else { break };
            send(&desk, &node, Report::Figures { figures }).await;
        }
    }
}

async fn send(desk: &Desk, node: &str, report: Report) {
    let Ok(report) = serde_json::to_vec(&report) else {
        return;
    };
    if let Err(error) = desk.clone().report(node, report).await {
        static UNTOLD: log::Repeated = log::Repeated::new();
        UNTOLD.warn(
            "the control plane did not take what this node saw",
            &[("error", &error)],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_the_busiest_are_told_and_never_more() {
        let tally = |requests| Tally {
            requests,
            ..Tally::default()
        };
        let all: BTreeMap<String, Tally> = { 0..5000 }
            .map(|number: u64| (format!("r{number}"), tally(number / 150)))
            .collect();
        let told = busiest(all);
        assert_eq!(told.len(), MOST_FIGURES);
        assert!(told.values().all(|tally| tally.requests >= 31));
        let few = BTreeMap::from([("a".to_owned(), tally(1))]);
        assert_eq!(busiest(few.clone()), few);
    }
}
