//! A document and the snapshot before it become the next snapshot, or every reason why not. No I/O but reading the
//! certificates a document names; starts nothing. What did not change is taken over by pointer: at thousands of routes
//! the cost of changing one is that of one, plus counting owners; a table is built anew when a match changed.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use foldhash::fast::RandomState;
use tollgate_config::feed::Direction;
use tollgate_config::{
    self as config, Action, Document, EndpointSource, Item, Member, Problem, Problems,
    UpstreamProtocol,
};

use super::memory::Memory;
use super::services::Upstreams;
use super::{Branch, CompiledRoute, ListenerPlan, OutboundEdge, RoutePlan, Snapshot, UpstreamPlan};
use crate::filter::access::Access;
use crate::filter::jwt::Issuers;
use crate::filter::rate_limit::Policies;
use crate::filter::{Chain, Surroundings};
use crate::net::tls::{ClientTls, Expected, Held, MemberTls, ServerTls, TlsError};
use crate::route::{RouteId, Table, same_match};
use crate::telemetry::metrics::{Metrics, RouteSeries};
use crate::transcode::Transcoders;
use crate::upstream::Upstream;
use crate::upstream::pace::PaceMemory;
use crate::upstream::pool::Dial;

/// Upstreams by name: documents are ours to trust, so the quick hash will do.
pub(super) type ByName<'d> = HashMap<&'d str, Arc<UpstreamPlan>, RandomState>;

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
    let mut beyond = u32::try_from(document.routes.len()).unwrap_or(u32::MAX);
    for item in &document.listeners {
        let index = memory.listener(&item.name);
        let before = former.and_then(|former| former.listener(index));
        let mesh = MemberTls::new(&memory.member, item.mesh.value, item.protocol);
        match listener_tls(item, before).and_then(|tls| Ok((tls, mesh?))) {
            Ok((tls, mesh)) => {
                let position = index.0 as usize;
                if listeners.len() <= position {
                    listeners.resize_with(position + 1, || None);
                }
                let forward = item.forward.as_ref().map(|_| RouteId(beyond));
                beyond += u32::from(forward.is_some());
                listeners[position] = Some(Arc::new(ListenerPlan {
                    item: item.clone(),
                    index,
                    tls,
                    mesh,
                    forward,
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
    let own = document.own_service();
    let own_name: Option<Arc<str>> = own.as_ref().map(|own| own.to_string().into());
    let workshop = Workshop {
        own: own.as_ref(),
        source: own_name.as_ref(),
        memory,
        metrics,
        workers,
    };
    for item in &document.upstreams {
        let before = formerly.get(item.name.as_str()).copied();
        match workshop.upstream(item, before, expected(item, document)) {
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
    let by_name = Upstreams::expand(
        document,
        by_name,
        &formerly,
        &memory.learned,
        |item, before| workshop.made(item, before, expected(item, document)),
        &mut problems,
    );
    upstreams.extend(by_name.learned().cloned());
    let known = former.map(|former| &former.transcoders);
    let transcoders = Transcoders::compile(document, known, &memory.reflected, &mut problems);
    let former_issuers = former.map(|former| &former.issuers);
    let issuers = Issuers::compile(document, former_issuers, &memory.issuers, metrics)
        .unwrap_or_else(|bad| {
            problems.extend(bad);
            Arc::default()
        });
    let held = match document.identity.as_ref().map(Held::of_files) {
        None => None,
        Some(Ok(held)) => held,
        Some(Err(error)) => {
            let place = document
                .identity
                .as_ref()
                .map(|identity| identity.place.clone());
            problems.extend(place.map(|place| tls_problem(place, "identity", &error)));
            None
        }
    };
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    let policies = Policies::compile(
        document,
        former.map(|former| &former.policies),
        &memory.limits,
        metrics,
    );
    let former_access = former.map(|former| &former.access);
    let access = Access::compile(document, own.clone(), former_access, metrics);
    let surroundings = Surroundings {
        policies: &policies,
        issuers: &issuers,
        memory: &memory.limits,
        metrics,
        transcoders: &transcoders,
    };
    let (routes, table) = routes(document, former, memory, &by_name, &surroundings);
    let unmatched = metrics.route("none", &[]);
    let forwards = { document.listeners.iter() }
        .filter_map(|listener| forward(listener, &by_name, &surroundings, &unmatched))
        .collect();
    Ok(Snapshot {
        generation: former.map_or(1, |former| former.generation + 1),
        hash: document.hash.clone(),
        since: SystemTime::now(),
        listeners,
        table,
        routes,
        forwards,
        upstreams,
        services: memory.learned.clone(),
        policies,
        transcoders,
        issuers,
        access,
        held,
        errors: document.errors,
        unmatched,
        active: (0..workers).map(|_| super::Active::default()).collect(),
    })
}

/// The routes, and their table: the former's, as long as every route matches what the one in its place matched.
fn routes(
    document: &Document,
    former: Option<&Snapshot>,
    memory: &Memory,
    by_name: &Upstreams<'_>,
    surroundings: &Surroundings<'_>,
) -> (Vec<RoutePlan>, Arc<Table>) {
    let mut known = Former::new(former.map_or(&[], |former| &former.routes));
    // Looking at the upstreams once spares a look at those of each route.
    let (policies, issuers) = (surroundings.policies, surroundings.issuers);
    let all_current = former.is_some_and(|former| {
        let mut upstreams = former.upstreams.iter();
        upstreams.all(|upstream| by_name.has(upstream))
            && Arc::ptr_eq(&former.policies, policies)
            && former.transcoders.is_same(surroundings.transcoders)
            && Arc::ptr_eq(&former.issuers, issuers)
    });
    let mut routes = Vec::with_capacity(document.routes.len());
    let mut same_table = former
        .filter(|former| former.routes.len() == document.routes.len())
        .filter(|former| former.table.knows(memory.listeners()));
    for item in &document.routes {
        let before = known.find(&item.value);
        let place = routes.len();
        same_table = same_table.filter(|former| {
            let there = &former.routes[place].item;
            Arc::ptr_eq(&there.value, &item.value) || same_match(&there.matches, &item.matches)
        });
        let current = before
            .filter(|plan| by_name.has_services(plan))
            .filter(|plan| all_current || is_current(plan, by_name, surroundings));
        routes.push(RoutePlan {
            item: item.clone(),
            compiled: match current {
                Some(plan) => plan.compiled.clone(),
                None => Arc::new(route(item, by_name, surroundings, &memory.paces)),
            },
        });
    }
    let table = match same_table {
        Some(former) => former.table.clone(),
        None => {
            let matches = routes.iter().zip(0..);
            let matches = matches.map(|(plan, id)| (RouteId(id), &plan.item.matches));
            Arc::new(Table::build(matches, memory.listeners()))
        }
    };
    (routes, table)
}

/// The former routes. One is looked for behind the last that was found, where it nearly always is, and then anywhere.
struct Former<'f> {
    routes: &'f [RoutePlan],
    next: usize,
    /// Made when a route is not where it was looked for.
    places: OnceCell<HashMap<*const config::Route, usize, RandomState>>,
}

impl<'f> Former<'f> {
    fn new(routes: &'f [RoutePlan]) -> Self {
        Former {
            routes,
            next: 0,
            places: OnceCell::new(),
        }
    }

    fn find(&mut self, route: &Arc<config::Route>) -> Option<&'f RoutePlan> {
        let here = self.routes.get(self.next);
        let found = here.filter(|plan| Arc::ptr_eq(&plan.item.value, route));
        if found.is_none() {
            let places = self.places.get_or_init(|| {
                let routes = self.routes.iter().zip(0..);
                routes
                    .map(|(plan, place)| (Arc::as_ptr(&plan.item.value), place))
                    .collect()
            });
            self.next = *places.get(&Arc::as_ptr(route)).unwrap_or(&self.next);
        }
        let found = self.routes.get(self.next);
        self.next += 1;
        found.filter(|plan| Arc::ptr_eq(&plan.item.value, route))
    }
}

/// Whether everything a compiled route points to is still what the names mean.
fn is_current(plan: &RoutePlan, by_name: &Upstreams<'_>, surroundings: &Surroundings<'_>) -> bool {
    let compiled = &plan.compiled;
    let transcoder = surroundings.transcoders.of(&plan.item.value);
    let mut branches = compiled.branches.iter();
    branches.all(|branch| by_name.has(&branch.upstream))
        && compiled
            .chain
            .is_current(surroundings.policies, surroundings.issuers, transcoder)
}

fn route(
    item: &Item<config::Route>,
    by_name: &Upstreams<'_>,
    surroundings: &Surroundings<'_>,
    paces: &PaceMemory,
) -> CompiledRoute {
    let of = |upstream: &Arc<UpstreamPlan>, weight| branch_to(upstream, weight, &item.name);
    let branch = |name: &str, weight| branch(name, weight, &item.name, by_name);
    let mut branches: Vec<Branch> = match &item.action {
        Action::Upstream(name) => branch(name, 1).into_iter().collect(),
        Action::Split { branches, .. } => branches
            .iter()
            .filter_map(|one| branch(&one.upstream, one.weight))
            .collect(),
        Action::Respond { .. } | Action::Redirect { .. } => Vec::new(),
    };
    let choices = branches.len();
    let fallback = match &item.fallback {
        Some(config::Fallback {
            action: config::FallbackAction::Upstream(name),
            ..
        }) => branch(name, 0).map(|branch| {
            branches.push(branch);
            branches.len() - 1
        }),
        _ => None,
    };
    let services = by_name.branches(&mut branches, |upstream| of(upstream, 0));
    let names: Vec<&str> = branches
        .iter()
        .map(|branch| branch.upstream.item.name.as_str())
        .collect();
    CompiledRoute {
        fallback,
        choices,
        services,
        pace: item.adaptive_timeout.value.map(|_| paces.of(&item.name)),
        late: item.hedge().map(|_| paces.p95_of(&item.name)),
        chain: Chain::compile(&item.value, surroundings),
        total_weight: branches
            .iter()
            .map(|branch| branch.weight)
            .sum::<u32>()
            .max(1),
        series: surroundings.metrics.route(&item.name, &names),
        branches,
    }
}

fn branch(name: &str, weight: u32, route: &str, by_name: &Upstreams<'_>) -> Option<Branch> {
    Some(branch_to(by_name.get(name)?, weight, route))
}

fn branch_to(upstream: &Arc<UpstreamPlan>, weight: u32, route: &str) -> Branch {
    Branch {
        upstream: upstream.clone(),
        weight,
        guards: upstream.guards.of_route(upstream.grain(), route),
    }
}

/// The way of a listener's bytes. It counts nowhere as a route: what is carried is counted at the listener.
fn forward(
    listener: &Item<config::Listener>,
    by_name: &Upstreams<'_>,
    surroundings: &Surroundings<'_>,
    unmatched: &Arc<RouteSeries>,
) -> Option<RoutePlan> {
    let route = listener.forward.as_ref()?;
    let branches = match &route.action {
        Action::Upstream(name) => branch(name, 1, &route.name, by_name),
        _ => None,
    };
    let compiled = CompiledRoute {
        chain: Chain::compile(route, surroundings),
        choices: branches.iter().count(),
        branches: branches.into_iter().collect(),
        // Bytes name no service.
        services: None,
        fallback: None,
        pace: None,
        late: None,
        total_weight: 1,
        series: unmatched.clone(),
    };
    Some(RoutePlan {
        // Its settings stand in the listener.
        item: Item {
            value: route.clone(),
            file: listener.file.clone(),
            line: listener.line,
        },
        compiled: Arc::new(compiled),
    })
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

/// What upstreams are made with.
struct Workshop<'w> {
    /// Who this node is in the mesh, and the same as text.
    own: Option<&'w Member>,
    source: Option<&'w Arc<str>>,
    memory: &'w Memory,
    metrics: &'w Metrics,
    workers: usize,
}

impl Workshop<'_> {
    fn upstream(
        &self,
        item: &Item<config::Upstream>,
        before: Option<&Arc<UpstreamPlan>>,
        expected: Option<Expected>,
    ) -> Result<Arc<UpstreamPlan>, TlsError> {
        let same = taken_over(item, before).filter(|before| {
            before.expected() == expected.as_ref() && { before.edge.as_ref() }
                .is_none_or(|edge| Some(&edge.source) == self.source)
        });
        match same {
            Some(before) => Ok(before.clone()),
            None => self.made(item, before, expected).map(Arc::new),
        }
    }

    fn made(
        &self,
        item: &Item<config::Upstream>,
        before: Option<&Arc<UpstreamPlan>>,
        expected: Option<Expected>,
    ) -> Result<UpstreamPlan, TlsError> {
        let Workshop {
            own,
            source,
            memory,
            metrics,
            workers,
        } = *self;
        let tls = match (
            &item.tls,
            before.and_then(|before| before.dial.tls.as_ref()),
        ) {
            (None, _) => { expected.as_ref() }
                .map(|expected| ClientTls::member(&memory.member, expected, item.protocol))
                .transpose()?,
            (Some(tls), Some(before)) => Some(ClientTls::reload(before, tls, item.protocol)?),
            (Some(tls), None) => Some(ClientTls::load(tls, item.protocol)?),
        };
        let identity = peer_name(&item.value, tls.as_ref());
        let known = |one: crate::upstream::Resolved| {
            { &memory.endpoints }.endpoint(&item.name, identity.as_deref(), &one)
        };
        let endpoints = match (
            memory
                .services
                .source(&item.endpoints)
                .and_then(|source| source.fixed()),
            before,
        ) {
            (Some(addresses), _) => addresses.into_iter().map(known).collect(),
            // What discovery found last is good until it finds again.
            (None, Some(before)) => before.upstream.endpoints().iter().cloned().collect(),
            (None, None) => Vec::new(),
        };
        let series = metrics.upstream(&item.name);
        let edge = { own.zip(source) }.and_then(|(own, source)| {
            let destination = asked_for(item, own, expected.as_ref())?.to_string();
            Some(OutboundEdge {
                series: metrics.edge(source, &destination, Direction::Outbound),
                destination: destination.into(),
                source: source.clone(),
            })
        });
        Ok(UpstreamPlan {
            edge,
            guards: memory.guards.of(&item.name, workers),
            upstream: Arc::new(Upstream::new(
                item.clone(),
                0,
                endpoints,
                before.map(|before| &*before.upstream),
                Instant::now(),
            )),
            dial: Dial {
                http2: match (item.protocol, tls.is_some()) {
                    (UpstreamProtocol::Http1, _) | (UpstreamProtocol::Auto, false) => Some(false),
                    (UpstreamProtocol::Http2, _) => Some(true),
                    (UpstreamProtocol::Auto, true) => None,
                },
                // Two kinds of connections would share a bound, and the idle ones of one kind keep out the other.
                few_over_http1: item.protocol == UpstreamProtocol::Auto
                    && item.max_connections.value.is_none()
                    && tls.as_ref().is_some_and(|tls| tls.mesh().is_some()),
                tls,
                keep: item.idle_connections.value,
                max_connections: item.max_connections.value,
            },
            series,
            item: item.clone(),
            learned: None,
        })
    }
}

/// The former plan, if nothing about the upstream changed. Certificates may change without a word of the document.
fn taken_over<'b>(
    item: &Item<config::Upstream>,
    before: Option<&'b Arc<UpstreamPlan>>,
) -> Option<&'b Arc<UpstreamPlan>> {
    before.filter(|before| {
        Arc::ptr_eq(&before.item.value, &item.value)
            && before.item.line == item.line
            && item.tls.is_none()
    })
}

/// The service that an upstream stands for, for the service map.
fn asked_for(item: &config::Upstream, own: &Member, expected: Option<&Expected>) -> Option<Member> {
    if let Some(Expected { namespace, service }) = expected {
        return Some(Member::new(namespace, service));
    }
    match &item.endpoints {
        EndpointSource::Service { name, .. } => Some(Member::new(&own.namespace, name)),
        _ => None,
    }
}

/// The member that an upstream's endpoints must be.
pub(super) fn expected(item: &config::Upstream, document: &Document) -> Option<Expected> {
    let (mesh, identity) = (item.mesh.as_ref()?, document.identity.as_ref()?);
    let service = match (&mesh.service, &item.endpoints) {
        (Some(service), _) => service,
        (None, config::EndpointSource::Service { name, .. }) => name,
        (None, _) => return None,
    };
    let namespace = mesh.namespace.as_ref().unwrap_or(&identity.namespace);
    Some(Expected {
        namespace: namespace.clone(),
        service: service.clone(),
    })
}

/// What endpoints of an upstream have to prove, as part of what they are remembered under.
pub(crate) fn peer_name(item: &config::Upstream, tls: Option<&ClientTls>) -> Option<String> {
    match tls.and_then(ClientTls::expected) {
        Some(expected) => Some(format!("member {expected}")),
        None => { item.tls.as_ref() }.map(|tls| tls.name.as_deref().unwrap_or("*").to_owned()),
    }
}

pub(super) fn tls_problem(place: config::Place, what: &str, error: &TlsError) -> Problem {
    Problem {
        code: "bad-tls",
        place: Some(place),
        message: format!("{what}: {error}"),
        text: None,
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A snapshot of routes, each with a path and the value of a header it sets.
    struct World {
        loader: config::Loader,
        memory: Memory,
        metrics: Arc<Metrics>,
        former: Option<Snapshot>,
    }

    impl World {
        fn new() -> Self {
            World {
                loader: config::Loader::with_environment(|_| None),
                memory: Memory::default(),
                metrics: Arc::new(Metrics::new(1)),
                former: None,
            }
        }

        /// What was shared with the former snapshot: the table, and which of the compiled routes.
        fn next(&mut self, port: u16, routes: &[(&str, &str)]) -> (bool, Vec<bool>) {
            let mut text = format!(
                "[[listener]]\nbind = \"127.0.0.1:0\"\n[[upstream]]\nname = \"a\"\nendpoints = [\"127.0.0.1:{port}\"]\n"
            );
            for (path, mark) in routes {
                text += &format!(
                    "[[route]]\nmatch = {{ path = \"{path}\" }}\nupstream = \"a\"\nfilters = [{{ set_headers = {{ request = {{ x = \"{mark}\" }} }} }}]\n"
                );
            }
            let document = self.loader.load_text("t.toml", &text, Path::new("/"));
            let document = document.expect("valid");
            let former = self.former.as_ref();
            let next = compile(&document, former, &mut self.memory, &self.metrics, 1);
            let next = next.expect("it compiles");
            let shared = former.map_or((false, Vec::new()), |former| {
                let known = |plan: &RoutePlan| {
                    let mut former = former.routes.iter();
                    former.any(|former| Arc::ptr_eq(&former.compiled, &plan.compiled))
                };
                (
                    Arc::ptr_eq(&former.table, &next.table),
                    next.routes.iter().map(known).collect(),
                )
            });
            self.former = Some(next);
            shared
        }
    }

    #[test]
    fn a_table_is_shared_as_long_as_routes_match_the_same() {
        let mut world = World::new();
        world.next(1, &[("/a", "1"), ("/b", "1"), ("/c", "1")]);
        let filter = world.next(1, &[("/a", "1"), ("/b", "2"), ("/c", "1")]);
        assert_eq!(filter, (true, vec![true, false, true]));
        let path = world.next(1, &[("/a", "1"), ("/x", "2"), ("/c", "1")]);
        assert_eq!(path, (false, vec![true, false, true]));
        let order = world.next(1, &[("/c", "1"), ("/x", "2"), ("/a", "1")]);
        assert_eq!(order, (false, vec![true, true, true]));
        let gone = world.next(1, &[("/c", "1"), ("/a", "1")]);
        assert_eq!(gone, (false, vec![true, true]));
        let more = world.next(1, &[("/n", "1"), ("/c", "1"), ("/a", "1")]);
        assert_eq!(more, (false, vec![false, true, true]));
        let upstream = world.next(2, &[("/n", "1"), ("/c", "1"), ("/a", "1")]);
        assert_eq!(upstream, (true, vec![false, false, false]));
    }
}
