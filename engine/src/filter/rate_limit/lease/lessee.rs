//! What one gateway knows of its leases under one limit: who wants tokens, who was told what, what was used on credit,
//! and, while the lender is away, this gateway's own share. A state machine on the control thread: `now`, what words
//! say and what the lender answers are arguments, so that years of several gateways can be simulated in a second.
//!
//! A client's word never holds more than a *block* of tokens, and every one of them was taken out of the lender's bucket
//! before it could be used; but for the first block of a client that nobody knew here, which is on credit until the
//! lender has been told. So all gateways together admit at most `burst + rate × time`, and one block for each gateway.
//! While the lender is away, a gateway lends to itself: its part of what the lender had left, then its part of the rate.
//! It tells the lender afterwards.
//!
//! A lender that *watches* knows of each gateway what it holds. It takes that back from one that it has not heard of for
//! long, and says so; meanwhile it puts that gateway's part of the rate aside. So there a gateway lends itself just that:
//! its part of the rate, and nothing of what the lender had left, which others may have used by now.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use foldhash::fast::RandomState;
use tollgate_config::unit::Rate;

use super::super::shelf::Key;
use super::lender::{Ask, Grant};
use super::word::Seen;
use crate::moment::{Moment, nanoseconds};

/// A lender that had nothing is not asked again sooner, unless the burst would be full by then.
const PAUSE: Duration = Duration::from_millis(10);
/// Nor much later: another gateway may have brought tokens back.
const LONGEST: Duration = Duration::from_secs(30);
/// A block is for as much time of a client's demand.
const AHEAD: Duration = Duration::from_millis(100);

/// More than any bucket holds, in thousandths, and far from what would not fit.
const MOST: i64 = i64::MAX / 4;

/// What holds for the limit now: settings, and how many share it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rate: Rate,
    pub(crate) burst: u64,
    /// The most that a word may hold.
    pub(crate) block: u64,
    pub(crate) gateways: u64,
    /// The lender knows what each gateway holds.
    pub(crate) watched: bool,
}

impl Plan {
    /// `spare`: how many tokens all gateways together may hold ahead. Each may hold one.
    pub(crate) fn new(rate: Rate, burst: u64, spare: u64, gateways: u64) -> Self {
        let gateways = gateways.max(1);
        Plan {
            rate,
            burst,
            block: block(spare, gateways),
            gateways,
            watched: false,
        }
    }

    /// What comes back between two moments, in thousandths of a token, to each of so many. A difference of a function of
    /// the clock, so that rounding never adds up.
    fn accrued(&self, from: Moment, to: Moment, parts: u64) -> i64 {
        let per = self.rate.per.as_nanos().max(1) * u128::from(parts);
        let by = |moment: Moment| {
            u128::from(moment.0) * u128::from(self.rate.count.saturating_mul(1000)) / per
        };
        let thousandths = by(to).saturating_sub(by(from));
        i64::try_from(thousandths).map_or(MOST, |thousandths| thousandths.min(MOST))
    }

    fn full(&self) -> i64 {
        signed(self.burst).saturating_mul(1000)
    }

    /// When to ask again, if there was so little.
    fn patience(&self, grant: &Grant) -> Duration {
        let fills = self
            .rate
            .per
            .mul_f64(self.burst as f64 / self.rate.count.max(1) as f64);
        grant
            .until_one(self.rate)
            .max(PAUSE.min(fills / 4))
            .min(LONGEST)
    }
}

/// The most that one of so many gateways holds of a client's tokens.
pub(crate) fn block(spare: u64, gateways: u64) -> u64 {
    (spare / gateways.max(1)).max(1)
}

/// Tokens for a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) key: Key,
    pub(crate) tokens: u64,
    /// What the lender has left.
    pub(crate) told: u64,
    /// Nobody asks for more until somebody takes.
    pub(crate) settled: bool,
}

