//! One count of connections for a listener, shared by all workers and every generation of its settings.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// How many connections a listener may have over all workers. The limit may change while they are open; a lower one
/// closes nothing, it only lets nobody in until enough have gone.
#[derive(Debug)]
pub struct Permits {
    open: AtomicU64,
    max: AtomicU64,
    refused: AtomicU64,
    /// Wakes workers that wait for room.
    room: Notify,
}

impl Permits {
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Permits {
            open: AtomicU64::new(0),
            max: AtomicU64::new(max),
            refused: AtomicU64::new(0),
            room: Notify::new(),
        })
    }

    /// A place for one connection, held until the permit is dropped; `None`, and counted, when there is none.
    pub fn take(self: &Arc<Self>) -> Option<Permit> {
        let permit = self.claim();
        if permit.is_none() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    /// A place for one connection, waiting for it if need be. To be called *after* accepting: then a full listener
    /// holds one connection per worker and leaves the others to queue in the kernel.
    pub async fn wait(self: &Arc<Self>) -> Permit {
        loop {
            // In line before looking, so that a place given back in between is not missed.
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            if let Some(permit) = self.claim() {
                return permit;
            }
            room.await;
        }
    }

    fn claim(self: &Arc<Self>) -> Option<Permit> {
        let max = self.max.load(Ordering::Relaxed);
        self.open
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                (open < max).then_some(open + 1)
            })
            .ok()
            .map(|_| Permit(self.clone()))
    }

    pub fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
        self.room.notify_waiters();
    }

    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// Connections that found no place.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// One connection's place.
#[derive(Debug)]
#[must_use = "dropping the permit gives the place back"]
pub struct Permit(Arc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_lets_in_as_many_as_it_may() {
        let permits = Permits::new(2);
        let first = permits.take().unwrap();
        let _second = permits.take().unwrap();
        assert!(permits.take().is_none());
        assert_eq!((permits.open(), permits.refused()), (2, 1));
        drop(first);
        let _third = permits.take().unwrap();
        permits.set_max(1);
        assert!(permits.take().is_none());
        assert_eq!(permits.open(), 2);
        permits.set_max(3);
        assert!(permits.take().is_some());
        assert_eq!(permits.open(), 2);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_place_gets_the_next_one() {
        let permits = Permits::new(1);
        let held = permits.take().unwrap();
        let (waited, ()) = tokio::join!(permits.wait(), async { drop(held) });
        assert_eq!(permits.open(), 1);
        let (_, ()) = tokio::join!(permits.wait(), async { permits.set_max(2) });
        drop(waited);
        assert_eq!(permits.open(), 0);
    }
}
