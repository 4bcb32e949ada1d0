//! The application as a child: started when the sidecar is ready, told what we are told, never left behind, and its
//! exit code is ours.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::control_plane::{ControlPlane, answering};

use super::support::{Sidecar, Signal, Site, is_there, until};
use super::{App, READY, heard, is_taken_back, with};

#[test]
fn a_job_ends_with_its_code_and_is_taken_back_mesh_107() {
    let (app, control) = (App::new(true), ControlPlane::start());
    let site = Site::new(app.upstream.address(), READY, &with(&control));
    let script = "while ! [ -e go ]; do sleep 0.05; done; exit 42";
    let mut sidecar = site.exec(&[], script);
    until("a registration", || heard(&control, "POST /register") > 0);
    site.go("go");
    sidecar.ends_with(42);
    assert!(is_taken_back(&control));
}

#[test]
fn a_job_without_a_control_plane_ends_too() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    site.exec(&[], "exit 0").ends_with(0);
    site.exec(&[], "exit 3").ends_with(3);
}

#[test]
fn an_application_that_a_signal_ends_is_told_as_shells_do() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    site.exec(&[], "kill -KILL $$").ends_with(137);
    let mut sidecar = site.exec(&[], "echo started >> log; while :; do sleep 0.05; done");
    site.hears("log", "started");
    sidecar.tell(Signal::TERM);
    sidecar.ends_with(143);
}

#[test]
fn an_application_that_cannot_be_started_is_named_with_the_codes_of_shells() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    let mut sidecar = site.exec_words(&[], &["./no-such-program"]);
    sidecar.ends_with(127);
    until("the words", || {
        sidecar.words().contains("./no-such-program is not there")
    });
    fs::write(site.path("text"), "hello").expect("the test's own folder");
    fs::set_permissions(site.path("text"), Permissions::from_mode(0o644)).expect("ours");
    let mut sidecar = site.exec_words(&[], &["./text"]);
    sidecar.ends_with(126);
    until("the words", || {
        sidecar.words().contains("./text may not be executed")
    });
}

#[test]
fn an_application_starts_when_the_sidecar_is_ready_and_not_before_mesh_107() {
    let control = ControlPlane::start();
    control.silent(true);
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    // A full document whose routes the control plane has.
    site.write(&format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n[server]\nadmin = \"127.0.0.1:0\"\n{}",
        with(&control)
    ));
    let mut sidecar = site.exec(&[], "echo started >> log; while :; do sleep 0.05; done");
    sidecar.says("not ready");
    assert_eq!(sidecar.ask("GET /health/ready").status, 503);
    assert_eq!(is_ready(&mut sidecar), Some(1));
    assert_eq!(site.said("log"), "");
    control.silent(false);
    control.change([answering("a", "/a", "one")], &[]);
    site.hears("log", "started");
    assert_eq!(is_ready(&mut sidecar), Some(0));
    assert_eq!(
        Client::connect(sidecar.listener("in")).get("/a").text(),
        "one"
    );
    sidecar.tell(Signal::TERM);
    sidecar.ends_with(143);
}

#[test]
fn who_is_stopped_while_it_waits_starts_nothing() {
    let control = ControlPlane::start();
    control.silent(true);
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    site.write(&format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n[server]\nadmin = \"127.0.0.1:0\"\n{}",
        with(&control)
    ));
    let mut sidecar = site.exec(&[], "echo started >> log");
    sidecar.says("not ready");
    sidecar.tell(Signal::TERM);
    sidecar.ends_with(143);
    assert_eq!(site.said("log"), "");
}

#[test]
fn signals_are_the_applications_to_understand() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    let script = "trap 'echo hup >> log' HUP; trap 'echo one >> log' USR1; trap 'echo two >> log' USR2; \
                  trap 'echo quit >> log' QUIT; trap 'echo int >> log; exit 9' INT; echo started >> log; \
                  while :; do sleep 0.05; done";
    let mut sidecar = site.exec(&[], script);
    site.hears("log", "started");
    for (signal, word) in [
        (Signal::HUP, "hup"),
        (Signal::USR1, "one"),
        (Signal::USR2, "two"),
        (Signal::QUIT, "quit"),
    ] {
        sidecar.tell(signal);
        site.hears("log", word);
    }
    sidecar.tell(Signal::INT);
    sidecar.ends_with(9);
    assert!(site.said("log").contains("int"));
}