#[derive(Debug, Default)]
struct Account {
    key: Option<Key>,
    wanting: bool,
    /// To tell the lender: used without its knowledge, or coming back.
    debit: i64,
    /// When it is looked at next.
    due: Option<Moment>,
    asked: bool,
    /// What the lender had left, in thousandths, and when.
    told: Option<(i64, Moment)>,
    /// What the word held after tokens came, and when.
    filled: (u64, Moment),
    /// What the lender believes that is here; `None`: it does not know of us.
    out: Option<u64>,
    /// This gateway's own share: the absence it belongs to, thousandths, and when that was true.
    own: Option<(u64, i64, Moment)>,
    /// Its word has left.
    gone: bool,
}

/// One limit's leases here.
#[derive(Debug, Default)]
pub(crate) struct Lessee {
    accounts: HashMap<u64, Account, RandomState>,
    due: BTreeSet<(Moment, u64)>,
    /// Since when the lender is away.
    alone: Option<Moment>,
    absences: u64,
    /// Wanted more, and hold enough.
    content: Vec<Key>,
}

impl Lessee {
    /// So many clients are known.
    pub(crate) fn len(&self) -> usize {
        self.accounts.len()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    pub(crate) fn knows(&self, key: Key) -> bool {
        self.accounts
            .get(&key.hash())
            .is_some_and(|account| !account.gone)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.accounts
            .values()
            .filter_map(|account| account.key)
            .collect()
    }

    /// A client wants tokens.
    pub(crate) fn wish(&mut self, key: Key, seen: Seen, now: Moment) {
        let account = self.accounts.entry(key.hash()).or_default();
        account.key = Some(key);
        account.wanting = true;
        account.gone = false;
        account.debit = account.debit.saturating_add(signed(seen.credit));
        if !account.asked {
            self.schedule(key.hash(), now);
        }
    }

    /// When somebody is due.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.due.first().map(|(when, _)| *when)
    }

    /// What to ask the lender now, at most so much. To be told `answered` or `failed`.
    pub(crate) fn asks(
        &mut self,
        plan: &Plan,
        now: Moment,
        most: usize,
        look: impl Fn(Key) -> Option<Seen>,
    ) -> Vec<Ask> {
        let mut asks = Vec::new();
        while asks.len() < most
            && let Some(hash) = self.pop(now)
        {
            let Some(account) = self.accounts.get_mut(&hash) else {
                continue;
            };
            let Some(key) = account.key else { continue };
            let seen = look(key);
            let want = match seen {
                Some(seen) if account.wanting => account.wants(&seen, plan, now),
                Some(_) => 0,
                None => {
                    account.gone = true;
                    account.wanting = false;
                    0
                }
            };
            let debit = account.debit;
            if want == 0 && account.wanting {
                account.wanting = false;
                self.content.push(key);
            }
            // Who watches is told that we hold nothing any more.
            let farewell = plan.watched && account.gone && account.out.is_some();
            if want == 0 && debit == 0 && !farewell {
                if account.gone {
                    self.accounts.remove(&hash);
                }
                continue;
            }
            account.asked = true;
            let held = seen.map_or(0, |seen| seen.tokens);
            asks.push(Ask {
                key,
                want,
                debit,
                held,
            });
        }
        asks
    }

