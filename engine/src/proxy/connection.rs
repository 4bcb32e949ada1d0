//! What we know of a client's connection; all its requests share it.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tollgate_config::identity::SpiffeId;

use crate::route::ListenerIndex;

pub struct Connection {
    /// Unique in this worker; streams of one client connection are laid onto one upstream connection.
    pub number: u64,
    pub listener: ListenerIndex,
    pub listener_name: Rc<str>,
    pub peer: IpAddr,
    /// The peer's address, written once.
    pub peer_text: Box<str>,
    pub is_tls: bool,
    pub sni: Option<Box<str>>,
    /// Where the client was going when the kernel redirected it here; `None`: here.
    pub original: Option<SocketAddr>,
    /// The service at the other end, proven by its certificate; `None`: nobody that we know.
    pub caller: Option<SpiffeId>,
}

impl Connection {
    pub fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}
