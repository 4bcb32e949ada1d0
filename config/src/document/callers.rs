//! Who may call, as values: tokens that say who somebody is, and rules about whom a route serves.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::{At, Cidr, Secret, Setting};

/// `[[jwt]]`: one issuer of tokens, how they are checked and what upstreams are told of them (GW-901, GW-903).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwt {
    pub name: String,
    /// What `iss` must be.
    pub issuer: String,
    /// Of which `aud` must name one; empty = "off": any.
    pub audience: Vec<String>,
    pub keys: Vec<JwtKey>,
    /// Where more keys are fetched from.
    pub jwks: Option<Jwks>,
    /// What clocks may differ by. Default 30 s.
    pub leeway: Duration,
    /// Verified tokens that each worker remembers. Default 4096.
    pub remembered: usize,
    /// The claim that holds the caller's roles.
    pub roles: String,
    /// The claim that holds the caller's permissions.
    pub permissions: String,
    /// What a role may do besides (GW-904).
    pub grants: Vec<(String, Vec<String>)>,
    /// Which claim an upstream is told in which header.
    pub headers: Vec<(HeaderName, String)>,
    pub at: At,
}

/// A set of keys that an issuer publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwks {
    pub url: WebUrl,
    /// Absent: the system's.
    pub ca: Option<PathBuf>,
    /// From one fetch to the next. Default 5 min.
    pub refresh: Duration,
}

/// A URL with a path, such as `https://issuer.example/.well-known/jwks.json`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WebUrl {
    /// As it was written.
    pub text: String,
    /// `host:port`.
    pub address: String,
    /// With the query.
    pub path: String,
    pub encrypted: bool,
}

/// A key that the document itself names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKey {
    pub source: KeySource,
    /// Absent: what the key's kind says.
    pub algorithm: Option<Algorithm>,
    /// What `kid` must be, where a token has one.
    pub id: Option<String>,
    pub at: At,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    Secret(Secret),
    /// PEM with a public key, a JWK or a JWKS.
    File(PathBuf),
}

/// How a token is signed (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    EdDsa,
    Es256,
    Es384,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
}

impl Algorithm {
    pub const ALL: [Algorithm; 12] = [
        Algorithm::Hs256,
        Algorithm::Hs384,
        Algorithm::Hs512,
        Algorithm::EdDsa,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
    ];

    /// As `alg` says it.
    pub fn word(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
        }
    }

    /// RFC 9864 calls the same thing `Ed25519`.
    pub fn of(word: &str) -> Option<Algorithm> {
        if word == "Ed25519" {
            return Some(Algorithm::EdDsa);
        }
        Algorithm::ALL.into_iter().find(|one| one.word() == word)
    }

    /// The shortest secret it may have (RFC 7518 section 3.2); `None` for public keys.
    pub fn least_secret(self) -> Option<usize> {
        match self {
            Algorithm::Hs256 => Some(32),
            Algorithm::Hs384 => Some(48),
            Algorithm::Hs512 => Some(64),
            _ => None,
        }
    }
}

/// `{ jwt = … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtUse {
    /// A `[[jwt]]`.
    pub name: String,
    /// A token may be absent, and one that does not hold counts as absent (GW-902).
    pub optional: bool,
}

/// `{ allow = … }`: everything that is written must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allow {
    pub all: AllowRule,
    /// Of these, where there are any, one must hold.
    pub any_of: Vec<AllowRule>,
}

/// Whom a route serves; an absent part holds for everybody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowRule {
    /// The caller has one of these.
    pub roles: Vec<String>,
    /// The caller has all of these.
    pub permissions: Vec<String>,
    pub owner: Option<Owner>,
    /// The client's address is in one of these.
    pub cidr: Vec<Cidr>,
    pub at: At,
}

/// What a path parameter holds is what a claim says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub parameter: Setting<String>,
    pub claim: String,
}

impl AllowRule {
    /// Whether it asks who the caller is, which a token says.
    pub fn asks_who(&self) -> bool {
        !self.roles.is_empty() || !self.permissions.is_empty() || self.owner.is_some()
    }
}

impl Allow {
    /// All of its rules.
    pub fn rules(&self) -> impl Iterator<Item = &AllowRule> {
        std::iter::once(&self.all).chain(&self.any_of)
    }
}

/// `any role of admin, seller and all permissions of orders:read`, as explanations and logs say it.
impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match self.roles.as_slice() {
            [] => {}
            [role] => parts.push(format!("role {role}")),
            roles => parts.push(format!("a role of {}", roles.join(", "))),
        }
        if !self.permissions.is_empty() {
            parts.push(format!("permission {}", self.permissions.join(", ")));
        }
        if let Some(owner) = &self.owner {
            parts.push(format!(
                "path parameter {} equal to claim {}",
                owner.parameter.value, owner.claim
            ));
        }
        if !self.cidr.is_empty() {
            let blocks = self.cidr.iter();
            let blocks: Vec<_> = blocks
                .map(|block| format!("{}/{}", block.address, block.prefix))
                .collect();
            parts.push(format!("address in {}", blocks.join(", ")));
        }
        f.write_str(&parts.join(" and "))
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all.to_string();
        let any: Vec<String> = self.any_of.iter().map(AllowRule::to_string).collect();
        match (all.is_empty(), any.is_empty()) {
            (_, true) => f.write_str(&all),
            (true, false) => f.write_str(&any.join(", or ")),
            (false, false) => write!(f, "{all}, and one of: {}", any.join("; ")),
        }
    }
}
