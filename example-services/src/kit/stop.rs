//! The end of a process: SIGTERM or Ctrl-C, heard once and told to everybody who holds a [`Stop`].

use std::future::Future;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Becomes true once. Clones share it.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Who says it. Dropped without a word, it says it too.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

impl Trigger {
    /// Now.
    pub fn pull(&self) {
        // With nobody left to hear it, it is as good as said.
        self.0.send_replace(true);
    }
}

/// A stop, and who says it.
pub fn pair() -> (Trigger, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Stop(receiver))
}

/// One that the first SIGTERM or SIGINT says. The task that listens ends with the process.
pub fn by_signal() -> std::io::Result<Stop> {
    let (trigger, stop) = pair();
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        trigger.pull();
    });
    Ok(stop)
}

impl Stop {
    /// Waits for it. Cancel safe.
    pub async fn wait(mut self) {
        // An error means that the trigger is gone, which is the same.
        self.0.wait_for(|said| *said).await.ok();
    }

    /// Whether it was said.
    pub fn is_said(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Does something again and again with a pause between, from now until the stop; never in the middle of it.
    pub async fn every<F: Future<Output = ()>>(
        self,
        pause: std::time::Duration,
        mut work: impl FnMut() -> F,
    ) {
        let mut turns = tokio::time::interval(pause);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let end = self.wait();
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                _ = turns.tick() => {}
            }
            work().await;
        }
    }
}
