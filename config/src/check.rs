//! What can only be seen in the whole document: names that are used but not defined or defined twice, routes that can
//! never match, addresses that clash, files that are not there. Every refusal names a place and a next step. Costs one
//! look-up for each name, so that a reload of thousands of routes stays cheap.

mod callers;
mod identity;
mod limits;
mod registration;
mod transcode;

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::decode::match_key;
use crate::document::*;
use crate::nearest::nearest;
use crate::report::Report;
use crate::unit::short;
use crate::validate::did_you_mean;

/// Items that were there but could not be read. A name that only they can define is not called unknown.
#[derive(Default)]
pub(crate) struct Broken {
    sections: HashSet<&'static str>,
    names: HashSet<(&'static str, String)>,
    everything: bool,
}

impl Broken {
    pub(crate) fn everything(&mut self) {
        self.everything = true;
    }

    pub(crate) fn section(&mut self, section: &'static str) {
        self.sections.insert(section);
    }

    pub(crate) fn name(&mut self, section: &'static str, name: &str) {
        self.names.insert((section, name.to_owned()));
    }

    fn may_define(&self, section: &'static str, name: &str) -> bool {
        self.everything
            || self.sections.contains(section)
            || self.names.contains(&(section, name.to_owned()))
    }

    fn touches(&self, section: &'static str) -> bool {
        self.everything
            || self.sections.contains(section)
            || self.names.iter().any(|(s, _)| *s == section)
    }
}

pub(crate) struct Checks<'a> {
    pub(crate) listeners: &'a [Item<Listener>],
    pub(crate) routes: &'a [Item<Route>],
    /// When all names and matches of routes differ, and only these routes were not checked with the same listeners and
    /// upstreams before.
    pub(crate) changed: Option<&'a Vec<usize>>,
    pub(crate) upstreams: &'a [Item<Upstream>],
    pub(crate) limits: &'a [Item<Limit>],
    pub(crate) tiers: &'a [Item<Tier>],
    pub(crate) api_keys: &'a [Item<ApiKey>],
    pub(crate) jwts: &'a [Item<Jwt>],
    pub(crate) accesses: &'a [Item<Access>],
    pub(crate) sharing: Option<&'a (Option<Sharing>, Place)>,
    pub(crate) telemetry: Option<&'a (Telemetry, Place)>,
    pub(crate) tests: &'a [Item<Test>],
    /// Somebody can say where the instances of a service are.
    pub(crate) control_plane: bool,
    /// The instance that this process announces.
    pub(crate) register: Option<(&'a Register, Place)>,
    pub(crate) identity: Option<&'a Identity>,
    /// There is a folder for what outlives the process.
    pub(crate) keeps_state: bool,
    /// Listeners and certificates are of nodes that are not here.
    pub(crate) fleet: bool,
    pub(crate) admin: Option<(Option<std::net::SocketAddr>, Place)>,
    pub(crate) broken: &'a Broken,
    pub(crate) main: Arc<str>,
    pub(crate) report: &'a mut Report,
    /// Certificates that were found, and their contents; keys without.
    pub(crate) read: Vec<(PathBuf, Vec<u8>)>,
    /// Seeded by chance: what it makes of a private key may be kept.
    pub(crate) seed: &'a std::hash::RandomState,
    /// Of all private keys; they themselves stay nowhere.
    pub(crate) keys: u64,
}

type Names<'a> = HashMap<&'a str, usize, RandomState>;

pub(crate) fn check(checks: &mut Checks<'_>) {
    let listeners = unique(
        "listener",
        checks.listeners.iter().map(|i| (i.name.as_str(), i)),
        checks.report,
    );
    let upstreams = unique(
        "upstream",
        checks.upstreams.iter().map(|i| (i.name.as_str(), i)),
        checks.report,
    );
    let routes = checks.changed.is_none().then(|| {
        let items = checks.routes.iter().map(|i| (i.name.as_str(), i));
        unique("route", items, checks.report)
    });

    if checks.listeners.is_empty() && !checks.fleet && !checks.broken.touches("listener") {
        let place = Place {
            file: checks.main.clone(),
            line: 1,
            column: 1,
        };
        checks.report.add(
            "no-listener",
            Some(place),
            "the document has no listener, so nobody can connect",
            "add `[[listener]]` with `bind = \"127.0.0.1:8000\"`",
        );
    }
    addresses(checks);
    let all = checks.routes;
    for &changed in checks.changed.into_iter().flatten() {
        names_of_route(&all[changed], &listeners, &upstreams, checks);
    }
    if let Some(routes) = &routes {
        for route in all {
            names_of_route(route, &listeners, &upstreams, checks);
        }
        same_matches(routes, checks);
    }
    forwards(&upstreams, checks);
    services(checks);
    registration::check(&listeners, &upstreams, checks);
    templates(checks);
    identity::check(checks);
    limits::check(checks);
    callers::check(checks);
    for test in checks.tests {
        names_of_test(test, &listeners, &upstreams, routes.as_ref(), checks);
    }
    if !checks.fleet {
        files(checks);
    }
}

fn unique<'a, T: 'a>(
    what: &str,
    items: impl ExactSizeIterator<Item = (&'a str, &'a Item<T>)> + Clone,
    report: &mut Report,
) -> Names<'a> {
    let mut names = Names::with_capacity_and_hasher(items.len(), RandomState::default());
    for (index, (name, item)) in items.clone().enumerate() {
        let first = *names.entry(name).or_insert(index);
        if first != index
            && let Some((_, before)) = items.clone().nth(first)
        {
            report.add(
                "duplicate-name",
                Some(item.begins()),
                format!(
                    "{what} `{}` is defined here and at {}",
                    short(name),
                    before.begins()
                ),
                "give one of the two another `name`",
            );
        }
    }
    names
}

