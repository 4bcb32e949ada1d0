//! Keys as people and issuers write them: PEM with a public key, a JWK, a set of JWKs (RFC 7517, 7518 and 8037). Of a set
//! that somebody else publishes, what is not known here is passed over: an issuer may have keys for other purposes. Of
//! a file that the document names, it is a mistake.

use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use tollgate_config::Algorithm;

use super::base64url::decode;
use super::key::Key;

/// More keys than any issuer has at once.
pub(super) const MOST_KEYS: usize = 64;
/// A SubjectPublicKeyInfo with an RSA key of 2048 bits has 294 bytes.
const LEAST_RSA: usize = 290;

/// The keys of a file that the document names. `algorithm` and `id` are what the document says.
pub(super) fn of_file(
    bytes: &[u8],
    algorithm: Option<Algorithm>,
    id: Option<&str>,
) -> Result<Vec<Key>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no text")?;
    if !text.trim_start().starts_with('{') {
        return pem(text, algorithm, id).map(|key| vec![key]);
    }
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let one = std::slice::from_ref(&value);
    let members = match value.get("keys") {
        Some(keys) => keys.as_array().ok_or("`keys` is no list")?.as_slice(),
        None => one,
    };
    if members.is_empty() || members.len() > MOST_KEYS {
        return Err(format!("it holds {} keys", members.len()));
    }
    let alone = members.len() == 1;
    let mut keys = Vec::with_capacity(members.len());
    for (place, member) in members.iter().enumerate() {
        let key = jwk(member, algorithm, id.filter(|_| alone), true);
        keys.push(key.map_err(|why| format!("key {} of it: {why}", place + 1))?);
    }
    Ok(keys)
}

/// The keys of a set that an issuer publishes, without secrets: what anybody can read is none.
pub(super) fn of_set(bytes: &[u8]) -> Result<Vec<Key>, String> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON: {error}"))?;
    let members = value.get("keys").and_then(Value::as_array);
    let members = members.ok_or("it has no list `keys`")?;
    let keys: Vec<Key> = members
        .iter()
        .take(MOST_KEYS)
        .filter_map(|member| jwk(member, None, None, false).ok())
        .collect();
    if keys.is_empty() {
        return Err(format!(
            "of its {} keys none can check a token here",
            members.len()
        ));
    }
    Ok(keys)
}

fn pem(text: &str, algorithm: Option<Algorithm>, id: Option<&str>) -> Result<Key, String> {
    if text.contains("PRIVATE KEY-----") {
        return Err("it holds a private key, which checks nothing; name the public one".to_owned());
    }
    let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
        .map_err(|_| "it holds no `BEGIN PUBLIC KEY`, and is no JSON either")?;
    let usual = [
        Algorithm::EdDsa,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Rs256,
    ];
    let wanted = match &algorithm {
        Some(one) => std::slice::from_ref(one),
        None => &usual[..],
    };
    let small = |key: &Key| is_rsa(key.algorithm) && der.len() < LEAST_RSA;
    let key = wanted
        .iter()
        .find_map(|algorithm| Key::public(*algorithm, &der, id.map(Box::from)));
    match (key, algorithm) {
        (Some(key), _) if small(&key) => Err("an RSA key needs 2048 bits".to_owned()),
        (Some(key), _) => Ok(key),
        (None, Some(algorithm)) => Err(format!("it holds no key of {}", algorithm.word())),
        (None, None) => Err("it holds a key of a kind that is not known here".to_owned()),
    }
}

fn is_rsa(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512
    )
}

fn jwk(
    value: &Value,
    wanted: Option<Algorithm>,
    id: Option<&str>,
    secrets: bool,
) -> Result<Key, String> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        let text = text(name).ok_or_else(|| format!("it has no `{name}`"))?;
        decode(text.as_bytes()).ok_or_else(|| format!("`{name}` is no base64url"))
    };
    if text("use").is_some_and(|word| word != "sig") {
        return Err("it is not for signatures".to_owned());
    }
    if let Some(operations) = value.get("key_ops").and_then(Value::as_array)
        && !operations.iter().any(|word| word == "verify")
    {
        return Err("it is not for checking signatures".to_owned());
    }
    let kind = text("kty").ok_or("it has no `kty`")?;
    let curve = text("crv").unwrap_or_default();
    let usual = match (kind, curve) {
        ("OKP", "Ed25519") => Algorithm::EdDsa,
        ("EC", "P-256") => Algorithm::Es256,
        ("EC", "P-384") => Algorithm::Es384,
        ("RSA", _) => Algorithm::Rs256,
        ("oct", _) if secrets => Algorithm::Hs256,
        _ => return Err("it is of a kind that is not known here".to_owned()),
    };
    let said = match text("alg") {
        Some(word) => Some(Algorithm::of(word).ok_or("its `alg` is not known here")?),
        None => None,
    };
    let algorithm = match (said, wanted) {
        (Some(said), Some(wanted)) if said != wanted => {
            return Err(format!(
                "it is for {}, and the document says {}",
                said.word(),
                wanted.word()
            ));
        }
        (said, wanted) => said.or(wanted).unwrap_or(usual),
    };
    let id = id.or_else(|| text("kid")).map(Box::from);
    let fits =
        |key: Option<Key>| key.ok_or_else(|| format!("it is no valid key of {}", algorithm.word()));
    match (kind, algorithm) {
        ("OKP", Algorithm::EdDsa) => {
            let x = bytes("x")?;
            fits(Key::public(algorithm, &x, id).filter(|_| x.len() == 32))
        }
        ("EC", Algorithm::Es256 | Algorithm::Es384) if algorithm == usual => {
            let point = [vec![4], bytes("x")?, bytes("y")?].concat();
            fits(Key::public(algorithm, &point, id))
        }
        ("RSA", _) if is_rsa(algorithm) => {
            fits(Key::rsa(algorithm, &bytes("n")?, &bytes("e")?, id))
        }
        ("oct", _) => fits(Key::secret(algorithm, &bytes("k")?, id)),
        _ => Err(format!(
            "a key of this kind is not for {}",
            algorithm.word()
        )),
    }
}
