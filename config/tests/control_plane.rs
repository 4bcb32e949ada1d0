//! The control plane's document: the sample loads, defaults are those of the page, and a mistake is told with its line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate_config::KeyHash;
use tollgate_config::control_plane::{
    AuthorityFiles, ControlPlane, Etcd, Identity, Kubernetes, Role, Rollout, Secret, Stage, Store,
    StoreTls, WithoutTraffic, load, load_text, reference, warnings,
};
use tollgate_config::problem::Problem;

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(text: &str) -> Result<ControlPlane, Vec<Problem>> {
    load_text("cp.toml", text, Path::new("/etc/cp"), |_| None).map_err(|problems| problems.0)
}

#[track_caller]
fn one(text: &str, code: &str, line: u32, hint: &str) {
    let problems = read(text).expect_err("refused");
    let [problem] = problems.as_slice() else {
        panic!("{} problems: {problems:#?}", problems.len());
    };
    let found = problem.place.as_ref().map(|place| place.line);
    assert_eq!((problem.code, found), (code, Some(line)), "{problem}");
    let words = problem.hint.as_deref().unwrap_or_default();
    assert!(words.contains(hint), "`{hint}` is not in: {problem}");
    assert!(problem.text.is_some() || code == "too-deep", "{problem}");
}

#[test]
fn the_sample_loads_and_says_nothing_but_defaults_where_it_does_not_say_otherwise() {
    let sample = load(&folder().join("control-plane.toml"));
    let sample = sample.unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(sample.registry, ControlPlane::default().registry);
    assert_eq!(sample.probe, ControlPlane::default().probe);
}

#[test]
fn the_sample_with_etcd_loads() {
    let sample = load(&folder().join("control-plane-etcd.toml"));
    let sample = sample.unwrap_or_else(|problems| panic!("{problems}"));
    assert!(matches!(sample.store, Store::Etcd(etcd) if etcd.lease == Duration::from_secs(10)));
}

#[test]
fn an_empty_text_means_the_defaults_beside_the_file() {
    let mut document = read("").expect("accepted");
    let state = document
        .server
        .state_dir
        .replace("control-plane-state".into());
    assert_eq!(state, Some(PathBuf::from("/etc/cp/control-plane-state")));
    assert_eq!(document, ControlPlane::default());
}

