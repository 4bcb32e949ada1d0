//! How a proxy ends: in which order it lets go of what it has, how long it waits, and what makes it hurry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::conductor::Conductor;
use super::running::Control;
use crate::drain::DrainReport;
use crate::net::accept::Permits;
use crate::process::{self, Request as Signal};
use crate::reload::Reloader;
use crate::server::workers::Order;
use crate::telemetry::log;

/// How often a listener that drains is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long the last access lines may take at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Why the loop ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The owner or the admin address asked for it.
    Stop,
    /// SIGTERM or SIGINT.
    Signal,
    /// A successor serves on the same sockets.
    Succeeded,
}

impl Conductor {
    /// Stops taking, lets finish, then cuts.
    pub(super) async fn drain(
        mut self,
        end: End,
        signals: &mut Option<process::Signals>,
        inbox: &mut mpsc::UnboundedReceiver<Control>,
    ) -> DrainReport {
        let began = Instant::now();
        let server = &self.reloader.document.server;
        let (drain, lag) = match self.at_most {
            Some(at_most) => (at_most, Duration::ZERO),
            None => (server.drain, server.drain_lag),
        };
        let mut hurry = std::pin::pin!(async {
            tokio::select! {
                () = second_stop(end, signals) => {}
                () = stop_ordered(inbox) => {}
            }
        });
        let mut hurried = false;
        if end != End::Succeeded && !lag.is_zero() {
            hurried = tokio::time::timeout(lag, hurry.as_mut()).await.is_ok();
        }
        self.reloader.close_all();
        self.reloader.leave();
        let Reloader {
            workers, memory, ..
        } = self.reloader;
        let orders = workers.clone_orders();
        let joined = tokio::task::spawn_blocking(move || workers.join());
        let mut joined = std::pin::pin!(joined);
        let all_left = !hurried
            && tokio::select! {
                _ended = joined.as_mut() => true,
                () = tokio::time::sleep(drain) => false,
                () = hurry => false,
            };
        if !all_left {
            for order in &orders {
                let _ended_workers_need_no_orders = order.send(Order::Cut);
            }
            let _workers_end_at_once = joined.await;
        }
        // A successor has the counts in its own hands, and writes them.
        if let Some(state) = self.state.filter(|_| end != End::Succeeded) {
            state.keep(&memory.limits);
        }
        let report = self.common.ledger.report(began.elapsed());
        log::info("stopped", &[("report", &report.to_string())]);
        if !self.common.access_log.close(LAST_LINES) {
            log::warn("the last access lines could not be written in time", &[]);
        }
        report
    }
}

/// Returns when nobody else holds one of these.
pub(super) async fn all_gone(permits: Vec<Arc<Permits>>) {
    while permits.iter().any(|permits| Arc::strong_count(permits) > 1) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Returns when the owner says once more to stop.
async fn stop_ordered(inbox: &mut mpsc::UnboundedReceiver<Control>) {
    loop {
        match inbox.recv().await {
            Some(Control::Stop(_)) => return,
            // Whoever asked is answered by the drop.
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

/// Returns when a draining process is told to stop once more: the drain's own signal does not count.
async fn second_stop(end: End, signals: &mut Option<process::Signals>) {
    let more = if end == End::Signal { 1 } else { 2 };
    for _ in 0..more {
        while next_signal(signals).await != Signal::Stop {}
    }
}

pub(super) async fn next_signal(signals: &mut Option<process::Signals>) -> Signal {
    match signals {
        Some(signals) => signals.next().await,
        None => std::future::pending().await,
    }
}
