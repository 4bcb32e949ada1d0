//! TLS on both sides: certificates and keys read from files and made into what the TLS library wants.
//!
//! All knowledge of that library is behind this door, and of the cryptography it uses; there is one provider, named at
//! every place where a choice is possible, so that no process-wide default decides. Everything here runs at start and
//! at reload, on the control thread; only choosing a certificate (`choice`) runs per handshake. Private keys are never
//! kept beside what the library needs, never logged and never compared: what was read is remembered as a digest.

mod choice;
mod client;
mod files;
pub mod look;
mod member;
mod server;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

pub use client::ClientTls;
pub use member::{
    AuthorityFacts, Expected, Facts, Held, Member, MemberTls, Own, Peer, REFUSED_US, Reason,
    Refusal, SKEW, Side, Trusted, of_client,
};
pub use server::{PeerIdentity, PeerRefused, ServerTls};

/// The ALPN name by which one member of a mesh tells another that bytes will follow, and no HTTP.
pub const BYTES: &[u8] = b"tollgate-bytes";

/// Why TLS cannot be set up as the document says.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    Unreadable {
        file: PathBuf,
        error: io::Error,
    },
    NoCertificate {
        file: PathBuf,
    },
    BadCertificate {
        file: PathBuf,
        why: String,
    },
    NoKey {
        file: PathBuf,
    },
    BadKey {
        file: PathBuf,
        why: String,
    },
    KeyDoesNotMatch {
        certificate: PathBuf,
        key: PathBuf,
    },
    BadAuthority {
        file: PathBuf,
        why: String,
    },
    /// A listener with TLS and not one certificate.
    NothingToServe,
    /// Clients are to show certificates, but nothing says who may have signed them.
    NoClientAuthority,
    /// An upstream with `cert` and no `key`, or the reverse.
    HalfIdentity,
    NoSystemRoots,
    BadName {
        name: String,
    },
    /// Files that are to make us a member of the mesh, and do not.
    NoMember {
        file: PathBuf,
        why: String,
    },
    /// The TLS library refused the whole.
    Refused {
        why: String,
    },
}

impl TlsError {
    /// The file to look at, when the fault is in one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            TlsError::Unreadable { file, .. }
            | TlsError::NoCertificate { file }
            | TlsError::BadCertificate { file, .. }
            | TlsError::NoKey { file }
            | TlsError::BadKey { file, .. }
            | TlsError::NoMember { file, .. }
            | TlsError::BadAuthority { file, .. } => Some(file),
            TlsError::KeyDoesNotMatch { key, .. } => Some(key),
            TlsError::NothingToServe
            | TlsError::NoClientAuthority
            | TlsError::HalfIdentity
            | TlsError::NoSystemRoots
            | TlsError::BadName { .. }
            | TlsError::Refused { .. } => None,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Unreadable { file, error } => {
                write!(f, "cannot read {}: {error}", file.display())
            }
            TlsError::NoCertificate { file } => write!(
                f,
                "{} holds no certificate; a PEM file with a `BEGIN CERTIFICATE` part is needed",
                file.display()
            ),
            TlsError::BadCertificate { file, why } => {
                write!(f, "{} holds a bad certificate: {why}", file.display())
            }
            TlsError::NoKey { file } => write!(
                f,
                "{} holds no private key; a PEM file with a `BEGIN PRIVATE KEY` part, not encrypted, is needed",
                file.display()
            ),
            TlsError::BadKey { file, why } => {
                write!(f, "{} holds a bad private key: {why}", file.display())
            }
            TlsError::KeyDoesNotMatch { certificate, key } => write!(
                f,
                "the key in {} does not belong to the first certificate in {}; the server's own certificate comes first, then its issuers",
                key.display(),
                certificate.display()
            ),
            TlsError::BadAuthority { file, why } => {
                write!(f, "{} holds a bad authority: {why}", file.display())
            }
            TlsError::NothingToServe => f.write_str("no certificate is named; set `cert` and `key`"),
            TlsError::NoClientAuthority => f.write_str(
                "`client_auth` needs `client_ca`: a PEM file with the authorities that sign clients",
            ),
            TlsError::HalfIdentity => f.write_str("`cert` and `key` are needed together"),
            TlsError::NoSystemRoots => f.write_str(
                "this system has no bundle of trusted authorities in a usual place; set `ca` to a PEM file",
            ),
            TlsError::BadName { name } => {
                write!(f, "`{name}` is neither a host name nor an address")
            }
            TlsError::NoMember { file, why } => write!(
                f,
                "{} does not make this data plane a member of the mesh: {why}",
                file.display()
            ),
            TlsError::Refused { why } => write!(f, "TLS cannot be set up: {why}"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            TlsError::Unreadable { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        TlsError::Refused {
            why: error.to_string(),
        }
    }
}

/// The one provider of cryptography, made once: every upstream and listener with TLS holds it.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .clone()
}
