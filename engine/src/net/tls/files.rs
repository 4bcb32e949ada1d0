//! Reads certificates, keys and authorities from PEM files, and remembers what was read as one digest, so that a
//! reload can tell "the same bytes and settings" from "something changed" without keeping a key for comparison.

use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::TlsError;

/// SHA-256 over all settings and files of one TLS configuration.
pub(super) type Digest = [u8; SHA256_OUTPUT_LEN];

/// Seconds of the last moment of the year 9999, which certificates use for "never".
const END_OF_TIME: u64 = 253_402_300_799;

/// Where systems keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// Everything read for one configuration goes through one of these.
pub(super) struct Files {
    context: Context,
}

impl Files {
    pub(super) fn new() -> Self {
        Files {
            context: Context::new(&SHA256),
        }
    }

    /// Makes a setting part of the digest. Lengths are included, so that no two lists of parts look alike.
    pub(super) fn note(&mut self, part: &[u8]) {
        self.context.update(&(part.len() as u64).to_be_bytes());
        self.context.update(part);
    }

    pub(super) fn digest(self) -> Digest {
        let mut digest = Digest::default();
        digest.copy_from_slice(self.context.finish().as_ref());
        digest
    }

    fn read(&mut self, file: &Path) -> Result<Vec<u8>, TlsError> {
        let bytes = std::fs::read(file).map_err(|error| TlsError::Unreadable {
            file: file.to_owned(),
            error,
        })?;
        self.note(file.as_os_str().as_encoded_bytes());
        self.note(&bytes);
        Ok(bytes)
    }

    /// A certificate chain with its key, which belong together.
    pub(super) fn pair(
        &mut self,
        certificate: &Path,
        key: &Path,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(certificate, &self.read(certificate)?)?;
        let private = private_key(key, &self.read(key)?)?;
        CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsError::KeyDoesNotMatch {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            },
            error => TlsError::BadKey {
                file: key.to_owned(),
                why: error.to_string(),
            },
        })
    }

    /// The authorities of a file: all of it must be good, since a person named it.
    pub(super) fn authorities(&mut self, file: &Path) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(file, &self.read(file)?)? {
            roots
                .add(certificate)
                .map_err(|error| TlsError::BadAuthority {
                    file: file.to_owned(),
                    why: error.to_string(),
                })?;
        }
        Ok(roots)
    }

    /// The authorities that the system trusts. Single odd ones in the system's bundle are left out.
    pub(super) fn system_authorities(&mut self) -> Result<RootCertStore, TlsError> {
        for file in SYSTEM_ROOTS.map(Path::new) {
            let Ok(bytes) = self.read(file) else { continue };
            let certificates = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok);
            let mut roots = RootCertStore::empty();
            let (added, _) = roots.add_parsable_certificates(certificates);
            if added > 0 {
                return Ok(roots);
            }
        }
        Err(TlsError::NoSystemRoots)
    }
}

fn certificates(file: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |why: String| TlsError::BadCertificate {
        file: file.to_owned(),
        why,
    };
    let chain = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad(error.to_string()))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            file: file.to_owned(),
        });
    }
    for certificate in &chain {
        ParsedCertificate::try_from(certificate).map_err(|error| bad(error.to_string()))?;
    }
    Ok(chain)
}

fn private_key(file: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey {
            file: file.to_owned(),
        },
        error => TlsError::BadKey {
            file: file.to_owned(),
            why: error.to_string(),
        },
    })
}

/// When a certificate ends; `None` = never, or so late that nobody will see it.
///
/// The verifier looks at the dates before it looks for an issuer. Asked at the end of time and with no issuer to find,
/// it can only answer with the certificate's last moment; so we need no reader of certificates of our own.
pub(super) fn ends(
    certificate: &CertificateDer<'_>,
    provider: &CryptoProvider,
) -> Option<SystemTime> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let verdict = verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &RootCertStore::empty(),
        &[],
        UnixTime::since_unix_epoch(Duration::from_secs(END_OF_TIME)),
        provider.signature_verification_algorithms.all,
    );
    match verdict {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(not_after.as_secs()))
        }
        _ => None,
    }
}
