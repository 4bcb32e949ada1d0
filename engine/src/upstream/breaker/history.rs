//! A breaker's last changes, each with its reason, written by whichever worker made the change and read by operators.
//! A ring of atomics: nobody waits for anybody. A reader who comes in the middle of a write leaves that entry out.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::word::{Kind, Word};
use crate::telemetry::metrics::BreakerReason;

/// Changes that are kept.
pub(super) const KEPT: usize = 16;
const COUNT_BITS: u32 = 19;
const MOST: u64 = (1 << COUNT_BITS) - 1;

/// What was seen when a breaker changed; each at most half a million, and zero where it does not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    pub failures_in_a_row: u32,
    /// In the window.
    pub tries: u32,
    pub failed: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) word: Word,
    pub(super) from: Kind,
    pub(super) reason: BreakerReason,
    pub(super) evidence: Evidence,
}

#[derive(Debug, Default)]
pub(super) struct History {
    /// The word that a change led to, and what there is to say about it. By the word's turn.
    entries: [(AtomicU64, AtomicU64); KEPT],
}

impl History {
    pub(super) fn write(&self, from: Word, to: Word, reason: BreakerReason, evidence: Evidence) {
        let (word, said) = self.place(to);
        let small = |count: u32| u64::from(count).min(MOST);
        // Zero stands for nothing, so reasons are counted from one.
        let packed = (reason as u64 + 1) << 60
            | (from.kind() as u64) << 57
            | small(evidence.failures_in_a_row) << (2 * COUNT_BITS)
            | small(evidence.tries) << COUNT_BITS
            | small(evidence.failed);
        word.store(0, Ordering::Release);
        said.store(packed, Ordering::Release);
        word.store(to.0, Ordering::Release);
    }

    /// What led to this very state; `None` for the first, and for one that was overwritten.
    pub(super) fn entry(&self, word: Word) -> Option<Entry> {
        read(self.place(word)).filter(|entry| entry.word == word)
    }

    /// The last first. `present` is the state now.
    pub(super) fn entries(&self, present: Word) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.entries.iter().filter_map(read).collect();
        entries.sort_by_key(|entry| present.turns_since(entry.word));
        entries
    }

    fn place(&self, word: Word) -> &(AtomicU64, AtomicU64) {
        &self.entries[word.turn() as usize % KEPT]
    }
}

fn read((word, said): &(AtomicU64, AtomicU64)) -> Option<Entry> {
    let before = word.load(Ordering::Acquire);
    let said = said.load(Ordering::Acquire);
    if before == 0 || word.load(Ordering::Acquire) != before {
        return None;
    }
    let count = |at: u32| ((said >> at) & MOST) as u32;
    Some(Entry {
        word: Word(before),
        from: Word(said >> 57 & 7).kind(),
        reason: *REASONS.get((said >> 60).checked_sub(1)? as usize)?,
        evidence: Evidence {
            failures_in_a_row: count(2 * COUNT_BITS),
            tries: count(COUNT_BITS),
            failed: count(0),
        },
    })
}

const REASONS: [BreakerReason; BreakerReason::COUNT] = [
    BreakerReason::Failures,
    BreakerReason::ErrorRate,
    BreakerReason::Deviation,
    BreakerReason::OpenFor,
    BreakerReason::ProbeFailed,
    BreakerReason::Recovered,
    BreakerReason::Operator,
    BreakerReason::Expired,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::moment::Moment;

    #[test]
    fn the_last_changes_are_read_as_they_were_written() {
        let history = History::default();
        let (mut word, mut written) = (Word::default(), Vec::new());
        for turn in 0..40u32 {
            let reason = REASONS[turn as usize % REASONS.len()];
            assert_eq!(reason as usize, turn as usize % REASONS.len());
            let kind = [Kind::Open, Kind::HalfOpen, Kind::Closed][turn as usize % 3];
            let next = word.next(kind, Moment(u64::from(turn) * 1_000_000_000));
            let evidence = Evidence {
                failures_in_a_row: turn,
                tries: 1000 + turn,
                failed: 500 + turn,
            };
            history.write(word, next, reason, evidence);
            written.insert(0, (next, word.kind(), reason, evidence));
            word = next;
        }
        let read: Vec<_> = history
            .entries(word)
            .iter()
            .map(|entry| (entry.word, entry.from, entry.reason, entry.evidence))
            .collect();
        assert_eq!(read, written[..KEPT]);
        assert_eq!(history.entry(word).map(|e| e.evidence.tries), Some(1039));
        assert!(history.entry(Word::default()).is_none());
    }
}
