//! One listener as one worker sees it: who is inside, and whether it is time to leave.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::workers::Stay;
use crate::net::tls::Peer;
use crate::route::ListenerIndex;
use crate::telemetry::metrics::ListenerSeries;

pub struct Door {
    pub name: Rc<str>,
    pub index: ListenerIndex,
    leaving: Cell<bool>,
    /// Connections inside, by number, with who is to be woken when it is time to leave.
    guests: RefCell<HashMap<u64, Option<Waker>, foldhash::fast::RandomState>>,
}

impl Door {
    pub fn new(name: &str, index: ListenerIndex) -> Rc<Self> {
        Rc::new(Door {
            name: name.into(),
            index,
            leaving: Cell::new(false),
            guests: RefCell::default(),
        })
    }

    /// A connection comes in; it leaves when the guest is dropped.
    pub fn enter(self: &Rc<Self>, number: u64, stay: Stay) -> Guest {
        self.guests.borrow_mut().insert(number, None);
        Guest {
            door: self.clone(),
            number,
            known: Cell::new(false),
            peer: OnceCell::new(),
            stay,
        }
    }

    /// Everybody inside looks again whether it is time to leave.
    pub fn look_again(&self) {
        let guests = self.guests.borrow();
        let wakers: Vec<Waker> = guests.values().flatten().cloned().collect();
        drop(guests);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Everybody inside ends as soon as what they do is done.
    pub fn close(&self) {
        self.leaving.set(true);
        let wakers: Vec<Waker> = self
            .guests
            .borrow_mut()
            .values_mut()
            .filter_map(Option::take)
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    pub fn is_closing(&self) -> bool {
        self.leaving.get()
    }
}

/// One connection's presence.
pub struct Guest {
    pub door: Rc<Door>,
    /// Unique in this worker.
    pub number: u64,
    known: Cell<bool>,
    /// Whose certificate the connection's handshake was made with.
    peer: OnceCell<Peer>,
    stay: Stay,
}

impl Guest {
    /// Where its listener's numbers are counted.
    pub fn series(&self) -> &Arc<ListenerSeries> {
        self.stay.series()
    }

    /// Whether to leave; when not, the task is woken once it is time. The connection's own task must ask.
    pub fn is_leaving(&self, cx: &Context<'_>) -> bool {
        if self.is_asked_to_leave() {
            return true;
        }
        if !self.known.replace(true) {
            self.door
                .guests
                .borrow_mut()
                .insert(self.number, Some(cx.waker().clone()));
        }
        false
    }
}

impl Guest {
    /// This is the member of the mesh that came in.
    pub fn is_member(&self, peer: Peer) {
        let _nobody_is_two = self.peer.set(peer);
    }

    /// The door closes, or the member's certificate was revoked.
    pub fn is_asked_to_leave(&self) -> bool {
        self.door.is_closing() || self.peer.get().is_some_and(Peer::is_revoked)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.guests.borrow_mut().remove(&self.number);
    }
}
