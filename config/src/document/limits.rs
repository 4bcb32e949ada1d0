//! Rate limits, tiers and API keys as values.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;

use super::{At, Setting};
use crate::problem::Fault;
use crate::unit::Rate;

/// The largest bucket.
pub const MOST_BURST: u64 = 10_000_000;

/// A limit: a bucket that holds `burst` and fills at `rate`, for each that `by` tells apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    pub name: String,
    pub what: Bucket,
    /// One bucket over all gateways.
    pub shared: bool,
}

/// `[limits]`: where gateways share limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Sharing {
    pub store: SharedStore,
    /// Absent: the system's.
    pub ca: Option<PathBuf>,
    /// Of one question to the store. Default 250 ms.
    pub timeout: Duration,
    /// The share of a burst that all gateways together may hold ahead; 0 to 1. Default 0.1 (GW-315).
    pub overshoot: f64,
    /// Until the store has told. Default 1.
    pub gateways: u32,
}

impl Default for Sharing {
    /// As in a document that has a control plane and says no more.
    fn default() -> Self {
        Sharing {
            store: SharedStore::ControlPlane,
            ca: None,
            timeout: Duration::from_millis(250),
            overshoot: 0.1,
            gateways: 1,
        }
    }
}

/// Who lends the tokens of shared limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedStore {
    /// `"control-plane"`: whom `[control_plane]` names.
    ControlPlane,
    /// A Redis-compatible server.
    Redis(StoreUrl),
}

impl SharedStore {
    pub fn redis(&self) -> Option<&StoreUrl> {
        match self {
            SharedStore::ControlPlane => None,
            SharedStore::Redis(url) => Some(url),
        }
    }
}

/// `redis://USER:PASSWORD@HOST:PORT/DATABASE`, taken apart. Neither shown nor logged with its secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl {
    pub tls: bool,
    pub user: Option<String>,
    pub password: Option<String>,
    /// A name or an address; an IPv6 one without its brackets.
    pub host: String,
    pub port: u16,
    pub database: u32,
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let (host, port, database) = (&self.host, self.port, self.database);
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}/{database}")
        } else {
            write!(f, "{scheme}://{host}:{port}/{database}")
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The part that named limits, limits of one route and tiers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub by: LimitBy,
    pub rate: Setting<Rate>,
    /// Default: the count of `rate`.
    pub burst: Setting<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitBy {
    /// IPv6 by /64.
    ClientIp,
    /// The key's client; without a known key, the address.
    ApiKey,
    Header(HeaderName),
    Route,
    /// The service that calls, by its certificate; all without one share a bucket.
    Caller,
    /// The host that is asked for, without its port.
    Host,
}

impl fmt::Display for LimitBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitBy::ClientIp => f.write_str("client_ip"),
            LimitBy::ApiKey => f.write_str("api_key"),
            LimitBy::Route => f.write_str("route"),
            LimitBy::Caller => f.write_str("caller"),
            LimitBy::Host => f.write_str("host"),
            LimitBy::Header(name) => write!(f, "header {name}"),
        }
    }
}

/// What clients of one tier may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    pub name: String,
    pub rate: Setting<Rate>,
    pub burst: Setting<u64>,
    /// Requests admitted in a calendar month (UTC); `None` = "off".
    pub monthly_quota: Setting<Option<u64>>,
    pub at: At,
}

/// The tier of callers without a known key.
pub const ANONYMOUS: &str = "anonymous";

impl Tier {
    /// The tiers that are there without being written (GW-303).
    pub fn shipped() -> [Tier; 4] {
        let tier = |name: &str, per_minute, burst, quota| Tier {
            name: name.to_owned(),
            rate: Setting::default_of(Rate {
                count: per_minute,
                per: Duration::from_secs(60),
            }),
            burst: Setting::default_of(burst),
            monthly_quota: Setting::default_of(quota),
            at: At(None),
        };
        [
            tier(ANONYMOUS, 10, 20, Some(1000)),
            tier("free", 100, 200, Some(10_000)),
            tier("professional", 1000, 2000, Some(1_000_000)),
            tier("enterprise", 10_000, 20_000, None),
        ]
    }
}

/// A client's key. Only its hash is kept: neither a dump of the process nor a log can give the key away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub key: KeyHash,
    pub client: String,
    pub tier: Setting<String>,
}

/// SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    pub fn of(key: &[u8]) -> KeyHash {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        KeyHash(hash)
    }

    /// `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<KeyHash, Fault> {
        let fault = || {
            Fault::new(
                "this is not the hash of a key",
                "write `sha256:` and its 64 hexadecimal digits",
            )
        };
        let digits = text.strip_prefix("sha256:").ok_or_else(fault)?;
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(fault());
        }
        let mut hash = [0; 32];
        for (to, at) in hash.iter_mut().zip((0..).step_by(2)) {
            *to = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| fault())?;
        }
        Ok(KeyHash(hash))
    }

    /// As `parse` reads it.
    pub fn written(&self) -> String {
        let digits = self.0.iter().map(|byte| format!("{byte:02x}"));
        std::iter::once("sha256:".to_owned())
            .chain(digits)
            .collect()
    }
}

/// Not even the hash: it would let a weak key be guessed from a log.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// `{ rate_limit = … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateLimit {
    /// A `[[limit]]`.
    Named(String),
    /// A limit of this route alone.
    Own(Bucket),
    /// The caller's tier.
    Tiers,
}

/// `{ api_key = … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyUse {
    Required,
    /// A key may be absent, but not unknown.
    Optional,
}
