//! Whoever wants to be a member of the mesh: a key, what it asks for, and what it can check with what it is told.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, UnixTime};
use serde_json::{Value, json};
use tollgate_config::identity::{CertificateAnswer, Trust};
use tollgate_engine::testing::client::Response;

use super::Caller;

pub struct Member {
    pub key: KeyPair,
    pub service: &'static str,
}

impl Member {
    pub fn new(service: &'static str) -> Member {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Member { key, service }
    }

    pub fn csr(&self) -> String {
        let request = CertificateParams::default().serialize_request(&self.key);
        request.expect("a request").pem().expect("PEM")
    }

    pub fn request(&self, proof: &Value) -> String {
        json!({ "csr": self.csr(), "service": self.service, "namespace": "default", "proof": proof })
            .to_string()
    }

    pub fn joining(&self, token: &str) -> String {
        self.request(&json!({ "join_token": token }))
    }

    pub fn join(&self, caller: &mut Caller, token: &str) -> Response {
        caller.ask("POST /identity/certificate", &self.joining(token))
    }

    /// Asks for a certificate for another key with the one that this key has.
    pub fn renewing(&self, next: &Member, certificate: &str) -> String {
        let csr = next.csr();
        let der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).expect("PEM");
        let signature = self.key.sign(&der).expect("signed");
        let proof = json!({ "certificate": certificate, "signature": base64(&signature) });
        json!({
            "csr": csr, "service": self.service, "namespace": "default", "proof": { "renewal": proof },
        })
        .to_string()
    }

    pub fn renew(&self, caller: &mut Caller, next: &Member, certificate: &str) -> Response {
        let body = self.renewing(next, certificate);
        caller.ask("POST /identity/certificate", &body)
    }

    /// A token for it, made by whoever may.
    pub fn token(&self, caller: &mut Caller) -> String {
        let body = json!({ "service": self.service }).to_string();
        let made = caller.json("POST /identity/token", &body, 200);
        made["token"].as_str().expect("a token").to_owned()
    }
}

pub fn base64(bytes: &[u8]) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let part = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let word = part(0) << 16 | part(1) << 8 | part(2);
        for place in 0..4 {
            let letter = char::from(letters[(word >> (18 - 6 * place) & 63) as usize]);
            text.push(if place <= group.len() { letter } else { '=' });
        }
    }
    text
}

#[track_caller]
pub fn answer(response: &Response) -> CertificateAnswer {
    assert_eq!(response.status, 200, "{}", response.text());
    let answer: CertificateAnswer = serde_json::from_slice(&response.body).expect("an answer");
    assert_eq!(answer.trust.check(), Ok(()));
    answer
}

#[track_caller]
pub fn refused(response: &Response, status: u16, code: &str) -> String {
    let text = response.text();
    assert_eq!(response.status, status, "{text}");
    let problem: Value = serde_json::from_slice(&response.body).expect("a problem");
    assert_eq!(problem["code"], code, "{text}");
    problem["title"].as_str().expect("a title").to_owned()
}

pub fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes());
    all.collect::<Result<_, _>>().expect("PEM")
}

/// Whether a member that is told this lets somebody in with that certificate, at a time in seconds since 1970.
pub fn lets_in(trust: &Trust, certificate: &str, at: u64) -> bool {
    let mut roots = RootCertStore::empty();
    for authority in &trust.authorities {
        for der in chain(authority) {
            roots.add(der).expect("an authority");
        }
    }
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let verifier = verifier.build().expect("authorities");
    let chain = chain(certificate);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
    verifier
        .verify_client_cert(&chain[0], &chain[1..], at)
        .is_ok()
}

pub fn now() -> u64 {
    UNIX_EPOCH.elapsed().expect("later").as_secs()
}

/// The name in a certificate, and its serial number.
pub fn name_of(certificate: &str) -> (String, String) {
    let der = &chain(certificate)[0];
    let (_, read) = x509_parser::parse_x509_certificate(der).expect("a certificate");
    let names = read
        .subject_alternative_name()
        .expect("valid")
        .expect("there");
    let [x509_parser::extensions::GeneralName::URI(name)] = names.value.general_names[..] else {
        panic!("{:?}", names.value);
    };
    let serial: String = { read.raw_serial().iter() }
        .map(|byte| format!("{byte:02x}"))
        .collect();
    (name.to_owned(), serial.trim_start_matches('0').to_owned())
}
