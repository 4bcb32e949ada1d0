//! Certificates from a control plane's authority: got, renewed, kept, and lived without it (MESH-304, MESH-307).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tollgate_config::identity::{CertificateRequest, Proof};
use tollgate_engine::testing::control_plane::ControlPlane;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::members::Members;
use tollgate_engine::testing::upstream::Upstream;

use super::{callee, until};

const TOKEN: &str = "a-join-token-that-is-good-once";

/// A data plane that asks this control plane who it is; in front of an application.
fn asking(url: &str, token: &str, state: Option<&Path>, app: &Upstream) -> String {
    let state = state.map_or_else(String::new, |folder| {
        format!("state_dir = \"{}\"\n", folder.display())
    });
    format!(
        "[server]\nworkers = 1\ndrain = \"2s\"\n{state}\n[control_plane]\nurls = [\"{url}\"]\nnode = \"one\"\n\n\
         [identity]\nservice = \"orders\"\n{token}\n\
         [[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\nmesh = \"strict\"\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\n\n\
         [[upstream]]\nname = \"app\"\nendpoints = [\"{}\"]\n",
        app.address()
    )
}

/// `token` of a document, and the file that it is in.
fn token(folder: &Path) -> String {
    let file = folder.join("join.token");
    fs::write(&file, TOKEN).expect("the test's own folder");
    format!("token = \"${{file:{}}}\"\n", file.display())
}

fn text(answer: &tollgate_config::identity::CertificateAnswer) -> String {
    serde_json::to_string(answer).expect("an answer is JSON")
}

fn ready(gateway: &Gateway) -> bool {
    gateway.ask("GET /health/ready").status == 200
}

fn serial(gateway: &Gateway) -> String {
    gateway.get_status()["identity"]["serial"].to_string()
}

/// Whether a member comes in.
fn lets_in(gateway: &Gateway, members: &Members) -> bool {
    let web = super::caller(members, "web", "orders", gateway.listener("in"), "http1");
    web.get("/").status == 200
}

#[test]
fn a_join_token_is_shown_once_then_the_certificate_renews_itself_mesh_307() {
    let members = Arc::new(Members::new());
    let (folder, app, control) = (
        tempfile::tempdir().expect("a folder"),
        Upstream::echo(),
        ControlPlane::start(),
    );
    let signer = members.clone();
    control.sign(move |request| {
        assert_eq!(
            (&*request.service, &*request.namespace),
            ("orders", "default")
        );
        // Old enough when it comes that it is renewed within a second or two.
        let wish = tollgate_engine::testing::members::Wish {
            until: std::time::SystemTime::now() + Duration::from_secs(2400),
            ..signer.wish("orders")
        };
        (
            200,
            text(&signer.answer_wish(&request.csr, "orders", &wish)),
        )
    });
    let document = asking(&control.url(), &token(folder.path()), None, &app);
    let gateway = Gateway::start(&document);
    let journal = control.wait("two renewals", |journal| journal.certificates.len() >= 3);
    assert_eq!(
        journal.certificates[0].proof,
        Proof::JoinToken(TOKEN.to_owned())
    );
    for later in &journal.certificates[1..] {
        assert!(matches!(later.proof, Proof::Renewal { .. }), "{later:?}");
    }
    let keys: Vec<&str> = journal.certificates.iter().map(|one| &*one.csr).collect();
    assert_ne!(keys[0], keys[1], "each with a key of its own");
    until("readiness", || ready(&gateway));
    assert!(lets_in(&gateway, &members));
    let page = gateway.metrics();
    assert!(
        page.contains("mesh_renewals_total{result=\"ok\"}"),
        "{page}"
    );
    assert!(journal.subscriptions.iter().all(|one| one.trust));
}

#[test]
fn who_waits_for_its_certificate_is_not_ready_and_says_why_mesh_307() {
    let members = Arc::new(Members::new());
    let (folder, app, control) = (
        tempfile::tempdir().expect("a folder"),
        Upstream::echo(),
        ControlPlane::start(),
    );
    let willing = Arc::new(AtomicBool::new(false));
    let (signer, will) = (members.clone(), willing.clone());
    control.sign(move |request| match will.load(Ordering::SeqCst) {
        true => {
            let lifetime = Duration::from_secs(86_400);
            (200, text(&signer.answer(&request.csr, "orders", lifetime)))
        }
        false => (
            403,
            "{\"detail\":\"the token was used already\"}".to_owned(),
        ),
    });
    let document = asking(&control.url(), &token(folder.path()), None, &app);
    let gateway = Gateway::start(&document);
    control.wait("an asking", |journal| !journal.certificates.is_empty());
    until("the reason", || {
        let page = gateway.ask("GET /health/ready").text();
        page.contains("certificate of the mesh") && page.contains("the token was used already")
    });
    assert!(!ready(&gateway));
    willing.store(true, Ordering::SeqCst);
    until("readiness", || ready(&gateway));
    assert!(lets_in(&gateway, &members));
    willing.store(false, Ordering::SeqCst);
    assert!(ready(&gateway), "and stays ready");
}

