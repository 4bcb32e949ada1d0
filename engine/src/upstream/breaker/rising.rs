//! How a breaker of the percentile kind comes back (GW-411): with a share of the traffic that grows, because what was slow
//! under load is quick while it has none, and would be slow again if all of the load returned at once. After its good probes
//! it admits `FIRST` of the tries, and all of them once it has been back for as long as it was open. Until then it is on
//! trial: `volume` protects it no longer, so that the few that it admits are enough to open it again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tollgate_config::{Breaker as Policy, BreakerKind};

use super::word::{Counted, Kind, Word};
use super::{Breaker, Permit, Tell};
use crate::telemetry::metrics::BreakerReason;
use crate::upstream::moment::Moment;

/// The share of the tries that is admitted at first.
const FIRST: f64 = 0.1;
/// The golden ratio's fraction of 2^64: multiples of it fall evenly into any share of the numbers, in any order.
const EVENLY: u64 = 0x9e37_79b9_7f4a_7c15;

impl Breaker {
    /// Enough probes have succeeded.
    pub(super) fn recover(&self, policy: &Policy, from: Word, now: Moment, tell: Tell<'_>) {
        let to = match policy.kind.value {
            BreakerKind::Percentile => Kind::Rising,
            BreakerKind::Fixed | BreakerKind::Adaptive => Kind::Closed,
        };
        self.turn(from, to, BreakerReason::Recovered, now, tell);
    }

    /// One try of a breaker that is coming back: admitted, or not yet. `None`: it is back, and the state another.
    pub(super) fn admit_rising(
        &self,
        policy: &Policy,
        word: Word,
        now: Moment,
    ) -> Option<Result<Permit, ()>> {
        let Some(share) = rising_share(policy, word, now) else {
            // For operators it has been closed since it recovered, so nobody is told.
            let _somebody_else_did = self.exchange(word, word.next(Kind::Closed, now));
            return None;
        };
        let asked = self.count_asked(word)?;
        let place = u64::from(asked).wrapping_mul(EVENLY);
        let admitted = (place as f64) < share * u64::MAX as f64;
        Some(if admitted {
            Ok(Permit::new(word))
        } else {
            Err(())
        })
    }

    /// Which try of this turn this is; `None` when the turn is over.
    fn count_asked(&self, word: Word) -> Option<u32> {
        let mut known = Counted(self.round.load(Ordering::Acquire));
        loop {
            if self.is_over(word, known) {
                return None;
            }
            let asked = known.of(word.turn()).wrapping_add(1);
            let changed = self.round.compare_exchange_weak(
                known.0,
                Counted::new(word.turn(), asked).0,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match changed {
                Ok(_) => return Some(asked),
                Err(other) => known = Counted(other),
            }
        }
    }
}

/// The share of tries that is admitted now; `None` when that is all of them.
pub(super) fn rising_share(policy: &Policy, word: Word, now: Moment) -> Option<f64> {
    let risen = Duration::from_nanos(now.since(word.since()));
    let rises = policy.kind.value == BreakerKind::Percentile && risen < policy.open_for.value;
    rises.then(|| FIRST + (1.0 - FIRST) * risen.as_secs_f64() / policy.open_for.value.as_secs_f64())
}
