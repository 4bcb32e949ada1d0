//! The service behind the gateway: quick answers, one slow answer, one endless stream of events, one tunnel.

use std::net::SocketAddr;
use std::time::Duration;

use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::{Conn, Upstream};

/// `/slow` answers once `slow` is open, `/events` streams until `end` is open, an upgrade echoes until the client is
/// done; everything else is answered with `ok` at once.
pub struct Service {
    pub slow: Gate,
    pub end: Gate,
    upstream: Upstream,
}

/// The pace of the events.
const PACE: Duration = Duration::from_millis(5);

impl Service {
    pub fn start() -> Service {
        let (slow, end) = (Gate::new(), Gate::new());
        let (slow_gate, end_gate) = (slow.clone(), end.clone());
        let upstream = Upstream::http1(move |conn| serve(conn, &slow_gate, &end_gate));
        Service {
            slow,
            end,
            upstream,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.upstream.address()
    }

    /// Waits until so many requests for this target have arrived.
    pub fn wait_for(&self, target: &str, count: usize) {
        let what = format!("{count} requests for {target}");
        self.upstream.wait(&what, |journal| {
            let arrived = journal
                .requests
                .iter()
                .filter(|request| request.target() == target);
            arrived.count() >= count
        });
    }
}

impl Drop for Service {
    /// Whoever still waits is let go, or its thread would fail after the test.
    fn drop(&mut self) {
        self.slow.open();
        self.end.open();
    }
}

fn serve(conn: &mut Conn, slow: &Gate, end: &Gate) {
    while let Some(request) = conn.read_request() {
        if request.header("upgrade").is_some() {
            conn.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
            );
            while let Some(byte) = conn.read_exact(1) {
                conn.send(byte);
            }
            return;
        }
        match request.target() {
            "/slow" => {
                slow.wait();
                conn.respond("200 OK", &[], "done");
            }
            "/events" => events(conn, end),
            _ if request.method() == "HEAD" => {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
            }
            _ => {
                conn.respond("200 OK", &[], "ok");
            }
        }
    }
}

fn events(conn: &mut Conn, end: &Gate) {
    conn.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let mut number = 0u64;
    loop {
        let last = end.opens_within(PACE);
        let event = if last {
            "data: end\n\n".to_owned()
        } else {
            format!("data: {number}\n\n")
        };
        if !conn.send(format!("{:x}\r\n{event}\r\n", event.len())) {
            return;
        }
        if last {
            conn.send("0\r\n\r\n");
            return;
        }
        number += 1;
    }
}
