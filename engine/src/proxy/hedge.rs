//! A second try beside a late first one: the first good answer wins, the other is cancelled. Both are polled by the
//! request's own task; what the second needs is in a box that only a request with a second has.
//!
//! A hedge is a retry that does not wait for its cause, so it may happen where a retry may (`tries`), is paid from the same
//! budget, asks breaker and bulkhead as every try does, and is told apart only by `;hedge` in the announcing header. It
//! never waits for anything: who cannot have a second at once has the first alone. There is one for each request at most,
//! for its first try, and never after bytes of an answer.
//!
//! Cancelling is dropping: an HTTP/1 wire is closed, an HTTP/2 stream is reset, slot and permits return. It is no verdict on
//! anybody. That the loser was not faster than it was waited for is a fact, though: balancer, adaptive limit and a breaker
//! that counts slow answers hear as much.
//!
//! What hedges are good for cannot be seen at those that were hedged: how long a cancelled try would have taken, nobody
//! knows. So every 32nd late answer is left alone, and both kinds are measured from the moment they became late
//! (`hedge_wait_seconds`): the difference of the means is what a hedge saves.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::mem::{replace, swap};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tollgate_config::{Hedge, HedgeAfter};

use super::books::Exchange;
use super::forward::{Attempt, outcome};
use super::guard::{self, Pass};
use super::replay::{SharedSource, Source};
use super::send::{Failure, Sent};
use super::tries::Tries;
use crate::clock;
use crate::exchange::error::Code;
use crate::snapshot::RoutePlan;
use crate::telemetry::metrics::{HedgeResult, Unhedged};
use crate::upstream::bulkhead::Permit;
use crate::upstream::{Outcome, Slot};

/// One late answer of so many is left without a hedge.
const CONTROL: u32 = 32;

type Ended = Result<Sent, Failure>;

/// The first try, as far as a second may follow.
#[derive(Default)]
pub(super) struct First {
    /// The route hedges such requests, and this one is still at its first try.
    watched: Cell<bool>,
    /// How long it is waited for alone; `None`: nobody knows yet what is late.
    patience: Option<Duration>,
    /// When nothing was left to do but wait.
    began: Cell<Option<Instant>>,
}

impl First {
    pub(super) fn of(hedge: Hedge, plan: &RoutePlan) -> Self {
        let usual = || plan.compiled.late.as_ref()?.normal();
        First {
            watched: Cell::new(true),
            patience: match hedge.after {
                HedgeAfter::Fixed(after) => Some(after),
                HedgeAfter::P95 => usual().map(|usual| usual.max(hedge.least)),
            },
            began: Cell::new(None),
        }
    }

    /// When it is late. Not before the request's body has come as a whole and can be sent again.
    fn late_at(&self, source: &SharedSource) -> Option<Instant> {
        if self.began.get().is_none() && source.borrow().is_complete() {
            self.began.set(Some(clock::recent()));
        }
        Some(self.began.get()? + self.patience?)
    }

    /// It has ended by itself: the route learns what is late from answers that took an endpoint's work.
    fn ended(&self, plan: &RoutePlan, ended: &Ended, is_grpc: bool) {
        let (Some(pace), Some(began)) = (&plan.compiled.late, self.began.get()) else {
            return;
        };
        let took = clock::recent().saturating_duration_since(began);
        match ended {
            Ok(_) if is_good(ended, is_grpc) => pace.answered(took),
            Err(failure) if failure.waited.is_some() => pace.gave_up(took),
            _ => {}
        }
    }

    /// It was cancelled because the second had its answer first.
    fn outrun(&self, plan: &RoutePlan, now: Instant) {
        if let (Some(pace), Some(began)) = (&plan.compiled.late, self.began.get()) {
            pace.gave_up(now.saturating_duration_since(began));
        }
    }
}

/// The first try, and the second once there is one.
pub(super) enum Race<'r, 'a, F> {
    Alone(Alone<'r, 'a, F>),
    /// Rare and large: boxed, so that other requests do not carry its size.
    Both(Pin<Box<dyn Future<Output = Finish> + 'r>>),
    Over,
}

/// What goes on, and what becomes of a second try that was made.
type Finish = (Ended, Option<Box<Beside>>);

pub(super) struct Alone<'r, 'a, F> {
    pub(super) first: Pin<&'r mut F>,
    pub(super) attempt: &'r Attempt<'r>,
    pub(super) tries: &'r Tries<'a>,
    pub(super) exchange: &'r Exchange,
    /// The number of the first try's endpoint.
    pub(super) endpoint: u32,
}

impl<'r, F: Future<Output = Ended>> Race<'r, '_, F> {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Finish> {
        if let Race::Alone(alone) = self {
            let (first, tries) = (&alone.tries.first, alone.tries);
            if let Poll::Ready(ended) = alone.first.as_mut().poll(cx) {
                if first.watched.replace(false) {
                    first.ended(tries.plan, &ended, alone.exchange.is_grpc);
                }
                return Poll::Ready((ended, None));
            }
            if !first.watched.get() {
                return Poll::Pending;
            }
            let Some(at) = first.late_at(alone.attempt.source) else {
                return Poll::Pending;
            };
            ready!(alone.exchange.alarm.poll_at(at, cx));
            first.watched.set(false);
            if let Race::Alone(alone) = replace(self, Race::Over) {
                *self = Race::Both(Box::pin(beside(alone)));
            }
        }
        match self {
            Race::Both(both) => both.as_mut().poll(cx),
            Race::Alone(_) | Race::Over => Poll::Pending,
        }
    }
}

