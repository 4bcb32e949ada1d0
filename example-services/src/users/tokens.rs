//! Tokens that say who somebody is (SHOP-207): signed JWTs for a gateway to check, and the keys to check them with.
//!
//! Signed with Ed25519 (`EdDSA`), whose public half is told as a JWKS, or with a shared secret (`HS256`), which is told to
//! nobody. Only this service makes tokens; it does not read access tokens back.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{
    digest, hmac, rand,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::domain::{self, User};

/// Makes tokens. Clones share the key.
#[derive(Clone)]
pub struct Tokens {
    key: Arc<Key>,
    /// Who made them.
    pub issuer: String,
    /// For whom.
    pub audience: String,
    /// Whose users these are.
    pub tenant: String,
    /// How long one is good.
    pub lifetime: Duration,
}

/// What they are signed with.
pub enum Key {
    /// Its public half is known by this id.
    Ed25519(String, Box<Ed25519KeyPair>),
    /// Known to who checks.
    Shared(Box<hmac::Key>),
}

impl Key {
    /// A new Ed25519 key as text, for the store.
    pub fn generate() -> Option<String> {
        let key = Ed25519KeyPair::generate().ok()?;
        let pkcs8 = key.to_pkcs8v1().ok()?;
        Some(encode(pkcs8.as_ref()))
    }

    /// Back from text, or from a PEM file.
    pub fn from_text(text: &str) -> Option<Self> {
        let text: String = text
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .flat_map(|line| line.trim().trim_end_matches('=').chars())
            .map(|letter| match letter {
                '+' => '-',
                '/' => '_',
                other => other,
            })
            .collect();
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&decode(&text)?).ok()?;
        let hash = digest::digest(&digest::SHA256, key.public_key().as_ref());
        Some(Self::Ed25519(encode(&hash.as_ref()[..12]), Box::new(key)))
    }

    /// A secret that a gateway knows too.
    pub fn shared(secret: &str) -> Result<Self, String> {
        if secret.len() < 32 {
            return Err("`token_secret`: needs at least 32 bytes".into());
        }
        Ok(Self::Shared(Box::new(hmac::Key::new(
            hmac::HMAC_SHA256,
            secret.as_bytes(),
        ))))
    }
}

impl Tokens {
    /// With a key and what the settings say.
    pub fn new(key: Key, issuer: &str, audience: &str, tenant: &str, lifetime: Duration) -> Self {
        Self {
            key: Arc::new(key),
            issuer: issuer.into(),
            audience: audience.into(),
            tenant: tenant.into(),
            lifetime,
        }
    }

    /// A token for this user in this session. `now` in milliseconds since 1970.
    pub fn access(&self, user: &User, session: Uuid, now: i64) -> String {
        let now = now / 1000;
        let claims = json!({
            "iss": self.issuer,
            "aud": self.audience,
            "sub": user.id.to_string(),
            "iat": now,
            "nbf": now,
            "exp": now + self.lifetime.as_secs() as i64,
            "jti": Uuid::new_v4().to_string(),
            "sid": session.to_string(),
            "roles": user.roles,
            "permissions": domain::permissions(&user.roles),
            "tenant": self.tenant,
        });
        let header = match &*self.key {
            Key::Ed25519(id, _) => json!({ "alg": "EdDSA", "kid": id, "typ": "JWT" }),
            Key::Shared(_) => json!({ "alg": "HS256", "typ": "JWT" }),
        };
        let signed = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(claims.to_string().as_bytes())
        );
        let signature = match &*self.key {
            Key::Ed25519(_, key) => encode(key.sign(signed.as_bytes()).as_ref()),
            Key::Shared(key) => encode(hmac::sign(key, signed.as_bytes()).as_ref()),
        };
        format!("{signed}.{signature}")
    }

    /// The keys that check them, as `/.well-known/jwks.json` tells them. A shared secret is not among them.
    pub fn keys(&self) -> Value {
        let keys = match &*self.key {
            Key::Ed25519(id, key) => vec![json!({
                "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": id,
                "x": encode(key.public_key().as_ref()),
            })],
            Key::Shared(_) => Vec::new(),
        };
        json!({ "keys": keys })
    }
}

/// A refresh token: 32 random bytes. The store keeps its hash only.
pub fn refresh() -> Option<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(encode(&bytes))
}

/// SHA-256 as text, of things that are random, or that must not be readable in the store.
pub fn hashed(text: &str) -> String {
    encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// base64url without padding (RFC 4648, 5).
fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(
                ALPHABET[(word >> (18 - 6 * place)) as usize & 63],
            ));
        }
    }
    text
}

/// Back from [`encode`].
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        let mut word = 0u32;
        for byte in chunk {
            let digit = ALPHABET.iter().position(|letter| letter == byte)?;
            word = word << 6 | u32::try_from(digit).ok()?;
        }
        let count = (chunk.len() * 6) / 8;
        let word = word << (6 * (4 - chunk.len()));
        bytes.extend_from_slice(&word.to_be_bytes()[1..=count]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_survive_as_text(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn text_is_that_of_the_standard() {
        // RFC 4648, 10, without padding.
        for (plain, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(encode(plain.as_bytes()), text);
        }
    }

    #[test]
    fn a_key_survives_the_store_under_the_same_id() {
        let text = Key::generate().unwrap();
        let id = |key| match key {
            Some(Key::Ed25519(id, _)) => id,
            _ => panic!("no key"),
        };
        assert_eq!(id(Key::from_text(&text)), id(Key::from_text(&text)));
        assert!(Key::from_text("nonsense").is_none());
        assert!(Key::shared("short").is_err());
    }

    fn somebody() -> User {
        let request = crate::contracts::users::CreateUserRequest {
            email: "ada@example.org".into(),
            password: "correct-horse-1".into(),
            first_name: "Ada".into(),
            last_name: "Lovelace".into(),
            ..Default::default()
        };
        User::new(&request, Uuid::now_v7(), 0).unwrap()
    }

    /// SHOP-207: what a gateway checks with the keys that it is told.
    #[test]
    fn the_told_key_checks_the_token() {
        let key = Key::from_text(&Key::generate().unwrap()).unwrap();
        let tokens = Tokens::new(key, "us", "shop", "default", Duration::from_secs(900));
        let user = somebody();
        let token = tokens.access(&user, Uuid::now_v7(), 1_000_000);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let keys = tokens.keys();
        let public = decode(keys["keys"][0]["x"].as_str().unwrap()).unwrap();
        let public =
            aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, public);
        assert!(
            public
                .verify(signed.as_bytes(), &decode(signature).unwrap())
                .is_ok()
        );
        let part = |part: &str| serde_json::from_slice::<Value>(&decode(part).unwrap()).unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        assert_eq!(part(header)["kid"], keys["keys"][0]["kid"]);
        let claims = part(claims);
        assert_eq!(
            (&claims["sub"], &claims["exp"]),
            (&json!(user.id.to_string()), &json!(1900))
        );
        assert_eq!(
            (&claims["roles"], &claims["aud"]),
            (&json!(["user"]), &json!("shop"))
        );
    }

    #[test]
    fn a_shared_secret_signs_and_is_not_told() {
        let key = Key::shared(&"s".repeat(32)).unwrap();
        let tokens = Tokens::new(key, "us", "shop", "default", Duration::from_secs(900));
        let token = tokens.access(&somebody(), Uuid::now_v7(), 0);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, "s".repeat(32).as_bytes());
        assert!(hmac::verify(&key, signed.as_bytes(), &decode(signature).unwrap()).is_ok());
        assert_eq!(tokens.keys(), json!({ "keys": [] }));
    }
}
