//! What this node sees of the instances that it uses, as evidence for the registry (REG-304): said when something is
//! wrong with one, again now and then while it stays so, and once when it is right again; never per request. Pure:
//! counters, `now` and what was said before.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tollgate_config::feed::Observed;

/// How often what was counted is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Failures and successes are weighed against each other over so long.
const WINDOW: Duration = Duration::from_secs(10);
/// Fewer failures are an accident.
const FAILURES: u64 = 3;
/// While it stays wrong it is said again, before the registry forgets it (`registry.observation_age`).
const AGAIN: Duration = Duration::from_secs(20);
/// Who is not asked any more for so long is no evidence either way.
const UNASKED: Duration = Duration::from_secs(60);
/// Lines of one report; the others are in the next.
const MOST: usize = 500;

/// One address of a service, as it is counted since the process began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) service: String,
    pub(super) address: String,
    pub(super) finished: u64,
    pub(super) failed: u64,
    /// Neither ejected nor failed by its probes.
    pub(super) fit: bool,
}

#[derive(Debug, Default)]
pub(super) struct Observing {
    known: HashMap<(String, String), Opinion>,
}

#[derive(Debug)]
struct Opinion {
    finished: u64,
    failed: u64,
    /// Of the latest window.
    began: Instant,
    failures: u64,
    successes: u64,
    /// It was said that something is wrong, last at this time; `None` there = say it as soon as possible.
    wrong: Option<Option<Instant>>,
    asked: Instant,
}

impl Observing {
    /// Another control plane listens, which knows nothing of what was said.
    pub(super) fn anew(&mut self) {
        for opinion in self.known.values_mut() {
            if let Some(said) = &mut opinion.wrong {
                *said = None;
            }
        }
    }

    /// What is news.
    pub(super) fn look(&mut self, sights: Vec<Sight>, now: Instant) -> Vec<Observed> {
        let mut news = Vec::new();
        let mut former = std::mem::take(&mut self.known);
        for sight in sights {
            let key = (sight.service.clone(), sight.address.clone());
            // The same address in two upstreams of one service: the worse counts.
            let known = self.known.remove(&key).or_else(|| former.remove(&key));
            let mut opinion = known.unwrap_or(Opinion {
                finished: sight.finished,
                failed: sight.failed,
                began: now,
                failures: 0,
                successes: 0,
                wrong: None,
                asked: now,
            });
            if let Some(observed) = opinion.look(&sight, now, news.len() < MOST) {
                news.push(observed);
            }
            self.known.insert(key, opinion);
        }
        news
    }
}

