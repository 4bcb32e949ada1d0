//! A proxy that serves, as its owner sees it: addresses, orders, the end. Nothing here serves or decides; orders go to the
//! control thread.

use std::net::SocketAddr;
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tollgate_config::Problems;

use crate::drain::{DrainReport, Ledger};
use crate::process;

/// A proxy that serves. Dropping it stops it.
pub struct Running {
    pub(super) handle: Handle,
    pub(super) thread: Option<JoinHandle<DrainReport>>,
    pub(super) addresses: Addresses,
    pub(super) admin: Option<SocketAddr>,
}

/// Gives orders to a running proxy, from any task. What a proxy that has ended is told changes nothing.
#[derive(Clone)]
pub struct Handle {
    pub(super) orders: mpsc::UnboundedSender<Control>,
    /// Written by the control thread, which drops it when it ends.
    pub(super) ready: watch::Receiver<bool>,
}

/// What the owner asks of the control thread.
pub(super) enum Control {
    Reload(blocking::Sender<Result<u64, Problems>>),
    /// Turn unready and take the word back that an instance is here; what serves goes on.
    Withdraw(Reply),
    /// Close these listeners for good; answered when nobody is inside any more.
    Close(Vec<String>, Reply),
    /// Dropped by each worker at its next turn.
    #[cfg(feature = "testing")]
    Turn(blocking::Sender<()>),
    /// As the document says, or at once with so long for what is in flight.
    Stop(Option<Duration>),
}

/// Dropped when it is done.
pub(super) type Reply = mpsc::Sender<()>;

/// Written by the control thread after each reload, read by the owner.
pub(super) type Addresses = Arc<Mutex<Vec<(String, SocketAddr)>>>;

impl Handle {
    /// Returns once a complete snapshot serves; `false`: the proxy ended before.
    pub async fn ready(&self) -> bool {
        { self.ready.clone() }
            .wait_for(|ready| *ready)
            .await
            .is_ok()
    }

    /// Says that nobody should come any more: not ready, and deregistered. Whoever comes is served all the same.
    /// Returns when the control plane knows, or could not be told in time.
    pub async fn withdraw(&self) {
        self.ask(Control::Withdraw).await;
    }

    /// Closes listeners while the others go on, and returns when the last connection that came in by one of them has
    /// ended. No reload opens them again.
    pub async fn drain(&self, listeners: Vec<String>) {
        self.ask(|reply| Control::Close(listeners, reply)).await;
    }

    /// Reads the document again and applies it; what comes of it is in the log and in `/status`.
    pub fn reload(&self) {
        let (reply, _nobody_waits) = blocking::channel();
        let _ended_has_nothing_to_reload = self.orders.send(Control::Reload(reply));
    }

    /// Stops now: nobody waits for callers to hear of it, and what is in flight gets this long. Once more: at once.
    pub fn stop(&self, at_most: Duration) {
        let _may_have_stopped_itself = self.orders.send(Control::Stop(Some(at_most)));
    }

    async fn ask(&self, control: impl FnOnce(Reply) -> Control) {
        let (reply, mut done) = mpsc::channel(1);
        let _ended_has_nothing_to_do = self.orders.send(control(reply));
        // It is never sent on: it closes when the last copy is dropped.
        let _closed = done.recv().await;
    }
}

impl Running {
    /// A listener's real address.
    pub fn listener(&self, name: &str) -> Option<SocketAddr> {
        self.listeners()
            .into_iter()
            .find(|(known, _)| known == name)
            .map(|(_, address)| address)
    }

    /// Every listener that is open now.
    pub fn listeners(&self) -> Vec<(String, SocketAddr)> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// For orders from elsewhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Reads the document again and applies it; blocking.
    pub fn reload(&self) -> Result<u64, Problems> {
        let (reply, answer) = blocking::channel();
        let stopped = || Problems(Vec::new());
        { &self.handle.orders }
            .send(Control::Reload(reply))
            .map_err(|_| stopped())?;
        answer.recv().unwrap_or_else(|_| Err(stopped()))
    }

    /// Waits until every worker has finished what it was in the middle of; blocking. A client may hold the last byte of an
    /// answer before its books are closed: after this they are.
    #[cfg(feature = "testing")]
    pub fn settle(&self) {
        let (asker, answer) = blocking::channel();
        if self.handle.orders.send(Control::Turn(asker)).is_ok() {
            // Nothing is ever sent: it ends when the last worker has dropped its end.
            let _all_have_had_their_turn = answer.recv_timeout(crate::testing::PATIENCE);
        }
    }

    /// Drains and stops; blocking.
    pub fn stop(mut self) -> DrainReport {
        let _may_have_stopped_itself = self.handle.orders.send(Control::Stop(None));
        self.join()
    }

    /// Waits until the process was asked to stop and has drained; blocking.
    pub fn wait(mut self) -> DrainReport {
        self.join()
    }

    fn join(&mut self) -> DrainReport {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(report)) => report,
            Some(Err(_)) => std::process::exit(process::exit::FAILURE.into()),
            None => Ledger::default().report(Duration::ZERO),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _may_have_stopped_itself = self.handle.orders.send(Control::Stop(None));
            self.join();
        }
    }
}
