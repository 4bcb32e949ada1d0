//! When to ask for a name again, and what it stands for meanwhile. No clock and no sockets: time is an argument.

use std::time::{Duration, Instant};

use super::{Answer, Resolved};

/// No name is asked for more often, whatever its time to live.
const FLOOR: Duration = Duration::from_secs(1);
/// No answer is believed for longer.
const CEILING: Duration = Duration::from_secs(300);
/// After failures the pause doubles from `FLOOR` up to this.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
/// The share by which pauses differ, up and down.
const JITTER: f64 = 0.1;

/// What is known about one name.
#[derive(Debug, Clone)]
pub struct Refresh {
    good: Vec<Resolved>,
    /// `None`: nothing to ask.
    due: Option<Instant>,
    failures: u32,
}

impl Refresh {
    /// Nothing known yet; to be asked at once.
    pub fn new(now: Instant) -> Self {
        Refresh {
            good: Vec::new(),
            due: Some(now),
            failures: 0,
        }
    }

    /// Known for good.
    pub fn never(resolved: Resolved) -> Self {
        Refresh {
            good: vec![resolved],
            due: None,
            failures: 0,
        }
    }

    /// When to ask next; `None` = never.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Whether the last time brought nothing.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// The last good answer.
    pub fn current(&self) -> &[Resolved] {
        &self.good
    }

    /// Takes an answer, or that none came. An answer without endpoints is none: the last good one stands. `random` is
    /// from 0 up to 1.
    pub fn answered(&mut self, answer: Option<Answer>, now: Instant, random: f64) {
        let pause = match answer {
            Some(answer) if !answer.endpoints.is_empty() => {
                self.failures = 0;
                self.good = answer.endpoints;
                answer.ttl.clamp(FLOOR, CEILING)
            }
            _ => {
                let doublings = self.failures.min(16);
                self.failures = self.failures.saturating_add(1);
                FLOOR.saturating_mul(1 << doublings).min(BACK_OFF_MAX)
            }
        };
        let factor = 1.0 - JITTER + 2.0 * JITTER * random.clamp(0.0, 1.0);
        self.due = Some(now + pause.mul_f64(factor));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ttl: u64) -> Answer {
        let resolved = Resolved {
            address: "10.0.0.1:80".parse().unwrap(),
            name: "orders.internal:80".to_owned(),
            weight: 1,
            zone: None,
        };
        Answer {
            endpoints: vec![resolved],
            ttl: Duration::from_secs(ttl),
        }
    }

    fn pause(refresh: &Refresh, now: Instant) -> f64 {
        refresh.due().unwrap().duration_since(now).as_secs_f64()
    }

    #[test]
    fn a_name_is_asked_for_at_once_and_then_when_its_time_is_over() {
        let now = Instant::now();
        let mut refresh = Refresh::new(now);
        assert!(refresh.is_due(now));
        for (ttl, seconds) in [
            (0, 1.0),
            (1, 1.0),
            (30, 30.0),
            (300, 300.0),
            (86_400, 300.0),
        ] {
            refresh.answered(Some(answer(ttl)), now, 0.5);
            assert!((pause(&refresh, now) - seconds).abs() < 0.001, "{ttl}");
        }
        assert!(!refresh.is_due(now));
        assert!(refresh.is_due(now + Duration::from_secs(300)));
    }

    #[test]
    fn processes_do_not_ask_in_step() {
        let now = Instant::now();
        let mut refresh = Refresh::new(now);
        for (random, seconds) in [(0.0, 9.0), (0.25, 9.5), (0.999_999, 11.0)] {
            refresh.answered(Some(answer(10)), now, random);
            assert!((pause(&refresh, now) - seconds).abs() < 0.001, "{random}");
        }
    }

    #[test]
    fn the_last_good_answer_stands_while_failures_are_asked_about_less_and_less() {
        let now = Instant::now();
        let mut refresh = Refresh::new(now);
        refresh.answered(Some(answer(10)), now, 0.5);
        for seconds in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            refresh.answered(None, now, 0.5);
            assert!((pause(&refresh, now) - seconds).abs() < 0.001);
            assert_eq!(refresh.current(), answer(10).endpoints);
        }
        let empty = Answer {
            endpoints: Vec::new(),
            ttl: Duration::from_secs(5),
        };
        refresh.answered(Some(empty), now, 0.5);
        assert_eq!(refresh.current(), answer(10).endpoints);
        refresh.answered(Some(answer(10)), now, 0.5);
        refresh.answered(None, now, 0.5);
        assert!(
            (pause(&refresh, now) - 1.0).abs() < 0.001,
            "success forgets failures"
        );
    }

    #[test]
    fn an_endless_outage_overflows_nothing() {
        let now = Instant::now();
        let mut refresh = Refresh::new(now);
        refresh.failures = u32::MAX;
        refresh.answered(None, now, f64::NAN.max(7.0));
        assert!(pause(&refresh, now) <= 66.0);
    }
}
