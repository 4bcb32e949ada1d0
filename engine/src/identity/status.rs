//! What operators see of this data plane's identity.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::clock::unix_seconds;
use crate::net::tls::{Facts, Member};

#[derive(Debug, Default)]
pub(super) struct Status {
    /// Seconds since 1970.
    renewed: Option<u64>,
    failure: Option<(u64, String)>,
}

impl Status {
    pub(super) fn renewed(&mut self, now: SystemTime) {
        self.renewed = Some(unix_seconds(now));
        self.failure = None;
    }

    pub(super) fn failed(&mut self, why: String, now: SystemTime) {
        self.failure = Some((unix_seconds(now), why));
    }

    /// Why there is no certificate, as far as is known.
    pub(super) fn why_not(&self) -> Option<&str> {
        self.failure.as_ref().map(|(_, why)| why.as_str())
    }

    /// `asks`: an authority is asked for certificates.
    pub(super) fn show(&self, member: &Member, asks: bool, now: u64) -> Option<Value> {
        let (own, trusted) = (member.own(), member.trusted());
        if own.is_none() && trusted.is_none() && !asks {
            return None;
        }
        let facts = own.as_ref().map(|own| &own.facts);
        let trust = trusted.map(|trusted| {
            let authorities = trusted.authorities.iter();
            let authorities = authorities.map(|authority| {
                json!({
                    "name": authority.name,
                    "serial": authority.serial,
                    "not_after": authority.not_after,
                })
            });
            json!({
                "trust_domain": trusted.trust_domain,
                "version": trusted.version,
                "authorities": authorities.collect::<Vec<_>>(),
                "revoked": trusted.count_revoked(),
            })
        });
        let failure = { self.failure.as_ref() }.map(|(at, why)| json!({ "at": at, "why": why }));
        Some(json!({
            "id": facts.map(|facts| facts.identity.as_str()),
            "serial": facts.map(|facts| &facts.serial),
            "not_before": facts.map(|facts| facts.not_before),
            "not_after": facts.map(|facts| facts.not_after),
            "percent_left": facts.map(|facts| life_left(facts, now)),
            "renewed_by": if asks { "the control plane" } else { "files" },
            "last_renewal": self.renewed,
            "last_failure": failure,
            "trust": trust,
        }))
    }
}

/// How much is left of a certificate's life, in percent.
pub(super) fn life_left(facts: &Facts, now: u64) -> u64 {
    let life = facts.not_after.saturating_sub(facts.not_before).max(1);
    let left = facts.not_after.saturating_sub(now).min(life);
    // Of a life that is not over, never nothing.
    left.saturating_mul(100).div_ceil(life)
}
