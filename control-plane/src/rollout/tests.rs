//! One rule each, with as few nodes as show it.

use std::collections::BTreeMap;

use tollgate_config::control_plane::Rollout as Settings;
use tollgate_config::feed::{Figures, Tally};

use super::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A fleet whose nodes do what they are told at once, unless a test says otherwise.
pub(super) struct Fleet {
    pub(super) nodes: Vec<Seen>,
    pub(super) book: Book,
    pub(super) now: Duration,
    pub(super) rollout: Rollout,
    /// What is written down.
    pub(super) written: Record,
    pub(super) ended: Option<Order>,
    obeys: bool,
}

impl Fleet {
    pub(super) fn of(count: usize, settings: Settings) -> Fleet {
        let node = |number| Seen {
            name: format!("edge-{number}"),
            connected: true,
            affected: true,
            applied: false,
            refused: None,
        };
        let plan = Plan {
            settings,
            first: vec!["edge-0".to_owned()],
        };
        let record = Record::begin(8, 7, plan, "test", 0);
        Fleet {
            nodes: (0..count).map(node).collect(),
            book: Book::default(),
            now: s(1000),
            rollout: Rollout::new(record.clone(), s(1000)),
            written: record,
            ended: None,
            obeys: true,
        }
    }

    pub(super) fn serve(&mut self, number: usize, requests: u64, errors: u64) {
        let tally = Tally {
            requests,
            errors,
            micros: requests * 2000,
            latency: vec![requests],
            ..Tally::default()
        };
        let figures = Figures {
            instance: "a".to_owned(),
            revision: if self.nodes[number].applied { 8 } else { 7 },
            span: s(5),
            total: tally.clone(),
            routes: BTreeMap::from([("r".to_owned(), tally)]),
            ..Figures::default()
        };
        let name = self.nodes[number].name.clone();
        self.book.take(&name, &figures, self.now);
    }

    /// All nodes serve so many requests, and fail so many of them.
    pub(super) fn all(&mut self, requests: u64, errors: u64) {
        (0..self.nodes.len()).for_each(|number| self.serve(number, requests, errors));
    }

    pub(super) fn pass(&mut self, seconds: u64) -> Option<Order> {
        self.now += s(seconds);
        let order = self.rollout.step(&self.nodes, &mut self.book, self.now);
        if let Some(order) = &order {
            self.take(order.clone());
        }
        order
    }

    pub(super) fn take(&mut self, order: Order) {
        match order {
            Order::Save => self.written = self.rollout.record.clone(),
            end => self.ended = Some(end),
        }
        let record = &self.written;
        for node in self.nodes.iter_mut().filter(|_| self.obeys) {
            node.applied |= node.connected && node.affected && record.has(&node.name);
        }
    }

    fn has(&self) -> Vec<&str> {
        let applied = self.nodes.iter().filter(|node| node.applied);
        applied.map(|node| node.name.as_str()).collect()
    }

    /// Into the first stage, whose node runs the revision.
    fn begun(count: usize) -> Fleet {
        let mut fleet = Fleet::of(count, staged());
        fleet.all(500, 0);
        assert_eq!(fleet.pass(1), Some(Order::Save));
        assert_eq!(fleet.has(), ["edge-0"]);
        fleet
    }
}

pub(super) fn staged() -> Settings {
    Settings {
        stages: Stage::list("1, 50%, all").expect("good"),
        hold: s(30),
        wait: s(600),
        ..Settings::default()
    }
}

#[test]
fn cp_109_a_good_revision_goes_stage_by_stage_to_all() {
    let mut fleet = Fleet::begun(4);
    let mut seen = vec![1];
    for _ in 0..200 {
        fleet.pass(1);
        fleet.all(20, 0);
        if seen.last() != Some(&fleet.has().len()) {
            seen.push(fleet.has().len());
        }
        if fleet.ended.is_some() {
            break;
        }
    }
    assert_eq!(seen, [1, 2, 4]);
    assert_eq!(fleet.ended, Some(Order::Finish));
    let lasted = fleet.now - s(1000);
    assert!(
        lasted > s(90) && lasted < s(110),
        "three stages of 30 s: {lasted:?}"
    );
}

