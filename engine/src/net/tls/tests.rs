//! Handshakes in memory: what a client gets, and what it does not.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::{
    ClientConfig, ClientConnection, Error, HandshakeKind, ServerConfig, ServerConnection,
};
use rustls_pki_types::{ServerName, UnixTime};
use tempfile::TempDir;
use tollgate_config::document::{
    At, Certificate, ClientAuth, ListenerProtocol, ListenerTls, UpstreamProtocol, UpstreamTls,
};

use super::{ClientTls, ServerTls, TlsError};
use crate::testing::certificates::{Authority, PairFiles, client_config, client_config_with};

const AUTO: ListenerProtocol = ListenerProtocol::Auto;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn certificate(names: &[&str], files: &PairFiles) -> Certificate {
    Certificate {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        cert: files.cert.clone(),
        key: files.key.clone(),
    }
}

fn listener(certificates: Vec<Certificate>) -> ListenerTls {
    ListenerTls {
        certificates,
        client_ca: None,
        client_auth: ClientAuth::None,
        at: At(None),
    }
}

/// A listener with one certificate for `localhost`.
fn simple(authority: &Authority, folder: &Path) -> ListenerTls {
    let files = authority
        .issue(&["localhost"])
        .write(folder, "edge")
        .unwrap();
    listener(vec![certificate(&[], &files)])
}

fn mutual(authority: &Authority, folder: &Path, auth: ClientAuth) -> ListenerTls {
    let mut tls = simple(authority, folder);
    tls.client_ca = Some(authority.write(folder, "clients").unwrap());
    tls.client_auth = auth;
    tls
}

fn upstream(ca: Option<&Path>) -> UpstreamTls {
    UpstreamTls {
        ca: ca.map(Path::to_owned),
        name: None,
        cert: None,
        key: None,
        at: At(None),
    }
}

/// Moves bytes until both sides are content, or one is not.
fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<(ServerConnection, ClientConnection), Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    loop {
        let mut moved = 0;
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        moved += wire.len();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        moved += wire.len();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if moved == 0 {
            return Ok((server, client));
        }
    }
}

fn served(server: &ServerTls, client: &Arc<ClientConfig>, name: &str) -> Result<Vec<u8>, Error> {
    let (_, client) = handshake(server.config(), client, name)?;
    Ok(client.peer_certificates().unwrap()[0].to_vec())
}

#[test]
fn a_client_that_trusts_the_authority_is_served_and_http2_is_preferred() {
    let (authority, folder) = (Authority::new(), folder());
    let server = ServerTls::load(&simple(&authority, folder.path()), AUTO).unwrap();
    let ca = authority.write(folder.path(), "ca").unwrap();
    let client = ClientTls::load(&upstream(Some(&ca)), UpstreamProtocol::Auto).unwrap();
    let (_, client) = handshake(server.config(), client.config(), "localhost").unwrap();
    assert_eq!(client.alpn_protocol(), Some(b"h2".as_slice()));
}

#[test]
fn a_listener_for_one_protocol_chooses_that_one() {
    let (authority, folder) = (Authority::new(), folder());
    let tls = simple(&authority, folder.path());
    let server = ServerTls::load(&tls, ListenerProtocol::Http1).unwrap();
    let ca = authority.write(folder.path(), "ca").unwrap();
    let both = ClientTls::load(&upstream(Some(&ca)), UpstreamProtocol::Auto).unwrap();
    let (_, client) = handshake(server.config(), both.config(), "localhost").unwrap();
    assert_eq!(client.alpn_protocol(), Some(b"http/1.1".as_slice()));

    let only = ClientTls::load(&upstream(Some(&ca)), UpstreamProtocol::Http2).unwrap();
    let error = handshake(server.config(), only.config(), "localhost").err();
    assert_eq!(error, Some(Error::NoApplicationProtocol));
}

#[test]
fn an_endpoint_with_another_authority_or_another_name_is_not_trusted() {
    let (authority, folder) = (Authority::new(), folder());
    let server = ServerTls::load(&simple(&authority, folder.path()), AUTO).unwrap();
    let other = Authority::new().write(folder.path(), "other").unwrap();
    let stranger = ClientTls::load(&upstream(Some(&other)), UpstreamProtocol::Auto).unwrap();
    assert!(handshake(server.config(), stranger.config(), "localhost").is_err());
    let client = Arc::new(client_config(&authority));
    assert!(handshake(server.config(), &client, "elsewhere.example.com").is_err());
}

