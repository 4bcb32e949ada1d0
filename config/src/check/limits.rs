//! Limits, tiers and keys in the whole document: names that filters and keys use, and keys that stand twice.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::{Checks, Names, unique, unknown};
use crate::document::*;
use crate::unit::short;

pub(super) fn check(checks: &mut Checks<'_>) {
    let limits = unique(
        "limit",
        checks.limits.iter().map(|item| (item.name.as_str(), item)),
        checks.report,
    );
    unique(
        "tier",
        checks.tiers.iter().map(|item| (item.name.as_str(), item)),
        checks.report,
    );
    keys(checks);
    let (items, routes) = (checks.limits, checks.routes);
    for route in routes {
        for filter in &route.filters {
            match &filter.value {
                Filter::RateLimit(RateLimit::Named(name)) => {
                    let place = route.place(filter.at);
                    unknown("unknown-limit", "limit", name, place, &limits, checks);
                }
                Filter::ApiKey(ApiKeyUse::Required) if without_keys(checks) => {
                    checks.report.add(
                        "no-key",
                        route.place(filter.at),
                        "the document has no key, so nobody could pass",
                        "add an `[[api_key]]`, or write `{ api_key = \"optional\" }`",
                    );
                }
                Filter::RateLimit(RateLimit::Own(bucket)) if bucket.by == LimitBy::ApiKey => {
                    by_key(route.place(filter.at), checks);
                }
                _ => {}
            }
        }
    }
    if let Some((Some(sharing), place)) = checks.sharing
        && sharing.store.redis().is_none()
        && !checks.control_plane
        && !checks.broken.touches("control_plane")
    {
        checks.report.add(
            "no-control-plane",
            Some(place.clone()),
            "limits are shared through the control plane, but the document has no `[control_plane]`",
            "write `[control_plane]` with `urls = [\"http://HOST:PORT\"]`, or `store = \"redis://HOST:PORT\"` here",
        );
    }
    for item in items {
        if item.shared
            && !checks.fleet
            && !checks.control_plane
            && checks.sharing.is_none()
            && !checks.broken.touches("limits")
            && !checks.broken.touches("control_plane")
        {
            checks.report.add(
                "no-store",
                Some(item.begins()),
                "the limit is shared, but the document names neither a control plane nor a store to share it through",
                "write `[control_plane]`, or `[limits]` with `store = \"redis://HOST:PORT\"`, or take `shared` out",
            );
        }
        if item.what.by == LimitBy::ApiKey {
            by_key(Some(item.begins()), checks);
        }
    }
}

fn without_keys(checks: &Checks<'_>) -> bool {
    checks.api_keys.is_empty() && !checks.broken.touches("api_key")
}

/// Clients that are told apart by keys that nobody has would all be told apart by address, which can be said.
fn by_key(place: Option<Place>, checks: &mut Checks<'_>) {
    if without_keys(checks) {
        checks.report.add(
            "no-key",
            place,
            "the limit tells clients apart by their keys, but the document has no key",
            "add an `[[api_key]]`, or write `by = \"client_ip\"`",
        );
    }
}

fn keys(checks: &mut Checks<'_>) {
    let shipped = Tier::shipped();
    let written = checks.tiers.iter().map(|item| item.name.as_str());
    let tiers: Names<'_> = written
        .chain(shipped.iter().map(|tier| tier.name.as_str()))
        .enumerate()
        .map(|(index, name)| (name, index))
        .collect();
    let mut hashes: HashMap<KeyHash, Place, RandomState> = HashMap::default();
    let mut clients: HashMap<&str, (&str, Place), RandomState> = HashMap::default();
    let mut told: HashSet<&str, RandomState> = HashSet::default();
    for item in checks.api_keys {
        unknown(
            "unknown-tier",
            "tier",
            &item.tier,
            item.place(item.tier.at).or_else(|| Some(item.begins())),
            &tiers,
            checks,
        );
        if let Some(before) = hashes.insert(item.key, item.begins()) {
            checks.report.add(
                "duplicate-key",
                Some(item.begins()),
                format!("this key stands here and at {before}"),
                "give each client a key of its own; take one of the two out",
            );
        }
        let (tier, before) = clients
            .entry(&item.client)
            .or_insert_with(|| (&item.tier.value, item.begins()));
        if *tier != item.tier.value && told.insert(&item.client) {
            checks.report.add(
                "contradiction",
                Some(item.begins()),
                format!(
                    "client `{}` is of tier `{}` here and of tier `{}` at {before}",
                    short(&item.client),
                    short(&item.tier.value),
                    short(tier)
                ),
                "a client has one bucket and one quota, so all its keys must be of one tier",
            );
        }
    }
}
