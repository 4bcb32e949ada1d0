//! Control planes that share a store and speak TLS alone: with callers, and with each other.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tollgate_engine::testing::certificates::Authority;

use crate::etcd::{Servers, missing};
use crate::support::{PROGRAM, until};

/// A process of its own that is killed with this.
struct Plane {
    child: std::process::Child,
    url: String,
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

struct Site {
    folder: tempfile::TempDir,
    servers: Servers,
}

impl Site {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn start(&self, node: &str) -> Plane {
        let text = format!(
            "[server]\nbind = \"127.0.0.1:0\"\nstate_dir = \"{node}\"\n\
             tls = {{ cert = \"cp.pem\", key = \"cp.key\", client_ca = \"ca.pem\" }}\n\n[store]\nkind = \"etcd\"\n\
             endpoints = {}\nnode = \"{node}\"\nlease = \"6s\"\n\
             peers = {{ ca = \"ca.pem\", cert = \"cp.pem\", key = \"cp.key\" }}\n",
            json!(self.servers.urls())
        );
        let file = self.path(&format!("{node}.toml"));
        std::fs::write(&file, text).expect("written");
        let mut child = Command::new(PROGRAM)
            .args(["run", &file])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let said = std::io::BufReader::new(child.stderr.take().expect("piped"));
        let mut lines = std::io::BufRead::lines(said).map_while(Result::ok);
        let url = lines.find_map(|line| {
            let url = line.strip_prefix("serving on ")?;
            Some(url.split(' ').next()?.to_owned())
        });
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Plane {
            child,
            url: url.expect("it serves"),
        }
    }

    /// Status and body; nothing while it does not answer.
    fn curl(&self, plane: &Plane, more: &[&str], path: &str) -> Option<(String, Value)> {
        let answer = Command::new("curl")
            .args([
                "--silent",
                "--max-time",
                "20",
                "--write-out",
                "\n%{http_code}",
            ])
            .args([
                "--cacert",
                &self.path("ca.pem"),
                "--cert",
                &self.path("cp.pem"),
            ])
            .args(["--key", &self.path("cp.key")])
            .args(more)
            .arg(format!("{}{path}", plane.url))
            .output()
            .expect("curl runs");
        let text = String::from_utf8(answer.stdout).expect("text");
        let (body, status) = text.rsplit_once('\n')?;
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        (status != "000").then(|| (status.to_owned(), body))
    }
}

#[test]
fn a_follower_hands_changes_on_under_tls_with_a_certificate_reg_503() {
    if missing() {
        return;
    }
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: curl is not on this machine");
        return;
    }
    let authority = Authority::new();
    let site = Site {
        folder: tempfile::tempdir().expect("a folder"),
        servers: Servers::start(1),
    };
    authority.write(site.folder.path(), "ca").expect("written");
    let pair = authority.issue(&["127.0.0.1", "localhost"]);
    pair.write(site.folder.path(), "cp").expect("written");
    let planes = [site.start("one"), site.start("two")];
    let about = |plane: &Plane| site.curl(plane, &[], "/cluster").map(|(_, about)| about);
    until("a leader that both know", || {
        let known = planes
            .each_ref()
            .map(|plane| about(plane).map(|about| about["leader"].clone()));
        known[0].as_ref().is_some_and(Value::is_string) && known[0] == known[1]
    });
    let follows = |plane: &&Plane| about(plane).is_some_and(|about| about["leads"] == false);
    let follower = planes.iter().find(follows).expect("one follows");
    let about = about(follower).expect("it answers");
    let members = about["members"].as_array().expect("members");
    let encrypted = |member: &Value| {
        member["url"]
            .as_str()
            .is_some_and(|url| url.starts_with("https://"))
    };
    assert!(
        members.len() == 2 && members.iter().all(encrypted),
        "{about}"
    );
    let record = json!({ "name": "orders", "id": "o-1", "address": "127.0.0.1:1", "health_endpoint": "/health" });
    let (status, answer) = site
        .curl(follower, &["--json", &record.to_string()], "/register")
        .expect("answered");
    assert_eq!(
        (status.as_str(), &answer["id"]),
        ("201", &json!("o-1")),
        "{answer}"
    );
}
