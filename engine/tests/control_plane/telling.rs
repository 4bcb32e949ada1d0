//! What a control plane tells, and what a node answers.

use tollgate_config::feed::{Begin, End, Hello, Kind, Line, Routed, Wanted};
use tollgate_engine::testing::certificates::Authority;
use tollgate_engine::testing::control_plane::{ControlPlane, Setup, answering, block};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::{asking, connected, ready, reserved, until};

#[test]
fn cp_102_a_node_is_ready_with_its_first_documents_and_reports_each_change() {
    let place = reserved();
    let gateway = Gateway::start(&asking(&[place.url()], None));
    let health = gateway.ask("GET /health/ready");
    assert_eq!(health.status, 503);
    assert!(
        health.text().contains(&place.url()),
        "it says what it waits for: {health:?}"
    );
    assert_eq!(gateway.get("/a").status, 404);
    assert_eq!(
        gateway.get_status()["control_plane"]["source"],
        "nothing yet"
    );

    let control = place.start();
    control.outcome(0);
    let revision = control.change(
        [answering("a", "/a", "one"), answering("b", "/b", "stays")],
        &[],
    );
    let outcome = control.outcome(revision);
    assert!(outcome.applied && outcome.hash.is_some() && outcome.micros.is_some());
    assert!(ready(&gateway));
    assert_eq!(gateway.get("/a").text(), "one");
    let subscription = &control.journal().subscriptions[0];
    assert_eq!(
        (subscription.node.as_str(), &subscription.have),
        ("edge-1", &None)
    );
    assert_eq!(subscription.services, Wanted::Routed(Routed::Routed));
    assert_eq!(subscription.listeners, ["in"]);
    assert_eq!(subscription.instance.len(), 36);

    let revision = control.change([answering("a", "/a", "two")], &[]);
    assert_ne!(control.outcome(revision).hash, outcome.hash);
    assert_eq!(gateway.get("/a").text(), "two");
    assert_eq!(gateway.get("/b").text(), "stays");
    let revision = control.change([], &["shop.toml#route:a"]);
    assert!(control.outcome(revision).applied);
    assert_eq!(gateway.get("/a").status, 404);
    let status = &gateway.get_status()["control_plane"];
    assert_eq!(status["source"], "control plane");
    assert_eq!(status["revision"], revision);
    assert_eq!(status["connected"], true);
    let metrics = gateway.metrics();
    assert!(metrics.contains("control_plane_connected 1"), "{metrics}");
    assert!(
        metrics.contains(&format!("control_plane_revision {revision}")),
        "{metrics}"
    );
}

#[test]
fn cp_102_a_refused_batch_is_reported_and_the_former_world_serves() {
    let control = ControlPlane::start();
    control.change([answering("a", "/a", "one")], &[]);
    let gateway = Gateway::start(&asking(&[control.url()], None));
    control.outcome(1);
    let bad = "[[route]]\nname = \"b\"\nmatch = { path = \"/b\" }\nupstream = \"nowhere\"\n";
    let revision = control.change(
        [
            answering("a", "/a", "two"),
            block(Kind::Route, "b", 30, bad),
        ],
        &[],
    );
    let outcome = control.outcome(revision);
    assert!(!outcome.applied);
    assert_eq!(outcome.problems[0].code, "unknown-upstream");
    assert_eq!(
        outcome.problems[0].place.as_deref(),
        Some("shop.toml:33:12")
    );
    assert_eq!(
        outcome.problems[0].text.as_deref(),
        Some("upstream = \"nowhere\"")
    );
    assert_eq!(gateway.get("/a").text(), "one");
    assert!(
        ready(&gateway) && connected(&gateway),
        "a refusal is no outage"
    );
    let refusal = &gateway.get_status()["control_plane"]["last_refusal"];
    assert!(refusal.to_string().contains("shop.toml:33:12"), "{refusal}");
    assert!(
        gateway
            .metrics()
            .contains("control_plane_changes_total{result=\"refused\"} 1")
    );

    // The file can still change, with what serves of the feed.
    let own = "[[route]]\nname = \"own\"\nmatch = { path = \"/own\" }\nrespond = { status = 200, body = \"own\" }\n";
    gateway
        .edit(&(asking(&[control.url()], None) + own))
        .expect("the file is good");
    assert_eq!(gateway.get("/own").text(), "own");
    assert_eq!(gateway.get("/a").text(), "one");
    let revision = control.change([], &["shop.toml#route:b"]);
    assert!(control.outcome(revision).applied);
    assert_eq!(
        gateway.get("/a").text(),
        "two",
        "the rest of what was refused"
    );
    assert_eq!(gateway.get("/own").text(), "own");
}

