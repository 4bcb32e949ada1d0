//! What is under way while a gateway changes: a stream of events, an upgraded connection, and a slow request of each
//! protocol. All of them must come to their own end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::h2_raw::{H2Raw, Outcome};

use super::service::Service;
use super::until;

pub struct Lasting<'a> {
    service: &'a Service,
    tunnel: Client,
    slow: Client,
    slow_http2: H2Raw,
    events: JoinHandle<()>,
    heard: Arc<AtomicU64>,
}

impl<'a> Lasting<'a> {
    /// Returns once all of it is under way; the service's gates must still be closed.
    pub fn begin(address: SocketAddr, service: &'a Service) -> Lasting<'a> {
        let mut tunnel = Client::connect(address);
        tunnel.send(
            "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        );
        let response = tunnel.read_response();
        assert_eq!(response.status, 101, "{response:?}");
        let mut slow = Client::connect(address);
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut slow_http2 = H2Raw::connect(address);
        slow_http2.get(1, "/slow");
        service.wait_for("/slow", 2);
        let heard = Arc::new(AtomicU64::new(0));
        let (counter, mut client) = (heard.clone(), Client::connect(address));
        let events = std::thread::spawn(move || listen(&mut client, &counter));
        let lasting = Lasting {
            service,
            tunnel,
            slow,
            slow_http2,
            events,
            heard,
        };
        until("the first events", || {
            lasting.heard.load(Ordering::Relaxed) > 2
        });
        lasting
    }

    /// The stream goes on and the tunnel echoes.
    pub fn check(&mut self) {
        let before = self.heard.load(Ordering::Relaxed);
        until("further events", || {
            assert!(!self.events.is_finished(), "the stream of events was cut");
            self.heard.load(Ordering::Relaxed) > before
        });
        self.tunnel.send("ping");
        assert_eq!(self.tunnel.read_exact(4), b"ping");
    }

    /// Lets everything finish and checks that it finishes well.
    pub fn end(mut self) {
        self.check();
        self.service.slow.open();
        let response = self.slow.read_response();
        assert_eq!(
            (response.status, &*response.text()),
            (200, "done"),
            "{response:?}"
        );
        match self.slow_http2.outcome(1) {
            Outcome::Answer {
                status: 200, body, ..
            } => assert_eq!(body, b"done"),
            other => panic!("the slow stream was lost: {other:?}"),
        }
        self.service.end.open();
        self.events
            .join()
            .expect("every event came, in order, to the end");
        self.tunnel.finish();
        self.tunnel.assert_closed();
    }
}

/// Reads the whole stream: every number in its turn, then the end.
fn listen(client: &mut Client, heard: &AtomicU64) {
    client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_head();
    assert_eq!(head.status, 200, "{head:?}");
    let (mut text, mut next) = (String::new(), 0u64);
    loop {
        let chunk = client.read_chunk();
        if chunk.is_empty() {
            panic!("the stream ended without its last event");
        }
        text.push_str(&String::from_utf8_lossy(&chunk));
        while let Some((event, rest)) = text.split_once("\n\n") {
            if event == "data: end" {
                assert_eq!(client.read_chunk(), b"", "nothing follows the end");
                return;
            }
            assert_eq!(event, format!("data: {next}"));
            next += 1;
            text = rest.to_owned();
        }
        heard.store(next, Ordering::Relaxed);
    }
}
