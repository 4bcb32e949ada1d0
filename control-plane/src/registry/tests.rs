//! One behaviour each, with the times of the table in REG-302.

use std::sync::Arc;
use std::time::Duration;

use super::*;

/// A registry with a clock that the test moves.
struct World {
    registry: Registry,
    rules: Rules,
    seconds: u64,
}

impl World {
    fn new() -> World {
        World {
            registry: Registry::new(0),
            rules: Rules::default(),
            seconds: 0,
        }
    }

    fn now(&self) -> Now {
        Now {
            tick: Duration::from_secs(self.seconds),
            time: 1_000 * self.seconds,
        }
    }

    fn register(&mut self, id: &str) {
        self.register_at(
            id,
            &format!("10.0.0.{}:80", id.len() + id.as_bytes()[0] as usize),
        );
    }

    fn register_at(&mut self, id: &str, address: &str) {
        let now = self.now();
        let record = Arc::new(record(id, address));
        self.registry
            .register(&self.rules, record, Some("test"), now)
            .expect("accepted");
    }

    fn beat(&mut self, id: &str) -> Beat {
        let now = self.now();
        self.registry.beat(&self.rules, id, News::default(), now)
    }

    fn says(&mut self, id: &str, health: Health) -> Beat {
        let news = News {
            health: Some(health),
            ..News::default()
        };
        let now = self.now();
        self.registry.beat(&self.rules, id, news, now)
    }

    /// Lets time pass, a second at a time; whoever is in `beating` beats every 15 s.
    fn pass(&mut self, seconds: u64, beating: &[&str]) {
        for _ in 0..seconds {
            self.seconds += 1;
            if self.seconds.is_multiple_of(15) {
                for id in beating {
                    self.beat(id);
                }
            }
            let now = self.now();
            self.registry.tick(&self.rules, usize::MAX, now);
        }
    }

    /// Answers every order that waits, and those that follow, while time passes.
    fn pass_answering(&mut self, seconds: u64, beating: &[&str], outcome: Outcome) {
        for _ in 0..seconds {
            self.answer(outcome);
            self.pass(1, beating);
        }
        self.answer(outcome);
    }

    fn answer(&mut self, outcome: Outcome) {
        let now = self.now();
        for order in self.registry.effects().probes {
            let id = order.record.id.clone();
            self.registry
                .probe_result(&self.rules, &id, order.number, outcome, now);
        }
    }

    fn observed(&mut self, node: &str, id: &str, failures: u64, successes: u64) {
        let record = self.registry.record(id).expect("registered");
        let now = self.now();
        self.registry.observed(
            &self.rules,
            node,
            "orders",
            &record.address,
            failures,
            successes,
            now,
        );
    }

    fn ids(&self) -> Vec<String> {
        let found = self.registry.lookup(&self.rules, "orders", self.now());
        found
            .iter()
            .map(|seen| seen.record.id.to_string())
            .collect()
    }

    fn state(&self, id: &str) -> Option<State> {
        let all = self.registry.all("orders");
        all.iter()
            .find(|seen| *seen.record.id == *id)
            .map(|s| s.state)
    }

    fn version(&self) -> u64 {
        self.registry.service("orders").expect("there").0
    }
}

fn record(id: &str, address: &str) -> Record {
    Record {
        id: Arc::from(id),
        name: Arc::from("orders"),
        address: Arc::from(address),
        health: Health::Healthy,
        health_endpoint: "/health/ready".to_owned(),
        metadata: Metadata::new(),
        registered_at: 0,
    }
}

#[test]
fn a_silent_instance_is_suspected_then_drained_then_removed_at_the_times_of_the_table() {
    let mut world = World::new();
    world.register("a");
    world.pass(29, &[]);
    assert_eq!(world.state("a"), Some(State::Active));
    world.pass(1, &[]);
    assert_eq!(world.state("a"), Some(State::Suspected));
    assert_eq!(world.registry.effects().probes.len(), 1, "probed at once");
    world.pass(14, &[]);
    assert_eq!(world.ids(), ["a"]);
    world.pass(1, &[]);
    assert_eq!(world.state("a"), Some(State::Draining));
    assert!(world.ids().is_empty());
    world.pass(29, &[]);
    assert_eq!(world.state("a"), Some(State::Draining));
    world.pass(1, &[]);
    assert_eq!(world.state("a"), None);
    let effects = world.registry.effects();
    assert_eq!(effects.removed.len(), 1);
    let last = effects.events.last().expect("an event");
    assert_eq!((last.what, last.cause), (What::Removed, Cause::Silence));
    assert_eq!(world.beat("a"), Beat::Unknown, "so it registers again");
}

