//! The commands that ask a control plane, as a person uses them: the real program, a control plane with tokens and TLS,
//! what is printed and how it ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tollgate_config::KeyHash;
use tollgate_config::control_plane::{ControlPlane, Role, Tls, Token};
use tollgate_control_plane::{Options, Running, start};
use tollgate_engine::testing::certificates::Authority;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::wait;

/// A control plane with a token of each role, over TLS or not; stops with the handle.
struct Site {
    running: Option<Running>,
    url: String,
    folder: tempfile::TempDir,
}

fn secret(role: &str) -> String {
    format!("{role}-0123456789abcdef")
}

impl Site {
    fn start(encrypted: bool) -> Site {
        let folder = tempfile::tempdir().expect("a folder");
        let mut document = ControlPlane::default();
        document.server.bind = ([127, 0, 0, 1], 0).into();
        document.server.state_dir = None;
        document.tokens = { Role::ALL.iter() }
            .map(|role| Token {
                name: format!("{}-token", role.word()),
                role: *role,
                hash: KeyHash::of(secret(role.word()).as_bytes()),
                service: (*role == Role::Service).then(|| "orders".to_owned()),
                node: None,
            })
            .collect();
        if encrypted {
            let authority = Authority::new();
            authority.write(folder.path(), "ca").expect("written");
            let files = authority.issue(&["127.0.0.1"]);
            let files = files.write(folder.path(), "cp").expect("written");
            document.server.tls = Some(Tls {
                cert: files.cert,
                key: files.key,
                client_ca: None,
            });
        }
        let running = start(document, Options::default()).expect("it starts");
        let url = format!("{}://{}", running.scheme, running.address);
        Site {
            running: Some(running),
            url,
            folder,
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).expect("written");
        file
    }

    /// Runs a command with a token in the environment.
    fn run(&self, role: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command.env("TOLLGATE_TOKEN", secret(role));
        command.output().expect("it runs")
    }

    /// A command without a token, in the site's folder.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tollgate(arguments);
        command.current_dir(&self.folder);
        command.env("TOLLGATE_CONTROL", &self.url);
        command
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.wait();
        }
    }
}

fn tollgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(arguments);
    for name in ["CONTROL", "TOKEN", "TOKEN_FILE", "CA", "CERT", "KEY"] {
        command.env_remove(format!("TOLLGATE_{name}"));
    }
    command
}

#[track_caller]
fn said(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    (out, err)
}

fn route(name: &str) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nrespond = {{ status = 200 }}\n"
    )
}

#[test]
fn a_token_comes_from_an_argument_a_file_or_the_environment_and_is_never_printed() {
    let site = Site::start(false);
    let token = secret("read");
    let file = site.file("read.token", &format!("{token}\n"));
    let file = file.display().to_string();
    for arguments in [
        vec!["nodes", "--token", &token],
        vec!["nodes", "--token-file", &file],
        vec!["--version"],
    ] {
        said(&site.command(&arguments).output().expect("it runs"), 0);
    }
    let of_environment = site
        .command(&["nodes"])
        .env("TOLLGATE_TOKEN_FILE", &file)
        .output();
    said(&of_environment.expect("it runs"), 0);
    // What is said on the command line is nearer than what stands in the environment.
    let mut nearer = site.command(&["nodes", "--token-file", &file]);
    said(
        &nearer
            .env("TOLLGATE_TOKEN", "nobody's")
            .output()
            .expect("it runs"),
        0,
    );

    let (_, words) = said(&site.command(&["nodes"]).output().expect("it runs"), 1);
    assert!(
        words.contains("wants a token of the role `read`, `operate` or `administer`"),
        "{words}"
    );
    let (_, words) = said(&site.run("read", &["apply", "--remove", "a.toml"]), 1);
    assert!(words.contains("this one has the role `read`"), "{words}");
    let (_, words) = said(
        &site
            .command(&["nodes", "--token-file", "nowhere"])
            .output()
            .expect("it runs"),
        2,
    );
    assert!(words.contains("nowhere"), "{words}");
    let (_, words) = said(
        &site
            .command(&["nodes", "--token", "two words"])
            .output()
            .expect("it runs"),
        2,
    );
    assert!(!words.contains("two words"), "{words}");
    let (_, words) = said(
        &site
            .command(&["nodes", "--token", &token, "--token-file", &file])
            .output()
            .expect("it runs"),
        2,
    );
    assert!(words.contains("--token-file"), "{words}");
}

#[test]
fn over_tls_the_authority_is_named_or_said_to_be_missing() {
    let site = Site::start(true);
    let ca = site.folder.path().join("ca.pem").display().to_string();
    said(&site.run("read", &["nodes", "--ca", &ca]), 0);
    let mut of_environment = site.command(&["nodes"]);
    of_environment
        .env("TOLLGATE_CA", &ca)
        .env("TOLLGATE_TOKEN", secret("read"));
    said(&of_environment.output().expect("it runs"), 0);
    let other = Authority::new()
        .write(site.folder.path(), "other")
        .expect("written");
    let (_, words) = said(
        &site.run("read", &["nodes", "--ca", &other.display().to_string()]),
        1,
    );
    assert!(words.contains("--ca"), "{words}");
    let (_, words) = said(&site.run("read", &["nodes", "--ca", "nowhere.pem"]), 2);
    assert!(words.contains("nowhere.pem"), "{words}");
    let plain = site.url.replace("https", "http");
    let (_, words) = said(&site.run("read", &["nodes", "--control", &plain]), 1);
    assert!(words.contains(&plain), "{words}");
}

