//! Control planes that are away, are something else, or cannot prove who they are.

use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tollgate_config::KeyHash;
use tollgate_config::control_plane::{ControlPlane, Role, Token};
use tollgate_control_plane::{Options, start};
use tollgate_engine::net::tls::provider;
use tollgate_engine::testing::certificates::{Authority, Pair};
use tollgate_engine::testing::upstream::Upstream;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn gateway(url: &str) -> String {
    format!(
        "[control_plane]\nurls = [\"{url}\"]\n\n[server]\nadmin = \"off\"\n\n[[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n"
    )
}

#[test]
fn one_that_is_away_is_told_by_the_step_that_fails_and_the_line_that_names_it() {
    let ward = Ward::new();
    let nobody = Upstream::nobody();
    ward.file("gateway.toml", &gateway(&format!("http://{nobody}")));
    let report = ward.doctor(&["--only", "control-plane,files"]);
    report.ends_with(2);
    let found = report.says("problem", &["(TCP)", "refuses connections"]);
    assert_eq!(found["place"], "gateway.toml:1:1");
    // Everything else is looked at all the same.
    report.says("ok", &["gateway.toml", "good"]);
    let report = ward.doctor(&[
        "--only",
        "control-plane",
        "--control",
        "http://nobody.invalid:1",
    ]);
    report.ends_with(2);
    report.says("problem", &["(DNS)", "nobody.invalid"]);
}

#[test]
fn somebody_else_who_listens_there_is_no_control_plane() {
    let ward = Ward::new();
    let other = Upstream::fixed("hello");
    let url = format!("http://{}", other.address());
    let report = ward.doctor(&["--only", "control-plane", "--control", &url]);
    report.ends_with(2);
    report.says("problem", &["no control plane"]);
    // Whoever speaks before a client does, and not TLS.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _whoever_asked_may_be_gone = socket.write_all(b"220 ready\r\n");
        }
    });
    let report = ward.doctor(&["--only", "control-plane", "--control", &url]);
    report.ends_with(2);
    report.says("problem", &["(TLS)", "http://"]);
}

#[test]
fn one_that_is_well_is_ok_and_what_is_for_others_is_unknown() {
    let ward = Ward::new();
    let mut document = ControlPlane::default();
    document.server.bind = ([127, 0, 0, 1], 0).into();
    document.server.state_dir = None;
    document.tokens = vec![Token {
        name: "reader".to_owned(),
        role: Role::Read,
        hash: KeyHash::of(b"read-0123456789abcdef"),
        service: None,
        node: None,
    }];
    let running = start(document, Options::default()).expect("it starts");
    let url = format!("http://{}", running.address);
    let without = ward.doctor(&["--only", "control-plane", "--control", &url]);
    without.ends_with(1);
    without.says("ok", &["ready"]);
    without.says("unknown", &["who follows it", "--token-file"]);
    let token = text(&ward.file("read.token", "read-0123456789abcdef"));
    let with = [
        "--only",
        "control-plane",
        "--control",
        &url,
        "--token-file",
        &token,
    ];
    let report = ward.doctor(&with);
    report.ends_with(0);
    report.says("ok", &["no node follows it"]);
    report.says("ok", &["audit log is written"]);
    running.stop();
    running.wait();
}

fn served(pair: &Pair) -> Arc<rustls::ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).expect("PEM");
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has both")
        .with_no_client_auth()
        .with_single_cert(chain, key);
    Arc::new(config.expect("a pair matches"))
}

/// A token goes to whoever has proven who it is, and to nobody else; what is for everybody is asked all the same.
#[test]
fn whoever_shows_an_expired_certificate_is_asked_what_is_for_everybody_and_never_shown_a_token() {
    let ward = Ward::new();
    let authority = Authority::new();
    let ca = text(&authority.write(ward.folder.path(), "ca").expect("written"));
    let token = text(&ward.file("a.token", "secret-0123456789abcdef"));
    let begins = SystemTime::now() - 48 * HOUR;
    let expired = authority.issue_between(&["127.0.0.1"], begins, begins + HOUR);
    let ask = |other: &Scripted, ca: &str| {
        let url = format!("https://{}", other.address);
        ward.doctor(&["--control", &url, "--ca", ca, "--token-file", &token])
    };
    let other = Scripted::answers(|| healthy(now()), Some(served(&expired)));
    let report = ask(&other, &ca);
    report.ends_with(2);
    report.says(
        "problem",
        &["(TLS)", "expired 1 d 23 h ago", "without a token"],
    );
    report.says("ok", &["TLS, not verified", "ready"]);
    report.says("unknown", &["the token was not shown"]);
    report.says("ok", &["the clock"]);
    let heard = other.heard();
    assert!(heard.contains("GET /health/ready"), "{heard}");
    assert!(!heard.to_lowercase().contains("authorization"), "{heard}");
    // Nor to a stranger with a good certificate of somebody else's.
    let stranger = Scripted::answers(
        || healthy(now()),
        Some(served(&Authority::new().issue(&["127.0.0.1"]))),
    );
    let report = ask(&stranger, &ca);
    report.ends_with(2);
    report.says("problem", &["(TLS)", "it was signed by", "--ca"]);
    assert!(!stranger.heard().to_lowercase().contains("authorization"));
    // But to the one who is meant.
    let meant = Scripted::answers(
        || healthy(now()),
        Some(served(&authority.issue(&["127.0.0.1"]))),
    );
    ask(&meant, &ca).says("ok", &["in TLS, version", "ready"]);
    assert!(meant.heard().contains("secret-0123456789abcdef"));
}
