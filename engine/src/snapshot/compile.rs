//! A document and the snapshot before it become the next snapshot, or every reason why not. No I/O but reading the
//! certificates a document names; starts nothing. What did not change is taken over by pointer: at thousands of routes
//! the cost of changing one is that of one, plus building the table anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use foldhash::fast::RandomState;
use tollgate_config::{
    self as config, Action, Document, Item, Problem, Problems, UpstreamProtocol,
};

use super::memory::Memory;
use super::{Branch, CompiledRoute, ListenerPlan, RoutePlan, Snapshot, UpstreamPlan};
use crate::filter::rate_limit::Policies;
use crate::filter::{Chain, Surroundings};
use crate::net::tls::{ClientTls, ServerTls, TlsError};
use crate::route::{RouteId, Table};
use crate::telemetry::metrics::Metrics;
use crate::upstream::Upstream;
use crate::upstream::discovery::Source;
use crate::upstream::pool::Dial;

/// Upstreams by name: documents are ours to trust, so the quick hash will do.
type ByName<'d> = HashMap<&'d str, Arc<UpstreamPlan>, RandomState>;

/// Compiles. `workers`: how many count exchanges.
pub fn compile(
    document: &Document,
    former: Option<&Snapshot>,
    memory: &mut Memory,
    metrics: &Arc<Metrics>,
    workers: usize,
) -> Result<Snapshot, Problems> {
    let mut problems = Vec::new();
    let mut listeners: Vec<Option<Arc<ListenerPlan>>> = Vec::new();
    for item in &document.listeners {
        let index = memory.listener(&item.name);
        let before = former.and_then(|former| former.listener(index));
        match listener_tls(item, before) {
            Ok(tls) => {
                let position = index.0 as usize;
                if listeners.len() <= position {
                    listeners.resize_with(position + 1, || None);
                }
                listeners[position] = Some(Arc::new(ListenerPlan {
                    item: item.clone(),
                    index,
                    tls,
                }));
            }
            Err(error) => problems.push(tls_problem(
                item.begins(),
                &format!("listener {}", item.name),
                &error,
            )),
        }
    }
    let mut upstreams = Vec::with_capacity(document.upstreams.len());
    let mut by_name: ByName<'_> =
        HashMap::with_capacity_and_hasher(document.upstreams.len(), Default::default());
    let formerly: HashMap<&str, &Arc<UpstreamPlan>, RandomState> = former
        .into_iter()
        .flat_map(|former| &former.upstreams)
        .map(|plan| (plan.item.name.as_str(), plan))
        .collect();
    for item in &document.upstreams {
        let before = formerly.get(item.name.as_str()).copied();
        match upstream(item, before, memory, metrics) {
            Ok(plan) => {
                by_name.insert(&item.value.name, plan.clone());
                upstreams.push(plan);
            }
            Err(error) => problems.push(tls_problem(
                item.begins(),
                &format!("upstream {}", item.name),
                &error,
            )),
        }
    }
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let policies = Policies::compile(
        document,
        former.map(|former| &former.policies),
        &memory.limits,
        metrics,
    );
    let known: HashMap<*const config::Route, &RoutePlan, RandomState> = former
        .into_iter()
        .flat_map(|former| &former.routes)
        .map(|plan| (Arc::as_ptr(&plan.item.value), plan))
        .collect();
    let mut routes = Vec::with_capacity(document.routes.len());
    for item in &document.routes {
        let before = known.get(&Arc::as_ptr(&item.value));
        let compiled = match before.filter(|plan| is_current(&plan.compiled, &by_name, &policies)) {
            Some(plan) => plan.compiled.clone(),
            None => {
                let surroundings = Surroundings {
                    policies: &policies,
                    memory: &memory.limits,
                    metrics,
                };
                Arc::new(route(item, &by_name, &surroundings))
            }
        };
        routes.push(RoutePlan {
            item: item.clone(),
            compiled,
        });
    }
    let matches = routes.iter().enumerate().map(|(id, plan)| {
        (
            RouteId(u32::try_from(id).unwrap_or(u32::MAX)),
            &plan.item.matches,
        )
    });
    let table = Table::build(matches, memory.listeners());
    Ok(Snapshot {
        generation: former.map_or(1, |former| former.generation + 1),
        hash: document.hash.clone(),
        since: SystemTime::now(),
        listeners,
        table,
        routes,
        upstreams,
        policies,
        unmatched: metrics.route("none", &[]),
        active: (0..workers).map(|_| super::Active::default()).collect(),
    })
}

