//! A seeded simulation of many requests to one upstream that fails and returns: the route's rules, the breaker and the
//! budget as the proxy uses them, with time as an argument. What must never be is looked at after each step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};
use tollgate_config::{Breaker, Retry, RetryBudget, RetryMethods, RetryOn, Setting};

use super::retry::{Ending, Try, decide};
use crate::upstream::breaker::Permit;
use crate::upstream::{GuardMemory, Guards};

/// Requests a second, evenly.
const DEMAND: u64 = 500;
const SECOND: u64 = 1_000_000;
/// An answer takes this long, good or not.
const ANSWER: u64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client asks, or a retry's pause is over: retries made so far.
    Try(u32),
    /// The try with this number is answered: retries made before it.
    Answer(usize, u32),
}

/// What happened in each second.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    asked: u64,
    first: u64,
    tries: u64,
    good: u64,
}

struct World {
    guards: std::sync::Arc<Guards>,
    breaker: Option<Breaker>,
    budget: RetryBudget,
    retry: Retry,
    random: fastrand::Rng,
    /// From which second to which nothing works, and how often something fails otherwise.
    outage: std::ops::Range<u64>,
    flaky: f64,
    seconds: Vec<Second>,
}

fn retry() -> Retry {
    Retry {
        preset: None,
        attempts: Setting::default_of(2),
        on: vec![RetryOn::Status(503)],
        backoff_base: Duration::from_millis(25),
        backoff_max: Duration::from_millis(250),
        methods: RetryMethods::Idempotent,
        per_try_timeout: Setting::default_of(None),
        max_replay: 0,
    }
}

impl World {
    fn new(seed: u64, breaker: Option<Breaker>, outage: std::ops::Range<u64>, flaky: f64) -> Self {
        World {
            guards: GuardMemory::default().of("app", 2),
            breaker,
            budget: RetryBudget::default(),
            retry: retry(),
            random: fastrand::Rng::with_seed(seed),
            outage,
            flaky,
            seconds: Vec::new(),
        }
    }

    fn run(mut self, seconds: u64) -> Vec<Second> {
        let start = Instant::now();
        let mut events = BinaryHeap::new();
        for number in 0..seconds * DEMAND {
            events.push(Reverse((number * SECOND / DEMAND, Event::Try(0))));
        }
        let (mut permits, method, headers): (Vec<Option<Permit>>, _, _) =
            (Vec::new(), Method::GET, HeaderMap::new());
        while let Some(Reverse((at, event))) = events.pop() {
            let now = start + Duration::from_micros(at);
            let second = (at / SECOND) as usize;
            self.seconds
                .resize(self.seconds.len().max(second + 1), Second::default());
            let worker = permits.len() % 2;
            match event {
                Event::Try(made) => {
                    self.seconds[second].asked += u64::from(made == 0);
                    let admitted = match &self.breaker {
                        Some(policy) => self
                            .guards
                            .whole
                            .breaker
                            .admit(policy, now, &mut |_| {})
                            .map(Some),
                        None => Ok(None),
                    };
                    let Ok(permit) = admitted else { continue };
                    if made == 0 {
                        self.guards.budget.first_try(worker, now);
                        self.seconds[second].first += 1;
                    }
                    self.seconds[second].tries += 1;
                    events.push(Reverse((at + ANSWER, Event::Answer(permits.len(), made))));
                    permits.push(permit);
                }
                Event::Answer(number, made) => {
                    let out = self.outage.contains(&(at / SECOND));
                    let good = !out && self.random.f64() >= self.flaky;
                    self.seconds[second].good += u64::from(good);
                    if let (Some(policy), Some(permit)) = (&self.breaker, &mut permits[number]) {
                        self.guards.whole.breaker.answered(
                            policy,
                            worker,
                            permit,
                            good,
                            now,
                            &mut |_| {},
                        );
                    }
                    if good {
                        continue;
                    }
                    let tried = Try {
                        ending: Ending::Status(StatusCode::SERVICE_UNAVAILABLE),
                        left: true,
                        repeatable: true,
                        method: &method,
                        headers: &headers,
                        made,
                        wish: None,
                        elsewhere: false,
                    };
                    let random = self.random.u64(..);
                    if let Some(pause) = decide(Some(&self.retry), &tried, random)
                        && !self
                            .breaker
                            .as_ref()
                            .is_some_and(|policy| self.guards.whole.breaker.refuses(policy, now))
                        && self.guards.budget.spend(&self.budget, now)
                    {
                        let pause = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
                        events.push(Reverse((at + pause, Event::Try(made + 1))));
                        self.holds(now);
                    }
                }
            }
        }
        self.seconds
    }

    /// Just when another retry was granted, the window holds no more of them than the document allows (GW-506).
    fn holds(&self, now: Instant) {
        let status = self.guards.budget.status(&self.budget, now);
        assert!(status.retries <= status.allowed, "{status:?}");
    }
}

#[test]
fn hi_49_without_a_breaker_the_budget_alone_bounds_what_a_failing_upstream_is_sent() {
    for seed in 0..5 {
        let seconds = World::new(seed, None, 20..40, 0.0).run(60);
        let during: u64 = seconds[21..39].iter().map(|second| second.tries).sum();
        let asked: u64 = seconds[21..39].iter().map(|second| second.asked).sum();
        assert!(during * 10 <= asked * 13, "{during} tries for {asked}");
        let after: u64 = seconds[41..].iter().map(|second| second.tries).sum();
        let asked: u64 = seconds[41..].iter().map(|second| second.asked).sum();
        assert_eq!(after, asked);
    }
}

#[test]
fn hi_49_after_an_outage_the_upstream_is_never_sent_more_than_its_usual_load() {
    for seed in 0..5 {
        let breaker = Breaker {
            open_for: Setting::default_of(Duration::from_secs(5)),
            ..Breaker::default()
        };
        let seconds = World::new(seed, Some(breaker), 20..43, 0.0).run(60);
        // The first second of the outage has what was on its way; after that, probes alone.
        for (number, second) in seconds.iter().enumerate().take(43).skip(21) {
            assert!(second.tries <= 20, "second {number}: {second:?}");
        }
        let closed = seconds
            .iter()
            .skip(43)
            .position(|second| second.good >= DEMAND / 2);
        // Within open_for and one second (GW-414).
        assert!(closed.is_some_and(|after| after <= 6), "{closed:?}");
        for (number, second) in seconds.iter().enumerate().skip(43) {
            assert!(
                second.tries <= DEMAND * 12 / 10,
                "second {number}: {second:?}"
            );
        }
    }
}

#[test]
fn gw_415_an_upstream_that_fails_now_and_then_keeps_its_breaker_closed_and_its_clients_content() {
    for seed in 0..5 {
        let seconds = World::new(seed, Some(Breaker::default()), 0..0, 0.05).run(40);
        let asked: u64 = seconds.iter().map(|second| second.asked).sum();
        let good: u64 = seconds.iter().map(|second| second.good).sum();
        let tries: u64 = seconds.iter().map(|second| second.tries).sum();
        assert!(good * 1000 >= asked * 999, "{good} of {asked}");
        assert!(tries * 10 <= asked * 11, "{tries} tries for {asked}");
    }
}
