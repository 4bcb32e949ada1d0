//! A limit that is shared with other gateways: how a request takes from what was leased, and how the control thread looks
//! at words and fills them. The one place where words of leases and the shelf they stand on meet.

use std::sync::Arc;

use tollgate_config::{SharedStore, Sharing};

use super::bucket::Taken;
use super::lease::lender::Terms;
use super::lease::lessee::{Fill, Plan, block};
use super::lease::word::{self, Seen};
use super::lease::{Leases, Wish};
use super::shelf::{Key, Meaning, Placed};
use super::{Grade, Limit, LimitMemory};
use crate::telemetry::metrics::LimitSeries;

/// What makes a limit a shared one.
#[derive(Debug)]
pub(super) struct Lease {
    /// How many tokens all gateways together may hold ahead.
    spare: u64,
    /// How many gateways there are, until somebody has told.
    gateways: u64,
    /// The lender knows what each of them holds.
    watched: bool,
    leases: Arc<Leases>,
}

impl Lease {
    pub(super) fn new(sharing: &Sharing, burst: u64, memory: &LimitMemory) -> Self {
        Lease {
            spare: (burst as f64 * sharing.overshoot) as u64,
            gateways: u64::from(sharing.gateways),
            watched: sharing.store == SharedStore::ControlPlane,
            leases: memory.leases.clone(),
        }
    }

    fn gateways(&self) -> u64 {
        self.leases.gateways(self.gateways)
    }
}

/// The words of a shelf are leases.
struct Words {
    credit: u64,
}

impl Meaning for Words {
    fn fresh(&self, _: u8) -> u64 {
        word::fresh(self.credit)
    }

    /// Who has used up the most is forgotten last; and whoever the lender has not heard of.
    fn worth(&self, word: u64, _: u8) -> u64 {
        let seen = word::seen(word);
        1 + self.credit.saturating_sub(seen.tokens) + 2 * seen.credit
    }
}

impl Limit {
    /// Takes a token of those that are here. Wishes for more when they run low; waits for nothing.
    pub(super) fn ask_leased(&self, lease: &Lease, grade: &Grade, key: Key) -> Taken {
        let block = block(lease.spare, lease.gateways());
        let words = Words { credit: block };
        let buckets = &self.meter.buckets;
        let (took, placed) = buckets.change(key, &words, |was| word::take(was, block / 2));
        self.note(placed);
        if took.ask {
            let key = match placed {
                Placed::Common => Key::COMMON,
                _ => key,
            };
            let meter = self.meter.number;
            if !lease.leases.wish(Wish { meter, key }) {
                // Its next request wishes again.
                buckets.alter(key, |was| (Some(word::unasked(was)), ()));
            }
        }
        grade.pace.taken(took.admitted, took.left)
    }

    /// What leases of this limit are made by; `None`: it is not shared.
    pub(crate) fn leased(&self) -> Option<(Terms<'_>, Plan)> {
        let lease = self.lease.as_ref()?;
        let pace = &self.grade(0)?.pace;
        let (rate, burst) = (pace.rate(), pace.burst());
        let terms = Terms {
            limit: &self.name,
            rate,
            burst,
        };
        let mut plan = Plan::new(rate, burst, lease.spare, lease.gateways());
        plan.watched = lease.watched;
        Some((terms, plan))
    }

    /// The number that wishes name it by.
    pub(crate) fn meter(&self) -> u64 {
        self.meter.number
    }

    pub(crate) fn series(&self) -> &LimitSeries {
        &self.series
    }

    pub(crate) fn look(&self, key: Key) -> Option<Seen> {
        self.meter.buckets.read(key).map(word::seen)
    }

    /// Notes a client's credit, which is told from now on; what its word said.
    pub(crate) fn note_credit(&self, key: Key) -> Option<Seen> {
        self.meter
            .buckets
            .alter(key, |was| (Some(word::noted(was)), word::seen(was)))
    }

    /// Another time.
    pub(crate) fn put_off(&self, key: Key) {
        self.meter
            .buckets
            .alter(key, |was| (Some(word::unasked(was)), ()));
    }

    /// Whether the client was still there.
    pub(crate) fn fill(&self, fill: &Fill) -> bool {
        let filled = |was| word::filled(was, fill.tokens, fill.told, fill.settled);
        let filled = |was| (Some(filled(was)), ());
        self.meter.buckets.alter(fill.key, filled).is_some()
    }

    /// Lets a client's word leave if `may` says so of it: with so many tokens. One that stays shows from now on whether it
    /// is used.
    pub(crate) fn let_go(&self, key: Key, may: impl Fn(&Seen) -> bool) -> Option<u64> {
        let was = self.meter.buckets.read(key)?;
        let seen = word::seen(was);
        if key != Key::COMMON && seen.credit == 0 && may(&seen) {
            return self.meter.buckets.leave(key, was).then_some(seen.tokens);
        }
        self.meter
            .buckets
            .alter(key, |was| (Some(word::unused(was)), ()));
        None
    }

    /// Every client begins anew.
    pub(crate) fn forget_leases(&self) {
        self.meter.buckets.sweep(|_, _| None);
    }

    /// Clients that nobody was told of: their wishes were lost.
    pub(crate) fn untold(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        self.meter.buckets.each(|key, word| {
            if word::seen(word).credit > 0 {
                keys.push(key);
            }
        });
        keys
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::super::shelf::{Budget, Shelf};
    use super::*;

    #[test]
    fn gw_306_of_leased_tokens_exactly_those_that_came_are_used_by_all_workers() {
        let shelf = Shelf::new(Arc::new(Budget::new(64)));
        let (key, words) = (Key::new(1 << 20, 0), Words { credit: 7 });
        let (used, wishes, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let take = || shelf.change(key, &words, |was| word::take(was, 3)).0;
        let mut came = 7;
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let took = take();
                        used.fetch_add(u64::from(took.admitted), Ordering::Relaxed);
                        wishes.fetch_add(u64::from(took.ask), Ordering::Relaxed);
                    }
                });
            }
            let mut fills = 0;
            while fills < 2000 {
                // As the control thread does: one answer for each wish.
                if wishes.swap(0, Ordering::Relaxed) == 0 {
                    std::thread::yield_now();
                    continue;
                }
                shelf.alter(key, |was| (Some(word::noted(was)), ()));
                fills += 1;
                let filled = shelf.alter(key, |was| (Some(word::filled(was, 5, 9, true)), ()));
                assert!(filled.is_some(), "nobody takes its place");
                came += 5;
            }
            done.store(true, Ordering::Relaxed);
        });
        while take().admitted {
            used.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(used.into_inner(), came);
    }

    #[test]
    fn a_client_leaves_with_what_it_holds_or_not_at_all() {
        let shelf = Shelf::new(Arc::new(Budget::new(64)));
        let (key, words) = (Key::new(1 << 20, 0), Words { credit: 2 });
        let take = || shelf.change(key, &words, |was| word::take(was, 1)).0;
        assert!(take().admitted);
        let was = shelf.read(key).expect("it is there");
        assert!(take().admitted);
        assert!(!shelf.leave(key, was), "it took one more meanwhile");
        let now = shelf.read(key).expect("it is there");
        assert!(shelf.leave(key, now));
        assert_eq!((shelf.read(key), shelf.len()), (None, 0));
        assert!(!shelf.leave(key, now), "only once");
        assert_eq!(
            shelf.alter(key, |was| (Some(was), ())),
            None,
            "nobody is made up"
        );
        // Everybody without a place has a word in common, which never leaves.
        assert_eq!(shelf.read(Key::COMMON), None);
    }
}
