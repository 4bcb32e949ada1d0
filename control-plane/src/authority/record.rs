//! What the authority keeps in the store, and under which names. Tokens are kept as their hash alone; private keys stand
//! under a name of their own that nothing but the signer reads.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tollgate_config::identity::SpiffeId;

use super::certificate::hex;

/// What members are told is made of what stands below this.
pub(super) const TRUST: &str = "identity/trust/";
/// `rotation::Authorities`.
pub(super) const AUTHORITIES: &str = "identity/trust/authorities";
/// By serial number.
pub(super) const REVOKED: &str = "identity/trust/revoked/";
/// Private keys, by number.
pub(super) const KEYS: &str = "identity/keys/";
/// By serial number.
pub(super) const CERTIFICATES: &str = "identity/certificates/";
/// By hash.
pub(super) const TOKENS: &str = "identity/tokens/";
/// By namespace and service.
pub(super) const BARRED: &str = "identity/barred/";

/// A certificate that was issued: written down before anybody has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Issued {
    pub(super) identity: SpiffeId,
    /// Why we believed it.
    pub(super) proof: String,
    /// Where it went.
    pub(super) address: String,
    /// In milliseconds since 1970: which of two is the newer one.
    pub(super) issued: u64,
    pub(super) not_after: u64,
    /// Who signed it.
    pub(super) authority: u64,
}

/// A join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    pub(super) identity: SpiffeId,
    /// Who made it.
    pub(super) by: String,
    pub(super) made: u64,
    pub(super) until: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) used: Option<Used>,
}

/// The one use of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Used {
    pub(super) time: u64,
    pub(super) address: String,
    /// Names the key that it was used for. Who comes back with the same one is the same, and did not hear the answer.
    pub(super) key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Revoked {
    pub(super) identity: SpiffeId,
    pub(super) time: u64,
    /// When its certificate ends, and it need not be told any more.
    pub(super) until: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Barred {
    pub(super) time: u64,
    pub(super) by: String,
}

/// Under which name a token stands: the token itself cannot be found out from it.
pub(super) fn token_key(token: &str) -> String {
    format!(
        "{TOKENS}{}",
        hex(digest(&SHA256, token.as_bytes()).as_ref())
    )
}

pub(super) fn barred_key(identity: &SpiffeId) -> String {
    format!("{BARRED}{}/{}", identity.namespace(), identity.service())
}