#[test]
fn a_lookup_forgets_a_silent_instance_at_the_timeout_and_not_at_the_next_tick() {
    let mut world = World::new();
    world.register("a");
    world.pass(43, &[]);
    world.seconds += 1;
    assert_eq!(world.ids(), ["a"]);
    world.seconds += 1;
    assert!(world.ids().is_empty(), "REG-303");
    assert_eq!(world.state("a"), Some(State::Suspected), "nobody ticked");
}

#[test]
fn a_beat_brings_back_a_suspected_and_a_draining_instance() {
    let mut world = World::new();
    world.register("a");
    world.pass(31, &[]);
    world.beat("a");
    assert_eq!(world.state("a"), Some(State::Active));
    world.pass(50, &[]);
    assert_eq!(world.state("a"), Some(State::Draining));
    world.beat("a");
    assert_eq!(world.state("a"), Some(State::Active));
    assert_eq!(world.ids(), ["a"]);
}

#[test]
fn a_good_probe_keeps_a_silent_instance() {
    let mut world = World::new();
    world.register("a");
    world.pass_answering(300, &[], Outcome::Good);
    assert_eq!(world.ids(), ["a"]);
}

#[test]
fn whoever_answers_at_an_address_that_was_registered_again_does_not_keep_its_former_owner() {
    let mut world = World::new();
    world.register_at("old", "10.0.0.1:80");
    world.pass(10, &[]);
    world.register_at("new", "10.0.0.1:80");
    world.pass_answering(40, &["new"], Outcome::Good);
    assert_eq!(world.ids(), ["new"]);
    world.pass_answering(40, &["new"], Outcome::Good);
    assert_eq!(world.state("old"), None);
}

#[test]
fn a_registration_at_the_address_of_a_silent_instance_replaces_it_at_once() {
    let mut world = World::new();
    world.register_at("old", "10.0.0.1:80");
    world.pass(31, &[]);
    world.register_at("new", "10.0.0.1:80");
    assert_eq!(world.ids(), ["new"]);
    let removed = world.registry.effects().removed;
    assert_eq!(&*removed[0].id, "old");
}

#[test]
fn one_failed_probe_changes_nothing_and_a_beating_instance_is_drained_on_the_word_of_its_machine_only()
 {
    let mut world = World::new();
    world.rules.probe.healthy_interval = Some(Duration::from_secs(30));
    world.register("a");
    world.answer(Outcome::Refused);
    assert_eq!(world.state("a"), Some(State::Active), "REG-305");
    world.pass_answering(60, &["a"], Outcome::Silent);
    assert_eq!(world.state("a"), Some(State::Suspected));
    assert_eq!(world.ids(), ["a"], "the network may be the one that fails");
    world.pass_answering(20, &["a"], Outcome::Refused);
    assert_eq!(world.state("a"), Some(State::Draining));
    world.pass_answering(600, &["a"], Outcome::Refused);
    assert_eq!(
        world.state("a"),
        Some(State::Draining),
        "who beats is not removed"
    );
    let failed = world.registry.effects().probes.len();
    assert!(failed <= 1, "one probe at a time");
    world.pass_answering(15, &["a"], Outcome::Good);
    assert_eq!(
        world.state("a"),
        Some(State::Draining),
        "one success is not enough"
    );
    world.pass_answering(16, &["a"], Outcome::Good);
    assert_eq!(world.state("a"), Some(State::Active));
}

#[test]
fn data_planes_are_believed_when_two_and_more_than_half_of_them_agree_and_a_probe_agrees_too() {
    let mut world = World::new();
    world.register("a");
    world.registry.audience("orders", 5);
    world.observed("edge-1", "a", 12, 0);
    world.observed("edge-2", "a", 3, 1);
    assert_eq!(world.state("a"), Some(State::Active), "two of five");
    world.observed("edge-3", "a", 1, 0);
    assert_eq!(world.state("a"), Some(State::Suspected));
    assert_eq!(world.ids(), ["a"]);
    assert_eq!(world.registry.effects().probes.len(), 1);
    world.observed("edge-1", "a", 0, 7);
    assert_eq!(world.state("a"), Some(State::Active), "two of five again");
    for _ in 0..20 {
        for node in ["edge-1", "edge-2", "edge-3"] {
            world.observed(node, "a", 9, 0);
        }
        world.pass(15, &["a"]);
        world.registry.effects();
    }
    assert_eq!(
        world.state("a"),
        Some(State::Suspected),
        "never by observation alone"
    );
    for _ in 0..3 {
        for node in ["edge-1", "edge-2", "edge-3"] {
            world.observed(node, "a", 9, 0);
        }
        world.pass_answering(20, &["a"], Outcome::Silent);
    }
    assert_eq!(world.state("a"), Some(State::Draining), "two witnesses");
    world.pass(120, &["a"]);
    assert_eq!(world.ids(), ["a"], "what they saw is too old, and it beats");
}

