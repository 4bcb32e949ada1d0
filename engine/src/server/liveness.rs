//! Whether a silent peer still lives: asked once in a while, dead when it does not answer in time (HI-39). Pure: the
//! connection's task holds the clock and sends the pings.

use std::time::{Duration, Instant};

/// A connection with open streams is asked after so long.
pub(super) const ASK_AFTER: Duration = Duration::from_secs(30);
/// And must answer within so long.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Liveness {
    next: Instant,
    asked: bool,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing until then.
    Wait(Instant),
    Ask,
    Dead,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Liveness {
            next: now + ASK_AFTER,
            asked: false,
        }
    }

    /// Whether an answer is awaited.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
    }

    /// The peer answered.
    pub(super) fn answered(&mut self, now: Instant) {
        self.asked = false;
        self.next = now + ASK_AFTER;
    }

    pub(super) fn step(&mut self, now: Instant) -> Step {
        match (now < self.next, self.asked) {
            (true, _) => Step::Wait(self.next),
            (false, true) => Step::Dead,
            (false, false) => {
                self.asked = true;
                self.next = now + ANSWER_WITHIN;
                Step::Ask
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hi_39_a_peer_that_does_not_answer_is_dead_and_one_that_does_is_asked_again() {
        let start = Instant::now();
        let mut liveness = Liveness::new(start);
        assert_eq!(liveness.step(start), Step::Wait(start + ASK_AFTER));
        let asked = start + ASK_AFTER;
        assert_eq!(liveness.step(asked), Step::Ask);
        assert_eq!(liveness.step(asked), Step::Wait(asked + ANSWER_WITHIN));
        let answered = asked + Duration::from_secs(1);
        liveness.answered(answered);
        assert!(!liveness.is_asked());
        assert_eq!(liveness.step(answered + ASK_AFTER), Step::Ask);
        assert_eq!(
            liveness.step(answered + ASK_AFTER + ANSWER_WITHIN),
            Step::Dead
        );
    }
}
