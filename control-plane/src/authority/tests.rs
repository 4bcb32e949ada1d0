//! What is read out of bytes from outside, and what is written into a certificate.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData as _, SanType,
    SigningKey as _,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tollgate_config::control_plane::Kubernetes;
use tollgate_config::identity::SpiffeId;
use x509_parser::extensions::GeneralName;

use super::base64::{Alphabet, read, write};
use super::certificate::{Csr, Made, Shown, Signer, chain, make, serial};
use super::kubernetes::{keys, verify};

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key")
}

fn csr(parameters: &CertificateParams, key: &KeyPair) -> String {
    let request = parameters.serialize_request(key).expect("a request");
    request.pem().expect("PEM")
}

fn orders() -> SpiffeId {
    SpiffeId::new("shop.example", "default", "orders").expect("a name")
}

struct World {
    made: Made,
    signer: Signer,
}

fn world() -> World {
    let made = make("shop.example", 1, 1_000_000, 9_000_000).expect("a key");
    let signer = Signer::new(&made.certificate, &made.key).expect("both fit");
    World { made, signer }
}

impl World {
    fn sign(&self, request: &str) -> String {
        let csr = Csr::read(request).expect("a request");
        let serial = serial([0; 16]);
        let times = (2_000_000, 3_000_000);
        { self.signer.sign(&csr.key, &orders(), &serial, times) }.expect("signed")
    }
}

/// The words of a url-safe base64 text.
fn url(bytes: &[u8]) -> String {
    let text = write(bytes).replace('+', "-").replace('/', "_");
    text.trim_end_matches('=').to_owned()
}

#[test]
fn of_a_request_nothing_is_taken_over_but_the_key_mesh_301() {
    let world = world();
    let mine = key();
    let mut parameters = CertificateParams::default();
    let names = ["spiffe://shop.example/ns/default/svc/payments", "https://x"];
    parameters.subject_alt_names = { names.iter() }
        .map(|name| SanType::URI((*name).try_into().expect("a URI")))
        .collect();
    let dns = "payments.internal".try_into().expect("a name");
    parameters.subject_alt_names.push(SanType::DnsName(dns));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let subject = &mut parameters.distinguished_name;
    subject.push(DnType::CommonName, "root");
    let pem = world.sign(&csr(&parameters, &mine));
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let (_, read) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
    assert!(!read.is_ca());
    let names = read
        .subject_alternative_name()
        .expect("valid")
        .expect("there");
    let wanted = orders();
    assert_eq!(
        names.value.general_names,
        [GeneralName::URI(wanted.as_str())]
    );
    assert_eq!(read.subject().to_string(), "CN=orders");
    let usage = read.key_usage().expect("valid").expect("there").value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let usage = read.extended_key_usage().expect("valid").expect("there");
    assert!(usage.value.client_auth && usage.value.server_auth && !usage.value.any);
    assert!(usage.value.other.is_empty() && !usage.value.code_signing);
    assert_eq!(
        *read.public_key().subject_public_key.data,
        *mine.der_bytes()
    );
    let validity = read.validity();
    assert_eq!(validity.not_before.timestamp(), 2_000_000);
    assert_eq!(validity.not_after.timestamp(), 3_000_000);
    assert_eq!(read.raw_serial().len(), 16);
}

#[test]
fn other_keys_and_broken_requests_are_refused_with_words_mesh_301() {
    let parameters = CertificateParams::default();
    for algorithm in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let why = Csr::read(&csr(&parameters, &key)).expect_err("another kind");
        assert!(why.contains("P-256"), "{why}");
    }
    let good = csr(&parameters, &key());
    assert!(Csr::read(&good).is_ok());
    let body: String = good.lines().filter(|line| !line.contains("--")).collect();
    let der = read(&body, Alphabet::Standard).expect("base64");
    let pem = |der: &[u8]| {
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            write(der)
        )
    };
    assert!(Csr::read(&pem(&der)).is_ok());
    let key = Csr::read(&good).expect("a request").key;
    // The length of what is signed stands behind the header of the whole and its own tag.
    let header = if der[1] < 0x80 {
        2
    } else {
        2 + usize::from(der[1] & 0x7f)
    };
    let signed = header + usize::from(der[header + 2]);
    // Whatever byte is another one, and wherever it ends.
    for at in 0..der.len() {
        let mut broken = der.clone();
        broken[at] ^= 1;
        // Behind what is signed a reader may be lenient; nothing is taken from there.
        match Csr::read(&pem(&broken)) {
            Ok(read) => assert!(at > signed && read.key == key, "byte {at}"),
            Err(why) => assert!(!why.is_empty()),
        }
        assert!(Csr::read(&pem(&der[..at])).is_err(), "{at} bytes");
    }
    let longer = [der.as_slice(), &[0]].concat();
    assert!(Csr::read(&pem(&longer)).is_err());
    for text in [
        "",
        "-----BEGIN CERTIFICATE REQUEST-----",
        "-----BEGIN CERTIFICATE REQUEST-----\n!!\n-----END CERTIFICATE REQUEST-----\n",
        &good.replace("CERTIFICATE REQUEST", "CERTIFICATE"),
        &"x".repeat(100 << 10),
    ] {
        assert!(Csr::read(text).is_err(), "{}", text.len());
    }
}

