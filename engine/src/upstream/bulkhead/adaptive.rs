//! A limit that finds itself: as many requests in flight as the upstream answers without making them wait for one
//! another. Compares how long answers take now with how long they take when nothing waits (the baseline): while they are
//! about the same, the limit grows by a twentieth at each look; when they are slower, it shrinks in proportion. At the
//! edge both cancel out, a quarter above what the upstream really does at the same time.
//!
//! The baseline sinks with every faster look. That it may also rise, for an upstream that has become slower for good, is
//! learned by dips: once in fifty looks, and whenever the limit has lost half, it is halved for the length of one look,
//! and what is begun then finds no queue. Half of the traffic goes on meanwhile, the other half waits that long; there is
//! no outage to measure, and no dip at all when less than half of the limit is used, because then every look is as good
//! as one.
//!
//! `Adaptive` is shared by workers: the limit is one atomic; what learns is behind a lock that nobody waits for, since a
//! sample more or less is no loss. `Controller` is pure.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::upstream::moment::{Moment, nanoseconds};

/// Where it begins.
const BEGIN: u32 = 20;
/// A look takes this long, and at least as long as an answer took at the last one …
const LOOK: u64 = nanoseconds(Duration::from_millis(100));
/// … and needs so many answers.
const ENOUGH: u32 = 10;
/// Answers may take so much longer than the baseline before the limit shrinks.
const TOLERANCE: f64 = 1.2;
const GROWTH: f64 = 0.05;
/// A look never takes away more than this share.
const STEEPEST: f64 = 0.5;
/// Looks from one dip to the next.
const BETWEEN_DIPS: u32 = 50;
/// A dip that brings no answers ends after this long.
const LONGEST_DIP: u64 = nanoseconds(Duration::from_secs(2));
/// How much a faster look, or a dip, moves the baseline.
const SINKS: f64 = 0.2;
const MEASURED: f64 = 0.7;

#[derive(Debug)]
pub(super) struct Adaptive {
    limit: AtomicU32,
    controller: Mutex<Controller>,
}

impl Default for Adaptive {
    fn default() -> Self {
        Adaptive {
            limit: AtomicU32::new(BEGIN),
            controller: Mutex::default(),
        }
    }
}

impl Adaptive {
    #[inline]
    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    pub(super) fn baseline_ms(&self) -> Option<f64> {
        let baseline = self
            .controller
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .baseline;
        (baseline > 0.0).then(|| (baseline / 1e3).round() / 1e3)
    }

    /// An answer to what was asked at `began`. Says whether the limit has risen.
    pub(super) fn learn(
        &self,
        began: Moment,
        in_flight: u32,
        bounds: RangeInclusive<u32>,
        now: Moment,
    ) -> bool {
        let Ok(mut controller) = self.controller.try_lock() else {
            return false;
        };
        controller.learn(began, in_flight, &bounds, now);
        let limit = controller.limit(&bounds);
        self.limit.swap(limit, Relaxed) < limit
    }
}

#[derive(Debug)]
pub(super) struct Controller {
    /// Outside of dips.
    limit: f64,
    /// Nanoseconds; 0 before the first look.
    baseline: f64,
    look: Look,
    /// Looks since the last dip.
    looks: u32,
    /// The limit at the last dip, or the highest since.
    high: f64,
    dips: bool,
}

#[derive(Debug, Default)]
struct Look {
    began: Moment,
    least: u64,
    sum: f64,
    count: u32,
    peak: u32,
}

impl Default for Controller {
    fn default() -> Self {
        Controller {
            limit: f64::from(BEGIN),
            baseline: 0.0,
            look: Look::default(),
            looks: 0,
            high: 0.0,
            dips: false,
        }
    }
}

impl Controller {
    /// The limit that holds now.
    pub(super) fn limit(&self, bounds: &RangeInclusive<u32>) -> u32 {
        let limit = if self.dips {
            self.limit / 2.0
        } else {
            self.limit
        };
        (limit as u32).clamp(*bounds.start(), *bounds.end())
    }

    pub(super) fn learn(
        &mut self,
        began: Moment,
        in_flight: u32,
        bounds: &RangeInclusive<u32>,
        now: Moment,
    ) {
        // In a dip only what began in it has found no queue.
        if !self.dips || began >= self.look.began {
            self.look.sum += now.since(began) as f64;
            self.look.count += 1;
            self.look.peak = self.look.peak.max(in_flight);
        }
        let elapsed = now.since(self.look.began);
        if self.look.count >= ENOUGH && elapsed >= self.look.least {
            self.judge(bounds, now);
        } else if self.dips && elapsed >= LONGEST_DIP.max(4 * self.baseline as u64) {
            self.end_dip(now);
        }
    }

    fn judge(&mut self, bounds: &RangeInclusive<u32>, now: Moment) {
        let mean = (self.look.sum / f64::from(self.look.count)).max(1.0);
        if self.baseline == 0.0 {
            self.baseline = mean;
        }
        if self.dips {
            self.measured(mean);
            self.end_dip(now);
            return;
        }
        if mean < self.baseline {
            self.baseline += (mean - self.baseline) * SINKS;
        }
        self.looks += 1;
        let is_used = f64::from(self.look.peak) >= self.limit / 2.0;
        if is_used {
            let share = (TOLERANCE * self.baseline / mean).clamp(STEEPEST, 1.0);
            let grown = self.limit * share + (self.limit * GROWTH).max(1.0);
            self.limit = grown.clamp(f64::from(*bounds.start()), f64::from(*bounds.end()));
        }
        self.high = self.high.max(self.limit);
        let mut least = mean as u64;
        if self.looks >= BETWEEN_DIPS || self.limit < self.high / 2.0 {
            self.looks = 0;
            self.high = self.limit;
            if is_used {
                self.dips = true;
                // Long enough for slow answers to what is begun in it, not only for quick ones.
                least *= 2;
            } else {
                self.measured(mean);
            }
        }
        self.begin_look(least, now);
    }

    fn measured(&mut self, mean: f64) {
        let part = if mean < self.baseline { 1.0 } else { MEASURED };
        self.baseline += (mean - self.baseline) * part;
    }

    fn end_dip(&mut self, now: Moment) {
        self.dips = false;
        self.begin_look(self.baseline as u64, now);
    }

    fn begin_look(&mut self, took: u64, now: Moment) {
        self.look = Look {
            began: now,
            least: LOOK.max(took),
            ..Look::default()
        };
    }
}

#[cfg(test)]
mod tests;
