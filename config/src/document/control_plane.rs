//! `[control_plane]`: where a node fetches routes and upstreams from, and under which name.

use std::fmt;

use super::{Place, UpstreamTls};
use crate::feed::NodeKind;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// In the order of preference; at least one.
    pub urls: Vec<Url>,
    /// `None`: the name of the machine.
    pub node: Option<String>,
    /// Which documents it is told.
    pub kind: NodeKind,
    /// How the control plane proves itself, and we to it; used for `https` only.
    pub tls: Option<UpstreamTls>,
    /// Shown to the control plane.
    pub token: Option<Secret>,
    /// A service that this process announces.
    pub register: Option<Register>,
    pub place: Place,
}

/// An instance of a service, announced for as long as the process is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    pub name: String,
    pub address: Announced,
    /// The path that tells whether it is ready. Default `/health/ready`.
    pub health: String,
    pub metadata: Vec<(String, String)>,
    /// The upstream that must answer its probes meanwhile.
    pub upstream: Option<String>,
}

/// Where others reach an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// `host:port`.
    Address(String),
    /// Where this listener listens. One for every address of the machine is announced with the address that the way
    /// to the control plane begins at.
    Listener(String),
}

/// `http://host:port` or `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// As it was written.
    pub text: String,
    /// `host:port`.
    pub address: String,
    pub encrypted: bool,
}

/// A text that no log, no page and no dump of a document shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
