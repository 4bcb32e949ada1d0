//! Which of two revisions a node shall have while one is rolled out. Kept in the store together with the revision that
//! it is about: no process ever sees the one without the other.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use tokio::sync::watch;
use tollgate_config::Loader;
use tollgate_config::feed::Blocks;
use tollgate_engine::telemetry::log;

use super::history::{History, Origin, Revision, follow};
use super::{Catalog, Request, World};
use crate::rollout::{Plan, Record};
use crate::store::{Store, StoreError, Transaction, Write};

const CURRENT: &str = "rollout/current";
const ENDED: &str = "rollout/ended/";

/// What is rolled out, and what everybody else has.
#[derive(Debug)]
pub struct Staging {
    pub record: Record,
    pub base: Arc<World>,
}

impl Staging {
    pub(super) fn begin(revision: &Revision, base: Arc<World>, plan: Plan) -> Staging {
        let (number, by) = (revision.number, &revision.by);
        Staging {
            record: Record::begin(number, base.revision, plan, by, revision.time),
            base,
        }
    }
}

impl Catalog {
    /// What is rolled out now.
    pub fn staging(&self) -> Option<Arc<Staging>> {
        self.staging.borrow().clone()
    }

    /// Wakes whenever [`Catalog::staging`] is another one.
    pub fn stagings(&self) -> watch::Receiver<Option<Arc<Staging>>> {
        self.staging.subscribe()
    }

    /// What this node shall have. One that was told what is rolled out already is not taken `ahead` of it: numbers never
    /// go back for anybody.
    pub fn world_of(&self, node: &str, ahead: bool) -> Arc<World> {
        loop {
            let staging = self.staging();
            let now = self.now();
            let same = match (&staging, &self.staging()) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            };
            // A rollout that began or ended between two looks.
            if !same {
                continue;
            }
            return match staging {
                Some(staging)
                    if now.revision >= staging.record.revision
                        && !ahead
                        && !staging.record.has(node) =>
                {
                    staging.base.clone()
                }
                _ => now,
            };
        }
    }

    /// Rollouts that are over, by what was rolled out; as many as revisions are kept.
    pub fn ended(&self, revision: u64) -> Option<Arc<Record>> {
        let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
        ended.get(&revision).cloned()
    }

    /// The latest one that is over.
    pub fn last_ended(&self) -> Option<Arc<Record>> {
        let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
        ended.last_key_value().map(|(_, record)| record.clone())
    }

    /// Writes down how far a rollout is; then its nodes are told.
    pub async fn save(&self, record: Record) -> Result<(), StoreError> {
        let _others_wait = self.inner.lock().await;
        let Some(staging) = self.staging() else {
            return Ok(());
        };
        let text = serde_json::to_string(&record).unwrap_or_default();
        self.store.commit(Transaction::put(CURRENT, text)).await?;
        let base = staging.base.clone();
        self.staging
            .send_replace(Some(Arc::new(Staging { record, base })));
        Ok(())
    }

    /// All shall have it from now on.
    pub async fn finish(&self, record: Record) -> Result<(), StoreError> {
        let _others_wait = self.inner.lock().await;
        let mut transaction = Transaction::default();
        self.write_staging(None, Some(&record), &mut transaction);
        self.store.commit(transaction).await?;
        self.remember(record);
        Ok(())
    }

    /// How a change reaches the nodes, when not all at once.
    pub(super) fn staged(&self, request: &Request) -> Option<Plan> {
        let plan = match (&request.plan, request.origin) {
            (Some(plan), _) => plan.clone(),
            // Whoever returns is in a hurry.
            (None, Origin::Rollback) => return None,
            (None, Origin::Api | Origin::Files) => Plan {
                settings: self.rollout.clone(),
                first: Vec::new(),
            },
        };
        // Before the first documents there is nothing that anybody could stay with.
        let first = self.now().blocks.is_empty();
        (plan.is_staged() && request.ends.is_none() && !first).then_some(plan)
    }

    /// How changes are rolled out that do not say so themselves.
    pub fn rollout(&self) -> &tollgate_config::control_plane::Rollout {
        &self.rollout
    }

    pub(super) fn write_staging(
        &self,
        begins: Option<&Staging>,
        ends: Option<&Record>,
        transaction: &mut Transaction,
    ) {
        let put = |key: &str, record: &Record| Write::Put {
            key: key.into(),
            value: serde_json::to_string(record).unwrap_or_default().into(),
            lease: None,
        };
        if let Some(staging) = begins {
            transaction.then.push(put(CURRENT, &staging.record));
        }
        if let Some(record) = ends {
            transaction.then.push(Write::Delete(CURRENT.into()));
            transaction.then.push(put(&key(record.revision), record));
            let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
            let surplus = (ended.len() + 1).saturating_sub(self.settings.revisions);
            for revision in ended.keys().take(surplus) {
                transaction.then.push(Write::Delete(key(*revision).into()));
            }
        }
    }

    /// A rollout is over, and that is durable.
    pub(super) fn remember(&self, record: Record) {
        {
            let mut ended = self.ended.write().unwrap_or_else(PoisonError::into_inner);
            ended.insert(record.revision, Arc::new(record));
            while ended.len() > self.settings.revisions {
                ended.pop_first();
            }
        }
        self.staging.send_replace(None);
    }
}

fn key(revision: u64) -> String {
    format!("{ENDED}{revision:020}")
}

pub(super) fn returned(mut record: Record, revision: u64) -> Record {
    if let Some(ended) = &mut record.ended {
        ended.returned_as = Some(revision);
    }
    record
}

/// What another process was rolling out.
pub(super) async fn read(
    store: &dyn Store,
    loader: &mut Loader,
    blocks: &Blocks,
    history: &History,
) -> Result<Option<Arc<Staging>>, StoreError> {
    let Some(kept) = store.one(CURRENT).await? else {
        return Ok(None);
    };
    let lost = |why: String| {
        StoreError::NotWritten(format!(
            "the rollout in it cannot be continued by this version: {why}"
        ))
    };
    let record: Record =
        serde_json::from_str(&kept.value).map_err(|error| lost(error.to_string()))?;
    let changes = history
        .difference(record.revision, record.base)
        .ok_or_else(|| lost(format!("revision {} is not kept", record.base)))?;
    let mut former = blocks.clone();
    follow(&mut former, &changes);
    let list = former.list();
    let document = loader
        .blocks(&list)
        .map_err(|problems| lost(problems.to_string()))?;
    // The next change is compared with what the loader read last.
    let _newest = loader.blocks(&blocks.list());
    log::info(
        "a rollout goes on",
        &[("revision", &record.revision), ("stage", &record.words())],
    );
    let base = Arc::new(World {
        revision: record.base,
        blocks: list,
        document,
    });
    Ok(Some(Arc::new(Staging { record, base })))
}

pub(super) async fn ended(store: &dyn Store) -> Result<BTreeMap<u64, Arc<Record>>, StoreError> {
    let kept = store.range(ENDED).await?.kept;
    let records = kept.iter().filter_map(|kept| {
        let record: Record = serde_json::from_str(&kept.value).ok()?;
        Some((record.revision, Arc::new(record)))
    });
    Ok(records.collect())
}
