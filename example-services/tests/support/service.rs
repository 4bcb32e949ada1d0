//! A service's program, started by a test on ports that the system chose.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// `curl`: the status, and the body when it is JSON.
pub(crate) fn curl(arguments: &[&str]) -> (u16, serde_json::Value) {
    let out = Command::new("curl")
        .args([
            "--silent",
            "--max-time",
            "180",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (
        status.parse().unwrap(),
        serde_json::from_str(body).unwrap_or_default(),
    )
}

/// A process that serves. Killed when this is dropped.
pub(crate) struct Program {
    process: Child,
    pub(crate) http: String,
    pub(crate) grpc: String,
    /// The log: what is said after the addresses. Somebody reads it all the time, so that nobody waits to write.
    lines: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Program {
    /// Starts one with these settings besides ports, and waits until it says that it listens.
    pub(crate) fn start(program: &str, settings: &[&str]) -> Self {
        let mut process = Command::new(program)
            .args([
                "--http",
                "127.0.0.1:0",
                "--grpc",
                "127.0.0.1:0",
                "--log-level",
                "warn",
                "--database-patience",
                "60s",
            ])
            .args(settings)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let told = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| line.starts_with("{\"grpc\"") || line.contains("\"listening\""))
            .expect("the program ended before it listened");
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let lines = std::thread::spawn(move || {
            let tell = |line: &String| eprintln!("{line}");
            lines.map_while(Result::ok).inspect(tell).collect()
        });
        Self {
            process,
            http: format!("http://{}", told["http"].as_str().unwrap()),
            grpc: format!("http://{}", told["grpc"].as_str().unwrap()),
            lines: Some(lines),
        }
    }

    /// The whole log, once the program has ended.
    pub(crate) fn log(&mut self) -> Vec<String> {
        self.lines.take().unwrap().join().unwrap()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }

    /// SIGTERM, and waits for its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(self.process.id() as i32)?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok()?;
        self.process.wait().ok()?.code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
