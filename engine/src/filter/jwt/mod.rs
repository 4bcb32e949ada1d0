//! Who calls, as a JSON Web Token says it (GW-901 to GW-903). A token is verified once and remembered by the worker until
//! it expires; what it claims is told to upstreams in headers that no client can send. Nothing here waits: keys are
//! fetched elsewhere (`jwks`), and until they are there the answer is that they are not.

mod base64url;
mod cache;
mod claims;
mod issuer;
mod jwk;
mod key;
pub(crate) mod learned;
#[cfg(test)]
mod tests;
mod token;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, header};

use crate::exchange::error::{Code, Error};
use crate::telemetry::metrics::JwtResult;
use key::{Key, KeySet};
use token::Parts;

pub use cache::Cache;
pub use claims::Identity;
pub use issuer::{Issuer, IssuerMemory, Issuers};
pub use learned::Learned;

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is none.
    Absent,
    TwoFields,
    TooLong,
    NotThreeParts,
    NotBase64,
    BadHeader,
    Critical,
    /// No key of this algorithm: `none`, or another than the keys are for.
    OtherAlgorithm,
    /// No key of that `kid`, and the keys are new.
    UnknownKey,
    BadSignature,
    BadClaims,
    BadDate,
    NoExpiry,
    OtherIssuer,
    OtherAudience,
    TooEarly,
    Expired,
    Unwritable,
    /// It may be good: the keys that could tell are not there.
    NoKeys,
}

impl Refusal {
    /// For the log.
    fn words(self) -> &'static str {
        match self {
            Refusal::Absent => "no bearer token",
            Refusal::TwoFields => "more than one authorization field",
            Refusal::TooLong => "longer than 8 KiB",
            Refusal::NotThreeParts => "not three parts",
            Refusal::NotBase64 => "a part is not base64url",
            Refusal::BadHeader => "the header is no object that has `alg`, each member once",
            Refusal::Critical => "the header has `crit`",
            Refusal::OtherAlgorithm => "no key is for its algorithm",
            Refusal::UnknownKey => "no key has its kid",
            Refusal::BadSignature => "the signature does not hold",
            Refusal::BadClaims => {
                "the claims are no object with each claim once, or roles are no texts"
            }
            Refusal::BadDate => "a date is no date",
            Refusal::NoExpiry => "it has no exp",
            Refusal::OtherIssuer => "another issuer, or none",
            Refusal::OtherAudience => "for another audience, or for none",
            Refusal::TooEarly => "not valid yet",
            Refusal::Expired => "expired",
            Refusal::Unwritable => "a claim cannot be told in a header",
            Refusal::NoKeys => {
                "the issuer's keys were not fetched yet, or not since this kid is in use"
            }
        }
    }

    fn code(self) -> Code {
        match self {
            Refusal::Absent => Code::TokenRequired,
            Refusal::Expired => Code::TokenExpired,
            Refusal::NoKeys => Code::TokenKeysUnavailable,
            _ => Code::InvalidToken,
        }
    }

    fn result(self) -> JwtResult {
        match self {
            Refusal::Absent => JwtResult::Absent,
            Refusal::Expired => JwtResult::Expired,
            Refusal::NoKeys => JwtResult::NoKeys,
            _ => JwtResult::Invalid,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error {
            retry_after: (refusal == Refusal::NoKeys).then_some(Duration::from_secs(1)),
            ..Error::because(refusal.code(), refusal.words())
        }
    }
}

/// When it is asked, and by which worker.
#[derive(Clone, Copy)]
pub(super) struct Now<'a> {
    pub(super) worker: usize,
    pub(super) cache: &'a Cache,
    pub(super) now: Instant,
    /// Seconds since 1970.
    pub(super) unix: u64,
}

/// One route's use of an issuer.
#[derive(Debug)]
pub(super) struct Bearer {
    /// A name that nobody defined was refused with the document. Were one here all the same, nobody would be let in.
    pub(super) issuer: Option<Arc<Issuer>>,
    pub(super) optional: bool,
}

