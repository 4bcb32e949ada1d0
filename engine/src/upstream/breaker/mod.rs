//! Whether an upstream is asked at all: closed, open or half-open, exactly by GW-402 to GW-406. One for each upstream,
//! shared by all workers, kept over reloads.
//!
//! Holds observations and no threshold: the policy comes with every question, so a changed setting applies at the next
//! decision. Reads no clock and draws nothing by chance. While it is closed, admitting a try is one relaxed load; an
//! answer is counted on a line of the worker's own (`Tally`); only failures and changes of state are written where all
//! workers read. No lock anywhere on the way of a request, and nobody waits.
//!
//! An adaptive one also knows what is usual (`baseline`) and stays open longer each time it opens again. One of the
//! percentile kind also counts slow answers (`slow`), and comes back by and by (`rising`).
//!
//! A permit carries the state that it was given under. What comes back under another state is old news and changes
//! nothing. A try is judged by its answer's head, so that streams are no riddle; what goes wrong after that takes the
//! judgement back. A try that ends without a judgement (the client left) returns its place, and probes that say nothing
//! for as long as the breaker was open make room for others: half-open cannot jam.

mod baseline;
mod history;
mod judge;
mod rising;
mod slow;
mod status;
#[cfg(test)]
mod tests;
mod word;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tollgate_config::{Breaker as Policy, BreakerKind};

use super::moment::{Moment, nanoseconds};
use super::tally::Tally;
use crate::telemetry::metrics::{BreakerReason, BreakerState};
use baseline::Baseline;
use history::History;
use word::{Counted, Kind, Probes, Word};

pub use history::Evidence;
pub use status::{BreakerStatus, Hold};

/// Closed for so long, a breaker that opens does so for the first time.
const STEADY: Duration = Duration::from_secs(300);
/// An adaptive breaker doubles its time open this often, so to 32 times.
const LONGEST_AGAIN: u64 = 5;
/// What whoever was refused because enough probes are under way is told to wait.
const PROBES_TAKE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// Probes of the present turn.
    round: AtomicU64,
    /// Until when an operator's word holds, as a `Moment`.
    held_until: AtomicU64,
    last_failure: AtomicU64,
    /// How often it opened by itself.
    trips: AtomicU64,
    tally: Tally,
    /// Answers that were not slow, and those that were; counted for the percentile kind alone.
    speed: Tally,
    /// What is usual; learned for the adaptive kind alone.
    baseline: Baseline,
    /// How often it has opened without having been closed for `STEADY` in between.
    again: AtomicU64,
    history: History,
    /// Who holds it and why. Locked on the control thread only.
    hold: Mutex<Option<Hold>>,
}

/// What every try reads: on a line that is written only when something fails.
#[derive(Debug, Default)]
#[repr(align(128))]
struct State {
    word: AtomicU64,
    /// Failures in a row.
    row: AtomicU64,
    /// Which endpoints the failures of the row came from: a bit for each, by its number.
    failing: AtomicU64,
}

/// A try may be made. Give it back with `answered` or `cancelled`.
#[derive(Debug, Clone, Copy)]
#[must_use = "a probe that is never given back holds its place until the round is over"]
pub struct Permit {
    word: Word,
    /// When its answer's head was found good.
    judged: Moment,
    /// The row of failures that this ended, and how many good tries there had ever been then.
    ended: (u32, u64),
    place: Option<Place>,
}

/// Which endpoint a try went to, how many its upstream has, and which of them are out of service: a bit for each, by its
/// number.
#[derive(Debug, Clone, Copy)]
struct Place {
    endpoint: u64,
    endpoints: u32,
    out: u64,
}

/// A try may not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Until the breaker may think otherwise.
    pub retry_in: Duration,
    /// Half-open with enough probes under way, or rising and not yet to all.
    pub probing: bool,
    /// Why it is not closed.
    pub reason: Option<BreakerReason>,
    pub evidence: Evidence,
}

/// The breaker has changed: for the log and for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub from: BreakerState,
    pub to: BreakerState,
    pub reason: BreakerReason,
    pub evidence: Evidence,
}

/// Hears of a change, at most once in a call.
type Tell<'a> = &'a mut dyn FnMut(Change);

impl Permit {
    fn new(word: Word) -> Self {
        Permit {
            word,
            judged: Moment::LONG_AGO,
            ended: (0, 0),
            place: None,
        }
    }

    /// Says which endpoint is about to be judged, of how many, and which are out of service, all by their numbers. A row
    /// of failures then opens only when it is the upstream's own; without this, every row is.
    pub fn went_to(&mut self, endpoint: u32, endpoints: usize, out: impl Iterator<Item = u32>) {
        self.place = Some(Place {
            endpoint: bit(endpoint),
            endpoints: u32::try_from(endpoints).unwrap_or(u32::MAX),
            out: out.fold(0, |bits, number| bits | bit(number)),
        });
    }

