//! What a loader remembers from one load to the next: decoded items by their text. An item that used the environment
//! or a file is good only while those say the same. Only items without problems are remembered.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::document::{Listener, Route, Test, Upstream};
use crate::interpolate::{Environment, Interpolator, Use};

/// A decoded item of any section.
#[derive(Clone)]
pub(super) enum Decoded {
    Listener(Arc<Listener>),
    Route(RouteRead),
    Upstream(Arc<Upstream>),
    Test(Arc<Test>),
}

#[derive(Clone)]
pub(super) struct RouteRead {
    pub(super) route: Arc<Route>,
    /// It has a name of its own; a default name may have to give way to another.
    pub(super) named: bool,
    /// Equal for routes that match the same requests.
    pub(super) key: Arc<str>,
}

struct Known {
    decoded: Decoded,
    uses: Vec<Use>,
    /// The load that last asked for it.
    load: u64,
}

#[derive(Default)]
pub(super) struct Memory {
    /// By folder, because relative paths mean something else in another; then by text.
    shelves: HashMap<PathBuf, HashMap<Box<str>, Known, RandomState>>,
    /// Routes that got another name than their text says, by the route's key and that name.
    renamed: HashMap<(Arc<str>, String), Arc<Route>>,
    load: u64,
    used: usize,
    /// Seeded by chance: what it makes of a private key may be kept.
    pub(super) keys: std::hash::RandomState,
}

impl Memory {
    pub(super) fn begin(&mut self) {
        self.load += 1;
        self.used = 0;
    }

    pub(super) fn find(
        &mut self,
        folder: &Path,
        text: &str,
        environment: &Environment,
    ) -> Option<(Decoded, &[Use])> {
        let known = self.shelves.get_mut(folder)?.get_mut(text)?;
        if !known.uses.is_empty() {
            let interpolator = Interpolator {
                environment,
                folder,
                uses: Vec::new(),
            };
            let same = |used: &Use| {
                interpolator
                    .look_up(&used.reference)
                    .is_ok_and(|v| v == used.value)
            };
            if !known.uses.iter().all(same) {
                return None;
            }
        }
        known.load = self.load;
        self.used += 1;
        Some((known.decoded.clone(), &known.uses))
    }

    pub(super) fn keep(&mut self, folder: &Path, text: &str, decoded: Decoded, uses: Vec<Use>) {
        self.used += 1;
        let known = Known {
            decoded,
            uses,
            load: self.load,
        };
        if !self.shelves.contains_key(folder) {
            self.shelves.insert(folder.to_owned(), HashMap::default());
        }
        if let Some(shelf) = self.shelves.get_mut(folder) {
            shelf.insert(text.into(), known);
        }
    }

    /// The same route under another name; the same `Arc` as long as the route stays the same.
    pub(super) fn rename(&mut self, read: &RouteRead, name: String) -> Arc<Route> {
        let key = (read.key.clone(), name);
        if let Some(renamed) = self.renamed.get(&key)
            && is_copy(renamed, &read.route)
        {
            return renamed.clone();
        }
        let mut route = Route::clone(&read.route);
        route.name.clone_from(&key.1);
        let route = Arc::new(route);
        self.renamed.insert(key, route.clone());
        route
    }

    /// Forgets what the last load did not ask for, once that is more than what it did.
    pub(super) fn end(&mut self) {
        let all: usize = self.shelves.values().map(HashMap::len).sum();
        if all > 2 * self.used + 64 {
            for shelf in self.shelves.values_mut() {
                shelf.retain(|_, known| known.load == self.load);
            }
            self.shelves.retain(|_, shelf| !shelf.is_empty());
        }
        if self.renamed.len() > 2 * self.used + 64 {
            self.renamed.clear();
        }
    }
}

/// Whether `renamed` was made from this very route.
fn is_copy(renamed: &Route, route: &Route) -> bool {
    let mut back = Route::clone(renamed);
    back.name.clone_from(&route.name);
    format!("{back:?}") == format!("{route:?}")
}
