//! The running world as requests read it: names resolved, patterns compiled, handles in place. Immutable; nothing on
//! the request path parses, looks up by string or allocates to decide.
//!
//! `compile` makes a snapshot from a document and its predecessor, `memory` is what outlives one, `store` is the one
//! pointer that moves.

pub mod compile;
pub mod memory;
pub mod proof;
mod services;
pub mod store;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tollgate_config::{self as config, BreakerGrain, EndpointSource, Item, Learn, Place};

use crate::filter::Chain;
use crate::filter::access::Access;
use crate::filter::jwt::Issuers;
use crate::filter::rate_limit::{Limit, Policies};
use crate::net::tls::{ClientTls, Expected, Held, MemberTls, ServerTls};
use crate::route::{ListenerIndex, RouteId, Table};
use crate::telemetry::metrics::{EdgeSeries, RouteSeries, UpstreamSeries};
use crate::transcode::Transcoders;
use crate::upstream::learning::Names;
use crate::upstream::pace::Pace;
use crate::upstream::pool::Dial;
use crate::upstream::{Guards, RouteGuards, Upstream};

/// One generation of the world.
pub struct Snapshot {
    /// 1 for the first, then one more with every change that was applied.
    pub generation: u64,
    pub hash: String,
    pub since: SystemTime,
    /// By `ListenerIndex`; a listener that is gone leaves a gap.
    pub listeners: Vec<Option<Arc<ListenerPlan>>>,
    /// Shared with every generation in which the same routes matched the same requests.
    pub table: Arc<Table>,
    /// By `RouteId`.
    pub routes: Vec<RoutePlan>,
    /// The ways of bytes that are not HTTP, one for each listener with `forward`; their numbers follow those of routes.
    pub forwards: Vec<RoutePlan>,
    pub upstreams: Vec<Arc<UpstreamPlan>>,
    /// The services that it was made with, for upstreams that are templates.
    pub services: Arc<Names>,
    pub policies: Arc<Policies>,
    pub transcoders: Transcoders,
    pub issuers: Arc<Issuers>,
    /// Which services may call.
    pub access: Arc<Access>,
    /// Who we are in the mesh and whom we trust, where files say so; becomes true when this snapshot serves.
    pub held: Option<Held>,
    /// How our own answers look.
    pub errors: config::ErrorBody,
    /// For requests that no route matched.
    pub unmatched: Arc<RouteSeries>,
    /// Exchanges that run on this generation, counted per worker.
    active: Box<[Active]>,
}

/// Alone on its cache line: written by one worker only.
#[repr(align(128))]
#[derive(Default)]
struct Active(AtomicU64);

/// What holds for one listener; new connections and new requests read it.
pub struct ListenerPlan {
    pub item: Item<config::Listener>,
    pub index: ListenerIndex,
    pub tls: Option<ServerTls>,
    /// Mutual TLS with members of the mesh; never together with `tls`.
    pub mesh: Option<MemberTls>,
    /// Which way bytes go that are not HTTP.
    pub forward: Option<RouteId>,
}

/// A route where it stands in the document today, and its compiled part, shared with every generation in which the
/// route's text was the same.
pub struct RoutePlan {
    pub item: Item<config::Route>,
    pub compiled: Arc<CompiledRoute>,
}

pub struct CompiledRoute {
    pub chain: Chain,
    /// In the order written; one for a plain `upstream`. Then a fallback's upstream, with weight 0, and then, for each of
    /// those that is a template, one for each service.
    pub branches: Vec<Branch>,
    /// How many a request may take at first.
    choices: usize,
    /// Which of the branches that is.
    pub fallback: Option<usize>,
    /// When one of the branches is a template: where its services are.
    pub services: Option<ServiceBranches>,
    /// What is normal for its answers, when the route asks.
    pub pace: Option<Arc<Pace>>,
    /// The time after which an answer is late, when the route hedges.
    pub late: Option<Arc<Pace>>,
    pub total_weight: u32,
    pub series: Arc<RouteSeries>,
}

/// Where a request goes that names a service.
pub struct ServiceBranches {
    pub names: Arc<Names>,
    /// For each branch that is written, if it is a template: the branch of the first service.
    first: Vec<Option<usize>>,
}

pub struct Branch {
    pub upstream: Arc<UpstreamPlan>,
    pub weight: u32,
    /// The upstream's, as far as this route is concerned.
    pub guards: RouteGuards,
}

/// An upstream's settings, how to dial it and what is remembered of it.
pub struct UpstreamPlan {
    pub item: Item<config::Upstream>,
    pub upstream: Arc<Upstream>,
    pub guards: Arc<Guards>,
    pub dial: Dial,
    pub series: Arc<UpstreamSeries>,
    /// Calls from us to the service that it stands for.
    pub edge: Option<OutboundEdge>,
    /// When it was made for a service of a template.
    pub learned: Option<Learned>,
}

/// Who calls whom when an upstream is asked.
pub struct OutboundEdge {
    pub source: Arc<str>,
    pub destination: Arc<str>,
    pub series: Arc<EdgeSeries>,
}

