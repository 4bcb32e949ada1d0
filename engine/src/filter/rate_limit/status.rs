//! A limit as operators see it.

use serde::Serialize;

use super::{By, Limit};

#[derive(Debug, Serialize)]
pub struct LimitStatus {
    pub name: String,
    pub by: String,
    /// Shared with other gateways.
    pub leased: bool,
    /// One for a limit of its own; one for each tier.
    pub tiers: Vec<TierStatus>,
    /// Buckets that are held.
    pub keys: u64,
    /// Buckets that were forgotten before they were full, for want of room.
    pub forgotten: u64,
    /// Requests counted in the bucket that all share who found no room.
    pub shared: u64,
}

#[derive(Debug, Serialize)]
pub struct TierStatus {
    pub name: String,
    pub rate: String,
    pub burst: u64,
    pub monthly_quota: Option<u64>,
    pub admitted: u64,
    pub refused: u64,
    pub over_quota: u64,
}

impl Limit {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn status(&self) -> LimitStatus {
        let [(_, forgotten), (_, shared)] = self.series.crowded();
        LimitStatus {
            name: self.name.to_string(),
            by: self.by(),
            leased: self.lease.is_some(),
            keys: self.meter.buckets.len() as u64,
            forgotten,
            shared,
            tiers: self
                .grades
                .iter()
                .flatten()
                .map(|grade| {
                    let [(_, admitted), (_, refused), (_, over_quota)] = grade.series.requests();
                    TierStatus {
                        name: grade.name.to_string(),
                        rate: grade.pace.rate().to_string(),
                        burst: grade.pace.burst(),
                        monthly_quota: grade.quota.as_ref().map(|(quota, _)| *quota),
                        admitted,
                        refused,
                        over_quota,
                    }
                })
                .collect(),
        }
    }

    fn by(&self) -> String {
        match &self.by {
            By::ClientIp => "client_ip".into(),
            By::ApiKey => "api_key".into(),
            By::Header(name) => format!("header {name}"),
            By::Route => "route".into(),
            By::Caller => "caller".into(),
            By::Host => "host".into(),
            By::Tier => "tier".into(),
        }
    }

    /// In one line: `login: 5/15m, burst 5, by client_ip`.
    pub fn told(&self) -> String {
        let status = self.status();
        let tiers: Vec<String> = status
            .tiers
            .iter()
            .map(|tier| {
                let quota = tier
                    .monthly_quota
                    .map_or_else(String::new, |quota| format!(", {quota} a month"));
                let own = if tier.name == status.name {
                    String::new()
                } else {
                    format!("{} ", tier.name)
                };
                format!("{own}{}, burst {}{quota}", tier.rate, tier.burst)
            })
            .collect();
        let over = if status.leased { ", shared" } else { "" };
        format!(
            "{}: {}, by {}{over}",
            status.name,
            tiers.join("; "),
            status.by
        )
    }
}
