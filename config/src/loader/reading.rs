//! One load, from the first file to the finished document: files, what they include, the whole at the end. Notes every
//! problem on its way and stops at none.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::quality::{FixedState, FoldHasher};

use super::memory::Memory;
use super::source::Source;
use super::{include, with_lines};
use crate::check::{self, Broken, Checks};
use crate::decode;
use crate::document::*;
use crate::interpolate::{Environment, Use};
use crate::problem::Problems;
use crate::report::Report;
use crate::unit;

pub(super) struct Reading<'l> {
    pub(super) report: Report,
    pub(super) environment: &'l Environment,
    pub(super) memory: &'l mut Memory,
    pub(super) sources: Vec<Source>,
    /// Everything that was read, in order, for whoever watches.
    pub(super) watched: Vec<PathBuf>,
    /// Files that were read or wait to be read, by their real paths: a file belongs to a document once.
    seen: HashSet<PathBuf>,
    waiting: VecDeque<(PathBuf, Place)>,
    pub(super) hashers: [FoldHasher<'static>; 2],
    pub(super) server: Option<(Server, Place)>,
    pub(super) control_plane: Option<(ControlPlane, Place)>,
    pub(super) identity: Option<(Identity, Place)>,
    /// The `[server]` of a file that is joined with blocks names a folder for what outlives the process.
    pub(super) keeps_state: bool,
    pub(super) telemetry: Option<(Telemetry, Place)>,
    pub(super) listeners: Vec<Item<Listener>>,
    pub(super) routes: Vec<Item<Route>>,
    /// Which routes have no name of their own.
    pub(super) unnamed: Vec<usize>,
    /// Which routes were not remembered.
    pub(super) changed: Vec<usize>,
    pub(super) upstreams: Vec<Item<Upstream>>,
    pub(super) limits: Vec<Item<Limit>>,
    pub(super) sharing: Option<(Option<Sharing>, Place)>,
    pub(super) tiers: Option<(Vec<Item<Tier>>, Place)>,
    pub(super) api_keys: Vec<Item<ApiKey>>,
    pub(super) jwts: Vec<Item<Jwt>>,
    pub(super) accesses: Vec<Item<Access>>,
    pub(super) errors: Option<(ErrorBody, Place)>,
    pub(super) tests: Vec<Item<Test>>,
    pub(super) broken: Broken,
    /// A text could not be cut, so what it holds is not remembered.
    pub(super) whole: bool,
    fleet: bool,
    /// The first text may be a short one.
    pub(super) short: bool,
}

/// The text that is being read, and where it stands.
pub(super) struct Here<'a> {
    pub(super) name: &'a Arc<str>,
    pub(super) folder: &'a Path,
    /// Line of the file that the parsed text begins on.
    pub(super) first_line: u32,
    /// What references stand for, in a text that somebody else wrote for us.
    pub(super) given: Option<&'a [Use]>,
}

