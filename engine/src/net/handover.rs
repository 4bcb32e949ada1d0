//! Upgrade in place: a new process takes the listening sockets of the running one, so that no connection, not even
//! one still in the kernel's queue, is refused while versions change.
//!
//! The running process offers its sockets on a Unix socket in the abstract namespace; nothing lies about on a disk and
//! the name ends with the process. Either side believes only its own user, or root. Both processes accept for a
//! moment; the old one begins to drain only when the new one says that it serves, and if that never comes the old one
//! just goes on. This room moves sockets; draining and deciding belong to the callers.
//!
//! On the wire: `take {…}` from the new process; a line of JSON from the old one, then one byte with up to 64 sockets
//! attached, as often as needed; `serving` from the new one; `draining` from the old one.

mod passing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as unix;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use passing::{BATCH, receive, send, trusted};

/// Version of the conversation, not of the program.
const VERSION: u32 = 1;
/// No honest line is longer.
const LINE_MAX: usize = 1024 * 1024;
/// Every step but the last takes moments.
const STEP: Duration = Duration::from_secs(10);
/// A successor may read a large document and wait for names before it serves. After that its place is free again.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a group of sockets is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Listener,
    Admin,
}

/// The listening sockets of one listener, one per worker.
#[derive(Debug)]
pub struct Handed {
    pub kind: Kind,
    pub name: String,
    /// As the document said it; with port 0 the sockets know better.
    pub bind: SocketAddr,
    pub sockets: Vec<TcpListener>,
}

/// The key under which a process offers: its admin address, or the first listener's when there is no admin address.
pub fn key(admin: Option<SocketAddr>, first_listener: SocketAddr) -> String {
    match admin {
        Some(address) => format!("admin {address}"),
        None => format!("listener {first_listener}"),
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    pid: u32,
    sockets: Vec<Group>,
}

#[derive(Serialize, Deserialize)]
struct Group {
    kind: Kind,
    name: String,
    bind: SocketAddr,
    count: usize,
}

#[derive(Serialize, Deserialize)]
struct Hello {
    version: u32,
    pid: u32,
}

/// A running process's readiness to be succeeded. Dropping it withdraws the offer.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
}

/// The process that serves from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Successor {
    pub pid: u32,
}

impl Offer {
    /// Begins to offer; on the runtime that will serve. Fails with `AddrInUse` while another process offers under this
    /// key, which a predecessor does until it has answered `serving`.
    pub fn new(key: &str) -> io::Result<Self> {
        let listener = unix::UnixListener::bind_addr(&name(key)?)?;
        listener.set_nonblocking(true)?;
        Ok(Offer {
            listener: UnixListener::from_std(listener)?,
        })
    }

    /// Hands the sockets to whoever asks and may, and resolves when a successor serves: the caller is to drain then.
    /// `sockets` is called for each who asks and returns duplicates (`TcpListener::try_clone`). A successor that dies
    /// or dawdles changes nothing; `failed` is told of it. May be dropped at any time.
    pub async fn serve(self, sockets: impl Fn() -> Vec<Handed>, failed: impl Fn()) -> Successor {
        loop {
            let mut stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // For want of file descriptors, most likely; nobody is waiting for us who could not wait longer.
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            if let Ok(successor) = hand_over(&mut stream, &sockets).await {
                // First the name, for the successor wants it; then the word.
                drop(self.listener);
                // It serves whether or not it hears this.
                let told = timeout(STEP, stream.write_all(b"draining\n")).await;
                drop(told);
                return successor;
            }
            failed();
        }
    }
}

async fn hand_over(
    stream: &mut UnixStream,
    sockets: &impl Fn() -> Vec<Handed>,
) -> io::Result<Successor> {
    trusted(stream.as_fd())?;
    let line = timeout(STEP, read_line(stream)).await??;
    let hello = line
        .strip_prefix("take ")
        .ok_or_else(|| bad("expected `take`"))?;
    let hello: Hello = serde_json::from_str(hello)?;
    if hello.version != VERSION {
        return Err(bad("the other process speaks another version"));
    }
    let handed = sockets();
    timeout(STEP, send_all(stream, &handed)).await??;
    // Ours stay open; these were duplicates.
    drop(handed);
    let line = timeout(PATIENCE, read_line(stream)).await??;
    if line != "serving" {
        return Err(bad("expected `serving`"));
    }
    Ok(Successor { pid: hello.pid })
}

