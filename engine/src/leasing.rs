//! Keeps the leases of shared limits: hears which clients want tokens, asks the lender for many of them at once, and fills
//! their words. One task on the control thread, and one more that holds the connection (`line`), so that a lender that
//! hangs delays nothing: meanwhile this gateway lends its own share. No worker ever waits for either.
//!
//! What is asked and given is `filter/rate_limit/lease`; here are the clocks, the tasks, and what operators are told.

mod line;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::clock::unix_seconds;
use crate::exchange::noise::Noise;
use crate::filter::rate_limit::lease::lender::{Ask, Grant, Lent, Slice, Told};
use crate::filter::rate_limit::lease::lessee::Lessee;
use crate::filter::rate_limit::lease::word::Seen;
use crate::filter::rate_limit::lease::{Leases, Wish};
use crate::filter::rate_limit::shelf::Key;
use crate::filter::rate_limit::{LeaseStanding, Limit, LimitMemory};
use crate::moment::Moment;
use crate::snapshot::store::Store;
use crate::telemetry::log::Repeated;
use crate::telemetry::metrics::Metrics;
use line::{Answer, Line, Open, Question, RETRY, STEADY};

/// Clients of one limit, and of all limits, in one question.
const BATCH: usize = 128;
const ASKS: usize = 512;
/// New clients of one limit that a store is told of in a second: made-up ones must not fill it.
const NEW: f64 = 1000.0;
/// Between two looks at which clients are still there, and at whether the document changed.
const SWEEP: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(250);
/// Between two greetings. A store that stopped answering is noticed within this and the time-out.
const GREETING: Duration = Duration::from_secs(1);

/// Leases for as long as it is polled.
pub async fn leasing(store: Arc<Store>, memory: Arc<LimitMemory>, metrics: Arc<Metrics>) {
    let Some(inbox) = memory.leases.inbox() else {
        return;
    };
    let mut noise = Noise::default();
    let name = format!("{:016x}{:016x}", noise.draw(), noise.draw());
    let mut desk = Desk {
        snapshots: store,
        leases: memory.leases.clone(),
        metrics,
        inbox,
        name,
        limits: BTreeMap::new(),
        turn: 0,
        seen: 0,
        line: None,
        swept: Instant::now(),
        away: Repeated::new(),
        back: Repeated::new(),
    };
    loop {
        desk.follow();
        desk.serve();
        desk.wait().await;
    }
}

struct Desk {
    snapshots: Arc<Store>,
    leases: Arc<Leases>,
    metrics: Arc<Metrics>,
    inbox: mpsc::Receiver<Wish>,
    /// Who we are to the store: made up anew by every process.
    name: String,
    /// By meter.
    limits: BTreeMap<u64, Leased>,
    /// Whose turn it was last.
    turn: u64,
    /// The generation that was followed last.
    seen: u64,
    line: Option<Line>,
    swept: Instant,
    /// A store that comes and goes must not fill the log.
    away: Repeated,
    back: Repeated,
}

struct Leased {
    limit: Arc<Limit>,
    lessee: Lessee,
    /// New clients that the store may be told of now, and when that was true.
    new: (f64, Instant),
}

impl Desk {
    /// Follows the document: which limits are shared now, and through what.
    fn follow(&mut self) {
        let snapshot = self.snapshots.current();
        if snapshot.generation == self.seen {
            return;
        }
        self.seen = snapshot.generation;
        let now = Instant::now();
        let shared: Vec<&Arc<Limit>> = { snapshot.policies.limits() }
            .filter(|limit| limit.leased().is_some())
            .collect();
        let through = snapshot.policies.through().filter(|_| !shared.is_empty());
        if through != self.line.as_ref().map(|line| &line.through) {
            self.leases.told_gateways(0);
            self.line = through.and_then(|through| Line::new(through, &self.name, now));
            self.limits.clear();
        }
        self.limits
            .retain(|meter, _| shared.iter().any(|limit| limit.meter() == *meter));
        let reached = self.line.as_ref().is_some_and(|line| line.reached);
        for limit in shared {
            let leased = self.limits.entry(limit.meter()).or_insert_with(|| {
                // What words say is said to whoever asked before.
                limit.forget_leases();
                let mut lessee = Lessee::default();
                if !reached {
                    lessee.lost(Moment::from(now));
                }
                Leased {
                    limit: limit.clone(),
                    lessee,
                    new: (NEW, now),
                }
            });
            let settings = |limit: &Limit| {
                let (terms, _) = limit.leased()?;
                Some((terms.rate, terms.burst))
            };
            let changed = settings(&leased.limit) != settings(limit);
            leased.limit = limit.clone();
            if changed {
                leased.lessee.hurry(Moment::from(now));
            }
        }
        self.tell();
    }