#[test]
fn exit_codes_tell_a_bad_document_from_a_refusal_and_with_json_everything_is_json() {
    let site = Site::start(false);
    site.file("shop.toml", &route("one"));
    let (out, _) = said(
        &site.run("administer", &["apply", "shop.toml", "--json"]),
        0,
    );
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(answer["revision"], 1);
    site.file("shop.toml", "[[route]]\nnaem = \"x\"\n");
    let (_, words) = said(&site.run("administer", &["apply", "shop.toml"]), 2);
    assert!(
        words.contains("shop.toml:2:1") && words.contains("did you mean `name`?"),
        "{words}"
    );
    site.file("shop.toml", &route("two"));
    let (_, words) = said(
        &site.run("administer", &["apply", "shop.toml", "--expect", "0"]),
        1,
    );
    assert!(words.contains("the catalog is at revision 1"), "{words}");
    for (role, arguments, code) in [
        (
            "administer",
            vec!["apply", "shop.toml", "--if-revision", "0", "--json"],
            1,
        ),
        ("read", vec!["rollback", "0", "--json"], 1),
        ("operate", vec!["rollback", "7", "--json"], 1),
        ("administer", vec!["apply", "nowhere.toml", "--json"], 2),
        (
            "read",
            vec!["nodes", "--control", "http://127.0.0.1:1", "--json"],
            1,
        ),
        ("read", vec!["audit", "--since", "yesterday", "--json"], 1),
    ] {
        let (out, words) = said(&site.run(role, &arguments), code);
        assert!(out.is_empty(), "{out}");
        let problem: Result<Value, _> = serde_json::from_str(&words);
        assert!(problem.is_ok(), "{arguments:?}: {words}");
    }
    said(&site.run("read", &["nodes", "--control", "nonsense"]), 2);
    said(
        &tollgate(&["no-such-command"]).output().expect("it runs"),
        2,
    );
    said(&site.run("operate", &["rollback", "0"]), 0);
}

#[test]
fn cp_202_the_audit_log_is_a_table() {
    let site = Site::start(false);
    site.file("shop.toml", &route("one"));
    said(
        &site.run("administer", &["apply", "shop.toml", "--note", "the first"]),
        0,
    );
    said(&site.run("read", &["rollback", "0"]), 1);
    let (out, _) = said(&site.run("read", &["audit", "--what", "apply"]), 0);
    assert!(out.starts_with("TIME"), "{out}");
    for part in [
        "administer-token",
        "127.0.0.1",
        "shop.toml, 0 → 1, the first",
        "done",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (out, _) = said(
        &site.run(
            "read",
            &["audit", "--who", "read-token", "--result", "denied"],
        ),
        0,
    );
    assert!(
        out.contains("rollback") && out.contains("denied, forbidden"),
        "{out}"
    );
    let (out, _) = said(&site.run("read", &["audit", "--who", "nobody"]), 0);
    assert_eq!(out, "nothing was found\n");
}

#[test]
fn cp_302_diagnose_tells_what_to_do_and_its_exit_code_whether_there_is_something() {
    let site = Site::start(false);
    let (out, _) = said(&site.run("read", &["diagnose", "orders"]), 1);
    assert!(out.contains("something is to be done"), "{out}");
    assert!(
        out.contains("no instance of `orders` is registered"),
        "{out}"
    );
    assert!(out.contains("= `control_plane.register`"), "{out}");
    let upstream = Upstream::fixed("ok");
    register(&site, upstream.address());
    // It looks for five seconds at most, for which a machine may stand still.
    let diagnosed = wait(
        "a diagnosis",
        || site.run("read", &["diagnose", "orders"]),
        |output| output.status.success(),
    );
    let (out, _) = said(&diagnosed, 0);
    assert!(out.starts_with("orders: well\n"), "{out}");
    assert!(out.contains("o1") && out.contains("passing"), "{out}");
    let diagnosed = wait(
        "a diagnosis",
        || site.run("read", &["diagnose", "orders", "--json"]),
        |output| output.status.success(),
    );
    let (out, _) = said(&diagnosed, 0);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["health_checks"]["status"], "passing");
    said(&site.run("node", &["diagnose", "orders"]), 1);
}

fn register(site: &Site, address: std::net::SocketAddr) {
    let cp = site.running.as_ref().expect("it runs").address;
    let mut client = tollgate_engine::testing::client::Client::connect(cp);
    let body = format!("{{\"id\": \"o1\", \"name\": \"orders\", \"address\": \"{address}\"}}");
    client.send(format!(
        "POST /register HTTP/1.1\r\nHost: cp\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
        secret("service"),
        body.len()
    ));
    assert_eq!(client.read_response_to("POST").status, 201);
}

#[test]
fn every_shell_can_complete_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let (out, _) = said(
            &tollgate(&["completion", shell]).output().expect("it runs"),
            0,
        );
        for command in ["diagnose", "audit", "rollback", "explain", "completion"] {
            assert!(out.contains(command), "{shell} does not know {command}");
        }
    }
    said(
        &tollgate(&["completion", "csh"]).output().expect("it runs"),
        2,
    );
    // The script is one that the shell can read.
    if Path::new("/bin/bash").exists() {
        let script = "source <(\"$0\" completion bash) && complete -p tollgate";
        let program = env!("CARGO_BIN_EXE_tollgate");
        let output = Command::new("/bin/bash")
            .args(["-c", script, program])
            .output();
        let (out, _) = said(&output.expect("it runs"), 0);
        assert!(out.contains("_tollgate"), "{out}");
    }
}
