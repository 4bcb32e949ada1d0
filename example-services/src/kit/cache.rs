//! What was read lately, kept in memory (SHOP-809): cache-aside, bounded, and the least recently used goes first.
//!
//! It may only stand before reads that decide nothing: no price is charged and no stock is held by what it says. Whoever changes
//! something says so ([`Cache::changing`]) before the change is made true, so that a change is forgotten here however it ends, also
//! when its caller is gone in the middle of it; and what was read before a change is never kept after it. What another process on
//! the same database changes is seen when an entry is too old.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{IntCounter, IntCounterVec};

use super::metrics::Metrics;

/// Changes are told apart by so many groups of keys.
const GROUPS: usize = 64;

/// Values by key. Clones share them.
#[derive(Clone, Debug)]
pub struct Cache<V> {
    shared: Arc<Mutex<Entries<V>>>,
    most: usize,
    lifetime: Duration,
    hits: IntCounter,
    misses: IntCounter,
}

#[derive(Debug)]
struct Entries<V> {
    by_key: HashMap<String, Entry<V>>,
    /// Keys by when they were used last.
    by_use: BTreeMap<u64, String>,
    uses: u64,
    /// How often something of a group was changed.
    changes: [u64; GROUPS],
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: u64,
    read_at: Instant,
}

/// The counters of a service's caches, by `cache` and `result`.
pub fn counters(metrics: &Metrics) -> IntCounterVec {
    let about = "Reads that a cache could have answered.";
    metrics.counters("cache_reads_total", about, &["cache", "result"])
}

impl<V: Clone> Cache<V> {
    /// For at most so many values, none older than `lifetime`.
    pub fn new(name: &str, most: usize, lifetime: Duration, counters: &IntCounterVec) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Entries {
                by_key: HashMap::new(),
                by_use: BTreeMap::new(),
                uses: 0,
                changes: [0; GROUPS],
            })),
            most,
            lifetime,
            hits: counters.with_label_values(&[name, "hit"]),
            misses: counters.with_label_values(&[name, "miss"]),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries<V>> {
        // Whatever panicked with it left whole entries.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept, or what `read` finds, which is kept if there is something.
    pub async fn or_read<E>(
        &self,
        key: &str,
        read: impl Future<Output = Result<Option<V>, E>>,
    ) -> Result<Option<V>, E> {
        let began = Instant::now();
        let seen = {
            let mut entries = self.entries();
            if let Some(value) = entries.get(key, began, self.lifetime) {
                self.hits.inc();
                return Ok(Some(value));
            }
            entries.changes[group(key)]
        };
        self.misses.inc();
        let value = read.await?;
        if let Some(value) = &value
            && self.most > 0
            && !self.lifetime.is_zero()
        {
            let mut entries = self.entries();
            // Changed meanwhile: what was read may be what was before.
            if entries.changes[group(key)] == seen {
                entries.put(key, value.clone(), began, self.most);
            }
        }
        Ok(value)
    }

    /// These are about to change. They are forgotten when what is returned is dropped, which is after the change.
    #[must_use = "it forgets when it is dropped"]
    pub fn changing(&self, keys: Vec<String>) -> Changing<V> {
        Changing {
            cache: self.clone(),
            keys,
        }
    }
}

/// A change under way.
#[derive(Debug)]
pub struct Changing<V: Clone> {
    cache: Cache<V>,
    keys: Vec<String>,
}

impl<V: Clone> Drop for Changing<V> {
    fn drop(&mut self) {
        let mut entries = self.cache.entries();
        for key in &self.keys {
            entries.changes[group(key)] += 1;
            entries.remove(key);
        }
    }
}

impl<V: Clone> Entries<V> {
    fn get(&mut self, key: &str, now: Instant, lifetime: Duration) -> Option<V> {
        let entry = self.by_key.get_mut(key)?;
        if now.saturating_duration_since(entry.read_at) >= lifetime {
            self.remove(key);
            return None;
        }
        self.uses += 1;
        let key = self.by_use.remove(&entry.used)?;
        entry.used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(entry.value.clone())
    }

    fn put(&mut self, key: &str, value: V, read_at: Instant, most: usize) {
        self.remove(key);
        while self.by_key.len() >= most
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.by_key.remove(&oldest);
        }
        self.uses += 1;
        self.by_use.insert(self.uses, key.to_owned());
        let entry = Entry {
            value,
            used: self.uses,
            read_at,
        };
        self.by_key.insert(key.to_owned(), entry);
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.by_key.remove(key) {
            self.by_use.remove(&entry.used);
        }
    }
}

fn group(key: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    (hasher.finish() % GROUPS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn cache(most: usize, lifetime: Duration) -> Cache<u32> {
        Cache::new("test", most, lifetime, &counters(&Metrics::new("test")))
    }

    /// What is told when the owner would say this.
    async fn read(cache: &Cache<u32>, key: &str, now: u32) -> u32 {
        let value = cache.or_read(key, async { Ok::<_, Infallible>(Some(now)) });
        value.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn what_was_read_is_kept_until_it_changes() {
        let cache = cache(10, LONG);
        assert_eq!(read(&cache, "a", 1).await, 1);
        assert_eq!(read(&cache, "a", 2).await, 1);
        drop(cache.changing(vec!["a".into(), "b".into()]));
        assert_eq!(read(&cache, "a", 3).await, 3);
        assert_eq!((cache.hits.get(), cache.misses.get()), (1, 2));
    }

    #[tokio::test]
    async fn what_was_read_before_a_change_is_not_kept_after_it() {
        let cache = cache(10, LONG);
        let changing = cache.changing(vec!["a".into()]);
        let slow = cache.or_read("a", async {
            drop(changing);
            Ok::<_, Infallible>(Some(1))
        });
        assert_eq!(slow.await.unwrap(), Some(1));
        assert_eq!(read(&cache, "a", 2).await, 2);
    }

    #[tokio::test]
    async fn the_least_recently_used_goes_first() {
        let cache = cache(2, LONG);
        read(&cache, "a", 1).await;
        read(&cache, "b", 1).await;
        read(&cache, "a", 2).await;
        read(&cache, "c", 1).await;
        assert_eq!(read(&cache, "a", 3).await, 1, "it was used");
        assert_eq!(read(&cache, "b", 4).await, 4, "it was not");
        assert_eq!(cache.entries().by_use.len(), 2);
    }

    #[tokio::test]
    async fn nothing_is_kept_without_room_or_time() {
        for cache in [cache(0, LONG), cache(10, Duration::ZERO)] {
            assert_eq!(read(&cache, "a", 1).await, 1);
            assert_eq!(read(&cache, "a", 2).await, 2);
        }
        let cache = cache(10, LONG);
        let none = cache
            .or_read("a", async { Ok::<_, Infallible>(None) })
            .await;
        assert_eq!(none, Ok(None));
        assert_eq!(
            read(&cache, "a", 2).await,
            2,
            "what is not there is not kept"
        );
    }

    #[test]
    fn what_is_too_old_is_read_again() {
        let cache = cache(10, LONG);
        let mut entries = cache.entries();
        let now = Instant::now();
        entries.put("a", 1, now, 10);
        assert_eq!(entries.get("a", now + LONG / 2, LONG), Some(1));
        assert_eq!(entries.get("a", now + LONG, LONG), None);
        assert!(entries.by_key.is_empty() && entries.by_use.is_empty());
    }
}