/// What a second try holds, or held.
pub(super) struct Beside {
    slot: Slot,
    pass: Pass,
    permit: Option<Permit>,
    began: Instant,
    /// It is the second that goes on.
    won: bool,
    /// How the loser had ended; `None`: it was cancelled.
    loser: Option<Ended>,
}

/// Counts a hedge whose client leaves in the middle.
struct Sending<'a, 't> {
    tries: &'a Tries<'t>,
    result: HedgeResult,
}

impl Drop for Sending<'_, '_> {
    fn drop(&mut self) {
        let series = &self.tries.upstream.series;
        series.hedged(self.tries.proxy.worker, self.result);
    }
}

/// Makes a second try, if everybody agrees, and drives both until there is a good answer or none is left to hope for.
async fn beside<F: Future<Output = Ended>>(alone: Alone<'_, '_, F>) -> Finish {
    let Alone {
        mut first,
        attempt,
        tries,
        exchange,
        ..
    } = alone;
    let late = clock::now();
    let is_grpc = exchange.is_grpc;
    let good = |ended: &Ended| is_good(ended, is_grpc);
    let decides = |ended: &Ended| good(ended) || is_final(ended);
    let worker = tries.proxy.worker;
    let series = &tries.upstream.series;
    let mut beside = match second(tries, attempt.key(exchange), alone.endpoint, late) {
        Ok(beside) => beside,
        Err(why) => {
            series.unhedged(worker, why);
            let ended = first.await;
            tries.first.ended(tries.plan, &ended, is_grpc);
            if why == Unhedged::Control && good(&ended) {
                let wait = clock::recent().saturating_duration_since(late);
                series.late(worker, false, wait);
            }
            return (ended, None);
        }
    };
    exchange.attempts.set(attempt.number + 1);
    exchange.hedge.set(Some(HedgeResult::Abandoned));
    let mut sending = Sending {
        tries,
        result: HedgeResult::Abandoned,
    };
    let body = Source::copy(attempt.source);
    let [mut one, mut other] = [None, None];
    {
        let mut second = pin!(run(attempt, &body, exchange, &mut beside.slot));
        poll_fn(|cx| {
            if one.is_none()
                && let Poll::Ready(ended) = first.as_mut().poll(cx)
            {
                let ended = one.insert(ended);
                tries.first.ended(tries.plan, ended, is_grpc);
                if decides(ended) {
                    return Poll::Ready(());
                }
            }
            if other.is_none()
                && let Poll::Ready(ended) = second.as_mut().poll(cx)
                && decides(other.insert(ended))
            {
                return Poll::Ready(());
            }
            match (&one, &other) {
                (Some(_), Some(_)) => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }
    let now = clock::now();
    if one.is_none() {
        tries.first.outrun(tries.plan, now);
    }
    // An answer, though a bad one, is more than none; of two alike, the first try's.
    let (ended, won, loser) = match (one, other) {
        (first, Some(second)) if good(&second) => (second, true, first),
        (Some(first), second) if first.is_ok() || is_final(&first) || second.is_none() => {
            (first, false, second)
        }
        (first, Some(second)) => (second, true, first),
        (first, None) => (
            first.unwrap_or_else(|| Err(Failure::bad(Code::Internal))),
            false,
            None,
        ),
    };
    sending.result = match (good(&ended), won) {
        (false, _) => HedgeResult::Neither,
        (true, true) => HedgeResult::Won,
        (true, false) => HedgeResult::Lost,
    };
    exchange.hedge.set(Some(sending.result));
    if good(&ended) {
        series.late(worker, true, now.saturating_duration_since(late));
    }
    beside.won = won;
    beside.loser = loser;
    (ended, Some(Box::new(beside)))
}

/// Whatever a second try needs, at once, or why there is none. The budget comes last: it pays for what is sent.
fn second(
    tries: &Tries<'_>,
    key: Option<u64>,
    number: u32,
    now: Instant,
) -> Result<Beside, Unhedged> {
    let (proxy, plan) = (tries.proxy, tries.upstream);
    let upstream = &plan.upstream;
    let mut tried = tries.tried.clone();
    tried.push(number);
    if upstream.endpoints().len() < 2 {
        return Err(Unhedged::NoEndpoint);
    }
    let mut pass =
        Pass::beside(proxy.worker, plan, tries.guard, now).ok_or(Unhedged::CircuitOpen)?;
    let permit = upstream.try_enter().map_err(|_full| Unhedged::Overloaded)?;
    let slot = upstream
        .pick(key, &tried, now, proxy.random())
        .ok()
        .filter(|slot| slot.endpoint().id() != number && slot.endpoint().is_healthy(now))
        .ok_or(Unhedged::NoEndpoint)?;
    pass.endpoint = slot.endpoint().id();
    let late = proxy.late.get().wrapping_add(1);
    proxy.late.set(late);
    if late.is_multiple_of(CONTROL) {
        return Err(Unhedged::Control);
    }
    let paid = plan
        .item
        .retry_budget
        .as_ref()
        .is_none_or(|policy| plan.guards.budget.spend(policy, now));
    if !paid {
        return Err(Unhedged::Budget);
    }
    Ok(Beside {
        slot,
        pass,
        permit,
        began: now,
        won: false,
        loser: None,
    })
}

/// Drives the second try. A pooled connection that its endpoint had closed is no reason to give up.
async fn run(
    first: &Attempt<'_>,
    body: &SharedSource,
    exchange: &Exchange,
    slot: &mut Slot,
) -> Ended {
    let mut attempt = first.beside(body);
    attempt.begins(exchange, slot, clock::recent());
    loop {
        match attempt.run(exchange, slot).await {
            Err(failure) if failure.stale && !attempt.fresh => {
                attempt.fresh = true;
                body.borrow_mut().rewind();
            }
            ended => return ended,
        }
    }
}

impl Beside {
    /// Whether the second try is the one that goes on.
    pub(super) fn won(&self) -> bool {
        self.won
    }

    /// When both futures are gone: the winner's place becomes the exchange's, and of the loser is told what is known.
    /// `began`: when the first try began. Says when the winner did.
    pub(super) fn settle(
        mut self: Box<Self>,
        exchange: &mut Exchange,
        slot: &mut Slot,
        tries: &mut Tries<'_>,
        mut began: Instant,
    ) -> Instant {
        let now = clock::recent();
        if self.won {
            swap(slot, &mut self.slot);
            swap(&mut exchange.pass, &mut self.pass);
            swap(&mut exchange.permit, &mut self.permit);
            swap(&mut began, &mut self.began);
            exchange.endpoint = Some(slot.endpoint().address());
        }
        tries.tried.push(self.slot.endpoint().id());
        // The second has the last number of all, the first the one before it.
        let loser = exchange.attempts.get() - u32::from(self.won);
        exchange.tried.end(loser);
        let (worker, upstream, guard) = (tries.proxy.worker, tries.upstream, tries.guard);
        let (good, waited, outcome) = match &self.loser {
            None => {
                let waited = now.saturating_duration_since(self.began);
                self.pass.outrun(worker, upstream, guard, waited, now);
                if self.won {
                    upstream.upstream.learn(self.began, now);
                }
                (None, None, Outcome::Cancelled)
            }
            Some(Ok(sent)) => {
                let (status, headers) = (sent.response.status, &sent.response.headers);
                let good = guard::is_good(status, headers, exchange.is_grpc);
                exchange.tried.answered(loser, status, good);
                (Some(good), sent.waited, outcome(&sent.response))
            }
            Some(Err(failure)) if failure.stale => (None, None, Outcome::Cancelled),
            Some(Err(failure)) => {
                let failed = failure.outcome == Outcome::Failure;
                exchange.tried.failed(loser, failure.error.code);
                (failed.then_some(false), failure.waited, failure.outcome)
            }
        };
        if let Some(good) = good {
            self.pass.judge(worker, upstream, guard, good, waited, now);
        }
        self.pass.give_back(guard);
        self.slot.finish(outcome, now);
        began
    }
}

/// An answer that nobody would rather wait than have.
fn is_good(ended: &Ended, is_grpc: bool) -> bool {
    ended.as_ref().is_ok_and(|sent| {
        let response = &sent.response;
        outcome(response) == Outcome::Success
            && guard::is_good(response.status, &response.headers, is_grpc)
    })
}

/// The time of the whole request is over, also for the other try.
fn is_final(ended: &Ended) -> bool {
    ended.as_ref().is_err_and(|failure| {
        matches!(
            failure.error.code,
            Code::RouteTimeout | Code::DeadlineExceeded
        )
    })
}

#[cfg(test)]
mod tests;
