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
    ladder::warn(document, &mut warnings);
    warnings
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
