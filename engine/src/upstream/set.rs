//! The endpoints of an upstream at one time: immutable, with what the balance policy looks up, replaced as a whole when
//! discovery or a reload finds others. Knows who may be asked now, and is the one place that takes an endpoint out of
//! service for its answers, because only the set knows how many are out already.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use smallvec::SmallVec;
use tollgate_config::Balance;

use super::endpoint::Endpoint;
use super::moment::Moment;
use super::tables::{Draw, Maglev, stripes};
use super::window::Counts;

/// An immutable set of endpoints.
#[derive(Debug)]
pub struct Endpoints {
    members: Vec<Member>,
    pub(super) draw: Draw,
    pub(super) table: Table,
    /// Held while one endpoint is ejected, so that two workers together do not eject too many. Never waited for.
    ejecting: Mutex<()>,
}

/// An endpoint with the weight it had when the set was made.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) weight: u32,
    /// Weight over the mean weight of the set.
    relative: f64,
}

/// What a policy needs besides drawing.
#[derive(Debug)]
pub(super) enum Table {
    None,
    Turns(Vec<u32>),
    Hash(Maglev),
}

/// What one pick wants to know of the members.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) tried: &'a [u32],
    pub(super) now: Moment,
    /// Failures in a row that eject; `u32::MAX` when outlier detection is off.
    pub(super) eject_after: u32,
    /// How an endpoint may differ from the others; `None`: they are not compared.
    pub(super) deviation: Option<Deviation>,
    /// Counts ejections.
    pub(super) ejections: &'a AtomicU64,
}

/// When an endpoint fails so much more often than the others that it is ejected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deviation {
    /// Its share of failures less theirs.
    pub(super) share: f64,
    /// Fewer requests say nothing about an endpoint.
    pub(super) volume: u64,
}

/// Of fewer than two others one cannot tell who is the odd one.
const OTHERS: usize = 2;

/// Positions of the members that may be asked, ascending.
pub(super) type Positions = SmallVec<[u32; 32]>;

impl Endpoints {
    /// Of two that are the same endpoint the first counts. Weight 0 means drained: such an endpoint is left out,
    /// unless all are.
    pub(super) fn new(endpoints: Vec<Arc<Endpoint>>, balance: &Balance) -> Self {
        let mut members: Vec<Member> = Vec::with_capacity(endpoints.len());
        let mut seen = std::collections::HashSet::new();
        let all_drained = endpoints.iter().all(|endpoint| endpoint.weight() == 0);
        for endpoint in endpoints {
            let weight = if all_drained { 1 } else { endpoint.weight() };
            if weight > 0 && seen.insert(endpoint.id()) {
                endpoint.enter_set();
                members.push(Member {
                    endpoint,
                    weight,
                    relative: 1.0,
                });
            }
        }
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        let mean = weights.iter().map(|&weight| f64::from(weight)).sum::<f64>()
            / weights.len().max(1) as f64;
        for member in &mut members {
            member.relative = f64::from(member.weight) / mean;
        }
        let table = match balance {
            Balance::RoundRobin => Table::Turns(stripes(&weights)),
            Balance::Hash(_) => {
                let names: Vec<String> = members
                    .iter()
                    .map(|member| member.endpoint.address().to_string())
                    .collect();
                Table::Hash(Maglev::new(&names, &weights))
            }
            Balance::PeakEwma | Balance::LeastRequests | Balance::Random => Table::None,
        };
        Endpoints {
            members,
            draw: Draw::new(&weights),
            table,
            ejecting: Mutex::new(()),
        }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.members.iter().map(|member| &member.endpoint)
    }

    pub fn contains(&self, endpoint: &Endpoint) -> bool {
        self.iter().any(|known| known.id() == endpoint.id())
    }

    pub(super) fn member(&self, position: usize) -> &Member {
        &self.members[position]
    }

    /// Healthy and not tried yet.
    #[inline]
    pub(super) fn is_fit(&self, position: usize, ask: &Ask<'_>) -> bool {
        let endpoint = &self.members[position].endpoint;
        !ask.tried.contains(&endpoint.id()) && self.is_available(endpoint, ask)
    }

    #[inline]
    fn is_available(&self, endpoint: &Endpoint, ask: &Ask<'_>) -> bool {
        if endpoint.evidence.failures_in_a_row() >= ask.eject_after {
            self.consider_ejecting(endpoint, ask);
        } else if endpoint.evidence.is_suspected() {
            self.compare(endpoint, ask);
        }
        endpoint.is_available(ask.now)
    }

    /// Everyone of the best kind there is: healthy ones before unhealthy ones, then those not tried before those
    /// tried. Our opinions order endpoints; they never make a request fail that an endpoint might have answered.
    #[cold]
    pub(super) fn best(&self, ask: &Ask<'_>) -> Positions {
        let mut best = u8::MAX;
        let mut positions = Positions::new();
        for (position, Member { endpoint, .. }) in self.members.iter().enumerate() {
            let kind = u8::from(!self.is_available(endpoint, ask)) * 2
                + u8::from(ask.tried.contains(&endpoint.id()));
            if kind < best {
                best = kind;
                positions.clear();
            }
            if kind == best {
                positions.push(position as u32);
            }
        }
        positions
    }

    /// Ejects an endpoint that failed too often in a row, unless half of the set would then be missing too much: of
    /// one none, of two and three one may be out, whether ejected or failed by probes.
    #[cold]
    fn consider_ejecting(&self, endpoint: &Endpoint, ask: &Ask<'_>) {
        let Ok(_alone) = self.ejecting.try_lock() else {
            return;
        };
        if endpoint.evidence.failures_in_a_row() < ask.eject_after {
            return;
        }
        if !self.eject(endpoint, ask) {
            endpoint.stay(ask.now);
        }
    }

    /// Ejects an endpoint of whose latest requests many more failed than of the others'. With the share of the others as
    /// the measure, what fails everywhere ejects nobody, and it works with three endpoints, where no one can be further
    /// than 1.2 standard deviations from the mean.
    #[cold]
    fn compare(&self, endpoint: &Endpoint, ask: &Ask<'_>) {
        let Ok(_alone) = self.ejecting.try_lock() else {
            return;
        };
        endpoint.evidence.compared();
        let Some(Deviation { share, volume }) = ask.deviation else {
            return;
        };
        let own = endpoint.latest(volume, ask.now);
        if own.finished < volume || own.share() < share {
            return;
        }
        let mut others = Counts::default();
        let mut heard = 0;
        for other in self.iter().filter(|other| other.id() != endpoint.id()) {
            let counts = other.latest(volume, ask.now);
            if counts.finished >= volume && other.is_available(ask.now) {
                others = others.plus(counts);
                heard += 1;
            }
        }
        if heard >= OTHERS && own.share() - others.share() >= share {
            self.eject(endpoint, ask);
        }
    }

    /// Unless too many are out already. The caller holds `ejecting`.
    fn eject(&self, endpoint: &Endpoint, ask: &Ask<'_>) -> bool {
        let out = self
            .iter()
            .filter(|other| !other.is_available(ask.now))
            .count();
        let may = endpoint.is_available(ask.now) && out < self.len() / 2;
        if may {
            endpoint.eject(ask.now);
            ask.ejections.fetch_add(1, Relaxed);
        }
        may
    }
}

impl Deref for Member {
    type Target = Endpoint;
    fn deref(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Member {
    /// Requests under way per unit of weight; 0 for an idle one.
    #[inline]
    pub(super) fn burden(&self) -> f64 {
        f64::from(self.in_flight()) / self.relative
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        for member in &self.members {
            member.endpoint.leave_set();
        }
    }
}
