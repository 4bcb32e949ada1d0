//! A control plane in the test's process, or the real program in one of its own; and the words of its callers.
#![allow(dead_code, unreachable_pub, unused_imports)] // every test file uses a part of it

pub mod sharing;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tollgate_config::KeyHash;
use tollgate_config::control_plane::{ControlPlane, Role, Token};
use tollgate_control_plane::{Options, Running, start};
use tollgate_engine::testing::client::{Client, Response};
pub use tollgate_engine::testing::waiting::{until, wait};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tollgate-control-plane");

/// What a test without other wishes is told: any port, nothing kept.
pub fn document() -> ControlPlane {
    let mut document = ControlPlane::default();
    document.server.bind = ([127, 0, 0, 1], 0).into();
    document.server.state_dir = None;
    document
}

/// Long enough to be a token.
pub fn secret(name: &str) -> String {
    format!("{name}-0123456789abcdef")
}

/// A token of each role, named after it: the service's is for `orders`, the node's for `edge-1`.
pub fn one_of_each() -> Vec<Token> {
    let token = |role: Role| Token {
        name: role.word().to_owned(),
        role,
        hash: KeyHash::of(secret(role.word()).as_bytes()),
        service: (role == Role::Service).then(|| "orders".to_owned()),
        node: (role == Role::Node).then(|| "edge-1".to_owned()),
    };
    Role::ALL.map(token).into()
}

/// A control plane in this process; stops with the handle.
pub struct Here {
    running: Option<Running>,
    pub address: SocketAddr,
}

impl Here {
    pub fn start(document: ControlPlane) -> Here {
        let running = start(document, Options::default()).unwrap_or_else(|error| panic!("{error}"));
        Here {
            address: running.address,
            running: Some(running),
        }
    }

    pub fn caller(&self) -> Caller {
        Caller(Client::connect(self.address))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.wait();
        }
    }
}

/// One connection to a control plane.
pub struct Caller(pub Client);

impl Caller {
    pub fn to(address: SocketAddr) -> Caller {
        Caller(Client::connect(address))
    }

    /// Asks with a token.
    pub fn ask_as(&mut self, token: &str, line: &str, body: &str) -> Response {
        self.ask_with(&format!("Authorization: Bearer {token}\r\n"), line, body)
    }

    pub fn ask(&mut self, line: &str, body: &str) -> Response {
        self.ask_with("", line, body)
    }

    pub fn ask_with(&mut self, fields: &str, line: &str, body: &str) -> Response {
        let method = line.split(' ').next().unwrap_or_default();
        self.0.send(format!(
            "{line} HTTP/1.1\r\nHost: cp\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        self.0.read_response_to(method)
    }

    /// Asks, and expects that status with a JSON body.
    #[track_caller]
    pub fn json(&mut self, line: &str, body: &str, status: u16) -> Value {
        let response = self.ask(line, body);
        assert_eq!(
            response.status,
            status,
            "{line} {body}: {}",
            response.text()
        );
        serde_json::from_slice(&response.body).expect("JSON")
    }

    #[track_caller]
    pub fn register(&mut self, body: &str) -> String {
        let answer = self.json("POST /register", body, 201);
        assert_eq!(answer["status"], "registered");
        answer["id"].as_str().expect("an id").to_owned()
    }

    #[track_caller]
    pub fn ids(&mut self, target: &str) -> Vec<String> {
        let found = self.json(&format!("GET {target}"), "", 200);
        let found = found.as_array().expect("a list");
        let ids = found
            .iter()
            .map(|item| item["id"].as_str().expect("an id").to_owned());
        ids.collect()
    }
}

/// The real program. It is killed when the handle is dropped.
pub struct Process {
    child: Child,
    words: BufReader<ChildStderr>,
    pub address: SocketAddr,
}

impl Process {
    pub fn run(document: &Path) -> Process {
        Process::try_run(document).unwrap_or_else(|(code, words)| panic!("{code:?}: {words}"))
    }

    /// The exit code and the words of one that does not start.
    pub fn try_run(document: &Path) -> Result<Process, (Option<i32>, String)> {
        Process::of(Command::new(PROGRAM).arg("run").arg(document))
    }

    #[expect(
        clippy::zombie_processes,
        reason = "whoever is told an error has no child, everybody else drops it"
    )]
    pub fn of(command: &mut Command) -> Result<Process, (Option<i32>, String)> {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut words = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if words.read_line(&mut line).expect("text") == 0 {
                let code = child.wait().expect("it ended").code();
                return Err((code, said));
            }
            let address = line
                .split("://")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            if let Some(address) = address
                && line.starts_with("serving")
            {
                let address = address.parse().expect("an address");
                return Ok(Process {
                    child,
                    words,
                    address,
                });
            }
            said.push_str(&line);
        }
    }

    pub fn caller(&self) -> Caller {
        Caller::to(self.address)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it lives");
    }

    /// The next line on standard error that holds this.
    #[track_caller]
    pub fn says(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.words.read_line(&mut line).expect("text");
            assert!(read > 0, "it ended without saying {part}");
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Waits for its end; the exit code and the rest of its words.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.words, &mut rest).expect("text");
        (self.child.wait().expect("it ended").code(), rest)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A folder with a document; the state stands beside it.
pub struct Site(pub tempfile::TempDir);

impl Site {
    pub fn with(more: &str) -> Site {
        let site = Site(tempfile::tempdir().expect("a folder"));
        site.write(more);
        site
    }

    /// For one that is started again at the same address.
    pub fn at(address: SocketAddr) -> Site {
        let site = Site(tempfile::tempdir().expect("a folder"));
        let text = format!("server = {{ bind = \"{address}\", state_dir = \"state\" }}\n");
        std::fs::write(site.document(), text).expect("written");
        site
    }

    pub fn write(&self, more: &str) {
        let text = format!("server = {{ bind = \"127.0.0.1:0\", state_dir = \"state\" }}\n{more}");
        std::fs::write(self.document(), text).expect("written");
    }

    pub fn document(&self) -> PathBuf {
        self.0.path().join("cp.toml")
    }

    pub fn store(&self) -> PathBuf {
        self.0.path().join("state/store")
    }
}
