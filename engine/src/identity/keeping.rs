//! The task that keeps a certificate: asks when it is time, takes what is answered, and says what is wrong once a minute.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::sleep;
use tollgate_config::identity::Proof;
use tollgate_config::{Identity as Section, IdentitySource};
use xxhash_rust::xxh3::xxh3_64;

use super::disk::{Disk, Kept};
use super::renewal::{Now, Proofs, Renewal, Step};
use super::{Asks, Identity, asking, status};
use crate::clock::{http_date, unix_seconds};
use crate::net::tls::Facts;
use crate::reload::control_plane::{Authority, Unsigned};
use crate::telemetry::log;

/// Between two lines about the same trouble.
pub(super) const LOUD: Duration = Duration::from_secs(60);
/// Of a certificate's life, in percent, when it is time to warn (MESH-306).
const WARN_AT: u64 = 30;

impl Identity {
    /// Asks and renews until aborted.
    pub(super) async fn keep(self: Rc<Self>, asks: Asks) {
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
            match renewal.step(now(), self.proofs(&asks.section), self.is_revoked()) {
                Step::Wait(pause) => sleep(pause).await,
                Step::Stuck => {
                    loud.error(
                        "this data plane has no good certificate of the mesh, and nothing to prove who it is",
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
        let key = self.key(step).await.map_err(Unsigned::Here)?;
        let request = {
            let kept = self.kept.borrow();
            let current = kept.as_ref().filter(|_| step == Step::Renew);
            asking::request(section, current, &key)
        };
        let request = request.map_err(Unsigned::Here)?;
        let answer = authority.ask(&request).await?;
        let mut kept = asking::believe(section, &key, answer).map_err(Unsigned::Refused)?;
        kept.joined_with = match &request.proof {
            Proof::JoinToken(token) => Some(xxh3_64(token.as_bytes())),
            _ => self
                .kept
                .borrow()
                .as_ref()
                .and_then(|kept| kept.joined_with),
        };
        self.joining.take();
        let facts = kept.own.facts.clone();
        log::info(
            "this data plane has a new certificate of the mesh",
            &[
                ("identity", &facts.identity),
                ("serial", &facts.serial),
                ("not_after", &http_date(facts.not_after)),
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

    /// The key to be signed: a new one, but with a join token the same until the answer has come, whoever lost it.
    async fn key(&self, step: Step) -> Result<String, String> {
        if step == Step::Renew {
            return asking::new_key();
        }
        let known = self.joining.borrow().clone();
        let known = known.or_else(|| self.disk.as_ref().and_then(Disk::joining_key));
        let key = match known {
            Some(key) => key,
            None => asking::new_key()?,
        };
        if let Some(disk) = self.disk.clone() {
            let copy = key.clone();
            let writing = tokio::task::spawn_blocking(move || disk.keep_joining_key(&copy));
            let written = writing.await.unwrap_or_else(|error| Err(error.into()));
            if let Err(error) = written {
                self.unwritten(&error);
            }
        }
        *self.joining.borrow_mut() = Some(key.clone());
        Ok(key)
    }

    /// What can prove who we are, besides a certificate. A join token that brought one is used up.
    fn proofs(&self, section: &Section) -> Proofs {
        let IdentitySource::Authority {
            token,
            kubernetes_token,
        } = &section.source
        else {
            return Proofs::None;
        };
        if kubernetes_token.is_some() {
            return Proofs::Again;
        }
        let kept = self.kept.borrow();
        let used = kept.as_ref().and_then(|kept| kept.joined_with);
        match token {
            Some(token) if used != Some(xxh3_64(token.0.as_bytes())) => Proofs::Once,
            _ => Proofs::None,
        }
    }

    /// Whether members refuse our certificate because they were told to.
    pub(super) fn is_revoked(&self) -> bool {
        let (own, trusted) = (self.member.own(), self.member.trusted());
        { own.zip(trusted) }.is_some_and(|(own, trusted)| trusted.is_revoked(&own.facts.serial))
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
    pub(super) fn watch_life(&self, loud: &mut Loud) {
        let Some(own) = self.member.own() else { return };
        let now = unix_seconds(SystemTime::now());
        let left = status::life_left(&own.facts, now);
        if left == 0 {
            loud.error(
                "the certificate of the mesh has expired: other members refuse this data plane",
                &http_date(own.facts.not_after),
            );
        } else if left <= WARN_AT
            && loud.warned.replace(own.facts.serial.clone()) != Some(own.facts.serial.clone())
        {
            log::warn(
                "little is left of the life of the certificate of the mesh",
                &[
                    ("percent", &left),
                    ("not_after", &http_date(own.facts.not_after)),
                ],
            );
        }
    }
}

/// Says the same trouble once a minute.
#[derive(Default)]
pub(super) struct Loud {
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
