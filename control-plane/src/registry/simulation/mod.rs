//! Random histories of a registry and of the world that it hears of: beats lost, partitions, machines that die or
//! refuse, clocks that jump, restarts, mass losses, settings that change. After each single call the world's own books
//! say what must hold. A failure prints the seed; `TOLLGATE_SIMULATION=seed` runs that history alone.

mod books;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::*;

const SERVICES: [&str; 3] = ["orders", "users", "payments"];

/// The truth about one instance.
struct Truth {
    record: Arc<Record>,
    alive: bool,
    /// Its machine says no to whoever asks for it.
    refuses: bool,
    cut_off: bool,
    next_beat: u64,
    /// The registry's last good sign of it, in listened milliseconds.
    last_sign: u64,
    last_probe: Option<Outcome>,
    confirmed: bool,
    /// When it was lost without a confirmation.
    lost: Option<u64>,
}

struct World {
    seed: u64,
    chance: fastrand::Rng,
    registry: Registry,
    rules: Rules,
    tick: u64,
    wall: u64,
    /// What of `tick` the registry can have listened to.
    listened: u64,
    partition: bool,
    /// Some beats and probes get lost.
    lossy: bool,
    /// Registered, as the store has it.
    truths: BTreeMap<Arc<str>, Truth>,
    orders: VecDeque<(u64, Order)>,
    /// Unconfirmed losses, in listened milliseconds.
    losses: BTreeMap<Arc<str>, Vec<u64>>,
    /// A reader of changes that comes now and then.
    reader: BTreeMap<Arc<str>, u64>,
    read: u64,
    next_id: u64,
    highest: u64,
}

/// What of a service can be seen, and its version.
type List = (u64, Vec<(Arc<Record>, State)>);

impl World {
    fn new(seed: u64) -> World {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut rules = Rules::default();
        rules.lifecycle.loss_share = [0.0, 0.3, 0.5, 1.0][chance.usize(..4)];
        rules.lifecycle.loss_interval = Duration::from_secs(chance.u64(10..120));
        rules.probe.enabled = chance.u8(..5) > 0;
        rules.probe.healthy_interval = chance.bool().then(|| Duration::from_secs(30));
        World {
            seed,
            chance,
            registry: Registry::new(0),
            rules,
            tick: 0,
            wall: 1_700_000_000_000,
            listened: 0,
            partition: false,
            lossy: true,
            truths: BTreeMap::new(),
            orders: VecDeque::new(),
            losses: BTreeMap::new(),
            reader: BTreeMap::new(),
            read: 0,
            next_id: 0,
            highest: 0,
        }
    }

    fn now(&self) -> Now {
        Now {
            tick: Duration::from_millis(self.tick),
            time: self.wall,
        }
    }

    fn lists(&self) -> BTreeMap<Arc<str>, List> {
        let lists = self.registry.services.keys().map(|name| {
            let (version, list) = self.registry.service(name).expect("there");
            let list = list.into_iter().map(|seen| (seen.record, seen.state));
            (name.clone(), (version, list.collect()))
        });
        lists.collect()
    }

    /// Makes one call and holds the world's books against what it did. `left`: who may leave by this very call.
    fn call<T>(
        &mut self,
        left: &[Arc<str>],
        call: impl FnOnce(&mut Registry, &Rules, Now) -> T,
    ) -> T {
        let before = self.lists();
        let now = self.now();
        let result = call(&mut self.registry, &self.rules, now);
        let effects = self.registry.effects();
        self.books(&before, &effects, left);
        let due = self.tick;
        for order in effects.probes {
            // Some are slow, some are lost.
            let delay = self.chance.u64(1..6000);
            if !self.lossy || self.chance.u8(..20) > 0 {
                self.orders.push_back((due + delay, order));
            }
        }
        result
    }

