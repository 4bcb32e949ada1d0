//! Certificates that clients show, and sessions that they resume.

use super::*;

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
