//! What is known of the control plane's documents and services, driven by lines and `now`. Pure: no sockets, no clock.
//!
//! A batch is taken whole at its end or not at all. Whoever contradicts what it said before, or leaves a gap, is not
//! believed: its connection ends, what was known stays, and everything is asked for anew. Another epoch means that the
//! control plane lost its memory: a list of instances that is empty or missing in its first batch takes nothing away.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_config::feed::{
    Ask, Begin, Block, Blocks, Have, Hello, Instance, Line, MOST_BLOCKS, MOST_BYTES, MOST_SERVICES,
    Put, Service,
};
use tollgate_config::identity::Trust;

/// A control plane that wants to be silent for longer is not believed to live.
const LONGEST_BEAT: Duration = Duration::from_secs(60);
/// Until the first line.
const HELLO: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Known {
    /// `None`: nothing, or nothing that could be continued.
    epoch: Option<String>,
    revision: u64,
    blocks: Blocks,
    services: BTreeMap<String, List>,
    /// Of all instances, about.
    weight: usize,
    /// How often the question changed that decides which blocks we are told, and at which of them we were told all.
    asked: u64,
    answered: u64,
    /// Whom to trust is wanted from whoever is connected.
    wants_trust: bool,
    session: Session,
}

/// One connection.
#[derive(Debug, Default)]
struct Session {
    hello: Option<Hello>,
    batch: Option<Batch>,
    /// The question that it was opened with.
    asked: u64,
    /// When it is dead unless something is heard.
    dead_at: Option<Instant>,
}

#[derive(Debug)]
struct List {
    version: u64,
    /// From an epoch before this one: whatever is told next is newer.
    stale: bool,
    instances: Arc<[Instance]>,
    weight: usize,
}

#[derive(Debug)]
struct Batch {
    full: bool,
    changes: Vec<Change>,
    services: Vec<Service>,
    weight: usize,
}

#[derive(Debug)]
enum Change {
    Put(Put),
    Remove(String),
}

/// What a line brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The blocks are others, or a batch without a difference came to its end.
    pub batch: bool,
    /// A full batch without a single block, though some were known: nobody means that (HI-66).
    pub emptied: bool,
    /// Whose instances changed.
    pub services: Vec<String>,
    /// Whom the mesh trusts, as told; whether that is news is for others to say.
    pub trust: Option<Trust>,
    /// What the control plane wants to know.
    pub ask: Option<Ask>,
}

/// Why a connection is not listened to any longer.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be right; everything is to be asked for anew.
    Wrong(String),
    /// It knows less than we do.
    Behind(String),
    /// Our request was refused.
    Refused(String),
}

impl Known {
    /// Whether subscriptions ask whom to trust.
    pub fn asked_for_trust(&mut self, wants: bool) {
        self.wants_trust = wants;
    }

    /// A connection was opened.
    pub fn connected(&mut self, now: Instant) {
        self.answers(self.asked, now);
    }

    /// A connection was opened that answers this question: `asks`, when it was sent.
    pub fn answers(&mut self, asked: u64, now: Instant) {
        self.session = Session {
            dead_at: Some(now + HELLO),
            asked,
            ..Session::default()
        };
    }

    /// Another question than before is asked from now on, over this connection or the next. What of the answer has come
    /// cannot be told when a connection breaks, so the next one tells everything.
    pub fn asks_anew(&mut self) {
        self.asked += 1;
    }

    pub fn asks(&self) -> u64 {
        self.asked
    }

    /// What a subscription can say to have.
    pub fn have(&self) -> Option<Have> {
        if self.asked != self.answered {
            return None;
        }
        let epoch = self.epoch.clone()?;
        let revision = self.revision;
        Some(Have { epoch, revision })
    }

