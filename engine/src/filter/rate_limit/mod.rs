//! Refuses what is too much: token buckets per client, route or header value, tiers of API keys, monthly quotas.
//!
//! `Limit` is one limit ready to run; `bucket` and `month` are its arithmetic, `shelf` holds the words of many clients,
//! `who` tells clients apart, `fields` tells the answer, `memory` is what outlives a snapshot, `policies` is made of the
//! document. Nothing here waits, reads a clock or locks what workers share on the way of a known client: `now` and the
//! Unix time come with the caller.

pub mod bucket;
mod fields;
pub(crate) mod lease;
mod leased;
mod memory;
pub mod month;
mod policies;
pub mod shelf;
mod status;
mod who;

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tollgate_config::{At, Item, Place, Route};

pub use lease::{Leases, Standing as LeaseStanding};
pub use memory::{LimitMemory, Meter};
pub use policies::Policies;
pub use status::{LimitStatus, TierStatus};
pub use who::{Seed, client};

use super::{Caller, Notes};
use crate::exchange::error::{Code, Error};
use crate::exchange::{Request, Response};
use crate::moment::Moment;
use crate::route::normal_host;
use crate::telemetry::metrics::LimitSeries;
use bucket::{Pace, Taken};
use fields::{Policy, Standing};
use memory::Months;
use month::Month;
use shelf::{Key, Meaning, Placed};
pub(super) use who::Claim;
use who::Kind;

/// What tells clients apart.
#[derive(Debug)]
enum By {
    ClientIp,
    ApiKey,
    Header(http::HeaderName),
    Route,
    Caller,
    Host,
    Tier,
}

/// One limit, ready to run.
#[derive(Debug)]
pub struct Limit {
    /// As metrics and `/status` call it.
    name: Box<str>,
    by: By,
    meter: Arc<Meter>,
    /// What all its clients share: keys held, keys forgotten.
    series: Arc<LimitSeries>,
    /// By class: one, or one for each tier.
    grades: Vec<Option<Grade>>,
    /// The class of callers without a known key.
    anonymous: u8,
    seed: Seed,
    /// Shared with other gateways: a word is what is leased, not a bucket.
    lease: Option<leased::Lease>,
}

/// How much a client of one class may have.
#[derive(Debug)]
struct Grade {
    /// The limit's name, or the tier's.
    name: Box<str>,
    pace: Pace,
    policy: Policy,
    /// Requests in a month.
    quota: Option<(u64, Policy)>,
    series: Arc<LimitSeries>,
    rate: Governing,
    quota_at: Governing,
}

/// The setting behind a refusal.
#[derive(Debug)]
struct Governing {
    setting: &'static str,
    value: Box<str>,
    place: Standpoint,
}

#[derive(Debug)]
enum Standpoint {
    Fixed(Option<Place>),
    /// In the route, wherever that stands today.
    Route(At),
}

/// What one limit said to a request; kept until the answer is told.
#[derive(Debug)]
pub(super) struct Said {
    /// Which of the chain's filters.
    filter: usize,
    class: u8,
    taken: Taken,
    /// What is left of a month's quota.
    left: Option<u64>,
    over_quota: bool,
}

/// At most two limits are usual: one of the client, one of the route.
pub(super) type AllSaid = SmallVec<[Said; 2]>;

/// The words of a limit's shelf are buckets.
struct Buckets<'a> {
    limit: &'a Limit,
    now: Moment,
}

impl Meaning for Buckets<'_> {
    fn fresh(&self, class: u8) -> u64 {
        self.limit
            .grade(class)
            .map_or(0, |grade| grade.pace.full(self.now))
    }

    fn worth(&self, word: u64, class: u8) -> u64 {
        self.limit
            .grade(class)
            .map_or(0, |grade| grade.pace.until_full(word, self.now))
    }
}

