//! What a document may say, but its writer should know: told at every load, refused never.

use crate::document::{Document, Filter, RateLimit, Tier};
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
    ladder::warn(document, &mut warnings);
    warnings
}

/// Who can change an answer on its way can sign tokens. On this machine nobody is between.
fn keys_in_the_clear(document: &Document, warnings: &mut Vec<Problem>) {
    for item in &document.jwts {
        let Some(jwks) = item.jwks.as_ref().filter(|jwks| !jwks.url.encrypted) else {
            continue;
        };
        let address = &jwks.url.address;
        let host = address
            .rsplit_once(':')
            .map_or(&**address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let here = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if !here {
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
