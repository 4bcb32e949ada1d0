//! Which branch of a split a request takes: by weight, or always the same one for the same client.

use http::HeaderValue;
use tollgate_config::Sticky;
use xxhash_rust::xxh3::xxh3_64;

use super::connection::Connection;
use crate::exchange::Request;
use crate::snapshot::CompiledRoute;

/// `random` is uniform over all of `u64`. A sticky choice without its key falls back to it. The same key takes the
/// same branch in every worker, process and release: the hash is fixed.
pub(super) fn choose(
    route: &CompiledRoute,
    sticky: Option<&Sticky>,
    request: &Request,
    connection: &Connection,
    random: u64,
) -> usize {
    let point = sticky
        .and_then(|sticky| key(sticky, request, connection))
        .unwrap_or(random);
    let mut left = ((u128::from(point) * u128::from(route.total_weight)) >> 64) as u32;
    for (index, branch) in route.choices().iter().enumerate() {
        match left.checked_sub(branch.weight) {
            Some(rest) => left = rest,
            None => return index,
        }
    }
    route.choices().len().saturating_sub(1)
}

fn key(sticky: &Sticky, request: &Request, connection: &Connection) -> Option<u64> {
    match sticky {
        Sticky::Header(name) => request
            .headers
            .get(name)
            .map(|value| xxh3_64(value.as_bytes())),
        Sticky::Cookie(name) => cookie(request, name).map(xxh3_64),
        Sticky::Client => Some(xxh3_64(connection.peer_text.as_bytes())),
    }
}

/// A cookie's value.
pub(super) fn cookie<'r>(request: &'r Request, name: &str) -> Option<&'r [u8]> {
    let lines = request
        .headers
        .get_all(http::header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes);
    lines
        .flat_map(|line| line.split(|b| *b == b';'))
        .find_map(|pair| {
            let (key, value) = pair.trim_ascii().split_at_checked(name.len())?;
            (key == name.as_bytes())
                .then(|| value.strip_prefix(b"="))
                .flatten()
        })
}
