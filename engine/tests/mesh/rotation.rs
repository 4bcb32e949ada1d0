//! Certificates that change while requests run: nobody notices (MESH-304).

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::version::TLS13;
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::members::{Members, client};
use tollgate_engine::testing::upstream::Upstream;

use super::{callee_document, caller_document, talk};

const ROTATIONS: usize = 1_000;

/// Two data planes, and new certificates for them.
struct Pair {
    members: Members,
    orders: Gateway,
    web: Gateway,
}

impl Pair {
    fn new(app: &Upstream, protocol: &str) -> Pair {
        let members = Members::new();
        let orders = members.folder_for("orders").section("orders");
        let orders = Gateway::start(&callee_document(&orders, "strict", app.address(), "http1"));
        let web = members.folder_for("web").section("web");
        let at = orders.address();
        let web = Gateway::start(&caller_document(&web, "orders", at, protocol));
        Pair {
            members,
            orders,
            web,
        }
    }

    /// A new certificate for each of both.
    fn rotate(&self) {
        for (service, gateway) in [("orders", &self.orders), ("web", &self.web)] {
            self.members.folder_for(service);
            gateway.reload().expect("good files");
        }
    }
}

fn serial(gateway: &Gateway) -> String {
    gateway.get_status()["identity"]["serial"].to_string()
}

#[test]
fn streams_that_run_while_both_certificates_change_finish_mesh_304() {
    const STREAMS: usize = 8;
    let gate = Gate::new();
    let opens = gate.clone();
    let app = Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegin\r\n");
            opens.wait();
            conn.send("3\r\nend\r\n0\r\n\r\n");
        }
    });
    let pair = Pair::new(&app, "http2");
    let mut clients: Vec<Client> = (0..STREAMS).map(|_| pair.web.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: orders\r\n\r\n");
        assert_eq!(client.read_head().status, 200);
        assert_eq!(client.read_chunk(), b"begin");
    }
    let first = serial(&pair.web);
    for _ in 0..20 {
        pair.rotate();
    }
    assert_ne!(serial(&pair.web), first);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_chunk(), b"end");
        assert_eq!(client.read_chunk(), b"");
    }
}

#[test]
fn a_thousand_rotations_under_load_fail_no_request_mesh_304() {
    let app = Upstream::fixed("ok");
    let pair = Arc::new(Pair::new(&app, "http2"));
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // Two who stay on their connections, and two who shake hands for each request.
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = pair.web.client();
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let config = client(
                        Some(&pair.members.issue("other")),
                        &[&TLS13],
                        &[b"http/1.1"],
                    );
                    let ask = "GET / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n";
                    let answer = talk(pair.orders.address(), config, ask).expect("an answer");
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let ended = Over(&over);
        for _ in 0..ROTATIONS / 2 {
            pair.rotate();
        }
        drop(ended);
    });
    let served = served.load(Ordering::Relaxed);
    assert!(served > 0);
    let _told = writeln!(std::io::stderr(), "{served} requests");
}

/// The load ends, however the rotations end.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
