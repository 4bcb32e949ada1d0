//! The process as its surroundings see it: the signals it obeys and the codes it exits with. Decides nothing: what
//! stopping or reloading means belongs to whoever waits here, on the control thread.

use std::io;
use std::process::ExitCode;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Exit codes. They are stable: scripts and supervisors depend on them.
pub mod exit {
    /// All went well; every exchange was completed.
    pub const OK: u8 = 0;
    /// Something failed that has no code of its own.
    pub const FAILURE: u8 = 1;
    /// The document, or the command line, is not valid; nothing was started.
    pub const BAD_DOCUMENT: u8 = 2;
    /// An address to listen on is in use or may not be used.
    pub const ADDRESS_IN_USE: u8 = 3;
    /// The time to drain was over and exchanges were cut.
    pub const CUT: u8 = 4;
}

/// The code for an error from binding an address.
pub fn exit_code_of_bind(error: &io::Error) -> ExitCode {
    match error.kind() {
        io::ErrorKind::AddrInUse
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::PermissionDenied => ExitCode::from(exit::ADDRESS_IN_USE),
        _ => ExitCode::from(exit::FAILURE),
    }
}

/// How much less urgent the control thread is than a worker. Where both want one core, it still gets a tenth of it.
const CONTROL_NICENESS: i32 = 10;

/// Lets this thread, and those that it starts from now on, give way to the others: a reload that shares a core with a
/// worker then takes that core only when no request wants it.
pub fn give_way() {
    let _refused_means_equal = rustix::process::nice(CONTROL_NICENESS);
}

/// Asks for small pages: with huge ones the allocator's first touch of each arena costs two megabytes, and an idle
/// gateway ten. To be called first in `main`; where the kernel refuses, nothing is lost but memory.
pub fn modest_pages() {
    let _unsupported_means_bigger = rustix::thread::disable_transparent_huge_pages(true);
}

/// Does this as the process began: with the pages that it was given, which a process started here inherits.
pub fn with_usual_pages<T>(start: impl FnOnce() -> T) -> T {
    let _stays_as_it_is = rustix::thread::disable_transparent_huge_pages(false);
    let started = start();
    modest_pages();
    started
}

/// What someone outside asks of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SIGTERM or SIGINT: drain, then end. A second one means: now.
    Stop,
    /// SIGHUP: read the document again.
    Reload,
}

/// The signals of this process, from the moment it was made. One per process, on the control thread's runtime.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hang_up: Stream,
}

impl Signals {
    /// Takes the signals over. From here on none of them ends the process by itself.
    pub fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next request. May be dropped and called again; nothing is lost. Stopping goes before reloading.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            biased;
            Some(()) = self.terminate.recv() => Request::Stop,
            Some(()) = self.interrupt.recv() => Request::Stop,
            Some(()) = self.hang_up.recv() => Request::Reload,
            // A signal stream ends only with its runtime.
            else => Request::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn signals_become_requests() {
        let mut signals = Signals::new().unwrap();
        for (signal, request) in [
            (Signal::HUP, Request::Reload),
            (Signal::TERM, Request::Stop),
            (Signal::INT, Request::Stop),
        ] {
            kill_process(getpid(), signal).unwrap();
            assert_eq!(signals.next().await, request);
        }
    }

    #[test]
    fn a_taken_address_has_its_own_exit_code() {
        let taken = exit_code_of_bind(&io::ErrorKind::AddrInUse.into());
        assert_eq!(taken, ExitCode::from(exit::ADDRESS_IN_USE));
        let other = exit_code_of_bind(&io::ErrorKind::NotFound.into());
        assert_eq!(other, ExitCode::from(exit::FAILURE));
    }
}
