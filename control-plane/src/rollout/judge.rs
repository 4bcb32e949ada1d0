//! Is a revision worse than the one before it? Compares what the nodes with the revision served with what the same nodes
//! served before, and with what the other nodes served meanwhile. Pure.
//!
//! Worse is what is larger by a margin that a person chose, *and* larger than chance explains, *and* worse than both
//! comparisons, where both have something to say: what went wrong everywhere is not the revision's doing, and neither is
//! what was always so on these nodes. How much chance explains: the log of how much likelier the counts are with two
//! shares than with one (for one comparison, chance exceeds x with a probability below e^-x / 2). As many comparisons are made
//! as routes, figures and looks, so x is the log of their number times a thousand: of a thousand good rollouts about one is taken back,
//! if requests fail independently; bursts are met by asking for more evidence after the first (`Rollout`).

#[cfg(test)]
mod tests;

use std::fmt;

use tollgate_config::control_plane::Rollout as Settings;
use tollgate_config::feed::{LATENCIES, Tally};

use crate::figures::Sums;

/// Looks at one stage that count as different.
const LOOKS: f64 = 64.0;
/// One of so many good rollouts may be taken back.
const ONE_OF: f64 = 1000.0;
/// Besides the margin in points: by this share of what it was.
const RELATIVE: f64 = 0.2;
/// Fewer requests are compared with nothing, and nothing with them.
const LEAST: u64 = 20;
/// How sure the second look must be: chance exceeds it in one of 300.
const CONFIRMED: f64 = 5.0;
/// So large a share needs no second look, while others do better.
const DRASTIC: f64 = 0.5;
/// Besides the slow ones: all of them together are slower by this share.
const SLOWER: f64 = 1.2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Figure {
    Errors,
    Refusals,
    Slow,
}

impl Figure {
    const ALL: [Figure; 3] = [Figure::Errors, Figure::Refusals, Figure::Slow];

    fn words(self) -> &'static str {
        match self {
            Figure::Errors => "answers of 500 and above",
            Figure::Refusals => "answers from 400 to 498",
            Figure::Slow => "slow answers",
        }
    }
}

/// One thing that is worse.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) figure: Figure,
    /// `None` = all requests.
    pub(super) route: Option<String>,
    pub(super) bad: u64,
    pub(super) requests: u64,
    /// The share that the second look must find, too.
    pub(super) bar: f64,
    pub(super) drastic: bool,
    /// How many of how many.
    before: Option<(u64, u64)>,
    others: Option<(u64, u64)>,
    /// Of slow answers: longer than this, in microseconds.
    bound: Option<u64>,
    means: Option<(u64, u64)>,
}

impl Finding {
    /// Nobody without the revision is there to compare with.
    pub(super) fn is_alone(&self) -> bool {
        self.others.is_none()
    }

    /// Whether what came later, by itself, says the same.
    pub(super) fn is_confirmed_by(&self, bad: u64, requests: u64) -> bool {
        let sure = [self.before, self.others].into_iter().flatten();
        let sure = sure.map(|(was, of)| excess((bad, requests), (was, of)));
        bad as f64 / requests as f64 >= self.bar && sure.fold(f64::INFINITY, f64::min) >= CONFIRMED
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.figure.words())?;
        if let Some(bound) = self.bound {
            write!(f, " (over {} ms)", bound / 1000)?;
        }
        match &self.route {
            Some(route) if route == "none" => write!(f, " where no route matched")?,
            Some(route) => write!(f, " on route `{route}`")?,
            None => write!(f, " on all routes together")?,
        }
        let percent = |(bad, requests)| percent(bad, requests);
        let now = (self.bad, self.requests);
        write!(f, ": {} of {} requests", percent(now), self.requests)?;
        if let Some(before) = self.before {
            write!(f, ", before {} of {}", percent(before), before.1)?;
        }
        if let Some(others) = self.others {
            write!(
                f,
                ", on the other nodes {} of {}",
                percent(others),
                others.1
            )?;
        }
        if let Some((new, old)) = self.means {
            let millis = |micros: u64| micros as f64 / 1000.0;
            write!(
                f,
                "; on average {:.1} ms, was {:.1} ms",
                millis(new),
                millis(old)
            )?;
        }
        Ok(())
    }
}

fn percent(bad: u64, requests: u64) -> String {
    match bad as f64 / requests.max(1) as f64 * 100.0 {
        0.0 => "0 %".to_owned(),
        small if small < 1.0 => format!("{small:.2} %"),
        large => format!("{large:.1} %"),
    }
}

/// Everything that is worse, the surest first.
pub(super) fn judge(new: &Sums, before: &Sums, others: &Sums, settings: &Settings) -> Vec<Finding> {
    let routes = new.routes.iter();
    let judged = routes.filter(|(_, tally)| tally.requests >= LEAST).count() + 1;
    let surely = (judged as f64 * Figure::ALL.len() as f64 * LOOKS * ONE_OF).ln();
    let mut found: Vec<(f64, Finding)> = Vec::new();
    for figure in Figure::ALL {
        for (route, tally) in &new.routes {
            let known = |sums: &Sums| sums.routes.get(route).cloned();
            let (mut before_route, mut others_route) = (known(before), known(others));
            // A route that nobody had: compared with all that there was.
            if !{ [&before_route, &others_route] }
                .into_iter()
                .any(is_enough)
                && figure != Figure::Slow
            {
                (before_route, others_route) = (Some(before.total.clone()), None);
                if !is_enough(&before_route) {
                    before_route = Some(others.total.clone());
                }
            }
            let compared = Compared {
                figure,
                new: tally,
                before: before_route,
                others: others_route,
                settings,
                surely,
            };
            found.extend(compared.finding(Some(route)));
        }
        let compared = Compared {
            figure,
            new: &new.total,
            before: Some(before.total.clone()),
            others: Some(others.total.clone()),
            settings,
            surely,
        };
        found.extend(compared.finding(None));
    }
    found.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    found.into_iter().map(|(_, finding)| finding).collect()
}

