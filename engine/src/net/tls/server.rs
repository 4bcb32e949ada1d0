//! The side that clients see: one library configuration per listener, shared by all workers.
//!
//! Resumption is by tickets that only the configuration that made them can open: every configuration has its own
//! ticket keys, so a session begun under one policy about client certificates can never be continued under another
//! (HI-55). A reload that changes nothing keeps the configuration, and with it the clients' tickets.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, UnixTime};
use tollgate_config::document::{ClientAuth, ListenerProtocol, ListenerTls};

use super::choice::Choice;
use super::files::{Digest, Files, ends};
use super::{BYTES, TlsError, provider};

/// TLS of one listener, ready to shake hands. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    choice: Arc<Choice>,
    /// Kept to look again at the certificate of a resumed session. `None`: clients show none.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    expires: Option<SystemTime>,
    digest: Digest,
}

impl ServerTls {
    /// Reads all files of a listener. A certificate that has expired is served all the same: an operator who is late
    /// is better off with clients that complain than with a process that does not start; `expires` tells.
    pub fn load(tls: &ListenerTls, protocol: ListenerProtocol) -> Result<Self, TlsError> {
        let provider = provider();
        let mut files = Files::new();
        files.note(&[protocol as u8, tls.client_auth as u8]);

        if tls.certificates.is_empty() {
            return Err(TlsError::NothingToServe);
        }
        let mut choice = Choice::default();
        for certificate in &tls.certificates {
            files.note(&(certificate.names.len() as u64).to_be_bytes());
            for name in &certificate.names {
                files.note(name.as_bytes());
            }
            let pair = files.pair(&certificate.cert, &certificate.key, &provider)?;
            choice.add(&certificate.names, pair);
        }
        let expires = choice
            .keys()
            .iter()
            .filter_map(|key| ends(key.cert.first()?, &provider))
            .min();

        let clients = match (tls.client_auth, &tls.client_ca) {
            (ClientAuth::None, _) => None,
            (_, None) => return Err(TlsError::NoClientAuthority),
            (auth, Some(file)) => {
                let roots = Arc::new(files.authorities(file)?);
                let mut builder =
                    WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
                if auth == ClientAuth::Optional {
                    builder = builder.allow_unauthenticated();
                }
                let verifier = builder.build().map_err(|error| TlsError::BadAuthority {
                    file: file.clone(),
                    why: error.to_string(),
                })?;
                Some(verifier)
            }
        };

        let choice = Arc::new(choice);
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = match &clients {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(choice.clone());
        config.alpn_protocols = match protocol {
            ListenerProtocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            ListenerProtocol::Http1 => vec![b"http/1.1".to_vec()],
            ListenerProtocol::Http2 => vec![b"h2".to_vec()],
            ListenerProtocol::Detect => {
                vec![b"h2".to_vec(), b"http/1.1".to_vec(), BYTES.to_vec()]
            }
            // Whatever the client names is between it and the upstream.
            ListenerProtocol::Tcp => Vec::new(),
        };
        // Stateless tickets work on whichever worker the client comes back to; a cache would have to be shared.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        // Clients use one and throw away the rest; each costs an encryption and a quarter of a kilobyte.
        config.send_tls13_tickets = 1;

        Ok(ServerTls {
            config: Arc::new(config),
            choice,
            clients,
            expires,
            digest: files.digest(),
        })
    }

    /// Reads all files again. Returns what was there before when no byte and no setting changed.
    pub fn reload(
        previous: &ServerTls,
        tls: &ListenerTls,
        protocol: ListenerProtocol,
    ) -> Result<Self, TlsError> {
        let fresh = ServerTls::load(tls, protocol)?;
        Ok(if fresh.digest == previous.digest {
            previous.clone()
        } else {
            fresh
        })
    }

    /// What handshakes are made with. The same `Arc` as long as nothing changed.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether a connection whose handshake named `sni` may carry requests for `host` (lower case, no port); else the
    /// answer is 421 (HI-54). True when the certificate that was served is also the one for `host`, or is valid for
    /// it, or when the client named nobody. The policy about client certificates is one for the whole listener.
    pub fn serves(&self, sni: Option<&str>, host: &str) -> bool {
        self.choice.serves(sni, host)
    }

    /// When the first of the certificates ends; `None` = never.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// Who is at the other end, once the handshake is complete. A ticket outlives the handshake that earned it, so the
    /// certificate of a resumed session is verified again, at `now`.
    pub fn peer(
        &self,
        connection: &ServerConnection,
        now: UnixTime,
    ) -> Result<Option<PeerIdentity>, PeerRefused> {
        let Some(verifier) = &self.clients else {
            return Ok(None);
        };
        let chain = connection.peer_certificates().unwrap_or_default();
        let Some((certificate, issuers)) = chain.split_first() else {
            return Ok(None);
        };
        if connection.handshake_kind() == Some(HandshakeKind::Resumed) {
            verifier
                .verify_client_cert(certificate, issuers, now)
                .map_err(|error| PeerRefused {
                    why: error.to_string(),
                })?;
        }
        Ok(Some(PeerIdentity::of(certificate)))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("certificates", &self.choice.keys().len())
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// A client that proved to hold a certificate we trust. Only the certificate itself and its fingerprint are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    certificate: CertificateDer<'static>,
    fingerprint: [u8; 32],
}

impl PeerIdentity {
    /// Of a certificate that was verified; see `ServerTls::peer`.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, certificate).as_ref());
        PeerIdentity {
            certificate: certificate.clone().into_owned(),
            fingerprint,
        }
    }

    /// The client's own certificate, as DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

/// A resumed session whose client certificate is no longer good: to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRefused {
    why: String,
}

impl fmt::Display for PeerRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the client's certificate is no longer accepted: {}",
            self.why
        )
    }
}

impl std::error::Error for PeerRefused {}
