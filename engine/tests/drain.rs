//! Stopping: nothing new, what is in flight finishes, what does not finish in time is cut and counted.
//!
//! HTTP/1 clients are told by `Connection: close`, HTTP/2 clients by GOAWAY, idle ones by the end of their connection,
//! operators by readiness while it lasts and by the report afterwards.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use tollgate_engine::testing::client::{Client, Ended};
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_raw::{ACK, Frame, GOAWAY, H2Raw, Outcome, PING};
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::until;

/// Sooner than a drain of ten minutes would be over, and later than any machine needs to end what nobody waits for.
const LONG_BEFORE: Duration = Duration::from_secs(300);

/// An HTTP/2 client that says nothing for so long after its farewell is not waited for.
const FAREWELL: Duration = Duration::from_secs(1);

/// Answers `/slow` only once the gate is open, everything else at once.
fn gated(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::http1(move |conn| {
        while let Some(request) = conn.read_request() {
            if request.target() == "/slow" {
                gate.wait();
            }
            conn.respond("200 OK", &[], "done");
        }
    })
}

fn draining(upstream: &Upstream, drain: &str) -> Gateway {
    let server = format!("\n[server]\nworkers = 2\ndrain = \"{drain}\"\n");
    Gateway::start(&(document(upstream.address(), "", "", "") + &server))
}

fn in_flight(upstream: &Upstream, count: usize) {
    upstream.wait("the slow requests", |journal| {
        journal
            .requests
            .iter()
            .filter(|request| request.target() == "/slow")
            .count()
            == count
    });
}

/// The next frame of this kind that is no acknowledgement.
fn next(raw: &mut H2Raw, kind: u8) -> Frame {
    loop {
        let frame = raw
            .read_frame()
            .unwrap_or_else(|ended| panic!("no frame of kind {kind}: {ended:?}"));
        if frame.kind == kind && frame.flags & ACK == 0 {
            return frame;
        }
    }
}

/// The last stream that a GOAWAY promises to answer.
fn last_stream(goaway: &Frame) -> [u8; 4] {
    goaway.payload[..4].try_into().expect("four bytes")
}

#[test]
fn a_request_in_flight_finishes_and_its_connection_closes_behind_it() {
    let gate = Gate::new();
    let upstream = gated(&gate);
    let gateway = draining(&upstream, "60s");
    let (address, mut busy, mut idle) = (gateway.address(), gateway.client(), gateway.client());
    assert_eq!(idle.get("/").status, 200);
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    in_flight(&upstream, 1);
    let stopping = std::thread::spawn(move || gateway.stop());
    let (rest, ended) = idle.drain();
    assert_eq!(
        (&*rest, ended),
        (&b""[..], Ended::Closed),
        "an idle connection is let go at once"
    );
    assert!(!stopping.is_finished(), "it waits for what is in flight");
    // The other worker closes its own door in its own time.
    until("the doors to close", || {
        TcpStream::connect(address).is_err()
    });
    assert!(
        !stopping.is_finished(),
        "and still it waits for what is in flight"
    );
    gate.open();
    let response = busy.read_response();
    assert_eq!(response.text(), "done");
    assert_eq!(response.header("connection"), Some("close"), "{response:?}");
    busy.assert_closed();
    let report = stopping.join().expect("no panic");
    assert!(
        report.accepted >= 2 && report.cut == 0,
        "accepted {}, cut {}",
        report.accepted,
        report.cut
    );
}

#[test]
fn an_http_2_client_is_told_to_go_away_and_its_streams_finish() {
    let gate = Gate::new();
    let upstream = gated(&gate);
    let gateway = draining(&upstream, "60s");
    let mut raw = H2Raw::connect(gateway.address());
    raw.get(1, "/slow");
    in_flight(&upstream, 1);
    let stopping = std::thread::spawn(move || gateway.stop());
    let goaway = next(&mut raw, GOAWAY);
    assert_eq!(goaway.code(), 0, "{goaway:?}");
    gate.open();
    match raw.outcome(1) {
        Outcome::Answer {
            status: 200, body, ..
        } => assert_eq!(body, b"done"),
        other => panic!("the stream in flight was lost: {other:?}"),
    }
    assert!(raw.wait_closed());
    assert!(stopping.join().expect("no panic").cut == 0);
}

