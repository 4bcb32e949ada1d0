//! The end of a process: SIGTERM alone does it right, and says what it did (GW-113, GW-708).

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::service::Service;
use support::{Process, Signal, Site, ask, document, until};
use tollgate_engine::testing::client::Ended;
use tollgate_engine::testing::h2_raw::{ACK, GOAWAY, H2Raw, Outcome, PING};

/// How long a connection may still bring a request after it was accepted, when the process is told to stop.
const GRACE: Duration = Duration::from_millis(250);

fn site(service: &Service, server: &str) -> Site {
    let more = format!("[server]\nworkers = 2\n{server}\n");
    Site::with(&document(service.address(), "timeout = \"60s\"", &more))
}

/// Asks the process to stop and waits until it says that it is not ready any more.
fn begin_to_stop(gateway: &Process, signal: Signal) {
    let admin = gateway.admin();
    gateway.signal(signal);
    until("readiness to turn false", || {
        ask(admin, "GET /health/ready").status == 503
    });
}

#[test]
fn sigterm_lets_what_is_in_flight_finish_and_reports_nothing_cut() {
    for signal in [Signal::TERM, Signal::INT] {
        let service = Service::start();
        let gateway = site(&service, "drain = \"60s\"").run();
        let address = gateway.address();
        let (mut slow, mut idle) = (gateway.client(), gateway.client());
        assert_eq!(idle.get("/").text(), "ok");
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        service.wait_for("/slow", 1);
        begin_to_stop(&gateway, signal);
        assert_eq!(gateway.ask("GET /health/live").status, 200);
        let (rest, ended) = idle.drain();
        assert_eq!((&*rest, ended), (&b""[..], Ended::Closed), "idle ones end");
        until("new connections to be refused", || {
            TcpStream::connect(address).is_err()
        });
        service.slow.open();
        let response = slow.read_response();
        assert_eq!(response.text(), "done");
        assert_eq!(response.header("connection"), Some("close"), "{response:?}");
        slow.assert_closed();
        let ended = gateway.end();
        ended.assert_nothing_cut();
        assert!(ended.report()[0] >= 2, "{ended:?}");
    }
}

#[test]
fn http_2_clients_get_goaway_and_their_open_streams_finish() {
    let service = Service::start();
    let gateway = site(&service, "drain = \"60s\"").run();
    let (mut busy, mut idle) = (
        H2Raw::connect(gateway.address()),
        H2Raw::connect(gateway.address()),
    );
    busy.get(1, "/slow");
    idle.get(1, "/");
    assert!(matches!(
        idle.outcome(1),
        Outcome::Answer { status: 200, .. }
    ));
    service.wait_for("/slow", 1);
    begin_to_stop(&gateway, Signal::TERM);
    for raw in [&mut busy, &mut idle] {
        let goaway = loop {
            match raw.read_frame() {
                Ok(frame) if frame.kind == GOAWAY => break frame,
                Ok(_) => {}
                Err(ended) => panic!("no GOAWAY: {ended:?}"),
            }
        };
        assert_eq!(goaway.code(), 0, "{goaway:?}");
        // Asked whether it has seen that: until it says so its requests may be on the way.
        loop {
            match raw.read_frame() {
                Ok(ping) if ping.kind == PING && ping.flags & ACK == 0 => {
                    raw.frame(PING, ACK, 0, &ping.payload);
                    break;
                }
                Ok(_) => {}
                Err(ended) => panic!("no PING: {ended:?}"),
            }
        }
    }
    assert!(idle.wait_closed());
    service.slow.open();
    match busy.outcome(1) {
        Outcome::Answer {
            status: 200, body, ..
        } => assert_eq!(body, b"done"),
        other => panic!("the stream in flight was lost: {other:?}"),
    }
    assert!(busy.wait_closed());
    gateway.end().assert_nothing_cut();
}

#[test]
fn what_outlives_the_drain_is_cut_and_counted_and_the_exit_code_tells() {
    let service = Service::start();
    let gateway = site(&service, "drain = \"300ms\"").run();
    let mut slow = gateway.client();
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut stream = gateway.client();
    stream.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(stream.read_head().status, 200);
    service.wait_for("/slow", 1);
    let begun = Instant::now();
    let ended = gateway.stop();
    assert!(
        begun.elapsed() >= Duration::from_millis(290),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let [accepted, finished, cut] = ended.report();
    assert_eq!((accepted, finished, cut), (2, 0, 2), "{ended:?}");
    for client in [&mut slow, &mut stream] {
        assert_ne!(client.drain().1, Ended::Silent, "what was cut is closed");
    }
}

/// A load balancer needs a moment to see that the process is not ready; until then new connections are served.
#[test]
fn drain_lag_keeps_accepting_while_readiness_is_already_false() {
    let service = Service::start();
    let gateway = site(&service, "drain = \"60s\"\ndrain_lag = \"6s\"").run();
    let (address, mut kept) = (gateway.address(), gateway.client());
    assert_eq!(kept.get("/").text(), "ok");
    let begun = Instant::now();
    // The lag is longer than a machine stands still while it is asked.
    begin_to_stop(&gateway, Signal::TERM);
    for _ in 0..5 {
        assert_eq!(gateway.get("/").text(), "ok", "new connections are served");
    }
    assert_eq!(
        kept.get("/").text(),
        "ok",
        "and so are those that are there"
    );
    kept.assert_closed();
    assert!(
        begun.elapsed() >= Duration::from_millis(5_990),
        "{:?}",
        begun.elapsed()
    );
    gateway.end().assert_nothing_cut();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_second_sigterm_ends_it_now() {
    for server in ["drain = \"60s\"", "drain = \"60s\"\ndrain_lag = \"60s\""] {
        let service = Service::start();
        let gateway = site(&service, server).run();
        let mut slow = gateway.client();
        slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        service.wait_for("/slow", 1);
        begin_to_stop(&gateway, Signal::TERM);
        gateway.signal(Signal::TERM);
        let ended = gateway.end();
        assert_eq!(ended.code, Some(4), "{ended:?}");
        assert_eq!(ended.report()[2], 1, "{ended:?}");
        assert_ne!(slow.drain().1, Ended::Silent);
    }
}

#[test]
fn post_drain_stops_as_sigterm_does() {
    let service = Service::start();
    let gateway = site(&service, "drain = \"60s\"").run();
    assert_eq!(gateway.get("/").text(), "ok");
    assert_eq!(gateway.ask("POST /drain").status, 202);
    gateway.end().assert_nothing_cut();
}

/// Connections that the kernel had already accepted for us are customers, too.
#[test]
fn connections_that_wait_to_be_accepted_are_served() {
    let mut rounds = 0;
    until("five times that clients asked at once", || {
        let service = Service::start();
        let gateway = site(&service, "drain = \"60s\"").run();
        let begun = Instant::now();
        let mut clients: Vec<_> = (0..30).map(|_| gateway.client()).collect();
        gateway.signal(Signal::TERM);
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        // Who is silent for longer is let go.
        if begun.elapsed() >= GRACE {
            return false;
        }
        for client in &mut clients {
            let response = client.read_response();
            assert_eq!(response.text(), "ok", "{response:?}");
        }
        gateway.end().assert_nothing_cut();
        rounds += 1;
        rounds == 5
    });
}