fn unknown(
    code: &'static str,
    section: &'static str,
    name: &str,
    place: Option<Place>,
    known: &Names<'_>,
    checks: &mut Checks<'_>,
) {
    if known.contains_key(name) || checks.broken.may_define(section, name) {
        return;
    }
    let mut words: Vec<(&str, usize)> = known.iter().map(|(name, index)| (*name, *index)).collect();
    // With many problems the likeness of each to thousands of names is not worth the wait.
    let near = if checks.report.is_short() {
        words.sort_unstable_by_key(|(_, index)| *index);
        nearest(name, words.iter().map(|(name, _)| *name))
    } else {
        None
    };
    let words: Vec<&str> = words.into_iter().map(|(name, _)| name).collect();
    checks.report.add(
        code,
        place,
        format!("there is no {section} `{}`", short(name)),
        did_you_mean(near, &format!("{section}s"), &words),
    );
}

fn names_of_route(
    route: &Item<Route>,
    listeners: &Names<'_>,
    upstreams: &Names<'_>,
    checks: &mut Checks<'_>,
) {
    let listed: &[String] = match checks.fleet {
        true => &[],
        false => &route.matches.listeners,
    };
    for name in listed {
        let place = route.place(route.matches.at);
        let bytes = listeners
            .get(name.as_str())
            .map(|index| &checks.listeners[*index]);
        if bytes.is_some_and(|listener| listener.protocol == ListenerProtocol::Tcp) {
            checks.report.add(
                "never-http",
                place.clone(),
                format!(
                    "listener `{}` relays bytes and has no requests",
                    short(name)
                ),
                "name another listener, or give that one `protocol = \"detect\"`",
            );
        }
        unknown(
            "unknown-listener",
            "listener",
            name,
            place,
            listeners,
            checks,
        );
    }
    let mut upstream = |setting: &Setting<String>| {
        if !upstreams.contains_key(setting.value.as_str()) {
            let place = route.place(setting.at);
            unknown(
                "unknown-upstream",
                "upstream",
                setting,
                place,
                upstreams,
                checks,
            );
        }
    };
    match &route.action {
        Action::Upstream(setting) => upstream(setting),
        Action::Split { branches, .. } => branches.iter().for_each(|b| upstream(&b.upstream)),
        Action::Respond { .. } | Action::Redirect { .. } => {}
    }
    if let Some(fallback) = &route.fallback
        && let FallbackAction::Upstream(setting) = &fallback.action
    {
        upstream(setting);
    }
    transcode::check(route, upstreams, checks);
}

