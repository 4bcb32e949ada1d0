//! Spans of what is no request and answer: a connection's bytes, and an upgrade. They are told when it is over.

use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::wait;

use super::*;

#[test]
fn mesh_502_relayed_bytes_leave_their_spans_when_they_end() {
    let upstream = Upstream::http1(|conn| {
        conn.send("hello");
        conn.wait_closed();
    });
    let gateway = Gateway::start(&format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\nforward = \"app\"\n\n\
         [[upstream]]\nname = \"app\"\nendpoints = [\"{}\"]\nconnect_timeout = \"60s\"\n",
        upstream.address()
    ));
    let mut client = gateway.client();
    assert_eq!(client.read_exact(5), b"hello");
    assert!(page(&gateway, "/traces").is_empty(), "it is not over");
    client.finish();
    let spans = wait(
        "spans of the connection",
        || page(&gateway, "/traces"),
        |spans| spans.len() == 2,
    );
    let (server, tries) = parts(&spans);
    assert_eq!(
        (tag(server, "listener"), tag(server, "end")),
        ("in", "finished")
    );
    assert_eq!(
        (tag(server, "bytes_in"), tag(server, "bytes_out")),
        ("0", "5")
    );
    assert_eq!((tag(server, "method"), tag(server, "path")), ("", ""));
    assert_eq!(tries[0].parent_id.as_ref(), Some(&server.span_id));
    assert_eq!(tag(tries[0], "endpoint"), upstream.address().to_string());
}

#[test]
fn mesh_502_an_upgrade_leaves_its_spans_when_both_sides_are_done() {
    let upstream = Upstream::http1(|conn| {
        conn.read_request();
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        conn.wait_closed();
    });
    let gateway = Gateway::start(&document(upstream.address(), "", "", ""));
    let mut client = gateway.client();
    client.send(format!(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{}\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        traceparent("00")
    ));
    assert_eq!(client.read_response().status, 101);
    assert!(page(&gateway, &format!("/traces/{TRACE}")).is_empty());
    client.finish();
    let spans = trace(&gateway, TRACE, 2);
    let (server, tries) = parts(&spans);
    for span in [server, tries[0]] {
        assert_eq!(tag(span, "status"), "101");
    }
    assert_eq!(tag(server, "path"), "/chat");
}
