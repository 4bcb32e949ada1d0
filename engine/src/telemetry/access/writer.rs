//! The one thread that writes the access log. Whatever becomes of its file or pipe, the process goes on: lines that
//! cannot be written are counted, and the count is a line of its own as soon as one can be written again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use tollgate_config::AccessLog as Target;

use super::{KEPT, Shared};
use crate::telemetry::json::{Clock, number};
use crate::telemetry::log::{self, Repeated};

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    Lines {
        bytes: Vec<u8>,
        lines: u32,
    },
    /// Look at the flags.
    Wake,
    /// All jobs before this one are done.
    Report(SyncSender<()>),
}

/// Where lines go.
pub(super) enum Sink {
    Off,
    Stdout,
    File {
        path: PathBuf,
        file: File,
    },
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

impl Sink {
    pub(super) fn open(target: &Target) -> io::Result<Self> {
        Ok(match target {
            Target::Off => Sink::Off,
            Target::Stdout => Sink::Stdout,
            Target::File(path) => Sink::File {
                path: path.clone(),
                file: append(path)?,
            },
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Off => Ok(bytes.len()),
            // Not through the standard library's line buffer: what is given is whole lines already.
            Sink::Stdout => Ok(rustix::io::write(io::stdout(), bytes)?),
            Sink::File { file, .. } => file.write(bytes),
            #[cfg(test)]
            Sink::Test(sink) => sink.write(bytes),
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot open the access log {}: {error}", path.display()),
            )
        })
}

pub(super) struct Writer {
    sink: Sink,
    jobs: Receiver<Job>,
    shared: Arc<Shared>,
    /// How many of the dropped lines the log has told of.
    told: u64,
    /// The last write ended within a line.
    torn: bool,
}

impl Writer {
    pub(super) fn new(sink: Sink, jobs: Receiver<Job>, shared: Arc<Shared>) -> Self {
        Writer {
            sink,
            jobs,
            shared,
            told: 0,
            torn: false,
        }
    }

    pub(super) fn run(mut self) {
        while let Ok(job) = self.jobs.recv() {
            self.follow_flags();
            match job {
                Job::Lines { bytes, lines } => {
                    self.tell_dropped();
                    self.write(&bytes, u64::from(lines));
                    self.give_back(bytes);
                }
                Job::Wake => {}
                Job::Report(done) => {
                    self.tell_dropped();
                    let _nobody_waits_any_more = done.try_send(());
                }
            }
        }
        self.tell_dropped();
    }

    fn follow_flags(&mut self) {
        if let Some(sink) = self
            .shared
            .target
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            (self.sink, self.torn) = (sink, false);
        }
        if self.shared.reopen.swap(false, Relaxed)
            && let Sink::File { path, file } = &mut self.sink
        {
            match append(path) {
                Ok(opened) => (*file, self.torn) = (opened, false),
                // Better into the old file than nowhere.
                Err(error) => crate::telemetry::log::error(&error.to_string(), &[]),
            }
        }
    }

    /// Writes whole lines, `lines` of them; counts them as dropped when they cannot be written.
    fn write(&mut self, bytes: &[u8], lines: u64) -> bool {
        static BROKEN: Repeated = Repeated::new();
        // Sets off what remains of a line that broke off.
        let mut rest = if self.torn { &b"\n"[..] } else { bytes };
        let mut begun = !self.torn;
        while !rest.is_empty() {
            match self.sink.write(rest) {
                Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A terminal or pipe that somebody else set to non-blocking: wait for it as it would have done.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::park_timeout(std::time::Duration::from_millis(5));
                }
                result => {
                    let whole =
                        bytes
                            .len()
                            .saturating_sub(if begun { rest.len() } else { bytes.len() });
                    let whole = bytes.get(..whole).unwrap_or_default();
                    let complete = whole.iter().filter(|byte| **byte == b'\n').count() as u64;
                    self.torn = !begun || whole.last().is_some_and(|byte| *byte != b'\n');
                    self.shared
                        .dropped
                        .fetch_add(lines.saturating_sub(complete), Relaxed);
                    let error = result
                        .err()
                        .map_or_else(|| "nothing was taken".to_owned(), |error| error.to_string());
                    BROKEN.error(
                        "the access log cannot be written, its lines are lost",
                        &[("error", &error)],
                    );
                    return false;
                }
            }
            if rest.is_empty() && !begun {
                (rest, begun) = (bytes, true);
            }
        }
        self.torn = false;
        true
    }

    fn tell_dropped(&mut self) {
        let dropped = self.shared.dropped.load(Relaxed);
        let untold = dropped.wrapping_sub(self.told);
        if untold == 0 {
            return;
        }
        let mut line = b"{\"timestamp\":".to_vec();
        Clock::default().write(&mut line, SystemTime::now());
        line.extend_from_slice(b",\"level\":\"warn\",\"service\":\"");
        line.extend_from_slice(log::service().as_bytes());
        line.extend_from_slice(b"\",\"message\":\"access log lines dropped\",\"dropped\":");
        number(&mut line, untold);
        line.extend_from_slice(b"}\n");
        // The line itself is none of those it counts.
        if self.write(&line, 0) {
            self.told = dropped;
        }
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        if bytes.capacity() <= KEPT
            && let Ok(mut spare) = self.shared.spare.try_lock()
            && spare.len() < super::WAITING
        {
            bytes.clear();
            spare.push(bytes);
        }
    }
}
