//! What is normal for the answers of one route, and how long it is therefore worth waiting for one (GW-605).
//!
//! `Pace` follows the time that 99 of 100 answers come within. Each answer moves it a little: a slower one up by a
//! tenth, a faster one down by a thousandth, which balance where one in a hundred is slower. So there is no window and
//! no lock, and it costs a load and a store. Whoever gave up is a slower one too, as far as it waited: an upstream that
//! becomes slower for good, however much, moves the time-out up with every try that is cut short, and loses a few dozen
//! tries and not its service.
//!
//! Two workers may move it at once, and one step is lost; the next answer makes it good. Holds no setting: bounds are
//! arguments. Reads no clock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::moment::nanoseconds;

/// So many answers are waited for before anything is called normal.
const ENOUGH: u32 = 100;
/// A slower answer moves what is normal by this …
const UP: f64 = 1.1;
/// … and a faster one by a hundredth of that.
const DOWN: f64 = 0.999;
/// What is waited for, as a multiple of what is normal.
const FACTOR: f64 = 1.5;

/// Shared by all workers.
#[derive(Debug, Default)]
pub struct Pace {
    /// Nanoseconds as the bits of an `f64`, which for positive numbers are in the same order.
    normal: AtomicU64,
    heard: AtomicU32,
}

impl Pace {
    /// An answer's head came after so long.
    pub fn answered(&self, took: Duration) {
        self.learn(took, true);
    }

    /// None came for so long, and then the try was given up.
    pub fn gave_up(&self, after: Duration) {
        self.learn(after, false);
    }

    fn learn(&self, took: Duration, came: bool) {
        // Nothing answers in less than a nanosecond, and zero means that nothing is known.
        let took = nanoseconds(took).max(1) as f64;
        if self.heard.load(Relaxed) < ENOUGH {
            self.normal.fetch_max(took.to_bits(), Relaxed);
            self.heard.fetch_add(1, Relaxed);
            return;
        }
        let normal = f64::from_bits(self.normal.load(Relaxed));
        let moved = if took > normal {
            // Never beyond what was seen: many that end together would add up.
            (normal * UP).min(took)
        } else if came {
            (normal * DOWN).max(1.0)
        } else {
            return;
        };
        self.normal.store(moved.to_bits(), Relaxed);
    }

    /// The time that 99 of 100 answers come within; `None` before there were enough.
    pub fn normal(&self) -> Option<Duration> {
        let known = self.heard.load(Relaxed) >= ENOUGH;
        let normal = f64::from_bits(self.normal.load(Relaxed));
        known.then(|| Duration::from_nanos(normal as u64))
    }

    /// How long to wait for an answer, at least `least`; `None`: as long as `most` allows.
    pub fn timeout(&self, least: Duration, most: Duration) -> Option<Duration> {
        let timeout = self.normal()?.mul_f64(FACTOR).max(least);
        (timeout < most).then_some(timeout)
    }
}

/// The pace of every route that has one, under its name. Asked by compile only; forgets when no snapshot knows the route.
#[derive(Debug, Default)]
pub struct PaceMemory(Mutex<HashMap<String, Weak<Pace>>>);

impl PaceMemory {
    pub fn of(&self, route: &str) -> Arc<Pace> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = known.get(route).and_then(Weak::upgrade) {
            return pace;
        }
        let pace = Arc::<Pace>::default();
        if known.len() == known.capacity() {
            known.retain(|_, pace| pace.strong_count() > 0);
        }
        known.insert(route.to_owned(), Arc::downgrade(&pace));
        pace
    }
}

#[cfg(test)]
mod tests;
