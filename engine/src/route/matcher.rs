//! What a route asks of a request besides host and path: listener, method, headers, query.
//!
//! A `Candidate` answers one question, "does this request fit, and if not, at what?", for lookups and for explanations
//! alike. Nothing is parsed before a predicate needs it, and a request without predicates to meet touches no header.

use std::borrow::Cow;

use http::header::HeaderName;
use http::{HeaderMap, Method};
use serde::Serialize;
use tollgate_config::{Match, PathMatch, ValueMatch};

use crate::exchange::header_fits;

/// The number a route bears in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RouteId(pub u32);

/// Where a listener stands among the names a table was built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerIndex(pub u16);

/// What a table needs to know of a request.
#[derive(Debug, Clone, Copy)]
pub struct Lookup<'a> {
    pub listener: ListenerIndex,
    /// The authority or `host` header as it came, with port, dot and letter case; empty when there was none.
    pub host: &'a str,
    /// In normal form.
    pub path: &'a str,
    /// As it came, without the `?`.
    pub query: Option<&'a str>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
}

/// The first thing a request lacks for a candidate whose host and path match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss<'a> {
    Listener,
    Method,
    Header(&'a HeaderName),
    Query(&'a str),
}

/// A route, as far as it is decided behind host and path.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) route: RouteId,
    /// Which regular expression of the table leads here; only read where candidates stand behind one.
    pub(super) regex: u32,
    methods: Methods,
    /// `None` = every listener.
    listeners: Option<Box<[u16]>>,
    /// Most routes have none.
    predicates: Option<Box<Predicates>>,
}

#[derive(Debug)]
struct Predicates {
    headers: Box<[(HeaderName, ValueMatch)]>,
    query: Box<[(String, ValueMatch)]>,
}

/// Whether two routes ask the same of a request, in the same words.
pub fn same_match(a: &Match, b: &Match) -> bool {
    let value = |a: &ValueMatch, b: &ValueMatch| match (a, b) {
        (ValueMatch::Exact(a), ValueMatch::Exact(b)) => a == b,
        (ValueMatch::Present, ValueMatch::Present) => true,
        (ValueMatch::Regex(a), ValueMatch::Regex(b)) => a.as_str() == b.as_str(),
        _ => false,
    };
    let path = match (&a.path, &b.path) {
        (Some(PathMatch::Regex(a)), Some(PathMatch::Regex(b))) => a.as_str() == b.as_str(),
        (Some(PathMatch::Pattern(a)), Some(PathMatch::Pattern(b))) => a == b,
        (a, b) => a.is_none() && b.is_none(),
    };
    path && (&a.host, &a.methods, &a.listeners) == (&b.host, &b.methods, &b.listeners)
        && a.headers.len() == b.headers.len()
        && a.query.len() == b.query.len()
        && { a.headers.iter().zip(&b.headers) }.all(|(a, b)| a.0 == b.0 && value(&a.1, &b.1))
        && { a.query.iter().zip(&b.query) }.all(|(a, b)| a.0 == b.0 && value(&a.1, &b.1))
}

impl Candidate {
    pub(super) fn new(
        route: RouteId,
        matches: &Match,
        listeners: &[String],
        regex: u32,
    ) -> Candidate {
        let predicates = (!matches.headers.is_empty() || !matches.query.is_empty()).then(|| {
            Box::new(Predicates {
                headers: matches.headers.clone().into(),
                query: matches.query.clone().into(),
            })
        });
        let index_of = |name: &String| {
            listeners
                .iter()
                .position(|l| l == name)
                .and_then(|at| u16::try_from(at).ok())
        };
        Candidate {
            route,
            regex,
            methods: Methods::new(&matches.methods),
            listeners: (!matches.listeners.is_empty())
                .then(|| matches.listeners.iter().filter_map(index_of).collect()),
            predicates,
        }
    }