impl Opinion {
    fn look(&mut self, sight: &Sight, now: Instant, room: bool) -> Option<Observed> {
        // An endpoint that was away begins to count anew.
        let (finished, failed) = (
            sight.finished.saturating_sub(self.finished),
            sight.failed.saturating_sub(self.failed),
        );
        (self.finished, self.failed) = (sight.finished, sight.failed);
        if now.saturating_duration_since(self.began) >= WINDOW {
            (self.began, self.failures, self.successes) = (now, 0, 0);
        }
        self.failures += failed;
        self.successes += finished.saturating_sub(failed);
        if finished > 0 {
            self.asked = now;
        }
        let failing = self.failures >= FAILURES && self.failures > self.successes;
        let say = |failures, successes, span: Duration| Observed {
            service: sight.service.clone(),
            address: sight.address.clone(),
            failures,
            successes,
            span: span.max(LOOK),
        };
        let span = now.saturating_duration_since(self.began);
        let wrong = !sight.fit || failing;
        match self.wrong {
            None if wrong && room => {
                self.wrong = Some(Some(now));
                // What it did well before it was given up says nothing about how it is now.
                Some(say(self.failures.max(1), 0, span))
            }
            Some(said) if wrong => {
                let due = said.is_none_or(|said| now.saturating_duration_since(said) >= AGAIN);
                (due && room).then(|| {
                    self.wrong = Some(Some(now));
                    say(self.failures.max(1), 0, span)
                })
            }
            Some(_) if finished > failed && failed == 0 => room.then(|| {
                self.wrong = None;
                (self.began, self.failures, self.successes) = (now, 0, 0);
                say(0, finished, LOOK)
            }),
            Some(_) if now.saturating_duration_since(self.asked) >= UNASKED => {
                self.wrong = None;
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        observing: Observing,
        start: Instant,
        second: u64,
        finished: u64,
        failed: u64,
    }

    impl World {
        fn new() -> World {
            let mut world = World {
                observing: Observing::default(),
                start: Instant::now(),
                second: 0,
                finished: 0,
                failed: 0,
            };
            assert_eq!(world.pass(0, 0, true), None);
            world
        }

        /// A second passes; failures and successes of what is said.
        fn pass(&mut self, good: u64, bad: u64, fit: bool) -> Option<(u64, u64)> {
            self.second += 1;
            self.finished += good + bad;
            self.failed += bad;
            let sight = Sight {
                service: "s".to_owned(),
                address: "a:1".to_owned(),
                finished: self.finished,
                failed: self.failed,
                fit,
            };
            let now = self.start + Duration::from_secs(self.second);
            let mut news = self.observing.look(vec![sight], now);
            assert!(news.len() < 2);
            news.pop().map(|one| (one.failures, one.successes))
        }
    }

    #[test]
    fn reg_304_failures_are_said_once_and_so_is_the_recovery() {
        let mut world = World::new();
        assert_eq!(world.pass(100, 2, true), None, "two are an accident");
        let mut world = World::new();
        assert_eq!(world.pass(0, 2, true), None);
        assert_eq!(world.pass(0, 1, true), Some((3, 0)));
        assert_eq!(world.pass(0, 50, true), None, "not per request");
        assert_eq!(world.pass(0, 0, false), None);
        assert_eq!(
            world.pass(3, 0, true),
            None,
            "the window still speaks against it"
        );
        for _ in 0..10 {
            if let Some(said) = world.pass(5, 0, true) {
                assert_eq!(said, (0, 5));
                assert_eq!(world.pass(5, 0, true), None);
                return;
            }
        }
        panic!("the recovery was not said");
    }

    #[test]
    fn what_stays_wrong_is_said_again_and_at_once_to_another() {
        let mut world = World::new();
        assert_eq!(world.pass(0, 0, false), Some((1, 0)), "ejected");
        let mut said = 0;
        for _ in 0..60 {
            said += usize::from(world.pass(0, 0, false).is_some());
        }
        assert_eq!(said, 3);
        world.observing.anew();
        assert_eq!(world.pass(0, 0, false), Some((1, 0)));
    }

    #[test]
    fn who_is_not_asked_any_more_is_forgotten_without_a_word() {
        let mut world = World::new();
        world.pass(0, 5, true);
        for _ in 0..100 {
            assert!(world.pass(0, 0, true).is_none_or(|said| said.1 == 0));
        }
        assert_eq!(
            world.pass(9, 0, true),
            None,
            "no recovery of what is forgotten"
        );
    }

    #[test]
    fn a_whole_fleet_of_failures_is_told_in_pieces() {
        let mut observing = Observing::default();
        let start = Instant::now();
        let sights = || -> Vec<Sight> {
            { 0..1200 }
                .map(|number| Sight {
                    service: "s".to_owned(),
                    address: format!("a:{number}"),
                    finished: 0,
                    failed: 0,
                    fit: false,
                })
                .collect()
        };
        let lengths = [1, 2, 3, 4].map(|second| {
            let now = start + Duration::from_secs(second);
            observing.look(sights(), now).len()
        });
        assert_eq!(lengths, [500, 500, 200, 0]);
        observing.look(Vec::new(), start + Duration::from_secs(9));
        assert!(observing.known.is_empty(), "who is gone takes no room");
    }
}
