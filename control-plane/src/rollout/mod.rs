//! A revision goes to some nodes, then to more, then to all, and is taken back when it is worse (CP-109, MESH-202).
//!
//! Pure: who is there, what they served and `now` are arguments, what is to be done is returned. `record` is what
//! outlives a process, `choose` says who goes first, `judge` what is worse; `driver` calls, and does what is returned.
//!
//! A stage begins with its nodes chosen and written down. Its clock starts when all of them run the revision (ROLL-305);
//! it is over after `hold`, if enough was served and nothing is worse. Whoever refuses the revision sends it back at
//! once. A breach must be seen twice, the second time in what came after the first (ROLL-308), unless most of it fails.
//! What cannot be judged is never promoted by itself (ROLL-312): without nodes or requests it pauses, and a person decides.

mod choose;
mod driver;
mod judge;
mod record;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tollgate_config::control_plane::{Stage, WithoutTraffic};

use crate::figures::Book;
use choose::{choose, wanted};
pub use driver::{Counts, NotDone, Rollouts};
use judge::{Figure, Finding, judge};
pub use record::{Ended, How, Plan, Record};

/// Another process's nodes come back with growing pauses. Who is first is not chosen among the first who came back.
const COME_BACK: Duration = Duration::from_secs(5);
/// Figures are compared so often, or ten times in `hold` where that is shorter: all nodes' sums are added for it.
const COMPARED: Duration = Duration::from_secs(1);
/// A breach is looked at again so long after it was seen, or after a third of `hold` where that is shorter: bursts pass.
const PASSES: Duration = Duration::from_secs(10);
/// The second look is at so many requests at least …
const AFTER: u64 = 20;
/// … and is over after so many, where it found nothing.
const ENOUGH: u64 = 200;
/// So many looks in a row must find it again where no other node is there to compare with: it may be everybody's trouble.
const ALONE: u32 = 3;

/// A node, as the control plane knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub name: String,
    pub connected: bool,
    /// The revision says something else to it than the one before.
    pub affected: bool,
    /// It runs the revision.
    pub applied: bool,
    /// It refused the revision, and why.
    pub refused: Option<String>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Write the record down, then tell the nodes that were chosen.
    Save,
    /// The revision before it, everywhere, for this reason.
    Return(String),
    /// All have it, and it may stay.
    Finish,
}

#[derive(Debug)]
pub struct Rollout {
    pub record: Record,
    watch: Watch,
}

/// What is known of the stage, in this process only: another one begins it anew.
#[derive(Debug, Default)]
struct Watch {
    entered: Duration,
    /// Nodes of this stage were chosen.
    begun: bool,
    /// Until when nodes are waited for before others are chosen.
    come_back: Duration,
    /// Since when all of them run the revision.
    runs: Option<Duration>,
    /// By what is worse.
    suspected: BTreeMap<(Figure, Option<String>), Suspicion>,
    worse: Option<String>,
    /// Reports that were judged, and when that was.
    judged: (u64, Duration),
    requests: u64,
    waits_for: String,
}

/// Something was worse once.
#[derive(Debug, Clone, Copy)]
struct Suspicion {
    /// When it was seen first, or looked at again.
    since: Duration,
    /// How many had failed of how many when the next look began.
    mark: Option<(u64, u64)>,
    /// Looks in a row that found it again.
    again: u32,
}

impl Rollout {
    /// Begins.
    pub fn new(record: Record, now: Duration) -> Rollout {
        Rollout {
            record,
            watch: Watch {
                entered: now,
                ..Watch::default()
            },
        }
    }

    /// Goes on with what another process began: with its stage, whose time begins anew.
    pub fn resumed(record: Record, now: Duration) -> Rollout {
        let mut rollout = Rollout::new(record, now);
        rollout.watch.come_back = now + COME_BACK;
        rollout
    }

    /// What it waits for, for people.
    pub fn waits_for(&self) -> &str {
        &self.watch.waits_for
    }

    /// Requests that the nodes of this stage served with the revision.
    pub fn requests(&self) -> u64 {
        self.watch.requests
    }

    /// What is worse so far, though not surely yet.
    pub fn suspicion(&self) -> Option<&str> {
        self.watch.worse.as_deref()
    }

