//! The second prover: a projected service-account token of a Kubernetes cluster (RFC 7519). The key decides by which
//! algorithm, and a header only agrees; issuer, audience and end must be there and fit; what is not signed is not read.
//! Pure: keys and the time are arguments.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::Value;
use tollgate_config::control_plane::Kubernetes;

use super::base64::{Alphabet, read};

/// Bytes of a token; those of real clusters have about one and a half thousand.
const LONGEST: usize = 16 << 10;
/// Bytes of a file of keys, and keys in it.
const LARGEST: usize = 256 << 10;
const MOST_KEYS: usize = 64;
/// Clocks may be so far apart, in seconds.
const SKEW: u64 = 60;

pub(super) struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, as tokens call it.
    algorithm: &'static str,
    key: ParsedPublicKey,
}

/// Reads keys: a set of JWKs, or PEM. Those that are for something else are passed over.
pub(super) fn keys(text: &str) -> Result<Vec<Key>, String> {
    if text.len() > LARGEST {
        return Err("it is larger than 256 KiB".to_owned());
    }
    let keys: Vec<Key> = match text.trim_start().starts_with('{') {
        true => {
            let set: Value =
                serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
            let all = set["keys"].as_array().ok_or("it has no list `keys`")?;
            all.iter().take(MOST_KEYS).filter_map(jwk).collect()
        }
        false => SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes())
            .take(MOST_KEYS)
            .filter_map(|der| pem(&der.ok()?))
            .collect(),
    };
    match keys.is_empty() {
        true => Err("it holds no key of RS256 or ES256".to_owned()),
        false => Ok(keys),
    }
}

fn pem(der: &[u8]) -> Option<Key> {
    let es = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, der).map(|key| ("ES256", key));
    let rs = || ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).map(|key| ("RS256", key));
    let (algorithm, key) = es.or_else(|_| rs()).ok()?;
    Some(Key {
        id: None,
        algorithm,
        key,
    })
}

fn jwk(value: &Value) -> Option<Key> {
    let text = |name: &str| value[name].as_str();
    let bytes = |name: &str| read(text(name)?, Alphabet::Url);
    if text("use").is_some_and(|word| word != "sig") {
        return None;
    }
    let (algorithm, key) = match (text("kty")?, text("crv")) {
        ("EC", Some("P-256")) => {
            let point = [vec![4], bytes("x")?, bytes("y")?].concat();
            let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).ok()?;
            ("ES256", key)
        }
        ("RSA", _) => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            let first = n.iter().position(|byte| *byte != 0)?;
            let n = n.get(first..)?;
            // 2048 to 8192 bits, as everybody asks for.
            let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
            if !(2048..=8192).contains(&bits) {
                return None;
            }
            let key = RsaPublicKeyComponents { n, e: &e };
            let key = key.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?;
            ("RS256", key)
        }
        _ => return None,
    };
    if text("alg").is_some_and(|said| said != algorithm) {
        return None;
    }
    Some(Key {
        id: text("kid").map(str::to_owned),
        algorithm,
        key,
    })
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: f64,
    #[serde(default)]
    nbf: f64,
    sub: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    All(Vec<String>),
}

/// Whose token it is: a namespace and a service, as the document calls them. Refusals name no secret.
pub(super) fn verify(
    token: &str,
    keys: &[Key],
    settings: &Kubernetes,
    now: u64,
) -> Result<(String, String), &'static str> {
    if token.len() > LONGEST {
        return Err("is longer than 16 KiB");
    }
    let mut parts = token.split('.');
    let (Some(head), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("has not three parts");
    };
    let decoded = |part: &str| read(part, Alphabet::Url).ok_or("is not base64url");
    let head: Head = serde_json::from_slice(&decoded(head)?).map_err(|_| "has a bad header")?;
    if head.crit.is_some() {
        return Err("wants something to be understood that is not known here");
    }
    let signed_length = token.len() - signature.len() - 1;
    let signed = token.get(..signed_length).unwrap_or_default();
    let signature = decoded(signature)?;
    let fits = |key: &&Key| {
        let named = key.id.is_none() || head.kid.is_none() || key.id == head.kid;
        named && key.algorithm == head.alg
    };
    let verifies = |key: &Key| key.key.verify_sig(signed.as_bytes(), &signature).is_ok();
    if !keys.iter().filter(fits).any(verifies) {
        return Err("is not signed by a key of the cluster");
    }
    let claims: Claims = serde_json::from_slice(&decoded(claims)?)
        .map_err(|_| "lacks `iss`, `aud`, `exp` or `sub`, or has one in another form")?;
    if claims.iss != settings.issuer {
        return Err("comes from another issuer than `identity.kubernetes.issuer`");
    }
    let wanted = &settings.audience;
    let for_us = match &claims.aud {
        Audience::One(one) => one == wanted,
        Audience::All(all) => all.contains(wanted),
    };
    if !for_us {
        return Err("is for another audience than `identity.kubernetes.audience`");
    }
    // Seconds since 1970 are exact in a double.
    let now = now as f64;
    if !(claims.exp.is_finite() && now < claims.exp + SKEW as f64) {
        return Err("has expired");
    }
    if !(claims.nbf.is_finite() && now + SKEW as f64 >= claims.nbf) {
        return Err("is not valid yet");
    }
    let account = claims.sub.strip_prefix("system:serviceaccount:");
    let (namespace, name) = account
        .and_then(|account| account.split_once(':'))
        .ok_or("is not a service account's")?;
    let own = (namespace.to_owned(), name.to_owned());
    Ok(settings.services.get(&own).cloned().unwrap_or(own))
}
