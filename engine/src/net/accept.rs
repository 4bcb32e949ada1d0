//! Listening sockets: bound once per worker, accepted from without a busy loop, counted against one limit.
//!
//! Each worker has a socket of its own on the same address (SO_REUSEPORT) and the kernel spreads connections over
//! them. The first one is bound alone, so that a second process is told "address in use" instead of silently taking a
//! share of the traffic. Nothing here reads a byte; options that a connection needs are set on the listening socket,
//! from which Linux hands them on, so that accepting costs one system call.

mod permits;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

pub use permits::{Permit, Permits};

use super::keepalive;

/// Connections that wait to be accepted. The kernel lowers it to `net.core.somaxconn`.
pub const BACKLOG: u32 = 4096;

/// The first pause when accepting fails for want of something; doubled up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A non-blocking listening socket. With `reuse_port` it joins those that this user has on the address already; see
/// `bind_workers` for the way to begin.
pub fn bind(address: SocketAddr, reuse_port: bool, backlog: u32) -> io::Result<TcpListener> {
    try_bind(address, reuse_port, backlog).map_err(|error| explain(address, error))
}

fn try_bind(address: SocketAddr, reuse_port: bool, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of a former process may linger on the port; they must not keep us from it.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    prepare(SockRef::from(&socket))?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// `count` sockets on one address, one per worker. Fails when anybody else listens there, whatever options they used.
/// Port 0: the system picks one for the first, the others follow.
pub fn bind_workers(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // Alone until it listens, then open to company: whoever comes between, comes too late.
    let first = bind(address, false, BACKLOG)?;
    SockRef::from(&first).set_reuse_port(true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(bind(address, true, BACKLOG)?);
    }
    Ok(sockets)
}

/// Shares sockets that another process handed over among `workers`: none without one, and none left out, since
/// connections may be waiting on each. Missing ones are bound beside the others.
pub fn share(sockets: Vec<TcpListener>, workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
    let mut shares: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    let address = match sockets.first() {
        Some(socket) if workers > 0 => socket.local_addr()?,
        _ => return Ok(shares),
    };
    for share in shares.iter_mut().skip(sockets.len()) {
        share.push(bind(address, true, BACKLOG)?);
    }
    for (index, socket) in sockets.into_iter().enumerate() {
        shares[index % workers].push(socket);
    }
    Ok(shares)
}

/// What every connection is to have, on the socket that it inherits it from.
fn prepare(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    keepalive::set(socket)
}

fn explain(address: SocketAddr, error: io::Error) -> io::Error {
    let next = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "address in use; stop the process that listens there or choose another `bind`"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; `0.0.0.0` listens on all of them"
        }
        io::ErrorKind::PermissionDenied => {
            "not permitted; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        }
        _ => {
            return io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
        }
    };
    io::Error::new(error.kind(), format!("cannot listen on {address}: {next}"))
}

/// A worker's listening socket.
pub struct Acceptor {
    listener: tokio::net::TcpListener,
    /// Shared with the metrics; counts every failed accept.
    errors: Arc<AtomicU64>,
    /// The last pause; zero when the last accept went well. Kept here and not in the future, which may be dropped.
    pause: Cell<Duration>,
    not_before: Cell<Option<Instant>>,
}

impl Acceptor {
    /// Must be called on the runtime that will accept. The socket may be new or handed over by another process.
    pub fn new(listener: TcpListener, errors: Arc<AtomicU64>) -> io::Result<Self> {
        prepare(SockRef::from(&listener))?;
        Ok(Acceptor {
            listener: tokio::net::TcpListener::from_std(listener)?,
            errors,
            pause: Cell::new(Duration::ZERO),
            not_before: Cell::new(None),
        })
    }

    /// The next connection and who made it; TCP_NODELAY and keep-alive are on. Survives every error: for want of file
    /// descriptors or memory it waits longer and longer, while connections queue in the kernel (HI-70). May be dropped
    /// and called again; no connection is lost.
    pub async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            if let Some(moment) = self.not_before.get() {
                sleep_until(moment).await;
                self.not_before.set(None);
            }
            match self.listener.accept().await {
                Ok(accepted) => {
                    self.pause.set(Duration::ZERO);
                    return accepted;
                }
                Err(error) => self.failed(&error, Instant::now()),
            }
        }
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn failed(&self, error: &io::Error, now: Instant) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        if is_about_the_connection(error) {
            return;
        }
        let pause = (self.pause.get() * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        self.pause.set(pause);
        self.not_before.set(Some(now + pause));
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acceptor").field(&self.listener).finish()
    }
}