#[test]
fn the_same_name_from_file_and_feed_is_refused_with_both_places() {
    let control = ControlPlane::start();
    let own = "[[route]]\nname = \"a\"\nmatch = { path = \"/own\" }\nrespond = { status = 200, body = \"own\" }\n";
    let gateway = Gateway::start(&(asking(&[control.url()], None) + own));
    assert!(ready(&gateway), "there is a route to begin with");
    control.outcome(0);
    let revision = control.change([answering("a", "/a", "theirs")], &[]);
    let outcome = control.outcome(revision);
    let words = &outcome.problems[0].message;
    assert_eq!(outcome.problems[0].place.as_deref(), Some("shop.toml:10:1"));
    assert!(
        words.contains("is defined here and at") && words.contains("gateway.toml:"),
        "{words}"
    );
    assert_eq!(gateway.get("/own").text(), "own");
    // As soon as one of both gives way, both serve.
    gateway
        .edit(&asking(&[control.url()], None))
        .expect("the file is good");
    assert_eq!(gateway.get("/a").text(), "theirs");
}

#[test]
fn an_answer_of_our_own_names_the_control_planes_line() {
    let control = ControlPlane::start();
    let upstream = "[[upstream]]\nname = \"app\"\nendpoints = [\"127.0.0.1:1\"]\n";
    let route = "[[route]]\nname = \"r\"\nmatch = { path = \"/*\" }\nupstream = \"app\"\nmax_body = \"1B\"\n";
    control.change(
        [
            block(Kind::Upstream, "app", 1, upstream),
            block(Kind::Route, "r", 40, route),
        ],
        &[],
    );
    let gateway = Gateway::start(&asking(&[control.url()], None));
    control.outcome(1);
    let answer = gateway
        .client()
        .request("POST /", &["Content-Length: 10", "Connection: close"]);
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("shop.toml:44"), "{answer:?}");
}