    /// Time passes in small steps, with everything that happens by itself.
    fn pass(&mut self, milliseconds: u64) {
        let end = self.tick + milliseconds;
        while self.tick < end {
            let due = self.registry.next_due(self.now());
            let step = due.map_or(1000, |due| (due.as_millis() as u64 + 1).clamp(1, 1000));
            self.advance(step);
            self.beats();
            self.probes();
            // The process ticks until nothing is due.
            loop {
                let most = self.chance.usize(1..20);
                self.call(&[], |registry, rules, now| registry.tick(rules, most, now));
                if self
                    .registry
                    .next_due(self.now())
                    .is_none_or(|due| !due.is_zero())
                {
                    break;
                }
            }
            for name in SERVICES {
                let found = self.registry.lookup(&self.rules, name, self.now());
                let list = self
                    .registry
                    .service(name)
                    .map_or(Vec::new(), |(_, list)| list);
                let ids =
                    |list: &[Seen]| list.iter().map(|s| s.record.id.clone()).collect::<Vec<_>>();
                assert_eq!(
                    ids(&found),
                    ids(&list),
                    "seed {}: nothing is due",
                    self.seed
                );
            }
        }
    }

    fn advance(&mut self, step: u64) {
        self.tick += step;
        self.wall = self.wall.wrapping_add(step);
        self.listened += step.min(5000);
    }

