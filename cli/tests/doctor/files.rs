//! Documents that are wrong, keys that are open to others or to nobody, and files of state that were cut.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use tollgate_config::control_plane::ControlPlane;
use tollgate_control_plane::{Options, start};
use tollgate_engine::testing::certificates::Authority;

use super::*;

const GATEWAY: &str = "[[listener]]\nname = \"public\"\nbind = \"127.0.0.1:0\"\n";

#[test]
fn a_document_is_refused_in_the_loaders_own_words_and_the_others_are_looked_at() {
    let ward = Ward::new();
    ward.file("gateway.toml", "[[listener]]\nnaem = \"a\"\n");
    ward.file("control-plane.toml", "[feed]\nbeet = \"5s\"\n");
    ward.file(
        "sidecar.toml",
        "[service]\nname = \"orders\"\napp = \"127.0.0.1:9\"\n[server]\nadmin = \"off\"\n",
    );
    // Those of this folder are found by themselves.
    let report = ward.doctor(&["--only", "files"]);
    report.ends_with(2);
    let found = report.says("problem", &["gateway.toml", "naem"]);
    assert_eq!(found["place"], "gateway.toml:2:1");
    assert!(found["next"].as_str().expect("a hint").contains("name"));
    report.says("problem", &["control-plane.toml:2:1", "beet"]);
    report.says("ok", &["sidecar.toml", "good"]);
}

#[test]
fn a_warning_has_its_line_and_ends_with_1() {
    let ward = Ward::new();
    let text = "[[upstream]]\nname = \"mesh\"\nservice = \"*\"\nprotocol = \"http2\"\nmesh = true\n\n\
                [[upstream]]\nname = \"orders\"\nservice = \"orders\"\n\n\
                [identity]\nservice = \"edge\"\ncert = \"c.pem\"\nkey = \"k.pem\"\nca = \"a.pem\"\n";
    let members = tollgate_engine::testing::members::Members::new();
    let pair = members.issue("edge");
    ward.file("c.pem", &pair.cert_pem);
    let key = ward.file("k.pem", &pair.key_pem);
    fs::set_permissions(key, Permissions::from_mode(0o600)).expect("ours");
    ward.file("a.pem", members.authority());
    ward.file(
        "gateway.toml",
        &format!("{text}\n[control_plane]\nurls = [\"http://127.0.0.1:9\"]\n\n{GATEWAY}"),
    );
    let report = ward.doctor(&["--only", "files"]);
    report.ends_with(1);
    let found = report.says(
        "warning",
        &["says nothing of `mesh` and `protocol`", "gateway.toml:1"],
    );
    assert_eq!(found["place"], "gateway.toml:7:1");
}

#[test]
fn a_key_that_its_owner_cannot_read_is_a_problem_and_one_that_others_can_a_warning() {
    let ward = Ward::new();
    let files = Authority::new().issue(&["a.example"]);
    let files = files.write(ward.folder.path(), "a").expect("written");
    let tls = "tls = { cert = \"a.pem\", key = \"a.key\" }";
    ward.file("gateway.toml", &format!("{GATEWAY}{tls}\n"));
    let set = |mode: u32| {
        fs::set_permissions(&files.key, Permissions::from_mode(mode)).expect("ours");
    };
    set(0o644);
    let report = ward.doctor(&["--only", "files"]);
    report.ends_with(1);
    report.says("warning", &["a.key", "0644", "chmod 600"]);
    set(0o000);
    let report = ward.doctor(&["--only", "files"]);
    report.ends_with(2);
    report.says(
        "problem",
        &["a.key", "cannot be read by its own owner", "chmod 600"],
    );
    set(0o600);
    ward.doctor(&["--only", "files"]).ends_with(0);
}

#[test]
fn what_is_kept_and_was_cut_is_told_and_left_where_it_is() {
    let ward = Ward::new();
    let state = ward.path("state");
    fs::create_dir(&state).expect("a folder");
    ward.file(
        "gateway.toml",
        &format!("[server]\nstate_dir = \"state\"\n{GATEWAY}"),
    );
    for name in ["last_good", "identity"] {
        let file = state.join(name);
        fs::write(
            &file,
            format!("tollgate {} 1 0123 99\ncut", name.replace('_', " ")),
        )
        .expect("written");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("ours");
    }
    fs::write(state.join("learned.damaged"), "x").expect("written");
    let report = ward.doctor(&["--only", "files"]);
    report.ends_with(2);
    report.says(
        "problem",
        &["state/last_good", "instead of 99", "Remove the file"],
    );
    report.says(
        "problem",
        &["state/identity", "instead of 99", "join token"],
    );
    report.says("warning", &["learned.damaged", "put it aside"]);
    assert!(state.join("last_good").exists() && state.join("identity").exists());
}

#[test]
fn a_store_is_looked_at_while_somebody_has_it_open_and_a_damaged_one_is_named() {
    let ward = Ward::new();
    let state = ward.path("state");
    let mut document = ControlPlane::default();
    document.server.bind = ([127, 0, 0, 1], 0).into();
    document.server.state_dir = Some(state.clone());
    let running = start(document, Options::default()).expect("it starts");
    ward.file(
        "control-plane.toml",
        "[server]\nstate_dir = \"state\"\nbind = \"127.0.0.1:0\"\n",
    );
    let report = ward.doctor(&["--only", "files"]);
    report.ends_with(0);
    let own = format!("pid {}", std::process::id());
    report.says("ok", &["state/store", "whole", &own, "has it open"]);
    running.stop();
    running.wait();
    let mut bytes = fs::read(state.join("store")).expect("a store");
    bytes[40] ^= 1;
    fs::write(state.join("store"), &bytes).expect("written");
    let report = ward.doctor(&["--only", "files"]);
    report.ends_with(2);
    report.says(
        "problem",
        &[
            "is damaged at byte",
            "no process has it open",
            "Restore the file",
        ],
    );
    assert_eq!(fs::read(state.join("store")).expect("still there"), bytes);
}

#[test]
fn what_hangs_holds_nobody_up() {
    let ward = Ward::new();
    let pipe = ward.path("pipe.toml");
    let made = Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .expect("a program");
    assert!(made.success());
    ward.file("gateway.toml", GATEWAY);
    // Nobody ever writes into it.
    let mut command = ward.command(&[
        "pipe.toml",
        "--only",
        "files",
        "--timeout",
        "100ms",
        "--json",
    ]);
    let output = command.output().expect("it ends");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("was not read in time"), "{told}");
}
