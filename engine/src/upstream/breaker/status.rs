//! What an operator sees of a breaker, and what an operator does to it. On the control thread only.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;
use tollgate_config::{Breaker as Policy, BreakerKind};

use super::history::Evidence;
use super::rising::rising_share;
use super::word::{Counted, Kind, Probes};
use super::{Breaker, Change, shown};
use crate::telemetry::metrics::{BreakerReason, BreakerState};
use crate::upstream::moment::Moment;

/// Who opened or closed a breaker by hand, as far as they said, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hold {
    pub by: String,
    pub why: String,
}

/// One breaker (GW-408).
#[derive(Debug, Clone, Serialize)]
pub struct BreakerStatus {
    /// "closed", "open", "half_open", or "off" in the document.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<HoldStatus>,
    /// Why it last changed; absent before the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    pub seconds_in_state: Option<f64>,
    /// While it is open: until it is half-open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes_in_seconds: Option<f64>,
    /// While one of the percentile kind comes back: the share of tries that is admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rising_share: Option<f64>,
    /// While it is half-open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<ProbesStatus>,
    /// How often it opened by itself.
    pub trips: u64,
    /// The share of tries that usually fails, once an adaptive breaker has learned it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual_share: Option<f64>,
    /// In the window, since it was last closed.
    pub tries: u64,
    pub failed: u64,
    /// Of the percentile kind: in the window, since it was last closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<SlowStatus>,
    pub failures_in_a_row: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_seconds_ago: Option<f64>,
    /// The last changes, the latest first.
    pub history: Vec<ChangeStatus>,
}

#[derive(Debug, Clone, Serialize)]
pub struct HoldStatus {
    #[serde(flatten)]
    pub hold: Hold,
    pub ends_in_seconds: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct ProbesStatus {
    pub under_way: u16,
    pub succeeded: u16,
    pub needed: u32,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct SlowStatus {
    /// Whose time is known.
    pub answers: u64,
    pub slow: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct ChangeStatus {
    pub from: &'static str,
    pub to: &'static str,
    pub reason: &'static str,
    pub seconds_ago: f64,
    #[serde(flatten)]
    pub evidence: Evidence,
}

impl Breaker {
    /// `policy`: `None` when the document says "off".
    pub fn status(&self, policy: Option<&Policy>, now: Instant) -> BreakerStatus {
        let now = Moment::from(now);
        let word = self.word();
        let default = Policy::default();
        let rules = policy.unwrap_or(&default);
        let over = self.until(word, rules);
        let counts = self.tally.sum(word.0, rules.window.value, now);
        // Nobody has asked since its time was over; the next who asks is a probe.
        let due = matches!(word.kind(), Kind::Open | Kind::HeldOpen) && now >= over;
        let state = match shown(word.kind()) {
            BreakerState::Open if due => BreakerState::HalfOpen,
            state => state,
        };
        let held = matches!(word.kind(), Kind::HeldOpen | Kind::HeldClosed) && now < over;
        let history = self.history.entries(word);
        let last_failure = Moment(self.last_failure.load(Ordering::Relaxed));
        let probes = Probes::of(Counted(self.round.load(Ordering::Acquire)), word.turn());
        BreakerStatus {
            state: policy.map_or("off", |_| state.word()),
            held: held.then(|| HoldStatus {
                hold: self
                    .hold
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone()
                    .unwrap_or_default(),
                ends_in_seconds: seconds(over.since(now)),
            }),
            reason: history.first().map(|entry| entry.reason.word()),
            seconds_in_state: (word.turn() > 0).then(|| seconds(now.since(word.since()))),
            probes_in_seconds: (state == BreakerState::Open).then(|| seconds(over.since(now))),
            probes: (state == BreakerState::HalfOpen).then_some(ProbesStatus {
                under_way: probes.under_way,
                succeeded: probes.succeeded,
                needed: rules.successes.value,
            }),
            rising_share: (word.kind() == Kind::Rising)
                .then(|| rising_share(rules, word, now))
                .flatten()
                .map(|share| (share * 1e3).round() / 1e3),
            trips: self.trips.load(Ordering::Relaxed),
            usual_share: match rules.kind.value {
                BreakerKind::Adaptive => self.baseline.usual(),
                BreakerKind::Fixed | BreakerKind::Percentile => None,
            }
            .map(|usual| (f64::from(usual.mean) * 1e4).round() / 1e4),
            tries: counts.total(),
            failed: counts.bad,
            slow: (rules.kind.value == BreakerKind::Percentile).then(|| {
                let speed = self.speed.sum(word.0, rules.window.value, now);
                SlowStatus {
                    answers: speed.total(),
                    slow: speed.bad,
                }
            }),
            failures_in_a_row: Counted(self.state.row.load(Ordering::Relaxed)).of(word.turn()),
            last_failure_seconds_ago: (last_failure > Moment::LONG_AGO)
                .then(|| seconds(now.since(last_failure))),
            history: history
                .iter()
                .map(|entry| ChangeStatus {
                    from: shown(entry.from).word(),
                    to: shown(entry.word.kind()).word(),
                    reason: entry.reason.word(),
                    seconds_ago: seconds(now.since(entry.word.since())),
                    evidence: entry.evidence,
                })
                .collect(),
        }
    }

    /// An operator opens it (nothing is sent) or closes it (everything is, whatever comes back) for a while. After that
    /// an open one is half-open, and a closed one closed with counts that begin anew.
    pub fn hold(
        &self,
        open: bool,
        span: Duration,
        hold: Hold,
        now: Instant,
        tell: &mut dyn FnMut(Change),
    ) {
        let now = Moment::from(now);
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
        self.held_until.store(now.plus(span).0, Ordering::Release);
        let kind = if open {
            Kind::HeldOpen
        } else {
            Kind::HeldClosed
        };
        self.insist(kind, now, tell);
    }

    /// Ends an operator's word: the breaker is half-open or closed, as after its expiry. Without one, nothing changes.
    pub fn release(&self, now: Instant, tell: &mut dyn FnMut(Change)) {
        let kind = match self.word().kind() {
            Kind::HeldOpen => Kind::HalfOpen,
            Kind::HeldClosed => Kind::Closed,
            _ => return,
        };
        self.insist(kind, now.into(), tell);
    }

    /// Workers may change the state at the same moment; an operator comes last.
    fn insist(&self, kind: Kind, now: Moment, tell: &mut dyn FnMut(Change)) {
        let mut done = false;
        while !done {
            self.turn(
                self.word(),
                kind,
                BreakerReason::Operator,
                now,
                &mut |change| {
                    done = true;
                    tell(change);
                },
            );
        }
    }
}

/// Nanoseconds as seconds with three digits.
fn seconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 1e6).round() / 1e3
}
