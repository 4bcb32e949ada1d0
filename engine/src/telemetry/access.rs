//! The access log: one line of JSON per exchange (OBS-202, OBS-204), and per connection whose bytes are relayed, written off
//! the request path.
//!
//! Each worker formats into a buffer of its own and hands full ones to a writer thread over a bounded channel. A
//! worker never waits for the disk or the pipe behind it (OBS-207): when the channel is full the buffer's lines are
//! dropped and counted, and the log itself tells later how many. Paths are logged, query strings never: they hold
//! secrets (OBS-205). No field but those of [`Line`] and [`Relayed`] can get in.

mod line;
mod relayed;
mod writer;

use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tollgate_config::{AccessLog as Target, Telemetry};

use super::json::Clock;
use writer::{Job, Sink, Writer};

pub use line::{Failure, Line};
pub use relayed::Relayed;

/// A worker hands its buffer over when it holds this much; some hundred and sixty lines. Handing over wakes the writer,
/// which on a busy core costs two switches.
const FULL: usize = 64 * 1024;
/// Buffers that may wait for the writer: two megabytes, a second or so at ten thousand lines.
const WAITING: usize = 32;
/// Larger buffers, after a line with a huge path, are not kept.
const KEPT: usize = 2 * FULL;

/// The log of this process. Dropping it, and all its [`WorkerLog`]s, ends the writer thread.
#[derive(Debug)]
pub struct AccessLog {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
}

/// What workers, the writer and the admin address have in common.
#[derive(Debug)]
struct Shared {
    on: AtomicBool,
    /// The bits of the `f64`.
    sample: AtomicU64,
    /// Lines, ever. Also held by metrics.
    dropped: Arc<AtomicU64>,
    /// Where to write from the next job on; set by a reload.
    target: Mutex<Option<Sink>>,
    /// Open the file again before the next job.
    reopen: AtomicBool,
    /// Empty buffers on their way back to workers. Only ever tried, never waited for.
    spare: Mutex<Vec<Vec<u8>>>,
}

impl AccessLog {
    /// Opens the log. Fails when its file cannot be opened.
    pub fn start(telemetry: &Telemetry) -> io::Result<Self> {
        Self::with_sink(telemetry, Sink::open(&telemetry.access_log)?)
    }

    fn with_sink(telemetry: &Telemetry, sink: Sink) -> io::Result<Self> {
        let (jobs, received) = sync_channel(WAITING);
        let shared = Arc::new(Shared {
            on: AtomicBool::new(telemetry.access_log != Target::Off),
            sample: AtomicU64::new(telemetry.access_log_sample.to_bits()),
            dropped: Arc::default(),
            target: Mutex::default(),
            reopen: AtomicBool::new(false),
            spare: Mutex::default(),
        });
        let writer = Writer::new(sink, received, Arc::clone(&shared));
        // Ends when the last sender is gone; nobody joins it, as a stuck pipe must not hold up the process's end.
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run())?;
        Ok(AccessLog { jobs, shared })
    }

    /// A worker's end. `seed` is for sampling.
    pub fn worker(&self, seed: u64) -> WorkerLog {
        WorkerLog {
            jobs: self.jobs.clone(),
            shared: Arc::clone(&self.shared),
            buffer: Vec::new(),
            lines: 0,
            clock: Clock::default(),
            random: fastrand::Rng::with_seed(seed),
            not_send: PhantomData,
        }
    }

    /// Follows a reload; workers' ends stay as they are. When the new file cannot be opened nothing changes.
    pub fn change(&self, telemetry: &Telemetry) -> io::Result<()> {
        let sink = Sink::open(&telemetry.access_log)?;
        *self
            .shared
            .target
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(sink);
        self.shared
            .sample
            .store(telemetry.access_log_sample.to_bits(), Relaxed);
        self.shared
            .on
            .store(telemetry.access_log != Target::Off, Relaxed);
        self.wake();
        Ok(())
    }

    /// Opens the file again, for log rotation. Done by the writer before it writes anything else.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Relaxed);
        self.wake();
    }

    /// The counter behind `access_log_dropped_total`.
    pub fn dropped_counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.dropped)
    }

    /// Waits, not longer than `within`, until all that workers handed over is written; says whether it is. To be
    /// called at the end, after the workers' last `flush`, and on no worker.
    pub fn close(&self, within: Duration) -> bool {
        let (done, written) = sync_channel(1);
        let deadline = std::time::Instant::now() + within;
        let mut job = Job::Report(done);
        loop {
            match self.jobs.try_send(job) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if std::time::Instant::now() < deadline => job = back,
                Err(_) => return false,
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        written
            .recv_timeout(deadline.saturating_duration_since(std::time::Instant::now()))
            .is_ok()
    }

    /// A full channel is as good: the writer looks at its flags before each job.
    fn wake(&self) {
        let _full_or_woken = self.jobs.try_send(Job::Wake);
    }
}

/// One worker's end of the log; belongs to its thread. What it holds is handed over when it is dropped.
#[derive(Debug)]
pub struct WorkerLog {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    lines: u32,
    clock: Clock,
    random: fastrand::Rng,
    not_send: PhantomData<*const ()>,
}

impl WorkerLog {
    /// Whether lines are wanted at all; asked before a line is put together.
    pub fn is_on(&self) -> bool {
        self.shared.on.load(Relaxed)
    }

    /// Writes one line, unless the log is off or the sample leaves it out. 500 and above are always written.
    pub fn write(&mut self, line: &Line<'_>) {
        self.put(line.status >= 500, |out, clock| line.format(out, clock));
    }

    /// As `write`, of a connection whose bytes were relayed. Those that reached no endpoint are always written.
    pub fn write_relayed(&mut self, line: &Relayed<'_>) {
        self.put(line.error.is_some(), |out, clock| line.format(out, clock));
    }

    fn put(&mut self, always: bool, format: impl FnOnce(&mut Vec<u8>, &mut Clock)) {
        if !self.shared.on.load(Relaxed) {
            return;
        }
        if !always {
            let sample = f64::from_bits(self.shared.sample.load(Relaxed));
            if sample < 1.0 && self.random.f64() >= sample {
                return;
            }
        }
        if self.buffer.capacity() == 0 {
            self.buffer = self.empty_buffer();
        }
        format(&mut self.buffer, &mut self.clock);
        self.lines += 1;
        if self.buffer.len() >= FULL {
            self.flush();
        }
    }

    /// Hands over what is there. The worker's ticker calls this at least every 100 ms.
    pub fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let bytes = std::mem::take(&mut self.buffer);
        let lines = std::mem::take(&mut self.lines);
        if let Err(refused) = self.jobs.try_send(Job::Lines { bytes, lines }) {
            self.shared.dropped.fetch_add(u64::from(lines), Relaxed);
            if let TrySendError::Full(Job::Lines { mut bytes, .. }) = refused {
                bytes.clear();
                self.buffer = bytes;
            }
        }
    }

    fn empty_buffer(&self) -> Vec<u8> {
        let spare = self
            .shared
            .spare
            .try_lock()
            .ok()
            .and_then(|mut spare| spare.pop());
        spare.unwrap_or_else(|| Vec::with_capacity(FULL + FULL / 8))
    }
}

impl Drop for WorkerLog {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
