//! Which services may call (MESH-401, MESH-402): the rules of `[[access]]` about this node's service, found by the
//! caller's name. Made when a document is loaded; to judge a call takes one look-up and no memory. What no rule allows is
//! refused; who is told why is a member of the mesh, for others the code says enough. Knows no sockets and counts
//! nothing: the books count what was found here.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::Method;
use serde::Serialize;
use tollgate_config::identity::SpiffeId;
use tollgate_config::path::PathPattern;
use tollgate_config::{
    self as config, AccessMode, At, DEFAULT_NAMESPACE, Document, Item, Member, Route, Wanted,
};

use super::jwt::Identity;
use crate::exchange::error::{Code, Error};
use crate::route::Captures;
use crate::telemetry::metrics::{AccessSeries, Metrics};

/// The rules about one service.
#[derive(Debug, Default)]
pub struct Access {
    /// What they were made of.
    items: Vec<Item<config::Access>>,
    callee: Option<Member>,
    /// Those about the callee, in the order of the document.
    rules: Box<[Rule]>,
    /// Which of them name a service by its name, or any, in order.
    by_service: HashMap<Box<str>, Box<[u32]>, RandomState>,
    /// Which name any.
    open: Box<[u32]>,
}

#[derive(Debug)]
pub struct Rule {
    pub item: Item<config::Access>,
    pub series: Arc<AccessSeries>,
}

/// A call to judge.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Namespace and service, proven; `None`: nobody that is known.
    pub caller: Option<(&'a str, &'a str)>,
    pub method: &'a Method,
    /// In normal form.
    pub path: &'a str,
    /// A connection whose bytes nobody reads here: a rule that asks for more than a caller does not fit.
    pub is_bytes: bool,
    /// Whom a token named.
    pub person: Option<&'a Identity>,
}

/// What the rules said to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Met {
    #[default]
    Unasked,
    /// By the rule of this number.
    Allowed(u32),
    /// None allows it; the rule of this number is about what was asked, but not for this caller.
    Refused(Option<u32>, AccessMode),
}

/// How one rule stands to a call, for explanations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Allows,
    OtherCaller,
    OtherMethod,
    OtherPath,
    /// A token must say more of the person.
    OtherPerson,
}

impl Standing {
    pub fn words(self) -> &'static str {
        match self {
            Standing::Allows => "allows it",
            Standing::OtherCaller => "is for other callers",
            Standing::OtherMethod => "is for other methods",
            Standing::OtherPath => "is for other paths",
            Standing::OtherPerson => "needs a token that says more of the person",
        }
    }
}

impl<'a> Call<'a> {
    pub fn names(id: &'a SpiffeId) -> (&'a str, &'a str) {
        (id.namespace(), id.service())
    }
}

impl Access {
    /// The rules of a document about `callee`; the former ones when they are the same.
    pub fn compile(
        document: &Document,
        callee: Option<Member>,
        former: Option<&Arc<Access>>,
        metrics: &Metrics,
    ) -> Arc<Access> {
        if let Some(former) = former
            && former.callee == callee
            && is_same(&former.items, &document.accesses)
        {
            return former.clone();
        }
        let about = |item: &&Item<config::Access>| item.is_about(callee.as_ref());
        let rules: Box<[Rule]> = { document.accesses.iter() }
            .filter(about)
            .map(|item| Rule {
                item: item.clone(),
                series: metrics.access(&item.name),
            })
            .collect();
        let mut by_service: HashMap<Box<str>, Vec<u32>, RandomState> = HashMap::default();
        let mut open = Vec::new();
        for (rule, number) in rules.iter().zip(0..) {
            let mut names = rule.item.from.iter().map(|from| &from.service);
            if names.any(|service| *service == Wanted::Any) {
                open.push(number);
            }
            for from in &rule.item.from {
                if let Wanted::Only(name) = &from.service {
                    by_service.entry(name.as_str().into()).or_default();
                }
            }
        }
        for (name, numbers) in &mut by_service {
            let names = |rule: &Rule| rule.item.from.iter().any(|from| from.service.fits(name));
            let fitting = rules.iter().zip(0..).filter(|(rule, _)| names(rule));
            numbers.extend(fitting.map(|(_, number)| number));
        }
        let by_service = by_service.into_iter();
        Arc::new(Access {
            items: document.accesses.clone(),
            callee,
            rules,
            by_service: by_service
                .map(|(name, numbers)| (name, numbers.into()))
                .collect(),
            open: open.into(),
        })
    }

    /// Who is called.
    pub fn callee(&self) -> Option<&Member> {
        self.callee.as_ref()
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    pub fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(number as usize)
    }

    fn home(&self) -> &str {
        { self.callee.as_ref() }.map_or(DEFAULT_NAMESPACE, |callee| &callee.namespace)
    }

