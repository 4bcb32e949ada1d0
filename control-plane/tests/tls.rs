//! TLS of the control plane's address, with real certificates: `curl`, a gateway that follows, and files that change.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::{Here, document, one_of_each, secret, until};
use tollgate_config::control_plane::Tls;
use tollgate_engine::testing::certificates::Authority;
use tollgate_engine::testing::gateway::Gateway;

struct Secured {
    here: Here,
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Secured {
    fn start(client_ca: bool) -> Secured {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new();
        let pair = authority.issue(&["127.0.0.1", "localhost"]);
        let files = pair.write(folder.path(), "cp").expect("written");
        let ca = authority.write(folder.path(), "ca").expect("written");
        let mut settings = document();
        settings.tokens = one_of_each();
        settings.server.tls = Some(Tls {
            cert: files.cert,
            key: files.key,
            client_ca: client_ca.then_some(ca),
        });
        Secured {
            here: Here::start(settings),
            folder,
            authority,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn curl(&self, more: &[&str]) -> Output {
        let url = format!("https://127.0.0.1:{}/nodes", self.here.address.port());
        let token = format!("Authorization: Bearer {}", secret("read"));
        Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--max-time", "60"])
            .args(["--header", &token])
            .args(more)
            .arg(url)
            .output()
            .expect("curl runs")
    }
}

fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: curl is not on this machine");
    }
    found
}

#[test]
fn curl_is_answered_over_http_1_and_2_and_only_by_who_the_authority_vouches_for() {
    if !has_curl() {
        return;
    }
    let secured = Secured::start(false);
    let ca = secured.path("ca.pem");
    for version in ["--http1.1", "--http2"] {
        let output = secured.curl(&["--cacert", &ca, version]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{version}: {words}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("\"nodes\""));
    }
    assert!(!secured.curl(&[]).status.success(), "nobody else vouches");
    // Clear text is not understood, and does no harm.
    let mut clear = secured.here.caller();
    clear
        .0
        .send("GET /health/ready HTTP/1.1\r\nHost: cp\r\n\r\n");
    let (answer, _) = clear.0.drain();
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn with_client_ca_only_who_shows_a_certificate_comes_in() {
    if !has_curl() {
        return;
    }
    let secured = Secured::start(true);
    let ca = secured.path("ca.pem");
    assert!(!secured.curl(&["--cacert", &ca]).status.success());
    let own = secured.authority.issue(&["ada"]);
    let own = own.write(secured.folder.path(), "ada").expect("written");
    let [cert, key] = [own.cert, own.key].map(|file| file.display().to_string());
    let output = secured.curl(&["--cacert", &ca, "--cert", &cert, "--key", &key]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    let stranger = Authority::new().issue(&["eve"]);
    let stranger = stranger
        .write(secured.folder.path(), "eve")
        .expect("written");
    let [cert, key] = [stranger.cert, stranger.key].map(|file| file.display().to_string());
    let refused = secured.curl(&["--cacert", &ca, "--cert", &cert, "--key", &key]);
    assert!(!refused.status.success());
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart_and_a_broken_one_is_not() {
    if !has_curl() {
        return;
    }
    let secured = Secured::start(false);
    let serves = |authority: &Path| {
        let authority = authority.display().to_string();
        secured.curl(&["--cacert", &authority]).status.success()
    };
    let first = secured.folder.path().join("ca.pem");
    assert!(serves(&first));
    // A half of a change: the key does not belong to the certificate.
    let next = Authority::new();
    let pair = next.issue(&["127.0.0.1"]);
    std::fs::write(secured.path("cp.pem"), &pair.cert_pem).expect("written");
    assert!(serves(&first), "the former one stays");
    std::fs::write(secured.path("cp.key"), &pair.key_pem).expect("written");
    let second = next.write(secured.folder.path(), "ca-2").expect("written");
    until("the new certificate is used", || serves(&second));
    assert!(!serves(&first));
}

#[test]
fn a_gateway_follows_over_tls_with_its_token_and_not_without_it() {
    let secured = Secured::start(false);
    let file = secured.folder.path().join("edge.token");
    std::fs::write(&file, secret("node")).expect("written");
    let gateway = |more: &str| {
        Gateway::start(&format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\n\n[server]\nworkers = 1\n\n[control_plane]\nnode = \"edge-1\"\n\
             urls = [\"https://127.0.0.1:{}\"]\ntls = {{ ca = \"{}\" }}\n{more}",
            secured.here.address.port(),
            secured.path("ca.pem"),
        ))
    };
    let refused = gateway("");
    let admin = |gateway: &Gateway| {
        let answer =
            tollgate_engine::testing::client::Client::connect(gateway.admin()).get("/status");
        answer.text()
    };
    until("it is told why", || {
        admin(&refused).contains("wants a token of the role `node`")
    });
    drop(refused);
    let followed = gateway(&format!("token = \"${{file:{}}}\"\n", file.display()));
    until("it follows", || {
        admin(&followed).contains("\"connected\":true")
    });
    assert!(!admin(&followed).contains(&secret("node")));
}
