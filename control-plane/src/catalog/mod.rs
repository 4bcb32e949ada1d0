//! The documents of the fleet: checks a change as every node would, numbers it, makes it durable, and then it is true.
//!
//! A change is taken whole or not at all, one after another. Who asks for one waits until it is on disk; who listens
//! (`feed`) sees it afterwards. Nothing here knows who listens.

pub mod files;
mod follow;
pub mod history;
mod kept;
mod plan;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tollgate_config::control_plane::{Catalog as Settings, Rollout};
use tollgate_config::feed::{Block, Blocks};
use tollgate_config::{Document, Loader, Problems};
use tollgate_engine::telemetry::log;

use crate::rollout::{Plan, Record};
use crate::store::{Store, StoreError, Transaction, Write};
use history::{Change, History, Origin, Revision};
use kept::Kept;
pub use staging::Staging;

const HEAD: &str = "catalog/head";
const BLOCKS: &str = "catalog/blocks/";
const REVISIONS: &str = "catalog/revisions/";
/// Former worlds are kept while all of them together have no more blocks than this.
const FORMER: usize = 1_000_000;

/// One revision of everything: the blocks, and what they mean.
#[derive(Debug)]
pub struct World {
    pub revision: u64,
    pub blocks: Arc<[Arc<Block>]>,
    pub document: Document,
}

/// What somebody wants to be different.
#[derive(Debug, Clone)]
pub enum Wish {
    /// These documents read so; `None` = there is no such document.
    Documents(BTreeMap<String, Option<String>>),
    /// Everything as it was at that revision.
    Rollback(u64),
}

#[derive(Debug, Clone)]
pub struct Request {
    pub wish: Wish,
    pub origin: Origin,
    /// Only if this is the revision now.
    pub if_revision: Option<u64>,
    pub by: String,
    pub note: String,
    /// For documents of the folder: what each file says now, by a hash.
    pub files: BTreeMap<String, Option<String>>,
    /// How it reaches the nodes; `None` = as `[rollout]` says, and a rollback all of them at once.
    pub plan: Option<Plan>,
    /// It takes back what was rolled out, and ends that.
    pub ends: Option<Record>,
}

/// Why a change is not made.
#[derive(Debug, Clone)]
pub enum Refused {
    /// The documents have these problems.
    Problems(Problems),
    /// Another revision than the caller thinks: this one.
    Conflict(u64),
    /// That revision is not kept; the oldest that is.
    NotKept(u64),
    /// A document's name cannot be one, or it belongs to the folder.
    Name(String, &'static str),
    /// Another revision is being rolled out: this one, and how far it is.
    Rollout(u64, String),
    Store(StoreError),
}

/// What a change would do, or did.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The new one; the one there was, if nothing is different.
    pub revision: u64,
    pub changes: Vec<Change>,
    pub world: Arc<World>,
}

/// What the folder says, and why it is not what is served.
#[derive(Debug, Clone)]
pub struct NotTaken {
    /// Milliseconds since 1970.
    pub time: u64,
    pub problems: Problems,
}

pub struct Catalog {
    /// Whoever changes something holds it, over the write to the disk.
    inner: Arc<tokio::sync::Mutex<Inner>>,
    world: watch::Sender<Arc<World>>,
    former: Mutex<VecDeque<Arc<World>>>,
    history: RwLock<Arc<History>>,
    not_taken: Mutex<Option<Arc<NotTaken>>>,
    /// The store's newest revision, where this version refuses it.
    store_refused: Mutex<Option<(u64, Arc<NotTaken>)>>,
    /// What is rolled out: changed before the world that it is about, and after the one that ends it.
    staging: watch::Sender<Option<Arc<Staging>>>,
    ended: RwLock<BTreeMap<u64, Arc<Record>>>,
    store: Arc<dyn Store>,
    epoch: String,
    settings: Settings,
    rollout: Rollout,
}

struct Inner {
    loader: Loader,
    blocks: Blocks,
    files: BTreeMap<String, String>,
    /// The store's revision of `HEAD`; `None` = it is not there.
    head: Option<u64>,
    /// The same of what is rolled out.
    current: Option<u64>,
    /// What became durable up to this revision of the store is known here.
    known: u64,
}

#[derive(Serialize, Deserialize)]
struct Head {
    revision: u64,
    /// What each file of the folder said when it was taken.
    files: BTreeMap<String, String>,
}