    /// Everything that can be done now.
    fn serve(&mut self) {
        while let Ok(wish) = self.inbox.try_recv() {
            self.wish(wish);
        }
        while let Some(line) = &mut self.line
            && let Ok(answer) = line.answers.try_recv()
        {
            self.answered(answer);
        }
        let now = Instant::now();
        if now.saturating_duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.sweep();
        }
        let moment = Moment::from(now);
        let Some(line) = &mut self.line else { return };
        if !line.reached {
            for leased in self.limits.values_mut() {
                leased.lend_own(moment);
            }
        }
        if line.open.is_some() {
            return;
        }
        if now >= line.greet_at {
            return line.ask(Question::Greet, Open::Greeting);
        }
        if !line.reached {
            return;
        }
        // Each limit has its turn, however much another has to ask.
        let turn = self.turn;
        let later: Vec<u64> = self
            .limits
            .range(turn + 1..)
            .map(|(meter, _)| *meter)
            .collect();
        let earlier = self.limits.range(..=turn).map(|(meter, _)| *meter);
        let turns: Vec<u64> = later.into_iter().chain(earlier).collect();
        let (mut slices, mut open, mut count) = (Vec::new(), Vec::new(), 0);
        for meter in turns {
            if slices.len() == line.slices || count >= ASKS {
                break;
            }
            let Some(Leased { limit, lessee, .. }) = self.limits.get_mut(&meter) else {
                continue;
            };
            let Some((terms, plan)) = limit.leased() else {
                continue;
            };
            let most = BATCH.min(ASKS - count);
            let asks = lessee.asks(&plan, moment, most, |key| limit.look(key));
            for key in lessee.content() {
                limit.put_off(key);
            }
            if asks.is_empty() {
                continue;
            }
            count += asks.len();
            slices.push(Slice {
                limit: terms.limit.to_owned(),
                rate: terms.rate,
                burst: terms.burst,
                asks: asks.clone(),
            });
            open.push((meter, asks));
            self.turn = meter;
        }
        if !slices.is_empty() {
            line.ask(Question::Lend(slices), Open::Lease(open));
        }
    }

    fn wish(&mut self, wish: Wish) {
        let now = Instant::now();
        if let Some(leased) = self.limits.get_mut(&wish.meter) {
            leased.wish(wish.key, now);
        }
    }

    fn answered(&mut self, answer: Answer) {
        let Some(line) = &mut self.line else { return };
        let now = Instant::now();
        let moment = Moment::from(now);
        match (line.open.take(), answer) {
            (Some(Open::Greeting), Answer::Told(told)) => {
                self.told(told, moment);
                self.greeted(now);
            }
            (Some(Open::Lease(open)), Answer::Lent(Lent { told, grants })) => {
                if let Some(told) = told {
                    self.told(told, moment);
                }
                for ((meter, asks), grants) in open.iter().zip(&grants) {
                    if let Some(leased) = self.limits.get_mut(meter) {
                        leased.granted(asks, grants, moment);
                    }
                }
                return;
            }
            (open, Answer::Failed(reason)) => self.failed(open, reason, now),
            // An answer to another question; nobody asks two at a time.
            (open, _) => self.failed(open, "answers do not fit questions".to_owned(), now),
        }
        self.tell();
    }

    /// How it stands with the lender.
    fn told(&mut self, told: Told, now: Moment) {
        self.leases.told_gateways(u64::from(told.gateways));
        if told.lapsed {
            for leased in self.limits.values_mut() {
                leased.lessee.lapsed(now);
            }
        }
        if let (Some(line), Some(_)) = (&mut self.line, &told.lender) {
            line.lender = told.lender;
        }
    }

    /// The lender is there.
    fn greeted(&mut self, now: Instant) {
        let Some(line) = &mut self.line else { return };
        line.greet_at = now + GREETING;
        if line.reached {
            return;
        }
        line.reached = true;
        line.steady_at = now + STEADY;
        line.since = SystemTime::now();
        line.reason = None;
        line.told = false;
        let gateways = self
            .leases
            .gateways(u64::from(line.through.sharing.gateways));
        self.back.info(
            "the store of shared limits is reached",
            &[("store", &line.name()), ("gateways", &gateways)],
        );
        for leased in self.limits.values_mut() {
            leased.lessee.found(Moment::from(now));
        }
    }

    fn failed(&mut self, open: Option<Open>, reason: String, now: Instant) {
        let Some(line) = &mut self.line else { return };
        let moment = Moment::from(now);
        if let Some(Open::Lease(open)) = open {
            for (meter, asks) in open {
                if let Some(leased) = self.limits.get_mut(&meter) {
                    leased.lessee.failed(&asks, moment);
                }
            }
        }
        line.errors += 1;
        if line.reached && now >= line.steady_at {
            line.retry = RETRY[0];
        }
        // Not in step with the other gateways.
        line.greet_at = now + line.retry.mul_f64(0.5 + fastrand::f64());
        line.retry = (line.retry * 2).min(RETRY[1]);
        if line.reached {
            line.reached = false;
            line.since = SystemTime::now();
            for leased in self.limits.values_mut() {
                leased.lessee.lost(moment);
            }
        }
        if !line.told {
            line.told = true;
            let gateways = self
                .leases
                .gateways(u64::from(line.through.sharing.gateways));
            self.away.warn(
                "the store of shared limits is away; this gateway serves its own share of each until it is back",
                &[
                    ("store", &line.name()),
                    ("reason", &reason),
                    ("share", &format!("1/{gateways}")),
                ],
            );
        }
        line.reason = Some(reason);
    }

    fn sweep(&mut self) {
        let now = Instant::now();
        for leased in self.limits.values_mut() {
            leased.sweep(now);
        }
        self.tell();
    }

    /// Tells operators how it stands.
    fn tell(&self) {
        let Some(line) = &self.line else {
            self.leases.stands(None);
            return self.metrics.shares(false, 0, 0);
        };
        let gateways = self
            .leases
            .gateways(u64::from(line.through.sharing.gateways));
        self.metrics.shares(line.reached, gateways, line.errors);
        let clients = { self.limits.values() }.map(|leased| leased.lessee.len());
        self.leases.stands(Some(LeaseStanding {
            store: line.name(),
            reached: line.reached,
            since: unix_seconds(line.since),
            reason: line.reason.clone(),
            gateways,
            errors: line.errors,
            clients: clients.sum::<usize>() as u64,
            held: { self.limits.values() }
                .map(|leased| leased.lessee.held())
                .sum(),
        }));
    }

    /// Until there is something to do.
    async fn wait(&mut self) {
        let now = Instant::now();
        let mut until = now + LOOK;
        let (busy, reached) = match &self.line {
            Some(line) => (line.open.is_some(), line.reached),
            None => (true, false),
        };
        if let Some(line) = &self.line
            && !busy
        {
            until = until.min(line.greet_at);
        }
        if !(busy && reached) {
            let moment = Moment::from(now);
            for leased in self.limits.values() {
                if let Some(due) = leased.lessee.next() {
                    until = until.min(now + Duration::from_nanos(due.since(moment)));
                }
            }
        }
        let Desk { inbox, line, .. } = self;
        let mut answer = None;
        let mut wish = None;
        tokio::select! {
            got = inbox.recv() => wish = got,
            got = next_answer(line) => answer = got,
            () = tokio::time::sleep_until(until.into()) => {}
        }
        if let Some(wish) = wish {
            self.wish(wish);
        }
        if let Some(answer) = answer {
            self.answered(answer);
        }
    }
}

