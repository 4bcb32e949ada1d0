//! The five policies: which member of a set a request goes to. All of them look at one or two members first and take
//! them when they are fit, which is the way of nearly every request; only when one is not do they look at everybody.
//! No policy keeps state besides the turn of round robin, reads a clock, or makes chance of its own.
//!
//! Weight decides who is drawn, load and latency decide between two who were. Slow start makes a drawn endpoint yield
//! to somebody else as often as its share says.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tollgate_config::Balance;

use super::latency::INITIAL;
use super::moment::nanoseconds;
use super::set::{Ask, Endpoints, Positions, Table};
use super::tables::{Maglev, mix};

/// How much cheaper the second of two must be to win over the first. Endpoints that are as good as each other so share
/// by weight, instead of one taking all for being a hair faster.
const CLEARLY: f64 = 0.8;
/// So many turns are tried before everybody is looked at.
const SKIPS: usize = 16;

/// The chance and key of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lot<'a> {
    pub(super) key: Option<u64>,
    pub(super) random: u64,
    pub(super) turn: &'a AtomicU64,
}

/// The position of the endpoint for a request; `None` only when the set is empty.
#[inline]
pub(super) fn choose(
    set: &Endpoints,
    balance: &Balance,
    ask: &Ask<'_>,
    lot: Lot<'_>,
) -> Option<usize> {
    match set.len() {
        0 => return None,
        1 => return Some(0),
        _ => {}
    }
    Some(match (balance, &set.table) {
        (Balance::Hash(_), Table::Hash(maglev)) => {
            hash(set, maglev, ask, lot.key.unwrap_or(lot.random))
        }
        (Balance::RoundRobin, Table::Turns(turns)) => take_turns(set, turns, ask, lot),
        (Balance::PeakEwma, _) => two_choices(set, ask, lot.random, cheaper),
        (Balance::LeastRequests, _) => two_choices(set, ask, lot.random, less_loaded),
        // A set is always made for its upstream's policy; chance is right for whatever else.
        _ => random(set, ask, lot.random),
    })
}

/// Says whether the second wins over the first.
type Wins = fn(&Endpoints, usize, usize, &Ask<'_>) -> bool;

fn two_choices(set: &Endpoints, ask: &Ask<'_>, random: u64, second_wins: Wins) -> usize {
    let (mut first, mut second) = set.draw.two(random);
    if !(set.is_fit(first, ask) && set.is_fit(second, ask)) {
        // Fresh chance: what drew the unfit one says too much about who is left.
        let random = mix(!random);
        let best = set.best(ask);
        first = by_weight(set, &best, ask, random);
        let others: Positions = best
            .into_iter()
            .filter(|&position| position as usize != first)
            .collect();
        if others.is_empty() {
            return first;
        }
        second = by_weight(set, &others, ask, mix(random));
    }
    let (first_share, second_share) = (
        set.member(first).share(ask.now),
        set.member(second).share(ask.now),
    );
    if first_share < 1.0 || second_share < 1.0 {
        let random = mix(random.rotate_left(32));
        match (
            yields(first_share, random),
            yields(second_share, mix(random)),
        ) {
            (true, false) => return second,
            (false, true) => return first,
            _ => {}
        }
    }
    if second_wins(set, first, second, ask) {
        second
    } else {
        first
    }
}

fn cheaper(set: &Endpoints, first: usize, second: usize, ask: &Ask<'_>) -> bool {
    let (a, b) = (set.member(first), set.member(second));
    let initial = nanoseconds(INITIAL) as f64;
    // Of an endpoint that never answered we think well, but never worse than of its rival: else it would not be asked
    // at all beside fast ones, and never show what it can do.
    let (a_takes, b_takes) = match (
        a.load.latency.estimate(ask.now),
        b.load.latency.estimate(ask.now),
    ) {
        (Some(a), Some(b)) => (a, b),
        (Some(a), None) => (a, a.min(initial)),
        (None, Some(b)) => (b.min(initial), b),
        (None, None) => (initial, initial),
    };
    b_takes * (1.0 + b.burden()) < a_takes * (1.0 + a.burden()) * CLEARLY
}

fn less_loaded(set: &Endpoints, first: usize, second: usize, _: &Ask<'_>) -> bool {
    set.member(second).burden() < set.member(first).burden()
}

fn take_turns(set: &Endpoints, turns: &[u32], ask: &Ask<'_>, lot: Lot<'_>) -> usize {
    let mut random = lot.random;
    for _ in 0..turns.len().min(SKIPS) {
        // Each skip uses up a turn, so that the others keep their order and share it evenly.
        let turn = lot.turn.fetch_add(1, Relaxed) % turns.len() as u64;
        let position = turns[turn as usize] as usize;
        random = mix(random);
        if set.is_fit(position, ask) && !yields(set.member(position).share(ask.now), random) {
            return position;
        }
    }
    by_weight(set, &set.best(ask), ask, random)
}

fn random(set: &Endpoints, ask: &Ask<'_>, random: u64) -> usize {
    let position = set.draw.one(random);
    if set.is_fit(position, ask) && !yields(set.member(position).share(ask.now), mix(random)) {
        return position;
    }
    by_weight(set, &set.best(ask), ask, mix(!random))
}

fn hash(set: &Endpoints, maglev: &Maglev, ask: &Ask<'_>, key: u64) -> usize {
    let slot = maglev.slot(key);
    // In slow start keys come back one by one, and the same keys on every worker: the key is the chance.
    let stays = |position: usize| !yields(set.member(position).share(ask.now), mix(key));
    if let Some(position) = maglev
        .along(slot)
        .next()
        .filter(|&first| set.is_fit(first, ask) && stays(first))
    {
        return position;
    }
    let mut best = set.best(ask);
    if best.iter().any(|&position| stays(position as usize)) {
        best.retain(|position| stays(*position as usize));
    }
    // Everybody has a place in the table unless there are more endpoints than places.
    let next = maglev
        .along(slot)
        .find(|&position| best.binary_search(&(position as u32)).is_ok());
    next.unwrap_or_else(|| best[(key % best.len() as u64) as usize] as usize)
}

/// One of these, by weight and share. There is at least one: `best` of a set that is not empty.
fn by_weight(set: &Endpoints, positions: &Positions, ask: &Ask<'_>, random: u64) -> usize {
    let weight = |position: u32| {
        let member = set.member(position as usize);
        f64::from(member.weight) * member.share(ask.now)
    };
    let total: f64 = positions.iter().map(|&position| weight(position)).sum();
    let mut left = fraction(random) * total;
    for &position in positions {
        left -= weight(position);
        if left < 0.0 {
            return position as usize;
        }
    }
    // Rounding can leave a hair.
    positions.last().map_or(0, |&position| position as usize)
}

/// Whether an endpoint with this share leaves a request to somebody else.
#[inline]
fn yields(share: f64, random: u64) -> bool {
    share < 1.0 && fraction(random) >= share
}

/// Random bits as a number from 0 to below 1.
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}