#[test]
fn cp_109_a_revision_that_makes_errors_returns_with_the_reason_in_words() {
    let mut fleet = Fleet::begun(4);
    for _ in 0..20 {
        fleet.pass(1);
        fleet.serve(0, 50, 10);
        (1..4).for_each(|number| fleet.serve(number, 50, 0));
    }
    let Some(Order::Return(why)) = &fleet.ended else {
        panic!("{:?}", fleet.ended)
    };
    assert!(
        why.starts_with("answers of 500 and above on route `r`: 20.0 % of"),
        "{why}"
    );
    assert!(
        why.contains("before 0 % of 500, on the other nodes 0 % of"),
        "{why}"
    );
    assert!(why.ends_with(", on edge-0"), "{why}");
    assert_eq!(fleet.has(), ["edge-0"], "nobody else had it");
}

#[test]
fn what_fails_almost_always_needs_no_second_look() {
    let mut fleet = Fleet::begun(3);
    fleet.serve(0, 40, 40);
    fleet.serve(1, 40, 0);
    assert!(matches!(fleet.pass(1), Some(Order::Return(_))));
}

#[test]
fn a_burst_that_is_over_does_not_return_and_holds_the_stage_until_it_is_diluted() {
    let mut fleet = Fleet::begun(3);
    fleet.pass(1);
    fleet.serve(0, 100, 30);
    fleet.pass(1);
    assert!(fleet.rollout.suspicion().is_some());
    for _ in 0..600 {
        fleet.all(50, 0);
        fleet.pass(1);
        assert!(
            !matches!(fleet.ended, Some(Order::Return(_))),
            "{:?}",
            fleet.ended
        );
    }
    assert_eq!(fleet.ended, Some(Order::Finish));
}

#[test]
fn a_node_that_refuses_the_revision_sends_it_back_at_once() {
    let mut fleet = Fleet::begun(3);
    fleet.nodes[0].refused = Some("shop.toml:3:1: no such file".to_owned());
    let order = fleet.pass(1);
    let why = "edge-0 refused it: shop.toml:3:1: no such file".to_owned();
    assert_eq!(order, Some(Order::Return(why)));
}

#[test]
fn roll_305_the_clock_of_a_stage_starts_when_its_nodes_run_the_revision() {
    let mut fleet = Fleet::of(3, staged());
    fleet.obeys = false;
    fleet.all(500, 0);
    fleet.pass(1);
    for _ in 0..500 {
        assert_eq!(fleet.pass(1), None);
    }
    assert!(fleet.rollout.waits_for().contains("edge-0 to run it"));
    for _ in 0..200 {
        fleet.pass(1);
    }
    let paused = fleet.rollout.record.paused.clone();
    assert_eq!(
        paused.as_deref(),
        Some("waited in vain for edge-0 to run it")
    );
    assert!(fleet.ended.is_none());
}

#[test]
fn roll_312_without_traffic_nothing_is_promoted_by_itself() {
    let mut fleet = Fleet::begun(3);
    for _ in 0..629 {
        assert_eq!(fleet.pass(1), None);
    }
    assert!(fleet.rollout.waits_for().contains("0 of 100"));
    assert_eq!(fleet.pass(10), Some(Order::Save));
    assert!(
        fleet
            .rollout
            .record
            .paused
            .as_deref()
            .is_some_and(|why| why.contains("requests"))
    );
    for _ in 0..2000 {
        assert_eq!(fleet.pass(1), None);
    }
    // A person may: to the second stage, and through the others.
    let order = fleet.rollout.promote(false, fleet.now);
    fleet.take(order);
    fleet.pass(1);
    assert_eq!(fleet.has().len(), 2);
    let order = fleet.rollout.promote(true, fleet.now);
    fleet.take(order);
    assert_eq!(fleet.has().len(), 3);
    let order = fleet.rollout.promote(true, fleet.now);
    assert_eq!(order, Order::Finish);
}

#[test]
fn who_says_so_may_go_on_without_traffic() {
    let settings = Settings {
        without_traffic: WithoutTraffic::Continue,
        wait: s(10),
        ..staged()
    };
    let mut fleet = Fleet::of(3, settings);
    for _ in 0..200 {
        fleet.pass(1);
    }
    assert_eq!(fleet.ended, Some(Order::Finish));
}

