//! One part of the system, in a process of its own: this program again, as `tollgate part …`. Its first line on standard
//! output says where it listens or why it does not; everything else that it says is in its log.
//!
//! A part is in a process group of its own, so that Ctrl-C reaches only us and parts end in the right order; it ends by
//! itself when we die, and is killed when its handle is dropped.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tollgate_engine::process::exit;

use super::Failure;

/// From a process's start to its first line; a machine may be busy.
const START: Duration = Duration::from_secs(60);
/// From SIGTERM to SIGKILL: longer than any part drains.
const STOP: Duration = Duration::from_secs(40);
/// Of a log, how much is shown.
const TAIL: usize = 8;

/// A part that runs.
pub(super) struct Part {
    pub(super) name: &'static str,
    child: Child,
    log: PathBuf,
    /// What its first line said.
    pub(super) says: Value,
}

/// What a part says first: where it listens.
pub(super) fn ready(facts: &Value) {
    println!("{facts}");
}

/// What a part says first when it cannot start: why, and with which exit code it ends.
pub(super) fn unready((message, code): &Failure) {
    println!("{}", json!({ "failed": message, "code": code }));
}

impl Part {
    /// Starts it, and waits for its first line.
    pub(super) async fn start(
        name: &'static str,
        arguments: &[String],
        logs: &Path,
    ) -> Result<Part, Failure> {
        let cannot = |error: io::Error| (format!("{name} cannot start: {error}"), exit::FAILURE);
        let log = logs.join(format!("{name}.log"));
        let mut child = Command::new(std::env::current_exe().map_err(cannot)?)
            .args(["part", name])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(appended(&log).map_err(cannot)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(cannot)?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            let mut output = BufReader::new(output);
            // A part that ends, or says nothing, has left us an empty line.
            let _ended = timeout(START, output.read_line(&mut line)).await;
        }
        let says: Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(why) = says["failed"].as_str() {
            let code = says["code"].as_u64().and_then(|code| code.try_into().ok());
            return Err((why.to_owned(), code.unwrap_or(exit::FAILURE)));
        }
        if says.is_null() {
            let how = match child.try_wait() {
                Ok(Some(status)) => format!("ended: {status}"),
                _ => format!("said nothing for {} s", START.as_secs()),
            };
            let message = format!(
                "{name} {how}\n  = its log, {}:\n{}",
                log.display(),
                tail(&log)
            );
            return Err((message, exit::FAILURE));
        }
        Ok(Part {
            name,
            child,
            log,
            says,
        })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it has ended by itself; says how, with the end of its log.
    pub(super) async fn ended(&mut self) -> String {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        format!(
            "{} ended by itself ({how}); its log, {}:\n{}",
            self.name,
            self.log.display(),
            tail(&self.log)
        )
    }

    /// Asks it to end, and waits; kills it when it does not.
    pub(super) async fn stop(mut self) -> Option<ExitStatus> {
        self.tell(Signal::TERM);
        match timeout(STOP, self.child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                let _gone = self.child.kill().await;
                None
            }
        }
    }

    /// Sends a signal, unless it has ended.
    pub(super) fn tell(&self, signal: Signal) {
        let pid = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        if let Some(pid) = pid {
            let _gone = kill_process(pid, signal);
        }
    }
}

fn appended(log: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(log)
}

/// The end of a log, indented.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL);
    let lines = lines.iter().skip(from).map(|line| format!("    {line}\n"));
    lines.collect()
}
