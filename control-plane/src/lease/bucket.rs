//! One client's bucket, and who holds tokens out of it. Pure arithmetic in thousandths of a token.

use std::time::Duration;

use tollgate_config::leases::{Ask, Grant};
use tollgate_config::unit::Rate;

/// A want is for the next tenth of a second, so it counts for as long against the wants of others.
const WANTED: Duration = Duration::from_millis(100);
/// More than any bucket holds, and far from what would not fit.
const MOST: i64 = i64::MAX / 4;

/// What holds for the limit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) rate: Rate,
    pub(super) burst: u64,
}

#[derive(Debug)]
pub(super) struct Bucket {
    /// Below zero: used ahead.
    level: i64,
    at: Duration,
    holders: Vec<Holder>,
}

#[derive(Debug)]
struct Holder {
    gateway: u64,
    /// Tokens that were leased, and not returned.
    out: u64,
    /// Thousandths that were put aside since it is silent.
    aside: i64,
    /// What it wanted, and when.
    want: u64,
    asked: Duration,
}

impl Terms {
    /// What comes back between two moments, to each of so many. A difference of a function of the clock, so that rounding
    /// never adds up.
    fn accrued(&self, from: Duration, to: Duration, parts: u32) -> i64 {
        let per = self.rate.per.as_nanos().max(1) * u128::from(parts.max(1));
        let by = |moment: Duration| {
            moment.as_nanos() * u128::from(self.rate.count.saturating_mul(1000)) / per
        };
        let thousandths = by(to).saturating_sub(by(from));
        i64::try_from(thousandths).map_or(MOST, |thousandths| thousandths.min(MOST))
    }

    fn full(&self) -> i64 {
        thousandths(self.burst)
    }
}

fn thousandths(tokens: u64) -> i64 {
    i64::try_from(tokens.saturating_mul(1000)).map_or(MOST, |sum| sum.min(MOST))
}

impl Bucket {
    /// Of a client that nobody knows: full, or as much as came since it was empty.
    pub(super) fn fresh(terms: &Terms, empty_at: Option<Duration>, now: Duration) -> Self {
        let full = terms.full();
        let came = empty_at.map_or(full, |then| terms.accrued(then, now, 1));
        Bucket {
            level: came.min(full),
            at: now,
            holders: Vec::new(),
        }
    }

    /// Brings it up to now. `silent`: of a gateway, since when it is silent, until when its share is put aside, and of how
    /// many that is one.
    pub(super) fn settle(
        &mut self,
        terms: &Terms,
        now: Duration,
        silent: impl Fn(u64) -> Option<(Duration, Duration, u32)>,
    ) {
        let full = terms.full();
        let came = terms.accrued(self.at, now, 1);
        let mut level = self.level.saturating_add(came).min(full);
        self.at = self.at.max(now);
        for holder in &mut self.holders {
            match silent(holder.gateway) {
                // As much of it as can be owed; the rest later.
                Some((from, to, parts)) => {
                    let due = terms.accrued(from, to, parts) - holder.aside;
                    let taken = due.clamp(0, level.saturating_add(full));
                    level -= taken;
                    holder.aside += taken;
                }
                None => level = (level + std::mem::take(&mut holder.aside)).min(full),
            }
        }
        self.level = level.max(-full);
    }

    /// A gateway's question, after `settle`; and how many tokens came back.
    pub(super) fn ask(
        &mut self,
        terms: &Terms,
        ask: &Ask,
        gateway: u64,
        now: Duration,
    ) -> (Grant, u64) {
        let full = terms.full();
        let place = self.place(gateway, now);
        // Nobody brings back what it did not have.
        let back = ask.debit.min(0).unsigned_abs().min(self.holders[place].out);
        let used = thousandths(ask.debit.max(0).unsigned_abs());
        let level = self
            .level
            .saturating_add(thousandths(back))
            .saturating_sub(used);
        let level = level.clamp(-full, full);
        let there = u64::try_from(level / 1000).unwrap_or(0);
        let others = { self.holders.iter() }
            .filter(|one| one.gateway != gateway && now.saturating_sub(one.asked) < WANTED)
            .map(|one| one.want)
            .sum();
        let tokens = part(there, ask.want, others);
        self.level = level - thousandths(tokens);
        let holder = &mut self.holders[place];
        holder.want = ask.want.min(terms.burst);
        holder.asked = now;
        holder.out = ask.held.min(terms.burst).saturating_add(tokens);
        if ask.want == 0 && holder.out == 0 {
            // It has nothing, and wants nothing.
            self.holders.swap_remove(place);
        }
        let left = self.level;
        (Grant { tokens, left }, back)
    }

    fn place(&mut self, gateway: u64, now: Duration) -> usize {
        let found = self.holders.iter().position(|one| one.gateway == gateway);
        found.unwrap_or_else(|| {
            self.holders.push(Holder {
                gateway,
                out: 0,
                aside: 0,
                want: 0,
                asked: now,
            });
            self.holders.len() - 1
        })
    }

    /// Takes back what gateways held that do not stay; how many tokens. What was put aside for them was theirs to use.
    pub(super) fn expire(&mut self, terms: &Terms, stays: impl Fn(u64) -> bool) -> u64 {
        let mut back = 0;
        self.holders.retain(|holder| {
            let stay = stays(holder.gateway);
            if !stay {
                back += holder.out;
            }
            stay
        });
        self.level = self
            .level
            .saturating_add(thousandths(back))
            .min(terms.full());
        back
    }

    /// Whatever is in it may have been used elsewhere.
    pub(super) fn empty(&mut self) {
        self.level = self.level.min(0);
    }

    /// It is as good as one that nobody knows.
    pub(super) fn tells_nothing(&self, terms: &Terms) -> bool {
        self.holders.is_empty() && self.level >= terms.full()
    }

    /// Gateways, and how many tokens each holds.
    pub(super) fn holders(&self) -> impl Iterator<Item = (u64, u64)> {
        self.holders
            .iter()
            .map(|holder| (holder.gateway, holder.out))
    }
}

/// Of what is there, what one gets who wants so much while others want that much: all of it if that is enough for
/// everybody, else a part by what is wanted, and at least a token.
fn part(there: u64, want: u64, others: u64) -> u64 {
    let wanted = want.saturating_add(others);
    if wanted <= there {
        return want;
    }
    let part = u128::from(there) * u128::from(want) / u128::from(wanted);
    let part = u64::try_from(part).unwrap_or(there);
    part.max(1).min(want).min(there)
}
