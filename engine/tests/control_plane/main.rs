//! A gateway that is told by a control plane, end to end: the first start, changes, refusals, silence, restarts, lies.
//!
//! The control plane is the scripted one of the `testing` room. Nothing here waits for a time: every wait is for a
//! report, a subscription or an answer.

mod asked;
mod evidence;
mod lasting;
mod registering;
mod services;
mod telling;

use std::net::SocketAddr;
use std::path::Path;

use tollgate_engine::testing::control_plane::{ControlPlane, Setup};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::waiting::until;

/// A document that asks these control planes; nothing in it routes.
fn asking(urls: &[String], state_dir: Option<&Path>) -> String {
    let urls: Vec<String> = urls.iter().map(|url| format!("\"{url}\"")).collect();
    let state = state_dir.map_or_else(String::new, |folder| {
        format!("state_dir = \"{}\"\n", folder.display())
    });
    format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n[server]\nworkers = 1\ndrain = \"2s\"\n{state}\n\
         [control_plane]\nurls = [{}]\nnode = \"edge-1\"\n",
        urls.join(", ")
    )
}

/// An address that nobody listens on and that nobody else is given, until a control plane is started there.
struct Reserved {
    address: SocketAddr,
    /// Bound, and does not listen.
    _socket: socket2::Socket,
}

fn reserved() -> Reserved {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("a free port");
    let address = socket.local_addr().expect("it is bound");
    Reserved {
        address: address.as_socket().expect("an internet address"),
        _socket: socket,
    }
}

impl Reserved {
    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn start(&self) -> ControlPlane {
        ControlPlane::with(Setup {
            bind: self.address,
            ..Setup::default()
        })
    }
}

fn ready(gateway: &Gateway) -> bool {
    gateway.ask("GET /health/ready").status == 200
}

fn connected(gateway: &Gateway) -> bool {
    gateway.get_status()["control_plane"]["connected"] == true
}