    fn beats(&mut self) {
        let due: Vec<Arc<str>> = { self.truths.iter() }
            .filter(|(_, truth)| truth.alive && self.tick >= truth.next_beat)
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            let lost = self.partition || (self.lossy && self.chance.u8(..50) == 0);
            let jitter = self.chance.u64(13_500..16_500);
            let figure = self.chance.u8(..9).to_string();
            let truth = self.truths.get_mut(&id).expect("known");
            truth.next_beat = self.tick + jitter;
            if lost || truth.cut_off {
                continue;
            }
            truth.last_sign = self.listened;
            truth.confirmed = false;
            let metadata = Metadata::from([("load_cpu".to_owned(), figure)]);
            let result = self.call(&[], |registry, rules, now| {
                let metadata = Some(metadata);
                registry.beat(
                    rules,
                    &id,
                    News {
                        metadata,
                        ..News::default()
                    },
                    now,
                )
            });
            assert_eq!(result, Beat::Kept, "seed {}", self.seed);
        }
    }

    fn probes(&mut self) {
        let tick = self.tick;
        let (done, waiting) = std::mem::take(&mut self.orders)
            .into_iter()
            .partition(|(at, _)| *at <= tick);
        self.orders = waiting;
        for (_, order) in done {
            let id = order.record.id.clone();
            let address = order.record.address.clone();
            let unreachable = |truth: &Truth| self.partition || truth.cut_off;
            // Whoever is alive at the address answers.
            let at = self.truths.values().filter(|t| t.record.address == address);
            let at: Vec<&Truth> = at.collect();
            let outcome = if at.iter().any(|t| t.alive && !t.refuses && !unreachable(t)) {
                Outcome::Good
            } else if at.iter().any(|t| t.refuses && !unreachable(t)) {
                Outcome::Refused
            } else {
                Outcome::Silent
            };
            let owner = self
                .registry
                .addresses
                .get(&address)
                .and_then(|ids| ids.last().cloned());
            let current = { self.registry.entry(&id) }
                .and_then(|entry| entry.probe.under_way)
                .is_some_and(|(number, _)| number == order.number);
            if let Some(truth) = self.truths.get_mut(&id)
                && current
            {
                let silent = Duration::from_millis(self.listened - truth.last_sign)
                    >= self.rules.lifecycle.suspect_after
                    || self.registry.entry(&id).is_some_and(|entry| entry.unproven);
                truth.last_probe = Some(outcome);
                if outcome == Outcome::Good && silent {
                    match owner.as_ref() == Some(&id) {
                        true => {
                            truth.last_sign = self.listened;
                            truth.confirmed = false;
                        }
                        false => truth.last_probe = Some(Outcome::Silent),
                    }
                }
            }
            let used = self.call(&[], |registry, rules, now| {
                registry.probe_result(rules, &id, order.number, outcome, now)
            });
            assert_eq!(used, current, "seed {}", self.seed);
        }
    }

    fn register(&mut self) {
        let again = self.chance.u8(..3) == 0;
        let some = self.some();
        let record = match some {
            Some(id) if again => {
                let mut record = Record::clone(&self.truths[&id].record);
                if self.chance.bool() {
                    record
                        .metadata
                        .insert("version".into(), self.chance.u8(..3).to_string());
                }
                record
            }
            _ => {
                self.next_id += 1;
                let name = SERVICES[self.chance.usize(..SERVICES.len())];
                Record {
                    id: Arc::from(format!("{name}-{}", self.next_id)),
                    name: Arc::from(name),
                    // Few addresses, so that they are used again.
                    address: Arc::from(format!("10.0.0.{}:80", self.chance.u8(..40))),
                    health: self.health(),
                    health_endpoint: "/health/ready".into(),
                    metadata: Metadata::new(),
                    registered_at: self.wall,
                }
            }
        };
        let record = Arc::new(record);
        let former = self.truths.remove(&record.id);
        let truth = Truth {
            record: record.clone(),
            alive: true,
            refuses: false,
            cut_off: false,
            next_beat: self.tick + 15_000,
            last_sign: self.listened,
            last_probe: None,
            confirmed: false,
            lost: former.and_then(|former| former.lost),
        };
        self.truths.insert(record.id.clone(), truth);
        // Its own word may take it out.
        let left = [record.id.clone()];
        self.call(&left, |registry, rules, now| {
            registry.register(rules, record, Some("simulation"), now)
        })
        .expect("accepted");
    }

    fn health(&mut self) -> Health {
        match self.chance.u8(..10) {
            0 => Health::Unknown,
            1 => Health::Unhealthy,
            2 => Health::Degraded,
            _ => Health::Healthy,
        }
    }

    fn some(&mut self) -> Option<Arc<str>> {
        let count = self.truths.len();
        if count == 0 {
            return None;
        }
        let at = self.chance.usize(..count);
        self.truths.keys().nth(at).cloned()
    }

    fn step(&mut self) {
        match self.chance.u8(..100) {
            0..25 => self.register(),
            25..30 => {
                if let Some(id) = self.some() {
                    self.truths.remove(&id);
                    let there = self.call(std::slice::from_ref(&id), |registry, _, now| {
                        registry.deregister(&id, None, now)
                    });
                    assert!(there);
                    self.orders.retain(|(_, order)| order.record.id != id);
                }
            }
            30..42 => {
                // A machine dies; some say so when they are asked.
                let refuses = self.chance.bool();
                if let Some(truth) = self.some().and_then(|id| self.truths.get_mut(&id)) {
                    truth.alive = false;
                    truth.refuses = refuses;
                }
            }
            42..48 => {
                if let Some(truth) = self.some().and_then(|id| self.truths.get_mut(&id)) {
                    truth.alive = true;
                    truth.cut_off = false;
                    truth.refuses = false;
                }
            }
            48..52 => {
                if let Some(truth) = self.some().and_then(|id| self.truths.get_mut(&id)) {
                    truth.cut_off = true;
                }
            }
            52..56 => {
                // It beats, but serves nobody.
                if let Some(truth) = self.some().and_then(|id| self.truths.get_mut(&id)) {
                    truth.refuses = true;
                }
            }
            56..60 => self.partition = !self.partition,
            60..66 => self.says(),
            66..76 => self.observed(),
            76..78 => {
                let name = SERVICES[self.chance.usize(..SERVICES.len())];
                if let Some(service) = self.registry.services.get(name) {
                    for (id, entry) in &service.entries {
                        let truth = self.truths.get_mut(id).expect("known");
                        truth.confirmed |= entry.held;
                    }
                }
                self.call(&[], |registry, rules, now| {
                    registry.confirm(rules, name, None, now)
                });
            }
            78..80 => self.wall = self.chance.u64(..),
            80..82 => {
                // Stopped, or starved.
                let gap = self.chance.u64(5_000..600_000);
                self.advance(gap);
            }
            82..84 => self.restart(),
            84..86 => {
                self.rules.lifecycle.loss_share = [0.3, 0.5, 1.0][self.chance.usize(..3)];
                self.call(&[], |registry, rules, now| registry.reconsider(rules, now));
            }
            _ => {
                let milliseconds = self.chance.u64(100..25_000);
                self.pass(milliseconds);
            }
        }
        if self.chance.u8(..8) == 0 {
            self.catch_up();
        }
    }

    fn says(&mut self) {
        let health = self.health();
        let Some(id) = self.some() else { return };
        let truth = self.truths.get_mut(&id).expect("known");
        if !truth.alive || truth.cut_off || self.partition {
            return;
        }
        truth.last_sign = self.listened;
        truth.confirmed = false;
        let mut record = Record::clone(&truth.record);
        record.health = health;
        truth.record = Arc::new(record);
        let left = [id.clone()];
        self.call(&left, |registry, rules, now| {
            let news = News {
                health: Some(health),
                ..News::default()
            };
            registry.beat(rules, &id, news, now)
        });
    }

    fn observed(&mut self) {
        let Some(id) = self.some() else { return };
        let record = self.truths[&id].record.clone();
        let nodes = self.chance.usize(1..5);
        let audience = self.chance.usize(..8);
        let failing = self.chance.u8(..4) > 0;
        for node in 0..nodes {
            let counts = if failing { (5, 0) } else { (0, 5) };
            let node = format!("edge-{node}");
            self.call(&[], |registry, rules, now| {
                registry.audience(&record.name, audience);
                registry.observed(
                    rules,
                    &node,
                    &record.name,
                    &record.address,
                    counts.0,
                    counts.1,
                    now,
                );
            });
        }
    }

    /// The process ends and another begins, with nothing but the store.
    fn restart(&mut self) {
        self.registry = Registry::new(self.highest);
        self.orders.clear();
        self.losses.clear();
        self.read = 0;
        self.reader.clear();
        let records: Vec<_> = self.truths.values().map(|t| t.record.clone()).collect();
        let all = std::mem::take(&mut self.truths);
        for record in records {
            let mut truth = Truth {
                last_sign: self.listened,
                last_probe: None,
                confirmed: false,
                lost: None,
                ..all_of(&all[&record.id])
            };
            truth.next_beat = self.tick + 1000;
            self.truths.insert(record.id.clone(), truth);
            self.call(&[], |registry, rules, now| {
                registry.restore(rules, record, now)
            })
            .expect("accepted");
        }
    }

    /// The reader learns of every list that it does not know.
    fn catch_up(&mut self) {
        let since = self.registry.changed_since(self.read);
        if since.gap {
            self.reader = { self.registry.services.iter() }
                .map(|(name, service)| (name.clone(), service.version))
                .collect();
        }
        for change in since.changes {
            self.reader.insert(change.service, change.version);
        }
        self.read = since.sequence;
        for (name, service) in &self.registry.services {
            if service.sequence > 0 {
                assert_eq!(
                    self.reader.get(name),
                    Some(&service.version),
                    "seed {}",
                    self.seed
                );
            }
        }
    }

    /// Everything heals: whoever is registered is served again. Then everything dies: nobody is left.
    fn end(&mut self) {
        self.partition = false;
        self.lossy = false;
        self.rules.probe.enabled = true;
        for truth in self.truths.values_mut() {
            truth.alive = true;
            truth.refuses = false;
            truth.cut_off = false;
        }
        self.pass(180_000);
        for truth in self.truths.values() {
            let id = &truth.record.id;
            let entry = self.registry.entry(id).expect("there");
            let wanted = match truth.record.health {
                Health::Unknown => State::Starting,
                _ => State::Active,
            };
            assert_eq!(
                entry.state, wanted,
                "seed {}: {id} beats and answers",
                self.seed
            );
            assert_eq!(
                entry.shown,
                truth.record.health.serves(),
                "seed {}",
                self.seed
            );
        }
        for truth in self.truths.values_mut() {
            truth.alive = false;
            truth.refuses = true;
        }
        self.pass(60_000);
        for name in SERVICES {
            let found = self.registry.lookup(&self.rules, name, self.now());
            assert!(
                found.is_empty(),
                "seed {}: absent after 60 s (REG-302)",
                self.seed
            );
        }
        self.pass(120_000);
        assert!(self.registry.ids.is_empty() && self.registry.addresses.is_empty());
        assert!(self.registry.agenda.is_empty() && self.registry.services.is_empty());
    }
}

fn all_of(truth: &Truth) -> Truth {
    Truth {
        record: truth.record.clone(),
        ..*truth
    }
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..world.chance.usize(20..120) {
        world.step();
    }
    world.end();
}

#[test]
fn random_histories_break_no_promise() {
    if let Ok(seed) = std::env::var("TOLLGATE_SIMULATION") {
        return history(seed.parse().expect("a seed"));
    }
    let cases: u64 = std::env::var("TOLLGATE_FUZZ_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(300);
    for seed in 0..cases {
        history(seed);
    }
}