impl ListenerPlan {
    /// Whether members of the mesh call here.
    pub fn is_mesh(&self) -> bool {
        self.item.mesh.value != config::Mesh::Off
    }
}

/// What an upstream was made of.
pub struct Learned {
    pub template: Item<config::Upstream>,
    pub service: Arc<str>,
}

impl UpstreamPlan {
    /// The member of the mesh that its endpoints must be.
    pub fn expected(&self) -> Option<&Expected> {
        self.dial.tls.as_ref().and_then(ClientTls::expected)
    }

    /// How its services are learned, if it is a template.
    pub fn learns(&self) -> Option<&Learn> {
        match &self.item.endpoints {
            EndpointSource::Asked { learn, .. } => Some(learn),
            _ => None,
        }
    }

    /// What has a breaker of its own; where the document says "off", nothing is asked.
    pub fn grain(&self) -> BreakerGrain {
        self.item
            .breaker
            .map(|policy| policy.grain)
            .unwrap_or_default()
    }
}

impl Snapshot {
    pub fn route(&self, id: RouteId) -> &RoutePlan {
        let place = id.0 as usize;
        match place.checked_sub(self.routes.len()) {
            None => &self.routes[place],
            Some(beyond) => &self.forwards[beyond],
        }
    }

    pub fn listener(&self, index: ListenerIndex) -> Option<&Arc<ListenerPlan>> {
        self.listeners.get(index.0 as usize)?.as_ref()
    }

    /// Every rate limit: those with names, the tiers where a route uses them, and the routes' own.
    pub fn limits(&self) -> Vec<&Arc<Limit>> {
        let mut limits: Vec<&Arc<Limit>> = self.policies.limits().collect();
        limits.sort_unstable_by_key(|limit| limit.name());
        let mut known: HashSet<*const Limit> = limits.iter().copied().map(Arc::as_ptr).collect();
        let chains = self.routes.iter().map(|plan| &plan.compiled.chain);
        for limit in chains.flat_map(Chain::limits) {
            if known.insert(Arc::as_ptr(limit)) {
                limits.push(limit);
            }
        }
        limits
    }

    /// Exchanges in flight on this generation.
    pub fn active(&self) -> u64 {
        self.active
            .iter()
            .map(|cell| cell.0.load(Ordering::Relaxed))
            .sum()
    }

    /// One writer per cell, so no locked instruction is needed.
    pub(crate) fn begin(&self, worker: usize) {
        if let Some(Active(cell)) = self.active.get(worker) {
            cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    pub(crate) fn end(&self, worker: usize) {
        if let Some(Active(cell)) = self.active.get(worker) {
            cell.store(
                cell.load(Ordering::Relaxed).saturating_sub(1),
                Ordering::Relaxed,
            );
        }
    }
}

impl CompiledRoute {
    /// The branches that a request may take at first.
    pub fn choices(&self) -> &[Branch] {
        &self.branches[..self.choices]
    }

    /// The branches as they are written, a fallback's included.
    pub fn written(&self) -> &[Branch] {
        &self.branches[..self.fallback.map_or(self.choices, |last| last + 1)]
    }

    /// The branch of a service, if this one is a template: the service at this position.
    pub fn of_service(&self, branch: usize, service: Option<usize>) -> Option<usize> {
        let first = self.services.as_ref()?.first.get(branch)?.as_ref()?;
        Some(first + service?)
    }

    pub fn is_template(&self, branch: usize) -> bool {
        let first = self.services.as_ref().and_then(|all| all.first.get(branch));
        first.is_some_and(Option::is_some)
    }

    /// How the services that its requests name are learned.
    pub fn learns(&self) -> Option<(&UpstreamPlan, &Learn)> {
        let mut written = self.written().iter();
        written.find_map(|branch| Some((&*branch.upstream, branch.upstream.learns()?)))
    }
}

impl RoutePlan {
    /// How long a try may take by what is normal for the route's answers; `None`: they do not decide, or not yet.
    pub fn adaptive_timeout(&self) -> Option<Duration> {
        let pace = self.compiled.pace.as_ref()?;
        pace.timeout(self.item.adaptive_timeout.value?, self.item.timeout.value?)
    }

    /// Where one of the route's settings was written.
    pub fn place(&self, at: config::At) -> Option<Place> {
        self.item.place(at)
    }
}

/// Compiles a document that nothing serves, and proves its tests: for `check` and `explain`.
pub fn of(document: &config::Document) -> Result<Snapshot, config::Problems> {
    let metrics = Arc::new(crate::telemetry::metrics::Metrics::new(1));
    let mut memory = memory::Memory::default();
    if let Some(folder) = &document.server.state_dir {
        memory.reflected = Arc::new(crate::transcode::Reflected::kept_in(folder));
    }
    let snapshot = compile::compile(document, None, &mut memory, &metrics, 1)?;
    proof::prove(document, &snapshot)?;
    Ok(snapshot)
}
