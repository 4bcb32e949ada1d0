//! Who comes in, who is met, and why not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::version::{TLS12, TLS13};
use rustls::{ServerConnection, StreamOwned};
use tollgate_engine::testing::certificates::Pair;
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::members::{Members, Wish, client, server};
use tollgate_engine::testing::upstream::Upstream;

use super::{callee, caller, caller_document, failures, talk, until};

const ASK: &str = "GET /hello HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n";

#[test]
fn members_call_each_other_and_the_application_learns_who_called_mesh_302() {
    for protocol in ["http1", "http2"] {
        let members = Members::new();
        let app = Upstream::echo();
        let orders = callee(&members, "orders", "strict", app.address());
        let web = caller(&members, "web", "orders", orders.address(), protocol);
        let response = web.get("/hello");
        assert_eq!(response.status, 200, "{protocol}: {response:?}");
        let request = app.request();
        assert_eq!(
            request.all("x-forwarded-client-cert"),
            [format!("URI={}", members.id("web"))]
        );
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    }
}

#[test]
fn nobody_can_say_that_it_is_somebody_else_mesh_302() {
    let members = Members::new();
    let app = Upstream::echo();
    let orders = callee(&members, "orders", "permissive", app.address());
    let forged = "GET / HTTP/1.1\r\nhost: orders\r\nX-Forwarded-Client-Cert: URI=spiffe://mesh.test/ns/default/svc/admin\r\n\
                  x-forwarded-client-cert: a\r\nx_forwarded_client_cert: b\r\nX-Forwarded_Client-Cert: c\r\n\
                  connection: close, x-forwarded-client-cert\r\n\r\n";
    let mut clear = Client::connect(orders.address());
    clear.send(forged);
    assert_eq!(clear.read_response().status, 200);
    let request = app.requests().pop().expect("it came");
    let told = |request: &tollgate_engine::testing::journal::Request| {
        let head = request.head.to_ascii_lowercase();
        head.replace('_', "-")
            .matches("x-forwarded-client-cert")
            .count()
    };
    assert_eq!(told(&request), 0, "in clear text nobody is anybody");

    let web = client(Some(&members.issue("web")), &[&TLS13], &[b"http/1.1"]);
    let answer = talk(orders.address(), web, forged).expect("a member comes in");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let request = app.requests().pop().expect("it came");
    assert_eq!(told(&request), 1);
    assert_eq!(
        request.header("x-forwarded-client-cert"),
        Some(&*format!("URI={}", members.id("web")))
    );
}

#[test]
fn what_is_said_of_a_caller_behind_a_body_does_not_pass_mesh_302() {
    let members = Members::new();
    let app = Upstream::echo();
    let orders = callee(&members, "orders", "strict", app.address());
    let web = client(Some(&members.issue("web")), &[&TLS13], &[b"http/1.1"]);
    let request = "POST / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
                   2\r\nhi\r\n0\r\nx-forwarded-client-cert: URI=forged\r\nx_forwarded_client_cert: URI=forged\r\nx-sum: 1\r\n\r\n";
    let answer = talk(orders.address(), web, request).expect("a member comes in");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let trailers = app.request().trailers;
    let trailers = format!("{trailers:?}");
    assert!(!trailers.contains("forged"), "{trailers}");
    assert!(trailers.contains("x-sum"), "{trailers}");
}

#[test]
fn a_strict_listener_refuses_clear_text_and_strangers_mesh_305() {
    let members = Members::new();
    let app = Upstream::echo();
    let orders = callee(&members, "orders", "strict", app.address());
    let mut clear = Client::connect(orders.address());
    clear.send(ASK);
    // The library says in its own way that this was no TLS, then the connection ends.
    let (rest, _) = clear.drain();
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    until("a count", || failures(&orders, "server", "clear_text") == 1);
    let refused = talk(orders.address(), client(None, &[&TLS13], &[]), ASK);
    refused.expect_err("who shows no certificate");
    until("a count", || {
        failures(&orders, "server", "no_certificate") == 1
    });
    assert_eq!(app.requests().len(), 0);
}

#[test]
fn a_permissive_listener_takes_both_on_one_port_mesh_305() {
    let members = Members::new();
    let app = Upstream::echo();
    let orders = callee(&members, "orders", "permissive", app.address());
    assert_eq!(orders.get("/clear").status, 200);
    assert_eq!(app.request().header("x-forwarded-proto"), Some("http"));
    let web = client(Some(&members.issue("web")), &[&TLS13], &[b"http/1.1"]);
    let answer = talk(orders.address(), web, ASK).expect("a member comes in");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let secured = app.requests().pop().expect("it came");
    assert_eq!(secured.header("x-forwarded-proto"), Some("https"));
    let stranger = client(Some(&members.self_made("web")), &[&TLS13], &[]);
    talk(orders.address(), stranger, ASK).expect_err("who begins TLS must be a member");
}

#[test]
fn a_downgrade_is_refused_mesh_303() {
    let members = Members::new();
    let app = Upstream::echo();
    let orders = callee(&members, "orders", "strict", app.address());
    let old = client(Some(&members.issue("web")), &[&TLS12], &[b"http/1.1"]);
    talk(orders.address(), old, ASK).expect_err("TLS 1.2");
    until("a count", || failures(&orders, "server", "not_tls13") == 1);
    assert_eq!(app.requests().len(), 0);
}

