//! A gateway in a process of its own, for tests that read what it costs or limit what it may have.
//!
//! The process is the test program itself, started again for one test, which must be named `GUEST` and call
//! `serve_if_asked`; called in the ordinary way that test does nothing. The process ends with its handle.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::gateway::Gateway;

/// The test that a test program must have to be started again.
pub const GUEST: &str = "a_gateway_for_the_others";

const DOCUMENT: &str = "TOLLGATE_TEST_DOCUMENT";
const TOLD: &str = "serving ";

/// Serves the document that the environment holds until the input ends; nothing without one.
pub fn serve_if_asked() {
    let Ok(toml) = std::env::var(DOCUMENT) else {
        return;
    };
    let gateway = Gateway::start(&toml);
    println!("\n{TOLD}{}", gateway.address());
    let mut line = String::new();
    let _ended = std::io::stdin().read_line(&mut line);
}

/// A gateway apart; stopped when dropped.
pub struct Apart {
    process: Child,
    /// Kept open, so that it can say its last words.
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Apart {
    pub fn start(toml: &str) -> Apart {
        Apart::start_with(toml, "true")
    }

    /// With at most so many open files.
    pub fn with_files(toml: &str, files: u32) -> Apart {
        Apart::start_with(toml, &format!("ulimit -n {files}"))
    }

    /// In the control group whose list of processes this is; `None` where nobody may be put into it.
    pub fn in_group(toml: &str, processes: &Path) -> Option<Apart> {
        let list = processes.display();
        let moved = Command::new("sh")
            .args(["-c", &format!("echo $$ > {list}")])
            .status()
            .is_ok_and(|status| status.success());
        moved.then(|| Apart::start_with(toml, &format!("echo $$ > {list}")))
    }

    fn start_with(toml: &str, before: &str) -> Apart {
        let program = std::env::current_exe().expect("this program has a path");
        let script = format!("{before}; exec \"$0\" --exact {GUEST} --nocapture");
        let mut process = Command::new("sh")
            .args(["-c", &script])
            .arg(program)
            .env(DOCUMENT, toml)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        let mut output = BufReader::new(process.stdout.take().expect("piped"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            let read = output.read_line(&mut line).expect("text");
            assert_ne!(read, 0, "it ended without telling its address");
            if let Some(address) = line.strip_prefix(TOLD) {
                break address.trim().parse().expect("an address");
            }
        };
        Apart {
            process,
            output,
            address,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads a file of `/proc/PID`.
    pub fn read(&self, name: &str) -> String {
        let path = format!("/proc/{}/{name}", self.process.id());
        std::fs::read_to_string(path).expect("it lives")
    }

    /// Writes a file of `/proc/PID`.
    pub fn write(&self, name: &str, text: &str) {
        let path = format!("/proc/{}/{name}", self.process.id());
        std::fs::write(path, text).expect("its files are ours to write");
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(mut input) = self.process.stdin.take() {
            let _gone = input.write_all(b"end\n");
        }
        let mut last_words = String::new();
        let _told = self.output.read_to_string(&mut last_words);
        let _ended = self.process.wait();
    }
}
