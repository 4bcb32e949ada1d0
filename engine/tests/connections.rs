//! How many connections there may be, and what becomes of those beyond: HI-70 in small.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::client::{Client, Ended};
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;

const DOCUMENT: &str = "TOLLGATE_TEST_DOCUMENT";

/// Not a test of its own: serves the document that the environment holds until its input ends.
#[test]
fn a_gateway_for_the_others() {
    let Ok(toml) = std::env::var(DOCUMENT) else {
        return;
    };
    let gateway = Gateway::start(&toml);
    println!("\nserving {}", gateway.address());
    let mut line = String::new();
    let _ended = std::io::stdin().read_line(&mut line);
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
    let program = std::env::current_exe().expect("this program has a path");
    let mut process = Command::new("sh")
        .args([
            "-c",
            "ulimit -n 80; exec \"$0\" --exact a_gateway_for_the_others --nocapture",
        ])
        .arg(program)
        .env(DOCUMENT, document(upstream.address(), "", "", ""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be started again");
    let mut output = BufReader::new(process.stdout.take().expect("piped"));
    let mut line = String::new();
    let address: SocketAddr = loop {
        line.clear();
        assert_ne!(
            output.read_line(&mut line).expect("text"),
            0,
            "it ended without telling its address"
        );
        if let Some(address) = line.strip_prefix("serving ") {
            break address.trim().parse().expect("an address");
        }
    };
    let mut first = Client::connect(address);
    assert_eq!(first.get("/first").status, 200);
    let crowd: Vec<Client> = (0..200).map(|_| Client::connect(address)).collect();
    assert_eq!(first.get("/crowded").status, 200, "who is there is served");
    let busy_before = processor_time(process.id());
    // A gate that nobody opens: the time in which a busy loop would show.
    Gate::new().opens_within(Duration::from_secs(1));
    let burnt = processor_time(process.id()) - busy_before;
    assert!(
        burnt < Duration::from_millis(400),
        "{burnt:?} of processor time in a second without work"
    );
    assert_eq!(first.get("/crowded").status, 200);
    drop(crowd);
    let response = Client::connect(address).get("/afterwards");
    assert_eq!(response.status, 200, "{response:?}");
    let _gone = process
        .stdin
        .take()
        .map(|mut input| input.write_all(b"end\n"));
    let mut last_words = String::new();
    let _told = output.read_to_string(&mut last_words);
    let _ended = process.wait();
}

/// User and system time of a process, from `/proc/PID/stat` at 100 ticks a second.
fn processor_time(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("it lives");
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
