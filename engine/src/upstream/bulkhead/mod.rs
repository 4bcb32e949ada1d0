//! How many requests may be in flight at an upstream, over all workers, and who waits when that many are: the wall that
//! keeps one stalled upstream from taking everything with it (GW-608 to GW-610).
//!
//! A request that gets its permit at once changes one atomic, and changes it back when its last byte is out (besides, the
//! permit holds the bulkhead, which is counted as well); no lock is touched. Only who must wait takes the queue's lock, and who leaves while somebody waits tries for it, without ever
//! waiting. A free permit is handed to whoever is first by the one who gives it back, whatever worker that is.
//!
//! Nothing is lost on the way: what is in flight and how many wait are one word. Who leaves sees a waiter that stands in
//! line, or that waiter, looking at the word once more after it stood in line, sees what was left. And whoever holds the
//! lock looks again after giving it up, because others will not have waited for it.
//!
//! Holds no setting: limit and queue are arguments. Only the rules of the one who asked last are kept beside the queue,
//! because they hold for those who wait.

mod adaptive;
#[cfg(test)]
mod interleavings;
mod queue;
#[cfg(test)]
mod tests;
mod wait;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use serde::Serialize;
use smallvec::SmallVec;
use tollgate_config::{MaxInFlight, Priority};

use super::moment::{Moment, nanoseconds};
use adaptive::Adaptive;
use queue::Queue;
use wait::Waiter;

pub use wait::{Shed, Wait};

/// One more in flight.
const PERMIT: u64 = 1;
/// One more that waits.
const WAITER: u64 = 1 << 32;

/// What is remembered of an upstream's requests in flight. All workers share one, over reloads.
#[derive(Debug, Default)]
pub struct Bulkhead {
    /// The lower half counts what is in flight, the upper half who waits. The upper half changes under the lock only.
    state: AtomicU64,
    line: Mutex<Line>,
    adaptive: Adaptive,
}

/// Who waits, and what became of others.
#[derive(Debug, Default)]
struct Line {
    queue: Queue<Arc<Waiter>>,
    /// The limit as the last who asked was told.
    limit: Option<MaxInFlight>,
    /// By priority.
    shed: [u64; 3],
    refused: [u64; 3],
    expired: [u64; 3],
}

/// The settings of one upstream, as one snapshot has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub limit: MaxInFlight,
    /// How many may wait; 0: nobody does.
    pub length: usize,
    /// The longest that one waits.
    pub patience: Duration,
}

/// What becomes of a request that wants in.
#[derive(Debug)]
pub enum Entry {
    Permit(Permit),
    /// To be awaited, for no longer than the rules' patience.
    Wait(Wait),
    /// All permits are out, and nobody less important waits.
    Full,
}

/// No permit is free, or somebody waits for it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// The right to be in flight at an upstream. Given back when dropped.
#[derive(Debug)]
#[must_use = "a dropped permit is given back"]
pub struct Permit {
    bulkhead: Arc<Bulkhead>,
}

/// What an operator sees.
#[derive(Debug, Clone, Serialize)]
pub struct BulkheadStatus {
    pub in_flight: u32,
    /// As it holds now.
    pub limit: u32,
    /// The latency that the adaptive limit takes for normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline_ms: Option<f64>,
    pub waiting: ByPriority,
    /// Who waited too long.
    pub expired: ByPriority,
    /// Who found the queue full.
    pub refused: ByPriority,
    /// Who made room for somebody more important.
    pub shed: ByPriority,
}

/// A number for each priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ByPriority {
    pub critical: u64,
    pub default: u64,
    pub sheddable: u64,
}

impl From<[u64; 3]> for ByPriority {
    fn from([critical, default, sheddable]: [u64; 3]) -> Self {
        ByPriority {
            critical,
            default,
            sheddable,
        }
    }
}

impl From<ByPriority> for [u64; 3] {
    fn from(counts: ByPriority) -> Self {
        [counts.critical, counts.default, counts.sheddable]
    }
}

