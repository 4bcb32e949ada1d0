//! Data planes as members of a mesh, end to end: who comes in, who does not and why, what an application is told, and
//! certificates that change while requests run (MESH-301 to MESH-307, HI-55, HI-56).
//!
//! Members are whole data planes with files of an authority in memory, or raw clients and servers of TLS that show
//! what no honest authority would sign. Nothing waits for a time: every wait is for an answer, a count or a line of
//! `/status`.

mod authority;
mod handshakes;
mod protocols;
mod rotation;
mod websocket;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::members::Members;

/// The longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A data plane that lets members in (`mesh` as given), in front of an application.
fn callee(members: &Members, service: &str, mesh: &str, app: SocketAddr) -> Gateway {
    let identity = members.folder_for(service).section(service);
    Gateway::start(&callee_document(&identity, mesh, app, "http1"))
}

fn callee_document(identity: &str, mesh: &str, app: SocketAddr, protocol: &str) -> String {
    format!(
        "{identity}[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\nmesh = \"{mesh}\"\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\nretry = \"off\"\ntimeout = \"60s\"\n\n\
         [[upstream]]\nname = \"app\"\nendpoints = [\"{app}\"]\nprotocol = \"{protocol}\"\n"
    )
}

/// A data plane whose clients reach the member `peer` at this address.
fn caller(members: &Members, service: &str, peer: &str, at: SocketAddr, protocol: &str) -> Gateway {
    let identity = members.folder_for(service).section(service);
    Gateway::start(&caller_document(&identity, peer, at, protocol))
}

fn caller_document(identity: &str, peer: &str, at: SocketAddr, protocol: &str) -> String {
    format!(
        "{identity}[[listener]]\nname = \"out\"\nbind = \"127.0.0.1:0\"\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"peer\"\nretry = \"off\"\ntimeout = \"60s\"\n\n\
         [[upstream]]\nname = \"peer\"\nendpoints = [\"{at}\"]\nmesh = \"{peer}\"\nprotocol = \"{protocol}\"\n\
         connect_timeout = \"30s\"\noutlier = \"off\"\nbreaker = \"off\"\n"
    )
}

/// One request over TLS on a connection of its own: the answer as text, or why there is none.
fn talk(at: SocketAddr, config: ClientConfig, request: &str) -> Result<String, String> {
    let socket = TcpStream::connect(at).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let name = "member.invalid".try_into().expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a good configuration");
    let mut stream = StreamOwned::new(connection, socket);
    // What is wrong with our certificate is told with the first bytes that are read.
    let sent = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if !answer.is_empty() {
        return Ok(String::from_utf8_lossy(&answer).into_owned());
    }
    sent.and(read.map(drop))
        .map_err(|error| error.to_string())?;
    Err("closed".to_owned())
}

/// Waits until it holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How many handshakes failed for this reason, as metrics tell.
fn failures(gateway: &Gateway, side: &str, reason: &str) -> u64 {
    let line = format!("mesh_handshake_failures_total{{side=\"{side}\",reason=\"{reason}\"}} ");
    let page = gateway.metrics();
    let count = { page.lines() }.find_map(|l| l.strip_prefix(&line)?.parse().ok());
    count.unwrap_or(0)
}
