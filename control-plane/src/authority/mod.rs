//! The authority of a mesh (MESH-301, 303, 304, 307): signs certificates that say which service somebody is, for whoever
//! proves it, and tells every member whom to trust.
//!
//! `rotation` (which key signs), `certificate` (what is read and written), `kubernetes` (a prover), `record` (what is
//! kept) and `base64` are pure. This file keeps them: it knows the time, reads and writes the store, and sees to it that
//! keys come and go in time; `issue` answers who wants a certificate, `desk` whoever runs the mesh.
//!
//! Everything is durable before it is answered. Of several control planes the one that leads writes, and all show what is
//! written. A private key leaves the store for the signer alone; it is in no answer, log or line of the audit log.

mod base64;
mod certificate;
mod desk;
mod issue;
mod kubernetes;
mod own;
mod record;
mod rotation;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tollgate_config::control_plane::Identity;
use tollgate_config::feed::Line;
use tollgate_config::identity::{SpiffeId, Trust};
use tollgate_engine::telemetry::log::{self, Repeated};

use crate::access::failures::Failures;
use crate::audit::Audit;
use crate::store::{Compare, Kept, Store, StoreError, Transaction, Write};
use certificate::Signer;
pub use desk::Which;
pub use issue::Given;
use own::OwnKey;
pub use own::Unusable;
use record::{AUTHORITIES, CERTIFICATES, Issued, KEYS, REVOKED, TOKENS, TRUST};
use rotation::{Authorities, Change, Known, Phase, Wanted};

/// How often it is looked whether a key is to come or to go.
const LOOK: Duration = Duration::from_secs(1);
/// How often what is over is thrown out.
const TIDY: Duration = Duration::from_secs(60);
/// Writes of one transaction, where there may be many.
const AT_ONCE: usize = 1000;
/// How long a token is remembered after its end, so that a late thief is still told apart.
const REMEMBER: u64 = 24 * 3600;

pub struct Authority {
    settings: Identity,
    store: Arc<dyn Store>,
    audit: Arc<Audit>,
    own: Option<OwnKey>,
    /// Of the cluster, or why there are none; the task that looks at the file writes it.
    cluster_keys: RwLock<Arc<Result<Vec<kubernetes::Key>, String>>>,
    /// Whoever issues shares it, whoever changes keys, revokes or bars has it alone: nothing slips between reading and
    /// writing. Held across writes to the store.
    changing: tokio::sync::RwLock<()>,
    /// What is written; its waiters are feeds.
    told: watch::Sender<Option<Arc<Told>>>,
    /// Of the key that signs, by its number.
    signer: Mutex<Option<(u64, Arc<Signer>)>>,
    failures: Mutex<Failures>,
    /// Certificates that are out, by whose they are; counted anew whenever it is tidied up.
    out: Mutex<HashMap<SpiffeId, usize>>,
    started: Instant,
    pub counts: Counts,
}

/// What is known of the keys and told to members.
#[derive(Debug)]
pub struct Told {
    authorities: Authorities,
    /// Of the store, when the above was written.
    revision: u64,
    pub trust: Trust,
    /// The same as a line of a feed.
    pub line: Bytes,
}

/// What was done since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// By proof: join token, Kubernetes, renewal.
    pub issued: [AtomicU64; 3],
    pub refused: AtomicU64,
}

/// Proofs, in the order of `Counts::issued`.
pub const PROOFS: [&str; 3] = ["join-token", "kubernetes", "renewal"];

