//! Where a connection was going before the kernel redirected it to us, and whether it was our own: a rule that redirects
//! what we dial would send every connection round and round until there are no more descriptors.
//!
//! From the first redirected connection on, the local addresses of what we dial are noted; who comes from one of them is
//! ourselves. Nothing is noted where nothing is redirected.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use foldhash::fast::FixedState;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::moment::Moment;

static NOTING: AtomicBool = AtomicBool::new(false);
/// Our own addresses are ours to trust, so a hash without chance will do.
static OWN: Mutex<HashSet<SocketAddr, FixedState>> =
    Mutex::new(HashSet::with_hasher(FixedState::with_seed(0)));

/// Where the client was going; `None`: here, or nobody knows.
pub fn destination(socket: &TcpStream) -> Option<SocketAddr> {
    let local = canonical(socket.local_addr().ok()?);
    let asked = SockRef::from(socket);
    let found = match local {
        SocketAddr::V4(_) => asked.original_dst_v4(),
        SocketAddr::V6(_) => asked.original_dst_v6(),
    };
    let found = canonical(found.ok()?.as_socket()?);
    if found.port() == 0 || is_same(found, local) {
        return None;
    }
    NOTING.store(true, Ordering::Relaxed);
    Some(found)
}

/// Whether going there would come back to the listener that the connection was accepted by.
pub fn comes_back(destination: SocketAddr, socket: &TcpStream) -> bool {
    let ends = (socket.local_addr(), socket.peer_addr());
    let (Ok(local), Ok(peer)) = ends else {
        return false;
    };
    // The client's own address is one of this machine's when it asked for one of its own.
    let here = [local.ip().to_canonical(), peer.ip().to_canonical()];
    let ip = destination.ip();
    destination.port() == local.port()
        && (here.contains(&ip) || ip.is_loopback() || ip.is_unspecified())
}

/// Whether a client's address is one that we dial from.
pub fn is_own(peer: SocketAddr) -> bool {
    NOTING.load(Ordering::Relaxed) && own().contains(&canonical(peer))
}

/// Whether it is time to tell of a refused connection again: at most once in ten seconds.
pub fn may_tell(now: Instant) -> bool {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = Moment::from(now);
    let last = LAST.load(Ordering::Relaxed);
    let due = last == 0 || now.since(Moment(last)) > 10_000_000_000;
    due && LAST
        .compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed)
        .is_ok()
}

/// A connection that we dialled, known as ours while this lives.
#[derive(Debug)]
pub struct Own(SocketAddr);

impl Own {
    /// `None` where nothing is redirected.
    pub fn note(socket: &TcpStream) -> Option<Own> {
        if !NOTING.load(Ordering::Relaxed) {
            return None;
        }
        let address = canonical(socket.local_addr().ok()?);
        own().insert(address).then_some(Own(address))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        own().remove(&self.0);
    }
}

fn own() -> MutexGuard<'static, HashSet<SocketAddr, FixedState>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What nobody redirected has no other destination, whatever the kernel remembers of it.
    #[tokio::test]
    async fn a_connection_that_was_made_to_us_was_going_nowhere_else() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address).await else {
                continue; // no IPv6 here
            };
            let here = listener.local_addr().unwrap();
            let _client = TcpStream::connect(here).await.unwrap();
            let (socket, peer) = listener.accept().await.unwrap();
            assert_eq!(destination(&socket), None);
            assert!(!is_own(peer));
            assert!(comes_back(here, &socket));
            assert!(!comes_back(([192, 0, 2, 1], here.port()).into(), &socket));
            assert!(!comes_back(SocketAddr::new(here.ip(), 1), &socket));
        }
    }
}
