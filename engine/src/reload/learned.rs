//! Which services this process has learned, because requests asked for them: since when, when each was used last, and
//! the file in `server.state_dir` that the next process begins with. A service that nobody asks for is forgotten after
//! `upstream.learn.forget`.
//!
//! Belongs to the control thread. Knows no clock: `now` is an argument, in seconds since 1970, because what is kept
//! outlives the process. Nothing here subscribes or compiles.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tollgate_config::{Document, EndpointSource, service_of};

use crate::kept;
use crate::telemetry::log;
use crate::upstream::discovery::Services;
use crate::upstream::learning::{Name, Names};

/// More names than may be learned, and long ones, take less.
const LARGEST: u64 = 4 << 20;
/// Last uses are written when they differ by so much from what is on disk.
const COARSE: u64 = 3600;

pub struct Learned {
    all: BTreeMap<Arc<str>, Entry>,
    names: Arc<Names>,
    file: Option<PathBuf>,
    unwritten: bool,
}

struct Entry {
    name: Name,
    /// Its instances were told: an upstream is made for it.
    is_known: bool,
    from_disk: bool,
    times: Times,
    /// As it is on disk.
    written: u64,
    /// Requests that its instances were sent, at the last look.
    sent: u64,
}

/// In seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Times {
    since: u64,
    used: u64,
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    services: BTreeMap<String, Times>,
}

/// A file to be replaced.
pub struct Writing {
    file: PathBuf,
    bytes: Vec<u8>,
}

impl Writing {
    /// Whether it is on the disk. Blocks.
    pub fn write(&self) -> bool {
        let folder = self.file.parent().map_or(Ok(()), fs::create_dir_all);
        let written = folder.and_then(|()| kept::replace(&self.file, &self.bytes));
        if let Err(error) = &written {
            static UNWRITTEN: log::Repeated = log::Repeated::new();
            let file = self.file.display().to_string();
            UNWRITTEN.warn(
                "the services that were learned cannot be written; the next process learns them anew",
                &[("file", &file), ("error", error)],
            );
        }
        written.is_ok()
    }
}

/// A service, as an operator sees it. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    pub service: String,
    pub since: u64,
    /// To within a few minutes.
    pub used: u64,
    /// Who told of it: `disk` as long as only the last process did.
    pub source: &'static str,
}

impl Learned {
    /// What the last process left; a file that cannot be used is told and put aside.
    pub fn open(state_dir: Option<&Path>) -> Learned {
        let file = state_dir.map(|folder| folder.join("learned"));
        let kept = file.as_deref().map_or_else(BTreeMap::new, read);
        let entry = |(name, times): (String, Times)| {
            // A name that no request could have asked for was not written by us.
            let name: Arc<str> = service_of(&name).filter(|service| *service == name)?.into();
            let entry = Entry {
                name: Name::new(name.clone()),
                is_known: false,
                from_disk: true,
                times,
                written: times.used,
                sent: 0,
            };
            Some((name, entry))
        };
        Learned {
            all: kept.into_iter().filter_map(entry).collect(),
            names: Arc::default(),
            file,
            unwritten: false,
        }
    }

    /// What upstreams are made for.
    pub fn names(&self) -> Arc<Names> {
        self.names.clone()
    }

    /// Everything that is to be subscribed to.
    pub fn wanted(&self) -> impl Iterator<Item = &Arc<str>> {
        self.all.keys()
    }

