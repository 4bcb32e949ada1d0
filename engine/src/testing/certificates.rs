//! Certificates for tests: an authority that lives in memory, pairs it signed, and clients that trust it.
//!
//! Nothing here is for production: keys are made on the spot, last a test and are written only where a test says.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Signs certificates that its own clients trust, and nobody else.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

/// A certificate with its key, both as PEM.
pub struct Pair {
    pub cert_pem: String,
    pub key_pem: String,
}

/// Where a pair was written.
#[derive(Debug, Clone)]
pub struct PairFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Default for Authority {
    fn default() -> Self {
        Authority::new()
    }
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a P-256 key needs nothing but randomness");
        let mut parameters =
            CertificateParams::new(Vec::new()).expect("no name, so no name can be wrong");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        parameters.distinguished_name = common_name("tollgate test authority");
        let certificate = parameters
            .self_signed(&key)
            .expect("the key is the one made above");
        Authority {
            certificate_pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    /// A certificate for these names (addresses are recognised), valid now and for long.
    pub fn issue(&self, names: &[&str]) -> Pair {
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 3600);
        self.issue_between(names, now - day, now + 365 * day)
    }

    /// A certificate with its own time, to be early or late with.
    pub fn issue_between(&self, names: &[&str], from: SystemTime, until: SystemTime) -> Pair {
        let key = KeyPair::generate().expect("a P-256 key needs nothing but randomness");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let common = names.first().cloned().unwrap_or_default();
        let mut parameters = CertificateParams::new(names).expect("tests use names that are names");
        parameters.distinguished_name = common_name(&common);
        parameters.not_before = from.into();
        parameters.not_after = until.into();
        let certificate = parameters
            .signed_by(&key, &self.issuer)
            .expect("the issuer has its key");
        Pair {
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Writes the authority's certificate into `folder`.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<PathBuf> {
        let file = folder.join(format!("{name}.pem"));
        std::fs::write(&file, &self.certificate_pem)?;
        Ok(file)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .expect("it was written as PEM above");
        roots.add(certificate).expect("it was made above");
        roots
    }
}

impl Pair {
    /// Writes both files into `folder`: `NAME.pem` and `NAME.key`.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<PairFiles> {
        let files = PairFiles {
            cert: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        std::fs::write(&files.cert, &self.cert_pem)?;
        std::fs::write(&files.key, &self.key_pem)?;
        Ok(files)
    }
}

/// A client that trusts this authority, shows no certificate and offers no protocol.
pub fn client_config(authority: &Authority) -> ClientConfig {
    trusting(authority).with_no_client_auth()
}

/// A client that trusts this authority and shows a certificate when asked.
pub fn client_config_with(authority: &Authority, pair: &Pair) -> ClientConfig {
    let chain = CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .expect("a pair is PEM");
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).expect("a pair is PEM");
    trusting(authority)
        .with_client_auth_cert(chain, key)
        .expect("a pair matches")
}

fn trusting(
    authority: &Authority,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions")
        .with_root_certificates(authority.roots())
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
