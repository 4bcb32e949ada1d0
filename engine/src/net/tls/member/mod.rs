//! This data plane as a member of the mesh: its certificate and whom it trusts, shared by all listeners, upstreams and
//! workers, and replaced in place (MESH-302, MESH-304).
//!
//! Every handshake reads what holds at that moment, so a renewed certificate, another authority or a revocation needs
//! no other configuration and touches no connection. Members speak TLS 1.3 and nothing older; no session is ever
//! resumed, so that nobody gets past a revocation with what it earned before. Whether a certificate is good is asked in
//! three steps: the chain and its times (the TLS library), who it names (`facts`), and whether it was revoked. Nothing
//! here reads a file, asks an authority or logs.

mod facts;
mod held;
mod refusal;
#[cfg(test)]
mod tests;
mod verify;

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tollgate_config::document::{ListenerProtocol, Mesh};
use tollgate_config::identity::{SpiffeId, Trust};

use super::{BYTES, TlsError, provider};
pub use facts::Facts;
pub use held::Held;
pub use refusal::{REFUSED_US, Reason, Refusal, Side, of_client};
use verify::{Callees, Callers, OwnKey};

/// A certificate whose time begins up to so much later is taken: clocks of machines differ. None is given at the end of
/// its time, which members do not come near.
pub const SKEW: Duration = Duration::from_secs(60);

/// One exists per process; what it holds comes and goes.
#[derive(Default)]
pub struct Member {
    own: ArcSwapOption<Own>,
    trusted: ArcSwapOption<Trusted>,
    /// One more with each change of `trusted`.
    changes: AtomicU64,
    /// By side and reason.
    failures: [[AtomicU64; Reason::COUNT]; 2],
}

/// Our certificate and its key.
pub struct Own {
    pub facts: Facts,
    key: Arc<CertifiedKey>,
}

/// Whom we trust.
pub struct Trusted {
    pub trust_domain: String,
    pub version: u64,
    pub authorities: Vec<AuthorityFacts>,
    roots: Arc<RootCertStore>,
    callers: Arc<dyn ClientCertVerifier>,
    revoked: HashSet<Box<str>>,
}

/// What operators see of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityFacts {
    pub name: String,
    pub serial: Box<str>,
    /// Seconds since 1970.
    pub not_after: u64,
}

impl Own {
    /// A chain as PEM, our own certificate first, and its key as PEM.
    pub fn new(chain: &[u8], key: &[u8]) -> Result<Own, String> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("the certificate is no PEM: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| format!("the key is no PEM: {error}"))?;
        let first = chain.first().ok_or("there is no certificate")?;
        let facts = Facts::of(first).map_err(|refusal| refusal.to_string())?;
        let key = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| format!("the key does not go with the certificate: {error}"))?;
        Ok(Own {
            facts,
            key: Arc::new(key),
        })
    }

    /// Our own certificate first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }
}

impl Trusted {
    pub fn new(trust: &Trust) -> Result<Trusted, String> {
        trust.check()?;
        let mut roots = RootCertStore::empty();
        let mut authorities = Vec::new();
        for pem in &trust.authorities {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate =
                    certificate.map_err(|error| format!("an authority is no PEM: {error}"))?;
                authorities.push(facts::authority(&certificate)?);
                roots
                    .add(certificate)
                    .map_err(|error| format!("an authority cannot be used: {error}"))?;
            }
        }
        if roots.is_empty() {
            return Err("there is no authority".to_owned());
        }
        let roots = Arc::new(roots);
        let callers = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Trusted {
            trust_domain: trust.trust_domain.clone(),
            version: trust.version,
            authorities,
            roots,
            callers,
            revoked: { trust.revoked.iter() }
                .map(|serial| serial.as_str().into())
                .collect(),
        })
    }

    /// Whether our own certificate is one that members take, at the moment from which on it is valid.
    pub fn has_signed(&self, own: &Own) -> bool {
        let Some((first, issuers)) = own.key.cert.split_first() else {
            return false;
        };
        let begins = UnixTime::since_unix_epoch(Duration::from_secs(own.facts.not_before));
        self.callers
            .verify_client_cert(first, issuers, begins)
            .is_ok()
    }

    pub fn is_revoked(&self, serial: &str) -> bool {
        self.revoked.contains(serial)
    }

    pub fn count_revoked(&self) -> usize {
        self.revoked.len()
    }
}

impl Member {
    /// New connections are made with this from now on.
    pub fn hold(&self, own: Option<Arc<Own>>) {
        self.own.store(own);
    }

    /// New connections are judged by this from now on.
    pub fn trust(&self, trusted: Option<Arc<Trusted>>) {
        self.trusted.store(trusted);
        self.changes.fetch_add(1, Ordering::Release);
    }

    pub fn own(&self) -> Option<Arc<Own>> {
        self.own.load_full()
    }

    pub fn trusted(&self) -> Option<Arc<Trusted>> {
        self.trusted.load_full()
    }