impl<'l> Reading<'l> {
    pub(super) fn new(
        environment: &'l Environment,
        memory: &'l mut Memory,
        fleet: bool,
    ) -> Reading<'l> {
        Reading {
            report: Report::default(),
            environment,
            memory,
            sources: Vec::new(),
            watched: Vec::new(),
            seen: HashSet::new(),
            waiting: VecDeque::new(),
            // Two of 64 bits: documents are compared with their own past, not with an enemy's.
            hashers: [1, 2].map(|seed| FixedState::with_seed(seed).build_hasher()),
            server: None,
            control_plane: None,
            identity: None,
            keeps_state: false,
            telemetry: None,
            listeners: Vec::new(),
            routes: Vec::new(),
            unnamed: Vec::new(),
            changed: Vec::new(),
            upstreams: Vec::new(),
            limits: Vec::new(),
            sharing: None,
            tiers: None,
            api_keys: Vec::new(),
            jwts: Vec::new(),
            accesses: Vec::new(),
            errors: None,
            tests: Vec::new(),
            broken: Broken::default(),
            whole: false,
            fleet,
            short: false,
        }
    }

    pub(super) fn file(&mut self, path: &Path, bytes: Vec<u8>) {
        self.watched.push(path.to_owned());
        self.seen.insert(real(path));
        let name: Arc<str> = Arc::from(path.display().to_string());
        let folder = path.parent().unwrap_or(Path::new(""));
        match String::from_utf8(bytes) {
            Ok(text) => self.text(name, text, folder),
            Err(error) => {
                let good = error.utf8_error().valid_up_to();
                let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
                let line = u32::try_from(before.matches('\n').count()).unwrap_or(u32::MAX);
                let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count());
                let place = Place {
                    file: name,
                    line: line.saturating_add(1),
                    column: u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1),
                };
                self.report.add(
                    "not-utf8",
                    Some(place),
                    "the file is not UTF-8 text",
                    "save it as UTF-8",
                );
                self.broken.everything();
            }
        }
    }

    /// Reads a text, then what it includes.
    pub(super) fn text(&mut self, name: Arc<str>, text: String, folder: &Path) {
        self.one_text(name, text, folder);
        while let Some((path, place)) = self.waiting.pop_front() {
            match include::read(&path, false) {
                Ok(bytes) => self.file(&path, bytes),
                Err(why) => {
                    self.report.add(
                        "missing-file",
                        Some(place),
                        format!("{} cannot be read: {why}", path.display()),
                        "correct the path; it is relative to the file that it stands in",
                    );
                    self.broken.everything();
                }
            }
        }
    }

    pub(super) fn include(&mut self, folder: &Path, pattern: &str, place: Place) {
        match include::expand(folder, pattern) {
            Ok(paths) => {
                for path in paths {
                    if self.seen.insert(real(&path)) {
                        self.waiting.push_back((path, place.clone()));
                    }
                }
            }
            Err(why) => {
                self.report.add(
                    "missing-file",
                    Some(place),
                    format!("`{}` includes nothing: {why}", unit::short(pattern)),
                    "correct the path; it is relative to this file",
                );
                self.broken.everything();
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<Document, Problems> {
        if self.report.is_empty() {
            self.memory.forget_unread();
        }
        // An item with a problem is not remembered, nor is its name.
        let known = self.report.is_empty() && !self.whole;
        if !known || !self.memory.names_differ() {
            self.name_routes();
        }
        let mut keys = 0;
        if !self.sources.is_empty() {
            keys = self.check();
        }
        if !self.report.is_empty() {
            let problems = with_lines(self.report, &self.sources);
            self.memory.end_bad(self.sources);
            return Err(problems);
        }
        self.memory
            .end_good(self.sources, &self.listeners, &self.upstreams);
        let mut sources: Vec<PathBuf> = Vec::with_capacity(self.watched.len());
        let mut listed = HashSet::new();
        for path in self.watched {
            if listed.insert(path.clone()) {
                sources.push(path);
            }
        }
        let hash = self
            .hashers
            .iter()
            .map(|h| format!("{:016x}", h.finish()))
            .collect();
        // Who has a control plane shares through it without another word.
        let usual = { self.control_plane.as_ref() }.map(|_| Sharing::default());
        Ok(Document {
            control_plane: self.control_plane.map(|(control_plane, _)| control_plane),
            identity: self.identity.map(|(identity, _)| identity),
            server: self
                .server
                .map_or_else(decode::default_server, |(server, _)| server),
            listeners: self.listeners,
            routes: self.routes,
            upstreams: self.upstreams,
            limits: self.limits,
            tiers: self.tiers.map_or_else(Vec::new, |(tiers, _)| tiers),
            api_keys: self.api_keys,
            jwts: self.jwts,
            accesses: self.accesses,
            errors: self
                .errors
                .map_or_else(ErrorBody::default, |(body, _)| body),
            sharing: { self.sharing.and_then(|(sharing, _)| sharing) }.or(usual),
            tests: self.tests,
            telemetry: self
                .telemetry
                .map_or_else(decode::default_telemetry, |(t, _)| t),
            sources,
            hash,
            keys,
        })
    }

    /// Checks the whole document; returns what the private keys it names were hashed to.
    pub(super) fn check(&mut self) -> u64 {
        // What is checked of a route alone needs no second look as long as every name means what it meant.
        let tested = self
            .tests
            .iter()
            .filter_map(|test| test.expect.route.as_ref());
        let settled = self.report.is_empty()
            && !self.whole
            && self.memory.all_differ()
            && self.memory.still_means(&self.listeners, &self.upstreams)
            && { tested }.all(|name| self.memory.has_route(name));
        let admin = self.server.as_ref();
        let mut checks = Checks {
            listeners: &self.listeners,
            routes: &self.routes,
            changed: settled.then_some(&self.changed),
            upstreams: &self.upstreams,
            limits: &self.limits,
            tiers: self.tiers.as_ref().map_or(&[], |(tiers, _)| tiers),
            api_keys: &self.api_keys,
            jwts: &self.jwts,
            accesses: &self.accesses,
            sharing: self.sharing.as_ref(),
            telemetry: self.telemetry.as_ref(),
            tests: &self.tests,
            control_plane: self.control_plane.is_some() || self.fleet,
            register: self
                .control_plane
                .as_ref()
                .and_then(|(control_plane, place)| {
                    Some((control_plane.register.as_ref()?, place.clone()))
                }),
            identity: self.identity.as_ref().map(|(identity, _)| identity),
            keeps_state: self.keeps_state
                || admin.is_some_and(|(server, _)| server.state_dir.is_some()),
            fleet: self.fleet,
            admin: admin.map(|(server, place)| (server.admin, place.clone())),
            broken: &self.broken,
            main: self
                .sources
                .first()
                .map_or_else(|| Arc::from(""), |source| source.name.clone()),
            report: &mut self.report,
            read: Vec::new(),
            seed: &self.memory.seed,
            keys: 0,
        };
        check::check(&mut checks);
        let keys = checks.keys;
        for (path, content) in checks.read {
            hash(&mut self.hashers, &content);
            self.watched.push(path);
        }
        keys
    }
}

impl Here<'_> {
    pub(super) fn place(&self, spot: (u32, u32)) -> Place {
        Place {
            file: self.name.clone(),
            line: self.first_line.saturating_add(spot.0),
            column: spot.1,
        }
    }
}

pub(super) fn hash(hashers: &mut [FoldHasher<'static>; 2], bytes: &[u8]) {
    for hasher in hashers {
        // The length first, so that two texts do not hash like another two with the same characters in all.
        hasher.write_usize(bytes.len());
        hasher.write(bytes);
    }
}

fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
