//! The commands that serve nobody, and `run` without a file.

use std::ffi::OsStr;
use std::process::Command;

use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::control_plane::ControlPlane;

use super::support::{Sidecar, Signal, Site, until};
use super::{App, heard};

/// Exit code, standard output and standard error of a command that ends by itself.
fn command(words: &[&OsStr]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tollgate-sidecar"))
        .args(words)
        .output();
    let output = output.expect("the program can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_sidecar_needs_no_file() {
    let (app, control) = (App::new(true), ControlPlane::start());
    let folder = tempfile::tempdir().expect("the folder for temporary files");
    let (address, url) = (app.upstream.address().to_string(), control.url());
    let words = [
        "run",
        "--service",
        "orders",
        "--app",
        &address,
        "--control-plane",
        &url,
        "--inbound",
        "127.0.0.1:0",
        "--outbound",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let mut sidecar = Sidecar::start(folder.path(), words.map(OsStr::new), &[]);
    until("a registration", || heard(&control, "POST /register") == 1);
    let inbound = sidecar.listener("inbound");
    assert_eq!(Client::connect(inbound).get("/").text(), "hello");
    assert!(
        folder.path().join("sidecar-state/orders").is_dir(),
        "what outlives it"
    );
    sidecar.tell(Signal::TERM);
    sidecar.ends_with(0);
}

#[test]
fn a_check_prints_what_a_short_file_stands_for_and_points_at_what_is_wrong() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    let file = site.file();
    let (check, print) = (OsStr::new("check"), OsStr::new("--print"));
    let (code, out, _) = command(&[check, file.as_os_str()]);
    assert_eq!(code, Some(0));
    assert!(out.contains("2 listeners, 1 routes, 1 upstreams"), "{out}");
    let (code, out, _) = command(&[check, file.as_os_str(), print]);
    assert_eq!(code, Some(0));
    assert!(out.contains("[[listener]]\nname = \"inbound\"\n"), "{out}");
    let full = site.path("full.toml");
    std::fs::write(&full, &out).expect("the test's own folder");
    let (code, again, _) = command(&[check, full.as_os_str(), print]);
    assert_eq!(
        (code, again),
        (Some(0), out),
        "a full document stands for itself"
    );
    site.write(
        &std::fs::read_to_string(&file)
            .expect("there")
            .replace("[inbound]", "[inbond]"),
    );
    let (code, _, words) = command(&[check, file.as_os_str()]);
    assert_eq!(code, Some(2));
    assert!(
        words.contains("sidecar.toml:6:1") && words.contains("did you mean `inbound`?"),
        "{words}"
    );
    let words = ["check", "--service", "Orders!", "--app", "nowhere"].map(OsStr::new);
    let (code, _, words) = command(&words);
    assert_eq!(code, Some(2));
    assert!(
        words.contains("command line:2:") && words.contains("command line:3:"),
        "{words}"
    );
}

#[test]
fn an_explanation_points_at_the_short_file() {
    let app = App::new(true);
    let site = Site::new(
        app.upstream.address(),
        "",
        "[control_plane]\nurls = [\"http://127.0.0.1:1\"]\n",
    );
    let text = std::fs::read_to_string(site.file()).expect("there");
    let services = "[outbound]\nservices = [\"products\"]\n";
    site.write(&text.replace("[outbound]\n", services));
    let file = site.file();
    let words = ["explain", "", "GET", "http://products/tea"];
    let words = words.map(|word| {
        if word.is_empty() {
            file.as_os_str()
        } else {
            OsStr::new(word)
        }
    });
    let (code, out, err) = command(&words);
    assert_eq!(code, Some(0), "{err}");
    assert!(
        out.contains("upstream outbound-products") && out.contains("sidecar.toml:10:"),
        "{out}"
    );
}

#[test]
fn an_editor_is_told_the_grammar() {
    let (code, out, _) = command(&[OsStr::new("schema")]);
    assert_eq!(code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(schema["properties"]["service"]["properties"]["app"].is_object());
    assert!(
        schema["properties"]["route"].is_object(),
        "and that of a full document"
    );
}

#[test]
fn a_hang_up_reads_the_file_again() {
    let app = App::new(true);
    let site = Site::new(app.upstream.address(), "", "");
    let mut sidecar = site.run();
    let outbound = sidecar.listener("outbound");
    assert_eq!(Client::connect(outbound).get("/new").status, 404);
    let route = "[[route]]\nmatch = { path = \"/new\" }\nrespond = { status = 200 }\n";
    site.write(&site.text(app.upstream.address(), "", route));
    sidecar.tell(Signal::HUP);
    until("the new route", || {
        Client::connect(outbound).get("/new").status == 200
    });
    sidecar.tell(Signal::TERM);
    sidecar.ends_with(0);
}
