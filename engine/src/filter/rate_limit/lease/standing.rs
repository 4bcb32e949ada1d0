//! How it stands between this gateway and its lender, for operators.

use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// Who lends; without its secrets.
    pub store: String,
    /// While it is away, this gateway serves its own share of every shared limit.
    pub reached: bool,
    /// Unix seconds.
    pub since: u64,
    /// Why it is away.
    pub reason: Option<String>,
    /// How many share the limits, as was last known.
    pub gateways: u64,
    /// Questions that failed.
    pub errors: u64,
    /// Clients whose tokens are leased.
    pub clients: u64,
    /// Tokens that were leased and are here, or were a moment ago.
    pub held: u64,
}