/// Whether everything a compiled route points to is still what the names mean.
fn is_current(compiled: &CompiledRoute, by_name: &ByName<'_>, policies: &Arc<Policies>) -> bool {
    let branches = compiled.branches.iter().all(|branch| {
        by_name
            .get(branch.upstream.item.name.as_str())
            .is_some_and(|plan| Arc::ptr_eq(plan, &branch.upstream))
    });
    branches && compiled.chain.is_current(policies)
}

fn route(
    item: &Item<config::Route>,
    by_name: &ByName<'_>,
    surroundings: &Surroundings<'_>,
) -> CompiledRoute {
    let branch = |name: &str, weight| {
        by_name.get(name).map(|upstream| Branch {
            upstream: upstream.clone(),
            weight,
        })
    };
    let branches: Vec<Branch> = match &item.action {
        Action::Upstream(name) => branch(name, 1).into_iter().collect(),
        Action::Split { branches, .. } => branches
            .iter()
            .filter_map(|one| branch(&one.upstream, one.weight))
            .collect(),
        Action::Respond { .. } | Action::Redirect { .. } => Vec::new(),
    };
    let names: Vec<&str> = branches
        .iter()
        .map(|branch| branch.upstream.item.name.as_str())
        .collect();
    CompiledRoute {
        chain: Chain::compile(item, surroundings),
        total_weight: branches
            .iter()
            .map(|branch| branch.weight)
            .sum::<u32>()
            .max(1),
        series: surroundings.metrics.route(&item.name, &names),
        branches,
    }
}

fn listener_tls(
    item: &Item<config::Listener>,
    before: Option<&Arc<ListenerPlan>>,
) -> Result<Option<ServerTls>, TlsError> {
    let Some(tls) = &item.tls else {
        return Ok(None);
    };
    match before.and_then(|before| before.tls.as_ref()) {
        Some(before) => ServerTls::reload(before, tls, item.protocol).map(Some),
        None => ServerTls::load(tls, item.protocol).map(Some),
    }
}

fn upstream(
    item: &Item<config::Upstream>,
    before: Option<&Arc<UpstreamPlan>>,
    memory: &Memory,
    metrics: &Metrics,
) -> Result<Arc<UpstreamPlan>, TlsError> {
    if let Some(before) = before
        && Arc::ptr_eq(&before.item.value, &item.value)
        && before.item.line == item.line
        && item.tls.is_none()
    {
        return Ok(before.clone());
    }
    let tls = match (
        &item.tls,
        before.and_then(|before| before.dial.tls.as_ref()),
    ) {
        (None, _) => None,
        (Some(tls), Some(before)) => Some(ClientTls::reload(before, tls, item.protocol)?),
        (Some(tls), None) => Some(ClientTls::load(tls, item.protocol)?),
    };
    let identity = item
        .tls
        .as_ref()
        .map(|tls| tls.name.as_deref().unwrap_or("*"));
    let known =
        |one: crate::upstream::Resolved| memory.endpoints.endpoint(&item.name, identity, &one);
    let endpoints = match (
        Source::new(&item.endpoints)
            .ok()
            .and_then(|source| source.fixed()),
        before,
    ) {
        (Some(addresses), _) => addresses.into_iter().map(known).collect(),
        // What discovery found last is good until it finds again.
        (None, Some(before)) => before.upstream.endpoints().iter().cloned().collect(),
        (None, None) => Vec::new(),
    };
    let series = metrics.upstream(&item.name);
    Ok(Arc::new(UpstreamPlan {
        upstream: Arc::new(Upstream::new(
            item.clone(),
            0,
            endpoints,
            before.map(|before| &*before.upstream),
            Instant::now(),
        )),
        dial: Dial {
            tls,
            http2: match (item.protocol, item.tls.is_some()) {
                (UpstreamProtocol::Http1, _) | (UpstreamProtocol::Auto, false) => Some(false),
                (UpstreamProtocol::Http2, _) => Some(true),
                (UpstreamProtocol::Auto, true) => None,
            },
            keep: item.idle_connections.value,
            max_connections: item.max_connections.value,
        },
        series,
        item: item.clone(),
    }))
}

fn tls_problem(place: config::Place, what: &str, error: &TlsError) -> Problem {
    Problem {
        code: "bad-tls",
        place: Some(place),
        message: format!("{what}: {error}"),
        text: None,
        hint: None,
    }
}