#[test]
fn an_application_that_does_not_end_is_killed_with_all_that_it_started_hi_64() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    let script =
        "trap '' TERM; sleep 10000 & echo $! > child; echo $$ > own; while :; do sleep 0.05; done";
    let mut sidecar = site.exec(&["--kill-after", "1"], script);
    site.hears("own", "\n");
    sidecar.tell(Signal::TERM);
    sidecar.ends_with(137);
    sidecar_left_nothing(&site);
}

#[test]
fn what_an_application_leaves_behind_ends_with_it() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    let script = "sleep 10000 & echo $! > child; echo $$ > own; exit 5";
    let mut sidecar = site.exec(&[], script);
    sidecar.ends_with(5);
    sidecar_left_nothing(&site);
}

/// What was killed may take a moment to be gone.
fn sidecar_left_nothing(site: &Site) {
    for name in ["child", "own"] {
        let pid = site.said(name);
        until(&format!("{name} to be gone"), || !is_there(&pid));
    }
}

#[test]
fn orphans_are_reaped() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    // The shell in between ends first, so that nobody waits for the last one.
    let script = "sh -c 'sh -c \"echo \\$\\$ > orphan; while ! [ -e die ]; do sleep 0.05; done\" &'; \
                  echo started >> log; while :; do sleep 0.05; done";
    let mut sidecar = site.exec(&[], script);
    site.hears("log", "started");
    let orphan = site.hears("orphan", "\n");
    assert!(is_there(&orphan));
    site.go("die");
    until("nobody waiting to be reaped", || !is_there(&orphan));
    sidecar.tell(Signal::TERM);
    sidecar.ends_with(143);
}

#[test]
fn the_application_is_told_where_its_sidecar_is_and_no_secret() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    let control_plane = "[control_plane]\nurls = [\"http://127.0.0.1:1\"]\n";
    let port = "[[outbound.port]]\nlisten = \"127.0.0.1:0\"\nservice = \"a-b\"\n";
    let text = site.text(
        app.upstream.address(),
        "",
        &format!("{port}{control_plane}"),
    );
    site.write(&text);
    let mut sidecar = site.exec(&[], "env > environment; exit 0");
    sidecar.ends_with(0);
    let said = site.said("environment");
    let outbound = format!("http://{}", sidecar_address(&sidecar, "outbound"));
    for line in [
        format!("http_proxy={outbound}"),
        format!("TOLLGATE_OUTBOUND={outbound}"),
        format!(
            "TOLLGATE_OUTBOUND_A_B={}",
            sidecar_address(&sidecar, "outbound-a-b")
        ),
        "no_proxy=localhost,127.0.0.1,::1".to_owned(),
    ] {
        assert!(
            said.lines().any(|known| known == line),
            "no {line} in:\n{said}"
        );
    }
    assert!(said.contains("TOLLGATE_ADMIN=http://127.0.0.1:"), "{said}");
    assert!(!said.contains("a secret"), "{said}");
    site.exec(&["--no-http-proxy"], "env > without; exit 0")
        .ends_with(0);
    let said = site.said("without");
    assert!(
        !said.contains("http_proxy=") && said.contains("TOLLGATE_OUTBOUND="),
        "{said}"
    );
}

/// Of one that has ended.
fn sidecar_address(sidecar: &Sidecar, name: &str) -> String {
    let words = sidecar.words();
    let before = format!("serving {name} on ");
    let line = words.lines().find_map(|line| line.strip_prefix(&before));
    line.unwrap_or_else(|| panic!("no {name} in:\n{words}"))
        .to_owned()
}

/// What `ready` exits with.
fn is_ready(sidecar: &mut Sidecar) -> Option<i32> {
    let admin = sidecar.admin().to_string();
    let mut asked = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate-sidecar"));
    let status = asked.args(["ready", "--admin", &admin]).status();
    status.expect("the program can be started").code()
}
