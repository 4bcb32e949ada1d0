//! How this data plane gets its certificate of the mesh, renews it and keeps it (MESH-304, MESH-307). All of it runs on
//! the control thread; handshakes read what `net::tls::Member` holds and never wait for anything here.
//!
//! `keeping` is the task that asks; `renewal` says when and for what (pure: a clock and chance are arguments), `asking`
//! makes a key and what proves who asks, `trust` judges what is told of whom to trust, `disk` is what the next process begins
//! with, which `saving` writes, `status` what operators see. A key is made here, is written to one file that nobody else may read, and goes nowhere else. That no
//! control plane answers changes nothing for as long as the certificate lasts.

mod asking;
mod disk;
mod keeping;
mod renewal;
mod saving;
mod status;
mod trust;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tollgate_config::identity::Trust;
use tollgate_config::{ControlPlane, Document, Identity as Section, IdentitySource, Mesh};

use crate::clock::unix_seconds;
use crate::net::tls::{Facts, Member, Own, Trusted};
use crate::snapshot::Snapshot;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use disk::{Disk, Kept};
use keeping::{LOUD, Loud};
use status::Status;

/// What the last process left.
pub struct Restored {
    disk: Option<Disk>,
    kept: Option<Kept>,
}

/// Makes this data plane a member at once, when an earlier process left what it takes. Nobody is asked.
pub fn restore(section: Option<&Section>, state_dir: Option<&Path>, member: &Member) -> Restored {
    let disk = state_dir.map(Disk::new);
    let from_authority =
        |section: &&Section| matches!(section.source, IdentitySource::Authority { .. });
    let Some(section) = section.filter(from_authority) else {
        return Restored { disk, kept: None };
    };
    let kept = { disk.as_ref() }.and_then(Disk::read).filter(|kept| {
        let same = kept.is_of(section);
        if !same {
            log::warn(
                "the certificate that was kept names another service; it is not used",
                &[("identity", &kept.own.facts.identity)],
            );
        }
        same
    });
    if let Some(kept) = &kept {
        member.trust(Some(kept.trusted.clone()));
        member.hold(Some(kept.own.clone()));
    }
    Restored { disk, kept }
}

/// A member's certificate and whom it trusts, as they are on the disk.
pub struct Left {
    pub own: Arc<Own>,
    pub trusted: Arc<Trusted>,
}

/// What a process left in this folder, or is keeping there now. Looks, and changes nothing: what is damaged stays where it is.
pub fn left(state_dir: &Path) -> Result<Option<Left>, String> {
    let found = Disk::new(state_dir).look().map_err(|why| match why {
        disk::Unusable::Unreadable(error) => format!("it cannot be read: {error}"),
        disk::Unusable::Damaged(why) => format!("it is damaged: {why}"),
    })?;
    Ok(found.map(|kept| Left {
        own: kept.own,
        trusted: kept.trusted,
    }))
}

/// This data plane's membership. One exists per process.
pub struct Identity {
    member: Arc<Member>,
    metrics: Arc<Metrics>,
    disk: Option<Disk>,
    kept: RefCell<Option<Kept>>,
    /// The key that a token was shown with, and no answer has come.
    joining: RefCell<Option<String>>,
    /// What was told before there was a certificate.
    trust: RefCell<Option<Trust>>,
    status: RefCell<Status>,
    following: RefCell<Option<Following>>,
    /// A certificate came, or whom to trust is another.
    changed: Notify,
    unsaved: Notify,
    dirty: Cell<bool>,
    /// Connections of members that were revoked are to leave.
    look_again: Box<dyn Fn()>,
}

struct Following {
    asks: Asks,
    task: AbortHandle,
}

