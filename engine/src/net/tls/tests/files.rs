//! Files that change, are late or are wrong.

use super::*;

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
    tls.client_ca = Some(text);
    assert!(matches!(
        ServerTls::load(&tls, AUTO),
        Err(TlsError::NoCertificate { .. })
    ));

    let mut half = upstream(Some(&good.cert));
    half.cert = Some(good.cert);
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