    /// The first rule that allows the call.
    pub fn allows(&self, call: &Call<'_>) -> Option<u32> {
        let (_, service) = call.caller?;
        let numbers = self.by_service.get(service).unwrap_or(&self.open);
        let allows = |number: &&u32| {
            let rule = self.rule(**number);
            rule.is_some_and(|rule| self.standing(rule, call) == Standing::Allows)
        };
        numbers.iter().find(allows).copied()
    }

    /// What one rule says to a call.
    pub fn standing(&self, rule: &Rule, call: &Call<'_>) -> Standing {
        let item = &rule.item;
        if call.is_bytes && !item.paths.is_empty() || !fits_path(&item.paths, call.path) {
            return Standing::OtherPath;
        }
        if !item.methods.is_empty() && !item.methods.contains(call.method) {
            return Standing::OtherMethod;
        }
        let known = call.caller.is_some_and(|(namespace, service)| {
            let mut from = item.from.iter();
            from.any(|from| from.fits(namespace, service, self.home()))
        });
        if !known {
            return Standing::OtherCaller;
        }
        if !fits_person(item, call.person) {
            return Standing::OtherPerson;
        }
        Standing::Allows
    }

    /// Judges a call. A refusal names the rule that comes nearest.
    pub(super) fn ask(
        &self,
        call: &Call<'_>,
        (mode, at): (AccessMode, At),
        met: &mut Met,
        route: &Item<Route>,
    ) -> Result<(), Error> {
        if let Some(number) = self.allows(call) {
            *met = Met::Allowed(number);
            return Ok(());
        }
        let near = self.nearest(call);
        *met = Met::Refused(near, mode);
        match mode {
            AccessMode::Audit => Ok(()),
            AccessMode::Enforce => Err(self.refusal(call, near, at, route)),
        }
    }

    /// Of the rules about what is asked, the one that is nearest to allowing it.
    fn nearest(&self, call: &Call<'_>) -> Option<u32> {
        let standings = self.rules.iter().map(|rule| self.standing(rule, call));
        let near = standings.zip(0..).filter_map(|(standing, number)| {
            let far = match standing {
                Standing::OtherPerson | Standing::Allows => 0,
                Standing::OtherCaller => 1,
                Standing::OtherMethod | Standing::OtherPath => return None,
            };
            Some((far, number))
        });
        near.min().map(|(_, number)| number)
    }

    fn refusal(&self, call: &Call<'_>, near: Option<u32>, at: At, route: &Item<Route>) -> Error {
        let own = "route.filters.access";
        let place = route.place(at).or_else(|| Some(route.begins()));
        let Some((namespace, service)) = call.caller else {
            let why = "no certificate of a member, and a rule must name who calls";
            return Error {
                cause: Some(why.into()),
                ..Error::governed_by(Code::AccessDenied, own, "enforce".into(), place)
            };
        };
        let mut told = format!("no access rule lets {namespace}/{service} ");
        let _infallible = match call.is_bytes {
            true => write!(told, "send bytes"),
            false => write!(told, "{} {}", call.method, shown(call.path)),
        };
        if let Some(callee) = &self.callee {
            let _infallible = write!(told, " of {callee}");
        }
        let near = near.and_then(|number| self.rule(number));
        let Some(rule) = near else {
            told.push_str("; none is about that");
            let error = Error::governed_by(Code::AccessDenied, own, "enforce".into(), place);
            return Error {
                cause: Some(told.as_str().into()),
                ..error.with_detail(&told)
            };
        };
        let item = &rule.item;
        let _infallible = write!(told, "; rule `{}` is nearest: {}", item.name, **item);
        let (name, place) = (item.name.clone(), item.begins());
        Error {
            cause: Some(format!("{told} ({place})").into()),
            ..Error::governed_by(Code::AccessDenied, "access", name, Some(place)).with_detail(&told)
        }
    }
}

/// As much of a path as a sentence takes.
fn shown(path: &str) -> std::borrow::Cow<'_, str> {
    match path.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", path.get(..end).unwrap_or_default()).into(),
        None => path.into(),
    }
}

fn fits_path(patterns: &[PathPattern], path: &str) -> bool {
    let fits = |pattern: &PathPattern| Captures::of(pattern, path).is_some();
    patterns.is_empty() || patterns.iter().any(fits)
}

fn fits_person(rule: &config::Access, person: Option<&Identity>) -> bool {
    if !rule.asks_who() {
        return true;
    }
    let Some(person) = person else { return false };
    let has = |(claim, values): &(String, Vec<String>)| {
        let claimed = person.claim(claim);
        claimed.is_some_and(|claimed| values.iter().any(|value| value == claimed))
    };
    (rule.roles.is_empty() || rule.roles.iter().any(|role| person.has_role(role)))
        && rule.permissions.iter().all(|one| person.may(one))
        && rule.claims.iter().all(has)
}

/// The same rules in the same places.
fn is_same(ours: &[Item<config::Access>], theirs: &[Item<config::Access>]) -> bool {
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|(a, b)| {
            a.line == b.line && a.file == b.file && (Arc::ptr_eq(&a.value, &b.value) || **a == **b)
        })
}

#[cfg(test)]
mod tests;
