//! What an operator sees of the feed: where the documents are from, how old, who is listened to and why not. Says
//! whether something is news, so that each change of state is one line in the log.

use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use tollgate_config::{ControlPlane, Problems};

use super::known::Known;
use crate::clock::unix_seconds;

#[derive(Debug, Default)]
pub(super) struct Status {
    /// `None`: the document names no control plane.
    node: Option<String>,
    urls: Vec<String>,
    connected: Option<String>,
    /// The last that was said of not being connected.
    why_not: Option<(String, String)>,
    since: Option<SystemTime>,
    heard: Option<Instant>,
    /// What serves.
    revision: Option<u64>,
    from_last_good: bool,
    applied: u64,
    refused: u64,
    micros: u64,
    last_refusal: Option<Value>,
    unsaved: Option<String>,
    saved: Option<SystemTime>,
    registration: Registration,
}

#[derive(Debug, Default)]
struct Registration {
    /// From the first request on: what was sent may have been taken.
    id: Option<String>,
    url: Option<String>,
    why_not: Option<String>,
}

impl Status {
    pub(super) fn on(&mut self, node: &str, settings: &ControlPlane) {
        self.node = Some(node.to_owned());
        self.urls = settings.urls.iter().map(|url| url.text.clone()).collect();
        self.connected = None;
        self.why_not = None;
        self.since = Some(SystemTime::now());
    }

    pub(super) fn off(&mut self) {
        self.node = None;
        self.connected = None;
    }

    pub(super) fn begins_with_last_good(&mut self, revision: u64) {
        self.revision = Some(revision);
        self.from_last_good = true;
    }

    /// Something good was heard. Whether that is news.
    pub(super) fn connected(&mut self, url: &str) -> bool {
        self.heard = Some(Instant::now());
        if self.connected.as_deref() == Some(url) {
            return false;
        }
        self.connected = Some(url.to_owned());
        self.why_not = None;
        self.since = Some(SystemTime::now());
        true
    }

    /// Whether that is news.
    pub(super) fn disconnected(&mut self, url: &str, why: &str) -> bool {
        let said = (url.to_owned(), why.to_owned());
        let was = self.connected.take().is_some();
        if was {
            self.since = Some(SystemTime::now());
        }
        // The same story of one URL after the other is told once.
        let news = was || self.why_not.is_none();
        self.why_not = Some(said);
        news
    }

    pub(super) fn applied(&mut self, revision: u64, micros: u64) {
        self.revision = Some(revision);
        self.from_last_good = false;
        self.applied += 1;
        self.micros = micros;
    }

    pub(super) fn refused(&mut self, revision: u64, problems: &Problems) {
        self.refused += 1;
        let words: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        self.last_refusal = Some(json!({
            "at": unix_seconds(SystemTime::now()),
            "revision": revision,
            "problems": words,
        }));
    }

    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved.is_some()
    }

    pub(super) fn saved(&mut self, error: Option<String>) {
        if error.is_none() {
            self.saved = Some(SystemTime::now());
        }
        self.unsaved = error;
    }

    /// An instance that the control plane may have.
    pub(super) fn registered(&self) -> Option<String> {
        self.registration.id.clone()
    }

    pub(super) fn forget_registration(&mut self) {
        self.registration = Registration::default();
    }

    pub(super) fn may_be_registered(&mut self, id: &str) {
        if self.registration.id.is_none() {
            self.registration.id = Some(id.to_owned());
        }
    }

    /// Whether that is news.
    pub(super) fn is_registered(&mut self, url: &str, id: &str) -> bool {
        let news = self.registration.why_not.is_some() || self.registration.url.is_none();
        self.registration = Registration {
            id: Some(id.to_owned()),
            url: Some(url.to_owned()),
            why_not: None,
        };
        news
    }

    /// Whether that is news.
    pub(super) fn is_unregistered(&mut self, url: &str, why: &str) -> bool {
        let told = self.registration.why_not.is_some();
        self.registration.why_not = Some(format!("{url}: {why}"));
        !told
    }

    pub(super) fn is_withdrawn(&mut self, why: &str) {
        self.registration.url = None;
        self.registration.why_not = Some(format!("the application does not answer: {why}"));
    }

    pub(super) fn show(&self, known: &Known) -> Option<Value> {
        let node = self.node.as_ref()?;
        let source = match (self.revision, self.from_last_good) {
            (None, _) => "nothing yet",
            (Some(_), true) => "last good",
            (Some(_), false) => "control plane",
        };
        let why_not = self.why_not.as_ref().filter(|_| self.connected.is_none());
        Some(json!({
            "node": node,
            "urls": self.urls,
            "connected": self.connected.is_some(),
            "url": self.connected,
            "why_not": why_not.map(|(url, why)| format!("{url}: {why}")),
            "since": self.since.map(unix_seconds),
            "heard_seconds_ago": self.heard.map(|heard| heard.elapsed().as_secs()),
            "source": source,
            "epoch": known.epoch(),
            "revision": self.revision,
            "known_revision": known.have().map(|have| have.revision),
            "services": known.count_services(),
            "applied": self.applied,
            "refused": self.refused,
            "last_micros": self.micros,
            "last_refusal": self.last_refusal,
            "registration": {
                "id": self.registration.id,
                "url": self.registration.url,
                "why_not": self.registration.why_not,
            },
            "last_good": { "written": self.saved.map(unix_seconds), "error": self.unsaved },
        }))
    }
}