/// Of two routes that accept the same requests, the later never gets one.
fn same_matches(names: &Names<'_>, checks: &mut Checks<'_>) {
    let mut keys: HashMap<String, &Item<Route>, RandomState> = HashMap::default();
    keys.reserve(checks.routes.len());
    for (index, route) in checks.routes.iter().enumerate() {
        let first = *keys.entry(match_key(&route.matches)).or_insert(route);
        let itself = std::ptr::eq(first, route);
        // A copy with the same name was already refused for that.
        let copy = names.get(route.name.as_str()) != Some(&index);
        if itself || copy {
            continue;
        }
        let place = route
            .place(route.matches.at)
            .unwrap_or_else(|| route.begins());
        checks.report.add(
            "unreachable-route",
            Some(place),
            format!(
                "route `{}` can never match: route `{}` at {} has the same match",
                short(&route.name),
                short(&first.name),
                first.begins()
            ),
            "take one of the two out, or let their matches differ",
        );
    }
}

fn names_of_test(
    test: &Item<Test>,
    listeners: &Names<'_>,
    upstreams: &Names<'_>,
    routes: Option<&Names<'_>>,
    checks: &mut Checks<'_>,
) {
    if let Some(name) = &test.listener
        && !checks.fleet
    {
        unknown(
            "unknown-listener",
            "listener",
            name,
            test.place(test.at),
            listeners,
            checks,
        );
    }
    if let (Some(route), Some(routes)) = (&test.expect.route, routes) {
        unknown(
            "unknown-route",
            "route",
            route,
            test.place(route.at),
            routes,
            checks,
        );
    }
    if let Some(upstream) = &test.expect.upstream {
        unknown(
            "unknown-upstream",
            "upstream",
            upstream,
            test.place(upstream.at),
            upstreams,
            checks,
        );
    }
}

/// Where the bytes of listeners go, and whether somebody knows where captured connections were going.
fn forwards(upstreams: &Names<'_>, checks: &mut Checks<'_>) {
    for listener in checks.listeners {
        let Some(Action::Upstream(setting)) = listener.forward.as_ref().map(|route| &route.action)
        else {
            continue;
        };
        if !upstreams.contains_key(setting.value.as_str()) {
            let place = listener.place(setting.at);
            unknown(
                "unknown-upstream",
                "upstream",
                setting,
                place,
                upstreams,
                checks,
            );
            continue;
        }
        let upstream = { upstreams.get(setting.value.as_str()) }.map(|at| &checks.upstreams[*at]);
        if upstream.is_some_and(|one| matches!(one.endpoints, EndpointSource::Asked { .. })) {
            checks.report.add(
                "contradiction",
                listener.place(setting.at),
                "bytes name no service, and the upstream is for whichever is named",
                "forward them to an upstream with one `service`, such as `service = \"orders\"`",
            );
        }
    }
    let captures = checks.listeners.iter().any(|listener| *listener.capture);
    if captures || checks.fleet || checks.broken.touches("listener") {
        return;
    }
    for upstream in checks.upstreams {
        if let EndpointSource::Original { at } = &upstream.endpoints {
            checks.report.add(
                "no-capture",
                upstream.place(*at),
                "no listener takes connections that were going somewhere else",
                "write `capture = true` in a listener, or list the endpoints",
            );
        }
    }
}

fn services(checks: &mut Checks<'_>) {
    if checks.control_plane || checks.broken.touches("control_plane") {
        return;
    }
    for upstream in checks.upstreams {
        let (whose, at) = match &upstream.endpoints {
            EndpointSource::Service { name, at, .. } => (format!("service `{}`", short(name)), at),
            EndpointSource::Asked { at, .. } => ("any service".to_owned(), at),
            EndpointSource::Static(_)
            | EndpointSource::Dns { .. }
            | EndpointSource::Original { .. } => continue,
        };
        checks.report.add(
            "no-control-plane",
            upstream.place(*at).or_else(|| Some(upstream.begins())),
            format!("nobody can say where the instances of {whose} are"),
            "add `[control_plane]` with `urls = [\"http://127.0.0.1:8080\"]`",
        );
    }
}

