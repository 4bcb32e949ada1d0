//! What clients can choose never becomes a series, and never stays in memory (HI-59).
//!
//! Twenty thousand hosts, paths and methods stand for any number: whatever is kept for each would show.

use tollgate_engine::testing::apart::{self, Apart};
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::upstream::Upstream;

const DISTINCT: usize = 20_000;
const BATCH: usize = 100;
const MIB: u64 = 1 << 20;

/// Not a test of its own: see `apart`.
#[test]
fn a_gateway_for_the_others() {
    apart::serve_if_asked();
}

/// Two routes: one for everything that is answered here, one to an upstream.
fn toml(upstream: &Upstream) -> String {
    format!(
        "{}\n[[route]]\nname = \"here\"\nmatch = {{ path = \"/here/*\" }}\nrespond = {{ status = 200, body = \"here\" }}\n",
        document(upstream.address(), "", "", "")
    )
}

/// Sends a request with a host, a path, a method, a query and headers of its own for each number.
fn send(client: &mut Client, numbers: std::ops::Range<usize>, path: &str) {
    for first in numbers.clone().step_by(BATCH) {
        let batch = first..(first + BATCH).min(numbers.end);
        let requests: String = batch
            .clone()
            .map(|n| {
                format!(
                    "M{n} {path}/p{n}?q{n}=1 HTTP/1.1\r\nHost: h{n}.example\r\nUser-Agent: agent-{n}\r\n\
                     X-Request-Id: id-{n}\r\nAuthorization: Bearer {n}\r\nCookie: c{n}={n}\r\n\r\n"
                )
            })
            .collect();
        client.send(requests);
        for n in batch {
            let response = client.read_response();
            assert_eq!(response.status, 200, "{n}: {response:?}");
        }
    }
}

/// The series by name and labels, without their values.
fn series(gateway: &Gateway) -> Vec<String> {
    let page = gateway.metrics();
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series.to_owned())
        .collect()
}

#[test]
fn hi_59_hosts_paths_and_methods_that_clients_make_up_add_no_series() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream));
    let mut client = gateway.client();
    for path in ["/here", "/there"] {
        send(&mut client, 0..200, path);
    }
    let before = series(&gateway);
    send(&mut client, 200..DISTINCT, "/here");
    send(&mut client, 200..2_000, "/there");
    let after = series(&gateway);
    assert_eq!(before, after);
    let told: Vec<&String> = after
        .iter()
        .filter(|line| line.contains(".example") || line.contains("/p1") || line.contains("M1"))
        .collect();
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn hi_59_hosts_paths_and_methods_that_clients_make_up_leave_nothing_in_memory() {
    let upstream = Upstream::fixed("ok");
    let gateway = Apart::start(&toml(&upstream));
    let mut client = Client::connect(gateway.address());
    // What any traffic costs once.
    send(&mut client, 0..2_000, "/here");
    send(&mut client, 0..1_000, "/there");
    let before = resident(&gateway);
    send(&mut client, 2_000..DISTINCT, "/here");
    send(&mut client, 1_000..3_000, "/there");
    let growth = resident(&gateway).saturating_sub(before);
    assert!(growth < 2 * MIB, "{} KiB more", growth / 1024);
}

/// Resident memory, from `/proc/PID/status`.
fn resident(gateway: &Apart) -> u64 {
    let status = gateway.read("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: u64 = kilobytes.expect("a size").parse().expect("a number");
    kilobytes * 1024
}