    /// Who wanted more and holds enough, since this was last asked: their next take asks again.
    pub(crate) fn content(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.content)
    }

    /// The lender's answer; what the words get.
    pub(crate) fn answered(
        &mut self,
        plan: &Plan,
        asks: &[Ask],
        grants: &[Grant],
        now: Moment,
        look: impl Fn(Key) -> Option<Seen>,
    ) -> Vec<Fill> {
        let mut fills = Vec::new();
        for (ask, grant) in asks.iter().zip(grants) {
            let hash = ask.key.hash();
            let Some(account) = self.accounts.get_mut(&hash) else {
                continue;
            };
            account.asked = false;
            account.debit = account.debit.saturating_sub(ask.debit);
            // No bucket holds more, nor owes more.
            let left = grant.left.clamp(-plan.full(), plan.full());
            account.told = Some((left, now));
            account.own = None;
            let out = ask.held + grant.tokens.min(ask.want);
            account.out = (out > 0 || ask.want > 0).then_some(out);
            let mut again = (account.debit != 0).then_some(now);
            if ask.want > 0 {
                // What a lender says beyond what was wanted is not believed.
                let tokens = grant.tokens.min(ask.want);
                let seen = look(ask.key).filter(|_| !account.gone);
                // A word that was forgotten meanwhile is not there, or has begun anew and has less room.
                let room = seen.map_or(0, |seen| plan.block.saturating_sub(seen.tokens));
                let used = tokens.min(room);
                account.debit = account.debit.saturating_sub(signed(tokens - used));
                if account.debit != 0 {
                    again = Some(now);
                }
                match seen {
                    Some(seen) => {
                        fills.push(Fill {
                            key: ask.key,
                            tokens: used,
                            told: u64::try_from(left / 1000).unwrap_or(0),
                            settled: tokens > 0,
                        });
                        account.filled = (seen.tokens + used, now);
                        account.wanting = tokens == 0;
                        if account.wanting {
                            again = Some(now.plus(plan.patience(grant)));
                        }
                    }
                    None => {
                        account.wanting = false;
                        account.gone = true;
                    }
                }
            } else if account.wanting {
                again = Some(now);
            }
            match again {
                Some(when) => self.schedule(hash, when),
                None if account.gone => drop(self.accounts.remove(&hash)),
                None => {}
            }
        }
        fills
    }

    /// Nobody knows whether the lender did it. What was used is told again, and perhaps counted twice; what came back is
    /// told no more, and perhaps lost. Either way nobody gets more.
    pub(crate) fn failed(&mut self, asks: &[Ask], now: Moment) {
        for ask in asks {
            let hash = ask.key.hash();
            if let Some(account) = self.accounts.get_mut(&hash) {
                account.asked = false;
                if ask.debit < 0 {
                    account.debit = account.debit.saturating_sub(ask.debit);
                }
                // It may believe what it believed, or that everything was granted.
                let most = account.out.unwrap_or(0).max(ask.held + ask.want);
                account.out = Some(most);
                self.schedule(hash, now);
            }
        }
    }

    /// The lender took back all that was here, and some of it was used: it has to be told of everything as if it had been
    /// taken without its knowledge. To be called before the answer that came with it.
    pub(crate) fn lapsed(&mut self, now: Moment) {
        for account in self.accounts.values_mut() {
            let out = signed(account.out.take().unwrap_or(0));
            account.debit = account.debit.saturating_add(out);
        }
        self.hurry(now);
    }

    /// Tokens that the lender believes that are here.
    pub(crate) fn held(&self) -> u64 {
        { self.accounts.values() }
            .filter_map(|account| account.out)
            .sum()
    }

    /// The lender cannot be reached any more.
    pub(crate) fn lost(&mut self, now: Moment) {
        if self.alone.is_none() {
            self.alone = Some(now);
            self.absences += 1;
        }
    }

    /// The lender is back: everything that it missed is told.
    pub(crate) fn found(&mut self, now: Moment) {
        if self.alone.take().is_some() {
            self.hurry(now);
        }
    }

    /// What everybody waits for may have come: the lender is back, or the limit has changed.
    pub(crate) fn hurry(&mut self, now: Moment) {
        let missed: Vec<u64> = { self.accounts.iter() }
            .filter(|(_, account)| !account.asked && (account.wanting || account.debit != 0))
            .map(|(hash, _)| *hash)
            .collect();
        for hash in missed {
            self.schedule(hash, now);
        }
    }

    /// While the lender is away: tokens of this gateway's own share.
    pub(crate) fn own_share(
        &mut self,
        plan: &Plan,
        now: Moment,
        most: usize,
        look: impl Fn(Key) -> Option<Seen>,
    ) -> Vec<Fill> {
        let Some(since) = self.alone else {
            return Vec::new();
        };
        let mut fills = Vec::new();
        for _ in 0..most {
            let Some(hash) = self.pop(now) else { break };
            let Some(account) = self.accounts.get_mut(&hash) else {
                continue;
            };
            let Some(key) = account.key else { continue };
            let Some(seen) = look(key) else {
                account.gone = true;
                account.wanting = false;
                if account.debit == 0 {
                    self.accounts.remove(&hash);
                }
                continue;
            };
            if !account.wanting {
                continue;
            }
            let mut level = account.share(plan, self.absences, since, now);
            let room = plan.block.saturating_sub(seen.tokens);
            let tokens = u64::try_from(level / 1000).unwrap_or(0).min(room);
            level -= signed(tokens) * 1000;
            account.own = Some((self.absences, level, now));
            // A lender takes note of no more than a burst.
            account.debit = (account.debit.saturating_add(signed(tokens))).min(signed(plan.burst));
            account.wanting = tokens == 0 && room > 0;
            account.filled = (seen.tokens + tokens, now);
            fills.push(Fill {
                key,
                tokens,
                told: u64::try_from(level / 1000).unwrap_or(0),
                settled: !account.wanting,
            });
            if account.wanting {
                let missing = u128::try_from(1000 - level).unwrap_or(0) * u128::from(plan.gateways);
                let nanoseconds = missing * plan.rate.per.as_nanos()
                    / (u128::from(plan.rate.count.max(1)) * 1000);
                let wait = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
                self.schedule(hash, now.plus(wait.clamp(PAUSE, LONGEST)));
            }
        }
        fills
    }

    /// Whether a client's word tells nothing that a fresh one would not: nobody has used it, and by now the lender would
    /// surely give as much as a fresh one begins with. Its tokens are then to be given back.
    pub(crate) fn may_leave(&self, plan: &Plan, key: Key, seen: &Seen, now: Moment) -> bool {
        let Some(account) = self.accounts.get(&key.hash()) else {
            return false;
        };
        let Some((left, when)) = account.told else {
            return false;
        };
        let begins = signed(plan.block.min(plan.burst)) * 1000;
        let by_now = left
            .saturating_add(plan.accrued(when, now, 1))
            .min(plan.full());
        !seen.used
            && !account.asked
            && self.alone.is_none()
            && account.debit <= 0
            && by_now >= begins
    }

    /// A client's word has left with so many tokens in it.
    pub(crate) fn left(&mut self, key: Key, tokens: u64, now: Moment) {
        if let Some(account) = self.accounts.get_mut(&key.hash()) {
            account.gone = true;
            account.wanting = false;
            account.debit = account.debit.saturating_sub(signed(tokens));
            if !account.asked {
                self.schedule(key.hash(), now);
            }
        }
    }

    fn schedule(&mut self, hash: u64, when: Moment) {
        if let Some(account) = self.accounts.get_mut(&hash) {
            if let Some(before) = account.due.replace(when) {
                self.due.remove(&(before, hash));
            }
            self.due.insert((when, hash));
        }
    }

    /// The next that is due.
    fn pop(&mut self, now: Moment) -> Option<u64> {
        let (when, hash) = *self.due.first()?;
        if when > now {
            return None;
        }
        self.due.remove(&(when, hash));
        if let Some(account) = self.accounts.get_mut(&hash) {
            account.due = None;
        }
        Some(hash)
    }
}

