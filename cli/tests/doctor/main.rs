//! `tollgate doctor` against what is wrong, one thing at a time and all of it at once: the real program, real files, sockets and
//! control planes. Each test names the words that tell and the exit code.

mod control;
mod files;
mod machine;
mod mesh;

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tollgate_engine::testing::PATIENCE;

/// A folder with what a doctor is shown.
struct Ward {
    folder: tempfile::TempDir,
}

/// What a doctor said.
struct Report {
    code: i32,
    report: Value,
}

impl Ward {
    fn new() -> Ward {
        Ward {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("written");
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.arg("doctor").args(arguments);
        command.current_dir(&self.folder);
        for name in ["CONTROL", "TOKEN", "TOKEN_FILE", "CA", "CERT", "KEY"] {
            command.env_remove(format!("TOLLGATE_{name}"));
        }
        command
    }

    /// Nothing that the machine's slowness decides: the limit of a check is out of reach.
    fn doctor(&self, arguments: &[&str]) -> Report {
        let mut command = self.command(arguments);
        command.args(["--json", "--timeout", "5m"]);
        let output = command.output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let words = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_str(&text);
        Report {
            code: output.status.code().expect("no signal"),
            report: report.unwrap_or_else(|error| panic!("{error}\n{text}\n{words}")),
        }
    }
}

impl Report {
    fn findings(&self) -> impl Iterator<Item = &Value> {
        let sections = self.report["sections"].as_array().expect("sections");
        let all = sections.iter().map(|section| &section["findings"]);
        all.flat_map(|findings| findings.as_array().expect("findings"))
    }

    /// The finding of this verdict that says all of this.
    #[track_caller]
    fn says(&self, verdict: &str, words: &[&str]) -> &Value {
        let mut all = self.findings();
        let found = all.find(|finding| {
            let text = finding.to_string();
            finding["verdict"] == verdict && words.iter().all(|word| text.contains(word))
        });
        found.unwrap_or_else(|| panic!("no {verdict} with {words:?}\n{:#}", self.report))
    }

    #[track_caller]
    fn ends_with(&self, code: i32) {
        assert_eq!(self.code, code, "{:#}", self.report);
    }
}

/// Somebody who answers every request with this head and body, and keeps what was sent. Ends with its process: a thread that waits
/// for the next client harms nobody.
struct Scripted {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Scripted {
    fn answers(
        answer: impl Fn() -> String + Clone + Send + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = heard.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (answer, kept, tls) = (answer.clone(), kept.clone(), tls.clone());
                std::thread::spawn(move || serve(socket, &answer, &kept, tls));
            }
        });
        Scripted { address, heard }
    }

    fn heard(&self) -> String {
        let heard = self.heard.lock().expect("nobody panics with it");
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// One request; whoever leaves early is nobody's mistake.
fn serve(
    socket: TcpStream,
    answer: &dyn Fn() -> String,
    kept: &Mutex<Vec<u8>>,
    tls: Option<Arc<rustls::ServerConfig>>,
) {
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut plain;
    let mut secured;
    let stream: &mut dyn ReadWrite = match tls {
        None => {
            plain = socket;
            &mut plain
        }
        Some(config) => {
            let connection = rustls::ServerConnection::new(config).expect("a config");
            secured = rustls::StreamOwned::new(connection, socket);
            &mut secured
        }
    };
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    kept.lock().expect("nobody panics with it").extend(&head);
    let _whoever_asked_may_be_gone = stream.write_all(answer().as_bytes());
    let _the_same = stream.flush();
}

trait ReadWrite: std::io::Read + std::io::Write {}
impl<T: std::io::Read + std::io::Write> ReadWrite for T {}

/// What a control plane says of its health, by a clock that says this.
fn healthy(date: u64) -> String {
    let body = r#"{"status":"healthy","service":"control-plane","version":"0.1.0","checks":{}}"#;
    let date = tollgate_engine::clock::http_date(date);
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn now() -> u64 {
    tollgate_engine::clock::unix_seconds(std::time::SystemTime::now())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn where_there_is_nothing_nothing_is_wrong_and_it_says_how_to_name_something() {
    let ward = Ward::new();
    let report = ward.doctor(&["--only", "files,identity"]);
    report.ends_with(0);
    let note = report.report["sections"][0]["note"].as_str();
    assert!(note.expect("a note").contains("tollgate doctor FILE"));
}

#[test]
fn misuse_is_told_and_ends_with_2() {
    let ward = Ward::new();
    for (arguments, words) in [
        (&["--only", "service"][..], "--service"),
        (&["--timeout", "1ms"], "100ms"),
        (&["--control", "ftp://a:1"], "https://HOST:PORT"),
        (&["--token-file", "nowhere"], "nowhere"),
    ] {
        let output = ward.command(arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(words), "{told}");
    }
}
