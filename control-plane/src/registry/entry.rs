//! What the registry knows of one instance, and what should become of it: the evidence of lease, probes and data planes
//! made into one verdict. Decides for one instance alone; whether a service may lose it is the guard's question.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Rules;
use super::effects::Outcome;
use super::record::{Cause, Health, Record, State};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Arc<Record>,
    /// Of the registry's own time, like every `Duration` here.
    pub(super) last_seen: Duration,
    /// The same in milliseconds since 1970.
    pub(super) seen_at: u64,
    pub(super) state: State,
    pub(super) since: Duration,
    pub(super) cause: Cause,
    /// Read from the store, and nothing was heard of it since.
    pub(super) unproven: bool,
    /// The guard keeps it in lookups.
    pub(super) held: bool,
    /// An operator said that it is gone; forgotten with the next good sign.
    pub(super) confirmed: bool,
    /// In its service's list, as the data planes know it.
    pub(super) shown: bool,
    pub(super) probe: Probing,
    /// Good signs since draining began.
    pub(super) good: u32,
    /// When the guard counted it as lost, as long as it has not come back.
    pub(super) lost: Option<Duration>,
    /// When it left the lookups; the latest ones, oldest first.
    pub(super) drops: Vec<Duration>,
    /// What data planes said last, by node.
    pub(super) reports: BTreeMap<Arc<str>, Report>,
    /// Where it stands in the agenda.
    pub(super) due: Duration,
}

/// What is known from probes.
#[derive(Debug, Default)]
pub(super) struct Probing {
    /// The order that is under way, and until when it is waited for.
    pub(super) under_way: Option<(u64, Duration)>,
    /// Not before.
    pub(super) next: Duration,
    pub(super) failed: u32,
    pub(super) good: u32,
    pub(super) last: Option<Outcome>,
}

/// What one data plane said of one address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    pub(super) failing: bool,
    pub(super) at: Duration,
}

/// More nodes than anybody needs to be believed; the oldest report gives way.
pub(super) const MOST_REPORTS: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Be(State, Cause),
    Remove(Cause),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    Fresh,
    Late,
    Over,
}

impl Entry {
    pub(super) fn new(record: Arc<Record>, heard: Duration, time: u64) -> Entry {
        Entry {
            state: if record.health == Health::Unknown {
                State::Starting
            } else {
                State::Active
            },
            record,
            last_seen: heard,
            seen_at: time,
            since: heard,
            cause: Cause::Request,
            unproven: false,
            held: false,
            confirmed: false,
            shown: false,
            probe: Probing::default(),
            good: 0,
            lost: None,
            drops: Vec::new(),
            reports: BTreeMap::new(),
            due: Duration::ZERO,
        }
    }

    /// A good sign: a beat, or a good probe of one that is silent.
    pub(super) fn seen(&mut self, heard: Duration, time: u64) {
        self.last_seen = self.last_seen.max(heard);
        self.seen_at = time;
        self.unproven = false;
        self.confirmed = false;
        self.good = self.good.saturating_add(1);
    }

    pub(super) fn age(&self, heard: Duration) -> Duration {
        heard.saturating_sub(self.last_seen)
    }

    fn lease(&self, rules: &Rules, heard: Duration) -> Lease {
        let age = self.age(heard);
        if age >= rules.lifecycle.service_timeout {
            Lease::Over
        } else if age >= rules.lifecycle.suspect_after {
            Lease::Late
        } else {
            Lease::Fresh
        }
    }

    pub(super) fn is_over(&self, rules: &Rules, heard: Duration) -> bool {
        self.lease(rules, heard) == Lease::Over
    }

    /// Whether it would be in lookups by its state and its own words.
    pub(super) fn serves(&self) -> bool {
        matches!(self.state, State::Active | State::Suspected) && self.record.health.serves()
    }

