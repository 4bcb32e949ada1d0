//! Outliers in a simulation: requests at a fixed rate, endpoints that fail, are slow or want less from some moment on.
//! Time and chance are the simulation's. (GW-705, HI-50.)

use super::*;

const RATE: u64 = 200;

/// What an endpoint does with a request.
#[derive(Debug, Clone, Copy)]
enum Nature {
    /// Fails this share of its requests, at once.
    Fails(f64),
    /// Answers so many requests a second and refuses the others, at once.
    Admits(u64),
}

struct Simulation {
    upstream: Upstream,
    natures: Vec<Nature>,
    now: Instant,
    chance: Rng,
    /// Since the last `run` began, by endpoint.
    picks: Vec<u32>,
    failures: u32,
    /// Of endpoints that bound what they admit.
    admitted: Vec<u64>,
    second: u64,
    /// In milliseconds since the last `run` began.
    last_pick: Vec<Option<u128>>,
}

impl Simulation {
    fn new(balance: Balance, endpoints: usize, seed: u64) -> Self {
        let now = Instant::now();
        let upstream = upstream(balance, &vec![1; endpoints], now);
        Simulation {
            upstream,
            natures: vec![Nature::Fails(0.0); endpoints],
            now,
            chance: Rng::with_seed(seed),
            picks: vec![0; endpoints],
            failures: 0,
            admitted: vec![0; endpoints],
            second: 0,
            last_pick: vec![None; endpoints],
        }
    }

    fn run(&mut self, span: Duration) {
        let begun = self.now;
        let endpoints: Vec<_> = self.upstream.endpoints().iter().cloned().collect();
        self.picks.fill(0);
        self.last_pick.fill(None);
        self.failures = 0;
        while self.now - begun < span {
            self.now += Duration::from_micros(1_000_000 / RATE);
            let second = (self.now - begun).as_secs();
            if second != self.second {
                self.second = second;
                self.admitted.fill(0);
            }
            let slot = self
                .upstream
                .pick(
                    Some(self.chance.u64(..)),
                    &[],
                    self.now,
                    self.chance.u64(..),
                )
                .unwrap();
            let id = slot.endpoint().id();
            let position = endpoints
                .iter()
                .position(|endpoint| endpoint.id() == id)
                .unwrap();
            self.picks[position] += 1;
            self.last_pick[position] = Some((self.now - begun).as_millis());
            let (outcome, took) = match self.natures[position] {
                Nature::Fails(share) if self.chance.f64() < share => (Outcome::Failure, 1),
                Nature::Fails(_) => (Outcome::Success, 10),
                Nature::Admits(rate) if self.admitted[position] < rate => {
                    self.admitted[position] += 1;
                    (Outcome::Success, 10)
                }
                Nature::Admits(_) => (Outcome::RateLimited, 1),
            };
            self.failures += u32::from(outcome == Outcome::Failure);
            let mut slot = slot;
            let end = self.now + Duration::from_millis(took);
            slot.first_byte(end);
            slot.finish(outcome, end);
            let out = endpoints
                .iter()
                .filter(|endpoint| !endpoint.is_healthy(self.now))
                .count();
            assert!(out <= endpoints.len() / 2, "never more than half");
        }
    }
}

#[test]
fn hi_50_within_half_a_second_at_200_a_second_nothing_goes_to_an_endpoint_that_fails() {
    for balance in POLICIES {
        for endpoints in 2..=10 {
            for seed in 0..3 {
                let mut simulation = Simulation::new(balance.clone(), endpoints, seed);
                simulation.run(Duration::from_secs(30));
                simulation.natures[0] = Nature::Fails(1.0);
                simulation.run(Duration::from_secs(5));
                let last = simulation.last_pick[0];
                assert!(
                    last.is_none_or(|last| last <= 500),
                    "{balance:?} of {endpoints}, seed {seed}: {last:?} ms"
                );
                assert!(simulation.failures <= 5, "{}", simulation.failures);
            }
        }
    }
}

#[test]
fn hi_50_an_endpoint_that_fails_half_of_its_requests_is_found_by_comparing() {
    for balance in POLICIES {
        for seed in 0..3 {
            let mut simulation = Simulation::new(balance.clone(), 4, seed);
            simulation.run(Duration::from_secs(30));
            simulation.natures[2] = Nature::Fails(0.5);
            simulation.run(Duration::from_millis(2_500));
            simulation.run(Duration::from_secs(5));
            // With "peak_ewma" it is avoided before there is enough to compare.
            let most = if balance == Balance::PeakEwma { 10 } else { 0 };
            assert!(
                simulation.failures <= most,
                "{balance:?}, seed {seed}: {} of 1000",
                simulation.failures
            );
        }
    }
}

#[test]
fn what_fails_everywhere_ejects_nobody_by_comparing() {
    for seed in 0..5 {
        let mut simulation = Simulation::new(Balance::RoundRobin, 4, seed);
        simulation.natures.fill(Nature::Fails(0.15));
        simulation.run(Duration::from_secs(300));
        let ejections = simulation.upstream.known(simulation.now).ejections;
        // Five failures in a row happen once in 13,000 requests; there were 60,000.
        assert!(ejections <= 12, "seed {seed}: {ejections}");
    }
}

#[test]
fn of_two_endpoints_neither_is_the_odd_one() {
    let mut simulation = Simulation::new(Balance::RoundRobin, 2, 1);
    simulation.natures[0] = Nature::Fails(0.4);
    simulation.run(Duration::from_secs(2));
    assert!(simulation.picks[0] > 100, "{:?}", simulation.picks);
}

#[test]
fn an_endpoint_that_wants_less_gets_less_and_its_share_again_when_it_stops_asking() {
    for balance in POLICIES {
        // Fair would be 50 a second; it admits 20, and refuses within a tenth of the time that answers take.
        let mut simulation = Simulation::new(balance.clone(), 4, 5);
        simulation.natures[0] = Nature::Admits(20);
        simulation.run(Duration::from_secs(10));
        simulation.run(Duration::from_secs(20));
        let found = f64::from(simulation.picks[0]) / 20.0;
        assert!(
            (3.0..35.0).contains(&found),
            "{balance:?}: {found} a second"
        );
        let ejections = simulation.upstream.known(simulation.now).ejections;
        assert_eq!(ejections, 0, "{balance:?}: to want less is no failure");
        simulation.natures[0] = Nature::Fails(0.0);
        simulation.run(Duration::from_secs(60));
        simulation.run(Duration::from_secs(10));
        let found = f64::from(simulation.picks[0]) / 10.0;
        assert!(
            (35.0..65.0).contains(&found),
            "{balance:?}: {found} a second"
        );
    }
}

#[test]
fn without_deviation_only_failures_in_a_row_eject() {
    let now = Instant::now();
    let settings = tollgate_config::Upstream {
        outlier: Some(Outlier {
            failures: Setting::default_of(1000),
            deviation: Setting::default_of(None),
            volume: 50,
        }),
        ..settings(Balance::RoundRobin)
    };
    let mut simulation = Simulation::new(Balance::RoundRobin, 4, 1);
    simulation.upstream = Upstream::new(item(settings), 0, endpoints(&[1; 4]), None, now);
    simulation.natures[0] = Nature::Fails(0.9);
    simulation.run(Duration::from_secs(5));
    assert_eq!(simulation.upstream.known(simulation.now).ejections, 0);
}
