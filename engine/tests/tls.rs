//! What reaches a listener with TLS before there is a request: no handshake at all, half of one, one of the wrong kind,
//! and clients that show, or do not show, a certificate (HI-55, HI-56). All through real sockets.
//!
//! Hellos that no honest library would send are put together here by hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::certificates::{Authority, Pair, client_config, client_config_with};
use tollgate_engine::testing::client::{Client, Ended};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::until;

/// An authority, its folder, and documents whose listeners it signed.
struct Site {
    authority: Authority,
    folder: tempfile::TempDir,
    upstream: Upstream,
}

impl Site {
    fn new() -> Site {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
        let edge = authority.issue(&["localhost"]);
        edge.write(folder.path(), "edge").expect("our own folder");
        authority
            .write(folder.path(), "clients")
            .expect("our own folder");
        let upstream = Upstream::echo();
        Site {
            authority,
            folder,
            upstream,
        }
    }

    /// One listener for each name, with further keys of it and of its `tls`.
    fn document(&self, listeners: &[(&str, &str, &str)]) -> String {
        let folder = self.folder.path().display();
        let mut toml = String::new();
        for (name, keys, tls) in listeners {
            let keys = match keys.is_empty() {
                true => "header_timeout = \"60s\"",
                false => keys,
            };
            toml.push_str(&format!(
                "[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\n{keys}\n\
                 tls = {{ cert = \"{folder}/edge.pem\", key = \"{folder}/edge.key\"{tls} }}\n\n"
            ));
        }
        toml.push_str(&format!(
            "[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\ntimeout = \"60s\"\n\n\
             [[upstream]]\nname = \"app\"\nendpoints = [\"{}\"]\n",
            self.upstream.address()
        ));
        toml
    }

    /// The same for a listener that looks at certificates.
    fn asking(&self, auth: &str) -> String {
        format!(
            ", client_ca = \"{}/clients.pem\", client_auth = \"{auth}\"",
            self.folder.path().display()
        )
    }

    fn client(&self) -> Arc<ClientConfig> {
        Arc::new(client_config(&self.authority))
    }

    fn client_with(&self, pair: &Pair) -> Arc<ClientConfig> {
        Arc::new(client_config_with(&self.authority, pair))
    }
}

/// One request on a connection of its own: how the handshake went, or why nothing came.
fn talk(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<HandshakeKind, String> {
    let socket = TcpStream::connect(address).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let name = "localhost".try_into().expect("a name");
    let session = ClientConnection::new(config.clone(), name).expect("a session");
    let mut stream = StreamOwned::new(session, socket);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(format!("{read:?} {:?}", String::from_utf8_lossy(&answer)));
    }
    Ok(stream.conn.handshake_kind().expect("it is complete"))
}

/// A record of a handshake with one message of this type.
fn record(kind: u8, message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x16, 3, 1];
    bytes.extend((message.len() as u16 + 4).to_be_bytes());
    bytes.push(kind);
    bytes.extend(&(message.len() as u32).to_be_bytes()[1..]);
    bytes.extend(message);
    bytes
}

/// A hello of this version at most, with these suites and no extension.
fn hello(version: u16, suites: &[u16]) -> Vec<u8> {
    let mut message = version.to_be_bytes().to_vec();
    message.extend([7; 32]);
    message.push(0);
    message.extend((2 * suites.len() as u16).to_be_bytes());
    message.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    message.extend([1, 0]);
    record(1, &message)
}

/// The hello of an honest client, and nothing after it.
fn honest_hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = "localhost".try_into().expect("a name");
    let mut session = ClientConnection::new(config.clone(), name).expect("a session");
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).expect("into memory");
    bytes
}

/// A fatal alert, or nothing; then the end.
fn assert_refused(name: &str, client: &mut Client) {
    let (said, ended) = client.drain();
    assert_ne!(ended, Ended::Silent, "{name}: still open after {said:?}");
    assert!(
        said.is_empty() || (said.len() == 7 && said[0] == 0x15 && said[5] == 2),
        "{name}: neither a fatal alert nor silence: {said:?}"
    );
}