#[test]
fn a_single_data_plane_convicts_nobody() {
    let mut world = World::new();
    world.register("a");
    world.observed("edge-1", "a", 100, 0);
    assert_eq!(world.state("a"), Some(State::Active));
}

#[test]
fn of_ten_instances_that_fall_silent_together_three_leave_in_a_minute() {
    let mut world = World::new();
    let ids: Vec<String> = ('a'..='j').map(String::from).collect();
    for (number, id) in ids.iter().enumerate() {
        world.register_at(id, &format!("10.0.0.{number}:80"));
    }
    world.pass_answering(46, &[], Outcome::Silent);
    assert_eq!(world.ids().len(), 7);
    assert_eq!(world.registry.counts().1, 7, "held, and counted");
    world.pass_answering(58, &[], Outcome::Silent);
    assert_eq!(world.ids().len(), 7);
    world.pass_answering(2, &[], Outcome::Silent);
    assert_eq!(world.ids().len(), 5, "2.1 of 7");
    let survivor = world.ids().remove(0);
    world.beat(&survivor);
    assert_eq!(world.registry.counts().1, 4);
    for _ in 0..30 {
        let now = world.now();
        for order in world.registry.effects().probes {
            let id = order.record.id.clone();
            let outcome = match *id == *survivor {
                true => Outcome::Good,
                false => Outcome::Refused,
            };
            world
                .registry
                .probe_result(&world.rules, &id, order.number, outcome, now);
        }
        world.pass(1, &[&survivor]);
    }
    assert_eq!(world.ids(), [survivor], "their machines confirm it");
}

#[test]
fn an_operator_confirms_a_mass_loss() {
    let mut world = World::new();
    for id in ["a", "b", "c", "d"] {
        world.register(id);
    }
    world.pass(46, &[]);
    assert_eq!(world.ids().len(), 3);
    let now = world.now();
    assert_eq!(
        world
            .registry
            .confirm(&world.rules, "orders", Some("ops"), now),
        3
    );
    assert!(world.ids().is_empty());
    assert_eq!(world.registry.confirm(&world.rules, "orders", None, now), 0);
}

#[test]
fn an_instance_that_says_it_is_not_ready_is_known_and_never_returned() {
    let mut world = World::new();
    let mut starting = record("a", "10.0.0.1:80");
    starting.health = Health::Unknown;
    let now = world.now();
    let starting = Arc::new(starting);
    world
        .registry
        .register(&world.rules, starting, None, now)
        .expect("accepted");
    assert_eq!(world.state("a"), Some(State::Starting), "REG-106");
    assert!(world.ids().is_empty());
    assert!(matches!(world.says("a", Health::Healthy), Beat::Changed(_)));
    assert_eq!(
        (world.state("a"), world.ids().len()),
        (Some(State::Active), 1)
    );
    world.says("a", Health::Unhealthy);
    assert!(world.ids().is_empty(), "its own word needs no confirmation");
    assert_eq!(world.state("a"), Some(State::Active));
}

#[test]
fn degraded_instances_come_last() {
    let mut world = World::new();
    world.register("a");
    world.register("b");
    world.says("a", Health::Degraded);
    assert_eq!(world.ids(), ["b", "a"], "REG-202");
}

#[test]
fn an_instance_that_comes_and_goes_has_to_prove_itself() {
    let mut world = World::new();
    world.register("a");
    for _ in 0..3 {
        world.pass(46, &[]);
        assert_eq!(world.state("a"), Some(State::Draining));
        world.beat("a");
    }
    assert_eq!(world.state("a"), Some(State::Draining), "the third time");
    world.pass(5, &[]);
    world.beat("a");
    assert_eq!(world.state("a"), Some(State::Active), "two signs in a row");
}

#[test]
fn a_registry_that_was_stopped_for_an_hour_loses_nobody() {
    let mut world = World::new();
    for id in ["a", "b", "c"] {
        world.register(id);
    }
    world.pass(14, &[]);
    world.seconds += 3600;
    world.pass(1, &[]);
    assert_eq!(world.ids().len(), 3);
    assert_eq!(world.state("a"), Some(State::Active), "nobody listened");
}

