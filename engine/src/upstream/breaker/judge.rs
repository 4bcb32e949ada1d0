//! How a try ended, and whether that opens the breaker (GW-404, GW-405). A failure is written where all workers read;
//! a success only when it ends a row of failures.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tollgate_config::{Breaker as Policy, BreakerKind};

use super::history::Evidence;
use super::word::{Counted, Kind, Word};
use super::{Breaker, Permit, Tell};
use crate::telemetry::metrics::BreakerReason;
use crate::upstream::moment::Moment;
use crate::upstream::tally::Counts;

/// So many different endpoints are more than a few, however many there are; each has one of 64 bits.
const MOST: u32 = 33;

/// Failures in a row, and whether more than a few endpoints had a part in them.
#[derive(Debug, Clone, Copy)]
struct Row {
    length: u32,
    widespread: bool,
}

impl Breaker {
    /// The head of an answer has come, or failed to come. Keep the permit while more can go wrong. `worker` is the
    /// caller's own number.
    pub fn answered(
        &self,
        policy: &Policy,
        worker: usize,
        permit: &mut Permit,
        good: bool,
        now: Instant,
        tell: Tell<'_>,
    ) {
        let now = Moment::from(now);
        let word = self.word();
        if !good {
            self.last_failure.fetch_max(now.0, Ordering::Relaxed);
        }
        if word != permit.word {
            return;
        }
        match word.kind() {
            Kind::Closed | Kind::HeldClosed | Kind::Rising => {
                self.tally.note(worker, word.0, now, good);
                if policy.kind.value == BreakerKind::Adaptive && word.kind() == Kind::Closed {
                    self.learn(policy, word, now);
                }
                if good {
                    permit.judged = now;
                    permit.ended = self.end_row(word);
                } else if let Some(row) = self.lengthen_row(word, |row| row + 1) {
                    let row = self.judged_row(policy, row, permit);
                    self.consider_opening(policy, word, row, now, tell);
                }
            }
            Kind::HalfOpen if good => {
                let settled = self.settle_probe(word, |probes| {
                    probes.under_way = probes.under_way.saturating_sub(1);
                    probes.succeeded += 1;
                });
                if settled.is_some_and(|p| u32::from(p.succeeded) >= policy.successes.value) {
                    self.recover(policy, word, now, tell);
                }
            }
            Kind::HalfOpen => self.turn(word, Kind::Open, BreakerReason::ProbeFailed, now, tell),
            Kind::Open | Kind::HeldOpen => {}
        }
    }

    /// After a good head, the answer broke off, or its trailers told of a failure: the judgement is taken back.
    #[cold]
    pub fn belied(
        &self,
        policy: &Policy,
        worker: usize,
        permit: Permit,
        now: Instant,
        tell: Tell<'_>,
    ) {
        let now = Moment::from(now);
        self.last_failure.fetch_max(now.0, Ordering::Relaxed);
        let word = self.word();
        if word != permit.word {
            return;
        }
        match word.kind() {
            Kind::Closed | Kind::HeldClosed | Kind::Rising => {
                self.tally.correct(worker, word.0, permit.judged, now);
                // It was no success, so it did not end the row, unless others have succeeded since.
                let (before, good) = permit.ended;
                let still = before > 0 && self.tally.good_ever() == good;
                let row = self.lengthen_row(word, |row| match row {
                    0 if still => before + 1,
                    row => row + 1,
                });
                if let Some(row) = row {
                    let row = self.judged_row(policy, row, &permit);
                    self.consider_opening(policy, word, row, now, tell);
                }
            }
            Kind::HalfOpen => self.turn(word, Kind::Open, BreakerReason::ProbeFailed, now, tell),
            Kind::Open | Kind::HeldOpen => {}
        }
    }

    /// The try ended without telling anything: our side gave up.
    pub fn cancelled(&self, permit: Permit) {
        if permit.is_probe() {
            let _none_of_this_turn = self.settle_probe(permit.word, |probes| {
                probes.under_way = probes.under_way.saturating_sub(1);
            });
        }
    }

    /// Once for each slice of the window that has passed: what was usual in it.
    #[inline]
    fn learn(&self, policy: &Policy, word: Word, now: Moment) {
        if let Some(seconds) = self.baseline.turn_over(policy.window.value, now) {
            // Of a slice in which the state began, only a part was counted.
            if word.since().0 <= seconds.start * 1_000_000_000 {
                self.baseline.learn(self.tally.sum_between(word.0, seconds));
            }
        }
    }

