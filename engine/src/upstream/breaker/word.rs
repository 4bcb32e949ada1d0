//! The state of a breaker in one atomic number, so that it is read and exchanged as a whole: which state, the how
//! manyeth, and since when.

use crate::upstream::moment::Moment;

const KIND: u32 = 3;
const TURN: u32 = 21;
const TURNS: u64 = (1 << TURN) - 1;
const SINCE: u32 = KIND + TURN;
/// Milliseconds in nanoseconds: what `since` is counted in. 34 years fit.
const MILLISECOND: u64 = 1_000_000;

/// What may become of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Closed,
    Open,
    HalfOpen,
    /// Opened, or closed, by an operator until a certain time.
    HeldOpen,
    HeldClosed,
    /// Recovered, and admitting a growing share.
    Rising,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Word(pub(super) u64);

impl Word {
    /// The state after this one. `now` is rounded up, so that nothing lasts shorter than it should.
    pub(super) fn next(self, kind: Kind, now: Moment) -> Word {
        let turn = (self.turn() + 1) & TURNS;
        let since = now.0.div_ceil(MILLISECOND);
        Word(since << SINCE | turn << KIND | kind as u64)
    }

    pub(super) fn kind(self) -> Kind {
        match self.0 & ((1 << KIND) - 1) {
            1 => Kind::Open,
            2 => Kind::HalfOpen,
            3 => Kind::HeldOpen,
            4 => Kind::HeldClosed,
            5 => Kind::Rising,
            _ => Kind::Closed,
        }
    }

    #[inline]
    pub(super) fn is_closed(self) -> bool {
        self.0 & ((1 << KIND) - 1) == Kind::Closed as u64
    }

    /// The number of this state; counts that carry another number belong to another state.
    pub(super) fn turn(self) -> u64 {
        self.0 >> KIND & TURNS
    }

    /// How many turns ago that one was.
    pub(super) fn turns_since(self, earlier: Word) -> u64 {
        distance(earlier.turn(), self.turn())
    }

    pub(super) fn since(self) -> Moment {
        Moment((self.0 >> SINCE) * MILLISECOND)
    }
}

/// A count that belongs to one turn: failures in a row, or, in halves, probes under way and probes that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted(pub(super) u64);

impl Counted {
    pub(super) fn new(turn: u64, count: u32) -> Self {
        Counted(turn << 32 | u64::from(count))
    }

    pub(super) fn is_of(self, turn: u64) -> bool {
        self.0 >> 32 == turn
    }

    /// Whether it belongs to a later turn. Numbers come round: what is less than half of them ahead is later.
    pub(super) fn is_after(self, turn: u64) -> bool {
        !self.is_of(turn) && distance(turn, self.0 >> 32) <= TURNS / 2
    }

    /// Zero when it belongs to another turn.
    pub(super) fn of(self, turn: u64) -> u32 {
        if self.0 >> 32 == turn {
            self.0 as u32
        } else {
            0
        }
    }
}

/// How many turns after `from` the turn `to` comes.
fn distance(from: u64, to: u64) -> u64 {
    to.wrapping_sub(from) & TURNS
}

/// Probes under way, and those that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Probes {
    pub(super) under_way: u16,
    pub(super) succeeded: u16,
}

impl Probes {
    pub(super) fn of(counted: Counted, turn: u64) -> Self {
        let both = counted.of(turn);
        Probes {
            under_way: (both >> 16) as u16,
            succeeded: both as u16,
        }
    }

    pub(super) fn counted(self, turn: u64) -> Counted {
        let both = u32::from(self.under_way) << 16 | u32::from(self.succeeded);
        Counted::new(turn, both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_state_number_and_time() {
        let mut word = Word::default();
        assert_eq!((word.kind(), word.turn()), (Kind::Closed, 0));
        for (turn, kind) in [
            Kind::Open,
            Kind::HalfOpen,
            Kind::HeldOpen,
            Kind::HeldClosed,
            Kind::Rising,
            Kind::Closed,
        ]
        .into_iter()
        .enumerate()
        {
            word = word.next(kind, Moment(1_000_001));
            assert_eq!((word.kind(), word.turn()), (kind, turn as u64 + 1));
            assert_eq!(word.since(), Moment(2_000_000), "rounded up");
            assert_eq!(word.is_closed(), kind == Kind::Closed);
        }
    }

    #[test]
    fn numbers_come_round_without_touching_their_neighbours() {
        let last = Word(((1 << TURN) - 1) << KIND);
        let next = last.next(Kind::Open, Moment(7_000_000));
        assert_eq!((next.turn(), next.kind()), (0, Kind::Open));
        assert_eq!(next.since(), Moment(7_000_000));
    }

    #[test]
    fn a_count_of_another_turn_is_none() {
        let probes = Probes {
            under_way: 3,
            succeeded: 2,
        };
        assert_eq!(Probes::of(probes.counted(5), 5), probes);
        assert_eq!(Probes::of(probes.counted(5), 6), Probes::default());
    }
}
