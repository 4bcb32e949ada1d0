//! The order of an end: first nobody is sent here any more, then nobody is let in, then what is in flight finishes,
//! and only then the way out is closed. Callers learn of an end a moment after it is told, so the door stays open for
//! that long: closing it at once is what makes rolling restarts lose requests (MESH-107).

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tollgate_config::Document;
use tollgate_config::sidecar::INBOUND;
use tollgate_engine::drain::DrainReport;
use tollgate_engine::engine::{Handle, Options};
use tollgate_engine::process::exit;
use tollgate_engine::program;
use tollgate_engine::telemetry::log;

use crate::signals::{Hurry, Signals, Wish};
use crate::source::Source;

/// The shortest that the door stays open after the control plane was told.
const LEAST_LAG: Duration = Duration::from_secs(1);

/// A data plane that serves, and how it ends. It is stopped when this is dropped.
pub(crate) struct Life {
    pub(crate) handle: Handle,
    pub(crate) document: Document,
    /// Where each listener listens.
    pub(crate) listeners: Vec<(String, SocketAddr)>,
    pub(crate) admin: Option<SocketAddr>,
    /// Written by the thread that waits for the engine.
    ended: watch::Receiver<Option<DrainReport>>,
    /// Told by the engine when its admin address is asked to stop.
    asked: watch::Receiver<bool>,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.handle.stop(Duration::ZERO);
    }
}

/// `run`. `serving` is called once it serves.
pub(crate) fn run(source: &Source, serving: impl FnOnce()) -> ExitCode {
    on_runtime(async {
        let mut signals = Signals::new().map_err(unheard)?;
        let life = Life::start(source)?;
        serving();
        let asked = loop {
            tokio::select! {
                wish = signals.next() => match wish {
                    Wish::Stop(_) => break false,
                    Wish::Other(Signal::HUP) => life.handle.reload(),
                    // Somebody else's process is not ours to tell.
                    Wish::Other(_) => {}
                },
                () = life.asked() => break true,
                report = life.ended() => return Ok(program::stopped(&report)),
            }
        };
        let mut hurry = signals.hurry();
        let ending = async {
            life.leave(&hurry).await;
            if asked {
                // The application may still have to reach others; whoever stops it stops us.
                log::info(
                    "drained: the way out is open until the process is told to end",
                    &[],
                );
                let _told = hurry.or(std::future::pending::<()>()).await;
                hurry = hurry.afresh();
            }
            life.stop(&hurry).await
        };
        tokio::select! {
            report = ending => Ok(program::stopped(&report)),
            never = signals.listen(|_| {}) => match never {},
        }
    })
}

/// Runs to the exit code.
pub(crate) fn on_runtime(life: impl Future<Output = Result<ExitCode, ExitCode>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(life).unwrap_or_else(|code| code),
        Err(error) => unheard(error),
    }
}

pub(crate) fn unheard(error: std::io::Error) -> ExitCode {
    eprintln!("the process cannot hear signals: {error}");
    ExitCode::from(exit::FAILURE)
}

impl Life {
    pub(crate) fn start(source: &Source) -> Result<Life, ExitCode> {
        let document = { source.load() }.map_err(|problems| program::refused(&problems))?;
        let (ask, asked) = watch::channel(false);
        let running = program::serving(source.start(Options {
            drain_asked: Some(ask),
            ..Options::default()
        }))?;
        let (tell, ended) = watch::channel(None);
        let life = Life {
            handle: running.handle(),
            document,
            listeners: running.listeners(),
            admin: running.admin(),
            ended,
            asked,
        };
        tokio::task::spawn_blocking(move || tell.send_replace(Some(running.wait())));
        Ok(life)
    }

    /// Returns when the admin address was asked to stop.
    pub(crate) async fn asked(&self) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked).await.is_err() {
            // Then the engine has ended, which is noticed elsewhere.
            std::future::pending().await
        }
    }

    /// Returns when the engine has ended.
    pub(crate) async fn ended(&self) -> DrainReport {
        let mut ended = self.ended.clone();
        let report = ended.wait_for(Option::is_some).await;
        match report.as_deref() {
            Ok(Some(report)) => *report,
            // Its thread waits for nothing else, and writes before it ends.
            _ => std::future::pending().await,
        }
    }

    /// Says that nobody should come any more. Lets in whoever has not heard yet; then nobody, and waits until those
    /// inside have been served. The way out stays open.
    pub(crate) async fn leave(&self, hurry: &Hurry) {
        let server = &self.document.server;
        log::info("stopping: nobody is sent here any more", &[]);
        self.withdraw(hurry).await;
        hurry.or(sleep(server.drain_lag.max(LEAST_LAG))).await;
        log::info("stopping: nobody is let in any more", &[]);
        let names = self.listeners.iter().map(|(name, _)| name);
        let inbound = names.filter(|name| is_inbound(name)).cloned();
        let drained = timeout(server.drain, self.handle.drain(inbound.collect()));
        // What is left after that is cut at the end.
        let _in_time = hurry.or(drained).await;
    }

    /// Only says that nobody should come any more.
    pub(crate) async fn withdraw(&self, hurry: &Hurry) {
        hurry.or(self.handle.withdraw()).await;
    }

    /// Closes whatever is still open.
    pub(crate) async fn stop(&self, hurry: &Hurry) -> DrainReport {
        let at_most = match hurry.is_on() {
            true => Duration::ZERO,
            false => self.document.server.drain,
        };
        self.handle.stop(at_most);
        if hurry.or(self.ended()).await.is_none() {
            self.handle.stop(Duration::ZERO);
        }
        self.ended().await
    }
}

/// A listener that others come in by. Its name tells, and nothing else does.
fn is_inbound(name: &str) -> bool {
    let rest = name.strip_prefix(INBOUND);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}