#[test]
fn the_name_of_an_upstream_replaces_the_host_of_its_endpoints() {
    let (authority, folder) = (Authority::new(), folder());
    let mut tls = upstream(Some(&authority.write(folder.path(), "ca").unwrap()));
    let client = ClientTls::load(&tls, UpstreamProtocol::Http1).unwrap();
    let name = |client: &ClientTls, host: &str| client.server_name(host).unwrap();
    assert_eq!(name(&client, "a.example.com.").to_str(), "a.example.com");
    assert_eq!(name(&client, "[::1]").to_str(), "::1");
    assert!(matches!(
        client.server_name("no host"),
        Err(TlsError::BadName { .. })
    ));
    tls.name = Some("orders.internal".to_owned());
    let client = ClientTls::load(&tls, UpstreamProtocol::Http1).unwrap();
    assert_eq!(name(&client, "10.0.0.1").to_str(), "orders.internal");
}

#[test]
fn sni_chooses_exact_before_wildcard_before_unnamed() {
    let (authority, folder) = (Authority::new(), folder());
    let issue =
        |name: &str, names: &[&str]| authority.issue(names).write(folder.path(), name).unwrap();
    let any = issue("any", &["other.test", "a.b.example.com", "localhost"]);
    let wild = issue("wild", &["*.example.com"]);
    let exact = issue("exact", &["a.example.com"]);
    let server = ServerTls::load(
        &listener(vec![
            certificate(&[], &any),
            certificate(&["*.example.com"], &wild),
            certificate(&["a.example.com"], &exact),
        ]),
        AUTO,
    )
    .unwrap();
    let client = Arc::new(client_config(&authority));
    let by = |name: &str| served(&server, &client, name).unwrap();
    assert_ne!(by("a.example.com"), by("b.example.com"));
    assert_eq!(by("b.example.com"), by("c.example.com"));
    assert_eq!(by("other.test"), by("localhost"));
    assert_ne!(by("other.test"), by("b.example.com"));
}