/// Errors of one connection that died in the queue, which Linux reports from accept: the next one may be fine, and the
/// queue is one shorter, so going on at once is no busy loop.
fn is_about_the_connection(error: &io::Error) -> bool {
    let Some(errno) = Errno::from_io_error(error) else {
        return false;
    };
    matches!(
        errno,
        Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::INTR
            | Errno::PROTO
            | Errno::PERM
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::TIMEDOUT
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream as StdStream;

    use super::*;

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn all_workers_share_one_address_and_nobody_else_gets_it() {
        let sockets = bind_workers(loopback(), 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert_eq!(sockets.len(), 3);
        for socket in &sockets {
            assert_eq!(socket.local_addr().unwrap(), address);
        }
        let error = bind_workers(address, 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("address in use"), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(bind(address, false, BACKLOG).is_err());
        drop(sockets);
        bind_workers(address, 1).unwrap();
    }

    #[test]
    fn sockets_that_were_handed_over_are_shared_among_any_number_of_workers() {
        let counts = |had: usize, workers: usize| -> Vec<usize> {
            let sockets = bind_workers(loopback(), had).unwrap();
            let shares = share(sockets, workers).unwrap();
            shares.iter().map(Vec::len).collect()
        };
        assert_eq!(counts(2, 2), [1, 1]);
        assert_eq!(counts(1, 3), [1, 1, 1]);
        assert_eq!(counts(5, 2), [3, 2]);
    }

    /// The first socket was bound alone, but takes part like the others.
    #[test]
    fn every_worker_gets_connections() {
        let sockets = bind_workers(loopback(), 2).unwrap();
        let address = sockets[0].local_addr().unwrap();
        let clients: Vec<_> = (0..64)
            .map(|_| StdStream::connect(address).unwrap())
            .collect();
        let mut counts = Vec::new();
        for socket in &sockets {
            counts.push(std::iter::from_fn(|| socket.accept().ok()).count());
        }
        assert_eq!(counts.iter().sum::<usize>(), clients.len());
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }

    /// HI-39.
    #[tokio::test]
    async fn an_accepted_connection_sends_at_once_and_is_kept_alive() {
        let listener = bind(loopback(), false, BACKLOG).unwrap();
        let acceptor = Acceptor::new(listener, Arc::default()).unwrap();
        let mut client = StdStream::connect(acceptor.local_addr().unwrap()).unwrap();
        client.write_all(b"x").unwrap();
        let (stream, peer) = acceptor.accept().await;
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        keepalive::assert_set(SockRef::from(&stream));
    }

    /// HI-70: want of file descriptors is waited for, longer each time; a connection that died in the queue is not.
    #[tokio::test]
    async fn accepting_without_file_descriptors_is_no_busy_loop() {
        let listener = bind(loopback(), false, BACKLOG).unwrap();
        let errors = Arc::new(AtomicU64::new(0));
        let acceptor = Acceptor::new(listener, errors.clone()).unwrap();
        let now = Instant::now();
        for (errno, pause) in [
            (Errno::MFILE, 50),
            (Errno::NFILE, 100),
            (Errno::NOBUFS, 200),
            (Errno::NOMEM, 400),
            (Errno::MFILE, 500),
            (Errno::MFILE, 500),
        ] {
            acceptor.failed(&errno.into(), now);
            let moment = now + Duration::from_millis(pause);
            assert_eq!(acceptor.not_before.take(), Some(moment));
        }
        acceptor.failed(&Errno::CONNABORTED.into(), now);
        assert_eq!(acceptor.not_before.get(), None);
        assert_eq!(errors.load(Ordering::Relaxed), 7);

        // Going well once is enough to begin anew, and what queued meanwhile is there.
        acceptor.not_before.set(Some(now));
        let _client = StdStream::connect(acceptor.local_addr().unwrap()).unwrap();
        acceptor.accept().await;
        assert_eq!(acceptor.pause.get(), Duration::ZERO);
    }
}