    /// Whether handshakes can succeed at all.
    pub fn is_equipped(&self) -> bool {
        self.own.load().is_some() && self.trusted.load().is_some()
    }

    /// How many handshakes failed.
    pub fn failures(&self, side: Side, reason: Reason) -> u64 {
        self.failures[side as usize][reason as usize].load(Ordering::Relaxed)
    }

    /// A handshake failed: why, in words, and counted.
    pub fn failed(&self, side: Side, error: &io::Error) -> Refusal {
        self.refuse(side, Refusal::of(error))
    }

    /// A connection was refused for this; it is counted.
    pub fn refuse(&self, side: Side, refusal: Refusal) -> Refusal {
        self.failures[side as usize][refusal.reason as usize].fetch_add(1, Ordering::Relaxed);
        refusal
    }

    /// Why no handshake can be begun; `None`: it can.
    pub fn lacks(&self) -> Option<Refusal> {
        (!self.is_equipped()).then(|| {
            Refusal::new(
                Reason::NotReady,
                "this data plane has no certificate of the mesh yet",
            )
        })
    }

    /// Who is at the other end of a handshake that is complete.
    pub fn peer(self: &Arc<Self>, chain: Option<&[CertificateDer<'_>]>) -> Result<Peer, Refusal> {
        let first = chain.and_then(|chain| chain.first());
        let missing = || Refusal::new(Reason::NoCertificate, "it showed no certificate");
        let facts = Facts::of(first.ok_or_else(missing)?)?;
        Ok(Peer {
            id: facts.identity,
            serial: facts.serial,
            member: self.clone(),
            // Looked at once more: it may have been revoked since the handshake.
            seen: Cell::new(0),
            revoked: Cell::new(false),
        })
    }
}

/// A member at the other end of a connection, for as long as the connection lives.
pub struct Peer {
    pub id: SpiffeId,
    serial: Box<str>,
    member: Arc<Member>,
    /// The change of trust that it was looked at with.
    seen: Cell<u64>,
    revoked: Cell<bool>,
}

impl Peer {
    /// Whether its certificate was revoked since. One atomic is read as long as nothing changed.
    pub fn is_revoked(&self) -> bool {
        let changes = self.member.changes.load(Ordering::Acquire);
        if self.seen.replace(changes) != changes && !self.revoked.get() {
            let trusted = self.member.trusted.load();
            let revoked = trusted.as_ref().is_some_and(|t| t.is_revoked(&self.serial));
            self.revoked.set(revoked);
        }
        self.revoked.get()
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("own", &self.own().map(|own| own.facts.identity.to_string()))
            .finish_non_exhaustive()
    }
}

/// Mutual TLS of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemberTls {
    pub mode: Mesh,
    pub member: Arc<Member>,
    config: Arc<ServerConfig>,
}

impl MemberTls {
    /// `None` for a listener that is outside of the mesh.
    pub fn new(
        member: &Arc<Member>,
        mode: Mesh,
        protocol: ListenerProtocol,
    ) -> Result<Option<Self>, TlsError> {
        if mode == Mesh::Off {
            return Ok(None);
        }
        let mut config = ServerConfig::builder_with_provider(between_members())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Callers::new(member.clone())))
            .with_cert_resolver(Arc::new(OwnKey(member.clone())));
        config.alpn_protocols = match protocol {
            ListenerProtocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            ListenerProtocol::Http1 => vec![b"http/1.1".to_vec()],
            ListenerProtocol::Http2 => vec![b"h2".to_vec()],
            ListenerProtocol::Detect => {
                vec![b"h2".to_vec(), b"http/1.1".to_vec(), BYTES.to_vec()]
            }
            ListenerProtocol::Tcp => vec![BYTES.to_vec()],
        };
        // Nothing to resume a session with is given away or kept.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Some(MemberTls {
            mode,
            member: member.clone(),
            config: Arc::new(config),
        }))
    }

    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

/// The member that endpoints of an upstream must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expected {
    pub namespace: String,
    pub service: String,
}

impl Expected {
    fn fits(&self, id: &SpiffeId) -> bool {
        id.namespace() == self.namespace && id.service() == self.service
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)
    }
}

/// The provider with AES-128 before AES-256: within a mesh every byte is encrypted for each hop anew, and ten rounds are
/// enough.
fn between_members() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            let mut provider = provider().as_ref().clone();
            // Stable: all others stay in their order.
            provider
                .cipher_suites
                .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
            Arc::new(provider)
        })
        .clone()
}

/// What a client of the mesh shakes hands with.
pub(super) fn client(member: &Arc<Member>, expected: &Expected) -> Result<ClientConfig, TlsError> {
    let callees = Callees::new(member.clone(), expected.clone());
    let mut config = ClientConfig::builder_with_provider(between_members())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(callees))
        .with_client_cert_resolver(Arc::new(OwnKey(member.clone())));
    config.resumption = Resumption::disabled();
    // A member is known by its identity; no host name is asked for, and none is told to who listens on the way.
    config.enable_sni = false;
    Ok(config)
}
