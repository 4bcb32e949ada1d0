//! How this data plane gets its certificate of the mesh, renews it and keeps it (MESH-304, MESH-307). All of it runs on
//! the control thread; handshakes read what `net::tls::Member` holds and never wait for anything here.
//!
//! `renewal` says when to ask for what (pure: a clock and chance are arguments), `asking` makes a key and what proves who
//! asks, `trust` judges what is told of whom to trust, `disk` is what the next process begins with, `status` what
//! operators see. A key is made here, is written to one file that nobody else may read, and goes nowhere else. That no
//! control plane answers changes nothing for as long as the certificate lasts.

mod asking;
mod disk;
mod renewal;
mod status;
mod trust;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tollgate_config::identity::Trust;
use tollgate_config::{ControlPlane, Document, Identity as Section, IdentitySource, Mesh};

use crate::clock::unix_seconds;
use crate::net::tls::{Facts, Member, Trusted};
use crate::reload::control_plane::{Authority, Unsigned};
use crate::snapshot::Snapshot;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use disk::{Disk, Kept};
use renewal::{Now, Proofs, Renewal, Step};
use status::Status;

/// Between two lines about the same trouble.
const LOUD: Duration = Duration::from_secs(60);
/// Writing is tried again after so long.
const REST: Duration = Duration::from_secs(5);
/// Of a certificate's life, when it is time to warn (MESH-306).
const WARN_AT: u64 = 30;

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

