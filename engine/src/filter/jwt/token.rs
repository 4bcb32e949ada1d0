//! A token as it comes (RFC 7515 section 7.1): three parts, of which the first says how it claims to be signed and the
//! second is not looked at before the signature holds. Bounded, and nothing in a header chooses: it is compared.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use smallvec::SmallVec;
use tollgate_config::Algorithm;

use super::Refusal;
use super::base64url::decode;

/// Bytes of a token. Longer ones do not fit into other servers' header fields either.
pub(super) const LONGEST: usize = 8 * 1024;
/// Members of a header.
const MOST_MEMBERS: usize = 32;

/// What is read before the signature.
#[derive(Debug)]
pub(super) struct Parts<'t> {
    pub(super) head: Head,
    /// Header and claims with the dot between them.
    pub(super) signed: &'t [u8],
    pub(super) claims: &'t [u8],
    pub(super) signature: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Head {
    /// `None`: one that is not known here, `none` among them.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) id: Option<Box<str>>,
    is_critical: bool,
}

impl<'t> Parts<'t> {
    pub(super) fn of(token: &'t [u8]) -> Result<Self, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::TooLong);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(head), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::NotThreeParts);
        };
        let head = decode(head).ok_or(Refusal::NotBase64)?;
        let head: Head = serde_json::from_slice(&head).map_err(|_| Refusal::BadHeader)?;
        // Who marks something as critical wants it understood (RFC 7515 section 4.1.11), and nothing is here.
        if head.is_critical {
            return Err(Refusal::Critical);
        }
        Ok(Parts {
            head,
            signed: &token[..token.len() - signature.len() - 1],
            claims,
            signature: decode(signature).ok_or(Refusal::NotBase64)?,
        })
    }
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Head;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head, A::Error> {
        let mut head = Head::default();
        let mut algorithm = None;
        let mut seen: SmallVec<[String; 4]> = SmallVec::new();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "alg" => algorithm = Some(map.next_value::<String>()?),
                "kid" => head.id = Some(map.next_value::<String>()?.into()),
                "crit" => {
                    head.is_critical = true;
                    map.next_value::<IgnoredAny>()?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            // Two readers could believe two different ones.
            if seen.len() == MOST_MEMBERS || seen.contains(&name) {
                return Err(A::Error::custom("a member twice, or too many"));
            }
            seen.push(name);
        }
        let algorithm = algorithm.ok_or_else(|| A::Error::missing_field("alg"))?;
        head.algorithm = Algorithm::of(&algorithm);
        Ok(head)
    }
}