/// What a template makes is called `template:service`; nothing else may be.
fn templates(checks: &mut Checks<'_>) {
    let is_template =
        |item: &&Item<Upstream>| matches!(item.endpoints, EndpointSource::Asked { .. });
    for template in checks.upstreams.iter().filter(is_template) {
        let is_taken = |name: &str| {
            let rest = name.strip_prefix(template.name.as_str());
            rest.is_some_and(|rest| rest.starts_with(':'))
        };
        for item in checks.upstreams.iter().filter(|item| is_taken(&item.name)) {
            checks.report.add(
                "duplicate-name",
                Some(item.begins()),
                format!(
                    "upstream `{}` is called like what `{}` at {} makes of a service",
                    short(&item.name),
                    short(&template.name),
                    template.begins()
                ),
                "give one of the two another `name`",
            );
        }
    }
}

fn addresses(checks: &mut Checks<'_>) {
    let mut seen: HashMap<std::net::SocketAddr, Place> = HashMap::new();
    if let Some((Some(admin), place)) = &checks.admin {
        seen.insert(*admin, place.clone());
    }
    for listener in checks.listeners.iter().filter(|l| l.bind.port() != 0) {
        match seen.get(&listener.bind) {
            Some(before) => checks.report.add(
                "duplicate-bind",
                Some(listener.begins()),
                format!("{} is taken here and at {before}", listener.bind),
                "give one of the two another address or port",
            ),
            None => {
                seen.insert(listener.bind, listener.begins());
            }
        }
    }
}

/// Certificates, keys and authorities. Read anew at every load: they change without a word of the document changing.
fn files(checks: &mut Checks<'_>) {
    let mut wanted: Vec<(&Path, bool, Option<Place>)> = Vec::new();
    for listener in checks.listeners {
        let Some(tls) = &listener.tls else { continue };
        let place = listener.place(tls.at);
        for certificate in &tls.certificates {
            wanted.push((&certificate.cert, false, place.clone()));
            wanted.push((&certificate.key, true, place.clone()));
        }
        wanted.extend(
            tls.client_ca
                .iter()
                .map(|ca| (ca.as_path(), false, place.clone())),
        );
    }
    for upstream in checks.upstreams {
        let Some(tls) = &upstream.tls else { continue };
        let place = upstream.place(tls.at);
        let files = [(&tls.ca, false), (&tls.cert, false), (&tls.key, true)];
        let files = files
            .into_iter()
            .filter_map(|(path, key)| path.as_deref().map(|p| (p, key)));
        wanted.extend(files.map(|(path, key)| (path, key, place.clone())));
    }
    wanted.extend(transcode::files(checks.routes));
    wanted.extend({ checks.identity }.into_iter().flat_map(identity::files));
    if let Some((Some(sharing), place)) = checks.sharing
        && let (Some(ca), Some(store)) = (&sharing.ca, sharing.store.redis())
        && store.tls
    {
        wanted.push((ca, false, Some(place.clone())));
    }
    if let Some((
        Telemetry {
            traces: Some(traces),
            ..
        },
        place,
    )) = checks.telemetry
    {
        let ca = traces.ca.as_deref().filter(|_| traces.otlp.url.encrypted);
        wanted.extend(ca.map(|ca| (ca, false, Some(place.clone()))));
    }
    for item in checks.jwts {
        // A file with a key may hold a secret one.
        let files = item.keys.iter().filter_map(|key| match &key.source {
            KeySource::File(path) => Some((path.as_path(), true, item.place(key.at))),
            KeySource::Secret(_) => None,
        });
        wanted.extend(files);
        let ca = item.jwks.iter().filter(|jwks| jwks.url.encrypted);
        let ca = ca.filter_map(|jwks| jwks.ca.as_deref());
        wanted.extend(ca.map(|path| (path, false, item.place(item.at))));
    }
    let mut known: HashMap<&Path, Option<String>> = HashMap::new();
    for (path, is_key, place) in wanted {
        let read = &mut checks.read;
        let why = known.entry(path).or_insert_with(|| match content(path) {
            Ok(content) if is_key => {
                let hash = checks.seed.hash_one((path, content));
                checks.keys = checks.keys.wrapping_add(hash);
                read.push((path.to_owned(), Vec::new()));
                None
            }
            Ok(content) => {
                read.push((path.to_owned(), content));
                None
            }
            Err(why) => Some(why),
        });
        if let Some(why) = why {
            checks.report.add(
                "missing-file",
                place,
                format!("{} cannot be read: {why}", path.display()),
                "correct the path, which is relative to the file that it stands in, or the file's permissions",
            );
        }
    }
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    let about = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !about.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    std::fs::read(path).map_err(|e| e.to_string())
}
