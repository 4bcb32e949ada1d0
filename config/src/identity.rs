//! Who is who in a mesh, as words: names of services (SPIFFE ids), what a data plane and the authority in the control
//! plane say to each other about certificates, and what every member shall trust.
//!
//! Both sides use these types; whatever their bytes, they are read with bounds or refused with words. Nothing here knows
//! a key, a certificate's inside, or a clock.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::problem::Fault;
use crate::rule;

/// Bytes of a whole id; the SPIFFE standard allows no more (SPIFFE-ID, section 2.3).
const MOST_ID: usize = 2048;
/// Bytes of a certificate request, a chain of certificates or a proof.
pub const MOST_PEM: usize = 64 << 10;
/// Authorities that are trusted at once: today's, the last one and the next one, with room for slow rotations.
pub const MOST_AUTHORITIES: usize = 16;
/// Revoked serial numbers that a member is told.
pub const MOST_REVOKED: usize = 100_000;

/// The name of a service in a mesh: `spiffe://trust-domain/ns/namespace/svc/service` (MESH-301). Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the namespace begins and ends; the domain before it and the service behind it follow.
    namespace: (usize, usize),
}

const SCHEME: &str = "spiffe://";
const BEFORE_NAMESPACE: &str = "/ns/";
const BEFORE_SERVICE: &str = "/svc/";

impl SpiffeId {
    pub fn new(trust_domain: &str, namespace: &str, service: &str) -> Result<SpiffeId, Fault> {
        domain(trust_domain)?;
        segment("namespace", namespace)?;
        segment("service", service)?;
        let text =
            format!("{SCHEME}{trust_domain}{BEFORE_NAMESPACE}{namespace}{BEFORE_SERVICE}{service}");
        if text.len() > MOST_ID {
            return Err(Fault::new(
                format!("an identity has more than {MOST_ID} bytes"),
                "use shorter names",
            ));
        }
        let from = SCHEME.len() + trust_domain.len() + BEFORE_NAMESPACE.len();
        Ok(SpiffeId {
            text: text.into(),
            namespace: (from, from + namespace.len()),
        })
    }

    /// Reads an id; another form than ours is no name of a service, however valid an id it is.
    pub fn parse(text: &str) -> Result<SpiffeId, Fault> {
        let fault = || {
            Fault::new(
                "this is not the identity of a service",
                format!("it looks like `{SCHEME}example.org/ns/default/svc/orders`"),
            )
        };
        let rest = text.strip_prefix(SCHEME).ok_or_else(fault)?;
        let (trust_domain, path) = rest.split_once(BEFORE_NAMESPACE).ok_or_else(fault)?;
        let (namespace, service) = path.split_once(BEFORE_SERVICE).ok_or_else(fault)?;
        SpiffeId::new(trust_domain, namespace, service)
    }

    pub fn trust_domain(&self) -> &str {
        let end = self.namespace.0 - BEFORE_NAMESPACE.len();
        self.text.get(SCHEME.len()..end).unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        { self.text.get(self.namespace.0..self.namespace.1) }.unwrap_or_default()
    }

    pub fn service(&self) -> &str {
        let from = self.namespace.1 + BEFORE_SERVICE.len();
        self.text.get(from..).unwrap_or_default()
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        SpiffeId::parse(&text).map_err(|fault| de::Error::custom(fault.message))
    }
}

/// Whether a text may be the name of a trust domain (SPIFFE-ID, section 2.1).
pub fn domain(text: &str) -> Result<(), Fault> {
    let good =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    if text.is_empty() || text.len() > 255 || !text.bytes().all(good) {
        return Err(Fault::new(
            format!("`{}` cannot be a trust domain", crate::unit::short(text)),
            "use lower-case letters, digits, `.`, `-` and `_`, such as `example.org`",
        ));
    }
    Ok(())
}

/// Whether a text may name a service in an identity.
pub fn service(text: &str) -> Result<(), Fault> {
    segment("service", text)
}

/// Whether a text may name a namespace in an identity.
pub fn namespace(text: &str) -> Result<(), Fault> {
    segment("namespace", text)
}

/// Whether a text names a member of one's own namespace, or `namespace/service`.
pub fn member(text: &str) -> Result<(), Fault> {
    let Some((namespace, service)) = text.split_once('/') else {
        return segment("service", text);
    };
    segment("namespace", namespace)?;
    segment("service", service)
}

/// One part of an id's path. Narrower than the standard, and the same as a service's name in the registry.
fn segment(what: &str, text: &str) -> Result<(), Fault> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let dots = text.bytes().all(|byte| byte == b'.');
    if dots || text.len() > 255 || !text.bytes().all(good) || rule::name(text).is_err() {
        return Err(Fault::new(
            format!(
                "`{}` cannot be a {what} in an identity",
                crate::unit::short(text)
            ),
            "use letters, digits, `.`, `-` and `_`",
        ));
    }
    Ok(())
}