impl Rules {
    /// `None`: the upstream has no bulkhead.
    pub fn of(settings: &tollgate_config::Upstream) -> Option<Rules> {
        let limit = settings.max_in_flight.value?;
        let queue = settings.queue.as_ref();
        Some(Rules {
            limit,
            length: queue.map_or(0, |queue| queue.length.value as usize),
            patience: queue.map_or(Duration::ZERO, |queue| queue.timeout.value),
        })
    }
}

impl Bulkhead {
    /// Asks for a permit. Who may not have one at once waits, if there is room to wait or somebody less important makes
    /// room; nobody overtakes those who wait.
    #[inline]
    pub fn enter(self: &Arc<Self>, rules: &Rules, priority: Priority, now: Instant) -> Entry {
        let limit = self.limit(rules.limit);
        let mut state = self.state.load(Relaxed);
        while waiting(state) == 0 && in_flight(state) < limit {
            let taken = self
                .state
                .compare_exchange_weak(state, state + PERMIT, Acquire, Relaxed);
            match taken {
                Ok(_) => return Entry::Permit(Permit::new(self)),
                Err(other) => state = other,
            }
        }
        self.line_up(rules, priority, now.into())
    }

    /// A permit if there is one right now, for what nobody should wait for: no queue, and nobody is overtaken.
    pub fn try_enter(self: &Arc<Self>, rules: &Rules) -> Option<Permit> {
        let limit = self.limit(rules.limit);
        let taken = self.state.fetch_update(Acquire, Relaxed, |state| {
            (waiting(state) == 0 && in_flight(state) < limit).then_some(state + PERMIT)
        });
        taken.is_ok().then(|| Permit::new(self))
    }

    #[cold]
    fn line_up(self: &Arc<Self>, rules: &Rules, priority: Priority, now: Moment) -> Entry {
        let mut shed = None;
        let entry = self.locked(|line| {
            line.limit = Some(rules.limit);
            if line.queue.len() >= rules.length {
                let Some((theirs, waiter)) = line.queue.displace(priority) else {
                    line.refused[priority as usize] += 1;
                    return Entry::Full;
                };
                self.state.fetch_sub(WAITER, AcqRel);
                line.shed[theirs as usize] += 1;
                waiter.decide(Err(Shed));
                shed = Some(waiter);
            }
            let waiter = Arc::new(Waiter::default());
            let patience = nanoseconds(rules.patience);
            let ticket = line.queue.push(priority, waiter.clone(), now, patience);
            self.state.fetch_add(WAITER, AcqRel);
            Entry::Wait(Wait::new(self.clone(), waiter, priority, ticket))
        });
        if let Some(waiter) = shed {
            waiter.wake();
        }
        entry
    }

    /// A permit is free. Whoever is first in line gets it.
    #[inline]
    fn leave(&self) {
        let before = self.state.fetch_sub(PERMIT, AcqRel);
        if waiting(before) > 0 {
            self.hand_over();
        }
    }

    /// Hands free permits to those who wait, unless somebody holds the lock: then that one does, when it lets go.
    #[cold]
    fn hand_over(&self) {
        loop {
            let mut line = match self.line.try_lock() {
                Ok(line) => line,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let granted = self.grant(&mut line);
            let limit = line.limit;
            drop(line);
            wake(granted);
            if !self.was_left(limit) {
                return;
            }
        }
    }

    /// Runs `change` under the lock, and hands over what came free by it or meanwhile.
    fn locked<R>(&self, change: impl FnOnce(&mut Line) -> R) -> R {
        let mut line: MutexGuard<'_, Line> =
            self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut line);
        let granted = self.grant(&mut line);
        let limit = line.limit;
        drop(line);
        wake(granted);
        if self.was_left(limit) {
            self.hand_over();
        }
        result
    }

