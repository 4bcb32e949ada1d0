//! Threads that stay on one core and stop when their owner is dropped.
//!
//! Each runs a single-threaded runtime of its own. What is measured must not move between cores, and must not outlive
//! the measurement, whether that ends well, by an error or by Ctrl-C.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::oneshot;

/// A running thread. Dropping it drops the future that it runs, and waits for that.
#[derive(Debug)]
pub struct Pinned {
    /// The thread holds the receiving end; dropping this one ends its future.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pinned {
    /// Runs the future that `start` makes on a new thread on `core` (`None` = wherever the caller may run).
    pub fn run<F: Future<Output = ()>>(
        name: &str,
        core: Option<usize>,
        start: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<Pinned> {
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                if let Some(core) = core
                    && let Err(error) = pin(core)
                {
                    eprintln!(
                        "cannot stay on core {core}: {error}; what follows is measured without it"
                    );
                }
                let runtime = match runtime() {
                    Ok(runtime) => runtime,
                    Err(error) => return eprintln!("no runtime for a thread: {error}"),
                };
                runtime.block_on(async {
                    tokio::select! {
                        () = start() => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Pinned {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("a measuring thread panicked; its numbers are missing");
        }
    }
}

/// A single-threaded runtime whose futures need not be `Send`.
pub fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
}

/// Keeps the calling thread, and what it starts from now on, on one core.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such core"));
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Runs `work` with the calling thread on `core`, then puts the thread back where it may run now. A process started in
/// `work` inherits the core: no wrapper program, no moment on the wrong core.
pub fn pinned<T>(core: usize, work: impl FnOnce() -> T) -> io::Result<T> {
    let before = sched_getaffinity(None)?;
    pin(core)?;
    let done = work();
    sched_setaffinity(None, &before)?;
    Ok(done)
}
