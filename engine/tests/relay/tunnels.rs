//! A forward proxy for services: `CONNECT orders:5432` and `GET http://orders/x`, by the route of the authority.

use std::net::SocketAddr;

use tollgate_engine::testing::client::Ended;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::{LOGGED, lines, named};

/// Requests for `orders` go to one upstream, tunnels to another.
fn proxy(http: SocketAddr, bytes: SocketAddr) -> Gateway {
    Gateway::start(&format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n\
         [[route]]\nname = \"requests\"\nmatch = {{ host = \"orders\", path = \"/*\" }}\nupstream = \"http\"\n\n\
         [[route]]\nname = \"tunnels\"\nmatch = {{ host = \"orders\", path = \"/*\", methods = [\"CONNECT\"] }}\nupstream = \"bytes\"\n\n\
         [[upstream]]\nname = \"http\"\nendpoints = [\"{http}\"]\n\n\
         [[upstream]]\nname = \"bytes\"\nendpoints = [\"{bytes}\"]\n{LOGGED}"
    ))
}

#[test]
fn mesh_101_connect_gives_a_tunnel_to_the_upstream_of_its_route() {
    let (http, bytes) = (Upstream::echo(), named("hello"));
    let gateway = proxy(http.address(), bytes.address());
    let mut client = gateway.client();
    // Impatient: the first bytes come with the head.
    client.send("CONNECT orders:5432 HTTP/1.1\r\nHost: orders:5432\r\n\r\n\0abc");
    let head = client.read_head();
    assert_eq!(head.status, 200);
    for field in [
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
    ] {
        assert_eq!(head.header(field), None, "{field}");
    }
    assert_eq!(client.read_exact(9), b"hello\0abc");
    client.finish();
    assert_eq!(client.drain(), (Vec::new(), Ended::Closed));
    let line = &lines(&gateway, 1)[0];
    assert_eq!(line["method"], "CONNECT", "{line}");
    assert_eq!(line["host"], "orders:5432", "{line}");
    assert_eq!(
        (&line["route"], &line["status"]),
        (&"tunnels".into(), &200.into()),
        "{line}"
    );
    assert_eq!(line["endpoint"], bytes.address().to_string(), "{line}");
    assert_eq!(http.connections(), 0);
}

/// A tunnel goes around all that filters look at.
#[test]
fn mesh_101_a_route_that_does_not_name_connect_gives_no_tunnel() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    client.send(
        "CONNECT orders:80 HTTP/1.1\r\nHost: orders:80\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let response = client.read_response();
    assert_eq!(
        (response.status, &*response.code()),
        (501, "method_refused")
    );
    // What was meant for a tunnel is not taken for a request.
    client.assert_closed();
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn mesh_101_a_tunnel_to_nowhere_is_refused_in_http() {
    let (http, nobody) = (Upstream::echo(), Upstream::nobody());
    let gateway = proxy(http.address(), nobody);
    let mut client = gateway.client();
    client.send("CONNECT orders:5432 HTTP/1.1\r\nHost: orders:5432\r\n\r\n");
    let response = client.read_response();
    assert_eq!(
        (response.status, &*response.code()),
        (503, "connect_failed")
    );
    let mut client = gateway.client();
    client.send("CONNECT users:5432 HTTP/1.1\r\nHost: users:5432\r\n\r\n");
    assert_eq!(client.read_response().code(), "no_route");
}

#[test]
fn mesh_101_a_malformed_connect_is_refused() {
    let (http, bytes) = (Upstream::echo(), named("hello"));
    let gateway = proxy(http.address(), bytes.address());
    for (target, lines, code) in [
        ("orders", "", "bad_request_line"),
        ("orders:", "", "bad_request_line"),
        ("orders:0", "", "bad_request_line"),
        ("orders:99999", "", "bad_request_line"),
        (":80", "", "bad_request_line"),
        ("/", "", "bad_request_line"),
        ("http://orders:80/", "", "bad_request_line"),
        ("a@orders:80", "", "bad_host"),
        ("orders:80", "Content-Length: 3\r\n", "bad_framing"),
        ("orders:80", "Transfer-Encoding: chunked\r\n", "bad_framing"),
    ] {
        let mut client = gateway.client();
        client.send(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: orders:80\r\n{lines}\r\n"
        ));
        assert_eq!(client.read_response().code(), code, "{target} {lines}");
        client.assert_closed();
    }
    assert_eq!(bytes.connections(), 0);
}

/// What `http_proxy=…` makes of a client.
#[test]
fn mesh_101_an_absolute_target_goes_by_its_authority_whatever_host_says() {
    let (http, bytes) = (Upstream::echo(), named("hello"));
    let gateway = proxy(http.address(), bytes.address());
    for (target, host) in [
        ("http://orders/x?y=1", "orders"),
        ("http://orders:8080/x?y=1", "somebody.else"),
        ("HTTP://orders/x?y=1", "orders"),
    ] {
        let mut client = gateway.client();
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nProxy-Connection: keep-alive\r\n\r\n"
        ));
        let seen = client.read_response().text();
        assert!(seen.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{seen}");
        let authority = &target[7..target.rfind('/').expect("a path")];
        assert!(
            seen.to_ascii_lowercase()
                .contains(&format!("host: {authority}\r\n")),
            "{seen}"
        );
        assert!(
            !seen.to_ascii_lowercase().contains("proxy-connection"),
            "{seen}"
        );
    }
    let mut client = gateway.client();
    client.send("GET http://users/x HTTP/1.1\r\nHost: orders\r\n\r\n");
    assert_eq!(client.read_response().code(), "no_route");
    let mut client = gateway.client();
    client.send("GET ftp://orders/x HTTP/1.1\r\nHost: orders\r\n\r\n");
    assert_eq!(client.read_response().code(), "bad_request_line");
}
