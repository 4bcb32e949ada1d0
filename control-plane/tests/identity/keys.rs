//! Keys that come in files: an authority of one's own, and those of a Kubernetes cluster.

use std::path::Path;
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};
use serde_json::{Value, json};

use super::support::member::{Member, answer, base64, chain, lets_in, now, refused};
use super::support::{PROGRAM, Process, Site, until};

fn authority(name: &str) -> (CertificateParams, KeyPair) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut parameters = CertificateParams::default();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters.distinguished_name.push(DnType::CommonName, name);
    (parameters, key)
}

/// Writes an intermediate of a new root, and both certificates.
fn own(folder: &Path) -> String {
    let (root, root_key) = authority("root");
    let root_pem = root.self_signed(&root_key).expect("signed").pem();
    let root = Issuer::new(root, root_key);
    let (middle, key) = authority("mesh");
    let middle = middle.signed_by(&key, &root).expect("signed").pem();
    std::fs::write(folder.join("mesh.pem"), format!("{middle}{root_pem}")).expect("written");
    std::fs::write(folder.join("mesh.key"), key.serialize_pem()).expect("written");
    root_pem
}

#[test]
fn an_authority_of_ones_own_signs_and_its_key_stays_in_its_file_mesh_303() {
    let site = Site::with("[identity]\ncert = \"mesh.pem\"\nkey = \"mesh.key\"\n");
    let root = own(site.0.path());
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    let member = Member::new("orders");
    let token = member.token(&mut caller);
    let given = answer(&member.join(&mut caller, &token));
    assert_eq!(given.trust.authorities.len(), 1);
    assert_eq!(chain(&given.trust.authorities[0]), chain(&root));
    assert_eq!(
        chain(&given.certificate).len(),
        2,
        "its issuer is sent along"
    );
    assert!(lets_in(&given.trust, &given.certificate, now()));
    let next = Member::new("orders");
    answer(&member.renew(&mut caller, &next, &given.certificate));
    let refused = caller.json("POST /identity/rotate", "", 409);
    assert_eq!(refused["code"], "own_key");
    let store = site.stored();
    assert!(!store.contains("PRIVATE KEY"));
    drop(process);
    // Another one: the former is trusted on, as long as what it signed is good.
    own(site.0.path());
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    let renewed = answer(&member.renew(&mut caller, &next, &given.certificate));
    assert_eq!(renewed.trust.authorities.len(), 2);
    assert!(lets_in(&renewed.trust, &given.certificate, now()));
    assert!(lets_in(&renewed.trust, &renewed.certificate, now()));
    assert!(renewed.trust.version > given.trust.version);
}

#[test]
fn a_key_that_does_not_fit_is_told_before_anything_starts_mesh_303() {
    let site = Site::with("[identity]\ncert = \"mesh.pem\"\nkey = \"mesh.key\"\n");
    let check = || {
        let mut command = Command::new(PROGRAM);
        command.arg("check").arg(site.document());
        let output = command.output().expect("it runs");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), words)
    };
    let (code, words) = check();
    assert!(code == Some(2) && words.contains("mesh.pem"), "{words}");
    own(site.0.path());
    assert_eq!(check().0, Some(0));
    let (_, other) = authority("other");
    std::fs::write(site.0.path().join("mesh.key"), other.serialize_pem()).expect("written");
    let (code, words) = check();
    assert!(
        code == Some(2) && words.contains("not the certificate's"),
        "{words}"
    );
    assert!(!words.contains("PRIVATE"), "{words}");
    let (code, words) = Process::try_run(&site.document())
        .err()
        .expect("it does not start");
    assert!(code == Some(2) && words.contains("mesh.key"), "{words}");
}

fn url(bytes: &[u8]) -> String {
    let text = base64(bytes).replace('+', "-").replace('/', "_");
    text.trim_end_matches('=').to_owned()
}

fn jwks(folder: &Path, cluster: &KeyPair) {
    let point = cluster.der_bytes();
    let set = json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "kid": "one", "x": url(&point[1..33]), "y": url(&point[33..]) },
    ]});
    std::fs::write(folder.join("jwks.json"), set.to_string()).expect("written");
}

fn pod(cluster: &KeyPair, account: &str, more: &Value) -> Value {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let mut claims = json!({
        "iss": "https://cluster", "aud": ["tollgate"], "exp": now() + 3600,
        "sub": format!("system:serviceaccount:{account}"),
    });
    for (name, value) in more.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    let head = json!({ "alg": "ES256", "kid": "one" });
    let [head, claims] = [head, claims].map(|part| url(part.to_string().as_bytes()));
    let text = format!("{head}.{claims}");
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &cluster.serialize_der());
    let random = aws_lc_rs::rand::SystemRandom::new();
    let signature = pair.expect("P-256").sign(&random, text.as_bytes());
    let signature = url(signature.expect("signed").as_ref());
    json!({ "kubernetes": format!("{text}.{signature}") })
}

#[test]
fn a_pod_joins_with_its_service_account_and_keys_of_the_cluster_may_change_mesh_307() {
    let site = Site::with(
        "[identity.kubernetes]\nissuer = \"https://cluster\"\nkeys = \"jwks.json\"\n\
         services = { \"default/orders-account\" = \"default/orders\" }\n",
    );
    let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let cluster = key();
    jwks(site.0.path(), &cluster);
    let process = Process::run(&site.document());
    let mut caller = process.caller();
    let orders = Member::new("orders");
    let mut ask = |proof: &Value| {
        let body = orders.request(proof);
        caller.ask("POST /identity/certificate", &body)
    };
    let nothing = json!({});
    let good = pod(&cluster, "default:orders-account", &nothing);
    let given = answer(&ask(&good));
    assert!(lets_in(&given.trust, &given.certificate, now()));
    for (proof, words) in [
        (pod(&cluster, "default:users", &nothing), "default/users"),
        (
            pod(&cluster, "shop:orders-account", &nothing),
            "shop/orders-account",
        ),
        (
            pod(
                &cluster,
                "default:orders-account",
                &json!({ "aud": "vault" }),
            ),
            "audience",
        ),
        (
            pod(&cluster, "default:orders-account", &json!({ "exp": 1000 })),
            "expired",
        ),
        (
            pod(&key(), "default:orders-account", &nothing),
            "not signed",
        ),
    ] {
        let said = refused(&ask(&proof), 403, "not_proven");
        assert!(said.contains(words), "{said}");
    }
    let next = key();
    jwks(site.0.path(), &next);
    let proof = pod(&next, "default:orders-account", &nothing);
    until("the cluster's new key", || ask(&proof).status == 200);
    // Refused, or not even looked at after so many that were.
    let old = ask(&pod(&cluster, "default:orders-account", &json!({ "x": 1 })));
    assert!([403, 429].contains(&old.status), "{}", old.text());
    // A file that breaks changes nothing.
    std::fs::write(site.0.path().join("jwks.json"), "{").expect("written");
    assert_eq!(ask(&proof).status, 200);
}