impl Bearer {
    /// Finds out who calls and writes it into the request's headers.
    pub(super) fn ask(
        &self,
        headers: &mut HeaderMap,
        now: Now<'_>,
    ) -> Result<Option<Rc<Identity>>, Error> {
        let Some(issuer) = &self.issuer else {
            return Err(Refusal::NoKeys.into());
        };
        match issuer.ask(headers, now) {
            Ok(identity) => {
                for (name, value) in &identity.headers {
                    headers.insert(name.clone(), value.clone());
                }
                Ok(Some(identity))
            }
            Err(refusal) => {
                issuer.series.count(now.worker, refusal.result());
                match self.optional {
                    true => Ok(None),
                    false => Err(refusal.into()),
                }
            }
        }
    }
}

impl Issuer {
    fn ask(&self, headers: &HeaderMap, now: Now<'_>) -> Result<Rc<Identity>, Refusal> {
        let token = bearer(headers)?;
        let learned = self.learned.as_ref().map(|learned| learned.keys());
        let learned = learned.as_ref().and_then(|keys| keys.as_deref());
        let is_ground = |(settings, keys)| {
            settings == self.number
                && (keys == self.own.number || learned.is_some_and(|set| set.number == keys))
        };
        let remembers = self.item.remembered > 0 && token.len() <= token::LONGEST;
        let mark = remembers.then(|| now.cache.mark(token));
        if let Some(mark) = &mark
            && let Some(known) = now.cache.find(self.place, mark, is_ground, now.unix)
        {
            self.series.count(now.worker, JwtResult::Remembered);
            return Ok(known);
        }
        let parts = Parts::of(token)?;
        let set = self.verified(&parts, learned, now.now)?;
        let identity = claims::judge(parts.claims, &self.item, &self.wanted, now.unix)?;
        let identity = Rc::new(identity);
        if let Some(mark) = mark {
            let ground = (self.number, set.number);
            let most = self.item.remembered;
            now.cache
                .remember(self.place, most, mark, ground, &identity);
        }
        self.series.count(now.worker, JwtResult::Verified);
        Ok(identity)
    }

    /// The set of which a key signed this. Which keys are tried is decided by `kid` alone, and for a key of that name
    /// nothing else stands in; without `kid`, or where no key has that one, those that have no name.
    fn verified<'k>(
        &'k self,
        parts: &Parts<'_>,
        learned: Option<&'k KeySet>,
        now: Instant,
    ) -> Result<&'k KeySet, Refusal> {
        let Some(algorithm) = parts.head.algorithm else {
            return Err(Refusal::OtherAlgorithm);
        };
        let sets = || std::iter::once(&*self.own).chain(learned);
        let all = || sets().flat_map(|set| set.keys.iter().map(move |key| (set, key)));
        let id = parts.head.id.as_deref();
        let named = |key: &Key| id.is_some() && key.id.as_deref() == id;
        let is_known = all().any(|(_, key)| named(key));
        let may = |key: &Key| match (id, is_known) {
            (Some(_), true) => named(key),
            (Some(_), false) => key.id.is_none(),
            (None, _) => true,
        };
        let mut tried = 0;
        for (set, key) in all().filter(|(_, key)| may(key) && key.algorithm == algorithm) {
            // Signatures cost time, and an issuer without names has one or two keys.
            if tried == 4 {
                break;
            }
            tried += 1;
            if key.verifies(parts.signed, &parts.signature) {
                return Ok(set);
            }
        }
        // The key that would tell may just not be here yet.
        if let Some(published) = &self.learned
            && !is_known
            && (learned.is_none() || id.is_some() && published.may_be_old(now))
        {
            published.wish();
            return Err(Refusal::NoKeys);
        }
        Err(match tried {
            0 if all().any(|(_, key)| may(key)) => Refusal::OtherAlgorithm,
            0 => Refusal::UnknownKey,
            _ => Refusal::BadSignature,
        })
    }
}

/// The token of `Authorization: Bearer` (RFC 6750 section 2.1). Another scheme is somebody else's business.
fn bearer(headers: &HeaderMap) -> Result<&[u8], Refusal> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let field = fields.next().ok_or(Refusal::Absent)?.as_bytes();
    if fields.next().is_some() {
        return Err(Refusal::TwoFields);
    }
    match field.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => Ok(token.trim_ascii()),
        _ => Err(Refusal::Absent),
    }
}