async fn send_all(stream: &mut UnixStream, handed: &[Handed]) -> io::Result<()> {
    let header = Header {
        version: VERSION,
        pid: std::process::id(),
        sockets: handed
            .iter()
            .map(|handed| Group {
                kind: handed.kind,
                name: handed.name.clone(),
                bind: handed.bind,
                count: handed.sockets.len(),
            })
            .collect(),
    };
    let mut line = serde_json::to_vec(&header)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let all: Vec<_> = handed
        .iter()
        .flat_map(|handed| &handed.sockets)
        .map(AsFd::as_fd)
        .collect();
    for batch in all.chunks(BATCH) {
        send(stream, batch).await?;
    }
    Ok(())
}

/// One byte at a time: what follows the line may have sockets attached, which a longer read would lose.
async fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return String::from_utf8(line).map_err(|_| bad("a line is not text")),
            _ if line.len() >= LINE_MAX => return Err(bad("a line is too long")),
            byte => line.push(byte),
        }
    }
}

/// What a new process took from the running one.
#[derive(Debug)]
pub struct Taken {
    /// Every one must be accepted from or closed: connections queue on each of them.
    pub sockets: Vec<Handed>,
    /// The process that handed them over.
    pub pid: u32,
    pub confirm: Confirm,
}

/// The open conversation with the predecessor. Dropping it instead of `serving` leaves the predecessor as it was.
#[must_use = "until `serving` is said the predecessor goes on serving"]
pub struct Confirm {
    stream: unix::UnixStream,
}

/// Takes the sockets of the process that offers under `key`. Blocks, for moments. `ConnectionRefused`: nobody offers.
pub fn take(key: &str) -> io::Result<Taken> {
    let mut stream = unix::UnixStream::connect_addr(&name(key)?)?;
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    trusted(stream.as_fd())?;
    let hello = Hello {
        version: VERSION,
        pid: std::process::id(),
    };
    let mut line = format!("take {}", serde_json::to_string(&hello)?).into_bytes();
    line.push(b'\n');
    stream.write_all(&line)?;

    let header: Header = serde_json::from_str(&read_line_blocking(&stream)?)?;
    if header.version != VERSION {
        return Err(bad("the other process speaks another version"));
    }
    let mut sockets = Vec::new();
    for group in header.sockets {
        sockets.push((group.count, Vec::new(), group));
    }
    let total = sockets
        .iter()
        .try_fold(0usize, |total, (count, ..)| total.checked_add(*count))
        .ok_or_else(|| bad("too many sockets"))?;
    let mut all: Vec<OwnedFd> = Vec::new();
    while all.len() < total {
        let batch = receive(&stream)?;
        if batch.is_empty() {
            return Err(bad("fewer sockets came than were announced"));
        }
        all.extend(batch);
    }
    if all.len() > total {
        return Err(bad("more sockets came than were announced"));
    }
    let mut all = all.into_iter();
    for (count, mine, _) in &mut sockets {
        for fd in all.by_ref().take(*count) {
            mine.push(listening(fd)?);
        }
    }
    let sockets = sockets
        .into_iter()
        .map(|(_, sockets, group)| Handed {
            kind: group.kind,
            name: group.name,
            bind: group.bind,
            sockets,
        })
        .collect();
    Ok(Taken {
        sockets,
        pid: header.pid,
        confirm: Confirm { stream },
    })
}

impl Confirm {
    /// Says that this process serves, and waits until the predecessor has begun to drain. After it the key is free for
    /// an `Offer` of our own. An error means that the predecessor is gone or did not believe us.
    pub fn serving(mut self) -> io::Result<()> {
        self.stream.write_all(b"serving\n")?;
        match read_line_blocking(&self.stream)?.as_str() {
            "draining" => Ok(()),
            _ => Err(bad("expected `draining`")),
        }
    }
}

impl fmt::Debug for Confirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confirm")
    }
}

/// Refuses anything but a TCP socket that listens.
fn listening(fd: OwnedFd) -> io::Result<TcpListener> {
    let socket = socket2::Socket::from(fd);
    if !socket.is_listener()? || socket.r#type()? != socket2::Type::STREAM {
        return Err(bad("a descriptor that came is not a listening socket"));
    }
    if socket.local_addr()?.as_socket().is_none() {
        return Err(bad("a socket that came has no internet address"));
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn read_line_blocking(stream: &unix::UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        (&*stream).read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return String::from_utf8(line).map_err(|_| bad("a line is not text")),
            _ if line.len() >= LINE_MAX => return Err(bad("a line is too long")),
            byte => line.push(byte),
        }
    }
}

fn name(key: &str) -> io::Result<unix::SocketAddr> {
    unix::SocketAddr::from_abstract_name(format!("tollgate/handover/{key}"))
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("handover: {what}"))
}
