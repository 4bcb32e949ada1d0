//! The control plane's document: the sample loads, defaults are those of the page, and a mistake is told with its line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tollgate_config::control_plane::{
    ControlPlane, Rollout, Stage, WithoutTraffic, load, load_text, reference,
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
        server = { bind = "0.0.0.0:1", state_dir = "off", drain = "1s", max_connections = 2, idle_timeout = "3s", max_body = "4KiB" }
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
    "#;
    let document = read(text).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let second = Duration::from_secs;
    assert_eq!(document.server.state_dir, None);
    assert_eq!(document.server.max_body, 4096);
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
    // A key that the reader forgot would keep its default.
    let default = format!("{:#?}", ControlPlane::default());
    let found = format!("{document:#?}");
    let same: Vec<&str> = { found.lines().zip(default.lines()) }
        .filter(|(one, other)| one == other && one.contains(": ") && !one.ends_with(['{', '[']))
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
