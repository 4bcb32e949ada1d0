//! Limits over several gateways: tokens are leased ahead of need, and a request takes from what is here. It never asks
//! anybody, and waits for nobody.
//!
//! `word` is what workers share of one client; `lessee` is the arithmetic of leases, on the control thread; `lender` is
//! whom it asks; `standing` is how that goes. Who carries questions and answers is no business of this room.

pub(crate) mod lender;
pub(crate) mod lessee;
mod standing;
pub(crate) mod word;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use tollgate_config::{At, ControlPlane, Place, SharedStore, Sharing};

use super::shelf::Key;
pub use standing::Standing;

/// Wishes that may wait for the control thread; who finds no room wishes again with its next request.
const WISHES: usize = 4096;

/// A client of the limit with this meter wants tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) meter: u64,
    pub(crate) key: Key,
}

/// Through whom limits are shared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Through {
    pub(crate) sharing: Sharing,
    /// As far as it matters for leases; `None`: it is not asked.
    pub(crate) control_plane: Option<ControlPlane>,
}

impl Through {
    pub(crate) fn new(sharing: &Sharing, control_plane: Option<&ControlPlane>) -> Self {
        let asked = control_plane.filter(|_| sharing.store == SharedStore::ControlPlane);
        Through {
            sharing: sharing.clone(),
            control_plane: asked.map(|settings| {
                let mut settings = settings.clone();
                // Where it stands in the file, and what is announced, changes no lease.
                settings.register = None;
                settings.place = Place {
                    file: "".into(),
                    line: 0,
                    column: 0,
                };
                if let Some(tls) = &mut settings.tls {
                    tls.at = At(None);
                }
                settings
            }),
        }
    }

    /// Without its secrets.
    pub(crate) fn name(&self) -> String {
        match &self.sharing.store {
            SharedStore::ControlPlane => "control-plane".to_owned(),
            SharedStore::Redis(url) => url.to_string(),
        }
    }
}

/// What workers and the control thread have in common about leases.
#[derive(Debug)]
pub struct Leases {
    /// How many gateways share; 0: nobody knows.
    gateways: AtomicU64,
    wishes: mpsc::Sender<Wish>,
    /// Until the control thread takes it.
    inbox: Mutex<Option<mpsc::Receiver<Wish>>>,
    standing: Mutex<Option<Standing>>,
}

impl Default for Leases {
    fn default() -> Self {
        let (wishes, inbox) = mpsc::channel(WISHES);
        Leases {
            gateways: AtomicU64::new(0),
            wishes,
            inbox: Mutex::new(Some(inbox)),
            standing: Mutex::default(),
        }
    }
}

impl Leases {
    /// How many gateways share the limits, as far as is known; else what the document says.
    pub(crate) fn gateways(&self, written: u64) -> u64 {
        match self.gateways.load(Relaxed) {
            0 => written,
            told => told,
        }
    }

    pub(crate) fn told_gateways(&self, gateways: u64) {
        self.gateways.store(gateways, Relaxed);
    }

    /// Whether it could be delivered. Waits for nobody.
    pub(super) fn wish(&self, wish: Wish) -> bool {
        self.wishes.try_send(wish).is_ok()
    }

    /// Only once.
    pub(crate) fn inbox(&self) -> Option<mpsc::Receiver<Wish>> {
        self.inbox
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// How it stands with the store; `None`: no limit is shared.
    pub fn standing(&self) -> Option<Standing> {
        self.standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn stands(&self, standing: Option<Standing>) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }
}
