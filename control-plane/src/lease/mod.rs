//! Lends the tokens of shared limits to gateways: one bucket for each client of each limit, and who holds how much of
//! it. Pure: calls and `now`. No clock, no I/O, no chance; `api` carries questions in, and nothing here is written to
//! the store.
//!
//! **What was leased counts as used until it is returned or expires.** A gateway takes tokens out before it uses them, as
//! many as a client of it needs in the next tenth of a second; where several want more than there is, each gets its part
//! by what it wants. A gateway that was not heard of for `TERM` holds nothing any more: what it held goes back.
//!
//! **A silent gateway may be cut off and serving its share.** So from `SILENT` on, and for the whole time since it was
//! heard last, its part of the rate is put aside in every bucket that it holds tokens of. If it is heard again within
//! `TERM`, what was put aside comes back, and what it used is taken off, since it tells. So until `TERM` a partition lets
//! through no token beyond those that were leased. Longer than that nobody can be held back for a gateway that may as well be dead.
//!
//! **A lender that lost its levels begins with empty buckets**, beside what gateways report that they hold. It cannot know
//! who has used how much; a full bucket might be a second burst, and a client that really has a full one waits for what
//! it would have waited for after using it, no longer than `burst / rate`. That is why an unknown client's bucket is taken
//! as empty since `floor`, and not as full: `min(burst, rate × (now − floor))`. The floor is the beginning of this life,
//! unless nobody was ever lent anything before it; and each time that a gateway comes from another lender (`from`), which
//! may be our former life or a control plane that stands in for us, it is now. Tokens that gateways still hold were taken
//! out of the former buckets, so they are noted and not taken off again.

mod bucket;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use tollgate_config::leases::{Answer, Ask, Grant, Question, Slice};

use bucket::{Bucket, Terms};

/// A gateway that was not heard of for so long holds nothing any more, and is none of those that share.
pub const TERM: Duration = Duration::from_secs(10);
/// Gateways are heard of every second. One that missed two of these may be cut off.
const SILENT: Duration = Duration::from_millis(2500);
/// Between two looks at everything: what expired, what is full again.
const SWEEP: Duration = Duration::from_secs(1);

/// Bounds: whoever asks must not fill our memory. A bucket has some 150 bytes, and more for each gateway that holds
/// tokens of it. Clients beyond these share one bucket of their limit.
const MOST_KEYS: usize = 1 << 16;
const MOST_KEYS_IN_ALL: usize = 1 << 18;
const MOST_LIMITS: usize = 1000;
const MOST_GATEWAYS: usize = 1000;

/// Why nothing is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// So many gateways share already.
    Gateways(usize),
    /// So many limits are shared already.
    Limits(usize),
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub questions: u64,
    /// Tokens lent.
    pub lent: u64,
    /// Tokens that came back with their gateways' word, and those of gateways that fell silent.
    pub returned: u64,
    pub expired: u64,
    /// How often a gateway came that another lender had lent to.
    pub arrivals: u64,
}

#[derive(Debug)]
pub struct Lender {
    epoch: String,
    /// Since when unknown buckets fill; `None`: nobody was ever lent anything, so they are full.
    floor: Option<Duration>,
    /// When a gateway of another lender emptied all buckets last.
    emptied: Option<Duration>,
    /// By their instances.
    names: HashMap<Box<str>, u64>,
    gateways: HashMap<u64, Gateway>,
    /// The number of the next gateway; none is used twice.
    next: u64,
    limits: HashMap<Box<str>, Pool>,
    keys: usize,
    swept: Duration,
    pub counts: Counts,
}

#[derive(Debug)]
struct Gateway {
    node: Box<str>,
    instance: Box<str>,
    heard: Duration,
    /// How many gateways it was told of: its share is one of so many.
    told: u32,
}

/// One limit's buckets.
#[derive(Debug)]
struct Pool {
    /// As they were asked for last.
    terms: Terms,
    buckets: HashMap<u64, Bucket>,
    /// Of all who found no room.
    common: Bucket,
}

/// A limit as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitStatus {
    pub limit: String,
    pub rate: String,
    pub burst: u64,
    /// Clients whose buckets are not full.
    pub keys: usize,
    /// Tokens that gateways hold.
    pub held: u64,
}

