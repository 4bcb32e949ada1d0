//! Under what a listener's sockets are kept: its address, and its name where the address does not tell listeners apart.
//!
//! Two listeners may both ask for any free port of one address. If they shared a socket, clients of the one would come
//! in by the door of the other, with its certificates and its rules.

use std::net::SocketAddr;

use tollgate_config::Listener;

/// Where a listener listens, as the document says it; names it too when the port is any free one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    bind: SocketAddr,
    name: Option<String>,
}

impl Place {
    pub fn new(name: &str, bind: SocketAddr) -> Self {
        let name = (bind.port() == 0).then(|| name.to_owned());
        Place { bind, name }
    }

    pub fn of(listener: &Listener) -> Self {
        Place::new(&listener.name, listener.bind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_only_where_any_free_port_will_do() {
        let (free, fixed) = ("127.0.0.1:0", "127.0.0.1:80");
        let place = |name: &str, bind: &str| Place::new(name, bind.parse().unwrap());
        assert_ne!(place("a", free), place("b", free));
        assert_eq!(place("a", free), place("a", free));
        assert_eq!(place("a", fixed), place("renamed", fixed));
    }
}