    pub fn is_probe(&self) -> bool {
        self.word.kind() == Kind::HalfOpen
    }
}

impl Breaker {
    /// `workers`: how many count tries, each with its own number.
    pub fn new(workers: usize) -> Self {
        Breaker {
            state: State::default(),
            round: AtomicU64::new(0),
            held_until: AtomicU64::new(0),
            last_failure: AtomicU64::new(0),
            trips: AtomicU64::new(0),
            tally: Tally::new(workers),
            speed: Tally::new(workers),
            baseline: Baseline::default(),
            again: AtomicU64::new(0),
            history: History::default(),
            hold: Mutex::new(None),
        }
    }

    /// May a try be made now?
    #[inline]
    pub fn admit(&self, policy: &Policy, now: Instant, tell: Tell<'_>) -> Result<Permit, Refused> {
        let word = Word(self.state.word.load(Ordering::Relaxed));
        if word.is_closed() {
            return Ok(Permit::new(word));
        }
        self.admit_unless_open(policy, now.into(), tell)
    }

    #[cold]
    fn admit_unless_open(
        &self,
        policy: &Policy,
        now: Moment,
        tell: Tell<'_>,
    ) -> Result<Permit, Refused> {
        loop {
            let word = self.word();
            let over = self.until(word, policy);
            match word.kind() {
                Kind::Closed => return Ok(Permit::new(word)),
                Kind::HeldClosed if now < over => return Ok(Permit::new(word)),
                Kind::Open | Kind::HeldOpen if now < over => {
                    return Err(self.refused(policy, word, over, false, now));
                }
                Kind::HeldClosed => {
                    self.turn(word, Kind::Closed, BreakerReason::Expired, now, tell)
                }
                Kind::HeldOpen => {
                    self.turn(word, Kind::HalfOpen, BreakerReason::Expired, now, tell)
                }
                Kind::Open => self.turn(word, Kind::HalfOpen, BreakerReason::OpenFor, now, tell),
                Kind::Rising => match self.admit_rising(policy, word, now) {
                    Some(Ok(permit)) => return Ok(permit),
                    Some(Err(())) => return Err(self.refused_for_now(policy, word, now)),
                    None => {}
                },
                Kind::HalfOpen => {
                    let known = Counted(self.round.load(Ordering::Acquire));
                    let mut probes = Probes::of(known, word.turn());
                    if u32::from(probes.succeeded) >= policy.successes.value {
                        // Fewer are asked for since the last one succeeded.
                        self.recover(policy, word, now, tell);
                    } else if u32::from(probes.under_way) + u32::from(probes.succeeded)
                        < policy.probes.value
                    {
                        probes.under_way += 1;
                        if self.is_over(word, known) || !self.exchange_round(known, probes, word) {
                            continue;
                        }
                        return Ok(Permit::new(word));
                    } else if now >= over {
                        self.new_round(word, now);
                    } else {
                        return Err(self.refused_for_now(policy, word, now));
                    }
                }
            }
        }
    }

    /// Whether a try would be refused now. Changes nothing.
    pub fn refuses(&self, policy: &Policy, now: Instant) -> bool {
        let word = self.word();
        let over = self.until(word, policy);
        match word.kind() {
            Kind::Closed | Kind::HeldClosed | Kind::Rising => false,
            Kind::Open | Kind::HeldOpen => Moment::from(now) < over,
            Kind::HalfOpen => {
                let probes = Probes::of(Counted(self.round.load(Ordering::Acquire)), word.turn());
                let taken = u32::from(probes.under_way) + u32::from(probes.succeeded);
                taken >= policy.probes.value && Moment::from(now) < over
            }
        }
    }

    /// As operators know it; open until the first probe.
    pub fn state(&self) -> BreakerState {
        shown(self.word().kind())
    }

    /// When the present state ends by itself.
    fn until(&self, word: Word, policy: &Policy) -> Moment {
        match word.kind() {
            Kind::Closed => Moment(u64::MAX),
            Kind::Open => word.since().plus(self.open_for(policy, word)),
            Kind::HalfOpen | Kind::Rising => word.since().plus(policy.open_for.value),
            Kind::HeldOpen | Kind::HeldClosed => Moment(self.held_until.load(Ordering::Acquire)),
        }
    }

