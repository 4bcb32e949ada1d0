//! Answers that are slow, and whether there are too many of them: the percentile kind (GW-411). A share of slow answers
//! above `slow_share` is the same as a percentile above `slow_after`, and needs no histogram: of each answer one bit is
//! kept, on a line of the worker's own, and the window is summed only when one was slow.
//!
//! A slow answer is no failure: it neither lengthens a row nor ends one, and failures open this kind as they open a fixed
//! one. A probe that is slow does not show that the upstream is well again.

use std::time::{Duration, Instant};

use tollgate_config::{Breaker as Policy, BreakerKind};

use super::history::Evidence;
use super::judge::volume;
use super::word::{Counted, Kind, Word};
use super::{Breaker, Ordering, Permit, Tell};
use crate::telemetry::metrics::BreakerReason;
use crate::upstream::moment::Moment;
use crate::upstream::tally::Counts;

impl Breaker {
    /// An answer was waited for so long, whether it came or not; before its `answered`, if it has one. True: it was a
    /// probe, and too slow to be a good one.
    #[inline]
    pub fn timed(
        &self,
        policy: &Policy,
        worker: usize,
        permit: &Permit,
        waited: Duration,
        now: Instant,
        tell: Tell<'_>,
    ) -> bool {
        policy.kind.value == BreakerKind::Percentile
            && self.note_time(policy, worker, permit, waited, now.into(), tell)
    }

    fn note_time(
        &self,
        policy: &Policy,
        worker: usize,
        permit: &Permit,
        waited: Duration,
        now: Moment,
        tell: Tell<'_>,
    ) -> bool {
        let slow = waited > policy.slow_after.value;
        let word = self.word();
        if word != permit.word {
            return false;
        }
        match word.kind() {
            Kind::Closed | Kind::HeldClosed | Kind::Rising => {
                self.speed.note(worker, word.0, now, !slow);
                if !slow || word.kind() == Kind::HeldClosed {
                    return false;
                }
                let seen = self.speed.sum(word.0, policy.window.value, now);
                if are_too_many(policy, word, seen) {
                    let row = Counted(self.state.row.load(Ordering::Relaxed)).of(word.turn());
                    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
                    let evidence = Evidence {
                        failures_in_a_row: row,
                        tries: small(seen.total()),
                        failed: small(seen.bad),
                    };
                    self.turn_with(word, Kind::Open, BreakerReason::Slow, evidence, now, tell);
                }
                false
            }
            Kind::HalfOpen => slow,
            Kind::Open | Kind::HeldOpen => false,
        }
    }
}

/// A few slow ones of a few are chance, as with failures.
fn are_too_many(policy: &Policy, word: Word, seen: Counts) -> bool {
    seen.total() >= volume(policy, word)
        && seen.bad >= u64::from(policy.failures.value)
        && seen.bad as f64 > policy.slow_share.value * seen.total() as f64
}
