//! What is sent by whoever should not be let in, or sends anything: refused with words, bounded, and nobody else is
//! kept out by it (HI-56).

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384};
use serde_json::{Value, json};

use super::support::member::{Member, answer, name_of, refused};
use super::support::{Here, document, until};

#[test]
fn bodies_that_are_no_requests_are_refused_and_nothing_of_them_is_repeated() {
    let here = Here::start(document());
    let mut caller = here.caller();
    let member = Member::new("orders");
    let good: Value = serde_json::from_str(&member.joining("join-secret")).expect("JSON");
    let mut bodies = vec![
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "\u{0}".to_owned(),
        format!("{{\"csr\": \"join-secret\", {}", "\"x\": ".repeat(1000)),
        format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000)),
    ];
    let mut with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        bodies.push(body.to_string());
    };
    with("csr", json!(1));
    with("service", json!(["orders"]));
    with("proof", json!({ "join_token": ["join-secret"] }));
    with("proof", json!({ "password": "join-secret" }));
    with(
        "proof",
        json!({ "join_token": "join-secret", "kubernetes": "join-secret" }),
    );
    with("proof", json!("join_token"));
    with("proof", json!({ "renewal": "join-secret" }));
    with("admin", json!(true));
    for body in bodies {
        let response = caller.ask("POST /identity/certificate", &body);
        refused(&response, 400, "bad_request");
        assert!(
            !response.text().contains("join-secret"),
            "{}",
            response.text()
        );
    }
    let huge = json!({ "csr": "x".repeat(70 << 10) }).to_string();
    let response = caller.ask("POST /identity/certificate", &huge);
    refused(&response, 413, "too_large");
}

#[test]
fn requests_that_cannot_be_signed_name_the_field_and_the_reason_mesh_301() {
    let here = Here::start(document());
    let mut caller = here.caller();
    let member = Member::new("orders");
    let good: Value = serde_json::from_str(&member.joining("join-x")).expect("JSON");
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key");
    let other = CertificateParams::default().serialize_request(&other);
    let other = other.expect("a request").pem().expect("PEM");
    for (field, value, words) in [
        ("csr", other.as_str(), "P-256"),
        ("csr", "", "CERTIFICATE REQUEST"),
        (
            "csr",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            "PKCS #10",
        ),
        ("service", "../payments", "cannot be a service"),
        ("service", "a/svc/b", "cannot be a service"),
        ("namespace", "", "cannot be a namespace"),
        ("service", "orders\u{0}", "cannot be a service"),
    ] {
        let mut body = good.clone();
        body[field] = value.into();
        let response = caller.ask("POST /identity/certificate", &body.to_string());
        let title = refused(&response, 400, "bad_request");
        assert!(title.contains(words), "{title}");
    }
}

#[test]
fn who_guesses_is_not_looked_at_and_keeps_nobody_else_out_mesh_307() {
    let here = Here::start(document());
    let mut caller = here.caller();
    let member = Member::new("orders");
    let token = member.token(&mut caller);
    let given = answer(&member.join(&mut caller, &token));
    let unused = member.token(&mut caller);
    let eve = Member::new("orders");
    let mut guess = 0;
    let mut words = String::new();
    until("nobody to look any more", || {
        guess += 1;
        let response = eve.join(&mut caller, &format!("join-{guess}"));
        if response.status == 403 {
            refused(&response, 403, "not_proven");
            return false;
        }
        words = refused(&response, 429, "too_many_failures");
        response.header("retry-after").is_some()
    });
    assert!(words.contains("too many proofs"), "{words}");
    let next = Member::new("orders");
    let renewed = answer(&member.renew(&mut caller, &next, &given.certificate));
    // And what it just got renews itself, too.
    answer(&next.renew(&mut caller, &member, &renewed.certificate));
    // A token that nobody used opens as before.
    answer(&Member::new("orders").join(&mut caller, &unused));
}

#[test]
fn certificates_of_others_ended_and_revoked_ones_renew_nothing_mesh_304() {
    let mut settings = document();
    settings.identity.trust_domain = "other.example".to_owned();
    let other = Here::start(settings);
    let here = Here::start(document());
    let (mut caller, mut elsewhere) = (here.caller(), other.caller());
    let (member, next) = (Member::new("orders"), Member::new("orders"));
    let token = member.token(&mut elsewhere);
    let foreign = answer(&member.join(&mut elsewhere, &token));
    let words = refused(
        &member.renew(&mut caller, &next, &foreign.certificate),
        403,
        "not_proven",
    );
    assert!(words.contains("not signed by an authority"), "{words}");
    let own = foreign.trust.authorities[0].clone();
    for text in [
        own.as_str(),
        "",
        "-----BEGIN CERTIFICATE-----",
        &foreign.certificate[..200],
    ] {
        refused(&member.renew(&mut caller, &next, text), 403, "not_proven");
    }

    let token = member.token(&mut caller);
    let given = answer(&member.join(&mut caller, &token));
    let payments = Member::new("payments");
    let mut body: Value =
        serde_json::from_str(&member.renewing(&payments, &given.certificate)).expect("JSON");
    body["service"] = "payments".into();
    let response = caller.ask("POST /identity/certificate", &body.to_string());
    let words = refused(&response, 403, "not_proven");
    assert!(words.contains("another service"), "{words}");
    for signature in ["", "AAAA", "!", &"A".repeat(10_000)] {
        body["service"] = "orders".into();
        body["proof"]["renewal"]["signature"] = signature.into();
        let response = caller.ask("POST /identity/certificate", &body.to_string());
        refused(&response, 403, "not_proven");
    }
    let (_, serial) = name_of(&given.certificate);
    let body = json!({ "serial": serial }).to_string();
    caller.json("POST /identity/revoke", &body, 200);
    let words = refused(
        &member.renew(&mut caller, &next, &given.certificate),
        403,
        "not_proven",
    );
    assert!(words.contains("revoked"), "{words}");
}

#[test]
fn an_ended_certificate_renews_itself_within_the_grace_alone_mesh_304() {
    let start = |grace: u64| {
        let mut settings = document();
        settings.identity.certificate_lifetime = std::time::Duration::from_secs(1);
        settings.identity.grace = std::time::Duration::from_secs(grace);
        Here::start(settings)
    };
    let (strict, lenient) = (start(0), start(3600));
    for here in [&strict, &lenient] {
        let mut caller = here.caller();
        let (member, next) = (Member::new("orders"), Member::new("orders"));
        let token = member.token(&mut caller);
        let given = answer(&member.join(&mut caller, &token));
        until("its end", || super::now() > given.not_after);
        let response = member.renew(&mut caller, &next, &given.certificate);
        if std::ptr::eq(here, &lenient) {
            assert_eq!(answer(&response).identity, given.identity);
            continue;
        }
        let words = refused(&response, 403, "not_proven");
        assert!(
            words.contains("expired") && words.contains("join again"),
            "{words}"
        );
    }
}
