//! The documents of the fleet: checks a change as every node would, numbers it, makes it durable, and then it is true.
//!
//! A change is taken whole or not at all, one after another. Who asks for one waits until it is on disk; who listens
//! (`feed`) sees it afterwards. Nothing here knows who listens.

pub mod files;
pub mod history;
mod plan;
mod staging;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tollgate_config::control_plane::{Catalog as Settings, Rollout};
use tollgate_config::feed::{Block, Blocks, Put};
use tollgate_config::{Document, Loader, Problems};
use tollgate_engine::telemetry::log;

use crate::rollout::{Plan, Record};
use crate::store::{Compare, Store, StoreError, Transaction, Write};
use history::{Change, History, Origin, Revision};
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
        let head = store.one(HEAD).await?;
        let at = head.as_ref().map(|kept| kept.revision);
        let head: Head = head
            .and_then(|kept| serde_json::from_str(&kept.value).ok())
            .unwrap_or(Head {
                revision: 0,
                files: BTreeMap::new(),
            });
        let mut blocks = Blocks::default();
        for kept in store.range(BLOCKS).await?.kept {
            match serde_json::from_str::<Put>(&kept.value) {
                Ok(put) => blocks.put(put),
                Err(error) => log::error(
                    "a block in the store cannot be read; it is left out",
                    &[("key", &kept.key), ("reason", &error)],
                ),
            }
        }
        let mut history = History::default();
        for kept in store.range(REVISIONS).await?.kept {
            match Revision::read(&kept.value) {
                Ok(revision) => history.push(Arc::new(revision), settings.revisions),
                Err(error) => log::warn(
                    "a revision in the store cannot be read; it is left out",
                    &[("key", &kept.key), ("reason", &error)],
                ),
            }
        }
        let mut loader = Loader::fleet();
        let list = blocks.list();
        let document = match loader.blocks(&list) {
            Ok(document) => document,
            // Accepted by another version of this program. Nodes keep what they have.
            Err(problems) => {
                log::error(
                    "what the store holds is refused by this version; nodes are told nothing until it is put right",
                    &[("problems", &problems)],
                );
                return Err(StoreError::NotWritten(format!(
                    "the catalog in it is refused by this version: {problems}"
                )));
            }
        };
        let world = Arc::new(World {
            revision: head.revision,
            blocks: list,
            document,
        });
        let staging = staging::read(&*store, &mut loader, &blocks, &history).await?;
        let ended = staging::ended(&*store).await?;
        let mut former = VecDeque::from([world.clone()]);
        former.extend(staging.iter().map(|staging| staging.base.clone()));
        Ok(Arc::new(Catalog {
            inner: Arc::new(tokio::sync::Mutex::new(Inner {
                loader,
                blocks,
                files: head.files,
                head: at,
            })),
            former: Mutex::new(former),
            world: watch::Sender::new(world),
            history: RwLock::new(Arc::new(history)),
            not_taken: Mutex::new(None),
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
        .when(match inner.head {
            Some(revision) => Compare::At(HEAD.into(), revision),
            None => Compare::Absent(HEAD.into()),
        });
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
        inner.files = taken;
        let Some(revision) = revision else {
            return Ok(applied);
        };
        inner.blocks = blocks;
        {
            let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
            Arc::make_mut(&mut history).push(revision, self.settings.revisions);
        }
        {
            let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
            former.push_back(applied.world.clone());
            let mut sum: usize = former.iter().map(|one| one.blocks.len()).sum();
            while former.len() > self.settings.revisions || (sum > FORMER && former.len() > 1) {
                sum -= former.pop_front().map_or(0, |gone| gone.blocks.len());
            }
        }
        // Whoever sees the world sees who shall have it.
        if let Some(staging) = begins {
            self.staging.send_replace(Some(Arc::new(staging)));
        }
        self.world.send_replace(applied.world.clone());
        if let Some(record) = ends {
            self.remember(record);
        }
        Ok(applied)
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
        let folder = self.settings.folder.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut inner = inner;
            let planned = plan::plan(&mut inner, &request, &now, &history, folder.as_deref());
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

pub(crate) fn millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
