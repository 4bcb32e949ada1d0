//! The table of routes: host, then path, then the rest, in one order that lookups and explanations share.
//!
//! Order: exact host, longer wildcard, shorter wildcard, no host; within a host patterns (see `trie`), then regular
//! expressions, then routes without a path; within one path more methods, headers, query and listeners asked for
//! (`matcher::rank`), then the order in the file. The first candidate in that order which fits takes the request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ops::ControlFlow;

use foldhash::fast::RandomState;
use http::Method;
use regex::Regex;
use tollgate_config::{HostPattern, Match, PathMatch};

use super::host::{self, configured_host, normal_host};
use super::matcher::{Candidate, Lookup, Miss, RouteId, rank};
use super::trie::{End, Leaf, Trie};

/// All routes of a document, ready to be asked. Never changes; workers share it.
#[derive(Debug)]
pub struct Table {
    /// Those of one place stand together, best first.
    pub(super) candidates: Vec<Candidate>,
    /// Where each candidate stands; read by explanations only.
    pub(super) places: Vec<Place>,
    pub(super) sites: Vec<Site>,
    pub(super) trie: Trie,
    pub(super) regexes: Vec<Regex>,
    pub(super) exact: Hosts,
    pub(super) wildcards: Hosts,
    /// How many listeners had a number.
    listeners: usize,
}

pub(super) type Hosts = HashMap<Box<str>, u32, RandomState>;

/// All routes of one host pattern.
#[derive(Debug)]
pub(super) struct Site {
    root: u32,
    regexes: Leaf,
    anywhere: Leaf,
}

/// The site of routes that name no host.
pub(super) const ANY_HOST: u32 = 0;

#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) site: u32,
    pub(super) path: PathPlace,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum PathPlace {
    Node(u32, End),
    Regex(u32),
    Anywhere,
}

/// What became of a lookup.
#[derive(Debug)]
pub enum Found<'a> {
    Route(RouteId),
    /// The path is known, but no route there takes the method: 405.
    MethodNotAllowed(Allow<'a>),
    /// 404.
    NotFound,
}

/// The methods a path does take; computed when asked for.
#[derive(Debug)]
pub struct Allow<'a> {
    table: &'a Table,
    lookup: Lookup<'a>,
}

