//! Random histories of a rollout: nodes that come and go, noise, bursts, quiet times, restarts of the control plane at any
//! step, and revisions that are good or bad in a known way. After each step it is checked that nobody has what was not
//! written down, that numbers of nodes only grow, and that what ended stays so; at the end, that what is bad was found and
//! what is good was let through. `TOLLGATE_SIMULATION=seed` plays one history alone.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use tollgate_config::feed::{Figures, Tally};

use super::tests::{Fleet, staged};
use super::*;

/// What the revision does to the requests of the nodes that have it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Truth {
    Good,
    /// So large a share more fails.
    Fails(f64),
    /// So large a share more is slow.
    Slows(f64),
    /// Nodes refuse it.
    Refused,
}

struct World {
    rng: Rng,
    fleet: Fleet,
    truth: Truth,
    /// What fails anyway.
    share: f64,
    rate: u64,
    /// A burst of failures everywhere, for so many more seconds.
    burst: u64,
    /// The same on one node only.
    local: Option<(usize, u64)>,
    had: BTreeSet<String>,
    stage: usize,
}

impl World {
    fn new(seed: u64, truth: Truth) -> World {
        let mut rng = Rng::with_seed(seed);
        let count = rng.usize(3..9);
        World {
            fleet: Fleet::of(count, staged()),
            truth,
            share: 0.02 * rng.f64(),
            rate: rng.u64(10..80),
            burst: 0,
            local: None,
            had: BTreeSet::new(),
            stage: 0,
            rng,
        }
    }

    fn serve(&mut self) {
        for number in 0..self.fleet.nodes.len() {
            let node = self.fleet.nodes[number].clone();
            if !node.connected {
                continue;
            }
            let mut fails = self.share;
            if self.burst > 0 || self.local.is_some_and(|(at, _)| at == number) {
                fails += 0.5;
            }
            let mut slow = 0.02;
            if node.applied {
                match self.truth {
                    Truth::Fails(more) => fails += more,
                    Truth::Slows(more) => slow += more,
                    Truth::Good | Truth::Refused => {}
                }
            }
            let requests = self.rng.u64(0..=2 * self.rate);
            let mut tally = Tally {
                requests,
                latency: vec![0; 6],
                ..Tally::default()
            };
            for _ in 0..requests {
                tally.errors += u64::from(self.rng.f64() < fails);
                let is_slow = self.rng.f64() < slow;
                tally.latency[if is_slow { 5 } else { 0 }] += 1;
                tally.micros += if is_slow { 200_000 } else { 3000 };
            }
            let figures = Figures {
                instance: "a".to_owned(),
                revision: if node.applied { 8 } else { 7 },
                span: Duration::from_secs(1),
                total: tally.clone(),
                routes: BTreeMap::from([("r".to_owned(), tally)]),
                ..Figures::default()
            };
            let now = self.fleet.now;
            self.fleet.book.take(&node.name, &figures, now);
        }
    }

    /// What happens whatever is rolled out.
    fn weather(&mut self, gentle: bool) {
        let count = self.fleet.nodes.len();
        self.burst = self.burst.saturating_sub(1);
        self.local = { self.local }.and_then(|(at, left)| Some((at, left.checked_sub(1)?)));
        match self.rng.u32(..1000) {
            0..4 if !gentle => self.local = Some((self.rng.usize(..count), self.rng.u64(1..3))),
            4..8 => self.burst = self.rng.u64(1..8),
            _ => {}
        }
    }

    fn second(&mut self, gentle: bool) {
        self.weather(gentle);
        match self.rng.u32(..1000) {
            0..4 if !gentle => {
                let at = self.rng.usize(..self.fleet.nodes.len());
                self.fleet.nodes[at].connected ^= true;
            }
            4..8 => {
                // Another process reads what is written; its book is empty, and nodes report what they run.
                self.fleet.rollout = Rollout::resumed(self.fleet.written.clone(), self.fleet.now);
                self.fleet.book = Book::default();
                self.fleet.book.watch(Some(8));
            }
            _ => {}
        }
        // Who is away comes back at some time.
        for node in &mut self.fleet.nodes {
            if !node.connected && self.rng.u32(..20) == 0 {
                node.connected = true;
            }
            node.applied |= node.connected && self.fleet.written.has(&node.name);
            if self.truth == Truth::Refused && node.applied {
                node.applied = false;
                node.refused = Some("no".to_owned());
            }
        }
        self.serve();
        self.fleet.pass(1);
        self.check();
    }

