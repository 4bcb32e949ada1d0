//! The catalog as the store has it, and what can be served of it: the newest revision, or, where this version of the
//! program refuses what another one accepted, the newest before it that is not refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use tollgate_config::feed::{Blocks, Put};
use tollgate_config::{Loader, Problems};
use tollgate_engine::telemetry::log;

use super::history::{History, Revision, follow};
use super::{BLOCKS, HEAD, Head, REVISIONS, World};
use crate::store::{Store, StoreError};

pub(super) struct Kept {
    pub(super) head: Head,
    /// The store's revision of `HEAD`; `None` = it is not there.
    pub(super) at: Option<u64>,
    pub(super) blocks: Blocks,
    pub(super) history: History,
}

impl Kept {
    pub(super) async fn read(store: &dyn Store, revisions: usize) -> Result<Kept, StoreError> {
        let head = store.one(HEAD).await?;
        let at = head.as_ref().map(|kept| kept.revision);
        let head = head.and_then(|kept| serde_json::from_str(&kept.value).ok());
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
                Ok(revision) => history.push(Arc::new(revision), revisions),
                Err(error) => log::warn(
                    "a revision in the store cannot be read; it is left out",
                    &[("key", &kept.key), ("reason", &error)],
                ),
            }
        }
        Ok(Kept {
            head: head.unwrap_or(Head {
                revision: 0,
                files: BTreeMap::new(),
            }),
            at,
            blocks,
            history,
        })
    }

    /// What can be served under the newest revision's number, and why it is not the newest revision.
    pub(super) fn world(&self, loader: &mut Loader) -> (Arc<World>, Option<Problems>) {
        let newest = self.head.revision;
        let world = |blocks: &Blocks, document| {
            Arc::new(World {
                revision: newest,
                blocks: blocks.list(),
                document,
            })
        };
        let problems = match loader.blocks(&self.blocks.list()) {
            Ok(document) => return (world(&self.blocks, document), None),
            Err(problems) => problems,
        };
        for older in (self.history.oldest()..newest).rev() {
            let Some(changes) = self.history.difference(newest, older) else {
                break;
            };
            let mut blocks = self.blocks.clone();
            follow(&mut blocks, &changes);
            if let Ok(document) = loader.blocks(&blocks.list()) {
                return (world(&blocks, document), Some(problems));
            }
        }
        let nothing = Blocks::default();
        match loader.blocks(&nothing.list()) {
            Ok(document) => (world(&nothing, document), Some(problems)),
            Err(_) => unreachable!("no blocks have no mistakes"),
        }
    }
}