#[test]
fn a_pause_stops_progress_and_not_the_watch() {
    let mut fleet = Fleet::begun(3);
    let order = fleet.rollout.pause("paused by somebody".to_owned());
    fleet.take(order);
    for _ in 0..2000 {
        fleet.all(20, 0);
        assert_eq!(fleet.pass(1), None);
    }
    let order = fleet.rollout.resume(fleet.now);
    fleet.take(order);
    fleet.pass(1);
    fleet.pass(1);
    assert_eq!(fleet.has().len(), 2, "it goes on");
    let order = fleet.rollout.pause("again".to_owned());
    fleet.take(order);
    for _ in 0..10 {
        fleet.serve(0, 50, 50);
        (1..3).for_each(|number| fleet.serve(number, 50, 0));
        fleet.pass(1);
        if fleet.ended.is_some() {
            break;
        }
    }
    assert!(matches!(fleet.ended, Some(Order::Return(_))));
}

#[test]
fn a_chosen_node_that_dies_is_waited_for_and_nobody_takes_its_place() {
    let mut fleet = Fleet::begun(3);
    fleet.nodes[0].connected = false;
    for _ in 0..2000 {
        fleet.serve(1, 20, 0);
        fleet.pass(1);
    }
    assert_eq!(fleet.has(), ["edge-0"]);
    let paused = fleet.rollout.record.paused.clone().unwrap_or_default();
    assert!(paused.contains("edge-0, which is away"), "{paused}");
}

#[test]
fn what_says_nothing_new_to_anybody_is_done_at_once() {
    let mut fleet = Fleet::of(3, staged());
    fleet
        .nodes
        .iter_mut()
        .for_each(|node| node.affected = false);
    assert_eq!(fleet.pass(1), Some(Order::Finish));
    let mut nobody = Fleet::of(0, staged());
    assert_eq!(nobody.pass(1), None, "the first node may come");
}

#[test]
fn another_process_goes_on_with_the_stage_and_the_same_nodes() {
    let mut fleet = Fleet::begun(4);
    fleet.all(200, 0);
    fleet.pass(20);
    let text = serde_json::to_string(&fleet.written).expect("text");
    let record: Record = serde_json::from_str(&text).expect("a record");
    assert_eq!(record, fleet.written);
    fleet.rollout = Rollout::resumed(record, fleet.now);
    fleet.book = Book::default();
    assert_eq!(fleet.pass(1), None, "nothing new is written");
    for _ in 0..28 {
        fleet.all(20, 0);
        fleet.pass(1);
    }
    assert_eq!(fleet.has(), ["edge-0"], "the stage's time begins anew");
    for _ in 0..5 {
        fleet.pass(1);
    }
    assert_eq!(fleet.has().len(), 2);
}

#[test]
fn who_shall_go_first_is_waited_for_also_after_a_restart() {
    let mut fleet = Fleet::of(3, staged());
    fleet.rollout = Rollout::resumed(fleet.written.clone(), fleet.now);
    fleet
        .nodes
        .iter_mut()
        .for_each(|node| node.connected = false);
    assert_eq!(fleet.pass(1), None);
    fleet.nodes[1].connected = true;
    assert_eq!(fleet.pass(60), None);
    assert_eq!(fleet.rollout.waits_for(), "edge-0, which shall go first");
    fleet.nodes[0].connected = true;
    fleet.pass(1);
    assert_eq!(fleet.has(), ["edge-0"]);
}

#[test]
fn after_a_restart_the_first_to_come_back_is_not_taken_for_the_fleet() {
    let mut fleet = Fleet::of(9, staged());
    fleet.rollout.record.plan.first.clear();
    let mut other = fleet.rollout.record.clone();
    fleet.pass(1);
    let chosen = fleet.written.chosen.clone();
    other.chosen.clear();
    fleet.rollout = Rollout::resumed(other, fleet.now);
    let away = |node: &mut Seen| node.connected = !chosen.contains(&node.name);
    fleet.nodes.iter_mut().for_each(away);
    assert_eq!(fleet.pass(1), None);
    fleet
        .nodes
        .iter_mut()
        .for_each(|node| node.connected = true);
    fleet.pass(5);
    assert_eq!(fleet.written.chosen, chosen);
}
