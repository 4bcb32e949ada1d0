//! Bytes under TLS: a listener that ends it, an upstream that begins it, and what ALPN says of what will follow.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::certificates::{Authority, client_config};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::{echo, named};

struct Site {
    authority: Authority,
    folder: tempfile::TempDir,
}

type Secured = StreamOwned<ClientConnection, TcpStream>;

impl Site {
    fn new() -> Site {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
        let edge = authority.issue(&["localhost"]);
        edge.write(folder.path(), "edge").expect("our own folder");
        authority
            .write(folder.path(), "ca")
            .expect("our own folder");
        Site { authority, folder }
    }

    /// A listener with TLS that relays to an upstream without.
    fn ending(&self, protocol: &str, upstream: SocketAddr) -> Gateway {
        let folder = self.folder.path().display();
        let silence = match protocol {
            "detect" => "detect_timeout = \"10m\"",
            _ => "",
        };
        Gateway::start(&format!(
            "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\nforward = \"app\"\n{silence}\n\
             tls = {{ cert = \"{folder}/edge.pem\", key = \"{folder}/edge.key\" }}\n\n\
             [[route]]\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"http\" }}\n\n\
             [[upstream]]\nname = \"app\"\nendpoints = [\"{upstream}\"]\n"
        ))
    }

    fn connect(&self, address: SocketAddr, alpn: &[&[u8]]) -> Secured {
        let mut config: ClientConfig = client_config(&self.authority);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let socket = TcpStream::connect(address).expect("the gateway accepts");
        socket
            .set_read_timeout(Some(6 * PATIENCE))
            .expect("not zero");
        let name = "localhost".try_into().expect("a name");
        let session = ClientConnection::new(Arc::new(config), name).expect("it is valid");
        StreamOwned::new(session, socket)
    }
}

fn exactly(stream: &mut impl Read, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).expect("they come");
    bytes
}

#[test]
fn mesh_102_a_listener_ends_tls_and_relays_what_was_in_it() {
    let (site, upstream) = (Site::new(), named("hello"));
    let gateway = site.ending("tcp", upstream.address());
    // Names of protocols are between the client and the upstream.
    let mut client = site.connect(gateway.address(), &[b"postgresql"]);
    assert_eq!(exactly(&mut client, 5), b"hello");
    let much = vec![42; 300_000];
    let mut heard = Vec::new();
    for part in much.chunks(50_000) {
        client.write_all(part).expect("it is read");
        heard.extend(exactly(&mut client, part.len()));
    }
    assert!(heard == much);
    client.conn.send_close_notify();
    client.flush().expect("it is open");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("a proper end");
    assert!(rest.is_empty());
}

/// Whoever cuts a connection under TLS could pass a part for the whole.
#[test]
fn mesh_102_an_end_that_tls_did_not_announce_is_passed_on_as_a_break() {
    let site = Site::new();
    let (told, ends) = std::sync::mpsc::channel();
    let upstream = Upstream::http1(move |conn| {
        conn.send("x");
        let ended = conn.stream().read_to_end(&mut Vec::new());
        told.send(ended.is_err()).expect("awaited below");
    });
    let gateway = site.ending("tcp", upstream.address());
    let mut client = site.connect(gateway.address(), &[]);
    exactly(&mut client, 1);
    client
        .sock
        .shutdown(std::net::Shutdown::Write)
        .expect("it is open");
    assert!(ends.recv().expect("it ended"));
}

#[test]
fn mesh_102_bytes_reach_an_upstream_under_tls_which_is_told_no_protocol() {
    let site = Site::new();
    let server = site.authority.issue(&["localhost"]);
    let chain = CertificateDer::from_pem_slice(server.cert_pem.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(tollgate_engine::net::tls::provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(vec![chain], key)
        })
        .expect("it is valid");
    let config = Arc::new(config);
    let (told, alpn) = std::sync::mpsc::channel();
    let upstream = Upstream::http1(move |conn| {
        let session = ServerConnection::new(config.clone()).expect("it is valid");
        let socket = conn.stream().try_clone().expect("a socket can be cloned");
        let mut stream = StreamOwned::new(session, socket);
        let mut word = [0; 4];
        stream.read_exact(&mut word).expect("they come");
        told.send(stream.conn.alpn_protocol().map(<[u8]>::to_vec))
            .expect("awaited below");
        stream.write_all(&word).expect("it is read");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("a proper end");
        stream.conn.send_close_notify();
        stream.flush().expect("it is open");
    });
    let gateway = Gateway::start(&super::document(
        &[upstream.address()],
        "",
        &format!(
            "tls = {{ ca = \"{}/ca.pem\", name = \"localhost\" }}\nprotocol = \"auto\"",
            site.folder.path().display()
        ),
    ));
    let mut client = gateway.client();
    client.send("abcd");
    assert_eq!(client.read_exact(4), b"abcd");
    assert_eq!(alpn.recv().expect("it was told"), None);
    client.finish();
    client.assert_closed();
    upstream.wait("its end", |journal| journal.ended == 1);
    upstream.assert_clean();
}

#[test]
fn mesh_102_alpn_says_what_follows_and_without_it_the_first_bytes_do() {
    let (site, upstream) = (Site::new(), named("hello"));
    let gateway = site.ending("detect", upstream.address());
    let address = gateway.address();
    // A server may speak first: nothing is waited for.
    let mut bytes = site.connect(address, &[b"tollgate-bytes"]);
    assert_eq!(exactly(&mut bytes, 5), b"hello");
    assert_eq!(bytes.conn.alpn_protocol(), Some(&b"tollgate-bytes"[..]));
    // What was agreed on holds, whatever comes.
    bytes
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("it is read");
    assert_eq!(
        exactly(&mut bytes, 27),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    for alpn in [&[&b"http/1.1"[..]][..], &[]] {
        let mut http = site.connect(address, alpn);
        http.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("it is read");
        let mut answer = String::new();
        http.read_to_string(&mut answer).expect("a proper end");
        assert!(answer.ends_with("http"), "{answer}");
    }
    let mut unnamed = site.connect(address, &[]);
    unnamed.write_all(b"\0what").expect("it is read");
    assert_eq!(exactly(&mut unnamed, 10), b"hello\0what");
    let mut http2 = site.connect(address, &[b"h2", b"http/1.1"]);
    http2
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .expect("it is read");
    assert_eq!(exactly(&mut http2, 9)[3], 4, "SETTINGS");
}

/// Nobody ends it here: the client's own TLS reaches the upstream.
#[test]
fn mesh_102_tls_passes_a_clear_listener_untouched() {
    let upstream = Upstream::http1(echo);
    let gateway = super::relaying_to(&upstream);
    let mut client = gateway.client();
    let hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00";
    client.send(hello);
    assert_eq!(client.read_exact(hello.len()), hello);
}
