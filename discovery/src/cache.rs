//! What lookups answered, and for how long that is good (REG-403 to REG-405). Pure: `now` is an argument, and what has to
//! be asked is an answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::instance::Instance;

/// Older than this, an answer is stale whatever `fresh_for` says.
const STALE: Duration = Duration::from_secs(60);
/// How long an instance that failed is avoided.
const AVOID: Duration = Duration::from_secs(10);
/// Names beyond this push out the one that was asked for longest ago.
const MOST: usize = 1024;

/// What a caller finds for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Good; with `refresh`, somebody should ask beside.
    Fresh {
        instances: Arc<[Instance]>,
        refresh: bool,
    },
    /// Better than nothing.
    Old(Arc<[Instance]>),
    Nothing,
}

/// How a cache has done (REG-401).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CacheStats {
    pub hits: u64,
    pub misses: u64,
    /// Lookups that were answered with something too old, because no registry could be asked.
    pub stale: u64,
    /// Answers that came from a registry.
    pub refreshes: u64,
    /// Questions that no registry answered.
    pub failures: u64,
    /// Names that are known now.
    pub names: usize,
    /// The age of the oldest answer that is held.
    pub oldest: Duration,
    /// No registry can be asked at present: new services are not seen (REG-409).
    pub degraded: bool,
}