/// This data plane's membership. One exists per process.
pub struct Identity {
    member: Arc<Member>,
    metrics: Arc<Metrics>,
    disk: Option<Disk>,
    kept: RefCell<Option<Kept>>,
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
        !needed || self.member.is_equipped()
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
        (self.look_again)();
        self.save();
        self.changed.notify_one();
    }

    /// Asks and renews until aborted.
    async fn keep(self: Rc<Self>, asks: Asks) {
        let mut authority = Authority::new(asks.settings.clone());
        let began = Instant::now();
        let now = || Now {
            wall: unix_seconds(SystemTime::now()),
            mono: began.elapsed(),
        };
        let mut renewal = Renewal::default();
        if let Some(own) = self.member.own() {
            renewal.has(
                own.facts.not_before,
                own.facts.not_after,
                now(),
                fastrand::f64(),
            );
        }
        let mut loud = Loud::default();
        loop {
            self.watch_life(&mut loud);
            match renewal.step(now(), proofs(&asks.section)) {
                Step::Wait(pause) => sleep(pause).await,
                Step::Stuck => {
                    loud.error(
                        "this data plane has no certificate of the mesh, and nothing to prove who it is",
                        &"set `identity.token` to a token from `tollgate identity token`",
                    );
                    sleep(LOUD).await;
                }
                step => match self.ask(&mut authority, &asks.section, step).await {
                    Ok(facts) => {
                        self.metrics.identity().renewed(true);
                        renewal.has(facts.not_before, facts.not_after, now(), fastrand::f64());
                        if renewal.is_expired(now()) {
                            loud.error(
                                "the new certificate has expired by this machine's clock",
                                &"set the clock; the certificate is asked for again, now and then",
                            );
                        }
                    }
                    Err(unsigned) => {
                        let refused = matches!(unsigned, Unsigned::Refused(_));
                        renewal.failed(refused, now(), fastrand::f64());
                        self.unsigned(&unsigned, &mut loud);
                    }
                },
            }
        }
    }

    /// One asking, and what comes of it.
    async fn ask(
        self: &Rc<Self>,
        authority: &mut Authority,
        section: &Section,
        step: Step,
    ) -> Result<Facts, Unsigned> {
        let request = {
            let kept = self.kept.borrow();
            let current = kept.as_ref().filter(|_| step == Step::Renew);
            asking::request(section, current)
        };
        let (key, request) = request.map_err(Unsigned::Here)?;
        let answer = authority.ask(&request).await?;
        let kept = asking::believe(section, &key, answer).map_err(Unsigned::Refused)?;
        let facts = kept.own.facts.clone();
        log::info(
            "this data plane has a new certificate of the mesh",
            &[
                ("identity", &facts.identity),
                ("serial", &facts.serial),
                ("not_after", &crate::clock::http_date(facts.not_after)),
            ],
        );
        let told = kept.trust.clone();
        // With it comes whom to trust, unless something newer is known.
        self.member.hold(Some(kept.own.clone()));
        {
            let mut trust = self.trust.borrow_mut();
            let trust = trust.get_or_insert_with(|| told.clone());
            let trusted = self
                .member
                .trusted()
                .unwrap_or_else(|| kept.trusted.clone());
            *self.kept.borrow_mut() = Some(Kept {
                trust: trust.clone(),
                trusted: trusted.clone(),
                ..kept
            });
            if self.member.trusted().is_none() {
                self.member.trust(Some(trusted));
            }
        }
        self.take_trust(told);
        self.status.borrow_mut().renewed(SystemTime::now());
        self.save();
        self.changed.notify_one();
        Ok(facts)
    }

    fn unsigned(&self, unsigned: &Unsigned, loud: &mut Loud) {
        self.metrics.identity().renewed(false);
        self.status
            .borrow_mut()
            .failed(unsigned.to_string(), SystemTime::now());
        let usable = { self.member.own() }
            .is_some_and(|own| own.facts.not_after > unix_seconds(SystemTime::now()));
        let what = if usable {
            "the certificate of the mesh was not renewed; it is tried again"
        } else {
            "this data plane has no valid certificate of the mesh: other members refuse it; it is tried again"
        };
        loud.error(what, unsigned);
    }

    /// Warns when little of a certificate's life is left, whoever renews it.
    fn watch_life(&self, loud: &mut Loud) {
        let Some(own) = self.member.own() else { return };
        let now = unix_seconds(SystemTime::now());
        let left = status::life_left(&own.facts, now);
        if left == 0 {
            loud.error(
                "the certificate of the mesh has expired: other members refuse this data plane",
                &crate::clock::http_date(own.facts.not_after),
            );
        } else if left <= WARN_AT
            && loud.warned.replace(own.facts.serial.clone()) != Some(own.facts.serial.clone())
        {
            log::warn(
                "little is left of the life of the certificate of the mesh",
                &[
                    ("percent", &left),
                    ("not_after", &crate::clock::http_date(own.facts.not_after)),
                ],
            );
        }
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

    fn save(&self) {
        if self.disk.is_some() && self.kept.borrow().is_some() {
            self.dirty.set(true);
            self.unsaved.notify_one();
        }
    }

    /// Writes what changed, for as long as the process serves.
    pub async fn write(self: Rc<Self>) {
        loop {
            self.unsaved.notified().await;
            let content = self.kept.borrow().as_ref().map(Kept::written);
            let (Some(disk), Some(content)) = (self.disk.clone(), content) else {
                continue;
            };
            self.dirty.set(false);
            // A slow disk must not hold up what comes next.
            let writing = tokio::task::spawn_blocking(move || disk.write(&content));
            let written = writing.await.unwrap_or_else(|error| Err(error.into()));
            if let Err(error) = written {
                self.unwritten(&error);
                sleep(REST).await;
                self.save();
            }
        }
    }

    fn unwritten(&self, error: &std::io::Error) {
        static UNWRITTEN: log::Repeated = log::Repeated::new();
        UNWRITTEN.error(
            "the certificate of the mesh cannot be kept; a restart would need another join token",
            &[("error", error)],
        );
    }

    /// Asks no more; what is not on disk yet is written.
    pub fn end(&self) {
        self.following.take();
        let content = self.kept.borrow().as_ref().map(Kept::written);
        if self.dirty.replace(false)
            && let (Some(disk), Some(content)) = (&self.disk, content)
            && let Err(error) = disk.write(&content)
        {
            self.unwritten(&error);
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

/// What can prove who we are.
fn proofs(section: &Section) -> Proofs {
    match &section.source {
        IdentitySource::Authority {
            kubernetes_token: Some(_),
            ..
        } => Proofs::Again,
        IdentitySource::Authority { token: Some(_), .. } => Proofs::Once,
        _ => Proofs::None,
    }
}

fn names(facts: &Facts, section: &Section) -> bool {
    facts.identity.service() == section.service && facts.identity.namespace() == section.namespace
}

/// Says the same trouble once a minute.
#[derive(Default)]
struct Loud {
    last: Option<Instant>,
    /// The certificate that was warned of.
    warned: Option<Box<str>>,
}

impl Loud {
    fn error(&mut self, what: &str, why: &dyn std::fmt::Display) {
        if self.last.is_none_or(|last| last.elapsed() >= LOUD) {
            self.last = Some(Instant::now());
            log::error(what, &[("why", why)]);
        }
    }
}

impl Kept {
    fn is_of(&self, section: &Section) -> bool {
        names(&self.own.facts, section)
    }
}
