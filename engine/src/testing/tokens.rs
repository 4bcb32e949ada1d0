//! Issuers of JSON Web Tokens: keys of every kind, and tokens with exactly the header and the claims that a test wants.
//! Writes base64 by itself, so that a mistake in the engine's reader cannot hide.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
};
use serde_json::{Value, json};

/// Somebody who signs.
pub struct Signer {
    /// `None`: tokens and the key's JWK have no `kid`.
    pub id: Option<String>,
    key: Key,
}

enum Key {
    Secret(Vec<u8>),
    Ed25519(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
    Rs256(Box<RsaKeyPair>),
}

impl Signer {
    pub fn secret(secret: &str) -> Signer {
        Signer::new(None, Key::Secret(secret.as_bytes().to_vec()))
    }

    pub fn ed25519(id: &str) -> Signer {
        let pair = Ed25519KeyPair::generate().expect("a key");
        Signer::new(Some(id), Key::Ed25519(pair))
    }

    pub fn es256(id: &str) -> Signer {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Signer::new(Some(id), Key::Es256(pair))
    }

    pub fn rs256(id: &str) -> Signer {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        Signer::new(Some(id), Key::Rs256(Box::new(pair)))
    }

    fn new(id: Option<&str>, key: Key) -> Signer {
        Signer {
            id: id.map(str::to_owned),
            key,
        }
    }

    pub fn algorithm(&self) -> &'static str {
        match &self.key {
            Key::Secret(_) => "HS256",
            Key::Ed25519(_) => "EdDSA",
            Key::Es256(_) => "ES256",
            Key::Rs256(_) => "RS256",
        }
    }

    /// A token with the header that goes with the key.
    pub fn token(&self, claims: &Value) -> String {
        let mut header = json!({ "alg": self.algorithm(), "typ": "JWT" });
        if let Some(id) = &self.id {
            header["kid"] = id.as_str().into();
        }
        self.sign(&header.to_string(), &claims.to_string())
    }

    /// A token with just these texts in it.
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(claims.as_bytes())
        );
        let signature = self.signature(signed.as_bytes());
        format!("{signed}.{}", encode(&signature))
    }

    pub fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Secret(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, message).as_ref().to_vec()
            }
            Key::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Key::Es256(pair) => {
                let signature = pair.sign(&random, message);
                signature.expect("a signature").as_ref().to_vec()
            }
            Key::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .expect("a signature");
                signature
            }
        }
    }

    /// The public key as a JWK.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Key::Secret(secret) => json!({ "kty": "oct", "k": encode(secret) }),
            Key::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) })
            }
            Key::Es256(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
            }
            Key::Rs256(pair) => {
                let public = pair.public_key();
                let n = public.modulus().big_endian_without_leading_zero();
                let e = public.exponent().big_endian_without_leading_zero();
                json!({ "kty": "RSA", "n": encode(n), "e": encode(e) })
            }
        };
        jwk["alg"] = self.algorithm().into();
        if let Some(id) = &self.id {
            jwk["kid"] = id.as_str().into();
        }
        jwk
    }

    /// The public key as PEM.
    pub fn pem(&self) -> String {
        let der = match &self.key {
            Key::Secret(_) => Vec::new(),
            Key::Ed25519(pair) => pair.public_key().as_der().expect("a key").as_ref().to_vec(),
            Key::Es256(pair) => pair.public_key().as_der().expect("a key").as_ref().to_vec(),
            Key::Rs256(pair) => pair.public_key().as_der().expect("a key").as_ref().to_vec(),
        };
        let mut text = encode(&der).replace('-', "+").replace('_', "/");
        while !text.len().is_multiple_of(4) {
            text.push('=');
        }
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("ASCII"))
            .collect();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        )
    }
}

/// A set of public keys, as an issuer publishes it.
pub fn jwks(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// Base64url without padding.
pub fn encode(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    let (mut word, mut bits) = (0u32, 0);
    for byte in bytes {
        word = word << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 6 {
            bits -= 6;
            text.push(char::from(LETTERS[(word >> bits & 63) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(LETTERS[(word << (6 - bits) & 63) as usize]));
    }
    text
}
