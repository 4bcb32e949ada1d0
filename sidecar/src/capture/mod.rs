//! Transparent capture: rules of the kernel that redirect a service's connections, both ways, to the sidecar beside it, so
//! that the service need not know. Installing twice is installing once; removing leaves nothing behind.
//!
//! `rules` is the text, pure; `apply` gives it to the kernel by way of `nft`, or of `iptables` where there is no `nft`. Needs
//! CAP_NET_ADMIN; the sidecar itself does not, and asks the kernel where each connection was going.
//!
//! Never redirected: what the sidecar's user dials (else the sidecar would go round in circles), what stays on this
//! machine, and what is excluded.

mod apply;
mod rules;

use std::fmt;
use std::io;

use tollgate_config::Cidr;

/// What is redirected, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where connections from elsewhere go. The listener must take IPv4 and IPv6: `[::]`.
    pub inbound_port: u16,
    /// Where connections of the service go. There must be listeners at `127.0.0.1` and `[::1]`.
    pub outbound_port: u16,
    /// The user that the sidecar runs as.
    pub uid: u32,
    /// Ports of this machine that others reach without the sidecar.
    pub exclude_inbound: Vec<u16>,
    /// Ports that the service reaches without the sidecar.
    pub exclude_outbound_ports: Vec<u16>,
    /// Where the service goes without the sidecar.
    pub exclude_cidrs: Vec<Cidr>,
}

/// Which of the kernel's programs does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Nft,
    /// With `ip6tables`.
    Iptables,
}

/// Redirects from now on what is new; connections that exist go on as they are. In place of what was installed before,
/// without a moment in between (with `nft`; `iptables` changes IPv4 before IPv6). Says by what it was done.
pub fn install(settings: &Settings) -> Result<String, Error> {
    apply::install(settings, None)
}

/// The same by this program, or not at all.
pub fn install_by(by: By, settings: &Settings) -> Result<String, Error> {
    apply::install(settings, Some(by))
}

/// Redirects nothing any more, whoever installed it and with whichever settings. Says what there was to remove.
pub fn remove(_settings: &Settings) -> Result<String, Error> {
    apply::remove()
}

/// Whether rules of ours are in the kernel, and by which program. Changes nothing; needs the privilege all the same.
pub fn installed() -> Result<Option<By>, Error> {
    apply::installed()
}

/// The rules that `install` would give to the kernel. Needs no privilege.
pub fn show(settings: &Settings) -> Result<String, Error> {
    apply::show(settings)
}

/// Why the kernel's rules are not as they should be.
#[derive(Debug)]
pub enum Error {
    /// Neither `nft` nor `iptables` is here, or not the one that was asked for.
    NoProgram,
    NotPermitted,
    /// A program could not be run.
    Io {
        program: &'static str,
        error: io::Error,
    },
    /// A program refused; its last words.
    Refused {
        program: &'static str,
        words: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoProgram => f.write_str(
                "neither `nft` nor `iptables` is installed here; install the package `nftables` (or `iptables`)",
            ),
            Error::NotPermitted => f.write_str(
                "the kernel's rules cannot be changed: CAP_NET_ADMIN is needed; run this command as root, or give the container that capability",
            ),
            Error::Io { program, error } => write!(f, "`{program}` cannot be run: {error}"),
            Error::Refused { program, words } => write!(
                f,
                "`{program}` refused the rules: {words}; `tollgate-sidecar capture show` prints them"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
