//! What a token claims, once its signature holds: whether it is for us and for now, and what of it is kept. Knows the
//! time as an argument, and no sockets.

use std::fmt;

use http::{HeaderName, HeaderValue};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use tollgate_config::Jwt;

use super::Refusal;
use super::base64url::decode;

/// Claims of a token.
const MOST_CLAIMS: usize = 256;
/// Members of a list of roles or permissions.
const MOST_MEMBERS: usize = 512;
/// The last second of the year 9999: a later date is a mistake, or a number that ran over.
const END_OF_TIME: u64 = 253_402_300_799;

/// Who calls, as a verified token says it.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// Seconds since 1970, with leeway: good from the first to before the second.
    pub(super) from: u64,
    pub(super) until: u64,
    /// What an upstream is told.
    pub(super) headers: Box<[(HeaderName, HeaderValue)]>,
    roles: Box<[Box<str>]>,
    /// With those that come with roles.
    permissions: Box<[Box<str>]>,
    /// Those that rules ask for, and `sub`.
    claims: Box<[(Box<str>, Box<str>)]>,
}

impl Identity {
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|one| **one == *role)
    }

    pub fn may(&self, permission: &str) -> bool {
        self.permissions.iter().any(|one| **one == *permission)
    }

    /// A claim that is a text or a whole number.
    pub fn claim(&self, name: &str) -> Option<&str> {
        let found = self.claims.iter().find(|(known, _)| **known == *name);
        found.map(|(_, value)| &**value)
    }

    #[cfg(test)]
    pub(super) fn for_tests(from: u64, until: u64) -> Self {
        Identity {
            from,
            until,
            headers: Box::default(),
            roles: Box::default(),
            permissions: Box::default(),
            claims: Box::default(),
        }
    }

    /// For the log.
    pub fn subject(&self) -> &str {
        self.claim("sub").unwrap_or("nobody")
    }
}

/// Reads and judges. `wanted`: claims that rules ask for.
pub(super) fn judge(
    encoded: &[u8],
    settings: &Jwt,
    wanted: &[Box<str>],
    now: u64,
) -> Result<Identity, Refusal> {
    let bytes = decode(encoded).ok_or(Refusal::NotBase64)?;
    let claims: Claims = serde_json::from_slice(&bytes).map_err(|_| Refusal::BadClaims)?;
    let leeway = settings.leeway.as_secs();
    let until = claims.date("exp")?.ok_or(Refusal::NoExpiry)?;
    let until = until.saturating_add(leeway);
    let from = claims.date("nbf")?.unwrap_or(0).saturating_sub(leeway);
    if claims.get("iss").and_then(Value::as_str) != Some(settings.issuer.as_str()) {
        return Err(Refusal::OtherIssuer);
    }
    if !settings.audience.is_empty() && !is_for(claims.get("aud"), &settings.audience) {
        return Err(Refusal::OtherAudience);
    }
    if now < from {
        return Err(Refusal::TooEarly);
    }
    // Last: a token that is refused for this was good once, and its client can act on that.
    if now >= until {
        return Err(Refusal::Expired);
    }
    let roles = members(claims.find(&settings.roles), false)?;
    let mut permissions = members(claims.find(&settings.permissions), true)?;
    let granted = settings.grants.iter();
    let granted = granted.filter(|(role, _)| roles.iter().any(|one| **one == **role));
    for permission in granted.flat_map(|(_, permissions)| permissions) {
        if permissions.iter().all(|one| **one != **permission) {
            permissions.push(permission.as_str().into());
        }
    }
    let mut headers = Vec::with_capacity(settings.headers.len());
    for (name, claim) in &settings.headers {
        let text = if *claim == settings.permissions {
            Some(permissions.join(","))
        } else if *claim == settings.roles {
            Some(roles.join(","))
        } else {
            match claims.find(claim) {
                Some(value @ Value::Array(_)) => Some(members(Some(value), false)?.join(",")),
                Some(value) => scalar(value),
                None => None,
            }
        };
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            // A line end in a claim must not become one in a header, and blanks at its ends would be lost on the way.
            let value = HeaderValue::from_bytes(text.as_bytes())
                .ok()
                .filter(|_| text.trim() == text);
            headers.push((name.clone(), value.ok_or(Refusal::Unwritable)?));
        }
    }
    let kept = wanted.iter().filter_map(|name| {
        let text = scalar(claims.find(name)?)?;
        Some((name.clone(), text.into()))
    });
    Ok(Identity {
        from,
        until,
        headers: headers.into(),
        claims: kept.collect(),
        roles: roles.into(),
        permissions: permissions.into(),
    })
}

/// `aud` is a text or a list of texts (RFC 7519 section 4.1.3).
fn is_for(audience: Option<&Value>, wanted: &[String]) -> bool {
    let named = |value: &Value| {
        value
            .as_str()
            .is_some_and(|text| wanted.iter().any(|one| one == text))
    };
    match audience {
        Some(Value::Array(list)) => list.iter().any(named),
        Some(value) => named(value),
        None => false,
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// The members of a list, or of a text: one, or with `words` one for each word. A comma in one of them would make two of
/// it on the way to an upstream.
fn members(value: Option<&Value>, words: bool) -> Result<Vec<Box<str>>, Refusal> {
    let found: Vec<Box<str>> = match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) if words => {
            text.split_ascii_whitespace().map(Box::from).collect()
        }
        Some(Value::String(text)) => vec![text.as_str().into()],
        Some(Value::Array(list)) => {
            if list.len() > MOST_MEMBERS {
                return Err(Refusal::BadClaims);
            }
            let texts = list.iter().map(|one| one.as_str().map(Box::from));
            texts.collect::<Option<_>>().ok_or(Refusal::BadClaims)?
        }
        Some(_) => return Err(Refusal::BadClaims),
    };
    match found
        .iter()
        .any(|text| text.is_empty() || text.contains(','))
    {
        true => Err(Refusal::Unwritable),
        false => Ok(found),
    }
}

/// The members of an object, each once.
struct Claims(Vec<(String, Value)>);

impl Claims {
    fn get(&self, name: &str) -> Option<&Value> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value)
    }

    /// By its name, or else by a path with dots.
    fn find(&self, path: &str) -> Option<&Value> {
        self.get(path).or_else(|| {
            let (first, rest) = path.split_once('.')?;
            let mut value = self.get(first)?;
            for part in rest.split('.') {
                value = value.get(part)?;
            }
            Some(value)
        })
    }

    /// A NumericDate (RFC 7519 section 2), in whole seconds.
    fn date(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let seconds = value.as_u64().or_else(|| {
            let seconds = value.as_f64()?;
            (0.0..=END_OF_TIME as f64)
                .contains(&seconds)
                .then_some(seconds as u64)
        });
        seconds
            .filter(|seconds| *seconds <= END_OF_TIME)
            .map(Some)
            .ok_or(Refusal::BadDate)
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
        let mut claims: Vec<(String, Value)> = Vec::with_capacity(16);
        while let Some(name) = map.next_key::<String>()? {
            // Two readers could believe two different ones.
            if claims.len() == MOST_CLAIMS || claims.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom("a claim twice, or too many"));
            }
            let value = map.next_value()?;
            claims.push((name, value));
        }
        Ok(Claims(claims))
    }
}