impl Allow<'_> {
    /// Each once, by name.
    pub fn methods(&self) -> Vec<Method> {
        let mut methods = Vec::new();
        self.table.walk_all(&self.lookup, |at| {
            let candidate = &self.table.candidates[at];
            if candidate.hears(self.lookup.listener) {
                methods.extend(candidate.methods());
            }
        });
        methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        methods.dedup();
        methods
    }

    /// The value of an `allow` header.
    pub fn header(&self) -> String {
        let methods = self.methods();
        methods
            .iter()
            .map(Method::as_str)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl Table {
    /// Routes in the order of the file; `listeners` are the names that `ListenerIndex` counts. A route that names only
    /// listeners that do not exist is never found.
    pub fn build<'m>(
        routes: impl Iterator<Item = (RouteId, &'m Match)>,
        listeners: &[String],
    ) -> Table {
        let routes: Vec<_> = routes.collect();
        let mut trie = Trie::new(routes.len());
        let any_host = Site {
            root: trie.add_root(),
            regexes: Leaf::default(),
            anywhere: Leaf::default(),
        };
        let mut table = Table {
            candidates: Vec::with_capacity(routes.len()),
            places: Vec::with_capacity(routes.len()),
            sites: vec![any_host],
            trie,
            regexes: Vec::new(),
            exact: Hosts::default(),
            wildcards: Hosts::default(),
            listeners: listeners.len(),
        };
        let mut regexes = HashMap::with_hasher(RandomState::default());
        let mut order: Vec<(u64, u64, Place)> = Vec::with_capacity(routes.len());
        for ((_, matches), index) in routes.iter().zip(0u64..) {
            let site = table.site(matches.host.as_ref());
            let path = match &matches.path {
                None => PathPlace::Anywhere,
                Some(PathMatch::Pattern(pattern)) => {
                    let (node, end) = table.trie.insert(table.sites[site as usize].root, pattern);
                    PathPlace::Node(node, end)
                }
                Some(PathMatch::Regex(regex)) => {
                    PathPlace::Regex(*regexes.entry(regex.as_str()).or_insert_with(|| {
                        table.regexes.push(regex.clone());
                        table.regexes.len() as u32 - 1
                    }))
                }
            };
            let place = Place { site, path };
            order.push((place.group(), u64::from(rank(matches)) << 32 | index, place));
        }
        order.sort_unstable_by_key(|(group, rank, _)| (*group, *rank));
        for group in order.chunk_by(|a, b| a.0 == b.0) {
            let leaf = Leaf {
                start: table.candidates.len() as u32,
                length: group.len() as u32,
            };
            for (_, rank, place) in group {
                let (id, matches) = &routes[(*rank & u64::from(u32::MAX)) as usize];
                let regex = if let PathPlace::Regex(regex) = place.path {
                    regex
                } else {
                    0
                };
                table
                    .candidates
                    .push(Candidate::new(*id, matches, listeners, regex));
                table.places.push(*place);
            }
            table.set_leaf(group[0].2, leaf);
        }
        table
    }

    /// Whether a table built with these listeners would take their names for the same; names are only ever added.
    pub fn knows(&self, listeners: &[String]) -> bool {
        self.listeners == listeners.len()
    }

    /// The route a request takes.
    pub fn find<'a>(&'a self, lookup: &Lookup<'a>) -> Found<'a> {
        let mut method_missed = false;
        let mut method_fits = false;
        let found = self.walk(lookup, |at| {
            let candidate = &self.candidates[at];
            match candidate.check(lookup) {
                Ok(()) => return ControlFlow::Break(candidate.route),
                Err(Miss::Listener) => {}
                Err(Miss::Method) => method_missed = true,
                Err(Miss::Header(_) | Miss::Query(_)) => method_fits = true,
            }
            ControlFlow::Continue(())
        });
        match found.break_value() {
            Some(route) => Found::Route(route),
            None if method_missed && !method_fits => Found::MethodNotAllowed(Allow {
                table: self,
                lookup: *lookup,
            }),
            None => Found::NotFound,
        }
    }

    /// Visits every candidate whose host and path match, most specific first, until the visitor breaks. The one place
    /// where the order is written down in code.
    pub(super) fn walk<B>(
        &self,
        lookup: &Lookup<'_>,
        mut visit: impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if !self.exact.is_empty() || !self.wildcards.is_empty() {
            for site in self.sites_of(&normal_host(lookup.host)) {
                self.walk_site(site, lookup.path, &mut visit)?;
            }
        }
        self.walk_site(ANY_HOST, lookup.path, &mut visit)
    }

    /// Visits all of them.
    pub(super) fn walk_all(&self, lookup: &Lookup<'_>, mut visit: impl FnMut(usize)) {
        let end: ControlFlow<Infallible> = self.walk(lookup, |at| {
            visit(at);
            ControlFlow::Continue(())
        });
        debug_assert!(end.is_continue(), "nothing breaks this walk");
    }

    /// The sites that name a host, most specific first; the one for every host comes after them.
    pub(super) fn sites_of(&self, host: &str) -> impl Iterator<Item = u32> {
        let short = host.len() <= host::LONGEST;
        let exact = short.then(|| self.exact.get(host)).flatten();
        let parents = (short && !self.wildcards.is_empty()).then(|| host::parents(host));
        let wildcards = parents
            .into_iter()
            .flatten()
            .filter_map(|parent| self.wildcards.get(parent));
        exact.into_iter().chain(wildcards).copied()
    }

    fn walk_site<B>(
        &self,
        site: u32,
        path: &str,
        visit: &mut impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let site = &self.sites[site as usize];
        // `*`, as in `OPTIONS *`, is no pattern's path.
        if let Some(tail) = path.strip_prefix('/') {
            self.trie.walk(site.root, Some(tail), &mut |leaf| {
                range(leaf).try_for_each(&mut *visit)
            })?;
        }
        // Candidates behind the same regular expression often stand together: ask it once.
        let mut asked: Option<(u32, bool)> = None;
        for at in range(site.regexes) {
            let regex = self.candidates[at].regex;
            let matches = match asked {
                Some((same, matches)) if same == regex => matches,
                _ => self.regexes[regex as usize].is_match(path),
            };
            asked = Some((regex, matches));
            if matches {
                visit(at)?;
            }
        }
        range(site.anywhere).try_for_each(&mut *visit)
    }

    /// The site of a host pattern, made when it is not there yet.
    fn site(&mut self, pattern: Option<&HostPattern>) -> u32 {
        let (hosts, name) = match pattern {
            None => return ANY_HOST,
            Some(HostPattern::Exact(name)) => (&mut self.exact, name),
            Some(HostPattern::Wildcard(name)) => (&mut self.wildcards, name),
        };
        let name = configured_host(name);
        if let Some(site) = hosts.get(&*name) {
            return *site;
        }
        let id = self.sites.len() as u32;
        hosts.insert(name.into(), id);
        self.sites.push(Site {
            root: self.trie.add_root(),
            regexes: Leaf::default(),
            anywhere: Leaf::default(),
        });
        id
    }

    fn set_leaf(&mut self, place: Place, leaf: Leaf) {
        let site = &mut self.sites[place.site as usize];
        match place.path {
            PathPlace::Node(node, end) => self.trie.set_leaf(node, end, leaf),
            PathPlace::Regex(_) => site.regexes = leaf,
            PathPlace::Anywhere => site.anywhere = leaf,
        }
    }
}

impl Place {
    /// Equal for candidates that share a leaf.
    fn group(self) -> u64 {
        match self.path {
            PathPlace::Node(node, end) => u64::from(node) << 3 | end as u64,
            PathPlace::Regex(_) => u64::from(self.site) << 3 | 3,
            PathPlace::Anywhere => u64::from(self.site) << 3 | 4,
        }
    }
}

fn range(leaf: Leaf) -> std::ops::Range<usize> {
    leaf.start as usize..(leaf.start + leaf.length) as usize
}
