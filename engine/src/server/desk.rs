//! The tasks that answer one HTTP/2 connection's streams. A task that has answered waits for the next stream instead
//! of ending: its memory and its timer are there already, and a new stream costs a wake-up rather than a task. When the
//! connection pauses they are sent home.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;

use super::http2::Streaming;

/// One stream to be answered.
pub(super) type Work = (Streaming, http::Request<RecvStream>, SendResponse<Bytes>);

/// All waiting tasks of a connection.
#[derive(Default)]
pub(super) struct Desks {
    free: RefCell<Vec<Rc<Desk>>>,
    /// The connection is over; nobody waits any more.
    closed: Cell<bool>,
}

/// Where one task waits.
#[derive(Default)]
pub(super) struct Desk {
    work: RefCell<Option<Work>>,
    waker: RefCell<Option<Waker>>,
    dismissed: Cell<bool>,
}

impl Desks {
    /// Gives the work to a waiting task; comes back when there is none.
    pub(super) fn give(&self, work: Work) -> Option<Work> {
        let Some(desk) = self.free.borrow_mut().pop() else {
            return Some(work);
        };
        desk.work.replace(Some(work));
        desk.wake();
        None
    }

    /// Sends everybody home who has nothing to do.
    pub(super) fn dismiss(&self) {
        for desk in self.free.take() {
            desk.dismissed.set(true);
            desk.wake();
        }
    }

    /// The connection is over: whoever finishes goes home.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.dismiss();
    }

    /// Waits for the next stream; `None`: go home.
    pub(super) async fn next(&self, desk: &Rc<Desk>) -> Option<Work> {
        if self.closed.get() {
            return None;
        }
        self.free.borrow_mut().push(desk.clone());
        std::future::poll_fn(|cx| desk.poll(cx)).await
    }
}

impl Desk {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Work>> {
        if let Some(work) = self.work.take() {
            return Poll::Ready(Some(work));
        }
        if self.dismissed.get() {
            return Poll::Ready(None);
        }
        self.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}
