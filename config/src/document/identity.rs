//! `[identity]`, and what `mesh` means at a listener and at an upstream: who this data plane is, whom it lets in and whom
//! it expects to find.

use std::path::PathBuf;

use super::{At, Place, Secret};

/// This data plane is a member of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub service: String,
    pub namespace: String,
    pub source: IdentitySource,
    pub place: Place,
}

/// Where the member's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// The authority in the control plane signs it.
    Authority {
        /// Used once; then the certificate itself renews.
        token: Option<Secret>,
        /// A file with a service-account token, read at each asking.
        kubernetes_token: Option<PathBuf>,
    },
    /// Files that somebody else renews.
    Files {
        cert: PathBuf,
        key: PathBuf,
        ca: PathBuf,
    },
}

/// Who may connect to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mesh {
    /// Members by mutual TLS, and nobody else.
    Strict,
    /// Members by mutual TLS, and everybody else in clear text, on one port.
    Permissive,
    /// The mesh is nothing to this listener.
    #[default]
    Off,
}

/// Which member the endpoints of an upstream must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshPeer {
    /// `None`: that of `[identity]`.
    pub namespace: Option<String>,
    /// `None`: the one named by `service`.
    pub service: Option<String>,
    pub at: At,
}