impl Catalog {
    /// Reads what the store remembers.
    pub async fn start(
        store: Arc<dyn Store>,
        settings: Settings,
        rollout: Rollout,
    ) -> Result<Arc<Catalog>, StoreError> {
        let mut loader = Loader::fleet();
        let (kept, staging, ended) = loop {
            let kept = Kept::read(&*store, settings.revisions).await?;
            let staging = staging::read(&*store, &mut loader, &kept.blocks, &kept.history).await;
            let ended = staging::ended(&*store).await?;
            // What another control plane changed meanwhile is read with all that belongs to it.
            if store.one(HEAD).await?.map(|head| head.revision) == kept.at {
                break (kept, staging, ended);
            }
        };
        let (world, refused) = kept.world(&mut loader);
        let refused = refused.map(|problems| {
            log::error(
                "what the store holds is refused by this version of the control plane; nodes that have it keep it, \
                 others are told the newest revision that is accepted",
                &[("revision", &kept.head.revision), ("problems", &problems)],
            );
            (kept.head.revision, told(problems))
        });
        let (current, staging) = staging?;
        let mut former = VecDeque::from([world.clone()]);
        former.extend(staging.iter().map(|staging| staging.base.clone()));
        Ok(Arc::new(Catalog {
            inner: Arc::new(tokio::sync::Mutex::new(Inner {
                loader,
                blocks: kept.blocks,
                files: kept.head.files,
                head: kept.at,
                current,
                known: kept.at.max(current).unwrap_or(0),
            })),
            former: Mutex::new(former),
            world: watch::Sender::new(world),
            history: RwLock::new(Arc::new(kept.history)),
            not_taken: Mutex::new(None),
            store_refused: Mutex::new(refused),
            staging: watch::Sender::new(staging),
            ended: RwLock::new(ended),
            epoch: store.epoch(),
            store,
            settings,
            rollout,
        }))
    }

    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    pub fn now(&self) -> Arc<World> {
        self.world.borrow().clone()
    }

    /// The newest world, whenever there is another.
    pub fn changes(&self) -> watch::Receiver<Arc<World>> {
        self.world.subscribe()
    }

    /// A world that was, as long as it is remembered. A restart forgets all but the newest.
    pub fn former(&self, revision: u64) -> Option<Arc<World>> {
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        former.iter().find(|one| one.revision == revision).cloned()
    }

