//! What is written of verdicts: from a registry that judges to what the store has, from there to one that shows, and to
//! one that goes on judging. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::registry::{Mark, Marks, Now, Record, Registry, Rules};
use crate::store::{Event, Kept, Transaction, Write};

/// What was judged of each instance.
pub(super) const MARKS: &str = "marks/";
/// The version of each service's list.
pub(super) const VERSIONS: &str = "versions/";

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    versions: BTreeMap<Arc<str>, u64>,
    marks: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Mark>>,
}

impl Written {
    pub(super) fn read(versions: &[Kept], marks: &[Kept]) -> Written {
        let mut written = Written::default();
        for kept in versions {
            if let Some((service, version)) = version_of(&kept.key, &kept.value) {
                written.versions.insert(service, version);
            }
        }
        for mark in marks.iter().filter_map(mark_of) {
            let service = written.marks.entry(mark.record.name.clone()).or_default();
            service.insert(mark.record.id.clone(), mark);
        }
        written
    }

    /// Makes an empty registry go on judging from what is written, and from the instances that are registered. Returns
    /// the services of which something may have to be written.
    pub(super) fn resume(
        &self,
        registry: &mut Registry,
        rules: &Rules,
        instances: Vec<Arc<Record>>,
        unproven: bool,
        now: Now,
    ) -> BTreeSet<Arc<str>> {
        let mut services: BTreeSet<Arc<str>> = self.versions.keys().cloned().collect();
        services.extend(self.marks.keys().cloned());
        for (service, version) in &self.versions {
            registry.resume_service(service, *version);
        }
        let mut gone: BTreeMap<&Arc<str>, &Mark> = self.marks.values().flatten().collect();
        for record in instances {
            let mark = gone.remove(&record.id);
            services.insert(record.name.clone());
            registry.resume(rules, record, mark, unproven, now);
        }
        // Their removal is written, and what follows from it is not.
        for mark in gone.values().filter(|mark| mark.shown) {
            registry.touch(&mark.record.name);
        }
        services
    }

    /// What leads from what is written to what is judged.
    pub(super) fn difference(&self, judged: &[(Arc<str>, Option<Marks>)]) -> Transaction {
        let mut transaction = Transaction::default();
        let nothing = BTreeMap::new();
        for (name, now) in judged {
            let former = self.marks.get(name).unwrap_or(&nothing);
            let (version, marks) = match now {
                Some((version, marks)) => (Some(*version), marks),
                None => (None, &nothing),
            };
            let key = |id: &str| -> Arc<str> { format!("{MARKS}{id}").into() };
            for (id, mark) in marks {
                if former
                    .get(id)
                    .is_none_or(|known| !known.says_the_same(mark))
                {
                    transaction.then.push(Write::Put {
                        key: key(id),
                        // Strings and numbers.
                        value: serde_json::to_string(mark).unwrap_or_default().into(),
                        lease: None,
                    });
                }
            }
            for id in former.keys().filter(|id| !marks.contains_key(*id)) {
                transaction.then.push(Write::Delete(key(id)));
            }
            let key: Arc<str> = format!("{VERSIONS}{name}").into();
            if version != self.versions.get(name).copied() {
                transaction.then.push(match version {
                    Some(version) => Write::Put {
                        key,
                        value: version.to_string().into(),
                        lease: None,
                    },
                    None => Write::Delete(key),
                });
            }
        }
        transaction
    }

    pub(super) fn take(&mut self, name: Arc<str>, now: Option<Marks>) {
        match now {
            Some((version, marks)) => {
                self.versions.insert(name.clone(), version);
                self.marks.insert(name, marks);
            }
            None => {
                self.versions.remove(&name);
                self.marks.remove(&name);
            }
        }
    }
}

pub(super) fn mark_of(kept: &Kept) -> Option<Mark> {
    serde_json::from_str(&kept.value).ok()
}

pub(super) fn version_of(key: &str, value: &str) -> Option<(Arc<str>, u64)> {
    Some((key.strip_prefix(VERSIONS)?.into(), value.parse().ok()?))
}