    pub fn has(&self, service: &str) -> bool {
        self.all.contains_key(service)
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// A request asked for this one, and its instances are known.
    pub fn add(&mut self, service: &Arc<str>, now: u64) {
        let times = Times {
            since: now,
            used: now,
        };
        self.all.entry(service.clone()).or_insert_with(|| Entry {
            name: Name::new(service.clone()),
            is_known: false,
            from_disk: false,
            times,
            written: 0,
            sent: 0,
        });
        self.unwritten = true;
    }

    /// Takes note of those whose instances are known. Whether `names` are others now.
    pub fn knows(&mut self, services: &Services) -> bool {
        let mut more = false;
        for (name, entry) in &mut self.all {
            if !entry.is_known && services.has(name) {
                (entry.is_known, more) = (true, true);
            }
        }
        if more {
            self.made_anew();
        }
        more
    }

    /// The control plane spoke of these.
    pub fn told(&mut self, services: &[String]) {
        for name in services {
            if let Some(entry) = self.all.get_mut(name.as_str()) {
                entry.from_disk = false;
            }
        }
    }

    /// Notes which were used since the last look, and forgets those that nobody asked for in `forget`: these are
    /// returned. Without `forget` nobody can ask, and all are forgotten. `sent` is how many requests the instances of each
    /// were sent: a route for a service's host uses it without asking for it.
    pub fn look(
        &mut self,
        forget: Option<Duration>,
        sent: &HashMap<&str, u64>,
        now: u64,
    ) -> Vec<Arc<str>> {
        let mut gone = Vec::new();
        let mut unwritten = false;
        self.all.retain(|name, entry| {
            let sent = sent.get(&**name).copied().unwrap_or_default();
            // Instances that are gone take their numbers along.
            let more = sent > std::mem::replace(&mut entry.sent, sent);
            if entry.name.take_used() || more {
                entry.times.used = now;
            }
            unwritten |= entry.times.used.abs_diff(entry.written) >= COARSE;
            // A clock that was set back makes nothing old.
            let idle = Duration::from_secs(now.saturating_sub(entry.times.used));
            let stays = forget.is_some_and(|forget| idle <= forget);
            if !stays {
                gone.push(name.clone());
            }
            stays
        });
        self.unwritten |= unwritten || !gone.is_empty();
        if !gone.is_empty() {
            self.made_anew();
        }
        gone
    }

    fn made_anew(&mut self) {
        let known = self.all.values().filter(|entry| entry.is_known);
        self.names = Arc::new(Names::new(known.map(|entry| entry.name.clone()).collect()));
    }

    /// What is not on disk yet, if anything; the caller writes it.
    pub fn unwritten(&mut self) -> Option<Writing> {
        let file = self.file.clone().filter(|_| self.unwritten)?;
        let kept = Kept {
            version: 1,
            services: { self.all.iter() }
                .map(|(name, entry)| (name.to_string(), entry.times))
                .collect(),
        };
        // Maps have text as keys and nothing in them fails to be written.
        let bytes = serde_json::to_vec(&kept).ok()?;
        self.unwritten = false;
        for entry in self.all.values_mut() {
            entry.written = entry.times.used;
        }
        Some(Writing { file, bytes })
    }

    /// What was to be written was not.
    pub fn is_unwritten(&mut self) {
        self.unwritten = true;
    }

    /// For operators.
    pub fn show(&self) -> Vec<Shown> {
        let all = self.all.iter();
        all.map(|(name, entry)| entry.show(name)).collect()
    }

    pub fn of(&self, service: &str) -> Option<Shown> {
        Some(self.all.get(service)?.show(service))
    }
}

impl Entry {
    fn show(&self, service: &str) -> Shown {
        Shown {
            service: service.to_owned(),
            since: self.times.since,
            used: self.times.used,
            source: match self.from_disk {
                true => "disk",
                false => "control plane",
            },
        }
    }
}

/// How long a service is kept that nobody asks for; `None` when nobody can ask.
pub fn forget_after(document: &Document) -> Option<Duration> {
    let learns = document.upstreams.iter();
    let learns = learns.filter_map(|upstream| match &upstream.endpoints {
        EndpointSource::Asked { learn, .. } => Some(learn.forget.value),
        _ => None,
    });
    learns.max()
}

fn read(file: &Path) -> BTreeMap<String, Times> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let told = |what: &str, error: &str| {
        let file = file.display().to_string();
        log::warn(what, &[("file", &file), ("error", &error)]);
    };
    let opened = fs::File::open(file);
    match opened.and_then(|opened| opened.take(LARGEST).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => {
            told(
                "the services that were learned cannot be read; they are learned anew",
                &error.to_string(),
            );
            return BTreeMap::new();
        }
    }
    match serde_json::from_slice::<Kept>(&bytes) {
        Ok(kept) if kept.version == 1 => kept.services,
        other => {
            let why = other.map_or_else(
                |error| error.to_string(),
                |kept| format!("it is of version {}", kept.version),
            );
            let moved = kept::put_aside(file);
            told(
                "the services that were learned are damaged and were put aside; they are learned anew",
                &format!("{why}; {moved}"),
            );
            BTreeMap::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    const WEEK: Option<Duration> = Some(Duration::from_secs(7 * DAY));

    fn services(names: &[&str]) -> Services {
        let services = Services::default();
        for name in names {
            services.set(name, Arc::from([]));
        }
        services
    }

    fn names(learned: &Learned) -> Vec<String> {
        learned.names().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn mesh_106_what_was_learned_is_there_for_the_next_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut learned = Learned::open(Some(folder.path()));
        learned.add(&"orders".into(), 5);
        learned.add(&"users".into(), 6);
        assert!(learned.knows(&services(&["orders"])));
        assert_eq!(names(&learned), ["orders"]);
        assert!(learned.unwritten().expect("something").write());
        assert!(learned.unwritten().is_none());
        let mut next = Learned::open(Some(folder.path()));
        assert_eq!(next.wanted().count(), 2);
        assert!(names(&next).is_empty(), "their instances are not known yet");
        assert!(next.knows(&services(&["orders", "users", "others"])));
        assert_eq!(names(&next), ["orders", "users"]);
        assert!(!next.knows(&services(&["orders", "users"])));
        assert_eq!(next.show()[0].source, "disk");
        next.told(&["orders".to_owned()]);
        assert_eq!(next.show()[0].source, "control plane");
        assert_eq!((next.show()[0].since, next.show()[1].since), (5, 6));
    }

    #[test]
    fn a_service_that_nobody_asks_for_is_forgotten_in_the_end() {
        let mut learned = Learned::open(None);
        learned.add(&"orders".into(), 0);
        learned.add(&"users".into(), 0);
        learned.knows(&services(&["orders", "users"]));
        let none = HashMap::new();
        assert!(learned.look(WEEK, &none, 7 * DAY).is_empty());
        learned.names().take("orders");
        assert_eq!(learned.look(WEEK, &none, 7 * DAY + 1), ["users".into()]);
        assert_eq!(names(&learned), ["orders"]);
        assert!(learned.look(WEEK, &none, 14 * DAY + 1).is_empty());
        assert!(
            learned.look(WEEK, &none, 0).is_empty(),
            "a clock was set back"
        );
        let some = HashMap::from([("orders", 3)]);
        assert!(
            learned.look(WEEK, &some, 20 * DAY).is_empty(),
            "it was sent"
        );
        assert!(learned.look(WEEK, &some, 27 * DAY).is_empty());
        assert_eq!(learned.look(WEEK, &some, 27 * DAY + 1), ["orders".into()]);
        learned.add(&"orders".into(), 0);
        assert_eq!(learned.look(None, &none, 0), ["orders".into()]);
        assert!(names(&learned).is_empty());
    }

    #[test]
    fn what_is_damaged_or_not_ours_is_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("learned");
        for text in ["", "{", "[]", r#"{"version":2,"services":{}}"#] {
            fs::write(&file, text).expect("written");
            assert_eq!(Learned::open(Some(folder.path())).count(), 0);
            assert!(!file.exists(), "it was put aside: {text}");
        }
        let times = r#"{"since":1,"used":1}"#;
        let text = format!(
            r#"{{"version":1,"services":{{"orders":{times},"a.b":{times},"../x":{times}}}}}"#
        );
        fs::write(&file, text).expect("written");
        let learned = Learned::open(Some(folder.path()));
        assert_eq!(learned.wanted().collect::<Vec<_>>(), [&"orders".into()]);
    }
}
