//! Which control plane is asked next, and when: in the order of the document, again and again, with pauses that grow
//! and differ from node to node, so that a control plane that comes back is not run over. No clock and no chance.

use std::time::Duration;

/// The longest pause before the second round; doubles with every round.
const BASE: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);
/// How long a node stays with one that is not the first before it looks whether a better one is back.
const LOOK_BACK: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Turns {
    count: usize,
    next: usize,
    /// Since anything good came of it.
    failures: usize,
}

impl Turns {
    /// Of so many; at least one.
    pub(super) fn new(count: usize) -> Turns {
        Turns {
            count: count.max(1),
            next: 0,
            failures: 0,
        }
    }

    /// Who is next, and how long to wait before. `random` is from 0 up to 1.
    pub(super) fn take(&mut self, random: f64) -> (usize, Duration) {
        let turn = self.next;
        self.next = (turn + 1) % self.count;
        let pause = if self.failures == 0 {
            Duration::ZERO
        } else {
            let rounds = (self.failures / self.count).min(16);
            let most = BASE.saturating_mul(1 << rounds).min(LONGEST);
            most.mul_f64(random.clamp(0.0, 1.0))
        };
        self.failures = self.failures.saturating_add(1);
        (turn, pause)
    }

    /// This one tells what it should. When it ends, the preferred one is asked first.
    pub(super) fn good(&mut self) {
        self.failures = 1;
        self.next = 0;
    }

    /// This one cannot be followed for now: another is next, if there is one.
    pub(super) fn bad(&mut self, turn: usize) {
        self.next = (turn + 1) % self.count;
    }

    /// When to look for a preferred one, while this one serves; `None` for the first.
    pub(super) fn look_back(turn: usize, random: f64) -> Option<Duration> {
        (turn > 0).then(|| LOOK_BACK.mul_f64(0.75 + 0.5 * random.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reg_407_each_gets_its_turn_and_pauses_grow_to_a_bound() {
        let mut turns = Turns::new(2);
        assert_eq!(turns.take(1.0), (0, Duration::ZERO));
        assert_eq!(turns.take(1.0), (1, BASE));
        assert_eq!(turns.take(1.0), (0, BASE * 2));
        assert_eq!(turns.take(1.0), (1, BASE * 2));
        assert_eq!(turns.take(0.5), (0, BASE * 2));
        for _ in 0..100 {
            assert!(turns.take(1.0).1 <= LONGEST);
            assert_eq!(turns.take(0.0).1, Duration::ZERO);
        }
        turns.good();
        let (turn, pause) = turns.take(1.0);
        assert_eq!(turn, 0, "the preferred one first");
        assert!(
            pause > Duration::ZERO && pause <= BASE * 2,
            "never at once by all nodes"
        );
    }

    #[test]
    fn only_who_is_not_with_the_preferred_one_looks_back() {
        assert_eq!(Turns::look_back(0, 0.5), None);
        assert_eq!(Turns::look_back(2, 0.5), Some(LOOK_BACK));
    }
}