#[test]
fn the_next_process_is_a_member_at_once_though_nobody_answers_mesh_304() {
    let members = Arc::new(Members::new());
    let (folder, app, control) = (
        tempfile::tempdir().expect("a folder"),
        Upstream::echo(),
        ControlPlane::start(),
    );
    let state = folder.path().join("state");
    let signer = members.clone();
    control.sign(move |request| {
        let lifetime = Duration::from_secs(86_400);
        (200, text(&signer.answer(&request.csr, "orders", lifetime)))
    });
    let document = asking(&control.url(), &token(folder.path()), Some(&state), &app);
    let gateway = Gateway::start(&document);
    until("readiness", || ready(&gateway));
    let first = serial(&gateway);
    gateway.stop();
    assert_eq!(control.journal().certificates.len(), 1);
    drop(control);

    let gateway = Gateway::start(&document);
    assert!(ready(&gateway), "at once, with nobody there");
    assert_eq!(serial(&gateway), first);
    assert!(lets_in(&gateway, &members));
    gateway.stop();

    // Damaged, it is put aside, and a member no more.
    let file = state.join("identity");
    let bytes = fs::read(&file).expect("kept");
    fs::write(&file, &bytes[..bytes.len() - 3]).expect("cut");
    let gateway = Gateway::start(&document);
    assert!(!ready(&gateway));
    assert!(state.join("identity.damaged").exists());
}

#[test]
fn a_revoked_member_is_refused_and_its_connections_leave_mesh_304() {
    let members = Arc::new(Members::new());
    let (folder, app, control) = (
        tempfile::tempdir().expect("a folder"),
        Upstream::echo(),
        ControlPlane::start(),
    );
    let signer = members.clone();
    control.sign(move |request: &CertificateRequest| {
        let lifetime = Duration::from_secs(86_400);
        (200, text(&signer.answer(&request.csr, "orders", lifetime)))
    });
    let document = asking(&control.url(), &token(folder.path()), None, &app);
    let gateway = Gateway::start(&document);
    until("readiness", || ready(&gateway));
    let at = gateway.listener("in");
    for protocol in ["http1", "http2"] {
        let web = super::caller(&members, protocol, "orders", at, protocol);
        assert_eq!(web.get("/").status, 200);
        assert_eq!(web.get("/").status, 200);
        let revoked = web.get_status()["identity"]["serial"].clone();
        let version = if protocol == "http1" { 2 } else { 3 };
        control.trust(members.trust(version, &[revoked.as_str().expect("a number")]));
        until("the news", || {
            gateway.get_status()["identity"]["trust"]["version"] == version
        });
        // On the connection that there is, and on a new one.
        until("a refusal", || web.get("/").status == 503);
        assert!(super::failures(&gateway, "server", "revoked") > 0);
        assert!(lets_in(&gateway, &members), "others come in");
    }
}

#[test]
fn a_member_is_asked_nothing_more_once_it_was_revoked_mesh_304() {
    let members = Arc::new(Members::new());
    let (folder, app, control) = (
        tempfile::tempdir().expect("a folder"),
        Upstream::echo(),
        ControlPlane::start(),
    );
    let payments = callee(&members, "payments", "strict", app.address());
    let signer = members.clone();
    control.sign(move |request: &CertificateRequest| {
        let lifetime = Duration::from_secs(86_400);
        (200, text(&signer.answer(&request.csr, "orders", lifetime)))
    });
    let at = payments.address();
    let document = format!(
        "[server]\nworkers = 1\n\n[control_plane]\nurls = [\"{}\"]\n\n[identity]\nservice = \"orders\"\n{}\n{}",
        control.url(),
        token(folder.path()),
        super::caller_document("", "payments", at, "http2"),
    );
    let gateway = Gateway::start(&document);
    until("readiness", || ready(&gateway));
    assert_eq!(gateway.get("/").status, 200);
    let revoked = payments.get_status()["identity"]["serial"].clone();
    control.trust(members.trust(2, &[revoked.as_str().expect("a number")]));
    until("the news", || {
        gateway.get_status()["identity"]["trust"]["version"] == 2
    });
    let response = gateway.get("/");
    assert_eq!(
        (response.status, &*response.code()),
        (503, "connect_failed")
    );
    assert!(super::failures(&gateway, "client", "revoked") > 0);
}
