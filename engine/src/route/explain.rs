//! Why a request takes the route it takes, and why not the others. Built from the same walk and the same checks as a
//! lookup, so it cannot tell another story; made for people, and therefore in no hurry.

use std::fmt;

use serde::Serialize;

use super::host::normal_host;
use super::matcher::{Lookup, Miss, RouteId};
use super::table::{ANY_HOST, Found, PathPlace, Place, Table};

/// What a lookup looked at, in its order, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// As it was compared.
    pub host: String,
    pub path: String,
    pub outcome: Outcome,
    /// Routes whose host and path match, most specific first.
    pub candidates: Vec<Considered>,
    /// All others, by number.
    pub others: Vec<Considered>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    Route { route: RouteId },
    MethodNotAllowed { allow: String },
    NotFound,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Considered {
    pub route: RouteId,
    /// `example.com`, `*.example.com`, or `any host`.
    pub host: String,
    /// Captures without their names (`/orders/{}`), a regular expression, or `any path`.
    pub path: String,
    /// What makes it more or less specific than its neighbours, most important first.
    pub specificity: String,
    #[serde(flatten)]
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    Wins,
    /// It fits, but something more specific does too.
    LessSpecific,
    OtherListener,
    OtherMethod,
    Header {
        name: String,
    },
    Query {
        name: String,
    },
    OtherPath,
    OtherHost,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Wins => f.write_str("matches, and is the most specific that does"),
            Verdict::LessSpecific => f.write_str("matches, but is less specific"),
            Verdict::OtherListener => f.write_str("is for another listener"),
            Verdict::OtherMethod => f.write_str("does not take this method"),
            Verdict::Header { name } => write!(f, "header {name} does not fit"),
            Verdict::Query { name } => write!(f, "query {name} does not fit"),
            Verdict::OtherPath => f.write_str("path does not fit"),
            Verdict::OtherHost => f.write_str("host does not fit"),
        }
    }
}

impl Table {
    /// The story of a lookup.
    pub fn explain(&self, lookup: &Lookup<'_>) -> Explanation {
        let hosts = self.host_names();
        let considered = |at: usize, verdict| {
            let place = self.places[at];
            Considered {
                route: self.candidates[at].route,
                host: hosts[place.site as usize].clone(),
                path: self.path_words(place),
                specificity: self.specificity(at),
                verdict,
            }
        };
        let mut won = false;
        let mut seen = vec![false; self.candidates.len()];
        let mut candidates = Vec::new();
        self.walk_all(lookup, |at| {
            seen[at] = true;
            let verdict = match self.candidates[at].check(lookup) {
                Ok(()) if won => Verdict::LessSpecific,
                Ok(()) => Verdict::Wins,
                Err(Miss::Listener) => Verdict::OtherListener,
                Err(Miss::Method) => Verdict::OtherMethod,
                Err(Miss::Header(name)) => Verdict::Header {
                    name: name.to_string(),
                },
                Err(Miss::Query(name)) => Verdict::Query {
                    name: name.to_owned(),
                },
            };
            won |= verdict == Verdict::Wins;
            candidates.push(considered(at, verdict));
        });
        let host = normal_host(lookup.host);
        let mut others: Vec<_> = (0..seen.len())
            .filter(|at| !seen[*at])
            .map(|at| {
                let matches_host = self.site_matches(self.places[at].site, &host);
                considered(
                    at,
                    if matches_host {
                        Verdict::OtherPath
                    } else {
                        Verdict::OtherHost
                    },
                )
            })
            .collect();
        others.sort_by_key(|other| other.route);
        let outcome = match self.find(lookup) {
            Found::Route(route) => Outcome::Route { route },
            Found::MethodNotAllowed(allow) => Outcome::MethodNotAllowed {
                allow: allow.header(),
            },
            Found::NotFound => Outcome::NotFound,
        };
        Explanation {
            host: host.into_owned(),
            path: lookup.path.to_owned(),
            outcome,
            candidates,
            others,
        }
    }

    fn site_matches(&self, site: u32, host: &str) -> bool {
        site == ANY_HOST || self.sites_of(host).any(|one| one == site)
    }

    fn host_names(&self) -> Vec<String> {
        let mut names = vec!["any host".to_owned(); self.sites.len()];
        for (name, site) in &self.exact {
            names[*site as usize] = name.to_string();
        }
        for (name, site) in &self.wildcards {
            names[*site as usize] = format!("*.{name}");
        }
        names
    }

    fn path_words(&self, place: Place) -> String {
        match place.path {
            PathPlace::Node(node, end) => self.trie.describe(node, end),
            PathPlace::Regex(regex) => self.regexes[regex as usize].to_string(),
            PathPlace::Anywhere => "any path".to_owned(),
        }
    }

    fn specificity(&self, at: usize) -> String {
        let (candidate, place) = (&self.candidates[at], self.places[at]);
        let host = match place.site {
            ANY_HOST => "any host",
            site if self.exact.values().any(|exact| *exact == site) => "exact host",
            _ => "wildcard host",
        };
        let path = match place.path {
            PathPlace::Node(..) => "path pattern",
            PathPlace::Regex(_) => "path regex",
            PathPlace::Anywhere => "any path",
        };
        let mut words = vec![host.to_owned(), path.to_owned()];
        if candidate.names_methods() {
            words.push("methods".to_owned());
        }
        let (headers, query) = candidate.predicate_counts();
        for (count, what) in [(headers, "header"), (query, "query")] {
            if count > 0 {
                words.push(format!(
                    "{count} {what} predicate{}",
                    if count == 1 { "" } else { "s" }
                ));
            }
        }
        if candidate.names_listeners() {
            words.push("listener".to_owned());
        }
        words.join(", ")
    }
}
