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

/// Every header that the gateway itself reads, with a value of its own in each of thousands of requests.
#[test]
fn hi_59_values_of_headers_that_are_read_become_no_label_and_no_key() {
    let upstream = Upstream::fixed("ok");
    let toml = format!(
        "{}\n\n[[limit]]\nname = \"by-user\"\nby = {{ header = \"x-user\" }}\nrate = \"1000000/s\"\nburst = 1000000\n",
        document(
            upstream.address(),
            "trusted_proxies = [\"127.0.0.0/8\"]",
            "filters = [{ rate_limit = \"by-user\" }, { rate_limit = \"tiers\" }]",
            "balance = { hash = { header = \"x-user\" } }\n[upstream.breaker]\ngrain = \"operation\"",
        )
    );
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    let mut ask = |numbers: std::ops::Range<usize>| {
        for n in numbers {
            let mark = format!("mark-{n}");
            let (high, low) = (n / 250 % 250, n % 250);
            let lines = [
                format!("X-Api-Key: {mark}"),
                format!("X-User: {mark}"),
                format!("X-Request-Id: {mark}"),
                format!("X-Forwarded-For: 10.9.{high}.{low}"),
                format!("X-Forwarded-Host: {mark}.example"),
                format!("X-Request-Deadline-Ms: {}", 100_000 + n),
                format!("X-Priority: {mark}"),
                format!("X-Tollgate-Attempt: {n}"),
                format!("X-Tollgate-Fallback: {mark}"),
                format!("Idempotency-Key: {mark}"),
                format!("Grpc-Timeout: {n}S"),
                format!("Grpc-Encoding: {mark}"),
                format!("Grpc-Previous-Rpc-Attempts: {n}"),
                format!("Traceparent: 00-{n:032x}-{n:016x}-01"),
                format!("Tracestate: mark={mark}"),
                format!("Baggage: mark={mark}"),
                format!("Content-Type: application/{mark}"),
                format!("TE: {mark}"),
            ];
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let status = client.request("GET /there", &lines).status;
            // The limit by address admits each of them some, anonymous clients together not all.
            assert!(matches!(status, 200 | 429), "{status}");
        }
    };
    ask(1..300);
    let before = series(&gateway);
    ask(300..3_000);
    assert_eq!(before, series(&gateway));
    let metrics = gateway.metrics();
    assert!(
        !metrics.contains("mark-") && !metrics.contains("10.9."),
        "{metrics}"
    );
    let status = gateway.get_status().to_string();
    assert!(
        !status.contains("mark-") && !status.contains("10.9."),
        "{status}"
    );
}

/// Resident memory, from `/proc/PID/status`.
fn resident(gateway: &Apart) -> u64 {
    let status = gateway.read("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: u64 = kilobytes.expect("a size").parse().expect("a number");
    kilobytes * 1024
}