/// RFC 9113 section 6.8: until the client says that it has seen the first GOAWAY, its requests may be on their way.
#[test]
fn a_stream_that_was_on_its_way_when_its_client_was_told_to_go_away_is_answered() {
    let upstream = Upstream::echo();
    for streams_before in [0, 1] {
        until("a client that is not too late itself", || {
            on_its_way(&upstream, streams_before)
        });
    }
}

/// Plays it once; false when this client was so slow that it need not be waited for.
fn on_its_way(upstream: &Upstream, streams_before: u32) -> bool {
    let gateway = draining(upstream, "60s");
    let mut raw = H2Raw::connect(gateway.address());
    for stream in (0..streams_before).map(|number| 2 * number + 1) {
        raw.get(stream, "/");
        assert!(matches!(
            raw.outcome(stream),
            Outcome::Answer { status: 200, .. }
        ));
    }
    let begun = Instant::now();
    let stopping = std::thread::spawn(move || gateway.stop());
    assert_eq!(
        last_stream(&next(&mut raw, GOAWAY)),
        [0x7f, 0xff, 0xff, 0xff]
    );
    let ping = next(&mut raw, PING);
    let late = 2 * streams_before + 1;
    raw.get(late, "/late");
    if begun.elapsed() >= FAREWELL {
        return false;
    }
    match raw.outcome(late) {
        Outcome::Answer { status: 200, .. } => {}
        other => panic!("the stream that was on its way was lost: {other:?}"),
    }
    raw.frame(PING, ACK, 0, &ping.payload);
    if begun.elapsed() >= FAREWELL {
        return false;
    }
    assert_eq!(last_stream(&next(&mut raw, GOAWAY)), late.to_be_bytes());
    assert!(raw.wait_closed());
    assert_eq!(stopping.join().expect("no panic").cut, 0);
    true
}

#[test]
fn an_idle_http_2_connection_is_let_go_at_once() {
    let upstream = Upstream::echo();
    let gateway = draining(&upstream, "10m");
    let mut raw = H2Raw::connect(gateway.address());
    raw.get(1, "/");
    assert!(matches!(
        raw.outcome(1),
        Outcome::Answer { status: 200, .. }
    ));
    // An honest client acknowledges the PING that tells the gateway that its GOAWAY has arrived.
    let listening = std::thread::spawn(move || raw.outcome(3));
    let begun = Instant::now();
    let report = gateway.stop();
    assert!(begun.elapsed() < LONG_BEFORE, "{:?}", begun.elapsed());
    assert!(report.cut == 0, "cut {}", report.cut);
    assert_eq!(
        listening.join().expect("no panic"),
        Outcome::Ended(Ended::Closed)
    );
}

#[test]
fn what_does_not_finish_in_time_is_cut_and_counted() {
    let gate = Gate::new();
    let upstream = gated(&gate);
    let gateway = draining(&upstream, "300ms");
    let mut busy = [gateway.client(), gateway.client()];
    for client in &mut busy {
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    in_flight(&upstream, 2);
    let begun = Instant::now();
    let report = gateway.stop();
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(290) && took < LONG_BEFORE,
        "{took:?}"
    );
    assert!(report.cut == 2, "cut {}", report.cut);
    for client in &mut busy {
        assert_ne!(client.drain().1, Ended::Silent, "what was cut is closed");
    }
    gate.open();
}

#[test]
fn a_stop_with_nothing_in_flight_is_quick_and_counts_what_was_served() {
    let upstream = Upstream::echo();
    let gateway = draining(&upstream, "10m");
    let mut client = gateway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 200);
    }
    let begun = Instant::now();
    let report = gateway.stop();
    assert!(begun.elapsed() < LONG_BEFORE, "{:?}", begun.elapsed());
    assert!(report.cut == 0, "cut {}", report.cut);
    client.assert_closed();
}

#[test]
fn readiness_turns_false_while_liveness_stays() {
    let gate = Gate::new();
    let upstream = gated(&gate);
    let gateway = draining(&upstream, "60s");
    let admin = gateway.admin();
    assert_eq!(gateway.ask("GET /health/ready").status, 200);
    let mut busy = gateway.client();
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    in_flight(&upstream, 1);
    let stopping = std::thread::spawn(move || gateway.stop());
    until("readiness to turn false", || {
        let asked = Client::connect(admin).request("GET /health/ready", &["Connection: close"]);
        asked.status == 503
    });
    let alive = Client::connect(admin).request("GET /health/live", &["Connection: close"]);
    assert_eq!(alive.status, 200, "{alive:?}");
    gate.open();
    assert_eq!(busy.read_response().text(), "done");
    stopping.join().expect("no panic");
}
