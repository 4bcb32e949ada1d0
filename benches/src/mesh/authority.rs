//! Certificates: of an authority made for the run, for those that bring none of their own; and one of our control plane,
//! for the load, where it has to be a member itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use crate::fleet::Caller;
use crate::load::tls;

/// A member's files.
pub(super) struct Files {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
    /// Both in one.
    pub(super) both: PathBuf,
}

/// An authority that signs what it is asked for.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    pub(super) roots: PathBuf,
}

impl Authority {
    pub(super) fn new(folder: &Path) -> io::Result<Authority> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, key()?).map_err(io::Error::other)?;
        let roots = folder.join("roots.pem");
        fs::write(&roots, issuer.pem())?;
        Ok(Authority {
            issuer,
            folder: folder.to_owned(),
            roots,
        })
    }

    /// A certificate that says what one of our control plane says, and the name as a host and a common name besides, for
    /// who compares those.
    pub(super) fn member(&self, service: &str) -> io::Result<Files> {
        let key = key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, service);
        params.subject_alt_names = vec![
            SanType::URI(identity(service).try_into().map_err(io::Error::other)?),
            SanType::DnsName(service.try_into().map_err(io::Error::other)?),
        ];
        let signed = { params.signed_by(&key, &self.issuer) }.map_err(io::Error::other)?;
        let (chain, key) = (signed.pem(), key.serialize_pem());
        let file = |end: &str, text: &str| -> io::Result<PathBuf> {
            let path = self.folder.join(format!("{service}.{end}"));
            fs::write(&path, text)?;
            Ok(path)
        };
        Ok(Files {
            chain: file("pem", &chain)?,
            key: file("key", &key)?,
            both: file("both", &format!("{chain}{key}"))?,
        })
    }
}

/// What a member's certificate says.
pub(super) fn identity(service: &str) -> String {
    format!("spiffe://tollgate.local/ns/default/svc/{service}")
}

/// What shakes hands as this member.
pub(super) fn connector(files: &Files) -> io::Result<TlsConnector> {
    pair(&fs::read(&files.chain)?, &fs::read(&files.key)?)
}

/// Joins our mesh as this service.
pub(super) fn join(control: &mut Caller, service: &str, token: &str) -> io::Result<TlsConnector> {
    let key = key()?;
    let request =
        { CertificateParams::default().serialize_request(&key) }.map_err(io::Error::other)?;
    let body = json!({
        "csr": request.pem().map_err(io::Error::other)?,
        "service": service,
        "namespace": "default",
        "proof": { "join_token": token },
    });
    let (status, answer) = control.ask("POST", "/identity/certificate", &body.to_string())?;
    let told: Value = serde_json::from_str(&answer).map_err(io::Error::other)?;
    let chain = told["certificate"].as_str();
    let chain =
        chain.ok_or_else(|| io::Error::other(format!("no certificate: {status}: {answer}")))?;
    pair(chain.as_bytes(), key.serialize_pem().as_bytes())
}

fn pair(chain: &[u8], key: &[u8]) -> io::Result<TlsConnector> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(io::Error::other)?;
    tls::member(chain.map_err(io::Error::other)?, key)
}

fn key() -> io::Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(io::Error::other)
}