/// Why something is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// `identity.enabled` is false.
    Off,
    /// There is no key to sign with: nobody has led yet, or it has ended.
    NotReady(&'static str),
    /// A field, what is wrong with it, and what to do.
    Field(&'static str, String, &'static str),
    /// Whoever asks is not believed.
    NotProven(String),
    /// A token that was used: when and from where.
    TokenUsed {
        time: u64,
        address: String,
    },
    Barred(SpiffeId),
    /// Too many proofs from there were none.
    TooMany(Duration),
    /// Something is at its bound.
    Full(&'static str),
    /// Another key is taking over already, and signs from then on.
    Rotating(u64),
    /// The key is somebody's own.
    Own,
    /// No such certificate is out.
    Unknown(String),
    Store(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        Refused::Store(error)
    }
}

/// The tasks of an authority; they end when this is dropped.
pub struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Why an authority does not start.
#[derive(Debug)]
pub enum NotStarted {
    Store(StoreError),
    Files(Unusable),
}

impl Authority {
    /// Reads what is kept, makes what is missing, and begins to look after it.
    pub async fn start(
        store: Arc<dyn Store>,
        audit: Arc<Audit>,
        settings: Identity,
    ) -> Result<(Arc<Authority>, Tasks), NotStarted> {
        let authority = Arc::new(Authority {
            own: own_key(&settings).map_err(NotStarted::Files)?,
            cluster_keys: RwLock::new(Arc::new(Ok(Vec::new()))),
            settings,
            store,
            audit,
            changing: tokio::sync::RwLock::new(()),
            told: watch::Sender::new(None),
            signer: Mutex::new(None),
            failures: Mutex::default(),
            out: Mutex::default(),
            started: Instant::now(),
            counts: Counts::default(),
        });
        if !authority.settings.enabled {
            return Ok((authority, Tasks(Vec::new())));
        }
        authority.read_cluster_keys().await;
        let revision = authority.look().await.map_err(NotStarted::Store)?;
        if authority.leads() {
            // A disk that takes nothing is told to who asks; lookups and feeds are served all the same.
            match authority.tidy().await {
                Ok(()) => {}
                Err(error) => log::error("the authority cannot write", &[("reason", &error)]),
            }
            authority.keep_and_tell().await;
        }
        let tasks = vec![
            tokio::spawn(authority.clone().follow(revision)),
            tokio::spawn(authority.clone().look_after()),
            tokio::spawn(authority.clone().follow_cluster_keys()),
        ];
        Ok((authority, Tasks(tasks)))
    }

    /// What members are told, and each change of it.
    pub fn changes(&self) -> watch::Receiver<Option<Arc<Told>>> {
        self.told.subscribe()
    }

    /// What members are told now.
    pub fn told(&self) -> Result<Arc<Told>, Refused> {
        if !self.settings.enabled {
            return Err(Refused::Off);
        }
        let told = self.told.borrow().clone();
        told.ok_or(Refused::NotReady("it has no key yet"))
    }

    fn leads(&self) -> bool {
        self.store.cluster().is_none_or(|cluster| cluster.leads())
    }

    /// Takes over what is written; returns the revision of that.
    async fn look(&self) -> Result<u64, StoreError> {
        let range = self.store.range(TRUST).await?;
        let written = range.kept.iter().find(|kept| &*kept.key == AUTHORITIES);
        let Some((written, authorities)) =
            written.and_then(|kept| Some((kept, parsed::<Authorities>(kept)?)))
        else {
            return Ok(range.revision);
        };
        let revoked = { range.kept.iter() }
            .filter_map(|kept| Some(kept.key.strip_prefix(REVOKED)?.to_owned()))
            .collect();
        let trust = authorities.trust(revoked);
        self.told.send_if_modified(|known| {
            // Somebody else may have looked meanwhile, and have seen more.
            if { known.as_ref() }.is_some_and(|known| known.revision >= written.revision) {
                return false;
            }
            *known = Some(Arc::new(Told {
                line: Line::Trust(trust.clone()).write().into(),
                trust,
                authorities,
                revision: written.revision,
            }));
            true
        });
        Ok(range.revision)
    }

    /// Shows what is written, whoever wrote it.
    async fn follow(self: Arc<Self>, mut revision: u64) {
        loop {
            let mut watch = self.store.watch(TRUST, revision);
            let why = loop {
                match watch.next().await {
                    Ok(_) => drop(self.look().await),
                    Err(why) => break why,
                }
            };
            match (why, self.look().await) {
                (StoreError::Closed, _) => return,
                (_, Ok(at)) => revision = at,
                (_, Err(_)) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    async fn look_after(self: Arc<Self>) {
        let mut tidied = Instant::now();
        let mut led = self.leads();
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.leads() {
                led = false;
                continue;
            }
            self.keep_and_tell().await;
            // Whoever begins to lead counts what is out.
            if !led || tidied.elapsed() >= TIDY {
                (led, tidied) = (true, Instant::now());
                if let Err(error) = self.tidy().await {
                    log::warn(
                        "what is over cannot be thrown out of the authority's records",
                        &[("reason", &error)],
                    );
                }
            }
        }
    }

    async fn keep_and_tell(&self) {
        static NOT_KEPT: Repeated = Repeated::new();
        if let Err(why) = self.keep(now()).await {
            NOT_KEPT.error(
                "the authority's keys cannot be looked after; it is tried again",
                &[("reason", &why)],
            );
        }
    }

    /// Sees to it that there is a key to sign with, and that keys come and go in time.
    async fn keep(&self, now: u64) -> Result<(), String> {
        let said = |error: StoreError| error.to_string();
        let told = self.told.borrow().clone();
        if told.as_ref().is_some_and(|told| self.is_quiet(told, now)) {
            return Ok(());
        }
        let _alone = self.changing.write().await;
        self.look().await.map_err(said)?;
        let told = self.told.borrow().clone();
        let known = told.as_ref().map(|told| &told.authorities);
        let signs = known.and_then(Authorities::signs).map(|one| one.number);
        let has_key = match signs {
            Some(number) => self.store.one(&key_of(number)).await.map_err(said)?,
            None => None,
        };
        let issued = self.store.range(CERTIFICATES).await.map_err(said)?;
        let issued: Vec<Issued> = issued.kept.iter().filter_map(parsed).collect();
        let last = |number: u64| {
            let grace = self.settings.grace.as_secs();
            let ends = { issued.iter() }.filter(|one| one.authority == number);
            let last = ends.map(|one| one.not_after).max().unwrap_or(0);
            last.saturating_add(grace)
        };
        let has_members = issued.iter().any(|one| one.not_after > now);
        let wanted = self.wanted(has_key.is_some(), has_members);
        let domain = match known {
            Some(known) if has_members => &known.trust_domain,
            _ => &self.settings.trust_domain,
        };
        let mut make = maker(domain);
        let change = rotation::settle(known, now, &wanted, &last, &mut *make)?;
        if known.is_some_and(|one| one.trust_domain != self.settings.trust_domain) && has_members {
            static OTHER: Repeated = Repeated::new();
            OTHER.error(
                "`identity.trust_domain` is another than that of the members; theirs stays until none is left",
                &[("theirs", &known.map_or("", |one| &one.trust_domain))],
            );
        }
        if let Some(change) = change {
            let revision = told.as_ref().map(|told| told.revision);
            self.write(change, revision).await.map_err(said)?;
        }
        // Read now, so that the next look is a short one.
        if let Ok(told) = self.told()
            && let Some(signs) = told.authorities.signs()
        {
            self.signer_of(signs).await.map_err(said)?;
        }
        Ok(())
    }

    /// Whether a short look tells that there is nothing to do: it is taken every second.
    fn is_quiet(&self, told: &Told, now: u64) -> bool {
        let authorities = &told.authorities;
        let Some(signs) = authorities.signs() else {
            return false;
        };
        let rotates = now.saturating_add(self.settings.rotates_before().as_secs());
        let due = authorities.known.iter().any(|one| match one.phase {
            Phase::Announced { signs_from } => now >= signs_from,
            Phase::Leaving { until, .. } => now >= until,
            Phase::Signs { .. } => false,
        });
        let alone = authorities.known.len() == 1;
        let ends = alone && !signs.own && rotates > signs.not_after;
        let number = self.signer().as_ref().map(|(number, _)| *number);
        let ready = number == Some(signs.number);
        let same = authorities.trust_domain == self.settings.trust_domain;
        !due && !ends && ready && same && self.own.is_some() == signs.own
    }

    fn wanted(&self, has_key: bool, has_members: bool) -> Wanted<'_> {
        Wanted {
            trust_domain: &self.settings.trust_domain,
            authority_lifetime: self.settings.authority_lifetime.as_secs().max(1),
            overlap: self.settings.overlap.as_secs(),
            rotates_before: self.settings.rotates_before().as_secs(),
            own: self.own.as_ref().map(|own| &own.own),
            has_key,
            has_members,
        }
    }

    /// Writes a change of the keys. `revision`: of what it was made from; `None`: there was nothing.
    async fn write(&self, change: Change, revision: Option<u64>) -> Result<(), StoreError> {
        let text = serde_json::to_string(&change.authorities).unwrap_or_default();
        let mut transaction = Transaction::put(AUTHORITIES, text).when(match revision {
            Some(revision) => Compare::At(AUTHORITIES.into(), revision),
            None => Compare::Absent(AUTHORITIES.into()),
        });
        for number in &change.forget {
            let key = key_of(*number).into();
            transaction.then.push(Write::Delete(key));
        }
        if let Some((number, key)) = &change.key {
            transaction
                .then
                .push(put(key_of(*number), key.as_str().into()));
        }
        let committed = self.store.commit(transaction).await?;
        self.look().await?;
        if !committed.written {
            return Err(StoreError::NotWritten(
                "somebody else changed the keys at the same time".to_owned(),
            ));
        }
        for words in &change.words {
            log::info("the authority's keys change", &[("what", words)]);
            let line = json!({ "what": "authority", "note": words, "result": "done" });
            self.audit.note_change(&line);
        }
        Ok(())
    }

    fn signer(&self) -> MutexGuard<'_, Option<(u64, Arc<Signer>)>> {
        self.signer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of an authority, if it is there.
    async fn signer_of(&self, known: &Known) -> Result<Option<Arc<Signer>>, StoreError> {
        if let Some(own) = self.own.as_ref().filter(|_| known.own) {
            let same = own.own.certificate == known.certificate;
            let signer = same.then(|| own.signer.clone());
            if let Some(signer) = &signer {
                *self.signer() = Some((known.number, signer.clone()));
            }
            return Ok(signer);
        }
        if let Some((number, signer)) = &*self.signer()
            && *number == known.number
        {
            return Ok(Some(signer.clone()));
        }
        let Some(kept) = self.store.one(&key_of(known.number)).await? else {
            return Ok(None);
        };
        match Signer::new(&known.certificate, &kept.value) {
            Ok(signer) => {
                let signer = Arc::new(signer);
                *self.signer() = Some((known.number, signer.clone()));
                Ok(Some(signer))
            }
            Err(why) => {
                static BROKEN: Repeated = Repeated::new();
                BROKEN.error("the authority's key cannot be used", &[("reason", &why)]);
                Ok(None)
            }
        }
    }

    /// Throws out what is over, and counts what is out.
    async fn tidy(&self) -> Result<(), StoreError> {
        let now = now();
        let grace = self.settings.grace.as_secs();
        let over = |until: u64, more: u64| now >= until.saturating_add(more);
        let mut gone: Vec<Arc<str>> = Vec::new();
        let mut out: HashMap<SpiffeId, usize> = HashMap::new();
        for kept in self.store.range(CERTIFICATES).await?.kept {
            match parsed::<Issued>(&kept) {
                Some(issued) if !over(issued.not_after, grace) => {
                    *out.entry(issued.identity).or_default() += 1;
                }
                _ => gone.push(kept.key),
            }
        }
        for kept in self.store.range(TOKENS).await?.kept {
            let token = parsed::<record::Token>(&kept);
            if token.is_none_or(|token| over(token.until, REMEMBER)) {
                gone.push(kept.key);
            }
        }
        for keys in gone.chunks(AT_ONCE) {
            let transaction = Transaction {
                when: Vec::new(),
                then: keys.iter().cloned().map(Write::Delete).collect(),
            };
            self.store.commit(transaction).await?;
        }
        *self.out() = out;
        let revoked = self.store.range(REVOKED).await?.kept;
        let ended = { revoked.into_iter() }.filter(|kept| {
            let revoked = parsed::<record::Revoked>(kept);
            revoked.is_none_or(|revoked| over(revoked.until, grace))
        });
        let ended: Vec<Write> = ended.map(|kept| Write::Delete(kept.key)).collect();
        if !ended.is_empty() {
            let _alone = self.changing.write().await;
            for part in ended.chunks(AT_ONCE) {
                self.tell_anew(part.to_vec()).await?;
            }
        }
        Ok(())
    }

    /// Writes what changes what members are told, together with the number of that.
    async fn tell_anew(&self, then: Vec<Write>) -> Result<bool, StoreError> {
        self.look().await?;
        let Some(told) = self.told.borrow().clone() else {
            return Ok(false);
        };
        let mut authorities = told.authorities.clone();
        authorities.version = authorities.next_version(now());
        let text = serde_json::to_string(&authorities).unwrap_or_default();
        let mut transaction = Transaction::put(AUTHORITIES, text)
            .when(Compare::At(AUTHORITIES.into(), told.revision));
        transaction.then.extend(then);
        let committed = self.store.commit(transaction).await?;
        self.look().await?;
        Ok(committed.written)
    }

    fn out(&self) -> MutexGuard<'_, HashMap<SpiffeId, usize>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn own_key(settings: &Identity) -> Result<Option<OwnKey>, Unusable> {
    let files = settings.files.as_ref().filter(|_| settings.enabled);
    files.map(own::load).transpose()
}

/// Whether the files that the document names can be used.
pub fn check(settings: &Identity) -> Result<(), Unusable> {
    own_key(settings).map(drop)
}

/// What a value says; what cannot be read is another version's, and is left out.
fn parsed<T: DeserializeOwned>(kept: &Kept) -> Option<T> {
    serde_json::from_str(&kept.value).ok()
}

fn key_of(number: u64) -> String {
    format!("{KEYS}{number}")
}

fn put(key: impl Into<Arc<str>>, value: Arc<str>) -> Write {
    Write::Put {
        key: key.into(),
        value,
        lease: None,
    }
}

/// Makes keys for a trust domain.
fn maker(trust_domain: &str) -> Box<rotation::Make<'_>> {
    Box::new(move |number, from, until| certificate::make(trust_domain, number, from, until))
}

/// Seconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