#[derive(Clone, PartialEq)]
struct Asks {
    section: Section,
    settings: ControlPlane,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Identity {
    pub fn new(
        restored: Restored,
        member: Arc<Member>,
        metrics: Arc<Metrics>,
        look_again: impl Fn() + 'static,
    ) -> Rc<Identity> {
        let Restored { disk, kept } = restored;
        let trust = kept.as_ref().map(|kept| kept.trust.clone());
        Rc::new(Identity {
            member,
            metrics,
            disk,
            kept: RefCell::new(kept),
            joining: RefCell::default(),
            trust: RefCell::new(trust),
            status: RefCell::default(),
            following: RefCell::default(),
            changed: Notify::new(),
            unsaved: Notify::new(),
            dirty: Cell::new(false),
            look_again: Box::new(look_again),
        })
    }

    /// Is what this document says from now on.
    pub fn follow(self: &Rc<Self>, document: &Document) {
        self.metrics.identity().named(document.identity.is_some());
        let asks = document
            .identity
            .clone()
            .zip(document.control_plane.clone());
        let asks = asks.map(|(section, settings)| Asks { section, settings });
        let asks =
            asks.filter(|asks| matches!(asks.section.source, IdentitySource::Authority { .. }));
        let Some(asks) = asks else {
            self.following.take();
            if document.identity.is_none() {
                self.member.hold(None);
                self.member.trust(None);
            }
            return;
        };
        let same = |following: &Following| following.asks == asks;
        if self.following.borrow().as_ref().is_some_and(same) {
            return;
        }
        if let Some(own) = self.member.own()
            && !names(&own.facts, &asks.section)
        {
            // Of another service than we are now: nobody is to meet it.
            self.member.hold(None);
            self.kept.take();
        }
        let task = tokio::task::spawn_local(self.clone().keep(asks.clone())).abort_handle();
        *self.following.borrow_mut() = Some(Following { asks, task });
    }

    /// Whether the document's listeners and upstreams have what they need of the mesh.
    pub fn is_enough_for(&self, snapshot: &Snapshot) -> bool {
        let listeners = snapshot.listeners.iter().flatten();
        let mut upstreams = snapshot.upstreams.iter();
        let needed = { listeners }.any(|plan| plan.item.mesh.value != Mesh::Off)
            || upstreams.any(|plan| plan.item.mesh.is_some());
        let lasts = |own: Arc<Own>| own.facts.not_after > unix_seconds(SystemTime::now());
        !needed || (self.member.is_equipped() && self.member.own().is_some_and(lasts))
    }

    /// Returns when something has changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What the control plane tells of whom to trust.
    pub fn told(&self, told: Trust) {
        let following = self.following.borrow();
        if following.is_none() {
            return;
        }
        self.take_trust(told);
    }

    fn take_trust(&self, told: Trust) {
        let next = trust::next(self.trust.borrow().as_ref(), told);
        let next = match next {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(why) => {
                static UNTRUSTED: log::Repeated = log::Repeated::new();
                return UNTRUSTED.error(
                    "whom to trust was told in a way that cannot be believed; what was known goes on",
                    &[("why", &why)],
                );
            }
        };
        let trusted = match Trusted::new(&next) {
            Ok(trusted) => Arc::new(trusted),
            Err(why) => {
                static UNREADABLE: log::Repeated = log::Repeated::new();
                return UNREADABLE.error(
                    "whom to trust cannot be read; what was known goes on",
                    &[("why", &why)],
                );
            }
        };
        log::info(
            "whom the mesh trusts has changed",
            &[
                ("version", &next.version),
                ("authorities", &next.authorities.len()),
                ("revoked", &next.revoked.len()),
            ],
        );
        if let Some(kept) = self.kept.borrow_mut().as_mut() {
            kept.trust = next.clone();
            kept.trusted = trusted.clone();
        }
        *self.trust.borrow_mut() = Some(next);
        self.member.trust(Some(trusted));
        if self.is_revoked() {
            log::error(
                "this data plane's own certificate was revoked: other members refuse it",
                &[],
            );
        }
        (self.look_again)();
        self.save();
        self.changed.notify_one();
    }

    /// Watches certificates that come from files; the ones of an authority are watched by whoever renews them.
    pub async fn watch_files(self: Rc<Self>) {
        let mut loud = Loud::default();
        loop {
            if self.following.borrow().is_none() {
                self.watch_life(&mut loud);
            }
            sleep(LOUD).await;
        }
    }

    /// Why there is no certificate yet, as far as is known.
    pub fn why_not(&self) -> Option<String> {
        self.status.borrow().why_not().map(str::to_owned)
    }

    /// What operators see; `None` where nothing names an identity.
    pub fn status(&self) -> Option<serde_json::Value> {
        let now = unix_seconds(SystemTime::now());
        let asks = self.following.borrow().is_some();
        { self.status.borrow() }.show(&self.member, asks, now)
    }
}

fn names(facts: &Facts, section: &Section) -> bool {
    facts.identity.service() == section.service && facts.identity.namespace() == section.namespace
}

impl Kept {
    fn is_of(&self, section: &Section) -> bool {
        names(&self.own.facts, section)
    }
}