    /// A success ends the row. Reading first leaves the line shared in the ordinary case.
    #[inline]
    fn end_row(&self, word: Word) -> (u32, u64) {
        let known = Counted(self.state.row.load(Ordering::Relaxed));
        let row = known.of(word.turn());
        if row == 0 {
            return (0, 0);
        }
        // Whoever lengthens it at the same moment is the later of the two.
        let ended = self.state.row.compare_exchange(
            known.0,
            Counted::new(word.turn(), 0).0,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        match ended {
            Ok(_) => (row, self.tally.good_ever()),
            Err(_) => (0, 0),
        }
    }

    /// The new length, unless another state has begun.
    fn lengthen_row(&self, word: Word, longer: impl Fn(u32) -> u32) -> Option<u32> {
        let mut known = Counted(self.state.row.load(Ordering::Acquire));
        loop {
            if self.is_over(word, known) {
                return None;
            }
            let row = longer(known.of(word.turn()));
            let next = Counted::new(word.turn(), row);
            let changed = self.state.row.compare_exchange_weak(
                known.0,
                next.0,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match changed {
                Ok(_) => return Some(row),
                Err(other) => known = Counted(other),
            }
        }
    }

    /// Whether failures in a row are the upstream's own: more than half of its endpoints have a part in them or are out
    /// of service. Up to half are taken out one by one (`set`). While that is being done, a few that fail at once make rows
    /// by chance, and to refuse everything for their sake would turn 30 % of failures into 100 % (HI-50). A row in
    /// which every endpoint could have had `failures` of its own is nobody's chance, wherever it came from.
    ///
    /// Who begins a row while another lengthens it may forget that one's endpoint: the row is then longer by one or two.
    #[cold]
    fn judged_row(&self, policy: &Policy, length: u32, permit: &Permit) -> Row {
        let Some(place) = permit.place else {
            let widespread = true;
            return Row { length, widespread };
        };
        let failing = if length == 1 {
            self.state.failing.store(place.endpoint, Ordering::Relaxed);
            place.endpoint
        } else {
            let known = self
                .state
                .failing
                .fetch_or(place.endpoint, Ordering::Relaxed);
            known | place.endpoint
        };
        let most = (place.endpoints / 2 + 1).min(MOST);
        let enough_for_all = policy.failures.value.saturating_mul(place.endpoints);
        Row {
            length,
            widespread: (failing | place.out).count_ones() >= most || length >= enough_for_all,
        }
    }

    /// GW-404. Asked at each failure, and at nothing else: a success never opens.
    fn consider_opening(&self, policy: &Policy, word: Word, row: Row, now: Moment, tell: Tell<'_>) {
        let in_a_row = row.widespread && row.length >= policy.failures.value;
        let rate = policy.error_rate.value;
        let usual = match policy.kind.value {
            BreakerKind::Adaptive => self.baseline.usual(),
            BreakerKind::Fixed | BreakerKind::Percentile => None,
        };
        let may_open = matches!(word.kind(), Kind::Closed | Kind::Rising);
        if !may_open || !(in_a_row || rate.is_some() || usual.is_some()) {
            return;
        }
        let counts = self.tally.sum(word.0, policy.window.value, now);
        let total = counts.total();
        let few = counts.bad < u64::from(policy.failures.value);
        let chance = few && word.kind() == Kind::Rising;
        let too_many = rate.is_some_and(|rate| !chance && counts.bad as f64 > rate * total as f64);
        let unusual = usual.is_some_and(|usual| !few && usual.is_exceeded_by(counts));
        if total < volume(policy, word) || !(in_a_row || too_many || unusual) {
            return;
        }
        let reason = if in_a_row {
            BreakerReason::Failures
        } else if too_many {
            BreakerReason::ErrorRate
        } else {
            BreakerReason::Deviation
        };
        self.turn_with(
            word,
            Kind::Open,
            reason,
            evidence(row.length, counts),
            now,
            tell,
        );
    }
}

/// So many tries must have been seen before it opens. One that is coming back has been seen failing already.
pub(super) fn volume(policy: &Policy, word: Word) -> u64 {
    match word.kind() {
        Kind::Rising => 0,
        _ => u64::from(policy.volume.value),
    }
}

fn evidence(row: u32, counts: Counts) -> Evidence {
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Evidence {
        failures_in_a_row: row,
        tries: small(counts.total()),
        failed: small(counts.bad),
    }
}
