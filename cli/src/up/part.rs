//! One part of the system, in a process of its own: this program again, as `tollgate part …`. A line on its standard output
//! says where it listens or why it does not; everything else that it says is in its log.
//!
//! A part is in a process group of its own, so that Ctrl-C reaches only us and parts end in the right order; it ends by
//! itself when we die, and is killed when its handle is dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use tollgate_engine::process::exit;

use super::Failure;

/// From a process's start to the line that says where it listens; a machine may be busy.
const START: Duration = Duration::from_secs(60);
/// From SIGTERM to SIGKILL: longer than any part drains.
const STOP: Duration = Duration::from_secs(40);
/// Of a log, how many lines are shown.
const TAIL: usize = 8;

/// A part that runs.
pub(super) struct Part {
    pub(super) name: &'static str,
    child: Child,
    log: PathBuf,
    /// Where it listens.
    pub(super) says: Value,
}

/// How a part is started.
pub(super) struct Start<'a> {
    pub(super) arguments: Vec<String>,
    pub(super) variables: Vec<(&'static str, String)>,
    pub(super) logs: &'a Path,
}

/// Says where a part listens.
pub(super) fn ready(name: &str, mut facts: Value) {
    facts["listening"] = name.into();
    println!("{facts}");
}

/// Says why a part does not start, and with which exit code it ends.
pub(super) fn unready((message, code): &Failure) {
    println!("{}", json!({ "failed": message, "code": code }));
}

impl Part {
    /// Starts it, and waits until it listens.
    pub(super) async fn start(name: &'static str, how: Start<'_>) -> Result<Part, Failure> {
        let cannot = |error: io::Error| (format!("{name} cannot start: {error}"), exit::FAILURE);
        let log = how.logs.join(format!("{name}.log"));
        let mut child = Command::new(std::env::current_exe().map_err(cannot)?)
            .args(["part", name])
            .args(how.arguments)
            .envs(how.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(appended(&log).map_err(cannot)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(cannot)?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe.into());
        let mut lines = BufReader::new(output.map_err(cannot)?).lines();
        let told = timeout(START, first_word(&mut lines, &log)).await;
        let says = told.unwrap_or_default();
        if let Some(why) = says["failed"].as_str() {
            let code = says["code"].as_u64().and_then(|code| code.try_into().ok());
            return Err((why.to_owned(), code.unwrap_or(exit::FAILURE)));
        }
        if says.is_null() {
            let how = match timeout(Duration::from_secs(1), child.wait()).await {
                Ok(Ok(status)) => format!("ended: {status}"),
                _ => format!("did not say within {} s where it listens", START.as_secs()),
            };
            let message = format!(
                "{name} {how}\n  = its log, {}:\n{}",
                log.display(),
                tail(&log)
            );
            return Err((message, exit::FAILURE));
        }
        let copied = log.clone();
        // Ends with the process.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                note(&copied, &line);
            }
        });
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
        let (log, tail) = (self.log.display(), tail(&self.log));
        format!(
            "{} ended by itself ({how}); its log, {log}:\n{tail}",
            self.name
        )
    }

    /// Whether it has ended by itself.
    pub(super) fn is_over(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, and waits; kills it when it does not.
    pub(super) async fn stop(mut self) -> Option<ExitStatus> {
        let pid = self.child.id();
        let pid = pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        if let Some(pid) = pid {
            let _gone = kill_process(pid, Signal::TERM);
        }
        match timeout(STOP, self.child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                let _gone = self.child.kill().await;
                None
            }
        }
    }
}

/// What it says of itself; `Null` when it ends before.
async fn first_word(lines: &mut Lines<BufReader<ChildStdout>>, log: &Path) -> Value {
    while let Ok(Some(line)) = lines.next_line().await {
        let says: Value = serde_json::from_str(&line).unwrap_or_default();
        if says["listening"].is_string() || says["failed"].is_string() {
            return says;
        }
        note(log, &line);
    }
    Value::Null
}

fn appended(log: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(log)
}

/// A log that cannot be written stops nothing.
fn note(log: &Path, line: &str) {
    let _full = appended(log).and_then(|mut file| writeln!(file, "{line}"));
}

/// The end of a log, indented.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL);
    let lines = lines.iter().skip(from).map(|line| format!("    {line}\n"));
    lines.collect()
}
