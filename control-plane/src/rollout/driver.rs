//! The one who calls a rollout: knows the time and the nodes, writes down what was decided before it is true, and tells
//! what came of it. Decides nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tollgate_engine::telemetry::log::{self, Repeated};

use super::{Ended, How, Order, Record, Rollout, Seen};
use crate::audit::Audit;
use crate::catalog::history::Origin;
use crate::catalog::{Catalog, Refused, Request, Staging, Wish, millis};
use crate::feed::{Feed, Node};
use crate::store::StoreError;
use crate::view::{Wishes, difference, view};

/// How often a rollout is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Different questions that are remembered.
const MOST_WISHES: usize = 1000;

/// All there is to do about rollouts: one at a time.
pub struct Rollouts {
    catalog: Arc<Catalog>,
    feed: Arc<Feed>,
    audit: Arc<Audit>,
    started: Instant,
    /// Held while something is decided and written.
    now: Mutex<Option<Rollout>>,
    /// To whom this revision says something new, by what they ask for.
    affected: std::sync::Mutex<(u64, HashMap<Wishes, bool>)>,
    /// What another process began.
    went_on: Option<u64>,
    pub counts: Counts,
}

/// How rollouts ended since the start.
#[derive(Debug, Default)]
pub struct Counts {
    pub done: AtomicU64,
    pub returned: AtomicU64,
    pub aborted: AtomicU64,
}

/// Why an operator's wish is not done.
#[derive(Debug, Clone)]
pub enum NotDone {
    /// Nothing is being rolled out.
    Nothing,
    Refused(Refused),
}

impl Rollouts {
    pub fn start(
        catalog: Arc<Catalog>,
        feed: Arc<Feed>,
        audit: Arc<Audit>,
    ) -> (Arc<Rollouts>, JoinHandle<()>) {
        // Before the first report: what was served with the revision must not be taken for what was before it.
        let revision = catalog.staging().map(|staging| staging.record.revision);
        feed.figures(|book| book.watch(revision));
        let rollouts = Arc::new(Rollouts {
            catalog,
            feed,
            audit,
            started: Instant::now(),
            now: Mutex::new(None),
            affected: Default::default(),
            went_on: revision,
            counts: Counts::default(),
        });
        let task = tokio::spawn(rollouts.clone().drive());
        (rollouts, task)
    }

    /// Until it is aborted.
    async fn drive(self: Arc<Self>) {
        static UNWRITTEN: Repeated = Repeated::new();
        let mut stagings = self.catalog.stagings();
        loop {
            let active = stagings.borrow_and_update().is_some();
            if active && let Err(error) = self.look().await {
                // What is not written is not true: the stage stays, and it is tried again.
                UNWRITTEN.warn(
                    "a rollout cannot go on, because the store takes no writes",
                    &[("reason", &error)],
                );
            }
            let pause = match active {
                true => LOOK,
                false => Duration::from_secs(3600),
            };
            tokio::select! {
                changed = stagings.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        let Some(staging) = self.catalog.staging() else {
            return Ok(());
        };
        let mut now = self.now.lock().await;
        let rollout = self.rollout(&mut now, &staging);
        let nodes = self.nodes(&staging);
        let step = |book: &mut _| rollout.step(&nodes, book, self.started.elapsed());
        match self.feed.figures(step) {
            Some(order) => self.done(order, How::Returned, &mut now).await,
            None => Ok(()),
        }
    }

    /// The one of this staging; a new one when it began, or was begun by another process.
    fn rollout<'a>(&self, now: &'a mut Option<Rollout>, staging: &Staging) -> &'a mut Rollout {
        let same = |known: &Rollout| known.record.revision == staging.record.revision;
        let known = now.take().filter(same);
        let new = || {
            let (record, time) = (staging.record.clone(), self.started.elapsed());
            match self.went_on == Some(record.revision) {
                true => Rollout::resumed(record, time),
                false => Rollout::new(record, time),
            }
        };
        now.insert(known.unwrap_or_else(new))
    }

    async fn done(
        &self,
        order: Order,
        how: How,
        now: &mut Option<Rollout>,
    ) -> Result<(), StoreError> {
        let Some(rollout) = now else { return Ok(()) };
        let mut record = rollout.record.clone();
        match order {
            Order::Save => {
                if let Err(error) = self.catalog.save(record.clone()).await {
                    // Begun again from what is written.
                    *now = None;
                    return Err(error);
                }
                self.tell(&record, "a rollout is at another stage");
            }
            Order::Finish => {
                record.ended = Some(ended(How::Done, String::new()));
                self.catalog.finish(record.clone()).await?;
                *now = None;
                self.feed.figures(|book| book.watch(None));
                self.tell(&record, "a rollout has reached all nodes");
            }
            Order::Return(why) => {
                record.ended = Some(ended(how, why.clone()));
                let revision = record.revision;
                let request = Request {
                    wish: Wish::Rollback(record.base),
                    origin: Origin::Rollback,
                    if_revision: None,
                    by: "rollout".to_owned(),
                    note: format!("revision {revision} was taken back: {why}"),
                    files: Default::default(),
                    plan: None,
                    ends: Some(record.clone()),
                };
                let applied = match self.catalog.apply(request).await {
                    Ok(applied) => applied,
                    Err(Refused::Store(error)) => return Err(error),
                    // What served until now is good, unless this program has changed; then it is said, and tried again.
                    Err(other) => return Err(StoreError::NotWritten(format!("{other:?}"))),
                };
                if let Some(ended) = &mut record.ended {
                    ended.returned_as = Some(applied.revision);
                }
                *now = None;
                self.feed.figures(|book| book.watch(None));
                self.tell(&record, "a rollout was taken back");
            }
        }
        Ok(())
    }

