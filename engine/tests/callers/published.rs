//! Keys that do not stand in the document: those that an issuer publishes, and those in files.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tollgate_engine::testing::gateway::{Gateway, line_of};
use tollgate_engine::testing::tokens::{Signer, jwks};
use tollgate_engine::testing::upstream::Upstream;

use super::{ask, claims, local, toml};

/// An issuer that publishes what it is told to; nothing: 500.
fn issuer(body: &Arc<Mutex<Option<String>>>) -> Upstream {
    let body = body.clone();
    Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            let body = body
                .lock()
                .expect("no test fails while it holds this")
                .clone();
            let sent = match body {
                Some(body) => conn.respond("200 OK", &["Content-Type: application/json"], &body),
                None => conn.respond("500 Internal Server Error", &[], ""),
            };
            if !sent {
                return;
            }
        }
    })
}

#[test]
fn gw_901_keys_that_an_issuer_publishes_are_fetched_beside_the_requests() {
    let (ed, rsa) = (Signer::ed25519("2026-11"), Signer::rs256("old"));
    let published = Arc::new(Mutex::new(None));
    let issuer = issuer(&published);
    let upstream = Upstream::fixed("ok");
    let keys = format!("jwks = \"http://{}/keys?v=1\"", issuer.address());
    let gateway = Gateway::start(&toml(&upstream, &keys));
    let ask = |signer: &Signer| {
        ask(
            &gateway,
            "POST /products",
            &signer.token(&claims("u1", &["seller"])),
        )
    };
    // Nobody can tell yet: neither yes nor no.
    let early = ask(&ed);
    assert_eq!(
        (early.status, &*early.code()),
        (503, "token_keys_unavailable")
    );
    assert_eq!(early.header("retry-after"), Some("1"));
    gateway.wait_status("the first refusal", |status| {
        status["jwt"][0]["published"]["error"].is_string()
    });
    assert_eq!(
        gateway
            .client()
            .request("GET /maybe", &["Authorization: Bearer x.y.z"])
            .status,
        200
    );
    *published.lock().expect("whole") = Some(jwks(&[&ed, &rsa]));
    gateway.wait_status("both keys", |status| {
        status["jwt"][0]["published"]["keys"] == 2
    });
    assert_eq!([ask(&ed).status, ask(&rsa).status], [200, 200]);
    let first = &issuer.requests()[0];
    assert_eq!(first.target(), "/keys?v=1");
    let unknown = ask(&Signer::ed25519("other"));
    assert_eq!((unknown.status, &*unknown.code()), (401, "invalid_token"));
    let status = gateway.get_status();
    let standing = &status["jwt"][0];
    assert_eq!(
        (&standing["name"], &standing["published"]["keys"]),
        (&json!("users"), &json!(2))
    );
    assert_eq!(standing["published"]["error"], Value::Null);
    assert!(gateway.metrics().contains("jwks_keys{jwt=\"users\"} 2\n"));
    // What was fetched is kept over a reload that has nothing to do with it.
    gateway
        .edit(&format!(
            "{}\n[errors]\nbody = \"envelope\"\n",
            toml(&upstream, &keys)
        ))
        .expect("good");
    assert_eq!(ask(&ed).status, 200);
}

#[test]
fn keys_in_files_are_watched_and_a_file_that_is_no_key_is_refused_with_its_line() {
    let signer = Signer::es256("1");
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(&upstream, &local()));
    let path = gateway.folder().join("issuer.pem");
    let with_file = toml(&upstream, "keys = [\n  { file = \"issuer.pem\" },\n]");
    std::fs::write(&path, "no key").expect("the test's folder");
    let refusal = gateway.edit(&with_file).expect_err("no key");
    let line = format!("gateway.toml:{}", line_of(&with_file, "issuer.pem"));
    assert!(
        refusal.contains(&line) && refusal.contains("BEGIN PUBLIC KEY"),
        "{refusal}"
    );
    std::fs::write(&path, signer.pem()).expect("the test's folder");
    gateway.edit(&with_file).expect("a key");
    let token = signer.token(&claims("u1", &["seller"]));
    assert_eq!(ask(&gateway, "POST /products", &token).status, 200);
    std::fs::write(&path, Signer::es256("1").pem()).expect("the test's folder");
    gateway.reload().expect("another key");
    assert_eq!(ask(&gateway, "POST /products", &token).status, 401);
}
