//! A member whose certificate comes from files that somebody else renews (MESH-303).

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tollgate_config::document::{Identity, IdentitySource};
use tollgate_config::identity::Trust;

use super::super::TlsError;
use super::{Own, Trusted};

/// Who we are and whom we trust, as files say.
#[derive(Clone)]
pub struct Held {
    pub own: Arc<Own>,
    pub trusted: Arc<Trusted>,
}

impl Held {
    /// `None`: an authority says it.
    pub fn of_files(identity: &Identity) -> Result<Option<Held>, TlsError> {
        let IdentitySource::Files { cert, key, ca } = &identity.source else {
            return Ok(None);
        };
        let bad = |file: &Path, why: String| TlsError::NoMember {
            file: file.to_owned(),
            why,
        };
        let own = Own::new(&read(cert)?, &read(key)?).map_err(|why| bad(cert, why))?;
        let named = &own.facts.identity;
        if named.namespace() != identity.namespace || named.service() != identity.service {
            let why = format!(
                "it names {named}, and `[identity]` says {}/{}",
                identity.namespace, identity.service
            );
            return Err(bad(cert, why));
        }
        // Of another number whenever it is read: it is never compared.
        let trust = Trust {
            trust_domain: named.trust_domain().to_owned(),
            version: 0,
            authorities: authorities(ca)?,
            revoked: Vec::new(),
        };
        let trusted = Trusted::new(&trust).map_err(|why| bad(ca, why))?;
        Ok(Some(Held {
            own: Arc::new(own),
            trusted: Arc::new(trusted),
        }))
    }
}

/// Each as PEM of its own.
fn authorities(file: &Path) -> Result<Vec<String>, TlsError> {
    let bytes = read(file)?;
    let text = String::from_utf8_lossy(&bytes);
    let count = CertificateDer::pem_slice_iter(&bytes)
        .filter(Result::is_ok)
        .count();
    if count == 0 {
        return Err(TlsError::NoCertificate {
            file: file.to_owned(),
        });
    }
    const END: &str = "-----END CERTIFICATE-----";
    let parts = text.split_inclusive(END);
    Ok(parts
        .filter(|part| part.contains("-----BEGIN CERTIFICATE-----"))
        .map(str::to_owned)
        .collect())
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|error| TlsError::Unreadable {
        file: file.to_owned(),
        error,
    })
}
