//! Limits, tiers and keys: how much, for whom.

use std::path::Path;

use super::{at, count, duration, file, or_off, parsed, setting, setting_text, store, text};
use crate::document::*;
use crate::parse::Node;
use crate::report::ItemReport;
use crate::rule;
use crate::unit::{LONGEST, Rate};

pub(crate) fn limit(node: &Node, report: &mut ItemReport<'_>) -> Option<Limit> {
    let name = text(node, "name")?.to_owned();
    if name == "tiers" {
        report.add(
            "reserved-name",
            node.get("name")?.spot,
            "`tiers` cannot be the name of a limit: a filter that says so means the caller's tier",
            "give the limit another name",
        );
    }
    Some(Limit {
        name,
        what: bucket(node, report)?,
        shared: node.get("shared").and_then(Node::flag).unwrap_or(false),
    })
}

/// `[limits]`. Problems with the store's URL point at the section's header, because a problem shows the line that it is
/// about, and the URL may hold a password.
pub(crate) fn sharing(node: &Node, folder: &Path, report: &mut ItemReport<'_>) -> Option<Sharing> {
    let usual = Sharing::default();
    let store = match text(node, "store").map(store::store) {
        None if node.get("store").is_some() => return None,
        None => SharedStore::ControlPlane,
        Some(Ok(store)) => store,
        Some(Err(why)) => {
            report.add(
                "bad-store",
                (0, 1),
                format!("`store` is not the URL of a store: {why}"),
                "write \"redis://HOST:PORT\" or \"redis://:PASSWORD@HOST:PORT/DATABASE\", or `rediss` for TLS; or \"control-plane\"",
            );
            return None;
        }
    };
    let ca = file(node, "ca", folder);
    let told = match &store {
        SharedStore::ControlPlane => Some((
            "`ca` says nothing of the control plane, which is who lends here",
            "write it as `tls = { ca = … }` in `[control_plane]`, or name a store \"rediss://…\"",
        )),
        SharedStore::Redis(url) if !url.tls => Some((
            "`ca` says nothing of a store that is reached without TLS",
            "write \"rediss://…\", or take `ca` out",
        )),
        SharedStore::Redis(_) => None,
    };
    if let (true, Some((message, hint))) = (ca.is_some(), told) {
        report.add("contradiction", node.get("ca")?.spot, message, hint);
    }
    let timeout = node.get("timeout").and_then(duration);
    Some(Sharing {
        store,
        ca,
        timeout: timeout.unwrap_or(usual.timeout),
        overshoot: { node.get("overshoot").and_then(Node::number) }.unwrap_or(usual.overshoot),
        gateways: count(node, "gateways")
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(usual.gateways),
    })
}

/// `by`, `rate` and `burst`.
fn bucket(node: &Node, report: &mut ItemReport<'_>) -> Option<Bucket> {
    let by = node.get("by")?;
    let (rate, burst) = pace(node, report)?;
    Some(Bucket {
        by: match by.text() {
            Some("client_ip") => LimitBy::ClientIp,
            Some("api_key") => LimitBy::ApiKey,
            Some("route") => LimitBy::Route,
            Some("caller") => LimitBy::Caller,
            Some("host") => LimitBy::Host,
            _ => LimitBy::Header(parsed(by, "header", rule::header_name)?),
        },
        rate,
        burst,
    })
}

fn pace(node: &Node, report: &mut ItemReport<'_>) -> Option<(Setting<Rate>, Setting<u64>)> {
    let place = node.get("rate")?;
    let rate = Setting {
        value: rule::limit_rate(place.text()?).ok()?,
        at: at(place),
    };
    let usual = rate.count.min(MOST_BURST);
    let burst = setting(node, "burst", Node::count, usual);
    // A bucket that no client will ever see full again is a count, not a rate.
    let fills = u128::from(burst.value) * rate.per.as_nanos() / u128::from(rate.count.max(1));
    if fills > LONGEST.as_nanos() {
        report.add(
            "absurd-limit",
            node.get("burst").unwrap_or(place).spot,
            format!(
                "an empty bucket of {} would need more than a year to fill at {}",
                burst.value, rate.value
            ),
            "write a smaller `burst` or a higher `rate`",
        );
    }
    Some((rate, burst))
}

/// The tiers of `[tiers.…]`, each with where it begins.
pub(crate) fn tiers(node: &Node, report: &mut ItemReport<'_>) -> Vec<Tier> {
    let mut tiers = Vec::new();
    for entry in node.entries() {
        let Some((rate, burst)) = pace(&entry.node, report) else {
            continue;
        };
        tiers.push(Tier {
            name: entry.key.clone(),
            rate,
            burst,
            monthly_quota: setting(&entry.node, "monthly_quota", or_off(Node::count), None),
            at: At(Some(entry.spot)),
        });
    }
    tiers
}

/// Problems with a key point at the item's header, because a problem shows the line that it is about.
pub(crate) fn api_key(node: &Node, report: &mut ItemReport<'_>) -> Option<ApiKey> {
    if let Some(hash) = node.get("hash") {
        return Some(ApiKey {
            key: KeyHash::parse(hash.text()?).ok()?,
            client: text(node, "client")?.to_owned(),
            tier: tier(node),
        });
    }
    let key = text(node, "key")?;
    let visible = key.bytes().all(|b| matches!(b, 0x21..=0x7e));
    if !visible || !(8..=512).contains(&key.len()) {
        report.add(
            "bad-key",
            (0, 1),
            "the key is not 8 to 512 visible ASCII characters",
            "take a long random one, as from `openssl rand -hex 16`",
        );
        return None;
    }
    Some(ApiKey {
        key: KeyHash::of(key.as_bytes()),
        client: text(node, "client")?.to_owned(),
        tier: tier(node),
    })
}

fn tier(node: &Node) -> Setting<String> {
    setting_text(node, "tier").unwrap_or_else(|| Setting::default_of("free".to_owned()))
}

/// `{ rate_limit = … }`
pub(super) fn rate_limit(node: &Node, report: &mut ItemReport<'_>) -> Option<RateLimit> {
    match node.text() {
        Some("tiers") => Some(RateLimit::Tiers),
        Some(name) => Some(RateLimit::Named(name.to_owned())),
        None => bucket(node, report).map(RateLimit::Own),
    }
}

/// `{ api_key = … }`
pub(super) fn api_key_use(node: &Node) -> Option<ApiKeyUse> {
    match node.text()? {
        "required" => Some(ApiKeyUse::Required),
        "optional" => Some(ApiKeyUse::Optional),
        _ => None,
    }
}