    pub fn epoch(&self) -> &str {
        self.epoch.as_deref().unwrap_or_default()
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn blocks(&self) -> Arc<[Arc<Block>]> {
        self.blocks.list()
    }

    /// All lists, with the version of each; 0 for one of an epoch before this, which every version is newer than.
    pub fn services(&self) -> impl Iterator<Item = (&str, u64, &Arc<[Instance]>)> {
        let lists = self.services.iter();
        lists.map(|(name, list)| {
            let version = if list.stale { 0 } else { list.version };
            (name.as_str(), version, &list.instances)
        })
    }

    /// Nobody wants to know of this service any longer, and the control plane was told so.
    pub fn forget(&mut self, name: &str) {
        if let Some(list) = self.services.remove(name) {
            self.weight -= list.weight;
        }
    }

    pub fn instances(&self, name: &str) -> Option<Arc<[Instance]>> {
        self.services.get(name).map(|list| list.instances.clone())
    }

    /// How many services are known.
    pub fn count_services(&self) -> usize {
        self.services.len()
    }

    /// Who speaks, once it said so.
    pub fn server(&self) -> Option<&str> {
        let hello = self.session.hello.as_ref()?;
        Some(&hello.server)
    }

    /// How often the control plane wants to know what was served.
    pub fn figures(&self) -> Option<Duration> {
        self.session.hello.as_ref()?.figures
    }

    /// When the connection is dead unless something is heard.
    pub fn dead_at(&self) -> Option<Instant> {
        self.session.dead_at
    }

    /// Bytes arrived; part of a long line is a sign of life, too.
    pub fn heard(&mut self, now: Instant) {
        let beat = self.session.hello.as_ref().map(|hello| hello.beat);
        self.session.dead_at = Some(now + beat.map_or(HELLO, |beat| beat.min(LONGEST_BEAT)));
    }

    /// Forgets the revision, but nothing that is known: the next batch must be full.
    pub fn distrust(&mut self) {
        self.epoch = None;
        self.session.batch = None;
    }

    /// Takes one line.
    pub fn line(&mut self, line: Line, now: Instant) -> Result<News, Fault> {
        let result = self.take(line);
        if let Err(Fault::Wrong(_)) = &result {
            self.distrust();
        }
        self.heard(now);
        result
    }

    fn take(&mut self, line: Line) -> Result<News, Fault> {
        if let Line::Refused(refused) = line {
            let problems = refused.problems.into_iter();
            let words: Vec<String> = problems.take(5).map(|problem| problem.message).collect();
            return Err(Fault::Refused(words.join("; ")));
        }
        match (&self.session.hello, line) {
            (None, Line::Hello(hello)) => self.hello(hello),
            (None, _) => wrong("the first line is not `hello`"),
            (Some(_), Line::Hello(_)) => wrong("a second `hello`"),
            (Some(_), Line::Begin(begin)) => self.begin(begin),
            (Some(_), Line::Put(put)) => {
                let weight = put.id.len() + put.text.len() + put.file.len() + 256;
                let uses = put.uses.iter();
                let uses: usize = uses.map(|u| u.reference.len() + u.value.len() + 64).sum();
                self.change(Change::Put(put), weight + uses)
            }
            (Some(_), Line::Remove(remove)) => self.change(Change::Remove(remove.id), 256),
            (Some(_), Line::Service(service)) => self.service(service),
            (Some(_), Line::Trust(_)) if !self.wants_trust => {
                wrong("whom to trust was not asked for")
            }
            (Some(_), Line::Trust(trust)) => match trust.check() {
                Ok(()) => Ok(News {
                    trust: Some(trust),
                    ..News::default()
                }),
                Err(why) => Err(Fault::Wrong(why)),
            },
            (Some(_), Line::Ask(ask)) => Ok(News {
                ask: Some(ask),
                ..News::default()
            }),
            (Some(_), Line::End(end)) => self.end(end.revision),
            (Some(_), Line::Beat(beat)) => self.beat(beat.revision),
            (Some(_), Line::Refused(_)) => Ok(News::default()),
        }
    }

    fn hello(&mut self, hello: Hello) -> Result<News, Fault> {
        if self.epoch.as_ref() == Some(&hello.epoch) && hello.revision < self.revision {
            return Err(Fault::Behind(format!(
                "it is at revision {}, behind our {}",
                hello.revision, self.revision
            )));
        }
        self.session.hello = Some(hello);
        Ok(News::default())
    }

    /// Whether what we know can be continued by what this connection says.
    fn continues(&self) -> bool {
        let hello = self.session.hello.as_ref().map(|hello| &hello.epoch);
        self.epoch.is_some() && self.epoch.as_ref() == hello
    }

    fn begin(&mut self, begin: Begin) -> Result<News, Fault> {
        if self.session.batch.is_some() {
            return wrong("a batch begins inside of another");
        }
        if !begin.full && !self.continues() {
            return wrong("a batch tells changes to something that we do not have");
        }
        self.session.batch = Some(Batch {
            full: begin.full,
            changes: Vec::new(),
            services: Vec::new(),
            weight: 0,
        });
        Ok(News::default())
    }

    fn change(&mut self, change: Change, weight: usize) -> Result<News, Fault> {
        let Some(batch) = &mut self.session.batch else {
            return wrong("a block outside of a batch");
        };
        batch.weight += weight;
        batch.changes.push(change);
        if batch.weight > MOST_BYTES || batch.changes.len() > MOST_BLOCKS {
            return wrong("a batch is larger than any document");
        }
        Ok(News::default())
    }

    fn service(&mut self, service: Service) -> Result<News, Fault> {
        if let Some(batch) = &mut self.session.batch {
            batch.weight += weight_of(&service.instances);
            batch.services.push(service);
            if batch.weight > MOST_BYTES || batch.services.len() > MOST_SERVICES {
                return wrong("a batch is larger than any document");
            }
            return Ok(News::default());
        }
        if !self.continues() {
            return wrong("a service before the first batch");
        }
        let mut news = News::default();
        self.list(service, &mut news)?;
        Ok(news)
    }

    /// Takes over a list, unless it is older than the one that is known.
    fn list(&mut self, service: Service, news: &mut News) -> Result<(), Fault> {
        let known = self.services.get(&service.name);
        if known.is_some_and(|known| !known.stale && service.version <= known.version) {
            return Ok(());
        }
        let weight = weight_of(&service.instances);
        let before = known.map_or(0, |known| known.weight);
        let after = self.weight - before + weight;
        if after > MOST_BYTES || (known.is_none() && self.services.len() >= MOST_SERVICES) {
            return wrong("more instances than a node keeps");
        }
        self.weight = after;
        let changed = known.is_none_or(|known| *known.instances != *service.instances);
        let list = List {
            version: service.version,
            stale: false,
            instances: service.instances.into(),
            weight,
        };
        if changed {
            news.services.push(service.name.clone());
        }
        self.services.insert(service.name, list);
        Ok(())
    }

    fn end(&mut self, revision: u64) -> Result<News, Fault> {
        let Some(batch) = self.session.batch.take() else {
            return wrong("a batch ends that did not begin");
        };
        let continues = self.continues();
        if continues && revision < self.revision {
            return wrong("a batch is older than the one before it");
        }
        let mut news = News {
            batch: true,
            ..News::default()
        };
        if batch.full {
            self.replace(batch, continues, &mut news)?;
            self.answered = self.session.asked;
        } else {
            if self.blocks.weight() + batch.weight > 2 * MOST_BYTES
                || self.blocks.len() + batch.changes.len() > 2 * MOST_BLOCKS
            {
                return wrong("more blocks than a node keeps");
            }
            for change in batch.changes {
                match change {
                    Change::Put(put) => self.blocks.put(put),
                    Change::Remove(id) if self.blocks.remove(&id) => {}
                    Change::Remove(_) => return wrong("a block is removed that we do not have"),
                }
            }
            for service in batch.services {
                self.list(service, &mut news)?;
            }
        }
        self.epoch = self.session.hello.as_ref().map(|hello| hello.epoch.clone());
        self.revision = revision;
        Ok(news)
    }

    /// What is not in the batch is gone.
    fn replace(&mut self, batch: Batch, continues: bool, news: &mut News) -> Result<(), Fault> {
        let had = !self.blocks.is_empty();
        let mut told: HashSet<String> = HashSet::new();
        for change in batch.changes {
            match change {
                Change::Put(put) => {
                    told.insert(put.id.clone());
                    self.blocks.put(put);
                }
                Change::Remove(_) => return wrong("a full batch removes a block"),
            }
        }
        self.blocks.retain(|id| told.contains(id));
        news.emptied = had && self.blocks.is_empty();
        if !continues {
            self.services
                .values_mut()
                .for_each(|list| list.stale = true);
        }
        let mut named = HashSet::new();
        for service in batch.services {
            let lost = |known: &List| known.stale && !known.instances.is_empty();
            named.insert(service.name.clone());
            let forgot =
                service.instances.is_empty() && self.services.get(&service.name).is_some_and(lost);
            if !forgot {
                self.list(service, news)?;
            }
        }
        if continues {
            let gone: Vec<String> = { self.services.iter() }
                .filter(|(name, list)| !list.stale && !named.contains(*name))
                .map(|(name, _)| name.clone())
                .collect();
            for name in gone {
                if let Some(list) = self.services.remove(&name) {
                    self.weight -= list.weight;
                }
                news.services.push(name);
            }
        }
        Ok(())
    }

    fn beat(&mut self, revision: u64) -> Result<News, Fault> {
        if !self.continues() || self.session.batch.is_some() {
            // Before the first batch, or between its lines: a sign of life and nothing else.
            return Ok(News::default());
        }
        if revision < self.revision {
            return wrong("a beat is older than the batch before it");
        }
        self.revision = revision;
        Ok(News::default())
    }
}

fn wrong<T>(words: &str) -> Result<T, Fault> {
    Err(Fault::Wrong(words.to_owned()))
}

fn weight_of(instances: &[Instance]) -> usize {
    let pairs = |instance: &Instance| -> usize {
        let pairs = instance.metadata.iter();
        pairs.map(|(key, value)| key.len() + value.len() + 96).sum()
    };
    let weights = instances.iter();
    weights
        .map(|one| one.id.len() + one.address.len() + pairs(one) + 192)
        .sum()
}