    pub fn history(&self) -> Arc<History> {
        let history = self.history.read();
        history.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A revision in the store that this version of the program refuses, and why.
    pub fn store_refused(&self) -> Option<(u64, Arc<NotTaken>)> {
        let refused = self.store_refused.lock();
        refused.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a world is called by the number of a revision that this version refuses, and is an older one.
    pub fn is_stale(&self, world: &World) -> bool {
        let refused = self.store_refused.lock();
        let refused = refused.unwrap_or_else(PoisonError::into_inner);
        refused
            .as_ref()
            .is_some_and(|(of, _)| *of == world.revision)
    }

    fn set_store_refused(&self, refused: Option<(u64, Problems)>) {
        *self
            .store_refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner) =
            refused.map(|(revision, problems)| (revision, told(problems)));
    }

    /// What a change would do. Nothing is changed.
    pub async fn plan(&self, request: Request) -> Result<Applied, Refused> {
        let (_inner, planned) = self.planned(request).await;
        let (_, applied) = planned?;
        Ok(applied)
    }

    /// Makes a change; returns when it is durable and told. The same change twice is one.
    pub async fn apply(&self, request: Request) -> Result<Applied, Refused> {
        let files = request.files.clone();
        let (by, note, origin) = (request.by.clone(), request.note.clone(), request.origin);
        let (staged, ends) = (self.staged(&request), request.ends.clone());
        let (mut inner, planned) = self.planned(request).await;
        let (blocks, applied) = planned?;
        let mut taken = inner.files.clone();
        for (name, hash) in files {
            match hash {
                Some(hash) => taken.insert(name, hash),
                None => taken.remove(&name),
            };
        }
        if applied.changes.is_empty() && taken == inner.files {
            return Ok(applied);
        }
        if ends.is_none()
            && let Some(staging) = self.staging()
        {
            let record = &staging.record;
            return Err(Refused::Rollout(record.revision, record.words()));
        }
        let mut transaction = Transaction::put(
            HEAD,
            serde_json::to_string(&Head {
                revision: applied.revision,
                files: taken.clone(),
            })
            .unwrap_or_default(),
        )
        .when(staging::at(HEAD, inner.head))
        .when(staging::at(staging::CURRENT, inner.current));
        let revision = (!applied.changes.is_empty()).then(|| {
            Arc::new(Revision {
                number: applied.revision,
                time: millis(),
                by,
                note,
                origin,
                changes: applied.changes.clone(),
            })
        });
        if let Some(revision) = &revision {
            self.write(revision, &mut transaction);
        }
        let base = self.now();
        let begins = { revision.as_ref().zip(staged) }
            .map(|(revision, plan)| Staging::begin(revision, base, plan));
        let ends = ends.map(|record| staging::returned(record, applied.revision));
        self.write_staging(begins.as_ref(), ends.as_ref(), &mut transaction);
        let committed = self
            .store
            .commit(transaction)
            .await
            .map_err(Refused::Store)?;
        if !committed.written {
            return Err(Refused::Conflict(self.now().revision));
        }
        inner.head = Some(committed.revision);
        inner.known = committed.revision;
        inner.current = match (&begins, &ends) {
            (Some(_), _) => inner.head,
            (None, Some(_)) => None,
            (None, None) => inner.current,
        };
        inner.files = taken;
        let Some(revision) = revision else {
            return Ok(applied);
        };
        inner.blocks = blocks;
        self.show(revision, applied.world.clone(), begins);
        if let Some(record) = ends {
            self.remember(record);
        }
        Ok(applied)
    }

    /// A revision is durable: now it is true.
    fn show(&self, revision: Arc<Revision>, world: Arc<World>, begins: Option<Staging>) {
        self.set_store_refused(None);
        {
            let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
            Arc::make_mut(&mut history).push(revision, self.settings.revisions);
        }
        {
            let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
            former.push_back(world.clone());
            let mut sum: usize = former.iter().map(|one| one.blocks.len()).sum();
            while former.len() > self.settings.revisions || (sum > FORMER && former.len() > 1) {
                sum -= former.pop_front().map_or(0, |gone| gone.blocks.len());
            }
        }
        // Whoever sees the world sees who shall have it.
        if let Some(staging) = begins {
            self.staging.send_replace(Some(Arc::new(staging)));
        }
        self.world.send_replace(world);
    }

    /// What a revision writes.
    fn write(&self, revision: &Revision, transaction: &mut Transaction) {
        for change in &revision.changes {
            let key = format!("{BLOCKS}{}", change.id).into();
            transaction.then.push(match &change.after {
                Some(block) => Write::Put {
                    key,
                    // Strings and numbers.
                    value: serde_json::to_string(&block.to_put())
                        .unwrap_or_default()
                        .into(),
                    lease: None,
                },
                None => Write::Delete(key),
            });
        }
        let key = |number: u64| -> Arc<str> { format!("{REVISIONS}{number:020}").into() };
        transaction.then.push(Write::Put {
            key: key(revision.number),
            value: revision.write().into(),
            lease: None,
        });
        let keep = self.settings.revisions as u64;
        for old in self.history().all().map(|one| one.number) {
            if old + keep <= revision.number {
                transaction.then.push(Write::Delete(key(old)));
            }
        }
    }

    /// Checks a change on a thread where that may take long.
    async fn planned(
        &self,
        request: Request,
    ) -> (
        tokio::sync::OwnedMutexGuard<Inner>,
        Result<(Blocks, Applied), Refused>,
    ) {
        let inner = self.inner.clone().lock_owned().await;
        let (now, history) = (self.now(), self.history());
        let stale = self.store_refused().is_some();
        let folder = self.settings.folder.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut inner = inner;
            let there = match stale {
                true => inner.blocks.list(),
                false => now.blocks.clone(),
            };
            let planned = plan::plan(
                &mut inner,
                &request,
                &now,
                &there,
                &history,
                folder.as_deref(),
            );
            (inner, planned)
        });
        match task.await {
            Ok(done) => done,
            // A fault of ours: nothing was changed, and the next one may go well.
            Err(error) => (
                self.inner.clone().lock_owned().await,
                Err(Refused::Store(StoreError::NotWritten(format!(
                    "the change could not be checked: {error}"
                )))),
            ),
        }
    }
}

fn told(problems: Problems) -> Arc<NotTaken> {
    Arc::new(NotTaken {
        time: millis(),
        problems,
    })
}

pub(crate) fn millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