    /// Whether somebody waits for a permit that is free. A change instead of a load, so that it comes, in the one order
    /// of all changes of `state`, before those it does not see: who left after it finds the lock free.
    fn was_left(&self, limit: Option<MaxInFlight>) -> bool {
        let state = self.state.fetch_add(0, AcqRel);
        // An adaptive limit may have risen since.
        waiting(state) > 0 && in_flight(state) < limit.map_or(0, |limit| self.limit(limit))
    }

    /// Turns waiters into permits for as long as there are both.
    fn grant(&self, line: &mut Line) -> SmallVec<[Arc<Waiter>; 2]> {
        let limit = self.limit_of(line);
        let mut granted: SmallVec<[Arc<Waiter>; 2]> = SmallVec::new();
        let mut state = self.state.load(Acquire);
        while waiting(state) > 0 && in_flight(state) < limit {
            let after = state + PERMIT - WAITER;
            match self
                .state
                .compare_exchange_weak(state, after, AcqRel, Acquire)
            {
                Ok(_) => {
                    state = after;
                    let waiter = line.queue.pop();
                    // The upper half of the state is the queue's length: both change together under this lock.
                    granted.push(waiter.expect("as many wait as the state says"));
                }
                Err(other) => state = other,
            }
        }
        for waiter in &granted {
            waiter.decide(Ok(()));
        }
        granted
    }

    /// Somebody does not wait any more. A permit that was on its way to it goes to the next.
    fn abandon(&self, waiter: &Waiter, priority: Priority, ticket: u64, late: bool) {
        let verdict = self.locked(|line| {
            if line.queue.remove(priority, ticket).is_some() {
                self.state.fetch_sub(WAITER, AcqRel);
                line.expired[priority as usize] += u64::from(late);
            }
            waiter.verdict()
        });
        if verdict == Some(Ok(())) {
            self.leave();
        }
    }

    /// An answer's head came after it was waited for from `began` on; or somebody gave up waiting for it, having waited
    /// longer than is normal. Only an adaptive limit learns from it.
    pub fn learn(&self, rules: &Rules, began: Instant, now: Instant) {
        let MaxInFlight::Adaptive { least, most } = rules.limit else {
            return;
        };
        let in_flight = in_flight(self.state.load(Relaxed));
        let raised = self
            .adaptive
            .learn(began.into(), in_flight, least..=most, now.into());
        if raised && waiting(self.state.load(Relaxed)) > 0 {
            self.hand_over();
        }
    }

    #[inline]
    fn limit(&self, limit: MaxInFlight) -> u32 {
        match limit {
            MaxInFlight::Fixed(most) => most,
            MaxInFlight::Adaptive { least, most } => self.adaptive.limit().clamp(least, most),
        }
    }

    fn limit_of(&self, line: &Line) -> u32 {
        line.limit.map_or(0, |limit| self.limit(limit))
    }

    pub fn in_flight(&self) -> u32 {
        in_flight(self.state.load(Relaxed))
    }

    pub fn waiting(&self) -> u32 {
        waiting(self.state.load(Relaxed))
    }

    pub fn status(&self, rules: &Rules) -> BulkheadStatus {
        self.locked(|line| BulkheadStatus {
            in_flight: self.in_flight(),
            limit: self.limit(rules.limit),
            baseline_ms: match rules.limit {
                MaxInFlight::Adaptive { .. } => self.adaptive.baseline_ms(),
                MaxInFlight::Fixed(_) => None,
            },
            waiting: line.queue.lengths().into(),
            expired: line.expired.into(),
            refused: line.refused.into(),
            shed: line.shed.into(),
        })
    }
}

impl Permit {
    fn new(bulkhead: &Arc<Bulkhead>) -> Self {
        Permit {
            bulkhead: bulkhead.clone(),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.bulkhead.leave();
    }
}

fn in_flight(state: u64) -> u32 {
    state as u32
}

fn waiting(state: u64) -> u32 {
    (state >> 32) as u32
}

fn wake(granted: SmallVec<[Arc<Waiter>; 2]>) {
    for waiter in granted {
        waiter.wake();
    }
}