    /// Looks at everything; to be called about every second, and whenever something is news.
    pub fn step(&mut self, nodes: &[Seen], book: &mut Book, now: Duration) -> Option<Order> {
        if !self.watch.begun {
            return self.enter(nodes, book, now);
        }
        let mine: Vec<&Seen> = nodes.iter().filter(|node| self.is_mine(node)).collect();
        if let Some(node) = mine.iter().find(|node| node.refused.is_some()) {
            let why = node.refused.as_deref().unwrap_or_default();
            return Some(Order::Return(format!("{} refused it: {why}", node.name)));
        }
        if let Some(reason) = self.judge(nodes, book, now) {
            return Some(Order::Return(reason));
        }
        let late: Vec<&str> = { mine.iter() }
            .filter(|node| node.connected && !node.applied)
            .map(|node| node.name.as_str())
            .collect();
        let gone: Vec<&str> = match self.record.stage() {
            // Of a whole fleet there is always somebody away.
            Stage::All => Vec::new(),
            _ => { mine.iter() }
                .filter(|node| !node.connected)
                .map(|node| node.name.as_str())
                .chain(missing(&self.record, nodes))
                .collect(),
        };
        let settings = &self.record.plan.settings;
        let (hold, wait) = (settings.hold, settings.wait);
        let waited = now.saturating_sub(self.watch.entered);
        if self.watch.runs.is_none() && late.is_empty() && gone.is_empty() {
            self.watch.runs = Some(now);
        }
        let lasted = { self.watch.runs }.map(|since| now.saturating_sub(since));
        let few = self.watch.requests < settings.min_requests;
        let (words, most) = match lasted {
            None => (names("to run it", &late, &gone), wait),
            Some(lasted) if lasted < hold => {
                let left = (hold - lasted).as_secs() + 1;
                self.watch.waits_for = format!("the end of the stage, in {left} s");
                return None;
            }
            Some(_) if !gone.is_empty() => (names("to come back", &[], &gone), hold + wait),
            Some(_) if self.watch.worse.is_some() => {
                let worse = self.watch.worse.clone().unwrap_or_default();
                (format!("more requests, to be sure of {worse}"), hold + wait)
            }
            Some(_) if few => {
                let (served, wanted) = (self.watch.requests, settings.min_requests);
                let words = format!("requests: {served} of {wanted} that are needed to judge");
                (words, hold + wait)
            }
            Some(_) if self.record.paused.is_some() => (String::new(), Duration::MAX),
            Some(_) => return Some(self.next(now)),
        };
        if waited < most {
            self.watch.waits_for = words;
            return None;
        }
        // Only traffic can be done without.
        let continues = settings.without_traffic == WithoutTraffic::Continue;
        if few && continues && lasted.is_some() && gone.is_empty() && self.watch.worse.is_none() {
            return Some(self.next(now));
        }
        if self.record.paused.is_none() {
            self.record.paused = Some(format!("waited in vain for {words}"));
            return Some(Order::Save);
        }
        self.watch.waits_for = words;
        None
    }

    /// Goes on to the next stage, or to the end, whatever the figures say: a person wants it.
    pub fn promote(&mut self, to_all: bool, now: Duration) -> Order {
        self.record.paused = None;
        if to_all && !self.record.is_last() {
            self.record.stage = self.record.plan.settings.stages.len().saturating_sub(2);
        }
        self.next(now)
    }

    pub fn pause(&mut self, why: String) -> Order {
        self.record.paused = Some(why);
        Order::Save
    }

    /// Goes on by itself; what it waited for in vain is waited for anew.
    pub fn resume(&mut self, now: Duration) -> Order {
        self.record.paused = None;
        self.watch.entered = now;
        Order::Save
    }

    fn next(&mut self, now: Duration) -> Order {
        if self.record.is_last() {
            return Order::Finish;
        }
        self.record.stage += 1;
        self.watch = Watch {
            entered: now,
            ..Watch::default()
        };
        Order::Save
    }