/// `POST /identity/certificate`: a data plane asks the authority to sign its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// A PKCS #10 request, as PEM. It proves that the asker holds the key; names in it are not looked at.
    pub csr: String,
    /// Who the asker wants to be.
    pub service: String,
    pub namespace: String,
    pub proof: Proof,
}

/// Why the authority should believe it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Proof {
    /// Made by the authority for one service (`tollgate identity token`), good once and for a time.
    JoinToken(String),
    /// A Kubernetes service-account token.
    Kubernetes(String),
    /// A member asks again: the chain that it has, as PEM, and a signature of the request's DER by that chain's key.
    Renewal {
        certificate: String,
        /// Base64 of an ASN.1 ECDSA signature over SHA-256 (P-256).
        signature: String,
    },
}

/// Tokens belong in no log.
impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proof::JoinToken(_) => "JoinToken(…)",
            Proof::Kubernetes(_) => "Kubernetes(…)",
            Proof::Renewal { .. } => "Renewal(…)",
        })
    }
}

/// What the authority answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateAnswer {
    pub identity: SpiffeId,
    /// The new certificate, then its issuers up to but without the trusted one, as PEM.
    pub certificate: String,
    /// Seconds since 1970.
    pub not_before: u64,
    pub not_after: u64,
    pub trust: Trust,
}

/// Whom every member trusts; a line of the feed, too, and the answer of `GET /identity/trust`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    pub trust_domain: String,
    /// Grows with every change.
    pub version: u64,
    /// Each as PEM. While the authority changes its key there are two.
    pub authorities: Vec<String>,
    /// Serial numbers, in lower-case hex without leading zeros, of certificates that are no longer good though they have not
    /// expired.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<String>,
}

impl Trust {
    /// What cannot be said by an honest authority, in words.
    pub fn check(&self) -> Result<(), String> {
        domain(&self.trust_domain).map_err(|fault| fault.message)?;
        if self.authorities.is_empty() || self.authorities.len() > MOST_AUTHORITIES {
            return Err(format!(
                "`authorities` has {} certificates; 1 to {MOST_AUTHORITIES} are possible",
                self.authorities.len()
            ));
        }
        if self.authorities.iter().any(|pem| pem.len() > MOST_PEM) {
            return Err(format!("a certificate has more than {MOST_PEM} bytes"));
        }
        if self.revoked.len() > MOST_REVOKED {
            return Err(format!("`revoked` has more than {MOST_REVOKED} numbers"));
        }
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let serial = |text: &String| (1..=40).contains(&text.len()) && text.bytes().all(hex);
        if !self.revoked.iter().all(serial) {
            return Err("`revoked` holds something that is no serial number".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_was_written_mesh_301() {
        let id = SpiffeId::new("shop.example", "default", "orders").unwrap();
        assert_eq!(id.as_str(), "spiffe://shop.example/ns/default/svc/orders");
        let read = SpiffeId::parse(id.as_str()).unwrap();
        assert_eq!(read, id);
        assert_eq!(
            (read.trust_domain(), read.namespace(), read.service()),
            ("shop.example", "default", "orders")
        );
    }

    #[test]
    fn what_is_no_identity_of_a_service_is_refused_mesh_301() {
        for text in [
            "",
            "orders",
            "https://a/ns/b/svc/c",
            "spiffe://",
            "spiffe:///ns/b/svc/c",
            "spiffe://A/ns/b/svc/c",
            "spiffe://a:1/ns/b/svc/c",
            "spiffe://u@a/ns/b/svc/c",
            "spiffe://a/ns//svc/c",
            "spiffe://a/ns/b/svc/",
            "spiffe://a/ns/b/svc/c/d",
            "spiffe://a/ns/b/svc/c?q",
            "spiffe://a/ns/b/svc/c#f",
            "spiffe://a/ns/b/svc/..",
            "spiffe://a/ns/../svc/c",
            "spiffe://a/ns/b%20/svc/c",
            "spiffe://a/x/ns/b/svc/c",
            "spiffe://a/ns/b/sa/c",
            "spiffe://a/ns/b/svc/c\n",
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_lying_authority_is_caught() {
        let good = Trust {
            trust_domain: "a".into(),
            version: 1,
            authorities: vec!["pem".into()],
            revoked: vec!["1f".into()],
        };
        assert_eq!(good.check(), Ok(()));
        for spoil in [
            |trust: &mut Trust| trust.trust_domain = "A".into(),
            |trust: &mut Trust| trust.authorities.clear(),
            |trust: &mut Trust| trust.authorities = vec!["x".into(); MOST_AUTHORITIES + 1],
            |trust: &mut Trust| trust.authorities = vec!["x".repeat(MOST_PEM + 1)],
            |trust: &mut Trust| trust.revoked = vec!["1F".into()],
            |trust: &mut Trust| trust.revoked = vec!["".into()],
            |trust: &mut Trust| trust.revoked = vec!["1".into(); MOST_REVOKED + 1],
        ] {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_proof_shows_no_secret() {
        let proof = Proof::JoinToken("secret".into());
        assert!(!format!("{proof:?}").contains("secret"));
    }
}