fn is_enough(tally: &Option<Tally>) -> bool {
    tally.as_ref().is_some_and(|tally| tally.requests >= LEAST)
}

struct Compared<'a> {
    figure: Figure,
    new: &'a Tally,
    before: Option<Tally>,
    others: Option<Tally>,
    settings: &'a Settings,
    surely: f64,
}

impl Compared<'_> {
    /// With how sure it is.
    fn finding(self, route: Option<&String>) -> Option<(f64, Finding)> {
        let requests = self.new.requests;
        if requests < LEAST {
            return None;
        }
        let enough = |tally: &&Tally| tally.requests >= LEAST;
        let before = self.before.as_ref().filter(enough);
        let others = self.others.as_ref().filter(enough);
        // Beside a strong comparison a weak one has no say.
        let count_of = |tally: Option<&Tally>| tally.map_or(0, |tally| tally.requests);
        let most = count_of(before).max(count_of(others)).min(requests);
        let strong = |tally: &&Tally| tally.requests >= most / 10;
        let (before, others) = (before.filter(strong), others.filter(strong));
        let mut all = Tally::default();
        { before.iter().chain(others.iter()) }.for_each(|tally| all.add(tally));
        let slow = self.figure == Figure::Slow;
        let bound = match slow {
            true => Some(bound(&all)?),
            false => None,
        };
        let bad = count(self.new, self.figure, bound);
        let margin = match self.figure {
            Figure::Errors => self.settings.error_rise,
            Figure::Refusals => self.settings.refusal_rise,
            Figure::Slow => self.settings.slow_rise,
        };
        let share = bad as f64 / requests as f64;
        let mut bar: f64 = 0.0;
        let mut sure = f64::INFINITY;
        for tally in [before, others].into_iter().flatten() {
            let was = count(tally, self.figure, bound);
            let share_was = was as f64 / tally.requests as f64;
            bar = bar.max(share_was + margin.max(share_was * RELATIVE));
            sure = sure.min(excess((bad, requests), (was, tally.requests)));
        }
        if all.requests == 0 {
            // Nothing to compare with: only what cannot be right is wrong.
            if self.figure != Figure::Errors || share < DRASTIC {
                return None;
            }
            (bar, sure) = (DRASTIC, self.surely);
        }
        if share < bar || sure < self.surely || bad == 0 {
            return None;
        }
        let means = match (slow, self.new.mean(), all.mean()) {
            (false, ..) => None,
            (true, Some(new), Some(old)) => {
                let (new, old) = (new.as_micros() as u64, old.as_micros() as u64);
                // Just beyond a bound that most were just below is not slower.
                if (new as f64) < old as f64 * SLOWER {
                    return None;
                }
                Some((new, old))
            }
            (true, ..) => return None,
        };
        let shown = |tally: &Tally| (count(tally, self.figure, bound), tally.requests);
        let finding = Finding {
            figure: self.figure,
            route: route.cloned(),
            bad,
            requests,
            bar,
            // Alone, it may be everybody's burst.
            drastic: share >= DRASTIC && self.figure == Figure::Errors && others.is_some(),
            before: before.map(shown),
            others: others.map(shown),
            bound: bound.and_then(|bound| LATENCIES.get(bound).copied()),
            means,
        };
        Some((sure, finding))
    }
}

fn count(tally: &Tally, figure: Figure, bound: Option<usize>) -> u64 {
    let bad = match figure {
        Figure::Errors => tally.errors,
        Figure::Refusals => tally.refused,
        Figure::Slow => bound.map_or(0, |bound| tally.slower_than(bound)),
    };
    bad.min(tally.requests)
}

/// The smallest bound that 95 of 100 did not exceed.
fn bound(tally: &Tally) -> Option<usize> {
    if tally.requests == 0 {
        return None;
    }
    let few = tally.requests as f64 * 0.05;
    (0..LATENCIES.len()).find(|bound| tally.slower_than(*bound) as f64 <= few)
}

/// How much likelier `a` of `of_a` and `b` of `of_b` are with a share each than with one share for both, as a logarithm;
/// 0 unless the share of `a` is the larger one.
fn excess((a, of_a): (u64, u64), (b, of_b): (u64, u64)) -> f64 {
    let (a, of_a, b, of_b) = (a as f64, of_a as f64, b as f64, of_b as f64);
    let both = (a + b) / (of_a + of_b);
    if a / of_a <= b / of_b {
        return 0.0;
    }
    of_a * divergence(a / of_a, both) + of_b * divergence(b / of_b, both)
}

/// Of two shares, in nats.
fn divergence(share: f64, from: f64) -> f64 {
    let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    part(share, from) + part(1.0 - share, 1.0 - from)
}
