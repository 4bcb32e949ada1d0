//! What is not HTTP, from end to end (MESH-102, HI-39): bytes that a listener relays, protocols that are told apart by their
//! first bytes, and tunnels that a client asks for.
//!
//! Clients and upstreams are plain sockets of the test's own. A test waits for what it wants to see and never for a span;
//! where silence decides, the time that it takes is set so short that it passes by itself, or so long that it does not.

mod choosing;
mod detecting;
mod ending;
mod relaying;
mod secured;
mod tunnels;

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::Value;
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::{Conn, Upstream};

/// A document with one listener `in` that relays to `app`; further keys for both.
fn document(upstreams: &[SocketAddr], listener: &str, upstream: &str) -> String {
    let endpoints: Vec<_> = upstreams.iter().map(|one| format!("\"{one}\"")).collect();
    format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\nforward = \"app\"\n{listener}\n\n\
         [[upstream]]\nname = \"app\"\nendpoints = [{}]\n{upstream}\n",
        endpoints.join(", ")
    )
}

fn relaying_to(upstream: &Upstream) -> Gateway {
    Gateway::start(&document(&[upstream.address()], "", ""))
}

/// Sends back what comes, until nothing more will.
fn echo(conn: &mut Conn) {
    while let Some(byte) = conn.read_exact(1) {
        if !conn.send(byte) {
            return;
        }
    }
}

/// Says its name first, and then sends back what comes.
fn named(name: &'static str) -> Upstream {
    Upstream::http1(move |conn| {
        conn.send(name);
        echo(conn);
    })
}

/// A connection that the gateway breaks off without a word; it may do so before the client knows that there is one.
fn assert_broken(gateway: &Gateway) {
    let Ok(mut stream) = TcpStream::connect(gateway.address()) else {
        return;
    };
    let limited = stream.set_read_timeout(Some(6 * PATIENCE));
    let heard = limited.and_then(|()| stream.read(&mut [0]));
    let error = heard.expect_err("neither a byte nor a proper end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

/// Waits until this is so.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + 6 * PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}

/// The value of one sample of the metrics page; 0 when it is not there.
fn metric(gateway: &Gateway, sample: &str) -> u64 {
    let page = gateway.metrics();
    let line = page.lines().find_map(|line| line.strip_prefix(sample));
    line.map_or(0, |value| value.trim().parse().expect("a number"))
}

const LOGGED: &str = "\n[telemetry]\naccess_log = { to = \"access.log\" }\n";

/// The access log's lines, once there are so many.
fn lines(gateway: &Gateway, count: usize) -> Vec<Value> {
    let file = gateway.folder().join("access.log");
    let mut lines = Vec::new();
    until("access lines", || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        lines = text.lines().map(str::to_owned).collect();
        text.ends_with('\n') && lines.len() >= count
    });
    let parsed = lines.iter().map(|line| serde_json::from_str(line));
    parsed.map(|line| line.expect("a line is JSON")).collect()
}
