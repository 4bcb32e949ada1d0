//! Without a control plane: silence, failover, restarts from what served last.

use std::fs;
use std::time::Duration;

use tollgate_config::feed::Kind;
use tollgate_engine::testing::control_plane::{ControlPlane, Setup, answering, block};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

use super::{asking, connected, ready, reserved, until};

#[test]
fn hi_66_a_silent_control_plane_is_noticed_and_nothing_that_serves_changes() {
    let control = ControlPlane::with(Setup {
        beat: Duration::from_secs(1),
        ..Setup::default()
    });
    control.change([answering("a", "/a", "one")], &[]);
    let gateway = Gateway::start(&asking(&[control.url()], None));
    control.outcome(1);
    until("a connection", || connected(&gateway));
    control.silent(true);
    until("the silence", || !connected(&gateway));
    assert!(ready(&gateway));
    assert_eq!(gateway.get("/a").text(), "one");
    let why = gateway.get_status()["control_plane"]["why_not"].to_string();
    assert!(
        why.contains("nothing was heard") || why.contains("no answer"),
        "{why}"
    );
    control.change([answering("a", "/a", "two")], &[]);
    control.silent(false);
    assert!(control.outcome(2).applied);
    assert_eq!(gateway.get("/a").text(), "two");
    let journal = control.journal();
    let have = journal
        .subscriptions
        .last()
        .and_then(|last| last.have.clone());
    assert_eq!(have.expect("what it knew").revision, 1);
}

#[test]
fn cp_106_a_restart_begins_with_what_served_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let upstream = Upstream::fixed("upstream");
    let place = reserved();
    let control = place.start();
    control.service("s", &[(upstream.address(), 1)]);
    let text = "[[upstream]]\nname = \"u\"\nservice = \"s\"\n";
    let route =
        "[[route]]\nname = \"u\"\nmatch = { path = \"/u\" }\nupstream = \"u\"\ntimeout = \"60s\"\n";
    control.change(
        [
            answering("a", "/a", "one"),
            block(Kind::Upstream, "u", 1, text),
            block(Kind::Route, "u", 5, route),
        ],
        &[],
    );
    let document = asking(&[control.url()], Some(&state));
    let gateway = Gateway::start(&document);
    control.outcome(1);
    // Refused, and so not what served last.
    control.change([block(Kind::Route, "bad", 9, "[[route]]\nname = 1\n")], &[]);
    control.outcome(2);
    gateway.stop();
    drop(control);

    let gateway = Gateway::start(&document);
    assert!(ready(&gateway), "at once, with nobody there");
    assert_eq!(gateway.get("/a").text(), "one");
    assert_eq!(gateway.get("/u").text(), "upstream");
    let status = &gateway.get_status()["control_plane"];
    assert_eq!(
        (&status["source"], &status["revision"]),
        (&"last good".into(), &1.into())
    );

    // The same control plane, with its memory.
    let control = place.start();
    control.change([answering("a", "/a", "one")], &[]);
    control.change([answering("a", "/a", "two")], &[]);
    control.outcome(2);
    until("the change", || gateway.get("/a").text() == "two");
    until("the file on disk", || {
        fs::read_to_string(state.join("last_good"))
            .is_ok_and(|text| text.contains("body = \\\"two"))
    });
}

#[test]
fn cp_106_a_damaged_last_good_file_is_put_aside_and_the_control_plane_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = reserved();
    let control = place.start();
    control.change([answering("a", "/a", "one")], &[]);
    let document = asking(&[control.url()], Some(folder.path()));
    let gateway = Gateway::start(&document);
    control.outcome(1);
    gateway.stop();
    let file = folder.path().join("last_good");
    let bytes = fs::read(&file).expect("written at the end");
    fs::write(&file, &bytes[..bytes.len() - 7]).expect("truncated");
    drop(control);
    let gateway = Gateway::start(&document);
    assert!(!ready(&gateway));
    assert!(folder.path().join("last_good.damaged").exists() && !file.exists());
    let control = place.start();
    control.change([answering("a", "/a", "again")], &[]);
    until("readiness", || ready(&gateway));
    until("the route", || gateway.get("/a").text() == "again");
}

#[test]
fn what_served_last_and_does_not_fit_the_file_any_more_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let control = ControlPlane::start();
    control.change([answering("a", "/a", "one")], &[]);
    let document = asking(&[control.url()], Some(folder.path()));
    Gateway::start(&document).stop();
    let gateway = Gateway::start(&document);
    control.outcome(1);
    gateway.stop();
    drop(control);
    let own = "[[route]]\nname = \"a\"\nmatch = { path = \"/own\" }\nrespond = { status = 200, body = \"own\" }\n";
    let gateway = Gateway::start(&(document + own));
    assert_eq!(gateway.get("/own").text(), "own");
    assert_eq!(
        gateway.get_status()["control_plane"]["source"],
        "nothing yet"
    );
}

#[test]
fn a_disk_that_cannot_be_written_is_told_and_harms_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    // A folder stands where the file should.
    fs::create_dir_all(folder.path().join("last_good")).expect("made");
    fs::write(folder.path().join("last_good/x"), "x").expect("made");
    let control = ControlPlane::start();
    control.change([answering("a", "/a", "one")], &[]);
    let gateway = Gateway::start(&asking(&[control.url()], Some(folder.path())));
    control.outcome(1);
    until("the failure", || {
        gateway.metrics().contains("last_good_failures_total 1")
    });
    assert_eq!(gateway.get("/a").text(), "one");
    let error = gateway.get_status()["control_plane"]["last_good"]["error"].clone();
    assert!(error.is_string(), "{error}");
}

#[test]
fn reg_407_another_control_plane_is_asked_when_one_is_gone() {
    let (first, second) = (
        ControlPlane::start(),
        ControlPlane::with(Setup {
            epoch: "second",
            ..Setup::default()
        }),
    );
    first.change([answering("a", "/a", "first")], &[]);
    second.change([answering("a", "/a", "second")], &[]);
    let dead = reserved();
    let gateway = Gateway::start(&asking(&[dead.url(), first.url(), second.url()], None));
    first.outcome(1);
    assert_eq!(gateway.get("/a").text(), "first");
    drop(first);
    second.outcome(1);
    until("the second one's word", || {
        gateway.get("/a").text() == "second"
    });
    let journal = second.journal();
    assert_eq!(
        journal.subscriptions[0]
            .have
            .as_ref()
            .map(|have| have.epoch.as_str()),
        Some("first")
    );
    until("the second one", || {
        gateway.get_status()["control_plane"]["url"] == second.url().as_str()
    });
}

#[test]
fn a_control_plane_that_is_taken_out_of_the_file_leaves_with_its_routes() {
    let control = ControlPlane::start();
    control.change([answering("a", "/a", "one")], &[]);
    let gateway = Gateway::start(&asking(&[control.url()], None));
    control.outcome(1);
    let own = "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n[server]\nworkers = 1\n";
    gateway.edit(own).expect("a good file");
    assert_eq!(gateway.get("/a").status, 404);
    assert!(gateway.get_status()["control_plane"].is_null());
    control.wait("the end of the feed", |journal| journal.open == 0);
    gateway
        .edit(&asking(&[control.url()], None))
        .expect("a good file");
    assert_eq!(gateway.get("/a").text(), "one", "what is known is kept");
}
