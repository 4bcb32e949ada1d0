//! The one pointer that moves. Only `reload` writes it; each worker keeps its own reference and looks, once per
//! request, whether it is still the newest.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;

use super::Snapshot;

pub struct Store {
    current: ArcSwap<Snapshot>,
    /// The generation of `current`; what workers compare.
    generation: AtomicU64,
    /// Generations that somebody may still run on, oldest first.
    alive: Mutex<Vec<Weak<Snapshot>>>,
}

impl Store {
    pub fn new(first: Arc<Snapshot>) -> Self {
        Store {
            generation: AtomicU64::new(first.generation),
            alive: Mutex::new(vec![Arc::downgrade(&first)]),
            current: ArcSwap::new(first),
        }
    }

    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Every next request reads `next`; those in flight stay on what they began with.
    pub fn publish(&self, next: Arc<Snapshot>) {
        let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive.retain(|snapshot| snapshot.strong_count() > 0);
        alive.push(Arc::downgrade(&next));
        let generation = next.generation;
        self.current.store(next);
        self.generation.store(generation, Ordering::Release);
    }

    /// Generations alive with the number of exchanges on each.
    pub fn alive(&self) -> Vec<(u64, u64)> {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        alive
            .iter()
            .filter_map(Weak::upgrade)
            .map(|snapshot| (snapshot.generation, snapshot.active()))
            .collect()
    }
}

/// A worker's own reference to the newest snapshot.
pub struct View {
    store: Arc<Store>,
    #[allow(
        clippy::redundant_allocation,
        reason = "every request clones it: the outer count is the worker's own, so workers do not fight over one atomic"
    )]
    held: RefCell<Rc<Arc<Snapshot>>>,
}

impl View {
    pub fn new(store: Arc<Store>) -> Self {
        let held = RefCell::new(Rc::new(store.current()));
        View { store, held }
    }

    /// The newest snapshot; one atomic read unless it changed.
    pub fn current(&self) -> Rc<Arc<Snapshot>> {
        let mut held = self.held.borrow_mut();
        if held.generation != self.store.generation.load(Ordering::Acquire) {
            *held = Rc::new(self.store.current());
        }
        held.clone()
    }
}
