//! How many connections there may be, and what becomes of those beyond: HI-70 in small.

use std::time::{Duration, Instant};

use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::apart::{self, Apart};
use tollgate_engine::testing::client::{Client, Ended};
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;

/// Not a test of its own: see `apart`.
#[test]
fn a_gateway_for_the_others() {
    apart::serve_if_asked();
}

#[test]
fn hi_70_a_listener_takes_no_more_connections_than_allowed_and_then_goes_on() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&document(upstream.address(), "max_connections = 3", "", ""));
    let mut held: Vec<Client> = (0..3).map(|_| gateway.client()).collect();
    for client in &mut held {
        assert_eq!(client.get("/held").status, 200);
    }
    // One more is closed or waits; either way it is not served, and those that are there are.
    let mut beyond = gateway.client();
    beyond.send("GET /beyond HTTP/1.1\r\nHost: a\r\n\r\n");
    for client in &mut held {
        assert_eq!(client.get("/still").status, 200);
    }
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.target() != "/beyond")
    );
    drop(held);
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(
            Instant::now() < deadline,
            "room that was made is never used"
        );
        let mut client = gateway.client();
        client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        match client.try_response("GET") {
            Ok(response) => break assert_eq!(response.status, 200),
            Err(ended) => assert_ne!(ended, Ended::Silent),
        }
    }
}

#[test]
fn hi_70_running_out_of_files_harms_nobody_who_is_there_and_burns_no_time() {
    let upstream = Upstream::echo();
    let gateway = Apart::with_files(&document(upstream.address(), "", "", ""), 80);
    let address = gateway.address();
    let mut first = Client::connect(address);
    assert_eq!(first.get("/first").status, 200);
    let crowd: Vec<Client> = (0..200).map(|_| Client::connect(address)).collect();
    assert_eq!(first.get("/crowded").status, 200, "who is there is served");
    let looked = Instant::now();
    let busy_before = processor_time(&gateway);
    // A gate that nobody opens: the time in which a busy loop would show.
    Gate::new().opens_within(Duration::from_secs(1));
    let burnt = processor_time(&gateway) - busy_before;
    let passed = looked.elapsed();
    assert!(
        burnt * 10 < passed * 4,
        "{burnt:?} of processor time in {passed:?} without work"
    );
    assert_eq!(first.get("/crowded").status, 200);
    drop(crowd);
    let response = Client::connect(address).get("/afterwards");
    assert_eq!(response.status, 200, "{response:?}");
}

/// User and system time of a process, from `/proc/PID/stat` at 100 ticks a second.
fn processor_time(gateway: &Apart) -> Duration {
    let stat = gateway.read("stat");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}