    /// Whether everything but host and path fits; the order of the questions is the order of their cost.
    pub(super) fn check(&self, lookup: &Lookup<'_>) -> Result<(), Miss<'_>> {
        if !self.hears(lookup.listener) {
            return Err(Miss::Listener);
        }
        if !self.methods.contains(lookup.method) {
            return Err(Miss::Method);
        }
        let Some(predicates) = &self.predicates else {
            return Ok(());
        };
        if let Some((name, _)) = predicates
            .headers
            .iter()
            .find(|(name, value)| !header_fits(lookup.headers, name, value))
        {
            return Err(Miss::Header(name));
        }
        let query = lookup.query.unwrap_or_default();
        if let Some((name, _)) = predicates
            .query
            .iter()
            .find(|(name, value)| !query_fits(query, name, value))
        {
            return Err(Miss::Query(name));
        }
        Ok(())
    }

    /// Whether the route is there on a listener at all.
    pub(super) fn hears(&self, listener: ListenerIndex) -> bool {
        self.listeners
            .as_ref()
            .is_none_or(|listeners| listeners.contains(&listener.0))
    }

    /// The methods it names; none means it takes every method.
    pub(super) fn methods(&self) -> impl Iterator<Item = Method> {
        let known = KNOWN
            .iter()
            .enumerate()
            .filter(|(at, _)| self.methods.known != ANY && self.methods.known & 1 << at != 0);
        known
            .map(|(_, method)| method.clone())
            .chain(self.methods.others.iter().cloned())
    }

    pub(super) fn predicate_counts(&self) -> (usize, usize) {
        self.predicates
            .as_ref()
            .map_or((0, 0), |p| (p.headers.len(), p.query.len()))
    }

    pub(super) fn names_methods(&self) -> bool {
        self.methods.known != ANY
    }

    pub(super) fn names_listeners(&self) -> bool {
        self.listeners.is_some()
    }
}

/// How specific a match is behind host and path; smaller is more specific. The order in the file comes after it.
pub(super) fn rank(matches: &Match) -> u32 {
    let inverted = |count: usize| 0xff - count.min(0xff) as u32;
    u32::from(matches.methods.is_empty()) << 17
        | inverted(matches.headers.len()) << 9
        | inverted(matches.query.len()) << 1
        | u32::from(matches.listeners.is_empty())
}

/// Common methods are bits: comparing them costs no string.
#[derive(Debug)]
struct Methods {
    known: u16,
    others: Box<[Method]>,
}

const ANY: u16 = u16::MAX;
const KNOWN: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::CONNECT,
    Method::TRACE,
];

fn bit(method: &Method) -> u16 {
    KNOWN
        .iter()
        .position(|known| known == method)
        .map_or(0, |at| 1 << at)
}

impl Methods {
    fn new(methods: &[Method]) -> Methods {
        if methods.is_empty() {
            return Methods {
                known: ANY,
                others: Box::default(),
            };
        }
        Methods {
            known: methods.iter().map(bit).fold(0, |all, one| all | one),
            others: methods
                .iter()
                .filter(|method| bit(method) == 0)
                .cloned()
                .collect(),
        }
    }

    fn contains(&self, method: &Method) -> bool {
        self.known == ANY
            || match bit(method) {
                0 => self.others.contains(method),
                bit => self.known & bit != 0,
            }
    }
}

/// Any of several parameters of that name may fit.
fn query_fits(query: &str, name: &str, wanted: &ValueMatch) -> bool {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .any(|part| {
            let (raw_name, raw_value) = part.split_once('=').unwrap_or((part, ""));
            decoded(raw_name).eq(name.bytes())
                && match wanted {
                    ValueMatch::Present => true,
                    ValueMatch::Exact(text) => decoded(raw_value).eq(text.bytes()),
                    ValueMatch::Regex(regex) => {
                        decoded_text(raw_value).is_some_and(|text| regex.is_match(&text))
                    }
                }
        })
}

/// The bytes a form-encoded text stands for: `+` is a space, and a `%` without two digits is itself.
fn decoded(raw: &str) -> impl Iterator<Item = u8> {
    let bytes = raw.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *bytes.get(at)?;
        at += 1;
        if byte == b'+' {
            return Some(b' ');
        }
        if byte == b'%'
            && let Some([high, low]) = bytes.get(at..at + 2)
            && let (Some(high), Some(low)) = (
                char::from(*high).to_digit(16),
                char::from(*low).to_digit(16),
            )
        {
            at += 2;
            return u8::try_from(high << 4 | low).ok();
        }
        Some(byte)
    })
}

fn decoded_text(raw: &str) -> Option<Cow<'_, str>> {
    if memchr::memchr2(b'%', b'+', raw.as_bytes()).is_none() {
        return Some(Cow::Borrowed(raw));
    }
    String::from_utf8(decoded(raw).collect())
        .ok()
        .map(Cow::Owned)
}