    /// How long this turn stays open. An adaptive one waits twice as long each time it opens again soon, a little more or
    /// less so that many gateways do not come back at one moment; the dice are the turn itself.
    fn open_for(&self, policy: &Policy, word: Word) -> Duration {
        let span = policy.open_for.value;
        if policy.kind.value != BreakerKind::Adaptive {
            return span;
        }
        let again = self.again.load(Ordering::Relaxed).min(LONGEST_AGAIN);
        let dice = word.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let share = 0.75 + dice as f64 / f64::from(u32::MAX) / 2.0;
        span.saturating_mul(1 << again).mul_f64(share)
    }

    /// Half-open or rising: others are being tried, and soon this may be too.
    fn refused_for_now(&self, policy: &Policy, word: Word, now: Moment) -> Refused {
        let over = now.plus(PROBES_TAKE).min(self.until(word, policy));
        self.refused(policy, word, over, true, now)
    }

    fn refused(
        &self,
        policy: &Policy,
        word: Word,
        over: Moment,
        probing: bool,
        now: Moment,
    ) -> Refused {
        let known = self.history.entry(word);
        let left = Duration::from_nanos(over.since(now));
        Refused {
            retry_in: match word.kind() {
                Kind::HeldOpen => left,
                Kind::Open => left.min(self.open_for(policy, word)),
                // A state begins at the next whole millisecond; nobody is told to wait for that as well.
                _ => left.min(policy.open_for.value),
            },
            probing,
            reason: known.map(|known| known.reason),
            evidence: known.map(|known| known.evidence).unwrap_or_default(),
        }
    }

    /// Changes this turn's probes; `None` when the turn is over.
    fn settle_probe(&self, word: Word, change: impl Fn(&mut Probes)) -> Option<Probes> {
        let mut known = Counted(self.round.load(Ordering::Acquire));
        loop {
            if !known.is_of(word.turn()) {
                return None;
            }
            let mut probes = Probes::of(known, word.turn());
            change(&mut probes);
            let changed = self.round.compare_exchange_weak(
                known.0,
                probes.counted(word.turn()).0,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match changed {
                Ok(_) => return Some(probes),
                Err(other) => known = Counted(other),
            }
        }
    }

    /// Whether this count shows that the turn is over. Counts that nobody touched for a million turns look as if they
    /// came later, so the word itself is asked once more.
    fn is_over(&self, word: Word, known: Counted) -> bool {
        known.is_after(word.turn()) && self.word() != word
    }

    fn exchange_round(&self, known: Counted, probes: Probes, word: Word) -> bool {
        self.round
            .compare_exchange(
                known.0,
                probes.counted(word.turn()).0,
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .is_ok()
    }

    /// Probes that have said nothing for so long are not waited for. No change of state, so nobody is told.
    fn new_round(&self, word: Word, now: Moment) {
        let _somebody_else_did = self.exchange(word, word.next(Kind::HalfOpen, now));
    }

    fn turn(&self, from: Word, to: Kind, reason: BreakerReason, now: Moment, tell: Tell<'_>) {
        self.turn_with(from, to, reason, Evidence::default(), now, tell);
    }

    /// The one place where the state changes. Who comes too late changes nothing.
    fn turn_with(
        &self,
        from: Word,
        to: Kind,
        reason: BreakerReason,
        evidence: Evidence,
        now: Moment,
        tell: Tell<'_>,
    ) {
        let next = from.next(to, now);
        if !self.exchange(from, next) {
            return;
        }
        if to == Kind::Open {
            self.trips.fetch_add(1, Ordering::Relaxed);
            let steady =
                from.kind() != Kind::HalfOpen && now.since(from.since()) >= nanoseconds(STEADY);
            let again = self.again.load(Ordering::Relaxed);
            let again = if steady { 0 } else { again.saturating_add(1) };
            self.again.store(again, Ordering::Relaxed);
        }
        self.history.write(from, next, reason, evidence);
        tell(Change {
            from: shown(from.kind()),
            to: shown(to),
            reason,
            evidence,
        });
    }

    fn word(&self) -> Word {
        Word(self.state.word.load(Ordering::Acquire))
    }

    fn exchange(&self, from: Word, next: Word) -> bool {
        self.state
            .word
            .compare_exchange(from.0, next.0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

/// Numbers are small, but of many endpoints two may share a bit.
fn bit(endpoint: u32) -> u64 {
    1 << (endpoint % u64::BITS)
}

/// A state as operators know it.
fn shown(kind: Kind) -> BreakerState {
    match kind {
        Kind::Closed | Kind::HeldClosed | Kind::Rising => BreakerState::Closed,
        Kind::Open | Kind::HeldOpen => BreakerState::Open,
        Kind::HalfOpen => BreakerState::HalfOpen,
    }
}
