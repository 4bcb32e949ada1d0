//! What readers of a store see: the state as far as it is durable, and whoever waits for more. Readers never wait for
//! the disk or the network; the one who writes shows what became durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::watch;

use super::state::{State, Written};
use super::{Event, Kept, Range, StoreError, Watch};

pub(super) struct Shown {
    state: RwLock<State>,
    /// The revision that readers see; watches wait for it.
    revision: watch::Sender<u64>,
}

impl Shown {
    pub(super) fn of(state: State) -> Arc<Shown> {
        Arc::new(Shown {
            revision: watch::Sender::new(state.revision),
            state: RwLock::new(state),
        })
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what has become durable.
    pub(super) fn apply<'w>(&self, written: impl IntoIterator<Item = &'w Written>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for written in written {
            state.apply(written);
        }
        self.revision.send_replace(state.revision);
    }

    /// Shows another state altogether; whoever watches is told to read again.
    pub(super) fn replace(&self, mut state: State) {
        state.begin();
        let revision = state.revision;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.revision.send_replace(revision);
    }

    pub(super) fn one(&self, key: &str) -> Option<Kept> {
        self.read().one(key)
    }

    pub(super) fn range(&self, prefix: &str) -> Range {
        let state = self.read();
        Range {
            kept: state.range(prefix),
            revision: state.revision,
        }
    }

    pub(super) fn watch(self: &Arc<Self>, prefix: &str, revision: u64) -> Box<dyn Watch> {
        Box::new(Watching {
            changed: self.revision.subscribe(),
            shown: self.clone(),
            prefix: prefix.to_owned(),
            revision,
        })
    }
}

struct Watching {
    shown: Arc<Shown>,
    changed: watch::Receiver<u64>,
    prefix: String,
    /// Told up to here.
    revision: u64,
}

impl Watch for Watching {
    fn next(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Event>, StoreError>> + Send + '_>> {
        Box::pin(async move {
            loop {
                let now = *self.changed.borrow_and_update();
                if now > self.revision {
                    let events = self.shown.read().since(&self.prefix, self.revision)?;
                    self.revision = events.last().map_or(now, |event| event.revision.max(now));
                    if !events.is_empty() {
                        return Ok(events);
                    }
                }
                if self.changed.changed().await.is_err() {
                    return Err(StoreError::Closed);
                }
            }
        })
    }
}
