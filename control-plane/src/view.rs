//! What one node should see of the catalog: the routes that it can serve, and what those need. Pure. Whoever edits
//! another fleet's route changes nothing here: the same blocks are the same view.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use tollgate_config::feed::{Block, Kind, NodeKind};
use tollgate_config::{
    Action, Document, EndpointSource, FallbackAction, Filter, HostPattern, Member, RateLimit,
    Route, Upstream, service_of,
};

use crate::catalog::World;

/// What a node asks for, as far as blocks are concerned. Nodes with the same wishes share a view.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wishes {
    pub kind: Kinds,
    /// Names of the node's listeners; empty = all routes, whoever serves them.
    pub listeners: BTreeSet<Arc<str>>,
    /// The service that the node is of; the rules about who may call it come with it.
    pub callee: Option<Member>,
    /// Of a sidecar: the services that it calls, and the one that it stands for. Others are none of its business.
    pub concerns: BTreeSet<Arc<str>>,
}

impl Wishes {
    /// `services`: those that the node named, besides the one that it stands for.
    pub fn new<'n>(
        kind: Kinds,
        listeners: &'n [String],
        services: impl IntoIterator<Item = &'n str>,
        stands_for: Option<&'n str>,
    ) -> Wishes {
        let concerns = match kind {
            Kinds::Gateway => BTreeSet::new(),
            Kinds::Sidecar => {
                let names = services.into_iter().chain(stands_for);
                names.map(Arc::from).collect()
            }
        };
        Wishes {
            kind,
            listeners: listeners.iter().map(|name| name.as_str().into()).collect(),
            callee: None,
            concerns,
        }
    }

    /// The same, of a node that is this service in the mesh.
    pub fn of(self, callee: Option<Member>) -> Wishes {
        Wishes { callee, ..self }
    }

    /// The same node's, with other services.
    pub fn with<'n>(
        &self,
        services: impl IntoIterator<Item = &'n str>,
        stands_for: Option<&'n str>,
    ) -> Wishes {
        let mut wishes = Wishes::new(self.kind, &[], services, stands_for);
        wishes.listeners.clone_from(&self.listeners);
        wishes.of(self.callee.clone())
    }

    /// Whether a sidecar has to do with the service; a gateway has with all.
    fn concerns(&self, service: &str) -> bool {
        self.kind == Kinds::Gateway || self.concerns.contains(service)
    }
}

/// `NodeKind`, in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kinds {
    Gateway,
    Sidecar,
}

impl From<NodeKind> for Kinds {
    fn from(kind: NodeKind) -> Kinds {
        match kind {
            NodeKind::Gateway => Kinds::Gateway,
            NodeKind::Sidecar => Kinds::Sidecar,
        }
    }
}

/// Some blocks of the catalog, in its order, and the services that their upstreams name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct View {
    pub blocks: Vec<Arc<Block>>,
    pub services: BTreeSet<Arc<str>>,
}

/// What is different.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub puts: Vec<Arc<Block>>,
    pub removes: Vec<Arc<str>>,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.removes.is_empty()
    }
}

/// What a node with these wishes should have.
pub fn view(world: &World, wishes: &Wishes) -> View {
    let document = &world.document;
    let mut needs = Needs::default();
    // The loader keeps the order of blocks.
    let served: Vec<bool> = { document.routes.iter() }
        .map(|route| {
            let serves = serves(route, wishes);
            if serves {
                needs.of_route(route);
            }
            serves
        })
        .collect();
    if wishes.kind == Kinds::Sidecar {
        let policies = document.upstreams.iter().filter(|one| is_policy(one));
        let names = policies.map(|one| one.name.as_str());
        needs
            .upstreams
            .extend(names.filter(|name| wishes.concerns(name)));
    }
    let mut view = View::default();
    for upstream in &document.upstreams {
        if needs.upstreams.contains(upstream.name.as_str())
            && let EndpointSource::Service { name, .. } = &upstream.endpoints
        {
            view.services.insert(name.as_str().into());
        }
    }
    let mut routes = served.into_iter();
    let mut upstreams = document.upstreams.iter();
    let mut limits = document.limits.iter();
    let mut accesses = document.accesses.iter();
    for block in world.blocks.iter() {
        let wanted = match block.kind {
            Kind::Route => routes.next().unwrap_or(false),
            Kind::Upstream => {
                { upstreams.next() }.is_some_and(|one| needs.upstreams.contains(one.name.as_str()))
            }
            Kind::Limit => {
                { limits.next() }.is_some_and(|one| needs.limits.contains(one.name.as_str()))
            }
            Kind::Tiers | Kind::ApiKey => needs.callers,
            // A node's own routes may ask for them, too; who is nobody in the mesh gets those about everybody, for the
            // routes that it is told of.
            Kind::Access => accesses.next().is_some_and(|rule| {
                (wishes.callee.is_some() || needs.access) && rule.is_about(wishes.callee.as_ref())
            }),
            // They were run before the revision was accepted, against all that there is.
            Kind::Test => false,
        };
        if wanted {
            view.blocks.push(block.clone());
        }
    }
    view
}

