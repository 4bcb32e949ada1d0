//! The catalog of a process that does not write it: whoever leads does, and what became durable is taken over from the
//! store, in the same order and with the same numbers, so that every control plane tells the same differences.

use std::sync::{Arc, PoisonError};

use tollgate_config::feed::Put;
use tollgate_engine::telemetry::log;

use super::history::Revision;
use super::kept::Kept;
use super::{BLOCKS, Catalog, HEAD, Head, Inner, REVISIONS, World};
use crate::store::{Event, StoreError};

/// Everything of ours in the store.
const ALL: &str = "catalog/";

impl Catalog {
    /// Whether changes are made here.
    pub fn writes(&self) -> bool {
        self.store.cluster().is_none_or(|cluster| cluster.leads())
    }

    /// Follows the store. Ends with it.
    pub async fn follow(self: Arc<Self>) {
        let mut from = self.inner.lock().await.head.unwrap_or(0);
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
        let known = inner.head.unwrap_or(0);
        // They are in the order of revisions.
        let known = events.partition_point(|event| event.revision <= known);
        let mut rest = &events[known..];
        while let Some(first) = rest.first() {
            let at = first.revision;
            let (group, later) = rest.split_at(rest.partition_point(|event| event.revision <= at));
            rest = later;
            let mut head = None;
            let mut revision = None;
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
                }
            }
            if let Some(head) = head {
                inner.head = Some(at);
                inner.files = head.files;
            }
            if let Some(revision) = revision {
                inner = self.load(inner, revision).await;
            }
        }
    }

    async fn load<'i>(
        &self,
        mut inner: tokio::sync::MutexGuard<'i, Inner>,
        revision: Arc<Revision>,
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
                self.show(revision, Arc::new(world), None);
            }
            Err(problems) => {
                // Nodes that come with this revision hear that we are behind, and go to another.
                log::error(
                    "a revision that another control plane accepted is refused by this version; it is not told from here",
                    &[("revision", &revision.number), ("problems", &problems)],
                );
                self.set_store_refused(Some((revision.number, problems)));
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
        if kept.at == inner.head {
            return;
        }
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
}
