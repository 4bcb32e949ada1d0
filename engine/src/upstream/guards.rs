//! What stands between an upstream and too much of us, remembered under its name for as long as a snapshot or an
//! exchange has it: the breaker and the retry budget. Called by compile, never by a request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::breaker::Breaker;
use super::budget::Budget;

/// The guards of one upstream.
#[derive(Debug)]
pub struct Guards {
    pub breaker: Breaker,
    pub budget: Budget,
}

/// Every upstream's guards.
#[derive(Debug, Default)]
pub struct GuardMemory {
    /// The strong ends are held by snapshots.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    guards: HashMap<String, Weak<Guards>>,
    /// Dead entries are swept when the map has grown to this.
    sweep_at: usize,
}

impl GuardMemory {
    /// The guards we know, or new ones. `workers` does not change while a process lives.
    pub fn of(&self, upstream: &str, workers: usize) -> Arc<Guards> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guards) = known.guards.get(upstream).and_then(Weak::upgrade) {
            return guards;
        }
        if known.guards.len() >= known.sweep_at {
            known.guards.retain(|_, guards| guards.strong_count() > 0);
            known.sweep_at = (known.guards.len() * 2).max(64);
        }
        let guards = Arc::new(Guards {
            breaker: Breaker::new(workers),
            budget: Budget::new(workers),
        });
        known
            .guards
            .insert(upstream.to_owned(), Arc::downgrade(&guards));
        guards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_found_again_by_name_and_forgotten_when_nobody_has_them() {
        let memory = GuardMemory::default();
        let first = memory.of("orders", 2);
        assert!(Arc::ptr_eq(&first, &memory.of("orders", 2)));
        assert!(!Arc::ptr_eq(&first, &memory.of("users", 2)));
        drop(first);
        for number in 0..1000 {
            drop(memory.of(&format!("cart-{number}"), 2));
        }
        assert!(memory.known.lock().unwrap().guards.len() <= 64);
    }
}
