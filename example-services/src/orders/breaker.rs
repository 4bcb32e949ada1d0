//! Whether payments is asked at all (SHOP-104, SHOP-511): not for a while, when it left several calls in a row unanswered. Then one
//! call finds out whether it is back, and one more after each further while. A refusal is an answer.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// When it is not asked.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// So many calls in a row without an answer; zero: it is always asked.
    pub failures: u32,
    /// How long it is left alone then.
    pub open_for: Duration,
}

/// What is known of payments. Clones share it.
#[derive(Clone, Debug)]
pub struct Breaker {
    rule: Rule,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    silent: u32,
    /// Not asked before.
    until: Option<Instant>,
}

impl Breaker {
    /// Closed.
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic is done with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call may be made. Who is let through after a while is the one who finds out.
    pub fn admits(&self, now: Instant) -> bool {
        let mut state = self.state();
        match state.until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                state.until = Some(now + self.rule.open_for);
                true
            }
        }
    }

    /// Whether a call would not be made.
    pub fn is_open(&self, now: Instant) -> bool {
        self.state().until.is_some_and(|until| now < until)
    }

    /// How a call went.
    pub fn heard(&self, answered: bool, now: Instant) {
        if self.rule.failures == 0 {
            return;
        }
        let mut state = self.state();
        if answered {
            *state = State::default();
            return;
        }
        state.silent = state.silent.saturating_add(1);
        if state.silent >= self.rule.failures {
            state.until = Some(now + self.rule.open_for);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        failures: 2,
        open_for: Duration::from_secs(5),
    };

    #[test]
    fn it_opens_after_so_many_in_a_row_and_lets_one_through_after_a_while() {
        let (breaker, start) = (Breaker::new(RULE), Instant::now());
        breaker.heard(false, start);
        breaker.heard(true, start);
        breaker.heard(false, start);
        assert!(breaker.admits(start), "not in a row");
        breaker.heard(false, start);
        assert!(breaker.is_open(start) && !breaker.admits(start));
        let later = start + RULE.open_for;
        assert!(!breaker.is_open(later));
        assert!(
            breaker.admits(later) && !breaker.admits(later),
            "one finds out"
        );
        breaker.heard(false, later);
        assert!(breaker.is_open(later + RULE.open_for / 2));
        let again = later + RULE.open_for;
        assert!(breaker.admits(again));
        breaker.heard(true, again);
        assert!(breaker.admits(again) && breaker.admits(again));
    }

    #[test]
    fn without_failures_to_count_it_never_opens() {
        let breaker = Breaker::new(Rule {
            failures: 0,
            ..RULE
        });
        let now = Instant::now();
        for _ in 0..100 {
            breaker.heard(false, now);
        }
        assert!(breaker.admits(now) && !breaker.is_open(now));
    }
}