/// Whether a node serves a route: it has every listener that the route names. With another set of listeners it would
/// have to refuse the name. A sidecar serves what names one of its own, for that is what was meant for it; a route that
/// names none is of the edge. And of routes for a service's host only those of the services that it has to do with.
fn serves(route: &Route, wishes: &Wishes) -> bool {
    let listeners = &wishes.listeners;
    let has = |name: &String| listeners.contains(name.as_str());
    let matches = &route.matches;
    if !listeners.is_empty() && !matches.listeners.iter().all(has) {
        return false;
    }
    match (wishes.kind, &matches.host) {
        (Kinds::Gateway, _) => true,
        (Kinds::Sidecar, _) if matches.listeners.is_empty() => false,
        (Kinds::Sidecar, Some(HostPattern::Exact(host))) => {
            service_of(host).is_none_or(|service| wishes.concerns(service))
        }
        (Kinds::Sidecar, _) => true,
    }
}

/// Whether the upstream is what is said of a service (MESH-201): it is called like the service, and has its instances. A
/// sidecar that calls the service goes by it, without any route.
fn is_policy(upstream: &Upstream) -> bool {
    matches!(&upstream.endpoints, EndpointSource::Service { name, .. } if *name == upstream.name)
}

#[derive(Default)]
struct Needs<'d> {
    upstreams: HashSet<&'d str>,
    limits: HashSet<&'d str>,
    /// Keys and tiers.
    callers: bool,
    /// Rules about services.
    access: bool,
}

impl<'d> Needs<'d> {
    fn of_route(&mut self, route: &'d Route) {
        match &route.action {
            Action::Upstream(upstream) => {
                self.upstreams.insert(upstream);
            }
            Action::Split { branches, .. } => {
                let names = branches.iter().map(|branch| branch.upstream.as_str());
                self.upstreams.extend(names);
            }
            Action::Respond { .. } | Action::Redirect { .. } => {}
        }
        if let Some(fallback) = &route.fallback
            && let FallbackAction::Upstream(upstream) = &fallback.action
        {
            self.upstreams.insert(upstream);
        }
        for filter in &route.filters {
            match &filter.value {
                Filter::RateLimit(RateLimit::Named(name)) => {
                    self.limits.insert(name);
                }
                Filter::RateLimit(RateLimit::Tiers) | Filter::ApiKey(_) => self.callers = true,
                Filter::Access(_) => self.access = true,
                _ => {}
            }
        }
    }
}

/// Names of the routes that mean something else when these blocks do: their own, and those that need one of them.
pub fn touched(document: &Document, changed: &HashSet<&str>, world: &World) -> BTreeSet<String> {
    let mut of_routes = HashSet::new();
    let mut needs = Needs::default();
    let mut upstreams = document.upstreams.iter();
    let mut limits = document.limits.iter();
    let mut routes = document.routes.iter();
    for block in world.blocks.iter() {
        let is_changed = changed.contains(&*block.id);
        match block.kind {
            Kind::Route => {
                let route = routes.next();
                of_routes.extend(
                    route
                        .filter(|_| is_changed)
                        .map(|route| route.name.as_str()),
                );
            }
            Kind::Upstream => {
                let one = upstreams.next();
                let name = one.filter(|_| is_changed).map(|one| one.name.as_str());
                needs.upstreams.extend(name);
            }
            Kind::Limit => {
                let one = limits.next();
                let name = one.filter(|_| is_changed).map(|one| one.name.as_str());
                needs.limits.extend(name);
            }
            Kind::Tiers | Kind::ApiKey => needs.callers |= is_changed,
            Kind::Access => needs.access |= is_changed,
            Kind::Test => {}
        }
    }
    let is_touched = |route: &&tollgate_config::Item<Route>| {
        let mut own = Needs::default();
        own.of_route(route);
        of_routes.contains(route.name.as_str())
            || !own.upstreams.is_disjoint(&needs.upstreams)
            || !own.limits.is_disjoint(&needs.limits)
            || (own.callers && needs.callers)
            || (own.access && needs.access)
    };
    let routes = document.routes.iter().filter(is_touched);
    routes.map(|route| route.name.clone()).collect()
}

/// What makes `to` of `from`.
pub fn difference(from: &View, to: &View) -> Difference {
    let same = |(a, b): &(&Arc<Block>, &Arc<Block>)| Arc::ptr_eq(a, b);
    let (old, new) = (&from.blocks, &to.blocks);
    let head = old.iter().zip(new).take_while(same).count();
    let (old, new) = (&old[head..], &new[head..]);
    let tail = { old.iter().rev().zip(new.iter().rev()) }
        .take_while(same)
        .count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let ids: HashSet<&str> = new.iter().map(|block| &*block.id).collect();
    let known: std::collections::HashMap<&str, &Arc<Block>> =
        old.iter().map(|block| (&*block.id, block)).collect();
    Difference {
        puts: { new.iter() }
            .filter(|block| known.get(&*block.id).is_none_or(|known| *known != *block))
            .cloned()
            .collect(),
        removes: { old.iter() }
            .filter(|block| !ids.contains(&*block.id))
            .map(|block| block.id.clone())
            .collect(),
    }
}