    /// Whether somebody who can know it said that it is gone: the machine itself, or an operator.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed || self.probe.last == Some(Outcome::Refused)
    }

    /// Whether enough data planes see it fail. `users` use its service.
    pub(super) fn is_observed(&self, rules: &Rules, users: usize, heard: Duration) -> bool {
        let age = rules.lifecycle.observation_age;
        let recent = self.reports.values().filter(|r| heard < r.at + age);
        let failing = recent.filter(|report| report.failing).count();
        failing >= rules.lifecycle.observation_nodes && failing * 2 > users
    }

    /// How many times it left the lookups lately is too often.
    fn is_flapping(&self, rules: &Rules, heard: Duration) -> bool {
        let window = rules.lifecycle.flap_window;
        let recent = self.drops.iter().filter(|at| heard < **at + window);
        recent.count() >= rules.lifecycle.flap_count
    }

    /// What should become of it, as far as it alone is concerned.
    ///
    /// | lease | probes | data planes | verdict |
    /// |---|---|---|---|
    /// | fresh | – | – | active |
    /// | fresh | – | failing | suspected |
    /// | fresh | failing, without an answer | – | suspected |
    /// | late | – | – | suspected |
    /// | fresh or late | failing, refused | – | draining |
    /// | fresh or late | failing | failing | draining |
    /// | over | – | – | draining, then removed |
    ///
    /// Before its lease is over an instance is drained only on the word of two, or of its own machine; and as long as
    /// it beats it is never removed.
    pub(super) fn verdict(&self, rules: &Rules, users: usize, heard: Duration) -> Verdict {
        let lease = self.lease(rules, heard);
        if self.state == State::Draining && !self.is_back(rules, lease, users, heard) {
            let grace = match self.cause {
                Cause::Probes => rules.lifecycle.drain_after_probes,
                _ => rules.lifecycle.drain_after_silence,
            };
            return match lease {
                Lease::Over if heard >= self.since + grace => Verdict::Remove(self.cause),
                _ => Verdict::Be(State::Draining, self.cause),
            };
        }
        let failing = rules.probe.enabled && self.probe.failed >= rules.probe.failures;
        let refused = self.probe.last == Some(Outcome::Refused);
        let observed = self.is_observed(rules, users, heard);
        match lease {
            Lease::Over => Verdict::Be(State::Draining, Cause::Silence),
            _ if failing && (refused || observed) => Verdict::Be(State::Draining, Cause::Probes),
            Lease::Late => Verdict::Be(State::Suspected, Cause::Silence),
            Lease::Fresh if failing => Verdict::Be(State::Suspected, Cause::Probes),
            Lease::Fresh if observed => Verdict::Be(State::Suspected, Cause::Observed),
            Lease::Fresh if self.unproven => Verdict::Be(State::Suspected, Cause::Restart),
            Lease::Fresh if self.record.health == Health::Unknown => {
                Verdict::Be(State::Starting, Cause::Heartbeat)
            }
            Lease::Fresh => Verdict::Be(State::Active, Cause::Heartbeat),
        }
    }

    /// Whether a draining one has given enough good signs (REG-301, REG-305).
    fn is_back(&self, rules: &Rules, lease: Lease, users: usize, heard: Duration) -> bool {
        if lease != Lease::Fresh {
            return false;
        }
        if self.cause == Cause::Probes && rules.probe.enabled {
            // Who beats and only gives no answer would not have been drained.
            let doubted =
                self.probe.last != Some(Outcome::Silent) || self.is_observed(rules, users, heard);
            return self.probe.good >= rules.probe.successes
                || (!doubted && self.good >= rules.probe.successes);
        }
        match self.is_flapping(rules, heard) {
            true => self.good >= rules.probe.successes,
            false => self.good >= 1,
        }
    }

    /// Whether it is to be probed, and how long after the last probe.
    pub(super) fn probe_every(&self, rules: &Rules) -> Option<Duration> {
        if !rules.probe.enabled {
            return None;
        }
        let doubted = match self.state {
            State::Suspected | State::Draining => true,
            // A first failure, or a first report, is looked into before it changes anything.
            State::Active => {
                self.probe.failed > 0 || self.reports.values().any(|report| report.failing)
            }
            State::Starting => false,
        };
        if !doubted {
            return match self.state {
                State::Active => rules.probe.healthy_interval,
                _ => None,
            };
        }
        // 2 s, 4 s, 8 s, … after the first failures, so that one lost packet is not taken for three.
        let backoff = Duration::from_secs(1 << self.probe.failed.min(16));
        Some(match self.probe.last {
            None => Duration::ZERO,
            Some(Outcome::Good) => rules.probe.interval,
            Some(_) => rules.probe.interval.min(backoff),
        })
    }

    pub(super) fn probed(&mut self, outcome: Outcome) {
        self.probe.under_way = None;
        self.probe.last = Some(outcome);
        match outcome {
            Outcome::Good => {
                self.probe.failed = 0;
                self.probe.good = self.probe.good.saturating_add(1);
            }
            Outcome::Refused | Outcome::Silent => {
                self.probe.good = 0;
                self.probe.failed = self.probe.failed.saturating_add(1);
            }
        }
    }

    /// When something may change without anybody calling.
    pub(super) fn next_due(&self, rules: &Rules, heard: Duration) -> Duration {
        let lifecycle = &rules.lifecycle;
        let mut due = heard + IDLE;
        let mut at = |moment: Duration| {
            if moment > heard {
                due = due.min(moment);
            }
        };
        at(self.last_seen + lifecycle.suspect_after);
        at(self.last_seen + lifecycle.service_timeout);
        if self.state == State::Draining {
            at(self.since + lifecycle.drain_after_silence);
            at(self.since + lifecycle.drain_after_probes);
        }
        for report in self.reports.values() {
            at(report.at + lifecycle.observation_age);
        }
        match self.probe.under_way {
            Some((_, until)) => at(until),
            // One that may be sent already goes with the next tick.
            None if self.probe_every(rules).is_some() => at(self.probe.next.max(heard + MOMENT)),
            None => {}
        }
        due
    }
}

/// An instance is looked at after so long, whatever happens.
const IDLE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);
