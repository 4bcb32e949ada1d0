//! The way of the listening sockets to a successor: copies that are ready at any time, and what must wait while they are on
//! their way.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;

use tokio::sync::Notify;

use super::conductor::Conductor;
use crate::net::handover::{Handed, Kind, Offer};
use crate::telemetry::log;

impl Conductor {
    /// Copies of what is open now, for whoever asks next.
    pub(super) fn copy_sockets(&self, admin: Option<&TcpListener>) {
        let listeners = self
            .reloader
            .sockets()
            .into_iter()
            .map(|(name, bind, sockets)| Handed {
                kind: Kind::Listener,
                name,
                bind,
                sockets,
            });
        let admin = admin.and_then(|socket| {
            let bind = self.reloader.document.server.admin?;
            Some(Handed {
                kind: Kind::Admin,
                name: "admin".into(),
                bind,
                sockets: vec![socket.try_clone().ok()?],
            })
        });
        *self.handed.borrow_mut() = listeners.chain(admin).collect();
    }
}

/// Whether a successor has been given our sockets and has yet to say that it serves. Until then the document is its
/// own: a reload here could bind an address that it is about to bind.
#[derive(Default)]
pub(super) struct Handing {
    begun: Cell<bool>,
    missed: Cell<bool>,
    /// It will not serve, and a reload was postponed for it.
    pub(super) over: Notify,
}

impl Handing {
    /// Whether a reload has to wait; it is made up for if the successor fails.
    pub(super) fn postpones(&self) -> bool {
        if self.begun.get() {
            self.missed.set(true);
        }
        self.begun.get()
    }

    fn failed(&self) {
        self.begun.set(false);
        if self.missed.replace(false) {
            self.over.notify_one();
        }
    }
}

/// From now on a successor can ask.
pub(super) fn offer(key: String) -> Option<Offer> {
    Offer::new(&key)
        .inspect_err(|error| {
            log::warn(
                "no upgrade in place: the handover address cannot be used",
                &[("error", &error.to_string())],
            );
        })
        .ok()
}

/// Hands the sockets to whoever asks; returns when a successor serves on them.
pub(super) async fn hand_over(offer: Offer, handed: &RefCell<Vec<Handed>>, handing: &Handing) {
    let copies = || {
        let copy = |one: &Handed| Handed {
            kind: one.kind,
            name: one.name.clone(),
            bind: one.bind,
            sockets: one
                .sockets
                .iter()
                .filter_map(|socket| socket.try_clone().ok())
                .collect(),
        };
        handing.begun.set(true);
        handed.borrow().iter().map(copy).collect()
    };
    let successor = offer.serve(copies, || handing.failed()).await;
    log::info(
        "a successor serves on our sockets; draining",
        &[("pid", &successor.pid.to_string())],
    );
}
