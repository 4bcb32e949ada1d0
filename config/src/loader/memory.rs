//! What a loader remembers from one load to the next: texts with what their blocks were decoded to, and what of the
//! whole document need not be looked at again. An item that used the environment or a file is good only while those
//! say the same. Only items without problems are remembered.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::source::{Decoded, Known, Source};
use crate::decode::match_key;
use crate::document::{Item, Listener, Route, Upstream};

#[derive(Default)]
pub(super) struct Memory {
    /// By name; while a load runs, those that it has not asked for yet.
    sources: HashMap<Arc<str>, Source, RandomState>,
    /// Routes that had to get another name than their text says, by what they match and that name.
    renamed: HashMap<(String, String), Arc<Route>>,
    /// Over all routes of remembered texts.
    names: Tally,
    matches: Tally,
    /// What the names in the routes of the last load meant, if it had no problem.
    good: Option<Named>,
    /// Private keys are known by what this makes of them.
    pub(super) seed: std::hash::RandomState,
}

/// Everything that a route can name.
struct Named {
    listeners: Vec<Arc<Listener>>,
    upstreams: Vec<Arc<Upstream>>,
}

impl Memory {
    /// The source of that name with a new text, and with what still stands in it.
    pub(super) fn source(&mut self, name: Arc<str>, folder: &Path, text: String) -> Source {
        match self.sources.remove(&name) {
            Some(mut source) if source.folder == folder => {
                for known in source.change(text) {
                    self.forget(&known);
                }
                source
            }
            // Relative paths mean something else in another folder.
            former => {
                former.iter().for_each(|former| self.forget_all(former));
                Source::new(name, folder.to_owned(), text)
            }
        }
    }

    pub(super) fn learn(&mut self, known: &Known) {
        if let Decoded::Route { route, .. } = &known.decoded {
            self.learn_route(route);
        }
    }

    pub(super) fn learn_route(&mut self, route: &Route) {
        self.names.add(&route.name);
        self.matches.add(&match_key(&route.matches));
    }

    pub(super) fn forget(&mut self, known: &Known) {
        if let Decoded::Route { route, .. } = &known.decoded {
            self.forget_route(route);
        }
    }

    pub(super) fn forget_route(&mut self, route: &Route) {
        self.names.remove(&route.name);
        self.matches.remove(&match_key(&route.matches));
    }

    /// The text of the last load under that name.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.sources.get(name).map(Source::shown)
    }

    /// The next check looks at everything.
    pub(super) fn doubt(&mut self) {
        self.good = None;
    }

    fn forget_all(&mut self, source: &Source) {
        for known in source.known.iter().flatten() {
            self.forget(known);
        }
    }

    /// Forgets the texts that this load did not ask for.
    pub(super) fn forget_unread(&mut self) {
        for source in std::mem::take(&mut self.sources).values() {
            self.forget_all(source);
        }
    }

    /// Whether no two routes of remembered texts have the same name.
    pub(super) fn names_differ(&self) -> bool {
        self.names.doubles == 0
    }

    /// Whether no two of them match the same requests, either.
    pub(super) fn all_differ(&self) -> bool {
        self.names_differ() && self.matches.doubles == 0
    }

    /// Whether a route of a remembered text has this name.
    pub(super) fn has_route(&self, name: &str) -> bool {
        self.names.has(name)
    }

    /// Whether the last load was good, and its routes' names mean the same now.
    pub(super) fn still_means(
        &self,
        listeners: &[Item<Listener>],
        upstreams: &[Item<Upstream>],
    ) -> bool {
        self.good.as_ref().is_some_and(|good| {
            same(&good.listeners, listeners) && same(&good.upstreams, upstreams)
        })
    }

    /// The same route under another name; the same `Arc` as long as the route stays the same.
    pub(super) fn rename(&mut self, route: &Arc<Route>, name: String) -> Arc<Route> {
        let key = (match_key(&route.matches), name);
        if let Some(renamed) = self.renamed.get(&key)
            && is_copy(renamed, route)
        {
            return renamed.clone();
        }
        let mut copy = Route::clone(route);
        copy.name.clone_from(&key.1);
        let copy = Arc::new(copy);
        self.renamed.insert(key, copy.clone());
        copy
    }

    /// Ends a load that had problems.
    pub(super) fn end_bad(&mut self, sources: Vec<Source>) {
        self.good = None;
        self.keep(sources);
    }

    /// Ends a load of these.
    pub(super) fn end_good(
        &mut self,
        sources: Vec<Source>,
        listeners: &[Item<Listener>],
        upstreams: &[Item<Upstream>],
    ) {
        if !self.still_means(listeners, upstreams) {
            self.good = Some(Named {
                listeners: listeners.iter().map(|item| item.value.clone()).collect(),
                upstreams: upstreams.iter().map(|item| item.value.clone()).collect(),
            });
        }
        let blocks: usize = sources.iter().map(|source| source.known.len()).sum();
        if self.renamed.len() > 2 * blocks + 64 {
            self.renamed.clear();
        }
        self.keep(sources);
    }

    fn keep(&mut self, sources: Vec<Source>) {
        for mut source in sources {
            source.forget_secrets();
            if let Some(double) = self.sources.insert(source.name.clone(), source) {
                self.forget_all(&double);
            }
        }
    }
}

fn same<T>(former: &[Arc<T>], items: &[Item<T>]) -> bool {
    former.len() == items.len()
        && former
            .iter()
            .zip(items)
            .all(|(former, item)| Arc::ptr_eq(former, &item.value))
}

/// Whether `renamed` was made from this very route.
fn is_copy(renamed: &Route, route: &Route) -> bool {
    let mut back = Route::clone(renamed);
    back.name.clone_from(&route.name);
    format!("{back:?}") == format!("{route:?}")
}

/// How often each text occurs. Texts are known by their hashes: what a false double costs is time.
#[derive(Default)]
struct Tally {
    counts: HashMap<u64, usize, RandomState>,
    doubles: usize,
}

impl Tally {
    fn add(&mut self, text: &str) {
        let count = self.counts.entry(self.hash(text)).or_default();
        *count += 1;
        self.doubles += usize::from(*count > 1);
    }

    fn remove(&mut self, text: &str) {
        let hash = self.hash(text);
        let Some(count) = self.counts.get_mut(&hash) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&hash);
        } else {
            self.doubles -= 1;
        }
    }

    fn has(&self, text: &str) -> bool {
        self.counts.contains_key(&self.hash(text))
    }

    fn hash(&self, text: &str) -> u64 {
        self.counts.hasher().hash_one(text)
    }
}
