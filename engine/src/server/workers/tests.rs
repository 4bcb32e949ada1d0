//! A worker's doors, opened and closed by orders.

use std::io::{Read, Write};
use std::time::Duration;

use tollgate_config::Loader;

use super::*;
use crate::net::accept;
use crate::snapshot::compile::compile;
use crate::snapshot::memory::Memory;
use crate::testing::PATIENCE;

fn common(document: &str) -> Common {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, document).unwrap();
    let document = Loader::new().load(&file).unwrap();
    let metrics = Arc::new(Metrics::new(1));
    let world = compile(&document, None, &mut Memory::default(), &metrics, 1).unwrap();
    Common {
        store: Arc::new(Store::new(Arc::new(world))),
        metrics,
        access_log: Arc::new(AccessLog::start(&document.telemetry).unwrap()),
        spans: Arc::new(Spans::new(1)),
        ledger: Arc::default(),
        learning: Arc::new(Learning::new(Instant::now())),
    }
}

/// Also in an upgrade: a successor whose document has no such listener serves nobody there.
#[test]
fn who_waits_in_the_queue_of_a_door_that_closes_is_served() {
    let common = common(
        r#"
[[listener]]
name = "in"
bind = "127.0.0.1:0"

[[route]]
match   = { path = "/*" }
respond = { status = 200, body = "ok" }

[telemetry]
access_log = "off"
"#,
    );
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = accept::bind(bind, false, BACKLOG).unwrap();
    let address = socket.local_addr().unwrap();
    let mut waiting: Vec<_> = (0..8)
        .map(|_| {
            let mut client = TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                .unwrap();
            client
        })
        .collect();
    // Another process holds the same socket, and does not accept.
    let _successor = socket.try_clone().unwrap();
    let index = ListenerIndex(0);
    let workers = Workers::start(1, &common).unwrap();
    workers.order(
        0,
        Order::Open(Opening {
            name: "in".into(),
            index,
            bind,
            socket,
            permits: Permits::new(100),
            series: common.metrics.listener("in"),
        }),
    );
    workers.order(0, Order::Close(index, bind));
    workers.order(0, Order::Leave);
    for client in &mut waiting {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    }
    workers.join();
    assert_eq!(common.ledger.report(Duration::ZERO).finished, 8);
}