    fn check(&mut self) {
        let written = &self.fleet.written;
        assert!(written.stage >= self.stage, "stages only grow");
        self.stage = written.stage;
        assert!(written.chosen.is_superset(&self.had) || written.stage() == Stage::All);
        self.had.clone_from(&written.chosen);
        for node in &self.fleet.nodes {
            assert!(
                !node.applied || written.has(&node.name),
                "only whom it was written for"
            );
        }
        let most = match written.stage() {
            Stage::Nodes(nodes) => nodes as usize,
            Stage::Percent(share) => (self.fleet.nodes.len() * share as usize).div_ceil(100),
            Stage::All => usize::MAX,
        };
        assert!(written.chosen.len() <= most, "{written:?}");
    }

    /// How it ended, and how many nodes had it.
    fn play(mut self, gentle: bool) -> (Option<Order>, usize) {
        for _ in 0..300 {
            self.weather(gentle);
            self.serve();
            self.fleet.now += Duration::from_secs(1);
        }
        for _ in 0..3000 {
            self.second(gentle);
            if self.fleet.ended.is_some() {
                break;
            }
            if self.fleet.rollout.record.paused.is_some() && self.rng.u32(..50) == 0 {
                let order = self.fleet.rollout.resume(self.fleet.now);
                self.fleet.take(order);
            }
        }
        let nodes = &self.fleet.nodes;
        let had = nodes
            .iter()
            .filter(|node| self.fleet.written.has(&node.name))
            .count();
        (self.fleet.ended, had)
    }
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = std::env::var("TOLLGATE_SIMULATION")
        .ok()
        .and_then(|text| text.parse().ok())
    {
        return vec![seed];
    }
    let cases = std::env::var("TOLLGATE_FUZZ_CASES").ok();
    let cases = cases.and_then(|text| text.parse().ok()).unwrap_or(60);
    (0..cases).collect()
}

#[test]
fn cp_109_a_good_revision_reaches_all_through_noise_bursts_and_restarts() {
    let seeds = seeds();
    let mut returned = Vec::new();
    for seed in &seeds {
        let (ended, _) = World::new(*seed, Truth::Good).play(false);
        match ended {
            Some(Order::Finish) => {}
            Some(Order::Return(why)) => returned.push((*seed, why)),
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    // A burst that comes again just when it is looked at again is what nobody can tell from the revision's doing.
    assert!(returned.len() * 25 <= seeds.len(), "{returned:?}");
}

#[test]
fn cp_109_a_bad_revision_is_found_while_few_nodes_have_it() {
    let bad = [
        Truth::Fails(1.0),
        Truth::Fails(0.3),
        Truth::Fails(0.1),
        Truth::Slows(0.5),
        Truth::Slows(1.0),
        Truth::Refused,
    ];
    for seed in seeds() {
        let truth = bad[seed as usize % bad.len()];
        let (ended, had) = World::new(seed, truth).play(true);
        assert!(
            matches!(ended, Some(Order::Return(_))),
            "seed {seed}: {truth:?} {ended:?}"
        );
        // A small rise is a matter of how much is served in a stage.
        let most = if truth == Truth::Fails(0.1) { 4 } else { 1 };
        assert!(had <= most, "seed {seed}: {truth:?} reached {had}");
    }
}

#[test]
fn a_bad_revision_never_stays_with_all_whatever_happens_meanwhile() {
    for seed in seeds() {
        let (ended, _) = World::new(seed, Truth::Fails(0.5)).play(false);
        assert!(
            matches!(ended, Some(Order::Return(_))),
            "seed {seed}: {ended:?}"
        );
    }
}
