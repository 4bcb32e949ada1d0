//! What is remembered of limits from one snapshot to the next: levels and monthly counts, under the limit's name. No
//! setting is kept here (a bucket is a level, not a limit), so a changed limit meets the levels that there are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::lease::Leases;
use super::month::{self, Month};
use super::shelf::{Budget, Key, Meaning, Shelf};
use super::who::Seed;

/// All buckets of a process: 16 MiB, which is 917,504 keys.
const GROUPS: usize = 131_072;

/// One limit's levels; of tiers also the months' counts.
#[derive(Debug)]
pub struct Meter {
    /// Differs from every other's.
    pub(super) number: u64,
    pub(super) buckets: Shelf,
    pub(super) months: Shelf,
}

/// Every living limit of a process.
#[derive(Debug)]
pub struct LimitMemory {
    pub(super) seed: Seed,
    budget: Arc<Budget>,
    /// The strong ends are held by the compiled limits of snapshots.
    meters: Mutex<HashMap<String, Weak<Meter>>>,
    /// Held here too: what was used of a month must not be forgotten because a document left tiers out for a while.
    pub(super) tiers: Arc<Meter>,
    /// Every tier ever seen; its position is its class.
    classes: Mutex<Vec<String>>,
    /// Of limits that are shared with other gateways.
    pub leases: Arc<Leases>,
}

impl Default for LimitMemory {
    /// With a secret of its own.
    fn default() -> Self {
        LimitMemory::new(Seed::random())
    }
}

impl LimitMemory {
    pub fn new(seed: Seed) -> Self {
        let budget = Arc::new(Budget::new(GROUPS));
        LimitMemory {
            seed,
            tiers: Arc::new(Meter::new(&budget)),
            budget,
            meters: Mutex::default(),
            classes: Mutex::default(),
            leases: Arc::default(),
        }
    }

    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// The levels under a name, or new ones.
    pub(super) fn meter(&self, name: &str) -> Arc<Meter> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = meters.get(name).and_then(Weak::upgrade) {
            return meter;
        }
        meters.retain(|_, meter| meter.strong_count() > 0);
        let meter = Arc::new(Meter::new(&self.budget));
        meters.insert(name.to_owned(), Arc::downgrade(&meter));
        meter
    }

    /// A tier's class; the same name has the same one for as long as the process lives. Tiers beyond the 255th share
    /// one, which no document comes near.
    pub(super) fn class(&self, tier: &str) -> u8 {
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        let position = classes
            .iter()
            .position(|known| known == tier)
            .unwrap_or_else(|| {
                classes.push(tier.to_owned());
                classes.len() - 1
            });
        u8::try_from(position).unwrap_or(u8::MAX)
    }

    /// Every client's count of this month, as it is kept on disk.
    pub fn months(&self, month: Month) -> Vec<(u64, u64)> {
        let mut counts = Vec::with_capacity(self.tiers.months.len());
        self.tiers.months.each(|key, word| {
            let count = month::count(word, month);
            if count > 0 {
                counts.push((key.hash(), count));
            }
        });
        counts
    }

    /// Takes a count over from disk. Before anybody counts.
    pub fn restore(&self, hash: u64, month: Month, count: u64) {
        let meaning = Months(month);
        let word = month::none(month) + count.min(1 << 40);
        self.tiers
            .months
            .change(Key::new(hash, 0), &meaning, |_| (Some(word), ()));
    }

    /// What was counted in other months leaves.
    pub fn forget_months(&self, month: Month) {
        self.tiers
            .months
            .sweep(|word, _| (month::count(word, month) > 0).then_some(word));
    }
}

impl Meter {
    fn new(budget: &Arc<Budget>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Meter {
            number: NEXT.fetch_add(1, Relaxed),
            buckets: Shelf::new(budget.clone()),
            months: Shelf::new(budget.clone()),
        }
    }
}

/// Words are counts of this month.
pub(super) struct Months(pub(super) Month);

impl Meaning for Months {
    fn fresh(&self, _: u8) -> u64 {
        month::none(self.0)
    }

    fn worth(&self, word: u64, _: u8) -> u64 {
        month::count(word, self.0)
    }
}
