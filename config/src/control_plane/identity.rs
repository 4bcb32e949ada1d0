//! `[identity]` of a control plane: the authority of a mesh, what it believes, and for how long its word is good. What a
//! certificate is, nobody knows here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::read::{duration, take};
use super::seconds;
use crate::identity::full_member;
use crate::parse::Node;
use crate::report::ItemReport;

/// The authority.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    pub enabled: bool,
    pub trust_domain: String,
    /// Of a member's certificate.
    pub certificate_lifetime: Duration,
    /// Of the authority's own certificate.
    pub authority_lifetime: Duration,
    /// Between telling members of a new key and signing with it.
    pub overlap: Duration,
    /// Of a join token, unless whoever makes it says otherwise.
    pub token_lifetime: Duration,
    /// How long after its end a certificate still renews itself.
    pub grace: Duration,
    /// `None`: a key that is made here.
    pub files: Option<AuthorityFiles>,
    pub kubernetes: Option<Kubernetes>,
}

/// A key of somebody's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Whom members trust; `None`: the last certificate in `cert`.
    pub roots: Option<PathBuf>,
}

/// Service-account tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    pub issuer: String,
    pub audience: String,
    /// A set of JWKs, or PEM.
    pub keys: PathBuf,
    /// Namespace and service account to namespace and service; whoever is not in it is what it is called there.
    pub services: BTreeMap<(String, String), (String, String)>,
}

impl Default for Identity {
    fn default() -> Self {
        Identity {
            enabled: true,
            trust_domain: "tollgate.local".to_owned(),
            certificate_lifetime: seconds(24 * 3600),
            authority_lifetime: seconds(8760 * 3600),
            overlap: seconds(24 * 3600),
            token_lifetime: seconds(3600),
            grace: Duration::ZERO,
            files: None,
            kubernetes: None,
        }
    }
}

impl Identity {
    /// From this much of an authority's life on, the next one is announced: what it signs last must end before it does.
    pub fn rotates_before(&self) -> Duration {
        self.overlap
            .saturating_add(self.certificate_lifetime.saturating_mul(2))
    }
}

pub(super) fn read(
    node: &Node,
    folder: &Path,
    identity: &mut Identity,
    report: &mut ItemReport<'_>,
) {
    take(node, "enabled", Node::flag, &mut identity.enabled);
    let text = |node: &Node| node.text().map(str::to_owned);
    take(node, "trust_domain", text, &mut identity.trust_domain);
    for (key, value) in [
        ("certificate_lifetime", &mut identity.certificate_lifetime),
        ("authority_lifetime", &mut identity.authority_lifetime),
        ("overlap", &mut identity.overlap),
        ("token_lifetime", &mut identity.token_lifetime),
        ("grace", &mut identity.grace),
    ] {
        take(node, key, duration, value);
    }
    let file = |node: &Node, key: &str| Some(folder.join(node.get(key)?.text()?));
    identity.files = { file(node, "cert").zip(file(node, "key")) }.map(|(cert, key)| {
        let roots = file(node, "roots");
        AuthorityFiles { cert, key, roots }
    });
    identity.kubernetes = node.get("kubernetes").and_then(|node| {
        let services = node.get("services").map_or(&[][..], Node::entries).iter();
        let services = services.filter_map(|entry| {
            let own = |(namespace, name): (&str, &str)| (namespace.to_owned(), name.to_owned());
            let account = full_member(&entry.key).ok().map(own)?;
            Some((account, full_member(entry.node.text()?).ok().map(own)?))
        });
        Some(Kubernetes {
            issuer: text(node.get("issuer")?)?,
            audience: node
                .get("audience")
                .map_or_else(|| Some("tollgate".to_owned()), text)?,
            keys: file(node, "keys")?,
            services: services.collect(),
        })
    });
    check(node, identity, report);
}

/// What the grammar cannot say: an authority that had to be replaced again before its predecessor is gone.
fn check(node: &Node, identity: &Identity, report: &mut ItemReport<'_>) {
    let least = identity.rotates_before().saturating_mul(2);
    if identity.files.is_none() && identity.authority_lifetime < least {
        let keys = ["authority_lifetime", "overlap", "certificate_lifetime"];
        let spot = keys.iter().find_map(|key| node.get(key));
        report.add(
            "contradiction",
            spot.map_or(node.spot, |node| node.spot),
            "`authority_lifetime` is shorter than twice the time that a change of the key takes, `overlap` and two \
             `certificate_lifetime`s",
            format!(
                "write `authority_lifetime = \"{}h\"` or more",
                least.as_secs().div_ceil(3600)
            ),
        );
    }
}
