//! A key, and the one algorithm that it is for. What a token's header says can only agree with that or be refused: it
//! chooses nothing (RFC 8725 section 3.1), so a public key is never taken for a secret.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use tollgate_config::Algorithm;

/// A set of keys never changes: other keys are another set, with another number.
#[derive(Debug)]
pub(super) struct KeySet {
    pub(super) keys: Vec<Key>,
    /// Unique in this process. What was verified with a set is believed as long as that set holds.
    pub(super) number: u64,
    /// What it was read from, as a hash.
    pub(super) source: [u8; 32],
}

impl KeySet {
    pub(super) fn new(keys: Vec<Key>, source: [u8; 32]) -> Self {
        KeySet {
            keys,
            number: number(),
            source,
        }
    }
}

/// The next number that nothing else in this process has.
pub(super) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(super) struct Key {
    /// What `kid` must be, where a token has one; `None`: anything.
    pub(super) id: Option<Box<str>>,
    pub(super) algorithm: Algorithm,
    verifier: Verifier,
}

enum Verifier {
    /// More than a kilobyte.
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

/// Neither secrets nor long numbers.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {})", self.id, self.algorithm.word())
    }
}

impl Key {
    /// `None`: the algorithm is not one of secrets, or the secret is too short for it.
    pub(super) fn secret(
        algorithm: Algorithm,
        secret: &[u8],
        id: Option<Box<str>>,
    ) -> Option<Self> {
        let hash = match algorithm {
            Algorithm::Hs256 => hmac::HMAC_SHA256,
            Algorithm::Hs384 => hmac::HMAC_SHA384,
            Algorithm::Hs512 => hmac::HMAC_SHA512,
            _ => return None,
        };
        (secret.len() >= algorithm.least_secret()?).then(|| Key {
            id,
            algorithm,
            verifier: Verifier::Secret(Box::new(hmac::Key::new(hash, secret))),
        })
    }

    /// `bytes`: a SubjectPublicKeyInfo, or the bare key (RFC 8032, or an uncompressed point).
    pub(super) fn public(algorithm: Algorithm, bytes: &[u8], id: Option<Box<str>>) -> Option<Self> {
        let kind: &'static dyn VerificationAlgorithm = match algorithm {
            Algorithm::EdDsa => &ED25519,
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
            Algorithm::Es384 => &ECDSA_P384_SHA384_FIXED,
            _ => rsa(algorithm)?,
        };
        let key = ParsedPublicKey::new(kind, bytes).ok()?;
        Some(Key {
            id,
            algorithm,
            verifier: Verifier::Public(key),
        })
    }

    /// `n` and `e`: big-endian.
    pub(super) fn rsa(
        algorithm: Algorithm,
        n: &[u8],
        e: &[u8],
        id: Option<Box<str>>,
    ) -> Option<Self> {
        let parameters = rsa(algorithm)?;
        let first = n.iter().position(|byte| *byte != 0)?;
        let n = &n[first..];
        // 2048 to 8192 bits, as everybody asks for.
        let bits = n.len() * 8 - n.first()?.leading_zeros() as usize;
        if !(2048..=8192).contains(&bits) {
            return None;
        }
        let key = RsaPublicKeyComponents { n, e };
        Some(Key {
            id,
            algorithm,
            verifier: Verifier::Public(key.to_parsed_public_key(parameters).ok()?),
        })
    }

    /// Whether this key signed it. Secrets are compared in constant time.
    pub(super) fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
            Verifier::Public(key) => key.verify_sig(signed, signature).is_ok(),
        }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
