//! What floods may cost: the gateway runs in a process of its own, and its peak of resident memory is read before and
//! after each flood (HI-23, HI-24, HI-28 to HI-32). An innocent is served during each of them.
//!
//! Peaks are those of the kernel (`VmHWM`), so nothing that comes and goes between two looks is missed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::apart::{self, Apart};
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::gateway::document;
use tollgate_engine::testing::h2_raw::*;
use tollgate_engine::testing::hpack;
use tollgate_engine::testing::upstream::Upstream;

const MIB: u64 = 1 << 20;

/// Not a test of its own: see `apart`.
#[test]
fn a_gateway_for_the_others() {
    apart::serve_if_asked();
}

/// A gateway whose memory can be read.
struct Measured(Apart);

impl Measured {
    /// A size from `/proc/PID/status`, in bytes.
    fn read(&self, key: &str) -> u64 {
        let status = self.0.read("status");
        let line = status
            .lines()
            .find(|line| line.starts_with(key))
            .expect("a known key");
        let kilobytes: u64 = line
            .split_whitespace()
            .nth(1)
            .expect("a value")
            .parse()
            .expect("a number");
        kilobytes * 1024
    }

    /// Within the client's patience: how long it takes is the machine's business too.
    fn assert_serves(&self) {
        let response = Client::connect(self.0.address()).get("/innocent");
        assert_eq!(response.status, 200, "{response:?}");
    }

    /// The peak above what is resident now, while this flood runs and until nothing moves any more.
    fn growth<F>(&self, flood: impl FnOnce(SocketAddr) -> F) -> u64 {
        for _ in 0..200 {
            self.assert_serves();
        }
        let before = self.read("VmRSS");
        // Resets the peak.
        self.0.write("clear_refs", "5");
        let held = flood(self.0.address());
        let deadline = Instant::now() + PATIENCE;
        let (mut peak, mut unchanged) = (0, 0);
        while unchanged < 20 && Instant::now() < deadline {
            self.assert_serves();
            let now = self.read("VmHWM");
            unchanged = if now == peak { unchanged + 1 } else { 0 };
            peak = now;
        }
        drop(held);
        self.assert_serves();
        peak.saturating_sub(before)
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

fn assert_grows_less<F>(name: &str, limit: u64, flood: impl FnOnce(SocketAddr) -> F) {
    let upstream = upstream();
    // Floods may well be more than this upstream can accept in time; that would open its breaker and use up its retries,
    // and is another matter.
    let keys = "breaker = \"off\"\nretry_budget = \"off\"";
    let gateway = Measured(Apart::start(&document(upstream.address(), "", "", keys)));
    let growth = gateway.growth(flood);
    assert!(
        growth < limit,
        "{name}: {} KiB more, {} KiB allowed",
        growth / 1024,
        limit / 1024
    );
}

#[test]
fn hi_30_the_http_2_bomb_costs_less_than_16_mib() {
    assert_grows_less("bomb", 16 * MIB, |address| {
        let mut block = hpack::encode(&request("GET", "/bomb"));
        block.extend(hpack::remembered(b"cookie", b""));
        block.extend(hpack::indexed(62).repeat(15_900));
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut raw = H2Raw::connect_with(address, &[(4, 0)]);
            for n in 0..90 {
                raw.frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block);
            }
            held.push(raw);
        }
        held
    });
}

#[test]
fn hi_29_a_header_bomb_by_reference_costs_less_than_16_mib() {
    assert_grows_less("header bomb", 16 * MIB, |address| {
        let mut block = hpack::encode(&request("GET", "/bomb"));
        block.extend(hpack::remembered(b"x-bomb", &[b'x'; 3_900]));
        block.extend(hpack::indexed(62).repeat(12_000));
        let mut held = Vec::new();
        for _ in 0..16 {
            let mut raw = H2Raw::connect(address);
            raw.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
            held.push(raw);
        }
        held
    });
}

#[test]
fn hi_28_a_continuation_flood_costs_less_than_16_mib() {
    assert_grows_less("continuation", 16 * MIB, |address| {
        let filler = hpack::encode(&[(b"x-filler", &[b'x'; 16_000])]);
        let mut held = Vec::new();
        for _ in 0..8 {
            let mut raw = H2Raw::connect(address);
            raw.frame(
                HEADERS,
                END_STREAM,
                1,
                &hpack::encode(&request("GET", "/flood")),
            );
            let piece = frame(CONTINUATION, 0, 1, &filler);
            for _ in 0..1_000 {
                if !raw.send(&piece) {
                    break;
                }
            }
            held.push(raw);
        }
        held
    });
}

#[test]
fn hi_31_floods_of_small_frames_cost_less_than_16_mib() {
    assert_grows_less("small frames", 16 * MIB, |address| {
        let kinds = [
            frame(SETTINGS, 0, 0, &[]),
            frame(PING, 0, 0, b"12345678"),
            frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
        ];
        let mut held = Vec::new();
        for one in kinds {
            let mut raw = H2Raw::connect(address);
            raw.headers(1, 0, &request("POST", "/flood"));
            raw.write_limit(Duration::from_secs(2));
            raw.send(&one.repeat(200_000));
            held.push(raw);
        }
        held
    });
}

#[test]
fn hi_32_eight_hundred_streams_with_a_shut_window_cost_less_than_24_mib() {
    assert_grows_less("shut windows", 24 * MIB, |address| {
        let mut held = Vec::new();
        for _ in 0..8 {
            let mut raw = H2Raw::connect_with(address, &[(4, 0)]);
            for n in 0..100 {
                raw.get(2 * n + 1, "/large");
            }
            held.push(raw);
        }
        held
    });
}

#[test]
fn hi_23_large_heads_on_many_connections_cost_less_than_16_mib() {
    assert_grows_less("large heads", 16 * MIB, |address| {
        let line = format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}", "x".repeat(1 << 20));
        let mut held = Vec::new();
        for _ in 0..64 {
            let mut client = Client::connect(address);
            client.send(&line);
            held.push(client);
        }
        held
    });
}

#[test]
fn hi_24_fifteen_hundred_slow_heads_cost_less_than_16_mib() {
    assert_grows_less("slow heads", 16 * MIB, |address| {
        let mut held = Vec::new();
        for _ in 0..1_500 {
            let mut client = Client::connect(address);
            client.send("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1");
            held.push(client);
        }
        held
    });
}
