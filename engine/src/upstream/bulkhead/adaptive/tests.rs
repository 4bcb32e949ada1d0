//! The adaptive limit before simulated servers: so many requests at the same time and no more, the others queue inside.
//! Time and chance are the simulation's; invariants are checked after each answer.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const BOUNDS: RangeInclusive<u32> = 3..=10_000;

/// A server that does `capacity` things at a time, each for about `takes`.
struct Simulation {
    controller: Controller,
    now: u64,
    chance: Rng,
    capacity: usize,
    takes: u64,
    /// When each of the server's hands is free.
    hands: BinaryHeap<Reverse<u64>>,
    /// Finish, begin.
    under_way: BinaryHeap<Reverse<(u64, u64)>>,
    /// Requests that clients would have in flight, if they were let.
    demand: usize,
    answered: u64,
    least: u32,
}

impl Simulation {
    fn new(capacity: usize, takes: u64, demand: usize, seed: u64) -> Self {
        Simulation {
            controller: Controller::default(),
            now: 3600 * SECOND,
            chance: Rng::with_seed(seed),
            capacity,
            takes,
            hands: BinaryHeap::new(),
            under_way: BinaryHeap::new(),
            demand,
            answered: 0,
            least: u32::MAX,
        }
    }

    /// Half as long to half longer than usual.
    fn work(&mut self) -> u64 {
        let share = 0.5 + self.chance.f64();
        (self.takes as f64 * share) as u64
    }

    fn run(&mut self, span: u64) {
        let until = self.now + span;
        while self.now < until {
            let limit = self.controller.limit(&BOUNDS);
            assert!(BOUNDS.contains(&limit), "{limit}");
            self.least = self.least.min(limit);
            while self.under_way.len() < self.demand.min(limit as usize) {
                let free = if self.hands.len() < self.capacity {
                    self.now
                } else {
                    let Reverse(free) = self.hands.pop().unwrap();
                    free.max(self.now)
                };
                let finish = free + self.work();
                self.hands.push(Reverse(finish));
                self.under_way.push(Reverse((finish, self.now)));
            }
            while self.hands.len() > self.capacity {
                self.hands.pop();
            }
            let in_flight = self.under_way.len() as u32;
            let Reverse((finish, began)) = self.under_way.pop().unwrap();
            self.now = finish;
            self.answered += 1;
            self.controller
                .learn(Moment(began), in_flight, &BOUNDS, Moment(finish));
        }
    }

    /// The mean of the limit over so long a time.
    fn limit_over(&mut self, seconds: u64) -> f64 {
        let looks = seconds * 10;
        let mut sum = 0.0;
        for _ in 0..looks {
            self.run(SECOND / 10);
            sum += f64::from(self.controller.limit(&BOUNDS));
        }
        sum / looks as f64
    }
}

#[test]
fn under_more_demand_than_can_be_met_the_limit_settles_a_little_above_what_the_server_does_at_a_time()
 {
    for (capacity, takes) in [
        (4, 20 * MS),
        (16, 5 * MS),
        (64, 50 * MS),
        (200, 10 * MS),
        (16, 500 * MS),
    ] {
        for seed in 0..4 {
            let mut simulation = Simulation::new(capacity, takes, 4 * capacity + 50, seed);
            simulation.run(600 * takes.max(100 * MS));
            simulation.least = u32::MAX;
            let before = simulation.answered;
            let limit = simulation.limit_over(60) / capacity as f64;
            assert!(
                (1.0..2.0).contains(&limit),
                "{limit} of {capacity} in {takes}, seed {seed}"
            );
            let possible = 60.0 * SECOND as f64 / takes as f64 * capacity as f64;
            let done = (simulation.answered - before) as f64 / possible;
            assert!(done > 0.95, "{done} of {capacity} in {takes}, seed {seed}");
            assert!(
                f64::from(simulation.least) >= 0.4 * capacity as f64,
                "traffic is never starved to measure: {} of {capacity}",
                simulation.least
            );
        }
    }
}

#[test]
fn an_hour_at_the_edge_does_not_move_the_baseline_away() {
    let mut simulation = Simulation::new(16, 20 * MS, 200, 7);
    simulation.run(3600 * SECOND);
    let limit = simulation.limit_over(60);
    assert!((16.0..32.0).contains(&limit), "{limit}");
    let baseline = simulation.controller.baseline / (20 * MS) as f64;
    assert!((0.7..1.3).contains(&baseline), "{baseline}");
}

#[test]
fn after_a_slow_down_the_limit_comes_back() {
    for seed in 0..4 {
        let mut simulation = Simulation::new(32, 10 * MS, 300, seed);
        simulation.run(60 * SECOND);
        simulation.takes = 100 * MS;
        simulation.run(60 * SECOND);
        let slow = simulation.limit_over(10);
        assert!(
            (16.0..70.0).contains(&slow),
            "slower for good is no reason to do less at a time: {slow}"
        );
        simulation.takes = 10 * MS;
        simulation.run(30 * SECOND);
        let limit = simulation.limit_over(30);
        assert!((32.0..64.0).contains(&limit), "{limit}");
    }
}

#[test]
fn fewer_hands_mean_a_lower_limit_within_seconds() {
    let mut simulation = Simulation::new(64, 20 * MS, 400, 1);
    simulation.run(60 * SECOND);
    simulation.capacity = 16;
    simulation.run(10 * SECOND);
    let limit = simulation.limit_over(10);
    assert!((16.0..40.0).contains(&limit), "{limit}");
}

#[test]
fn without_pressure_the_limit_stays_out_of_the_way() {
    let mut simulation = Simulation::new(64, 10 * MS, 8, 1);
    simulation.run(60 * SECOND);
    assert!(simulation.least >= 16, "{}", simulation.least);
    let mut simulation = Simulation::new(640, 10 * MS, 100, 1);
    simulation.run(60 * SECOND);
    simulation.least = u32::MAX;
    simulation.run(60 * SECOND);
    assert!(simulation.least >= 100, "{}", simulation.least);
}

#[test]
fn a_stall_takes_the_limit_to_its_floor_at_most_and_ends() {
    let mut simulation = Simulation::new(16, 10 * MS, 200, 3);
    simulation.run(60 * SECOND);
    simulation.takes = 10 * SECOND;
    simulation.run(300 * SECOND);
    simulation.takes = 10 * MS;
    simulation.run(60 * SECOND);
    let limit = simulation.limit_over(10);
    assert!((16.0..32.0).contains(&limit), "{limit}");
}
