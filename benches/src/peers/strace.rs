//! System calls for each request, counted by `strace -c` on a run of its own: tracing costs too much to be part of a
//! measured round.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::Stage;
use super::proxy::Proxy;
use crate::load::{Plan, Running};

/// Calls that move bytes between a process and its sockets.
const ON_SOCKETS: [&str; 10] = [
    "read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto", "sendmsg", "splice",
    "sendfile",
];

/// System calls for each request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Syscalls {
    pub(super) total: f64,
    pub(super) on_sockets: f64,
    /// Most frequent first.
    pub(super) by_name: Vec<(String, f64)>,
}

/// Counts the calls of a proxy while it serves the plan's requests.
pub(super) async fn count(stage: &Stage<'_>, proxy: &Proxy, plan: Plan) -> io::Result<Syscalls> {
    let file = proxy.front.directory.join("strace.txt");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-c", "-o"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let pids = proxy.pids()?;
    for pid in &pids {
        command.args(["-p", &pid.to_string()]);
    }
    let mut tracer = Tracer(command.spawn()?);
    let until = Instant::now() + Duration::from_secs(5);
    while !pids.iter().all(|pid| traced(*pid)) {
        if Instant::now() > until || tracer.0.try_wait()?.is_some() {
            return Err(io::Error::other(
                "strace could not attach; may this user trace processes?",
            ));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let requests = plan.requests;
    let mut running = Running::start(plan, Some(stage.settings.load_core))?;
    let summary = running.wait().await?;
    kill_process(Pid::from_child(&tracer.0), Signal::INT)?;
    let until = Instant::now() + Duration::from_secs(5);
    while tracer.0.try_wait()?.is_none() {
        if Instant::now() > until {
            return Err(io::Error::other("strace does not stop"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if summary.requests < requests / 2 {
        return Err(io::Error::other("too few requests under strace"));
    }
    Ok(parse(&fs::read_to_string(&file)?, summary.requests))
}

/// Whether every thread of a process has a tracer.
fn traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    })
}

/// Reads the table that `-c` writes: share, seconds, µs a call, calls, errors (may be absent), name.
fn parse(table: &str, requests: u64) -> Syscalls {
    let mut by_name = Vec::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [share, _, _, calls, .., name] = fields[..] else {
            continue;
        };
        let (Ok(_), Ok(calls)) = (share.parse::<f64>(), calls.parse::<u64>()) else {
            continue;
        };
        if name != "total" {
            by_name.push((name.to_owned(), calls as f64 / requests.max(1) as f64));
        }
    }
    by_name.sort_by(|one, two| two.1.total_cmp(&one.1));
    let sum = |of: &dyn Fn(&str) -> bool| {
        by_name
            .iter()
            .filter(|(name, _)| of(name))
            .map(|(_, calls)| calls)
            .sum()
    };
    Syscalls {
        total: sum(&|_| true),
        on_sockets: sum(&|name| ON_SOCKETS.contains(&name)),
        by_name,
    }
}

/// A running tracer; dropping it detaches it from the proxy.
struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            kill_process(Pid::from_child(&self.0), Signal::TERM).ok();
            drop(self.0.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_with_and_without_errors_in_a_line() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
             60.00    0.600000           3       200         7 recvfrom\n\
             30.00    0.300000           3       150           writev\n\
             10.00    0.100000           3        50           epoll_wait\n\
            ------ ----------- ----------- --------- --------- ----------------\n\
            100.00    1.000000           2       400         7 total\n";
        let calls = parse(table, 100);
        assert_eq!((calls.total, calls.on_sockets), (4.0, 3.5));
        assert_eq!(calls.by_name[0], ("recvfrom".to_owned(), 2.0));
    }
}