#[test]
fn every_key_is_read() {
    let text = r#"
        server = { bind = "0.0.0.0:1", tls = { cert = "a.pem", key = "a.key", client_ca = "ca.pem" }, state_dir = "off", drain = "1s", max_connections = 2, idle_timeout = "3s", max_body = "4KiB" }
        audit = { retention = "5h", max_size = "6MiB" }
        [registry]
        heartbeat = "1s"
        suspect_after = "2s"
        service_timeout = "3s"
        drain_after_silence = "4s"
        drain_after_probes = "5s"
        cleanup = "6s"
        loss_share = 0.7
        loss_interval = "8s"
        flap_count = 9
        flap_window = "10s"
        observation_nodes = 11
        observation_age = "12s"
        max_instances = 13
        max_per_service = 14
        [probe]
        enabled = false
        interval = "1s"
        timeout = "2s"
        healthy_interval = "3s"
        failures = 4
        successes = 5
        max_in_flight = 6
        [catalog]
        folder = "fleet"
        revisions = 7
        max_change = "8MiB"
        [feed]
        beat = "1s"
        write_timeout = "2s"
        max_feeds = 3
        forget_nodes = "4s"
        figures = "off"
        [rollout]
        stages = ["2", "20%", "all"]
        hold = "1s"
        wait = "2s"
        without_traffic = "continue"
        min_requests = 3
        error_rise = 0.4
        refusal_rise = 0.5
        slow_rise = 0.6
        [identity]
        enabled = false
        trust_domain = "shop.example"
        certificate_lifetime = "1h"
        authority_lifetime = "200h"
        overlap = "2h"
        token_lifetime = "3m"
        grace = "4m"
        cert = "authority.pem"
        key = "authority.key"
        roots = "roots.pem"
        [identity.kubernetes]
        issuer = "https://kubernetes.default.svc"
        audience = "mesh"
        keys = "jwks.json"
        services = { "shop/orders-account" = "shop/orders" }
        [[token]]
        name = "ada"
        role = "administer"
        hash = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    "#;
    let document = read(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let second = Duration::from_secs;
    assert_eq!(document.server.state_dir, None);
    assert_eq!(document.server.max_body, 4096);
    let tls = document.server.tls.as_ref().expect("written");
    assert_eq!(tls.cert, PathBuf::from("/etc/cp/a.pem"));
    assert_eq!(tls.client_ca, Some("/etc/cp/ca.pem".into()));
    assert_eq!(document.tokens.len(), 1);
    assert_eq!(document.audit.max_size, 6 << 20);
    assert_eq!(document.registry.loss_interval, second(8));
    assert_eq!(document.registry.max_per_service, 14);
    assert_eq!(document.probe.healthy_interval, Some(second(3)));
    assert_eq!(document.catalog.folder, Some("/etc/cp/fleet".into()));
    assert_eq!(document.catalog.revisions, 7);
    assert_eq!(document.catalog.max_change, 8 << 20);
    assert_eq!(document.feed.beat, second(1));
    assert_eq!(document.feed.write_timeout, second(2));
    assert_eq!(document.feed.max_feeds, 3);
    assert_eq!(document.feed.forget_nodes, second(4));
    let store = r#"
        store = { kind = "etcd", endpoints = ["https://etcd-1:2379/"], prefix = "p", user = "u", password = "s", lease = "5s", node = "cp-1", advertise = "http://10.0.0.1:8080/", tls = { ca = "ca.pem", cert = "c.pem", key = "k.pem", name = "etcd" } }
    "#;
    let shared = read(store).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let Store::Etcd(etcd) = &shared.store else {
        panic!("{:?}", shared.store);
    };
    let wanted = Etcd {
        endpoints: vec!["https://etcd-1:2379".to_owned()],
        prefix: "p".to_owned(),
        user: Some(Secret {
            name: "u".to_owned(),
            password: "s".to_owned(),
        }),
        tls: Some(StoreTls {
            ca: "/etc/cp/ca.pem".into(),
            identity: Some(("/etc/cp/c.pem".into(), "/etc/cp/k.pem".into())),
            name: Some("etcd".to_owned()),
        }),
        lease: second(5),
        node: Some("cp-1".to_owned()),
        advertise: Some("http://10.0.0.1:8080".to_owned()),
        peers: None,
    };
    assert_eq!(**etcd, wanted);
    assert!(
        !format!("{etcd:?}").contains("\"s\""),
        "a password is not shown"
    );
    assert_eq!(document.feed.figures, None);
    let rollout = Rollout {
        stages: vec![Stage::Nodes(2), Stage::Percent(20), Stage::All],
        hold: second(1),
        wait: second(2),
        without_traffic: WithoutTraffic::Continue,
        min_requests: 3,
        error_rise: 0.4,
        refusal_rise: 0.5,
        slow_rise: 0.6,
    };
    assert_eq!(document.rollout, rollout);
    let own = |name: &str, other: &str| (name.to_owned(), other.to_owned());
    let identity = Identity {
        enabled: false,
        trust_domain: "shop.example".to_owned(),
        certificate_lifetime: second(3600),
        authority_lifetime: second(200 * 3600),
        overlap: second(7200),
        token_lifetime: second(180),
        grace: second(240),
        files: Some(AuthorityFiles {
            cert: "/etc/cp/authority.pem".into(),
            key: "/etc/cp/authority.key".into(),
            roots: Some("/etc/cp/roots.pem".into()),
        }),
        kubernetes: Some(Kubernetes {
            issuer: "https://kubernetes.default.svc".to_owned(),
            audience: "mesh".to_owned(),
            keys: "/etc/cp/jwks.json".into(),
            services: [(own("shop", "orders-account"), own("shop", "orders"))].into(),
        }),
    };
    assert_eq!(document.identity, identity);
    // A key that the reader forgot would keep its default.
    let default = format!("{:#?}", ControlPlane::default());
    let found = format!("{document:#?}");
    let same: Vec<&str> = { found.lines().zip(default.lines()) }
        .filter(|(one, other)| one == other && one.contains(": ") && !one.ends_with(['{', '[']))
        // A control plane with TLS has no other beside it.
        .filter(|(one, _)| one.trim() != "store: Embedded,")
        .map(|(one, _)| one)
        .collect();
    assert_eq!(same, Vec::<&str>::new());
}

#[test]
fn a_mistake_is_told_with_its_line_and_the_next_step() {
    one(
        "[registry]\nheartbeet = \"1s\"\n",
        "unknown-key",
        2,
        "did you mean `heartbeat`?",
    );
    one(
        "\n[regisry]\nx = 1\n",
        "unknown-section",
        2,
        "did you mean `registry`?",
    );
    one(
        "bind = \"1.2.3.4:5\"\n",
        "unknown-key",
        1,
        "the sections are",
    );
    one(
        "[server]\nbind = \"everywhere\"\n",
        "bad-address",
        2,
        "127.0.0.1",
    );
    one("[probe]\nfailures = 1\n", "bad-value", 2, "failures");
    one(
        "[rollout]\nstages = [\"1\", \"ten\"]\n",
        "bad-stage",
        2,
        "10%",
    );
    one(
        "[rollout]\nstages = [\"1\"]\n",
        "contradiction",
        2,
        "write \"all\" as the last",
    );
    one("registry = 5\n", "wrong-type", 1, "write `[registry]`");
    one(
        "[registry]\nheartbeat = \"30s\"\n",
        "contradiction",
        1,
        "at least \"60000ms\"",
    );
    one(
        "[registry]\nsuspect_after = \"5s\"\n",
        "contradiction",
        2,
        "at least \"15000ms\"",
    );
    one("[server\n", "syntax", 1, "toml.io");
    let dots = format!("{}x = 1\n", "a.".repeat(5000));
    one(&dots, "too-deep", 1, "more than one");
}

const HASH: &str =
    "hash = \"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n";
const LONG: &str = "0123456789abcdef0123456789abcdef";

fn with_environment(text: &str) -> Result<ControlPlane, Vec<Problem>> {
    let environment = |name: &str| match name {
        "LONG" => Some(LONG.to_owned()),
        "SHORT" => Some("hunter2".to_owned()),
        _ => None,
    };
    load_text("cp.toml", text, Path::new("/etc/cp"), environment).map_err(|problems| problems.0)
}

#[test]
fn cp_202_tokens_are_hashes_from_the_moment_they_are_read() {
    let text = "[[token]]\nname = \"a\"\nrole = \"node\"\nnode = \"edge-1\"\nservice = \"edge\"\ntoken = \"${env:LONG}\"\n";
    let document = with_environment(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let token = &document.tokens[0];
    assert_eq!(token.hash, KeyHash::of(LONG.as_bytes()));
    assert_eq!((token.role, token.role.word()), (Role::Node, "node"));
    assert_eq!(token.node.as_deref(), Some("edge-1"));
    assert_eq!(token.service.as_deref(), Some("edge"));
    let shown = format!("{document:?}");
    assert!(!shown.contains(LONG) && !shown.contains(&token.hash.written()[7..]));
}

#[test]
fn a_token_that_anybody_can_read_or_guess_is_refused_and_not_repeated() {
    for (value, code) in [
        ("hunter2-hunter2-hunter2", "token-in-the-open"),
        ("${env:SHORT}", "bad-token"),
    ] {
        let text = format!("[[token]]\nname = \"a\"\nrole = \"read\"\ntoken = \"{value}\"\n");
        let problems = with_environment(&text).expect_err("refused");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].code, code);
        assert_eq!(problems[0].place.as_ref().map(|place| place.line), Some(4));
        assert!(
            !problems[0].to_string().contains("hunter2"),
            "{}",
            problems[0]
        );
    }
    let gateway = "[[listener]]\nbind = \"127.0.0.1:0\"\n\n[control_plane]\nurls = [\"http://127.0.0.1:1\"]\ntoken = \"hunter2-hunter2-hunter2\"\n";
    let loaded = tollgate_config::Loader::with_environment(|_| None).load_text(
        "gateway.toml",
        gateway,
        Path::new(""),
    );
    let problems = loaded.expect_err("refused").to_string();
    assert!(
        problems.contains("a token is written down here"),
        "{problems}"
    );
    assert!(!problems.contains("hunter2"), "{problems}");
}

