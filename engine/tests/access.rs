//! The access log as operators read it: one line of JSON for each exchange, however it ended (OBS-204).

use serde_json::Value;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::upstream::Upstream;

fn logging(upstream: &Upstream) -> Gateway {
    let toml = document(upstream.address(), "", "", "");
    Gateway::start(&format!(
        "{toml}\n[telemetry]\naccess_log = {{ to = \"access.log\" }}\n"
    ))
}

/// The first line, once it is written.
fn line(gateway: &Gateway) -> Value {
    gateway.wait_lines("access.log", 1).swap_remove(0)
}

fn assert_tells(line: &Value, status: u16) {
    assert_eq!(line["path"], "/orders/42", "{line}");
    assert_eq!(line["host"], "shop.example", "{line}");
    assert_eq!(line["user_agent"], "test/1", "{line}");
    assert_eq!(line["route"], "all", "{line}");
    assert_eq!(line["status"], status, "{line}");
}

const LINES: &str =
    "GET /orders/42?page=2 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test/1\r\n\r\n";

#[test]
fn an_answered_request_is_told_with_what_it_asked_for() {
    let upstream = Upstream::fixed("ok");
    let gateway = logging(&upstream);
    let mut client = gateway.client();
    client.send(LINES);
    assert_eq!(client.read_response().status, 200);
    assert_tells(&line(&gateway), 200);
}

#[test]
fn a_request_that_its_client_gave_up_is_told_with_what_it_asked_for() {
    let upstream = Upstream::http1(|conn| {
        conn.read_request();
        conn.wait_closed();
    });
    let gateway = logging(&upstream);
    let mut client = gateway.client();
    client.send(LINES);
    upstream.wait("the request", |journal| journal.complete().len() == 1);
    client.reset();
    let line = line(&gateway);
    assert_tells(&line, 499);
    assert_eq!(line["error"]["code"], "client_closed", "{line}");
}
