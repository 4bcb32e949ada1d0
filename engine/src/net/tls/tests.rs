//! Handshakes in memory: what a client gets, and what it does not.

mod clients;
mod files;

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