    fn tell(&self, record: &Record, what: &str) {
        let why = { record.ended.as_ref() }.map(|ended| ended.why.clone());
        let why = why.or_else(|| record.paused.clone()).unwrap_or_default();
        let nodes = record.chosen.len();
        let stage = record.words();
        let fields: [(&str, &dyn std::fmt::Display); 4] = [
            ("revision", &record.revision),
            ("stage", &stage),
            ("nodes", &nodes),
            ("reason", &why),
        ];
        let how = record.ended.as_ref().map(|ended| ended.how);
        let count = how.map(|how| match how {
            How::Done => &self.counts.done,
            How::Returned => &self.counts.returned,
            How::Aborted => &self.counts.aborted,
        });
        if let Some(count) = count {
            count.fetch_add(1, Relaxed);
        }
        match how {
            Some(How::Returned | How::Aborted) => log::warn(what, &fields),
            _ => log::info(what, &fields),
        }
        self.audit.note_change(&serde_json::json!({
            "what": "rollout",
            "revision": record.revision,
            "stage": stage,
            "nodes": record.chosen,
            "reason": why,
            "by": record.by,
        }));
    }

    /// Everybody who listens or listened lately, as far as it matters to this rollout.
    fn nodes(&self, staging: &Staging) -> Vec<Seen> {
        let new = self.catalog.now();
        let revision = staging.record.revision;
        let mut known = self.affected.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != revision || known.1.len() > MOST_WISHES {
            *known = (revision, HashMap::new());
        }
        let affected = &mut known.1;
        let all = self.feed.all_nodes().into_iter();
        all.map(|node| {
            let wishes = node.wishes();
            let affected = *affected.entry(wishes).or_insert_with_key(|wishes| {
                !difference(&view(&staging.base, wishes), &view(&new, wishes)).is_empty()
            });
            seen(node, affected, revision)
        })
        .collect()
    }

    /// How far what is rolled out is, for people: the record, what it waits for, what is suspected, requests.
    pub async fn status(&self) -> Option<(Record, String, Option<String>, u64)> {
        let staging = self.catalog.staging()?;
        let mut now = self.now.lock().await;
        let rollout = self.rollout(&mut now, &staging);
        Some((
            rollout.record.clone(),
            rollout.waits_for().to_owned(),
            rollout.suspicion().map(str::to_owned),
            rollout.requests(),
        ))
    }

    pub async fn pause(&self, by: &str) -> Result<Record, NotDone> {
        let why = format!("paused by {by}");
        self.ask(|rollout, _| rollout.pause(why)).await
    }

    pub async fn resume(&self) -> Result<Record, NotDone> {
        self.ask(Rollout::resume).await
    }

    /// To the next stage, or to the end of all of them.
    pub async fn promote(&self, to_all: bool) -> Result<Record, NotDone> {
        self.ask(|rollout, now| rollout.promote(to_all, now)).await
    }

    pub async fn abort(&self, by: &str) -> Result<Record, NotDone> {
        let why = format!("aborted by {by}");
        self.ask(|_, _| Order::Return(why)).await
    }

    /// Does what a person wants. What it comes to is returned.
    async fn ask(
        &self,
        wish: impl FnOnce(&mut Rollout, Duration) -> Order,
    ) -> Result<Record, NotDone> {
        let staging = self.catalog.staging().ok_or(NotDone::Nothing)?;
        let mut now = self.now.lock().await;
        let rollout = self.rollout(&mut now, &staging);
        let before = rollout.record.clone();
        let order = wish(rollout, self.started.elapsed());
        let revision = before.revision;
        let done = self.done(order, How::Aborted, &mut now).await;
        done.map_err(|error| NotDone::Refused(Refused::Store(error)))?;
        let record = match now.as_ref() {
            Some(rollout) => Some(rollout.record.clone()),
            None => { self.catalog.ended(revision) }.map(|record| Record::clone(&record)),
        };
        Ok(record.unwrap_or(before))
    }
}

fn ended(how: How, why: String) -> Ended {
    Ended {
        time: millis(),
        how,
        why,
        returned_as: None,
    }
}

fn seen(node: Node, affected: bool, revision: u64) -> Seen {
    let refused = node.refused.filter(|refused| refused.revision >= revision);
    let applied = node.runs.is_some_and(|runs| runs.revision >= revision);
    Seen {
        name: node.node,
        connected: node.connected,
        affected,
        applied,
        refused: refused.map(|refused| {
            let first = refused.problems.first();
            first.map_or_else(String::new, |problem| {
                let place = { problem.place.as_ref() }.map(|place| format!("{place}: "));
                format!("{}{}", place.unwrap_or_default(), problem.message)
            })
        }),
    }
}