impl Account {
    /// As much as this client uses in a while; all that it may hold when it has been refused.
    fn wants(&self, seen: &Seen, plan: &Plan, now: Moment) -> u64 {
        let room = plan.block.saturating_sub(seen.tokens);
        if seen.hungry {
            return room;
        }
        let (held, when) = self.filled;
        let used = held.saturating_sub(seen.tokens).max(1);
        let passed = now.since(when).max(1);
        let demand = u128::from(used) * u128::from(nanoseconds(AHEAD)) / u128::from(passed);
        room.min(u64::try_from(demand).unwrap_or(u64::MAX).max(1))
    }

    /// This gateway's share, in thousandths, as of now.
    fn share(&self, plan: &Plan, absence: u64, since: Moment, now: Moment) -> i64 {
        let parts = signed(plan.gateways);
        let full = (plan.full() / parts).max(1000);
        let (level, when) = match self.own {
            Some((known, level, when)) if known == absence => (level, when),
            _ => {
                let left = match self.told {
                    _ if plan.watched => 0,
                    Some((left, when)) => {
                        let came = plan.accrued(when, since, 1);
                        left.saturating_add(came).min(plan.full()) / parts
                    }
                    // It has begun with a block on credit.
                    None => full - self.debit.saturating_mul(1000),
                };
                (left, since)
            }
        };
        let came = plan.accrued(when, now, plan.gateways);
        level.saturating_add(came).min(full)
    }
}

fn signed(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX / 4000)
}

#[cfg(test)]
mod tests;