#[test]
fn hi_66_wrong_answers_and_empty_states_take_nothing_away() {
    let control = ControlPlane::start();
    let upstream = Upstream::fixed("upstream");
    let text = "[[upstream]]\nname = \"u\"\nservice = \"s\"\n";
    let route =
        "[[route]]\nname = \"u\"\nmatch = { path = \"/u\" }\nupstream = \"u\"\ntimeout = \"60s\"\n";
    control.service("s", &[(upstream.address(), 1)]);
    control.change(
        [
            answering("a", "/a", "one"),
            block(Kind::Upstream, "u", 1, text),
            block(Kind::Route, "u", 5, route),
        ],
        &[],
    );
    let gateway = Gateway::start(&asking(&[control.url()], None));
    control.outcome(1);
    let serves = |what: &str| {
        assert_eq!(gateway.get("/a").text(), "one", "{what}");
        assert_eq!(gateway.get("/u").text(), "upstream", "{what}");
        assert!(ready(&gateway), "{what}");
    };
    serves("at first");
    let long = format!("{{\"put\": \"{}", "x".repeat(9 << 20));
    let lies: [(&str, String); 5] = [
        ("no JSON", "certainly\n".to_owned()),
        (
            "an end without a begin",
            Line::End(End { revision: 9 }).write(),
        ),
        (
            "an older revision",
            "{\"beat\":{\"revision\":0}}\n".to_owned(),
        ),
        (
            "a second hello",
            Line::Hello(Hello {
                server: "x".to_owned(),
                epoch: "y".to_owned(),
                revision: 1,
                beat: std::time::Duration::from_secs(1),
                figures: None,
            })
            .write(),
        ),
        ("a line without an end", long),
    ];
    for (number, (what, text)) in (1..).zip(lies) {
        control.say(text);
        // Whoever lies is asked for everything anew; a line that only is too long ends the connection.
        let journal = control.wait(what, |journal| journal.subscriptions.len() > number);
        let have = &journal.subscriptions[number].have;
        assert_eq!(
            have.is_none(),
            what != "a line without an end",
            "{what}: {have:?}"
        );
        control.wait(what, |journal| journal.open == 1);
        until(what, || connected(&gateway));
        serves(what);
    }
    let empty = [
        Line::Begin(Begin { full: true }),
        Line::End(End { revision: 50 }),
    ];
    control.say_lines(&empty);
    let outcome = control.outcome(50);
    assert_eq!(outcome.problems[0].code, "emptied");
    assert_eq!(gateway.get("/a").text(), "one", "nobody means that");
}

#[test]
fn hi_66_a_flood_is_read_in_bounded_memory() {
    let control = ControlPlane::start();
    let gateway = Gateway::start(&asking(&[control.url()], None));
    control.outcome(0);
    let before = resident();
    // Many large batches that never come to an end, and one that does.
    let text = "# nothing\n".repeat(50_000);
    for _ in 0..40 {
        let put = block(
            Kind::Route,
            "a",
            1,
            &format!(
                "{text}[[route]]\nname = \"a\"\nmatch = {{ path = \"/a\" }}\nrespond = {{ status = 200 }}\n"
            ),
        );
        control.say_lines(&[
            Line::Begin(Begin { full: true }),
            Line::Put(put),
            Line::End(End { revision: 1 }),
        ]);
    }
    control.outcome(1);
    until("the last of the flood", || gateway.get("/a").status == 200);
    let grown = resident().saturating_sub(before);
    // This process holds what the control plane has queued, too: 20 MB of it.
    assert!(grown < 160 << 20, "{} MiB", grown >> 20);
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.expect("in kB") * 1024
}

#[test]
fn a_control_plane_is_followed_over_tls_and_only_by_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    authority.write(folder.path(), "ca").expect("written");
    let pair = authority.issue(&["control.internal"]);
    let control = ControlPlane::with(Setup {
        tls: Some(server_config(&pair.cert_pem, &pair.key_pem)),
        ..Setup::default()
    });
    control.change([answering("a", "/a", "one")], &[]);
    let url = format!("https://{}", control.address());
    let ca = folder.path().join("ca.pem");
    let with = |name: &str| {
        format!(
            "{}tls = {{ ca = \"{}\", name = \"{name}\" }}\n",
            asking(std::slice::from_ref(&url), None),
            ca.display()
        )
    };
    let gateway = Gateway::start(&with("another.internal"));
    until("a refusal of the certificate", || {
        gateway.get_status()["control_plane"]["why_not"]
            .as_str()
            .is_some_and(|why| why.contains("certificate"))
    });
    assert!(control.journal().subscriptions.is_empty());
    gateway
        .edit(&with("control.internal"))
        .expect("a good file");
    control.outcome(1);
    assert_eq!(gateway.get("/a").text(), "one");
}

fn server_config(cert: &str, key: &str) -> std::sync::Arc<rustls::ServerConfig> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).collect::<Result<Vec<_>, _>>();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("suites")
        .with_no_client_auth()
        .with_single_cert(chain.expect("PEM"), key);
    let mut config = config.expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.into()
}
