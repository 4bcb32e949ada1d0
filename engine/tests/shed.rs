//! Little memory and everything at once: a gateway that may have 256 MiB in all meets the floods together (HI-71). It
//! sheds what is too much, goes on serving an innocent, and is not killed.
//!
//! The limit is a control group's; where none may be made the test says so and does nothing.

use std::fs;
use std::path::{Path, PathBuf};

use tollgate_engine::testing::apart::{self, Apart};
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::gateway::document;
use tollgate_engine::testing::h2_raw::*;
use tollgate_engine::testing::hpack;
use tollgate_engine::testing::upstream::Upstream;

const LIMIT: u64 = 256 << 20;

/// Not a test of its own: see `apart`.
#[test]
fn a_gateway_for_the_others() {
    apart::serve_if_asked();
}

/// A control group with a limit of memory; removed when dropped, after the process in it has ended.
struct Group(PathBuf);

impl Group {
    /// None where it may not be made.
    fn new() -> Option<Group> {
        let name = format!("tollgate-test-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (parent, key) = if first.is_dir() {
            (first, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let folder = parent.join(name);
        fs::create_dir(&folder).ok()?;
        let group = Group(folder);
        fs::write(group.0.join(key), LIMIT.to_string()).ok()?;
        Some(group)
    }

    fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir(&self.0);
    }
}

/// Answers `/innocent` shortly and everything else with a megabyte.
fn upstream() -> Upstream {
    Upstream::http1(|conn| {
        while let Some(request) = conn.read_request() {
            let sent = if request.target() == "/innocent" {
                conn.respond("200 OK", &["Connection: close"], "ok")
            } else {
                conn.respond("200 OK", &[], &"x".repeat(1 << 20))
            };
            if !sent {
                return;
            }
        }
    })
}

#[test]
fn hi_71_all_floods_at_once_within_256_mib_kill_nobody() {
    let Some(group) = Group::new() else {
        eprintln!("skipped: no control group for memory may be made here");
        return;
    };
    let upstream = upstream();
    // A thread for each connection: this upstream may well be late to accept a thousand of them. That would open its
    // breaker and use up its retries, as it should, and is no matter of this test.
    let keys = "breaker = \"off\"\nretry_budget = \"off\"";
    let toml = document(upstream.address(), "", "", keys);
    let Some(gateway) = Apart::in_group(&toml, &group.processes()) else {
        eprintln!("skipped: no process may be moved into a control group here");
        return;
    };
    let address = gateway.address();
    let innocent = |after: &str| {
        let response = Client::connect(address).get("/innocent");
        assert_eq!(response.status, 200, "after {after}: {response:?}");
    };
    innocent("nothing");
    let mut streams = Vec::new();
    let mut clients = Vec::new();

    let mut bomb = hpack::encode(&request("GET", "/bomb"));
    bomb.extend(hpack::remembered(b"cookie", b""));
    bomb.extend(hpack::indexed(62).repeat(15_900));
    for _ in 0..4 {
        let mut raw = H2Raw::connect_with(address, &[(4, 0)]);
        for n in 0..90 {
            raw.frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &bomb);
        }
        streams.push(raw);
    }
    innocent("the bomb");

    for _ in 0..16 {
        let mut raw = H2Raw::connect_with(address, &[(4, 0)]);
        for n in 0..100 {
            raw.get(2 * n + 1, "/large");
        }
        streams.push(raw);
    }
    innocent("shut windows");

    let filler = hpack::encode(&[(b"x-filler", &[b'x'; 16_000])]);
    for _ in 0..16 {
        let mut raw = H2Raw::connect(address);
        let head = hpack::encode(&request("GET", "/flood"));
        raw.frame(HEADERS, END_STREAM, 1, &head);
        let piece = frame(CONTINUATION, 0, 1, &filler);
        for _ in 0..200 {
            if !raw.send(&piece) {
                break;
            }
        }
        streams.push(raw);
    }
    innocent("continuations");

    for kind in [frame(SETTINGS, 0, 0, &[]), frame(PING, 0, 0, b"12345678")] {
        let mut raw = H2Raw::connect(address);
        raw.headers(1, 0, &request("POST", "/flood"));
        raw.write_limit(std::time::Duration::from_secs(2));
        raw.send(&kind.repeat(100_000));
        streams.push(raw);
    }
    innocent("small frames");

    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}", "x".repeat(1 << 20));
    for _ in 0..200 {
        let mut client = Client::connect(address);
        client.send(&large);
        clients.push(client);
    }
    innocent("large heads");

    for _ in 0..1_000 {
        let mut client = Client::connect(address);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nslow");
        clients.push(client);
    }
    innocent("slow bodies");

    for _ in 0..200 {
        let mut client = Client::connect(address);
        client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20));
        clients.push(client);
    }
    innocent("answers that nobody reads");
    assert!(gateway.read("status").contains("Threads"), "it lives");
    drop((streams, clients));
    innocent("everything");
}