/// A gateway as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GatewayStatus {
    pub node: String,
    pub instance: String,
    pub silent: bool,
    pub heard_milliseconds_ago: u64,
    pub held: u64,
}

impl Lender {
    /// `epoch` differs from that of every other lender and of every former life. `lent_before`: somebody may hold tokens
    /// of a former life.
    pub fn new(epoch: String, lent_before: bool, now: Duration) -> Self {
        Lender {
            epoch,
            floor: lent_before.then_some(now),
            emptied: None,
            names: HashMap::new(),
            gateways: HashMap::new(),
            next: 0,
            limits: HashMap::new(),
            keys: 0,
            swept: now,
            counts: Counts::default(),
        }
    }

    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Lends. The question keeps to its bounds (`Question::faults`).
    pub fn ask(&mut self, question: &Question, now: Duration) -> Result<Answer, Refusal> {
        if now.saturating_sub(self.swept) >= SWEEP {
            self.sweep(now);
        }
        self.counts.questions += 1;
        let new = |slice: &&Slice| !self.limits.contains_key(slice.limit.as_str());
        if self.limits.len() + question.limits.iter().filter(new).count() > MOST_LIMITS {
            return Err(Refusal::Limits(MOST_LIMITS));
        }
        let known = self.names.get(question.instance.as_str()).copied();
        if known.is_none() && self.gateways.len() >= MOST_GATEWAYS {
            return Err(Refusal::Gateways(MOST_GATEWAYS));
        }
        if { question.from.as_deref() }.is_some_and(|from| from != self.epoch) {
            self.begin_empty(now);
        }
        let number = known.unwrap_or_else(|| {
            let number = self.next;
            self.next += 1;
            self.names.insert(question.instance.as_str().into(), number);
            number
        });
        // One that was there before, too, is told of this one with its next question.
        let count = self.gateways.len() + usize::from(known.is_none());
        let told = u32::try_from(count).unwrap_or(u32::MAX);
        let gateway = self.gateways.entry(number).or_insert_with(|| Gateway {
            node: question.node.as_str().into(),
            instance: question.instance.as_str().into(),
            heard: now,
            told,
        });
        gateway.heard = now;
        gateway.told = told;
        let grants = question.limits.iter();
        Ok(Answer {
            epoch: self.epoch.clone(),
            known: known.is_some(),
            gateways: told,
            grants: grants.map(|slice| self.slice(slice, number, now)).collect(),
        })
    }

    fn slice(&mut self, slice: &Slice, number: u64, now: Duration) -> Vec<Grant> {
        let terms = Terms {
            rate: slice.rate,
            burst: slice.burst,
        };
        let floor = self.floor;
        let fresh = || Bucket::fresh(&terms, floor, now);
        let pool = self
            .limits
            .entry(slice.limit.as_str().into())
            .or_insert_with(|| Pool {
                terms,
                buckets: HashMap::new(),
                common: fresh(),
            });
        pool.terms = terms;
        let (mut keys, gateways, counts) = (self.keys, &self.gateways, &mut self.counts);
        let grants = { slice.asks.iter() }.map(|ask| {
            let room = pool.buckets.len() < MOST_KEYS && keys < MOST_KEYS_IN_ALL;
            let bucket = match pool.buckets.get_mut(&ask.key) {
                Some(_) => pool.buckets.get_mut(&ask.key),
                None if room => {
                    keys += 1;
                    Some(pool.buckets.entry(ask.key).or_insert_with(fresh))
                }
                None => None,
            };
            let bucket = bucket.unwrap_or(&mut pool.common);
            grant(bucket, &terms, ask, number, gateways, now, counts)
        });
        let grants = grants.collect();
        self.keys = keys;
        grants
    }

    /// Somebody holds tokens that another lender lent: what our levels say is not the whole truth.
    fn begin_empty(&mut self, now: Duration) {
        self.counts.arrivals += 1;
        // All gateways come within moments; what came since the first of them is theirs. And it is work for each bucket.
        if { self.emptied }.is_some_and(|then| now.saturating_sub(then) < SWEEP) {
            return;
        }
        self.emptied = Some(now);
        self.floor = Some(now);
        for pool in self.limits.values_mut() {
            let Pool {
                terms,
                buckets,
                common,
            } = pool;
            for bucket in buckets.values_mut().chain([common]) {
                bucket.settle(terms, now, |number| standing(&self.gateways, number, now));
                bucket.empty();
            }
        }
    }

