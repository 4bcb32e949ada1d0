//! The document's `[[jwt]]`s, compiled once for all routes that use them. Made on the control thread; taken over from the
//! snapshot before where neither a setting nor a key changed, so that workers go on believing what they verified.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use aws_lc_rs::digest::{Context, SHA256};
use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;
use tollgate_config::{Document, Filter, Item, Jwt, KeySource, Problem};

use super::jwk;
use super::key::{Key, KeySet, number};
use super::learned::Learned;
use crate::telemetry::metrics::{JwtSeries, Metrics};

/// All issuers of a document.
#[derive(Debug, Default)]
pub struct Issuers {
    by_name: HashMap<Box<str>, Arc<Issuer>, RandomState>,
    /// What any of them tells upstreams, and no client may.
    told: Box<[HeaderName]>,
    source: Source,
}

#[derive(Debug, Default)]
struct Source {
    items: Vec<Item<Jwt>>,
    wanted: Vec<Box<str>>,
    /// Over the files with keys, by item.
    files: Vec<[u8; 32]>,
}

/// One issuer, ready to check tokens.
#[derive(Debug)]
pub struct Issuer {
    pub(super) item: Item<Jwt>,
    /// Its name's, in this process: where workers remember its tokens.
    pub(super) place: usize,
    /// Of these settings.
    pub(super) number: u64,
    pub(super) own: Arc<KeySet>,
    pub(super) learned: Option<Arc<Learned>>,
    /// Claims that rules ask for.
    pub(super) wanted: Vec<Box<str>>,
    pub(super) series: Arc<JwtSeries>,
}

/// What outlives documents: names' places, and the keys that issuers publish, under their name and URL (keys of one
/// issuer are never another's).
#[derive(Debug, Default)]
pub struct IssuerMemory {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The position is the place.
    names: Vec<String>,
    learned: HashMap<(String, String), Weak<Learned>>,
}

impl IssuerMemory {
    fn place(&self, name: &str) -> usize {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let position = known.names.iter().position(|one| one == name);
        position.unwrap_or_else(|| {
            known.names.push(name.to_owned());
            known.names.len() - 1
        })
    }

    fn learned(&self, jwt: &Jwt) -> Option<Arc<Learned>> {
        let jwks = jwt.jwks.as_ref()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .learned
            .retain(|_, learned| learned.strong_count() > 0);
        let key = (jwt.name.clone(), jwks.url.text.clone());
        if let Some(learned) = known.learned.get(&key).and_then(Weak::upgrade) {
            return Some(learned);
        }
        let learned = Arc::new(Learned::new(jwks.url.clone(), Instant::now()));
        known.learned.insert(key, Arc::downgrade(&learned));
        Some(learned)
    }
}

impl Issuers {
    /// Reads the files with keys, which are the only thing that can fail here.
    pub fn compile(
        document: &Document,
        former: Option<&Arc<Issuers>>,
        memory: &IssuerMemory,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let mut problems = Vec::new();
        let own = document.jwts.iter();
        let own: Vec<_> = own.map(|item| keys(item, &mut problems)).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let wanted = match document.jwts.is_empty() {
            true => Vec::new(),
            false => wanted(document),
        };
        let source = Source {
            items: document.jwts.clone(),
            wanted,
            files: own.iter().map(|(_, read)| *read).collect(),
        };
        if let Some(former) = former.filter(|former| former.source.says(&source)) {
            return Ok(former.clone());
        }
        let mut told: Vec<HeaderName> = Vec::new();
        let mut by_name = HashMap::default();
        for (item, (keys, read)) in document.jwts.iter().zip(own) {
            for (name, _) in &item.headers {
                if !told.contains(name) {
                    told.push(name.clone());
                }
            }
            // What it verified is still believed when only its place in the document is another.
            let same = former
                .and_then(|former| former.by_name.get(item.name.as_str()))
                .filter(|former| {
                    *former.item == **item
                        && former.wanted == source.wanted
                        && former.own.source == read
                });
            let issuer = Issuer {
                place: memory.place(&item.name),
                number: same.map_or_else(number, |former| former.number),
                own: match same {
                    Some(former) => former.own.clone(),
                    None => Arc::new(KeySet::new(keys, read)),
                },
                learned: memory.learned(item),
                wanted: source.wanted.clone(),
                series: metrics.jwt(&item.name),
                item: item.clone(),
            };
            by_name.insert(item.name.as_str().into(), Arc::new(issuer));
        }
        Ok(Arc::new(Issuers {
            by_name,
            told: told.into(),
            source,
        }))
    }