async fn next_answer(line: &mut Option<Line>) -> Option<Answer> {
    match line {
        Some(line) => line.answers.recv().await,
        None => std::future::pending().await,
    }
}

impl Leased {
    fn wish(&mut self, key: Key, now: Instant) {
        if !self.lessee.knows(key) && !self.may_be_new(now) {
            return self.limit.put_off(key);
        }
        if let Some(seen) = self.limit.note_credit(key) {
            self.lessee.wish(key, seen, Moment::from(now));
        }
    }

    fn may_be_new(&mut self, now: Instant) -> bool {
        let (left, when) = self.new;
        let passed = now.saturating_duration_since(when).as_secs_f64();
        let left = (left + passed * NEW).min(NEW);
        self.new = ((left - 1.0).max(0.0), now);
        left >= 1.0
    }

    fn granted(&mut self, asks: &[Ask], grants: &[Grant], now: Moment) {
        let Leased { limit, lessee, .. } = self;
        let Some((_, plan)) = limit.leased() else {
            return;
        };
        for fill in lessee.answered(&plan, asks, grants, now, |key| limit.look(key)) {
            limit.series().leased(fill.tokens);
            if !limit.fill(&fill) {
                lessee.left(fill.key, fill.tokens, now);
            }
        }
    }

    fn lend_own(&mut self, now: Moment) {
        let Leased { limit, lessee, .. } = self;
        let Some((_, plan)) = limit.leased() else {
            return;
        };
        loop {
            let fills = lessee.own_share(&plan, now, BATCH, |key| limit.look(key));
            for fill in &fills {
                limit.series().own_share(fill.tokens);
                if !limit.fill(fill) {
                    lessee.left(fill.key, fill.tokens, now);
                }
            }
            if fills.len() < BATCH {
                return;
            }
        }
    }

    /// Whoever is not there any more gives back; whoever was overlooked is told.
    fn sweep(&mut self, now: Instant) {
        let moment = Moment::from(now);
        for key in self.limit.untold() {
            if !self.lessee.knows(key) {
                self.wish(key, now);
            }
        }
        let Leased { limit, lessee, .. } = self;
        let Some((_, plan)) = limit.leased() else {
            return;
        };
        for key in lessee.keys() {
            if limit.look(key).is_none() {
                lessee.left(key, 0, moment);
                continue;
            }
            let may = |seen: &Seen| lessee.may_leave(&plan, key, seen, moment);
            if let Some(tokens) = limit.let_go(key, may) {
                lessee.left(key, tokens, moment);
            }
        }
    }
}
