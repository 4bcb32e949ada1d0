//! Which route a request takes: host, then path, then method, headers and query; the most specific wins.
//!
//! A `Table` is built from a document, never changed afterwards, and shared by all workers. A lookup costs the same
//! in a table of ten routes and of ten thousand, and allocates nothing for a hit. This room decides and explains; it
//! sends nothing, counts nothing, and knows routes only by their number. Paths come in normal form
//! (`tollgate_config::path`), and what is sent upstream after a rewrite is in normal form again.

mod explain;
mod host;
mod matcher;
mod rewrite;
mod table;
mod trie;

pub use explain::{Considered, Explanation, Outcome, Verdict};
pub use host::normal_host;
pub use matcher::{ListenerIndex, Lookup, RouteId, same_match};
pub use rewrite::{Captures, RewriteError, redirect_target, rewritten};
pub use table::{Allow, Found, Table};

/// The path pattern of a route, when it has one that captures can come from.
pub fn pattern_of(matches: &tollgate_config::Match) -> Option<&tollgate_config::path::PathPattern> {
    match &matches.path {
        Some(tollgate_config::PathMatch::Pattern(pattern)) => Some(pattern),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