#[test]
fn the_wall_clock_decides_nothing() {
    let mut world = World::new();
    world.register("a");
    let now = Now {
        tick: Duration::from_secs(1),
        time: u64::MAX,
    };
    world.registry.tick(&world.rules, 10, now);
    assert_eq!(world.state("a"), Some(State::Active));
}

#[test]
fn restored_instances_are_suspected_until_they_beat_or_answer() {
    let mut world = World::new();
    let now = world.now();
    for id in ["a", "b", "c", "d"] {
        let record = Arc::new(record(id, &format!("10.0.0.{id}:80")));
        world
            .registry
            .restore(&world.rules, record, now)
            .expect("accepted");
    }
    assert_eq!(world.ids().len(), 4, "served meanwhile");
    assert_eq!(world.state("a"), Some(State::Suspected), "REG-501");
    world.beat("a");
    assert_eq!(world.state("a"), Some(State::Active));
    let orders = world.registry.effects().probes;
    for (order, outcome) in orders.iter().zip([
        Outcome::Good,
        Outcome::Good,
        Outcome::Refused,
        Outcome::Refused,
    ]) {
        let id = &order.record.id;
        world
            .registry
            .probe_result(&world.rules, id, order.number, outcome, now);
    }
    assert_eq!(world.state("b"), Some(State::Active));
    world.pass(46, &["a", "b"]);
    assert_eq!(world.ids(), ["a", "b"]);
}

#[test]
fn a_version_rises_by_one_with_each_change_that_can_be_seen() {
    let mut world = World::new();
    world.register("a");
    assert_eq!(world.version(), 1);
    world.register("a");
    world.beat("a");
    world.pass(31, &[]);
    assert_eq!(world.version(), 1, "suspicion is no news");
    world.says("a", Health::Degraded);
    assert_eq!(world.version(), 2);
    let figures = |name: &str| News {
        metadata: Some(Metadata::from([(name.to_owned(), "7".to_owned())])),
        ..News::default()
    };
    let now = world.now();
    world
        .registry
        .beat(&world.rules, "a", figures("load_cpu"), now);
    assert_eq!(world.version(), 2, "a load figure is no news");
    world.registry.beat(&world.rules, "a", figures("zone"), now);
    assert_eq!(world.version(), 3);
    world.registry.deregister("a", None, now);
    assert_eq!(world.version(), 4);
}

#[test]
fn a_name_that_was_dropped_comes_back_with_a_higher_version() {
    let mut world = World::new();
    let before = world.registry.changed_since(0);
    world.register("a");
    let now = world.now();
    world.registry.deregister("a", None, now);
    let last = world.version();
    world.pass(31, &[]);
    assert!(world.registry.service("orders").is_none());
    assert!(
        world.registry.changed_since(before.sequence).gap,
        "a reader must compare all"
    );
    world.register("a");
    assert!(world.version() > last);
    let since = world.registry.changed_since(before.sequence);
    assert_eq!(since.changes.len(), 1);
    let again = world.registry.changed_since(since.sequence);
    assert!(again.changes.is_empty() && !again.gap);
}

#[test]
fn an_id_belongs_to_one_service_and_numbers_are_bounded() {
    let mut world = World::new();
    world.rules.lifecycle.max_instances = 3;
    world.rules.lifecycle.max_per_service = 2;
    world.register("a");
    world.register("b");
    let now = world.now();
    let mut register = |id: &str, name: &str| {
        let mut record = record(id, "10.0.0.9:80");
        record.name = Arc::from(name);
        world
            .registry
            .register(&world.rules, Arc::new(record), None, now)
    };
    assert_eq!(register("c", "orders"), Err(Refusal::ServiceFull));
    assert_eq!(
        register("a", "users"),
        Err(Refusal::OtherService("orders".into()))
    );
    assert_eq!(register("c", "users"), Ok(()));
    assert_eq!(register("d", "users"), Err(Refusal::Full));
    assert_eq!(register("c", "users"), Ok(()), "again is no addition");
}

#[test]
fn metadata_stays_bounded_however_many_beats_bring_some() {
    let mut world = World::new();
    world.register("a");
    let now = world.now();
    for number in 0..MOST_METADATA {
        let metadata = Metadata::from([(format!("m{number}"), "1".to_owned())]);
        let news = News {
            metadata: Some(metadata),
            ..News::default()
        };
        assert_eq!(
            world.registry.beat(&world.rules, "a", news, now),
            Beat::Kept
        );
    }
    let news = News {
        metadata: Some(Metadata::from([("more".to_owned(), "1".to_owned())])),
        ..News::default()
    };
    assert_eq!(
        world.registry.beat(&world.rules, "a", news, now),
        Beat::TooMuchMetadata
    );
}
