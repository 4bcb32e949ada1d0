//! The sidecar as an operator meets it: the real program in a process of its own, its words, its exit code. What the
//! application says on the network is said by the test; what it does as a process is a few lines of shell.
//!
//! Whoever waits, waits for a condition under one hard limit. Whatever was started is killed when its handle is dropped.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;
use tollgate_engine::testing::client::{Client, Response};

/// The longest that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any test: what waits for so long does not end by itself.
pub(crate) const FOREVER: &str = "1h";

/// A folder with a sidecar's file, for an application at this address.
pub(crate) struct Site {
    folder: TempDir,
    /// Of loopback, and nobody else's: a port that was closed here is opened by nobody.
    own: String,
}

impl Site {
    /// `service` are further keys of `[service]`, and `more` is what follows.
    pub(crate) fn new(app: SocketAddr, service: &str, more: &str) -> Site {
        let site = Site {
            folder: tempfile::tempdir().expect("the folder for temporary files"),
            own: own_address(),
        };
        site.write(&site.text(app, service, more));
        site
    }

    pub(crate) fn text(&self, app: SocketAddr, service: &str, more: &str) -> String {
        let own = &self.own;
        let mut text = format!(
            "[service]\nname = \"orders\"\napp = \"{app}\"\n{service}\n\n[inbound]\nbind = \"{own}:0\"\n\n\
             [outbound]\nbind = \"{own}:0\"\n\n{more}\n"
        );
        if !more.contains("[server]") {
            text.push_str("[server]\n");
        }
        text = text.replace(
            "[server]\n",
            "[server]\nadmin = \"127.0.0.1:0\"\nworkers = 1\n",
        );
        text.push_str("[telemetry]\naccess_log = \"off\"\n");
        text
    }

    pub(crate) fn write(&self, text: &str) {
        let draft = self.path("sidecar.toml.draft");
        fs::write(&draft, text).expect("the test's own folder");
        fs::rename(&draft, self.file()).expect("a rename within one folder");
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.path("sidecar.toml")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the application has written into a file of this name.
    pub(crate) fn said(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until the application has written this.
    pub(crate) fn hears(&self, name: &str, word: &str) -> String {
        until(&format!("`{word}` in {name}"), || {
            self.said(name).contains(word)
        });
        self.said(name)
    }

    /// Lets the application go on, which waits for a file of this name.
    pub(crate) fn go(&self, name: &str) {
        fs::write(self.path(name), "go").expect("the test's own folder");
    }

    pub(crate) fn run(&self) -> Sidecar {
        Sidecar::start(
            self.folder(),
            [OsStr::new("run"), self.file().as_os_str()],
            &[],
        )
    }

    /// `exec` with options of its own, and a script for the application.
    pub(crate) fn exec(&self, options: &[&str], script: &str) -> Sidecar {
        self.exec_words(options, &["sh", "-c", script])
    }

    pub(crate) fn exec_words(&self, options: &[&str], words: &[&str]) -> Sidecar {
        let file = self.file();
        let mut all = vec![OsStr::new("exec"), file.as_os_str()];
        all.extend(options.iter().map(OsStr::new));
        all.push(OsStr::new("--"));
        all.extend(words.iter().map(OsStr::new));
        Sidecar::start(self.folder(), all, &[("TOLLGATE_JOIN_TOKEN", "a secret")])
    }
}

/// A sidecar's process; killed when dropped.
pub(crate) struct Sidecar {
    child: Child,
    words: Arc<Mutex<String>>,
}

impl Sidecar {
    pub(crate) fn start<'a>(
        folder: &Path,
        words: impl IntoIterator<Item = &'a OsStr>,
        variables: &[(&str, &str)],
    ) -> Sidecar {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate-sidecar"))
            .args(words)
            .envs(variables.iter().copied())
            .env_remove("http_proxy")
            .env_remove("no_proxy")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let heard = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().expect("it was asked for"));
        let theirs = heard.clone();
        // Ends with the last process that holds the other end.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut heard = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        Sidecar {
            child,
            words: heard,
        }
    }

    pub(crate) fn words(&self) -> String {
        self.words
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn says(&mut self, word: &str) -> String {
        let begin = Instant::now();
        while !self.words().contains(word) {
            let ended = self.child.try_wait().expect("our child");
            assert!(
                begin.elapsed() < PATIENCE && ended.is_none(),
                "no `{word}` ({ended:?}) in:\n{}",
                self.words()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        self.words()
    }

    /// Where a listener listens.
    pub(crate) fn listener(&mut self, name: &str) -> SocketAddr {
        self.address(&format!("serving {name} on "))
    }

    pub(crate) fn admin(&mut self) -> SocketAddr {
        self.address("admin on http://")
    }

    fn address(&mut self, before: &str) -> SocketAddr {
        // Behind all of them, so that the line is whole.
        let words = self.says("(health/ready");
        let line = words.lines().find_map(|line| line.strip_prefix(before));
        let word = line.and_then(|rest| rest.split(' ').next());
        word.and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no {before}:\n{words}"))
    }

    pub(crate) fn ask(&mut self, line: &str) -> Response {
        Client::connect(self.admin()).request(line, &["Connection: close"])
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn tell(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it lives");
    }

    pub(crate) fn ends(&mut self) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it goes on:\n{}", self.words());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub(crate) fn ends_with(&mut self, code: i32) {
        let status = self.ends();
        assert_eq!(status.code(), Some(code), "{status}:\n{}", self.words());
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Asked first: whoever kills a parent leaves its children alone.
            for _ in 0..3 {
                let _ended = kill_process(self.pid(), Signal::TERM);
            }
            let begin = Instant::now();
            while let Ok(None) = self.child.try_wait() {
                if begin.elapsed() > Duration::from_secs(10) {
                    let _ended = self.child.kill();
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _reaped = self.child.wait();
        }
    }
}

/// An address of loopback that this process has not given out before, and that other processes do not use.
fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(130);
    let (pid, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    assert!(next < 250, "no test file needs so many");
    format!("127.{next}.{}.{}", (pid >> 8) & 0xff, pid & 0xff)
}

pub(crate) fn until(what: &str, is: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < PATIENCE, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether nobody listens there any more.
pub(crate) fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

/// Whether a process is there, or waits to be reaped.
pub(crate) fn is_there(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}
