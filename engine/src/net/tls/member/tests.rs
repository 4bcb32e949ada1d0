//! What is read of certificates, whatever their bytes; and what holds when trust changes.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::testing::members::{Members, Wish};

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a pair is PEM")
}

#[test]
fn a_members_certificate_names_it_mesh_301() {
    let members = Members::new();
    let wish = Wish {
        serial: Some(0x00ab_cdef),
        ..members.wish("orders")
    };
    let facts = Facts::of(&der(&members.sign(&wish).cert_pem)).expect("a member");
    assert_eq!(facts.identity, members.id("orders"));
    assert_eq!(&*facts.serial, "abcdef");
    assert!(facts.not_before < facts.not_after);
}

#[test]
fn no_bytes_of_a_certificate_do_harm_hi_56() {
    let members = Members::new();
    let good = der(&members.issue("orders").cert_pem);
    for at in 0..good.len() {
        let cut = CertificateDer::from(good[..at].to_vec());
        assert!(Facts::of(&cut).is_err(), "cut at {at}");
        for bit in [1, 0x80] {
            let mut bytes = good.to_vec();
            bytes[at] ^= bit;
            // Who it names may have changed, and nothing else: the chain is judged elsewhere.
            drop(Facts::of(&CertificateDer::from(bytes)));
        }
    }
    let mut longer = good.to_vec();
    longer.push(0);
    assert!(Facts::of(&CertificateDer::from(longer)).is_err());
    assert!(Facts::of(&CertificateDer::from(Vec::new())).is_err());
}

#[test]
fn a_key_and_a_certificate_of_two_make_no_member_mesh_303() {
    let members = Members::new();
    let (one, other) = (members.issue("orders"), members.issue("orders"));
    assert!(Own::new(one.cert_pem.as_bytes(), one.key_pem.as_bytes()).is_ok());
    assert!(Own::new(one.cert_pem.as_bytes(), other.key_pem.as_bytes()).is_err());
    assert!(Own::new(b"", one.key_pem.as_bytes()).is_err());
    assert!(Own::new(one.cert_pem.as_bytes(), b"").is_err());
}

#[test]
fn what_an_authority_signed_is_known_whatever_the_clock_says() {
    let (members, strangers) = (Members::new(), Members::new());
    let trusted = Trusted::new(&members.trust(1, &[])).expect("an authority");
    for (pair, good) in [
        (members.issue("orders"), true),
        (members.expired("orders"), true),
        (strangers.issue("orders"), false),
        (members.self_made("orders"), false),
    ] {
        let own = Own::new(pair.cert_pem.as_bytes(), pair.key_pem.as_bytes());
        assert_eq!(trusted.has_signed(&own.expect("a member")), good);
    }
}

#[test]
fn a_peer_is_revoked_from_the_moment_that_it_is_told_mesh_304() {
    let members = Members::new();
    let member = Arc::new(Member::default());
    let trust = |version, revoked: &[&str]| {
        let trusted = Trusted::new(&members.trust(version, revoked));
        member.trust(Some(Arc::new(trusted.expect("an authority"))));
    };
    trust(1, &[]);
    let chain = [der(&members.issue("orders").cert_pem)];
    let peer = member.peer(Some(&chain)).expect("a member");
    let serial = Facts::of(&chain[0]).expect("a member").serial;
    assert!(!peer.is_revoked());
    trust(2, &["1"]);
    assert!(!peer.is_revoked());
    trust(3, &["1", &serial]);
    assert!(peer.is_revoked());
    let late = member.peer(Some(&chain)).expect("a member");
    assert!(late.is_revoked(), "also when it came between");
    assert!(member.peer(None).is_err() && member.peer(Some(&[])).is_err());
}

#[test]
fn members_prefer_the_cheaper_cipher_and_refuse_none() {
    let suites = |provider: Arc<CryptoProvider>| -> Vec<CipherSuite> {
        { provider.cipher_suites.iter() }
            .map(|suite| suite.suite())
            .collect()
    };
    let (ours, all) = (suites(between_members()), suites(provider()));
    assert_eq!(ours[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(ours.len(), all.len());
    assert!(all.iter().all(|suite| ours.contains(suite)));
}