#[test]
fn a_certificate_renews_itself_with_its_own_key_alone_mesh_304() {
    let world = world();
    let (mine, next) = (key(), key());
    let parameters = CertificateParams::default();
    let pem = world.sign(&csr(&parameters, &mine));
    let trusted = [world.made.certificate.as_str()];
    let shown = Shown::read(&pem, trusted).expect("ours");
    assert_eq!(shown.identity, orders());
    assert_eq!((shown.not_before, shown.not_after), (2_000_000, 3_000_000));
    assert_eq!(Shown::serial_of(&pem), Some(shown.serial.clone()));
    assert!(shown.serial.len() == 32 && !shown.serial.starts_with('0'));
    let text = csr(&parameters, &next);
    let request = Csr::read(&text).expect("a request");
    let body: String = text.lines().filter(|line| !line.contains("--")).collect();
    let der = read(&body, Alphabet::Standard).expect("base64");
    assert!(shown.vouches_for(&request, &mine.sign(&der).expect("signed")));
    assert!(!shown.vouches_for(&request, &next.sign(&der).expect("signed")));
    assert!(!shown.vouches_for(&request, &mine.sign(b"other").expect("signed")));
    assert!(!shown.vouches_for(&request, b""));
    // Somebody else's authority, the same name or not; the authority's own certificate; nonsense.
    let other = make("shop.example", 1, 1_000_000, 9_000_000).expect("a key");
    for (pem, trusted) in [
        (pem.as_str(), other.certificate.as_str()),
        (&world.made.certificate, &world.made.certificate),
        ("", &world.made.certificate),
        (&text, &world.made.certificate),
    ] {
        assert!(Shown::read(pem, [trusted]).is_err());
    }
}

#[test]
fn a_key_signs_with_its_own_certificate_and_only_an_authoritys() {
    let (one, other) = (world().made, world().made);
    assert!(Signer::new(&one.certificate, &other.key).is_err());
    let leaf = CertificateParams::default();
    let mine = key();
    let leaf = leaf.self_signed(&mine).expect("signed").pem();
    assert!(Signer::new(&leaf, &mine.serialize_pem()).is_err());
    let both = format!("{}{}", one.certificate, other.certificate);
    let (all, end) = chain(&both).expect("two");
    assert_eq!((all.len(), end), (2, 9_000_000));
    assert_eq!(
        all[0].replace('\r', "").trim(),
        one.certificate.replace('\r', "").trim()
    );
    assert!(chain("").is_err() && chain("-----BEGIN").is_err());
}

fn settings() -> Kubernetes {
    let own = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
    Kubernetes {
        issuer: "https://kubernetes.default.svc".to_owned(),
        audience: "tollgate".to_owned(),
        keys: "unused".into(),
        services: [(own("shop", "orders-account"), own("shop", "orders"))].into(),
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://kubernetes.default.svc", "aud": ["tollgate"], "exp": 2000, "iat": 1000, "nbf": 1000,
        "sub": "system:serviceaccount:shop:orders-account",
        "kubernetes.io": { "namespace": "shop" },
    })
}

/// A token as a cluster signs it.
fn token(key: &KeyPair, head: &Value, claims: &Value) -> String {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let text = format!(
        "{}.{}",
        url(head.to_string().as_bytes()),
        url(claims.to_string().as_bytes())
    );
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der());
    let random = aws_lc_rs::rand::SystemRandom::new();
    let signature = pair.expect("P-256").sign(&random, text.as_bytes());
    format!("{text}.{}", url(signature.expect("signed").as_ref()))
}