    pub(in crate::filter) fn named(&self, name: &str) -> Option<Arc<Issuer>> {
        self.by_name.get(name).cloned()
    }

    /// In the order of the document.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        let names = self.source.items.iter();
        names.filter_map(|item| self.by_name.get(item.name.as_str()))
    }

    /// Whether there is something that no client may say.
    pub(in crate::filter) fn tells(&self) -> bool {
        !self.told.is_empty()
    }

    /// Takes away what only we may say, also where `_` stands for `-`: many servers read both as one name (HI-57).
    pub(in crate::filter) fn strip(&self, headers: &mut HeaderMap) {
        let forged = |name: &&HeaderName| self.told.iter().any(|told| is_same(told, name));
        let forged: SmallVec<[HeaderName; 2]> = headers.keys().filter(forged).cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }
}

fn is_same(told: &HeaderName, name: &HeaderName) -> bool {
    let (told, name) = (told.as_str().as_bytes(), name.as_str().as_bytes());
    let dash = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    told.len() == name.len() && told.iter().map(dash).eq(name.iter().map(dash))
}

impl Issuer {
    pub fn item(&self) -> &Item<Jwt> {
        &self.item
    }

    /// The keys that it publishes, if the document says where.
    pub fn learned(&self) -> Option<&Arc<Learned>> {
        self.learned.as_ref()
    }

    /// How many the document names.
    pub fn own_keys(&self) -> usize {
        self.own.keys.len()
    }

    pub fn series(&self) -> &Arc<JwtSeries> {
        &self.series
    }
}

impl Source {
    fn says(&self, other: &Source) -> bool {
        self.files == other.files
            && self.wanted == other.wanted
            && self.items.len() == other.items.len()
            && self.items.iter().zip(&other.items).all(|(a, b)| {
                a.line == b.line
                    && a.file == b.file
                    && (Arc::ptr_eq(&a.value, &b.value) || **a == **b)
            })
    }
}

/// Claims that any rule asks for, and who it is.
fn wanted(document: &Document) -> Vec<Box<str>> {
    let filters = document.routes.iter().flat_map(|route| &route.filters);
    let mut names: BTreeSet<&str> = BTreeSet::from(["sub"]);
    for filter in filters {
        if let Filter::Allow(allow) = &filter.value {
            let owners = allow.rules().filter_map(|rule| rule.owner.as_ref());
            names.extend(owners.map(|owner| owner.claim.as_str()));
        }
    }
    let rules = document.accesses.iter().flat_map(|rule| &rule.claims);
    names.extend(rules.map(|(claim, _)| claim.as_str()));
    names.into_iter().map(Box::from).collect()
}

/// The keys that the document names, and a hash over their files.
fn keys(item: &Item<Jwt>, problems: &mut Vec<Problem>) -> (Vec<Key>, [u8; 32]) {
    let mut keys = Vec::new();
    let mut files = Context::new(&SHA256);
    for key in &item.keys {
        let id = key.id.as_deref();
        let found = match &key.source {
            KeySource::Secret(secret) => {
                let algorithm = key.algorithm.unwrap_or(tollgate_config::Algorithm::Hs256);
                let key = Key::secret(algorithm, secret.0.as_bytes(), id.map(Box::from));
                key.map(|key| vec![key])
                    .ok_or_else(|| "the secret is too short".to_owned())
            }
            KeySource::File(path) => std::fs::read(path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| {
                    files.update(&(bytes.len() as u64).to_be_bytes());
                    files.update(&bytes);
                    jwk::of_file(&bytes, key.algorithm, id)
                })
                .map_err(|why| format!("{}: {why}", path.display())),
        };
        match found {
            Ok(found) => keys.extend(found),
            Err(why) => problems.push(Problem {
                code: "bad-key",
                place: item.place(key.at).or_else(|| Some(item.begins())),
                message: format!("a key of jwt {}: {why}", item.name),
                text: None,
                hint: Some("name a PEM file with a public key, a JWK, or a set of them".to_owned()),
            }),
        }
    }
    let mut read = [0; 32];
    read.copy_from_slice(files.finish().as_ref());
    (keys, read)
}