#[test]
fn a_host_that_no_named_certificate_is_for_is_refused() {
    let (authority, folder) = (Authority::new(), folder());
    let files = authority
        .issue(&["a.example.com"])
        .write(folder.path(), "a")
        .unwrap();
    let tls = listener(vec![certificate(&["a.example.com"], &files)]);
    let server = ServerTls::load(&tls, AUTO).unwrap();
    let client = Arc::new(client_config(&authority));
    assert!(served(&server, &client, "a.example.com").is_ok());
    assert!(served(&server, &client, "b.example.com").is_err());
    // No SNI at all: the client is shown what there is.
    let error = served(&server, &client, "127.0.0.1").unwrap_err();
    assert!(matches!(error, Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn of_several_certificates_without_names_the_valid_one_is_served() {
    let (authority, folder) = (Authority::new(), folder());
    let one = authority
        .issue(&["one.test"])
        .write(folder.path(), "one")
        .unwrap();
    let two = authority
        .issue(&["two.test"])
        .write(folder.path(), "two")
        .unwrap();
    let tls = listener(vec![certificate(&[], &one), certificate(&[], &two)]);
    let server = ServerTls::load(&tls, AUTO).unwrap();
    let client = Arc::new(client_config(&authority));
    assert!(served(&server, &client, "one.test").is_ok());
    assert!(served(&server, &client, "two.test").is_ok());
}

/// HI-54.
#[test]
fn a_request_for_a_host_of_another_certificate_is_misdirected() {
    let (authority, folder) = (Authority::new(), folder());
    let a = authority
        .issue(&["a.test", "alias.test"])
        .write(folder.path(), "a")
        .unwrap();
    let b = authority
        .issue(&["b.test"])
        .write(folder.path(), "b")
        .unwrap();
    let server = ServerTls::load(
        &listener(vec![
            certificate(&["a.test"], &a),
            certificate(&["b.test", "*.b.test", "alias.test"], &b),
        ]),
        AUTO,
    )
    .unwrap();
    assert!(server.serves(Some("a.test"), "a.test"));
    assert!(server.serves(Some("A.test"), "a.test"));
    assert!(!server.serves(Some("a.test"), "b.test"));
    assert!(!server.serves(Some("a.test"), "unknown.test"));
    assert!(
        server.serves(Some("a.test"), "alias.test"),
        "the certificate of a covers it"
    );
    assert!(
        server.serves(Some("b.test"), "x.b.test"),
        "the same certificate would be served"
    );
    assert!(server.serves(None, "b.test"));
    // A listener with a single certificate for everything has nobody to be confused with.
    let single = ServerTls::load(&listener(vec![certificate(&[], &a)]), AUTO).unwrap();
    assert!(single.serves(Some("localhost"), "whatever.test"));
}

/// HI-56.
#[test]
fn a_listener_that_requires_a_client_certificate_refuses_clients_without_a_good_one() {
    let (authority, folder) = (Authority::new(), folder());
    let tls = mutual(&authority, folder.path(), ClientAuth::Required);
    let server = ServerTls::load(&tls, AUTO).unwrap();
    let good = authority.issue(&["client.test"]);
    let try_with = |client: ClientConfig| {
        handshake(server.config(), &Arc::new(client), "localhost").map(|(server, _)| server)
    };
    let connection = try_with(client_config_with(&authority, &good)).unwrap();
    let peer = server.peer(&connection, UnixTime::now()).unwrap().unwrap();
    assert_eq!(
        peer.certificate(),
        connection.peer_certificates().unwrap()[0].as_ref()
    );
    assert_ne!(peer.fingerprint(), &[0; 32]);

    assert!(try_with(client_config(&authority)).is_err());
    let stranger = Authority::new().issue(&["client.test"]);
    assert!(try_with(client_config_with(&authority, &stranger)).is_err());
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let expired = authority.issue_between(&["client.test"], now - 2 * hour, now - hour);
    assert!(try_with(client_config_with(&authority, &expired)).is_err());
    let early = authority.issue_between(&["client.test"], now + hour, now + 2 * hour);
    assert!(try_with(client_config_with(&authority, &early)).is_err());
}

#[test]
fn an_optional_client_certificate_may_be_absent_but_not_bad() {
    let (authority, folder) = (Authority::new(), folder());
    let tls = mutual(&authority, folder.path(), ClientAuth::Optional);
    let server = ServerTls::load(&tls, AUTO).unwrap();
    let client = Arc::new(client_config(&authority));
    let (connection, _) = handshake(server.config(), &client, "localhost").unwrap();
    assert_eq!(server.peer(&connection, UnixTime::now()).unwrap(), None);
    let stranger = Authority::new().issue(&["client.test"]);
    let client = Arc::new(client_config_with(&authority, &stranger));
    assert!(handshake(server.config(), &client, "localhost").is_err());
}

/// HI-55: a ticket is bound to the configuration that made it.
#[test]
fn a_session_is_resumed_on_its_own_listener_and_on_no_other() {
    let (authority, folder) = (Authority::new(), folder());
    let open = ServerTls::load(&simple(&authority, folder.path()), AUTO).unwrap();
    let closed_tls = mutual(&authority, folder.path(), ClientAuth::Optional);
    let closed = ServerTls::load(&closed_tls, AUTO).unwrap();
    let client = Arc::new(client_config(&authority));
    let kind = |server: &ServerTls| {
        let (server, _) = handshake(server.config(), &client, "localhost").unwrap();
        server.handshake_kind()
    };
    assert_eq!(kind(&open), Some(HandshakeKind::Full));
    assert_eq!(kind(&open), Some(HandshakeKind::Resumed));
    assert_eq!(kind(&closed), Some(HandshakeKind::Full));
}

/// HI-56: the certificate of a resumed session is looked at again.
#[test]
fn a_resumed_session_whose_certificate_has_ended_is_refused() {
    let (authority, folder) = (Authority::new(), folder());
    let tls = mutual(&authority, folder.path(), ClientAuth::Required);
    let server = ServerTls::load(&tls, AUTO).unwrap();
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let pair = authority.issue_between(&["client.test"], now - hour, now + hour);
    let client = Arc::new(client_config_with(&authority, &pair));
    handshake(server.config(), &client, "localhost").unwrap();
    let (resumed, _) = handshake(server.config(), &client, "localhost").unwrap();
    assert_eq!(resumed.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(server.peer(&resumed, UnixTime::now()).unwrap().is_some());
    let later = UnixTime::since_unix_epoch(
        (now + 2 * hour)
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap(),
    );
    assert!(server.peer(&resumed, later).is_err());
}

#[test]
fn a_reload_that_changes_nothing_keeps_the_configuration() {
    let (authority, folder) = (Authority::new(), folder());
    let tls = simple(&authority, folder.path());
    let first = ServerTls::load(&tls, AUTO).unwrap();
    let same = ServerTls::reload(&first, &tls, AUTO).unwrap();
    assert!(Arc::ptr_eq(first.config(), same.config()));
    let other = ServerTls::reload(&first, &tls, ListenerProtocol::Http1).unwrap();
    assert!(!Arc::ptr_eq(first.config(), other.config()));
    authority
        .issue(&["localhost"])
        .write(folder.path(), "edge")
        .unwrap();
    let renewed = ServerTls::reload(&first, &tls, AUTO).unwrap();
    assert!(!Arc::ptr_eq(first.config(), renewed.config()));

    let ca = authority.write(folder.path(), "ca").unwrap();
    let tls = upstream(Some(&ca));
    let first = ClientTls::load(&tls, UpstreamProtocol::Auto).unwrap();
    let same = ClientTls::reload(&first, &tls, UpstreamProtocol::Auto).unwrap();
    assert!(Arc::ptr_eq(first.config(), same.config()));
    Authority::new().write(folder.path(), "ca").unwrap();
    let other = ClientTls::reload(&first, &tls, UpstreamProtocol::Auto).unwrap();
    assert!(!Arc::ptr_eq(first.config(), other.config()));
}

#[test]
fn an_expired_certificate_is_served_and_its_end_is_known() {
    let (authority, folder) = (Authority::new(), folder());
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let pair = authority.issue_between(&["localhost"], now - 2 * hour, now - hour);
    let files = pair.write(folder.path(), "late").unwrap();
    let server = ServerTls::load(&listener(vec![certificate(&[], &files)]), AUTO).unwrap();
    let ended = now.duration_since(server.expires().unwrap()).unwrap();
    assert!(
        ended >= hour && ended < hour + Duration::from_secs(2),
        "{ended:?}"
    );
    let client = Arc::new(client_config(&authority));
    let error = handshake(server.config(), &client, "localhost").err();
    assert!(
        matches!(error, Some(Error::InvalidCertificate(_))),
        "{error:?}"
    );
}

#[test]
fn every_fault_names_its_file() {
    let (authority, folder) = (Authority::new(), folder());
    let good = authority
        .issue(&["localhost"])
        .write(folder.path(), "good")
        .unwrap();
    let other = authority
        .issue(&["localhost"])
        .write(folder.path(), "other")
        .unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "no PEM at all\n").unwrap();
    let garbage = folder.path().join("garbage.pem");
    let body = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&garbage, body).unwrap();
    let missing = folder.path().join("missing.pem");
    let load = |cert: &Path, key: &Path| {
        let files = PairFiles {
            cert: cert.to_owned(),
            key: key.to_owned(),
        };
        ServerTls::load(&listener(vec![certificate(&[], &files)]), AUTO).unwrap_err()
    };
    let error = load(&missing, &good.key);
    assert!(matches!(&error, TlsError::Unreadable { file, error }
            if *file == missing && error.kind() == io::ErrorKind::NotFound));
    assert!(matches!(load(&text, &good.key), TlsError::NoCertificate { file } if file == text));
    assert!(
        matches!(load(&garbage, &good.key), TlsError::BadCertificate { file, .. } if file == garbage)
    );
    assert!(matches!(load(&good.cert, &text), TlsError::NoKey { file } if file == text));
    let error = load(&good.cert, &other.key);
    assert!(matches!(error, TlsError::KeyDoesNotMatch { .. }));
    assert_eq!(error.file(), Some(other.key.as_path()));
    assert!(error.to_string().contains("other.key"), "{error}");

    let mut tls = simple(&authority, folder.path());
    tls.client_auth = ClientAuth::Required;
    assert!(matches!(
        ServerTls::load(&tls, AUTO),
        Err(TlsError::NoClientAuthority)
    ));
    tls.client_ca = Some(text.clone());
    assert!(matches!(
        ServerTls::load(&tls, AUTO),
        Err(TlsError::NoCertificate { .. })
    ));

    let mut half = upstream(Some(&good.cert));
    half.cert = Some(good.cert.clone());
    let error = ClientTls::load(&half, UpstreamProtocol::Auto).unwrap_err();
    assert!(matches!(error, TlsError::HalfIdentity));
}

/// HI-55: what is no TLS at all ends the handshake with an error and an alert, not with a panic.
#[test]
fn bytes_that_are_no_handshake_are_refused() {
    let (authority, folder) = (Authority::new(), folder());
    let tls = ServerTls::load(&simple(&authority, folder.path()), AUTO).unwrap();
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0xff; 64]] {
        let mut server = ServerConnection::new(tls.config().clone()).unwrap();
        server.read_tls(&mut io::Cursor::new(bytes)).unwrap();
        assert!(server.process_new_packets().is_err(), "{bytes:?}");
    }
}