#[test]
fn tokens_are_told_apart_and_make_sense() {
    let token = |more: &str| format!("[[token]]\nname = \"a\"\n{HASH}{more}\n");
    one(
        &token("role = \"service\""),
        "missing-key",
        1,
        "service = \"orders\"",
    );
    one(
        &token("role = \"read\"\nservice = \"x\""),
        "contradiction",
        5,
        "take `service` out",
    );
    one(
        &token("role = \"service\"\nservice = \"x\"\nnode = \"x\""),
        "contradiction",
        6,
        "take `node` out",
    );
    one(&token("role = \"root\""), "bad-value", 4, "role");
    one(
        "[[token]]\nname = \"a\"\nrole = \"read\"\n",
        "exactly-one",
        1,
        "`token` and `hash`",
    );
    one("[token]\nname = \"a\"\n", "wrong-type", 1, "[[token]]");
    let twice = format!("{}\n{}", token("role = \"read\""), token("role = \"read\""));
    one(&twice, "duplicate-token", 7, "its own name");
    one(
        &twice.replacen("\"a\"", "\"b\"", 1),
        "duplicate-token",
        9,
        "its own token",
    );
}

#[test]
fn without_tokens_only_loopback_is_served() {
    one(
        "[server]\nbind = \"0.0.0.0:8080\"\n",
        "open-to-all",
        2,
        "role = \"administer\"",
    );
    one(
        "[server]\nbind = \"[::]:8080\"\n",
        "open-to-all",
        2,
        "127.0.0.1",
    );
    let loopback = read("[server]\nbind = \"[::1]:8080\"\n").expect("accepted");
    assert!(warnings(&loopback).is_empty());
    let text = format!(
        "[server]\nbind = \"10.0.0.1:8080\"\n[[token]]\nname = \"a\"\nrole = \"read\"\n{HASH}"
    );
    let clear = read(&text).expect("accepted");
    let words = warnings(&clear);
    assert!(words.len() == 2 && words.iter().all(|one| one.contains("tls")));
    assert!(words[1].contains("join the mesh"));
    let no_mesh = read(&format!("{text}\n[identity]\nenabled = false\n")).expect("accepted");
    assert_eq!(warnings(&no_mesh).len(), 1);
    let tls = text.replace("8080\"\n", "8080\"\ntls = { cert = \"a\", key = \"b\" }\n");
    assert!(warnings(&read(&tls).expect("accepted")).is_empty());
}