#[test]
fn hi_55_what_is_no_good_hello_is_refused_at_once() {
    let site = Site::new();
    // A time-out that would fail the test if anything waited for it.
    let toml = site.document(&[("in", "header_timeout = \"10m\"", "")]);
    let gateway = Gateway::start(&toml);
    let noise: Vec<u8> = (0..4096_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80)
        .collect();
    const MODERN: &[u16] = &[0xc02b, 0xc02f, 0x1301];
    let cases: [(&str, Vec<u8>); 12] = [
        ("SSL 3", hello(0x0300, MODERN)),
        ("TLS 1.0", hello(0x0301, MODERN)),
        ("TLS 1.1", hello(0x0302, MODERN)),
        ("no shared cipher", hello(0x0303, &[0x0005, 0x002f, 0x000a])),
        ("no cipher", hello(0x0303, &[])),
        (
            "clear text",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("noise", noise),
        (
            "a record larger than records are",
            vec![0x16, 3, 1, 0xff, 0xff],
        ),
        (
            "a hello of 16 MB",
            [
                &[0x16, 3, 1, 0x40, 0][..],
                &[1, 0xff, 0xff, 0xff],
                &[0; 16_380],
            ]
            .concat(),
        ),
        (
            "data before the handshake",
            [&[0x17, 3, 3, 0, 16][..], &[0; 16]].concat(),
        ),
    ];
    for (name, bytes) in cases {
        let mut client = gateway.client();
        client.send(bytes);
        assert_refused(name, &mut client);
    }
    assert_eq!(
        talk(gateway.address(), &site.client()),
        Ok(HandshakeKind::Full)
    );
    assert_eq!(site.upstream.requests().len(), 1, "only the honest one");
}

#[test]
fn hi_55_a_handshake_that_stops_ends_at_the_header_time_out_and_harms_nobody() {
    let site = Site::new();
    let gateway = Gateway::start(&site.document(&[("in", "header_timeout = \"500ms\"", "")]));
    let whole = honest_hello(&site.client());
    let begun = Instant::now();
    let mut halves: Vec<(usize, Client)> = [0, 1, 5, 60, whole.len() - 1, whole.len()]
        .into_iter()
        .map(|length| {
            let mut client = gateway.client();
            client.send(&whole[..length]);
            (length, client)
        })
        .collect();
    // Its own time-out holds for whoever is honest, too, and a machine that stands still may reach it.
    until("an honest client to be served", || {
        talk(gateway.address(), &site.client()) == Ok(HandshakeKind::Full)
    });
    for (length, client) in &mut halves {
        let (_, ended) = client.drain();
        assert_ne!(ended, Ended::Silent, "{length} bytes of a hello");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(400), "only {took:?}");
}

/// HI-55: the policy about client certificates belongs to the listener, so a ticket of one opens no other.
#[test]
fn hi_55_a_session_of_an_open_listener_does_not_open_one_that_asks_for_certificates() {
    let site = Site::new();
    let toml = site.document(&[("in", "", ""), ("closed", "", &site.asking("required"))]);
    let gateway = Gateway::start(&toml);
    let client = site.client();
    let (open, closed) = (gateway.listener("in"), gateway.listener("closed"));
    assert_eq!(talk(open, &client), Ok(HandshakeKind::Full));
    assert_eq!(talk(open, &client), Ok(HandshakeKind::Resumed));
    talk(closed, &client).expect_err("a stranger with a ticket");
    assert_eq!(site.upstream.requests().len(), 2);
}

#[test]
fn hi_55_a_session_from_before_a_stricter_policy_is_worth_nothing() {
    let site = Site::new();
    let open = site.document(&[("in", "", "")]);
    let gateway = Gateway::start(&open);
    let client = site.client();
    assert_eq!(talk(gateway.address(), &client), Ok(HandshakeKind::Full));
    let strict = site.document(&[("in", "", &site.asking("required"))]);
    gateway.edit(&strict).expect("a good document");
    talk(gateway.address(), &client).expect_err("a stranger with a ticket");
    let known = site.client_with(&site.authority.issue(&["client.test"]));
    assert_eq!(talk(gateway.address(), &known), Ok(HandshakeKind::Full));
    assert_eq!(site.upstream.requests().len(), 2);
}

/// A hundred certificates, of which the first is good.
fn long_chain(authority: &Authority) -> Pair {
    let mut pair = authority.issue(&["client.test"]);
    for n in 0..99 {
        let link = authority.issue(&[&format!("link-{n}.test")]);
        pair.cert_pem.push_str(&link.cert_pem);
    }
    pair
}

#[test]
fn hi_56_a_certificate_that_is_required_must_be_there_and_good() {
    let site = Site::new();
    let toml = site.document(&[("in", "", &site.asking("required"))]);
    let gateway = Gateway::start(&toml);
    let address = gateway.address();
    let good = site.authority.issue(&["client.test"]);
    talk(address, &site.client_with(&good)).expect("a good certificate");
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let between = |from, until| site.authority.issue_between(&["client.test"], from, until);
    let bad = [
        ("none", site.client()),
        (
            "a stranger's",
            site.client_with(&Authority::new().issue(&["client.test"])),
        ),
        (
            "expired",
            site.client_with(&between(now - 2 * hour, now - hour)),
        ),
        (
            "not yet valid",
            site.client_with(&between(now + hour, now + 2 * hour)),
        ),
        (
            "a chain of a hundred from elsewhere",
            site.client_with(&long_chain(&Authority::new())),
        ),
    ];
    for (name, client) in bad {
        let served = talk(address, &client);
        assert!(served.is_err(), "{name}: {served:?}");
    }
    assert_eq!(site.upstream.requests().len(), 1, "only the good one");
}

#[test]
fn hi_56_a_certificate_that_is_optional_may_be_absent_but_not_bad() {
    let site = Site::new();
    let toml = site.document(&[("in", "", &site.asking("optional"))]);
    let gateway = Gateway::start(&toml);
    let address = gateway.address();
    talk(address, &site.client()).expect("none is shown");
    let good = site.authority.issue(&["client.test"]);
    talk(address, &site.client_with(&good)).expect("a good certificate");
    let stranger = Authority::new().issue(&["client.test"]);
    talk(address, &site.client_with(&stranger)).expect_err("a stranger's certificate");
    assert_eq!(site.upstream.requests().len(), 2);
}

#[test]
fn a_reload_that_finds_the_same_certificates_is_no_new_generation() {
    let site = Site::new();
    let toml = site.document(&[("in", "", &site.asking("required"))]);
    let gateway = Gateway::start(&toml);
    let before = gateway.get_status()["generation"].clone();
    let after = gateway.reload().expect("the same document");
    assert_eq!(before, after);
}

/// HI-56: whoever was signed by an authority that is no longer there is a stranger, with or without a session.
#[test]
fn hi_56_an_authority_that_was_replaced_opens_nothing_any_more() {
    let site = Site::new();
    let toml = site.document(&[("in", "", &site.asking("required"))]);
    let gateway = Gateway::start(&toml);
    let old = site.client_with(&site.authority.issue(&["client.test"]));
    assert_eq!(talk(gateway.address(), &old), Ok(HandshakeKind::Full));
    assert_eq!(talk(gateway.address(), &old), Ok(HandshakeKind::Resumed));
    let next = Authority::new();
    replace(site.folder.path(), &next);
    gateway.reload().expect("the same document");
    talk(gateway.address(), &old).expect_err("signed by the authority of yesterday");
    let new = site.client_with(&next.issue(&["client.test"]));
    assert_eq!(talk(gateway.address(), &new), Ok(HandshakeKind::Full));
}

fn replace(folder: &Path, authority: &Authority) {
    authority.write(folder, "clients").expect("our own folder");
}
