//! The application as a process: started in a group of its own, told signals, waited for. Whatever it leaves behind is
//! reaped here, and ended with it: its group is killed, and orphans come to us.

use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::rc::Rc;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpid, kill_process_group,
    set_child_subreaper, wait, waitid,
};
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tollgate_engine::process::with_usual_pages;

/// Exit codes of shells for programs that cannot be started.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// And for processes that a signal ended: this and its number.
const BY_SIGNAL: i32 = 128;

pub(crate) struct App {
    group: Group,
    children: Stream,
    code: Option<u8>,
}

/// Whom signals go to.
#[derive(Clone)]
pub(crate) struct Group {
    pid: Pid,
    /// From then on its number may be somebody else's.
    ended: Rc<Cell<bool>>,
}

impl Group {
    /// Tells all of them. What has ended is told nothing.
    pub(crate) fn tell(&self, signal: Signal) {
        if !self.ended.get() {
            let _ended_a_moment_ago = kill_process_group(self.pid, signal);
        }
    }
}

/// Why an application did not start, and the exit code that says so.
pub(crate) struct Unstarted {
    pub(crate) why: String,
    pub(crate) code: u8,
}

impl App {
    /// `variables`: of its environment, besides ours. `hidden`: ours that are none of its business.
    pub(crate) fn start(
        words: &[OsString],
        variables: &[(String, String)],
        hidden: &[&str],
    ) -> Result<App, Unstarted> {
        let (name, arguments) = words.split_first().ok_or_else(|| Unstarted {
            why: "no application is named".to_owned(),
            code: NOT_FOUND,
        })?;
        let shown = name.to_string_lossy();
        let children = signal(SignalKind::child()).map_err(|error| Unstarted {
            why: format!("its end could not be noticed: {error}"),
            code: NOT_EXECUTABLE,
        })?;
        // Where the kernel refuses, orphans go to the process that reaps them anyway.
        let _unsupported = set_child_subreaper(Some(getpid()));
        let mut command = Command::new(name);
        command
            .args(arguments)
            .envs(variables.iter().map(|(key, value)| (key, value)))
            .process_group(0);
        for name in hidden {
            command.env_remove(name);
        }
        let child = with_usual_pages(|| command.spawn());
        let child = child.map_err(|error| Unstarted {
            code: match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_EXECUTABLE,
            },
            why: match error.kind() {
                io::ErrorKind::NotFound => format!(
                    "{shown} is not there: name a program of PATH, or its path; is the interpreter of a script there?"
                ),
                io::ErrorKind::PermissionDenied => {
                    format!("{shown} may not be executed: is it a program, and executable for this user?")
                }
                _ => format!("{shown} cannot be started: {error}"),
            },
        })?;
        Ok(App {
            group: Group {
                pid: Pid::from_child(&child),
                ended: Rc::default(),
            },
            children,
            code: None,
        })
    }

    pub(crate) fn group(&self) -> Group {
        self.group.clone()
    }

    /// Its exit code once it has ended; children of children that came to us are reaped meanwhile. May be dropped and
    /// called again.
    pub(crate) async fn ended(&mut self) -> u8 {
        loop {
            if let Some(code) = self.reap() {
                return code;
            }
            // Signals of several children may come as one; so all are looked at.
            let _stream_lasts = self.children.recv().await;
        }
    }

    fn reap(&mut self) -> Option<u8> {
        if self.code.is_none() {
            // Looked at and left: as long as it is not reaped, its number and its group's are nobody else's.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            if let Ok(Some(_)) = waitid(WaitId::Pid(self.group.pid), options) {
                self.group.tell(Signal::KILL);
                self.group.ended.set(true);
            }
        }
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.group.pid {
                self.group.ended.set(true);
                self.code = Some(code_of(status));
            }
        }
        self.code
    }
}

impl Drop for App {
    /// Nothing that we started outlives us.
    fn drop(&mut self) {
        self.group.tell(Signal::KILL);
    }
}

fn code_of(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => BY_SIGNAL.saturating_add(signal),
        (None, None) => BY_SIGNAL,
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}