    /// Chooses the nodes of a stage that is new to this process.
    fn enter(&mut self, nodes: &[Seen], book: &mut Book, now: Duration) -> Option<Order> {
        let there: BTreeSet<String> = { nodes.iter() }
            .filter(|node| node.connected && node.affected)
            .map(|node| node.name.clone())
            .collect();
        let record = &mut self.record;
        let mut waits_for = None;
        if there.is_empty() && record.chosen.is_empty() {
            if nodes.iter().any(|node| node.connected) && now >= self.watch.come_back {
                // It says the same as before to everybody who is there: there is nothing to try.
                return Some(Order::Finish);
            }
            waits_for = Some("the first node".to_owned());
        }
        let wanted = wanted(record.stage(), there.union(&record.chosen).count());
        let mut first = record.plan.first.iter().take(wanted);
        let is_away = |name: &&String| {
            let connected = nodes
                .iter()
                .any(|node| node.connected && node.name == **name);
            !connected && !record.chosen.contains(*name)
        };
        if record.stage() != Stage::All
            && let Some(away) = first.find(is_away)
        {
            waits_for = Some(format!("{away}, which shall go first"));
        }
        if let Some(words) = waits_for {
            let waited = now.saturating_sub(self.watch.entered);
            if waited >= record.plan.settings.wait && record.paused.is_none() {
                record.paused = Some(format!("waited in vain for {words}"));
                return Some(Order::Save);
            }
            self.watch.waits_for = words;
            return None;
        }
        let chosen = match record.stage() {
            // Everybody, also who comes later.
            Stage::All => record.chosen.clone(),
            stage => choose(
                stage,
                &there,
                &record.chosen,
                &record.plan.first,
                record.revision,
            ),
        };
        let news = chosen != record.chosen;
        if news && now < self.watch.come_back {
            self.watch.waits_for = "nodes to come back".to_owned();
            return None;
        }
        book.watch(Some(record.revision));
        self.watch.begun = true;
        self.watch.entered = now;
        record.chosen = chosen;
        news.then_some(Order::Save)
    }

    fn is_mine(&self, node: &Seen) -> bool {
        node.affected && self.record.has(&node.name)
    }

    /// Compares, when there are new figures. Why it is surely worse, if it is.
    fn judge(&mut self, nodes: &[Seen], book: &Book, now: Duration) -> Option<String> {
        let record = &self.record;
        let pause = COMPARED.min(record.plan.settings.hold / 10);
        let (judged, at) = self.watch.judged;
        if book.taken == judged || now < at + pause {
            return None;
        }
        self.watch.judged = (book.taken, now);
        let mine = |name: &str| record.has(name);
        let new = book.with(mine);
        self.watch.requests = new.total.requests;
        // Besides the chosen ones, only who was there with the former revision is compared with.
        let (before, others) = (book.before(mine), book.without(|name| !mine(name)));
        let found = judge(&new, &before, &others, &record.plan.settings);
        self.watch.worse = found.first().map(ToString::to_string);
        let on: Vec<&str> = { nodes.iter() }
            .filter(|node| self.is_mine(node) && node.applied)
            .map(|node| node.name.as_str())
            .collect();
        let on = some(&on);
        let passes = PASSES.min(record.plan.settings.hold / 3);
        for finding in &found {
            if finding.drastic {
                return Some(format!("{finding}, on {on}"));
            }
            let key = (finding.figure, finding.route.clone());
            let suspicion = self.watch.suspected.entry(key).or_insert(Suspicion {
                since: now,
                mark: None,
                again: 0,
            });
            if now < suspicion.since + passes {
                continue;
            }
            let counts = (finding.bad, finding.requests);
            let mark = *suspicion.mark.get_or_insert(counts);
            let bad = counts.0.saturating_sub(mark.0);
            let requests = counts.1.saturating_sub(mark.1);
            if requests < AFTER {
                continue;
            }
            if finding.is_confirmed_by(bad, requests) {
                suspicion.again += 1;
                if suspicion.again >= if finding.is_alone() { ALONE } else { 1 } {
                    return Some(format!("{finding}, on {on}"));
                }
            } else if requests < ENOUGH {
                continue;
            } else {
                suspicion.again = 0;
            }
            (suspicion.since, suspicion.mark) = (now, None);
        }
        let still = |key: &(Figure, Option<String>)| {
            let same = |one: &Finding| one.figure == key.0 && one.route == key.1;
            found.iter().any(same)
        };
        self.watch.suspected.retain(|key, _| still(key));
        None
    }
}

/// Chosen, and forgotten since.
fn missing<'a>(record: &'a Record, nodes: &[Seen]) -> impl Iterator<Item = &'a str> {
    let known = |name: &&String| nodes.iter().any(|node| node.name == **name);
    let missing: Vec<&String> = record.chosen.iter().filter(|name| !known(name)).collect();
    missing.into_iter().map(String::as_str)
}

fn names(what: &str, late: &[&str], gone: &[&str]) -> String {
    let mut parts = Vec::new();
    if !late.is_empty() {
        parts.push(format!("{} {what}", some(late)));
    }
    if !gone.is_empty() {
        parts.push(format!("{}, which is away", some(gone)));
    }
    parts.join(", ")
}

/// A few names, and how many there are besides.
fn some(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names
        .iter()
        .take(SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} others"),
    }
}