impl Limit {
    fn grade(&self, class: u8) -> Option<&Grade> {
        self.grades.get(usize::from(class))?.as_ref()
    }

    /// Takes a token for this request, or says why there is none. `filter`: this limit's place in the chain.
    pub(super) fn ask(
        &self,
        filter: usize,
        request: &Request,
        caller: &Caller<'_>,
        notes: &mut Notes,
        route: &Item<Route>,
    ) -> Result<(), Error> {
        let key = self.key(request, caller, notes, route);
        let class = key.class();
        // Every class that a key can have was compiled with the keys.
        let Some(grade) = self.grade(class) else {
            return Ok(());
        };
        if let Some(lease) = &self.lease {
            let taken = self.ask_leased(lease, grade, key);
            notes.said.push(Said {
                filter,
                class,
                taken,
                left: None,
                over_quota: false,
            });
            if !taken.admitted {
                grade.series.refused(caller.worker);
                return Err(grade.refusal(taken, route));
            }
            grade.series.admitted(caller.worker);
            return Ok(());
        }
        let now = Moment::from(caller.now);
        let month = Month::of(caller.unix);
        let quota = grade.quota.as_ref().map(|(quota, _)| *quota);
        if let Some(quota) = quota {
            let used = self
                .meter
                .months
                .read(key)
                .map_or(0, |word| month::count(word, month));
            if used >= quota {
                let bucket = self.meter.buckets.read(key);
                let untouched = grade
                    .pace
                    .look(bucket.unwrap_or_else(|| grade.pace.full(now)), now);
                notes.said.push(Said {
                    filter,
                    class,
                    taken: untouched,
                    left: Some(0),
                    over_quota: true,
                });
                grade.series.over_quota(caller.worker);
                return Err(grade.over_quota(month, caller.unix, route));
            }
        }
        let meaning = Buckets { limit: self, now };
        let (taken, placed) = self
            .meter
            .buckets
            .change(key, &meaning, |word| grade.pace.take(word, now));
        self.note(placed);
        let mut said = Said {
            filter,
            class,
            taken,
            left: None,
            over_quota: false,
        };
        if !taken.admitted {
            said.left = quota.map(|quota| {
                let word = self.meter.months.read(key);
                quota.saturating_sub(word.map_or(0, |word| month::count(word, month)))
            });
            notes.said.push(said);
            grade.series.refused(caller.worker);
            return Err(grade.refusal(taken, route));
        }
        if let Some(quota) = quota {
            let (left, placed) = self.meter.months.change(key, &Months(month), |word| {
                match month::add(word, month, quota) {
                    Some(next) => (Some(next), Some(quota - month::count(next, month))),
                    None => (None, None),
                }
            });
            self.note(match placed {
                // The bucket's place was counted; a month's is beside it.
                Placed::New => Placed::Known,
                other => other,
            });
            said.left = Some(left.unwrap_or(0));
            if left.is_none() {
                said.over_quota = true;
                notes.said.push(said);
                grade.series.over_quota(caller.worker);
                return Err(grade.over_quota(month, caller.unix, route));
            }
        }
        notes.said.push(said);
        grade.series.admitted(caller.worker);
        Ok(())
    }

    fn note(&self, placed: Placed) {
        match placed {
            Placed::Known => {}
            Placed::New => self.series.holds(self.meter.buckets.len() as u64),
            Placed::Instead => self.series.forgot(),
            Placed::Common => self.series.shared(),
        }
    }

