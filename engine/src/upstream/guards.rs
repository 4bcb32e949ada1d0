//! What stands between an upstream and too much of us, remembered under its name for as long as a snapshot or an
//! exchange has it: its breakers, one for each part that the document's `grain` makes of it, and its retry budget. Called
//! by compile and by operators, never by a request.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use http::Method;
use tollgate_config::BreakerGrain;

use super::breaker::Breaker;
use super::budget::Budget;

/// The guards of one upstream.
#[derive(Debug)]
pub struct Guards {
    pub whole: Arc<Guard>,
    pub budget: Budget,
    /// Breakers of parts; their strong ends are held by routes.
    parts: Mutex<Known<Part, Guard>>,
    workers: usize,
}

/// A breaker, and which part of its upstream it is for.
#[derive(Debug)]
pub struct Guard {
    pub part: Part,
    pub breaker: Breaker,
}

/// A part of an upstream that has a breaker of its own. There are never more than the document has routes, or two.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    Whole,
    Reads,
    Writes,
    /// By the route's name.
    Route(String),
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Part::Whole => "all",
            Part::Reads => "reads",
            Part::Writes => "writes",
            Part::Route(name) => name,
        })
    }
}

/// The guards that one route's requests ask.
#[derive(Debug, Clone)]
pub struct RouteGuards {
    reads: Arc<Guard>,
    writes: Arc<Guard>,
}

impl RouteGuards {
    #[inline]
    pub fn of(&self, method: &Method) -> &Guard {
        // GET, HEAD, OPTIONS and TRACE (RFC 9110 section 9.2.1).
        if method.is_safe() {
            &self.reads
        } else {
            &self.writes
        }
    }
}

impl Guards {
    fn new(workers: usize) -> Self {
        Guards {
            whole: Arc::new(Guard::new(Part::Whole, workers)),
            budget: Budget::new(workers),
            parts: Mutex::default(),
            workers,
        }
    }

    /// The breakers of this route's requests: those we know, or new ones.
    pub fn of_route(&self, grain: BreakerGrain, route: &str) -> RouteGuards {
        let (reads, writes) = match grain {
            BreakerGrain::Upstream => (self.whole.clone(), self.whole.clone()),
            BreakerGrain::Operation => (self.part(Part::Reads), self.part(Part::Writes)),
            BreakerGrain::Route => {
                let guard = self.part(Part::Route(route.to_owned()));
                (guard.clone(), guard)
            }
        };
        RouteGuards { reads, writes }
    }

    /// All that are asked under this grain, in the order of their names.
    pub fn all(&self, grain: BreakerGrain) -> Vec<Arc<Guard>> {
        if grain == BreakerGrain::Upstream {
            return vec![self.whole.clone()];
        }
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let living = parts.entries.values().filter_map(Weak::upgrade);
        let mut them: Vec<_> = living
            .filter(|guard| match guard.part {
                Part::Whole => false,
                Part::Reads | Part::Writes => grain == BreakerGrain::Operation,
                Part::Route(_) => grain == BreakerGrain::Route,
            })
            .collect();
        them.sort_by(|one, other| one.part.cmp(&other.part));
        them
    }

    fn part(&self, part: Part) -> Arc<Guard> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let workers = self.workers;
        parts.of(part, |part| Guard::new(part.clone(), workers))
    }
}

impl Guard {
    fn new(part: Part, workers: usize) -> Self {
        Guard {
            part,
            breaker: Breaker::new(workers),
        }
    }
}

/// Every upstream's guards.
#[derive(Debug, Default)]
pub struct GuardMemory {
    /// The strong ends are held by snapshots.
    known: Mutex<Known<String, Guards>>,
}

impl GuardMemory {
    /// The guards we know, or new ones. `workers` does not change while a process lives.
    pub fn of(&self, upstream: &str, workers: usize) -> Arc<Guards> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.of(upstream.to_owned(), |_| Guards::new(workers))
    }
}

/// Things by name, for as long as somebody has them.
#[derive(Debug)]
struct Known<K, V> {
    entries: HashMap<K, Weak<V>>,
    /// Dead entries are swept when the map has grown to this.
    sweep_at: usize,
}

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Known {
            entries: HashMap::new(),
            sweep_at: 0,
        }
    }
}

impl<K: Eq + std::hash::Hash, V> Known<K, V> {
    fn of(&mut self, name: K, new: impl FnOnce(&K) -> V) -> Arc<V> {
        if let Some(known) = self.entries.get(&name).and_then(Weak::upgrade) {
            return known;
        }
        if self.entries.len() >= self.sweep_at {
            self.entries.retain(|_, known| known.strong_count() > 0);
            self.sweep_at = (self.entries.len() * 2).max(64);
        }
        let made = Arc::new(new(&name));
        self.entries.insert(name, Arc::downgrade(&made));
        made
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
        assert!(memory.known.lock().unwrap().entries.len() <= 64);
    }

    #[test]
    fn gw_412_each_grain_has_its_breakers_and_none_of_another_s() {
        let guards = GuardMemory::default().of("orders", 1);
        let one = |them: &RouteGuards, method| std::ptr::from_ref(them.of(&method));
        let whole = guards.of_route(BreakerGrain::Upstream, "list");
        assert_eq!(one(&whole, Method::GET), one(&whole, Method::POST));
        let split = guards.of_route(BreakerGrain::Operation, "list");
        assert_ne!(one(&split, Method::HEAD), one(&split, Method::PUT));
        let again = guards.of_route(BreakerGrain::Operation, "read");
        assert_eq!(one(&split, Method::HEAD), one(&again, Method::GET));
        // A route may well be called as an operation is.
        let routes = ["list", "reads"].map(|name| guards.of_route(BreakerGrain::Route, name));
        let [list, reads] = &routes;
        assert_eq!(one(list, Method::GET), one(list, Method::POST));
        assert_ne!(one(list, Method::GET), one(reads, Method::GET));
        assert_ne!(one(reads, Method::GET), one(&split, Method::GET));
        let names = |grain| {
            let them = guards.all(grain);
            them.iter()
                .map(|guard| guard.part.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(BreakerGrain::Upstream), ["all"]);
        assert_eq!(names(BreakerGrain::Operation), ["reads", "writes"]);
        assert_eq!(names(BreakerGrain::Route), ["list", "reads"]);
        drop(routes);
        assert!(guards.all(BreakerGrain::Route).is_empty());
    }
}