/// Certificates that no member may show, and the reason that each is counted under.
fn bad(members: &Members) -> Vec<(&'static str, Pair)> {
    let wish = || members.wish("web");
    let names = |uris: &[&str]| {
        let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
        members.sign(&Wish { uris, ..wish() })
    };
    let stranger = Members::new();
    vec![
        ("expired", members.expired("web")),
        ("not_yet_valid", members.not_yet_valid("web")),
        ("unknown_authority", members.self_made("web")),
        ("unknown_authority", stranger.issue("web")),
        (
            "wrong_domain",
            names(&["spiffe://other.test/ns/default/svc/web"]),
        ),
        ("unfit", names(&[])),
        ("unfit", names(&["https://mesh.test/web"])),
        ("unfit", names(&["spiffe://mesh.test/ns/default/sa/web"])),
        (
            "unfit",
            names(&[
                "spiffe://mesh.test/ns/default/svc/web",
                "spiffe://mesh.test/ns/default/svc/admin",
            ]),
        ),
        (
            "unfit",
            members.sign(&Wish {
                is_authority: true,
                ..wish()
            }),
        ),
        (
            "unfit",
            members.sign(&Wish {
                for_clients: false,
                ..wish()
            }),
        ),
        (
            "unfit",
            members.sign(&Wish {
                for_servers: false,
                ..wish()
            }),
        ),
    ]
}

#[test]
fn every_bad_certificate_of_a_caller_is_refused_and_its_reason_named_hi_56() {
    let members = Members::new();
    let app = Upstream::echo();
    let orders = callee(&members, "orders", "strict", app.address());
    for (reason, pair) in bad(&members) {
        let before = failures(&orders, "server", reason);
        let web = client(Some(&pair), &[&TLS13], &[b"http/1.1"]);
        talk(orders.address(), web, ASK).expect_err(reason);
        until(reason, || failures(&orders, "server", reason) == before + 1);
    }
    assert_eq!(app.requests().len(), 0);
}

#[test]
fn a_certificate_that_begins_a_moment_later_by_our_clock_is_taken_mesh_304() {
    let members = Members::new();
    let app = Upstream::echo();
    let orders = callee(&members, "orders", "strict", app.address());
    let ahead = Wish {
        from: SystemTime::now() + Duration::from_secs(50),
        ..members.wish("web")
    };
    let web = client(Some(&members.sign(&ahead)), &[&TLS13], &[b"http/1.1"]);
    let answer = talk(orders.address(), web, ASK).expect("clocks differ");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A server of a test's own that shows this and answers every request with 200.
fn server_with(pair: &Pair, versions: &[&'static rustls::SupportedProtocolVersion]) -> SocketAddr {
    let config = Arc::new(server(pair, versions, &[b"http/1.1"]));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        // Ends with the process: nobody connects any more.
        for socket in listener.incoming().flatten() {
            let _broken = answer(socket, config.clone());
        }
    });
    address
}

fn answer(socket: TcpStream, config: Arc<rustls::ServerConfig>) -> std::io::Result<()> {
    socket.set_read_timeout(Some(super::PATIENCE))?;
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    stream.flush()
}

#[test]
fn every_bad_certificate_of_a_callee_is_refused_and_its_reason_named_hi_56() {
    let members = Members::new();
    let mut cases = bad(&members);
    cases.push(("wrong_name", members.issue("payments")));
    let elsewhere = Wish {
        uris: vec!["spiffe://mesh.test/ns/other/svc/web".to_owned()],
        ..members.wish("web")
    };
    cases.push(("wrong_name", members.sign(&elsewhere)));
    for (reason, pair) in cases {
        let at = server_with(&pair, &[&TLS13]);
        let client = caller(&members, "client", "web", at, "http1");
        let response = client.get("/");
        assert_eq!(
            (response.status, &*response.code()),
            (503, "connect_failed"),
            "{reason}"
        );
        assert_eq!(failures(&client, "client", reason), 1, "{reason}");
    }
    let honest = server_with(&members.issue("web"), &[&TLS13]);
    let client = caller(&members, "client", "web", honest, "http1");
    assert_eq!(client.get("/").status, 200);
    let old = server_with(&members.issue("web"), &[&TLS12]);
    let client = caller(&members, "client", "web", old, "http1");
    assert_eq!(client.get("/").code(), "connect_failed");
    assert_eq!(failures(&client, "client", "not_tls13"), 1);
}

#[test]
fn whom_the_callee_refuses_has_not_connected_mesh_306() {
    for protocol in ["http1", "http2"] {
        let members = Members::new();
        let app = Upstream::echo();
        let orders = callee(&members, "orders", "strict", app.address());
        let files = members.write("web", &members.expired("web"));
        let web = Gateway::start(&caller_document(
            &files.section("web"),
            "orders",
            orders.address(),
            protocol,
        ));
        let response = web.get("/");
        assert_eq!(
            (response.status, &*response.code()),
            (503, "connect_failed"),
            "{protocol}"
        );
        assert_eq!(failures(&orders, "server", "expired"), 1);
        assert_eq!(app.requests().len(), 0);
    }
}