    /// Takes back what expired, and forgets what tells nothing.
    fn sweep(&mut self, now: Duration) {
        self.swept = now;
        let gone = |gateway: &Gateway| now.saturating_sub(gateway.heard) >= TERM;
        let (gateways, mut expired) = (&self.gateways, 0);
        self.keys = 0;
        for pool in self.limits.values_mut() {
            let Pool {
                terms,
                buckets,
                common,
            } = pool;
            for bucket in buckets.values_mut().chain([common]) {
                bucket.settle(terms, now, |number| standing(gateways, number, now));
                let stays = |number| gateways.get(&number).is_some_and(|gateway| !gone(gateway));
                expired += bucket.expire(terms, stays);
            }
            pool.buckets
                .retain(|_, bucket| !bucket.tells_nothing(&pool.terms));
            self.keys += pool.buckets.len();
        }
        self.counts.expired += expired;
        self.gateways.retain(|_, gateway| !gone(gateway));
        self.names
            .retain(|_, number| self.gateways.contains_key(number));
        self.limits
            .retain(|_, pool| !pool.buckets.is_empty() || !pool.common.tells_nothing(&pool.terms));
    }

    /// How it stands, for operators.
    pub fn look(&mut self, now: Duration) -> (Vec<LimitStatus>, Vec<GatewayStatus>) {
        self.sweep(now);
        let mut held: HashMap<u64, u64> = HashMap::new();
        let mut limits: Vec<LimitStatus> = { self.limits.iter() }
            .map(|(name, pool)| {
                let mut sum = 0;
                for (number, tokens) in { pool.buckets.values() }
                    .chain([&pool.common])
                    .flat_map(Bucket::holders)
                {
                    *held.entry(number).or_default() += tokens;
                    sum += tokens;
                }
                LimitStatus {
                    limit: name.to_string(),
                    rate: pool.terms.rate.to_string(),
                    burst: pool.terms.burst,
                    keys: pool.buckets.len(),
                    held: sum,
                }
            })
            .collect();
        limits.sort_unstable_by(|a, b| a.limit.cmp(&b.limit));
        let mut gateways: Vec<GatewayStatus> = { self.gateways.iter() }
            .map(|(number, gateway)| {
                let ago = now.saturating_sub(gateway.heard);
                GatewayStatus {
                    node: gateway.node.to_string(),
                    instance: gateway.instance.to_string(),
                    silent: ago >= SILENT,
                    heard_milliseconds_ago: u64::try_from(ago.as_millis()).unwrap_or(u64::MAX),
                    held: held.get(number).copied().unwrap_or(0),
                }
            })
            .collect();
        gateways.sort_unstable_by(|a, b| (&a.node, &a.instance).cmp(&(&b.node, &b.instance)));
        (limits, gateways)
    }

    /// Limits, clients and gateways.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.limits.len(), self.keys, self.gateways.len())
    }
}

/// Since when a gateway is silent, until when that is taken for being cut off, and how many share. `None`: it is not
/// silent.
fn standing(
    gateways: &HashMap<u64, Gateway>,
    number: u64,
    now: Duration,
) -> Option<(Duration, Duration, u32)> {
    let gateway = gateways.get(&number)?;
    let silent = now.saturating_sub(gateway.heard) >= SILENT;
    silent.then(|| (gateway.heard, now.min(gateway.heard + TERM), gateway.told))
}

fn grant(
    bucket: &mut Bucket,
    terms: &Terms,
    ask: &Ask,
    number: u64,
    gateways: &HashMap<u64, Gateway>,
    now: Duration,
    counts: &mut Counts,
) -> Grant {
    bucket.settle(terms, now, |number| standing(gateways, number, now));
    let (grant, returned) = bucket.ask(terms, ask, number, now);
    counts.lent += grant.tokens;
    counts.returned += returned;
    grant
}
