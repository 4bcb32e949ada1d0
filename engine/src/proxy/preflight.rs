//! Preflights of browsers (GW-805): the route that counts is that of the request which is to come, so a route needs no
//! `OPTIONS` among its methods for its `cors` to answer.

use crate::exchange::Request;
use crate::filter::cors::preflight_of;
use crate::route::{Found, Lookup, RouteId};
use crate::snapshot::Snapshot;

/// The route that answers this preflight; `None`: it is none, or a request like any other.
pub(super) fn route(world: &Snapshot, request: &Request, lookup: &Lookup<'_>) -> Option<RouteId> {
    let method = preflight_of(request)?;
    let coming = Lookup {
        method: &method,
        ..*lookup
    };
    match world.table.find(&coming) {
        Found::Route(id) if world.route(id).compiled.chain.has_cors() => Some(id),
        _ => None,
    }
}