    fn key(
        &self,
        request: &Request,
        caller: &Caller<'_>,
        notes: &mut Notes,
        route: &Item<Route>,
    ) -> Key {
        let mut address = || {
            let address = *notes
                .client
                .get_or_insert_with(|| client(caller.peer, &request.headers, caller.trusted));
            self.seed.address(address)
        };
        match &self.by {
            By::ClientIp => address(),
            By::Header(name) => match request.headers.get(name) {
                Some(value) => self.seed.key(Kind::Header, value.as_bytes()),
                None => self.seed.key(Kind::NoHeader, b""),
            },
            By::Route => self.seed.key(Kind::Route, route.name.as_bytes()),
            By::Caller => match caller.member {
                Some(member) => self.seed.key(Kind::Caller, member.as_str().as_bytes()),
                None => self.seed.key(Kind::NoCaller, b""),
            },
            By::Host => {
                let host = normal_host(&request.authority);
                self.seed.key(Kind::Host, host.as_bytes())
            }
            By::ApiKey => match notes.claim {
                Claim::Known(_, shared) if self.lease.is_some() => shared,
                Claim::Known(key, _) => key.in_class(0),
                Claim::Absent | Claim::Unknown => address(),
            },
            By::Tier => match notes.claim {
                Claim::Known(key, _) => key,
                Claim::Absent | Claim::Unknown => address().in_class(self.anonymous),
            },
        }
    }

    /// Whether it has to know the caller's key.
    pub(super) fn needs_claim(&self) -> bool {
        matches!(self.by, By::ApiKey | By::Tier)
    }

    /// What this limit said, for the answer.
    fn standings<'a>(&'a self, said: &Said, unix: u64, to: &mut SmallVec<[Standing<'a>; 4]>) {
        let Some(grade) = self.grade(said.class) else {
            return;
        };
        to.push(Standing {
            policy: &grade.policy,
            remaining: said.taken.remaining(),
            reset: grade.pace.until_all(said.taken),
            refused: !said.taken.admitted && !said.over_quota,
        });
        if let (Some((_, policy)), Some(left)) = (&grade.quota, said.left) {
            let ends = Month::of(unix).next().begins();
            to.push(Standing {
                policy,
                remaining: left,
                reset: Duration::from_secs(ends.saturating_sub(unix)),
                refused: said.over_quota,
            });
        }
    }

    /// Lets full buckets leave, and tells the others anew, so that no stamp grows old. On the control thread, far more
    /// often than a stamp comes round.
    pub fn sweep(&self, now: Instant) {
        if self.lease.is_some() {
            // Whoever leases looks after it.
            return self.series.holds(self.meter.buckets.len() as u64);
        }
        let now = Moment::from(now);
        self.meter.buckets.sweep(|word, class| {
            let grade = self.grade(class)?;
            (grade.pace.until_full(word, now) > 0).then(|| grade.pace.refreshed(word, now))
        });
        self.series.holds(self.meter.buckets.len() as u64);
    }
}

impl Grade {
    fn refusal(&self, taken: Taken, route: &Item<Route>) -> Error {
        Error {
            retry_after: Some(self.pace.until_one(taken)),
            limit: Some(self.name.clone()),
            ..self.rate.error(Code::RateLimited, route)
        }
    }

    fn over_quota(&self, month: Month, unix: u64, route: &Item<Route>) -> Error {
        let left = month.next().begins().saturating_sub(unix);
        Error {
            retry_after: Some(Duration::from_secs(left)),
            limit: Some(self.name.clone()),
            ..self.quota_at.error(Code::QuotaExceeded, route)
        }
    }
}

impl Governing {
    fn error(&self, code: Code, route: &Item<Route>) -> Error {
        let place = match &self.place {
            Standpoint::Fixed(place) => place.clone(),
            Standpoint::Route(at) => route.place(*at),
        };
        Error::governed_by(code, self.setting, self.value.to_string(), place)
    }
}

/// Tells the answer what every limit said.
pub(super) fn tell<'a>(
    said: &AllSaid,
    limit: impl Fn(usize) -> Option<&'a Limit>,
    unix: u64,
    response: &mut Response,
) {
    let mut standings = SmallVec::new();
    for one in said {
        if let Some(limit) = limit(one.filter) {
            limit.standings(one, unix, &mut standings);
        }
    }
    fields::write(&mut response.headers, &standings, unix);
}