fn jwks(key: &KeyPair) -> String {
    let point = key.der_bytes();
    let (x, y) = (url(&point[1..33]), url(&point[33..]));
    json!({ "keys": [
        { "kty": "OKP", "crv": "Ed25519", "kid": "other", "x": url(&[1; 32]) },
        { "kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "x": x, "y": y },
    ]})
    .to_string()
}

#[test]
fn a_pod_is_who_its_token_says_and_forged_old_and_foreign_tokens_say_nothing_mesh_307() {
    let cluster = key();
    let head = json!({ "alg": "ES256", "kid": "one", "typ": "JWT" });
    let known = keys(&jwks(&cluster)).expect("keys");
    let settings = settings();
    let ask = |token: &str, now: u64| verify(token, &known, &settings, now);
    let good = token(&cluster, &head, &claims());
    let orders = ("shop".to_owned(), "orders".to_owned());
    assert_eq!(ask(&good, 1500), Ok(orders));
    // As PEM, and an account that is not named.
    let pem = keys(&cluster.public_key_pem()).expect("keys");
    assert!(verify(&good, &pem, &settings, 1500).is_ok());
    let mut plain = claims();
    plain["sub"] = "system:serviceaccount:shop:users".into();
    plain["aud"] = "tollgate".into();
    let users = ("shop".to_owned(), "users".to_owned());
    assert_eq!(ask(&token(&cluster, &head, &plain), 1500), Ok(users));
    // The clock.
    assert!(ask(&good, 2060).expect_err("late").contains("expired"));
    assert!(
        ask(&good, 900)
            .expect_err("early")
            .contains("not valid yet")
    );
    // What it says.
    for (field, value) in [
        ("iss", json!("https://evil.example")),
        ("aud", json!(["vault"])),
        ("aud", json!("tollgate2")),
        ("aud", json!([])),
        ("aud", Value::Null),
        ("exp", Value::Null),
        ("exp", json!("2000")),
        ("iss", Value::Null),
        ("sub", json!("system:node:a")),
        ("sub", json!("system:serviceaccount:shop")),
        ("sub", Value::Null),
    ] {
        let mut other = claims();
        other[field] = value;
        assert!(
            ask(&token(&cluster, &head, &other), 1500).is_err(),
            "{other}"
        );
    }
    // Who signed it, and how.
    let forged = token(&key(), &head, &claims());
    assert!(
        ask(&forged, 1500)
            .expect_err("forged")
            .contains("not signed")
    );
    for bad in [
        json!({ "alg": "none" }),
        json!({ "alg": "HS256", "kid": "one" }),
        json!({ "alg": "RS256", "kid": "one" }),
        json!({ "alg": "ES256", "kid": "two" }),
        json!({ "alg": "ES256", "kid": "one", "crit": ["b64"] }),
        json!({ "kid": "one" }),
    ] {
        assert!(
            ask(&token(&cluster, &bad, &claims()), 1500).is_err(),
            "{bad}"
        );
    }
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let text = String::from_utf8(bytes).expect("ASCII");
        assert!(ask(&text, 1500).is_err(), "letter {at}");
        assert!(ask(&good[..at], 1500).is_err(), "{at} letters");
    }
    for text in ["", "a.b", "a.b.c.d", "..", &"x".repeat(20_000)] {
        assert!(ask(text, 1500).is_err());
    }
    for text in [
        "",
        "{}",
        "{\"keys\": []}",
        "{\"keys\": [{\"kty\": \"oct\", \"k\": \"AAAA\"}]}",
        "x",
    ] {
        assert!(keys(text).is_err(), "{text}");
    }
}

/// A key of two thousand bits takes a while to make; it is made once.
#[test]
fn tokens_of_clusters_with_rsa_keys_are_believed_mesh_307() {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rsa::{KeyPair as Rsa, KeySize, PublicKeyComponents};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
    let cluster = Rsa::generate(KeySize::Rsa2048).expect("a key");
    let public = PublicKeyComponents::<Vec<u8>>::from(cluster.public_key());
    let jwk = json!({ "keys": [
        { "kty": "RSA", "kid": "one", "alg": "RS256", "use": "sig", "n": url(&public.n), "e": url(&public.e) },
    ]});
    let head = json!({ "alg": "RS256", "kid": "one" });
    let text = format!(
        "{}.{}",
        url(head.to_string().as_bytes()),
        url(claims().to_string().as_bytes())
    );
    let mut signature = vec![0; cluster.public_modulus_len()];
    let random = aws_lc_rs::rand::SystemRandom::new();
    { cluster.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature) }.expect("signed");
    let token = format!("{text}.{}", url(&signature));
    let known = keys(&jwk.to_string()).expect("keys");
    assert!(verify(&token, &known, &settings(), 1500).is_ok());
    let der = cluster.public_key().as_der().expect("DER");
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        write(der.as_ref())
    );
    let known = keys(&pem).expect("keys");
    assert!(verify(&token, &known, &settings(), 1500).is_ok());
    let broken = format!("{text}.{}", url(&[0; 256]));
    assert!(verify(&broken, &known, &settings(), 1500).is_err());
}