impl CacheStats {
    /// The share of lookups that needed nobody, 0 to 1; 0 before the first.
    pub fn hit_rate(&self) -> f64 {
        match self.hits + self.misses {
            0 => 0.0,
            lookups => self.hits as f64 / lookups as f64,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Cache {
    fresh_for: Duration,
    names: HashMap<String, Entry>,
    stats: CacheStats,
}

#[derive(Debug)]
struct Entry {
    instances: Arc<[Instance]>,
    asked: Instant,
    used: Instant,
    /// Somebody asks for it in the background.
    refreshing: bool,
    /// What failed there makes it worth another question.
    doubtful: bool,
    avoided: Vec<(String, Instant)>,
}

impl Cache {
    pub(crate) fn new(fresh_for: Duration) -> Self {
        Cache {
            fresh_for,
            names: HashMap::new(),
            stats: CacheStats::default(),
        }
    }

    /// A lookup. Whoever is told to refresh does, and nobody else is told until that has ended: so busy names are asked for
    /// again at half their time, and idle ones never.
    pub(crate) fn look(&mut self, name: &str, now: Instant) -> Found {
        let Some(entry) = self.names.get_mut(name) else {
            self.stats.misses += 1;
            return Found::Nothing;
        };
        entry.used = now;
        let age = now.saturating_duration_since(entry.asked);
        let instances = entry.usable(now);
        if age >= self.fresh_for.min(STALE) {
            self.stats.misses += 1;
            return Found::Old(instances);
        }
        self.stats.hits += 1;
        let refresh = !entry.refreshing && (entry.doubtful || age >= self.fresh_for / 2);
        entry.refreshing |= refresh;
        Found::Fresh { instances, refresh }
    }

    /// What somebody else has learned in the meantime; counts as nothing.
    pub(crate) fn look_again(&self, name: &str, now: Instant) -> Option<Arc<[Instance]>> {
        let entry = self.names.get(name)?;
        let age = now.saturating_duration_since(entry.asked);
        (age < self.fresh_for.min(STALE)).then(|| entry.usable(now))
    }

    /// What is known, however old.
    pub(crate) fn known(&self, name: &str, now: Instant) -> Option<Arc<[Instance]>> {
        self.names.get(name).map(|entry| entry.usable(now))
    }

    /// A registry answered.
    pub(crate) fn learned(&mut self, name: &str, instances: Vec<Instance>, now: Instant) {
        self.stats.refreshes += 1;
        if self.names.len() >= MOST && !self.names.contains_key(name) {
            let longest_ago = { self.names.iter() }.min_by_key(|(_, entry)| entry.used);
            if let Some(name) = longest_ago.map(|(name, _)| name.clone()) {
                self.names.remove(&name);
            }
        }
        let avoided = self.names.remove(name).map(|entry| entry.avoided);
        let mut avoided = avoided.unwrap_or_default();
        avoided.retain(|(_, until)| *until > now);
        let entry = Entry {
            instances: instances.into(),
            asked: now,
            used: now,
            refreshing: false,
            doubtful: false,
            avoided,
        };
        self.names.insert(name.to_owned(), entry);
    }

    /// No registry answered.
    pub(crate) fn not_learned(&mut self, name: &str) {
        self.stats.failures += 1;
        if let Some(entry) = self.names.get_mut(name) {
            entry.refreshing = false;
        }
    }

    /// Old data was served for want of better.
    pub(crate) fn served_stale(&mut self) {
        self.stats.stale += 1;
    }

    /// A call to this instance failed: it is avoided for a while, and the name asked for again (REG-405).
    pub(crate) fn failed(&mut self, name: &str, id: &str, now: Instant) {
        if let Some(entry) = self.names.get_mut(name) {
            entry
                .avoided
                .retain(|(other, until)| *until > now && other != id);
            entry.avoided.push((id.to_owned(), now + AVOID));
            entry.doubtful = true;
        }
    }

    pub(crate) fn stats(&self, now: Instant) -> CacheStats {
        let ages = { self.names.values() }.map(|entry| now.saturating_duration_since(entry.asked));
        CacheStats {
            names: self.names.len(),
            oldest: ages.max().unwrap_or_default(),
            ..self.stats
        }
    }
}

impl Entry {
    /// Without those that are avoided, unless that is all of them: then a bad one is better than none.
    fn usable(&self, now: Instant) -> Arc<[Instance]> {
        let avoided = |instance: &Instance| {
            let mut avoided = self.avoided.iter();
            avoided.any(|(id, until)| *id == instance.id && now < *until)
        };
        let kept = self.instances.iter().filter(|instance| !avoided(instance));
        let kept: Vec<Instance> = kept.cloned().collect();
        match kept.len() {
            0 => self.instances.clone(),
            count if count == self.instances.len() => self.instances.clone(),
            _ => kept.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_secs(15);

    fn one(address: &str) -> Vec<Instance> {
        vec![Instance::fixed("users", address)]
    }

    fn addresses(found: &Found) -> Vec<&str> {
        match found {
            Found::Fresh { instances, .. } | Found::Old(instances) => instances
                .iter()
                .map(|instance| &*instance.address)
                .collect(),
            Found::Nothing => Vec::new(),
        }
    }

    #[test]
    fn reg_403_busy_names_are_refreshed_at_half_their_time_by_one_caller_and_idle_ones_expire() {
        let (mut cache, start) = (Cache::new(2 * HALF), Instant::now());
        assert_eq!(cache.look("users", start), Found::Nothing);
        cache.learned("users", one("a:1"), start);
        let fresh = |refresh| Found::Fresh {
            instances: one("a:1").into(),
            refresh,
        };
        assert_eq!(cache.look("users", start + HALF / 2), fresh(false));
        assert_eq!(cache.look("users", start + HALF), fresh(true));
        assert_eq!(
            cache.look("users", start + HALF),
            fresh(false),
            "somebody does"
        );
        cache.not_learned("users");
        assert_eq!(cache.look("users", start + HALF), fresh(true), "nobody did");
        let old = Found::Old(one("a:1").into());
        assert_eq!(cache.look("users", start + 2 * HALF), old);
        let stats = cache.stats(start + 2 * HALF);
        assert_eq!((stats.hits, stats.misses, stats.failures), (4, 2, 1));
        assert_eq!((stats.names, stats.oldest), (1, 2 * HALF));
        assert!((stats.hit_rate() - 4.0 / 6.0).abs() < 1e-9);
    }

    #[test]
    fn reg_405_an_instance_that_failed_is_avoided_for_ten_seconds_and_the_name_asked_for_at_once() {
        let (mut cache, start) = (Cache::new(2 * HALF), Instant::now());
        let two = [one("a:1"), one("b:1")].concat();
        cache.learned("users", two.clone(), start);
        cache.failed("users", "users-a:1", start);
        let found = cache.look("users", start);
        assert!(matches!(found, Found::Fresh { refresh: true, .. }));
        assert_eq!(addresses(&found), ["b:1"]);
        cache.learned("users", two, start);
        assert_eq!(
            addresses(&cache.look("users", start)),
            ["b:1"],
            "also in a new answer"
        );
        cache.failed("users", "users-b:1", start);
        assert_eq!(
            addresses(&cache.look("users", start)),
            ["a:1", "b:1"],
            "all is none"
        );
        assert_eq!(
            addresses(&cache.look("users", start + AVOID)),
            ["a:1", "b:1"]
        );
    }

    #[test]
    fn names_are_bounded() {
        let (mut cache, start) = (Cache::new(2 * HALF), Instant::now());
        for number in 0..3000 {
            let now = start + Duration::from_millis(number);
            cache.learned(&format!("s{number}"), Vec::new(), now);
        }
        assert_eq!(cache.stats(start).names, MOST);
        assert!(cache.known("s2999", start).is_some() && cache.known("s0", start).is_none());
    }
}
