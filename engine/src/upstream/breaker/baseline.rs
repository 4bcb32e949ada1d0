//! Which share of an upstream's tries usually fails, and how much that varies: learned slice by slice while the breaker is
//! closed, kept when it opens. A slice is a sixth of the window; the last hundred weigh most.
//!
//! Two numbers in one atomic, so that they are read as a pair. Whoever notes the first try of a slice looks back at the
//! one before; all others read one number that nobody writes meanwhile.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Moment;
use crate::upstream::tally::Counts;

/// Slices without which nothing is usual yet: a window.
const ENOUGH: u64 = 6;
/// A slice weighs at least this much.
const LEAST_WEIGHT: f32 = 0.01;
/// Slices with fewer tries say too little.
const FEWEST: u64 = 5;
/// Standard deviations beyond which a share is unusual (GW-411).
const DEVIATIONS: f32 = 2.0;
/// What is less above the mean is nothing to open for, however steady the upstream was: of a mean of 1 %, two standard
/// deviations may be a tenth of a percent.
const NOTHING: f32 = 0.1;

#[derive(Debug, Default)]
pub(super) struct Baseline {
    /// The slice that has begun.
    slice: AtomicU64,
    /// Mean and variance, two `f32`.
    learned: AtomicU64,
    /// Slices learned from.
    slices: AtomicU64,
}

/// What is usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usual {
    pub(super) mean: f32,
    pub(super) variance: f32,
}

impl Baseline {
    /// The seconds of the slice that has just ended, for whoever is the first to come in the next one.
    #[inline]
    pub(super) fn turn_over(&self, window: Duration, now: Moment) -> Option<Range<u64>> {
        let length = (window.as_secs() / 6).max(1);
        let slice = now.0 / 1_000_000_000 / length;
        let known = self.slice.load(Ordering::Relaxed);
        // A slice counts from its own length: when the window was changed, the next whole slice is the first again.
        if slice <= known && slice + 1 >= known {
            return None;
        }
        self.begin(known, slice, length)
    }

    #[cold]
    fn begin(&self, known: u64, slice: u64, length: u64) -> Option<Range<u64>> {
        self.slice
            .compare_exchange(known, slice, Ordering::Relaxed, Ordering::Relaxed)
            .ok()?;
        // After a pause, or with another length, nobody knows where the one before began.
        (known + 1 == slice).then(|| known * length..slice * length)
    }

    /// Only by whoever was given the slice.
    pub(super) fn learn(&self, counts: Counts) {
        if counts.total() < FEWEST {
            return;
        }
        let mut share = counts.bad as f32 / counts.total() as f32;
        if let Some(usual) = self.usual() {
            // What is unusual counts as little as it can: an outage must not become usual while the window fills with it,
            // but what lasts for long does.
            share = share.min(usual.most(counts.total()));
        }
        let slices = self.slices.load(Ordering::Relaxed) + 1;
        let weight = (1.0 / slices as f32).max(LEAST_WEIGHT);
        let Usual { mean, variance } = self.read();
        let distance = share - mean;
        let usual = Usual {
            mean: mean + weight * distance,
            variance: (1.0 - weight) * (variance + weight * distance * distance),
        };
        let bits = u64::from(usual.mean.to_bits()) << 32 | u64::from(usual.variance.to_bits());
        self.learned.store(bits, Ordering::Relaxed);
        self.slices.store(slices, Ordering::Release);
    }

    /// `None` before enough was seen.
    pub(super) fn usual(&self) -> Option<Usual> {
        (self.slices.load(Ordering::Acquire) >= ENOUGH).then(|| self.read())
    }

    #[cfg(test)]
    pub(super) fn slices(&self) -> u64 {
        self.slices.load(Ordering::Relaxed)
    }

    fn read(&self) -> Usual {
        let bits = self.learned.load(Ordering::Relaxed);
        Usual {
            mean: f32::from_bits((bits >> 32) as u32),
            variance: f32::from_bits(bits as u32),
        }
    }
}

impl Usual {
    /// Whether so many failures are more than chance and habit explain. What chance alone does with so few tries counts
    /// too, or a quiet upstream would be unusual all the time.
    pub(super) fn is_exceeded_by(self, counts: Counts) -> bool {
        counts.bad as f32 > self.most(counts.total()) * counts.total() as f32
    }

    /// The largest share that so many tries explain.
    fn most(self, total: u64) -> f32 {
        let chance = self.mean * (1.0 - self.mean) / total.max(1) as f32;
        let deviation = (self.variance + chance).sqrt();
        self.mean + (DEVIATIONS * deviation).max(NOTHING)
    }
}
