//! The gateway as an operator meets it: the real program in a process of its own, a folder with its document, its
//! words on standard error, its exit code.
//!
//! Nothing here looks inside the engine. Whoever waits, waits for a condition under one hard limit (`PATIENCE`). A
//! process is killed when its handle is dropped, so a failing test leaves nothing behind.
#![allow(dead_code, unreachable_pub)] // every test file uses a part of it

pub mod finished;
pub mod lasting;
pub mod load;
pub mod service;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use finished::{Finished, finish};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::client::{Client, Response};
pub use tollgate_engine::testing::waiting::until;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tollgate-gateway");

/// A folder with a document, and a loopback address that no other test uses: a gateway is found for an upgrade by its
/// admin address as the document says it, and with port 0 that alone would be everybody's.
pub struct Site {
    folder: TempDir,
    address: String,
}

impl Default for Site {
    fn default() -> Self {
        Site::new()
    }
}

impl Site {
    pub fn new() -> Site {
        Site {
            folder: tempfile::tempdir().expect("the folder for temporary files can be written"),
            address: own_address(),
        }
    }

    /// A site whose document is this.
    pub fn with(toml: &str) -> Site {
        let site = Site::new();
        site.write(&site.completed(toml));
        site
    }

    /// An address of loopback that is this site's alone.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// An address and port where nobody listens, and nobody else will: the address is nobody else's.
    pub fn free_port(&self) -> SocketAddr {
        let socket = std::net::TcpListener::bind((own_address(), 0)).expect("loopback");
        socket.local_addr().expect("a bound socket has an address")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    /// The document with what tests want unless it says otherwise, added at its end so that lines keep their numbers.
    pub fn completed(&self, toml: &str) -> String {
        let mut whole = toml.to_owned();
        let admin = format!("admin = \"{}:0\"\n", self.address);
        if !toml.contains("[server]") {
            whole.push_str(&format!(
                "\n[server]\n{admin}workers = 2\ndrain = \"60s\"\n"
            ));
        } else if !toml.contains("admin =") {
            whole = whole.replacen("[server]\n", &format!("[server]\n{admin}"), 1);
        }
        if !toml.contains("[telemetry]") {
            whole.push_str("\n[telemetry]\naccess_log = \"off\"\n");
        }
        whole
    }

    /// Replaces the document as an editor would, in one rename.
    pub fn write(&self, toml: &str) {
        let draft = self.folder.path().join("gateway.toml.draft");
        fs::write(&draft, toml).expect("the test's own folder can be written");
        fs::rename(&draft, self.file()).expect("a rename within one folder");
    }

    /// Replaces the document by this one, completed.
    pub fn edit(&self, toml: &str) {
        self.write(&self.completed(toml));
    }

    /// `run` on the document; returns once it serves.
    pub fn run(&self) -> Process {
        Process::start([OsStr::new("run"), self.file().as_os_str()]).serving()
    }

    /// `upgrade` on the document; returns once the new process serves.
    pub fn upgrade(&self) -> Process {
        Process::start([OsStr::new("upgrade"), self.file().as_os_str()]).serving()
    }

    /// A command that ends by itself, on the document.
    pub fn command(&self, before: &[&str], after: &[&str]) -> Finished {
        finish(
            Command::new(PROGRAM)
                .args(before)
                .arg(self.file())
                .args(after),
        )
    }
}

/// An address of loopback that this process has not given out before, and that other test processes do not use.
fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (pid, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    assert!(next < 240, "no test file needs so many");
    format!("127.{}.{}.{}", next + 10, (pid >> 8) & 0xff, pid & 0xff)
}

/// A running gateway; killed when dropped.
pub struct Process {
    child: Child,
    words: Arc<Words>,
    lines: Option<std::thread::JoinHandle<()>>,
}

/// What the process has said on standard error so far.
#[derive(Default)]
struct Words {
    said: Mutex<Said>,
    changed: Condvar,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    ended: bool,
}

impl Words {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    pub fn start(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Process {
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program was built for this test");
        let stderr = child.stderr.take().expect("piped above");
        let words = Arc::new(Words::default());
        let theirs = words.clone();
        let lines = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                theirs.lock().lines.push(line);
                theirs.changed.notify_all();
            }
            theirs.lock().ended = true;
            theirs.changed.notify_all();
        });
        Process {
            child,
            words,
            lines: Some(lines),
        }
    }

    /// Waits until it says that it serves.
    pub fn serving(self) -> Process {
        self.wait_for_line("admin on http://");
        self
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything said so far.
    pub fn said(&self) -> String {
        self.words.lock().lines.join("\n")
    }

    /// The first line that contains this; waits for it, and fails the test when the process ends without it.
    pub fn wait_for_line(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.words.lock();
        loop {
            if let Some(line) = said.lines.iter().find(|line| line.contains(part)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !said.ended && !left.is_zero(),
                "the process never says {part:?}; it said:\n{}",
                said.lines.join("\n")
            );
            let waited = self.words.changed.wait_timeout(said, left);
            said = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The real address of the listener `in`.
    pub fn address(&self) -> SocketAddr {
        self.listener("in")
    }

    /// From `serving NAME on ADDRESS`.
    pub fn listener(&self, name: &str) -> SocketAddr {
        let start = format!("serving {name} on ");
        let line = self.wait_for_line(&start);
        let address = line.strip_prefix(&start).expect("found by it");
        address.parse().expect("an address stands there")
    }

    pub fn admin(&self) -> SocketAddr {
        let line = self.wait_for_line("admin on http://");
        let rest = line.split("http://").nth(1).unwrap_or_default();
        let address = rest.split([' ', '/']).next().unwrap_or_default();
        address.parse().expect("an address stands there")
    }

    /// One request to the admin address.
    pub fn ask(&self, line: &str) -> Response {
        ask(self.admin(), line)
    }

    pub fn status(&self) -> serde_json::Value {
        let response = self.ask("GET /status");
        assert_eq!(response.status, 200, "{response:?}");
        serde_json::from_slice(&response.body)
            .unwrap_or_else(|error| panic!("{error}: {response:?}"))
    }

    /// A series without labels, by name.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.ask("GET /metrics").text();
        let line = page
            .lines()
            .find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no series {name} in:\n{page}"));
        let value = line.split(' ').nth(1).unwrap_or_default();
        value.parse().expect("a number")
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// One GET on a connection of its own.
    pub fn get(&self, target: &str) -> Response {
        self.client().get(target)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a child has an id");
        kill_process(pid, signal).expect("our own child may be signalled");
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_some()
    }

    /// Waits for the end.
    pub fn end(mut self) -> Finished {
        let deadline = Instant::now() + PATIENCE * 2;
        let code = loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                break status.code();
            }
            assert!(
                Instant::now() < deadline,
                "the process does not end; it said:\n{}",
                self.said()
            );
            breathe();
        };
        if let Some(lines) = self.lines.take() {
            lines.join().expect("reading does not panic");
        }
        Finished {
            code,
            stdout: String::new(),
            stderr: self.said(),
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(self) -> Finished {
        self.signal(Signal::TERM);
        self.end()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// One request to an admin address.
pub fn ask(admin: SocketAddr, line: &str) -> Response {
    Client::connect(admin).request(line, &["Connection: close"])
}

/// Between two looks at a condition that nobody announces.
fn breathe() {
    std::thread::sleep(Duration::from_millis(2));
}

/// A line that the test runner does not swallow.
pub fn tell(line: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "{line}");
}

/// A document with one listener `in`, a route `all` for everything to the upstream `app`, and further sections. Its time-out,
/// unless it names one, is such as no machine reaches by standing still.
pub fn document(upstream: SocketAddr, route: &str, more: &str) -> String {
    let patient = match route.contains("timeout") {
        true => "",
        false => "timeout = \"60s\"\n",
    };
    format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"app\"\n{patient}{route}\n\n\
         [[upstream]]\nname = \"app\"\nendpoints = [\"{upstream}\"]\n\n{more}\n"
    )
}

/// A route that answers `path` by itself.
pub fn answering(path: &str, body: &str) -> String {
    format!(
        "[[route]]\nname = \"{path}\"\nmatch = {{ path = \"{path}\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n\n"
    )
}

/// The line of a document on which this text stands, counted from 1.
pub fn line_of(toml: &str, text: &str) -> usize {
    let line = toml.lines().position(|line| line.contains(text));
    line.unwrap_or_else(|| panic!("the document has no {text:?}")) + 1
}
