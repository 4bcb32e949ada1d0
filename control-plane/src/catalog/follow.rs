//! The catalog of a process that does not write it: whoever leads does, and what became durable is taken over from the
//! store, in the same order and with the same numbers, so that every control plane tells the same differences.

use std::sync::{Arc, PoisonError};

use tollgate_config::feed::Put;
use tollgate_engine::telemetry::log;

use super::history::Revision;
use super::kept::Kept;
use super::staging::{self, Staging};
use super::{BLOCKS, Catalog, HEAD, Head, Inner, REVISIONS, World};
use crate::rollout::Record;
use crate::store::{Event, StoreError};

/// What one transaction says of rollouts.
#[derive(Default)]
struct Staged {
    /// It is, or there is none any more.
    current: Option<Option<Record>>,
    ended: Option<Record>,
}

impl Staged {
    fn read(&mut self, event: &Event) {
        let record = { event.value.as_deref() }.and_then(|text| serde_json::from_str(text).ok());
        if &*event.key == staging::CURRENT {
            self.current = Some(record);
        } else if event.key.starts_with(staging::ENDED) && record.is_some() {
            self.ended = record;
        }
    }

    fn now(&self) -> Option<Record> {
        self.current.clone().flatten()
    }
}

/// Everything of ours in the store.
const ALL: &str = "catalog/";

impl Catalog {
    /// Whether changes are made here.
    pub fn writes(&self) -> bool {
        self.store.cluster().is_none_or(|cluster| cluster.leads())
    }

    /// Whether others may change what this process serves.
    pub fn is_shared(&self) -> bool {
        self.store.cluster().is_some()
    }

    /// Follows the store. Ends with it.
    pub async fn follow(self: Arc<Self>) {
        let mut from = self.inner.lock().await.known;
        loop {
            let mut watch = self.store.watch(ALL, from);
            let why = loop {
                match watch.next().await {
                    Ok(events) => self.take(&events).await,
                    Err(why) => break why,
                }
            };
            match (why, self.store.range(ALL).await) {
                (StoreError::Closed, _) | (_, Err(_)) => return,
                (_, Ok(range)) => {
                    self.begin_anew().await;
                    from = range.revision;
                }
            }
        }
    }

    /// Takes over what others have changed. What was changed here is known already.
    async fn take(&self, events: &[Event]) {
        let mut inner = self.inner.lock().await;
        let known = inner.known;
        // They are in the order of revisions.
        let known = events.partition_point(|event| event.revision <= known);
        let mut rest = &events[known..];
        while let Some(first) = rest.first() {
            let at = first.revision;
            let (group, later) = rest.split_at(rest.partition_point(|event| event.revision <= at));
            rest = later;
            let mut head = None;
            let mut revision = None;
            let mut staged = Staged::default();
            for event in group {
                if &*event.key == HEAD {
                    head = event
                        .value
                        .as_deref()
                        .and_then(|text| serde_json::from_str::<Head>(text).ok());
                } else if let Some(id) = event.key.strip_prefix(BLOCKS) {
                    match event.value.as_deref().map(serde_json::from_str::<Put>) {
                        Some(Ok(put)) => inner.blocks.put(put),
                        _ => drop(inner.blocks.remove(id)),
                    }
                } else if event.key.starts_with(REVISIONS)
                    && let Some(Ok(one)) = event.value.as_deref().map(Revision::read)
                {
                    revision = Some(Arc::new(one));
                } else {
                    staged.read(event);
                }
            }
            inner.known = at;
            if let Some(current) = &staged.current {
                inner.current = current.as_ref().map(|_| at);
            }
            let begins = staged
                .now()
                .map(|record| self.with_base(record, revision.is_some()));
            if let Some(head) = head {
                inner.head = Some(at);
                inner.files = head.files;
            }
            if let Some(revision) = revision {
                inner = self.load(inner, revision, begins).await;
            } else if let Some(staging) = begins {
                self.staging.send_replace(Some(Arc::new(staging)));
            }
            match staged {
                Staged {
                    ended: Some(record),
                    ..
                } => self.remember(record),
                Staged {
                    current: Some(None),
                    ..
                } => drop(self.staging.send_replace(None)),
                _ => {}
            }
        }
    }

    async fn load<'i>(
        &self,
        mut inner: tokio::sync::MutexGuard<'i, Inner>,
        revision: Arc<Revision>,
        begins: Option<Staging>,
    ) -> tokio::sync::MutexGuard<'i, Inner> {
        let blocks = inner.blocks.list();
        // The loader reads what changed; a first, large load was made at the start.
        let loaded = inner.loader.blocks(&blocks);
        match loaded {
            Ok(document) => {
                let number = revision.number;
                let world = World {
                    revision: number,
                    blocks,
                    document,
                };
                self.show(revision, Arc::new(world), begins);
            }
            Err(problems) => {
                // Nodes that come with this revision hear that we are behind, and go to another.
                log::error(
                    "a revision that another control plane accepted is refused by this version; it is not told from here",
                    &[("revision", &revision.number), ("problems", &problems)],
                );
                self.set_store_refused(Some((revision.number, problems)));
                if let Some(staging) = begins {
                    self.staging.send_replace(Some(Arc::new(staging)));
                }
                let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
                Arc::make_mut(&mut history).push(revision, self.settings.revisions);
            }
        }
        inner
    }

    /// Too much was missed: everything is read.
    async fn begin_anew(&self) {
        let mut inner = self.inner.lock().await;
        let kept = match Kept::read(&*self.store, self.settings.revisions).await {
            Ok(kept) => kept,
            Err(error) => {
                log::error("the catalog cannot be read", &[("reason", &error)]);
                return;
            }
        };
        let read =
            staging::read(&*self.store, &mut inner.loader, &kept.blocks, &kept.history).await;
        let (current, staging) = match read {
            Ok(read) => read,
            Err(error) => {
                log::error("what is rolled out cannot be read", &[("reason", &error)]);
                return;
            }
        };
        if let Ok(ended) = staging::ended(&*self.store).await {
            *self.ended.write().unwrap_or_else(PoisonError::into_inner) = ended;
        }
        inner.current = current;
        inner.known = inner.known.max(kept.at.max(current).unwrap_or(0));
        // Whoever sees a world sees who shall have it: before one that is rolled out, after one that ends that.
        let over = staging.is_none();
        if !over {
            self.staging.send_replace(staging);
        }
        if kept.at != inner.head {
            self.show_anew(&mut inner, kept);
        }
        if over {
            self.staging.send_replace(None);
        }
    }

    fn show_anew(&self, inner: &mut Inner, kept: Kept) {
        let (world, refused) = kept.world(&mut inner.loader);
        let newest = kept.head.revision;
        inner.blocks = kept.blocks;
        inner.files = kept.head.files;
        inner.head = kept.at;
        *self.history.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(kept.history);
        match refused {
            Some(problems) => self.set_store_refused(Some((newest, problems))),
            None => {
                self.set_store_refused(None);
                let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
                former.push_back(world.clone());
                drop(former);
                self.world.send_replace(world);
            }
        }
    }

    /// What others have who shall not have it yet.
    fn with_base(&self, record: Record, begins: bool) -> Staging {
        let known = self.staging();
        let known = known.filter(|known| known.record.revision == record.revision);
        let base = match known {
            Some(known) => known.base.clone(),
            None if begins => self.now(),
            None => { self.former(record.base) }.unwrap_or_else(|| self.now()),
        };
        Staging { record, base }
    }
}
