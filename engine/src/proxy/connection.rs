//! What we know of a client's connection; all its requests share it.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::net::tls::PeerIdentity;
use crate::route::ListenerIndex;

pub struct Connection {
    /// Unique in this worker; streams of one client connection are laid onto one upstream connection.
    pub number: u64,
    pub listener: ListenerIndex,
    pub listener_name: Rc<str>,
    pub peer: SocketAddr,
    /// The peer's address without its port, written once.
    pub peer_text: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    pub sni: Option<String>,
    pub identity: Option<PeerIdentity>,
}