#[test]
fn a_store_that_cannot_be_is_told_with_its_line_and_the_next_step() {
    one("[store]\nkind = \"etcd\"\n", "no-url", 1, "endpoints = [");
    one("[store]\nkind = \"zookeeper\"\n", "bad-value", 2, "");
    one(
        "[store]\nendpoints = [\"http://a:1\"]\n",
        "contradiction",
        2,
        "write `kind = \"etcd\"`",
    );
    let with =
        |more: &str| format!("[store]\nkind = \"etcd\"\nendpoints = [\"http://a:1\"]\n{more}\n");
    one(&with("user = \"u\""), "missing-key", 4, "password");
    one(&with("lease = \"1s\""), "bad-duration", 4, "10s");
    one(
        &with("tls = { ca = \"ca.pem\" }"),
        "contradiction",
        4,
        "https://",
    );
    one(
        "[store]\nkind = \"etcd\"\nendpoints = [\"https://a:1\"]\n",
        "contradiction",
        3,
        "tls = { ca =",
    );
    one(
        &with("advertise = \"https://a:1\""),
        "contradiction",
        4,
        "http://",
    );
    one(&with("endpoint = 5"), "unknown-key", 4, "did you mean");
    one(
        &format!(
            "server = {{ bind = \"0.0.0.0:1\" }}\n[store]\nkind = \"etcd\"\nendpoints = [\"http://a:1\"]\n\
             [[token]]\nname = \"a\"\nrole = \"read\"\n{HASH}"
        ),
        "contradiction",
        2,
        "advertise = ",
    );
    one(
        "[store]\nkind = \"etcd\"\nendpoints = [\"http://a:1\"]\n[server]\ntls = { cert = \"a\", key = \"b\" }\n",
        "contradiction",
        2,
        "peers = { ca",
    );
    let secured = |store: &str, tls: &str| {
        let store = with(store);
        format!("{store}[server]\ntls = {{ cert = \"a\", key = \"b\"{tls} }}\n")
    };
    let peers = "peers = { ca = \"ca.pem\" }";
    let good = secured(&format!("{peers}\nadvertise = \"https://a:1\""), "");
    let shared = read(&good).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert!(matches!(shared.store, Store::Etcd(etcd) if etcd.peers.is_some()));
    one(&with(peers), "contradiction", 4, "[server] tls");
    one(
        &secured(peers, ", client_ca = \"ca.pem\""),
        "contradiction",
        4,
        "cert = ",
    );
    one(
        &secured(&format!("advertise = \"http://a:1\"\n{peers}"), ""),
        "contradiction",
        4,
        "https://",
    );
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = read("[registry]\nheartbeat = 5\nx = 1\n[audit]\nretention = \"1y\"\n");
    assert_eq!(problems.expect_err("refused").len(), 3);
}

