//! What a document may say, but its writer should know: told at every load, refused never.

mod stand_ins;

use std::net::IpAddr;

use crate::document::{ControlPlane, Document, Filter, IdentitySource, RateLimit, Tier};
use crate::ladder;
use crate::problem::Problem;

/// Everything worth a warning, in the words of problems.
pub fn warnings(document: &Document) -> Vec<Problem> {
    let mut warnings = Vec::new();
    if document.server.state_dir.is_none() && counts_by_month(document) {
        let place = document
            .tiers
            .iter()
            .find(|tier| tier.monthly_quota.is_some())
            .and_then(|tier| tier.place(tier.monthly_quota.at));
        warnings.push(Problem {
            code: "quota-not-kept",
            place,
            message: "monthly quotas begin anew with every restart".to_owned(),
            text: None,
            hint: Some(
                "write `[server] state_dir = \"…\"`, or `monthly_quota = \"off\"` in every tier"
                    .to_owned(),
            ),
        });
    }
    keys_in_the_clear(document, &mut warnings);
    warnings.extend(document.control_plane.as_ref().and_then(readable));
    warnings.extend(given_away(document));
    ladder::warn(document, &mut warnings);
    stand_ins::warn(document, &mut warnings);
    warnings
}

/// Who can change an answer on its way can sign tokens.
fn keys_in_the_clear(document: &Document, warnings: &mut Vec<Problem>) {
    for item in &document.jwts {
        let Some(jwks) = item.jwks.as_ref().filter(|jwks| !jwks.url.encrypted) else {
            continue;
        };
        let address = &jwks.url.address;
        if !is_nearby(address) {
            warnings.push(Problem {
                code: "keys-in-the-clear",
                place: Some(item.begins()),
                message: format!(
                    "the keys of jwt `{}` come without TLS: who can change them on their way can sign tokens",
                    item.name
                ),
                text: None,
                hint: Some("write \"https://…\"".to_owned()),
            });
        }
    }
}

/// Whether `host:port` is on this machine, where nobody is between.
fn is_nearby(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or("", |(host, _)| host);
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    ip.map_or(host == "localhost", |ip| ip.to_canonical().is_loopback())
}

/// A token that is sent over the network without TLS.
fn readable(control_plane: &ControlPlane) -> Option<Problem> {
    let mut urls = control_plane.urls.iter();
    let url = urls.find(|url| !url.encrypted && !is_nearby(&url.address));
    let url = url.filter(|_| control_plane.token.is_some())?;
    Some(Problem {
        code: "readable-token",
        place: Some(control_plane.place.clone()),
        message: format!(
            "the token crosses the network readable on its way to {}",
            url.text
        ),
        text: None,
        hint: Some(
            "write an https URL, and `[server] tls` in the control plane's document".to_owned(),
        ),
    })
}

/// What proves who we are, sent over the network without TLS: whoever reads it can be us.
fn given_away(document: &Document) -> Option<Problem> {
    let identity = document.identity.as_ref()?;
    if !matches!(identity.source, IdentitySource::Authority { .. }) {
        return None;
    }
    let mut urls = document.control_plane.as_ref()?.urls.iter();
    let url = urls.find(|url| !url.encrypted && !is_nearby(&url.address))?;
    Some(Problem {
        code: "readable-token",
        place: Some(identity.place.clone()),
        message: format!(
            "what proves this data plane's identity crosses the network readable on its way to {}, and what it shall trust can be changed on the way back",
            url.text
        ),
        text: None,
        hint: Some(
            "write an https URL in `[control_plane]`, with `tls = { ca = \"…\" }`".to_owned(),
        ),
    })
}

/// Whether a route limits by tiers, and a tier has a quota.
fn counts_by_month(document: &Document) -> bool {
    let used = document.routes.iter().any(|route| {
        let mut filters = route.filters.iter();
        filters.any(|filter| matches!(filter.value, Filter::RateLimit(RateLimit::Tiers)))
    });
    used && document
        .all_tiers()
        .any(|tier| tier.monthly_quota.is_some())
}

impl Document {
    /// The tiers in force: those written, then the shipped ones that were not.
    pub fn all_tiers(&self) -> impl Iterator<Item = Tier> {
        let written = |name: &str| self.tiers.iter().any(|tier| tier.name == name);
        let shipped = Tier::shipped()
            .into_iter()
            .filter(move |tier| !written(&tier.name));
        self.tiers
            .iter()
            .map(|item| Tier::clone(item))
            .chain(shipped)
    }
}