/// Makes a registry show what became of the store.
pub(super) fn show(shown: &mut Registry, rules: &Rules, events: &[Event]) {
    for event in events {
        if let Some(id) = event.key.strip_prefix(MARKS) {
            match event.value.as_deref().map(serde_json::from_str::<Mark>) {
                Some(Ok(mark)) => shown.show(rules, &mark),
                Some(Err(_)) | None => shown.hide(id),
            }
        } else if let Some(service) = event.key.strip_prefix(VERSIONS) {
            match event.value.as_deref().and_then(|value| value.parse().ok()) {
                Some(version) => shown.show_version(&service.into(), version),
                None => shown.hide_service(service),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::{Health, Metadata, News};

    /// A leader, a follower, what is written, and what is registered.
    struct World {
        judge: Registry,
        shown: Registry,
        rules: Rules,
        written: Written,
        instances: BTreeMap<Arc<str>, Arc<Record>>,
        /// The highest version of each service that anybody was told.
        told: BTreeMap<Arc<str>, u64>,
        tick: u64,
        reserved: u64,
    }

    impl World {
        fn now(&self) -> Now {
            Now {
                tick: Duration::from_millis(self.tick),
                time: self.tick,
            }
        }

        fn step(&mut self, chance: &mut fastrand::Rng) {
            self.tick += chance.u64(..4000);
            let now = self.now();
            let name: Arc<str> = ["orders", "users"][chance.usize(..2)].into();
            let id: Arc<str> = format!("{name}-{}", chance.u8(..6)).into();
            match chance.u8(..8) {
                0 | 1 => {
                    let mut record = Record {
                        id: id.clone(),
                        name,
                        address: format!("10.0.0.{}:80", chance.u8(..9)).into(),
                        health: Health::Healthy,
                        health_endpoint: "/".to_owned(),
                        metadata: Metadata::new(),
                        registered_at: self.tick,
                    };
                    if chance.bool() {
                        record.metadata.insert("zone".to_owned(), "a".to_owned());
                    }
                    let record = Arc::new(record);
                    let done = self.judge.register(&self.rules, record.clone(), None, now);
                    if done.is_ok() {
                        self.instances.insert(id, record);
                    }
                }
                2 => {
                    self.judge.deregister(&id, None, now);
                    self.instances.remove(&id);
                }
                3..6 => {
                    let all = [Health::Healthy, Health::Degraded, Health::Unhealthy];
                    let health = chance.choice(all).filter(|_| chance.u8(..4) == 0);
                    let news = News {
                        health,
                        ..News::default()
                    };
                    if let crate::registry::Beat::Changed(record) =
                        self.judge.beat(&self.rules, &id, news, now)
                    {
                        self.instances.insert(id, record);
                    }
                }
                _ => self.judge.tick(&self.rules, 100, now),
            }
        }

        /// What `Keeper::publish` and `Keeper::show` do.
        fn publish(&mut self, seed: u64) {
            let effects = self.judge.effects();
            for record in effects.removed {
                self.instances.remove(&record.id);
            }
            self.write(effects.stirred, seed);
        }

        fn write(&mut self, services: BTreeSet<Arc<str>>, seed: u64) {
            let judged: Vec<_> = { services.into_iter() }
                .map(|name| (name.clone(), self.judge.marks(&name)))
                .collect();
            let events: Vec<Event> = { self.written.difference(&judged).then.into_iter() }
                .map(|write| match write {
                    Write::Put { key, value, .. } => (key, Some(value)),
                    Write::Delete(key) => (key, None),
                })
                .map(|(key, value)| Event {
                    revision: 1,
                    key,
                    value,
                })
                .collect();
            for (name, marks) in judged {
                self.written.take(name, marks);
            }
            show(&mut self.shown, &self.rules, &events);
            for name in ["orders", "users"] {
                let what = |list: Option<(u64, Vec<crate::registry::Seen>)>| {
                    list.map(|(version, seen)| {
                        let of = |one: crate::registry::Seen| (one.record, one.state);
                        (version, seen.into_iter().map(of).collect::<Vec<_>>())
                    })
                };
                let (here, there) = (self.judge.service(name), self.shown.service(name));
                if let Some((version, _)) = &there {
                    let last = self.told.entry(name.into()).or_default();
                    assert!(version >= last, "seed {seed}: versions never go back");
                    *last = *version;
                }
                assert_eq!(what(here), what(there), "seed {seed}: {name}");
                let now = self.now();
                let states = |all: Vec<crate::registry::Seen>| -> Vec<_> {
                    all.into_iter()
                        .map(|one| (one.record.id.clone(), one.state))
                        .collect()
                };
                assert_eq!(
                    states(self.judge.all(name)),
                    states(self.shown.all(name)),
                    "seed {seed}: {name} at {now:?}"
                );
            }
        }

        /// The leader is gone, with whatever it had not written; a follower goes on.
        fn fail_over(&mut self, unproven: bool, seed: u64) {
            self.judge = Registry::new(self.reserved);
            self.reserved += 1000;
            let instances = self.instances.values().cloned().collect();
            let now = self.now();
            let services =
                { &self.written }.resume(&mut self.judge, &self.rules, instances, unproven, now);
            let before: Vec<_> = ["orders", "users"]
                .map(|name| self.shown.service(name))
                .into();
            let lost = self.written != Written::default();
            self.write(services, seed);
            self.judge.effects();
            if lost && !unproven {
                // Who was in the lists is still, unless it is registered no more.
                for list in before.into_iter().flatten() {
                    for one in list.1 {
                        let there = self.shown.all(&one.record.name);
                        let kept = there.iter().any(|seen| seen.record.id == one.record.id);
                        let registered = self.instances.contains_key(&one.record.id);
                        assert_eq!(kept, registered, "seed {seed}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_shown_is_what_was_judged_over_any_number_of_leaders() {
        let cases = std::env::var("TOLLGATE_FUZZ_CASES").ok();
        let cases = cases.and_then(|text| text.parse().ok()).unwrap_or(200u64);
        for _ in 0..cases {
            let seed = fastrand::u64(..);
            let mut chance = fastrand::Rng::with_seed(seed);
            let mut world = World {
                judge: Registry::new(1000),
                shown: Registry::default(),
                rules: Rules::default(),
                written: Written::default(),
                instances: BTreeMap::new(),
                told: BTreeMap::new(),
                tick: 1000,
                reserved: 2000,
            };
            for _ in 0..120 {
                world.step(&mut chance);
                if chance.u8(..3) > 0 {
                    world.publish(seed);
                }
                if chance.u8(..25) == 0 {
                    // What was removed and not forgotten is found out again.
                    let effects = world.judge.effects();
                    let forgotten = chance.bool();
                    for record in effects.removed.iter().filter(|_| forgotten) {
                        world.instances.remove(&record.id);
                    }
                    world.fail_over(chance.u8(..4) == 0, seed);
                }
            }
        }
    }
}
