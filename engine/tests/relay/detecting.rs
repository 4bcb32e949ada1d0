//! `protocol = "detect"`: HTTP goes the way of requests, everything else to `forward`.

use std::net::SocketAddr;

use tollgate_engine::testing::client::Ended;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::upstream::Upstream;

use super::{metric, named};

/// Time that does not pass while a test runs.
const LONG: &str = "detect_timeout = \"10m\"\nheader_timeout = \"10m\"";

fn detecting(http: SocketAddr, bytes: SocketAddr, keys: &str) -> Gateway {
    Gateway::start(&format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\nprotocol = \"detect\"\nforward = \"bytes\"\n{keys}\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"http\"\n\n\
         [[upstream]]\nname = \"http\"\nendpoints = [\"{http}\"]\n\n\
         [[upstream]]\nname = \"bytes\"\nendpoints = [\"{bytes}\"]\n"
    ))
}

#[test]
fn mesh_102_http_is_known_even_when_it_comes_byte_by_byte() {
    let (http, bytes) = (Upstream::fixed("http"), named("bytes"));
    let gateway = detecting(http.address(), bytes.address(), LONG);
    assert_eq!(gateway.get("/").text(), "http");
    let mut client = gateway.client();
    for byte in b"GET /slowly HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.send([*byte]);
        std::thread::yield_now();
    }
    assert_eq!(client.read_response().text(), "http");
    assert_eq!(
        client.get("/again").text(),
        "http",
        "and the connection goes on"
    );
    assert_eq!(bytes.connections(), 0);
}

#[test]
fn mesh_102_http_2_is_known_even_when_its_preface_comes_byte_by_byte() {
    let (http, bytes) = (Upstream::fixed("http"), named("bytes"));
    let gateway = detecting(http.address(), bytes.address(), LONG);
    let mut client = gateway.client();
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        client.send([*byte]);
        std::thread::yield_now();
    }
    client.send([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let settings = client.read_exact(9);
    assert_eq!(settings[3], 4, "SETTINGS come first: {settings:?}");
    let answer = h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        h2_client::get(&sender, "/").await.expect("an answer")
    });
    assert_eq!(answer.text(), "http");
    assert_eq!(bytes.connections(), 0);
}

#[test]
fn mesh_102_what_is_not_http_is_relayed_from_its_first_byte() {
    let (http, bytes) = (Upstream::fixed("http"), named("bytes"));
    let gateway = detecting(http.address(), bytes.address(), LONG);
    for first in [
        &b"\x16\x03\x01\x00\x05hello"[..],
        b"*1\r\n$4\r\nPING\r\n",
        b"SSH-2.0-test\r\n",
        b"EHLO mail.example\r\n",
        b"GET key\r\n",
        b"\0",
    ] {
        let mut client = gateway.client();
        client.send(first);
        assert_eq!(client.read_exact(5), b"bytes");
        assert_eq!(client.read_exact(first.len()), first);
        client.finish();
        assert_eq!(client.drain(), (Vec::new(), Ended::Closed));
    }
    assert_eq!(http.connections(), 0);
}

#[test]
fn mesh_102_a_text_protocol_is_told_apart_however_late_it_differs() {
    let (http, bytes) = (Upstream::fixed("http"), named("bytes"));
    let gateway = detecting(http.address(), bytes.address(), LONG);
    let mut client = gateway.client();
    for byte in b"GET /key\r\n" {
        client.send([*byte]);
        std::thread::yield_now();
    }
    assert_eq!(client.read_exact(15), b"bytesGET /key\r\n");
}

#[test]
fn mesh_102_a_client_that_says_nothing_hears_a_server_that_speaks_first() {
    let (http, bytes) = (Upstream::fixed("http"), named("bytes"));
    let gateway = detecting(http.address(), bytes.address(), "detect_timeout = \"20ms\"");
    let mut client = gateway.client();
    assert_eq!(client.read_exact(5), b"bytes");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        client.read_exact(27).len(),
        27,
        "what was relayed once stays so"
    );
    assert_eq!(http.connections(), 0);
}

#[test]
fn mesh_102_a_client_that_only_listens_is_relayed_at_once() {
    let (http, bytes) = (Upstream::fixed("http"), named("bytes"));
    let gateway = detecting(http.address(), bytes.address(), LONG);
    let mut client = gateway.client();
    client.finish();
    assert_eq!(client.drain(), (b"bytes".to_vec(), Ended::Closed));
    let mut client = gateway.client();
    client.send("GET /").finish();
    assert_eq!(client.drain(), (b"bytesGET /".to_vec(), Ended::Closed));
}

#[test]
fn mesh_102_what_begins_like_http_and_stops_is_held_to_the_rules_of_http() {
    let (http, bytes) = (Upstream::fixed("http"), named("bytes"));
    let gateway = detecting(
        http.address(),
        bytes.address(),
        "header_timeout = \"100ms\"\ndetect_timeout = \"10m\"",
    );
    let mut client = gateway.client();
    client.send("GET /");
    let response = client.read_response();
    assert_eq!(
        (response.status, &*response.code()),
        (408, "header_timeout")
    );
    let mut client = gateway.client();
    client.send("GET / HTTP/3.7\r\n\r\n");
    assert_eq!(client.read_response().code(), "unsupported_version");
    assert_eq!(bytes.connections(), 0);
    assert_eq!(metric(&gateway, "relay_connections{listener=\"in\"}"), 0);
}