#[test]
fn a_file_that_is_not_there_or_no_text_is_named() {
    let problems = load(Path::new("/nowhere/cp.toml")).expect_err("refused");
    assert!(
        problems
            .to_string()
            .contains("/nowhere/cp.toml cannot be read")
    );
}

/// Run with `TOLLGATE_BLESS=1` to write the page anew.
#[test]
fn the_reference_page_is_what_the_grammar_says() {
    let page = folder().join("../docs/control-plane-configuration.md");
    let wanted = reference();
    if std::env::var_os("TOLLGATE_BLESS").is_some() {
        std::fs::write(&page, &wanted).expect("docs can be written");
    }
    let found = std::fs::read_to_string(&page).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/control-plane-configuration.md is stale: run `TOLLGATE_BLESS=1 cargo test -p tollgate-config`"
    );
}

#[test]
fn a_node_that_sends_its_token_readable_is_warned() {
    let warned = |url: &str| {
        let text = format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\n\n[control_plane]\nurls = [\"{url}\"]\ntoken = \"${{env:LONG}}\"\n"
        );
        let loaded = tollgate_config::Loader::with_environment(|_| Some(LONG.to_owned()))
            .load_text("gateway.toml", &text, Path::new(""));
        let document = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        let warnings = tollgate_config::warnings(&document);
        let codes: Vec<&str> = warnings.iter().map(|warning| warning.code).collect();
        codes.join(" ")
    };
    assert_eq!(warned("http://10.0.0.1:8080"), "readable-token");
    assert_eq!(warned("http://cp.internal:8080"), "readable-token");
    assert_eq!(warned("http://127.0.0.1:8080"), "");
    assert_eq!(warned("http://[::1]:8080"), "");
    assert_eq!(warned("https://cp.internal:8443"), "");
}

#[test]
fn an_authority_that_cannot_be_is_told_with_its_line_and_the_next_step_mesh_303() {
    one("[identity]\ncert = \"a.pem\"\n", "missing-key", 2, "key");
    one(
        "[identity]\ntrust_domain = \"Shop\"\n",
        "bad-host",
        2,
        "example.org",
    );
    one(
        "[identity]\n\nauthority_lifetime = \"100h\"\n",
        "contradiction",
        3,
        "144h",
    );
    one(
        "[identity.kubernetes]\nissuer = \"i\"\nkeys = \"k\"\nservices = { orders = \"shop/orders\" }\n",
        "bad-name",
        4,
        "shop/orders",
    );
    let kubernetes = read("[identity.kubernetes]\nissuer = \"i\"\nkeys = \"k\"\n");
    let identity = kubernetes.expect("accepted").identity;
    assert_eq!(identity.kubernetes.expect("written").audience, "tollgate");
}

/// An upstream that is called like a service is all that is said of that service, also where a template says more.
#[test]
fn mesh_201_an_upstream_that_takes_a_service_out_of_the_mesh_is_told() {
    let warned = |stand_in: &str| {
        let text = format!(
            "[control_plane]\nurls = [\"http://127.0.0.1:1\"]\n[identity]\nservice = \"edge\"\n[server]\nstate_dir = \"s\"\n\
             [[listener]]\nname = \"a\"\nbind = \"127.0.0.1:0\"\n\
             [[upstream]]\nname = \"mesh\"\nservice = \"*\"\nprotocol = \"http2\"\nmesh = true\n\
             [[upstream]]\n{stand_in}\n"
        );
        let mut loader = tollgate_config::Loader::with_environment(|_| None);
        let loaded = loader.load_text("a.toml", &text, Path::new(""));
        let document = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        tollgate_config::warnings(&document)
    };
    let told = warned("name = \"orders\"\nservice = \"orders\"");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].code, "stands-in-without-mesh");
    assert!(
        told[0]
            .message
            .contains("says nothing of `mesh` and `protocol`"),
        "{}",
        told[0].message
    );
    assert_eq!(told[0].place.as_ref().map(|place| place.line), Some(15));
    let told = warned("name = \"orders\"\nservice = \"orders\"\nprotocol = \"http2\"");
    assert!(
        told[0].message.contains("says nothing of `mesh`:"),
        "{}",
        told[0].message
    );
    for meant in [
        "name = \"orders\"\nservice = \"orders\"\nmesh = true",
        "name = \"canary\"\nservice = \"orders\"",
        "name = \"orders\"\nservice = \"other\"",
        "name = \"orders\"\nendpoints = [\"127.0.0.1:1\"]",
    ] {
        assert_eq!(warned(meant), [], "{meant}");
    }
}
