//! Waiting for a permit: what the one who waits and the one who grants share. A verdict is given under the queue's lock,
//! once, when the waiter leaves the queue; the task is woken after that lock was let go.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tollgate_config::Priority;

use super::{Bulkhead, Permit};

/// Somebody more important needed the place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shed;

/// Held by the queue and by its `Wait`.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    cell: Mutex<Cell>,
}

#[derive(Debug, Default)]
struct Cell {
    verdict: Option<Result<(), Shed>>,
    waker: Option<Waker>,
}

/// A place in the queue. Dropping it leaves the queue; a permit that was on its way goes to the next.
#[derive(Debug)]
#[must_use = "who does not wait leaves the queue"]
pub struct Wait {
    bulkhead: Arc<Bulkhead>,
    waiter: Arc<Waiter>,
    priority: Priority,
    ticket: u64,
    /// The verdict was taken.
    over: bool,
    late: bool,
}

impl Waiter {
    /// Under the queue's lock, once.
    pub(super) fn decide(&self, verdict: Result<(), Shed>) {
        self.cell().verdict = Some(verdict);
    }

    pub(super) fn verdict(&self) -> Option<Result<(), Shed>> {
        self.cell().verdict
    }

    pub(super) fn wake(&self) {
        let waker = self.cell().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn cell(&self) -> MutexGuard<'_, Cell> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    pub(super) fn new(
        bulkhead: Arc<Bulkhead>,
        waiter: Arc<Waiter>,
        priority: Priority,
        ticket: u64,
    ) -> Self {
        Wait {
            bulkhead,
            waiter,
            priority,
            ticket,
            over: false,
            late: false,
        }
    }

    #[cfg(test)]
    pub(super) fn verdict(&self) -> Option<Result<(), Shed>> {
        self.waiter.verdict()
    }

    /// Leaves because waiting took too long; the same as dropping it, and counted.
    pub fn expire(mut self) {
        self.late = true;
    }
}

impl Future for Wait {
    type Output = Result<Permit, Shed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut cell = self.waiter.cell();
        let Some(verdict) = cell.verdict else {
            if cell
                .waker
                .as_ref()
                .is_none_or(|known| !known.will_wake(cx.waker()))
            {
                cell.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        drop(cell);
        self.over = true;
        Poll::Ready(verdict.map(|()| Permit::new(&self.bulkhead)))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.bulkhead
            .abandon(&self.waiter, self.priority, self.ticket, self.late);
    }
}
