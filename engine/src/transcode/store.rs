//! Which descriptors a document names, read once for each content, and the filters made of them. What did not change is
//! the same object in the next snapshot: a file with other bytes makes its routes anew, and no others.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tollgate_config::{Action, At, Descriptors, Document, Filter, Item, Problem, Route, Transcode};
use xxhash_rust::xxh3::xxh3_128;

use super::descriptor;
use super::plan::{Transcoder, Trouble};
use super::reflected::Reflected;
use super::schema::Schema;
use crate::telemetry::log;

/// Everything that is transcoded in one snapshot.
#[derive(Default)]
pub struct Transcoders {
    files: HashMap<PathBuf, (u128, Arc<Schema>), RandomState>,
    /// By the route's address, which lives as long as it is kept here.
    routes: HashMap<usize, (Arc<Route>, Arc<Transcoder>), RandomState>,
    /// Upstreams that are asked for their descriptors, and how often.
    reflected: BTreeMap<String, Duration>,
    /// Of routes by reflection: descriptors that do not fit the document, told once.
    unfit: HashMap<usize, Arc<Schema>, RandomState>,
}

impl Transcoders {
    /// Of a document and of what was there before it; problems are added to the others.
    pub fn compile(
        document: &Document,
        former: Option<&Transcoders>,
        reflected: &Reflected,
        problems: &mut Vec<Problem>,
    ) -> Transcoders {
        let mut next = Transcoders::default();
        for route in &document.routes {
            for filter in &route.filters {
                let Filter::Transcode(settings) = &filter.value else {
                    continue;
                };
                let file = match &settings.descriptors {
                    Descriptors::File(file) => file,
                    Descriptors::Reflection { refresh } => {
                        next.reflect(route, settings, filter.at, *refresh, former, reflected);
                        continue;
                    }
                };
                let schema = match next.schema(&file.value, former) {
                    Ok(schema) => schema,
                    Err((message, hint)) => {
                        problems.push(Problem {
                            code: "bad-descriptors",
                            place: route.place(file.at),
                            message,
                            text: None,
                            hint: Some(hint.to_owned()),
                        });
                        continue;
                    }
                };
                let known = former
                    .and_then(|former| former.of(&route.value))
                    .filter(|known| Arc::ptr_eq(&known.schema, &schema));
                let made = match known {
                    Some(known) => Ok(known.clone()),
                    None => Transcoder::compile(settings, schema, filter.at).map(Arc::new),
                };
                match made {
                    Ok(made) => {
                        next.routes
                            .insert(address(&route.value), (route.value.clone(), made));
                    }
                    Err(trouble) => {
                        problems.extend(trouble.into_iter().map(|one| told(route, one)))
                    }
                }
            }
        }
        next
    }

    /// A route whose descriptors its upstream tells. What it tells never refuses a document, which nobody has changed: as
    /// long as it fits, it is taken; else what was there goes on, or requests are told to wait.
    fn reflect(
        &mut self,
        route: &Item<Route>,
        settings: &Transcode,
        at: At,
        refresh: Duration,
        former: Option<&Transcoders>,
        reflected: &Reflected,
    ) {
        // A route without an upstream was refused before this.
        let Some(upstream) = asked(route) else { return };
        let often = self.reflected.entry(upstream.to_owned()).or_insert(refresh);
        *often = refresh.min(*often);
        let (here, schema) = (address(&route.value), reflected.of(upstream));
        let before = former.and_then(|former| former.of(&route.value));
        let unfit = former.and_then(|former| former.unfit.get(&here));
        let same = |known: &Arc<Schema>| {
            schema
                .as_ref()
                .is_some_and(|schema| Arc::ptr_eq(schema, known))
        };
        // A route's address means this route only as long as the former snapshot held it.
        let unfit = unfit
            .filter(|known| before.is_some() && same(known))
            .cloned();
        let made = match (&schema, before) {
            (Some(_), Some(before)) if !before.waits && same(&before.schema) => before.clone(),
            (Some(schema), before) if unfit.is_none() => {
                match Transcoder::compile(settings, schema.clone(), at) {
                    Ok(made) => Arc::new(made),
                    Err(trouble) => {
                        complain(route, upstream, trouble);
                        self.unfit.insert(here, schema.clone());
                        before
                            .cloned()
                            .unwrap_or_else(|| Arc::new(Transcoder::waiting(settings)))
                    }
                }
            }
            (_, Some(before)) => before.clone(),
            (_, None) => Arc::new(Transcoder::waiting(settings)),
        };
        self.unfit.extend(unfit.map(|unfit| (here, unfit)));
        self.routes.insert(here, (route.value.clone(), made));
    }

    /// Upstreams that are to be asked for their descriptors, and how often.
    pub fn reflected(&self) -> impl Iterator<Item = (&str, Duration)> {
        { self.reflected.iter() }.map(|(upstream, refresh)| (upstream.as_str(), *refresh))
    }

    /// The filter of this very route.
    pub fn of(&self, route: &Arc<Route>) -> Option<&Arc<Transcoder>> {
        self.routes
            .get(&address(route))
            .map(|(_, transcoder)| transcoder)
    }

    /// Whether every route is transcoded as it was.
    pub fn is_same(&self, other: &Transcoders) -> bool {
        self.routes.len() == other.routes.len()
            && self.routes.iter().all(|(route, (_, ours))| {
                { other.routes.get(route) }.is_some_and(|(_, theirs)| Arc::ptr_eq(ours, theirs))
            })
    }

    fn schema(
        &mut self,
        file: &Path,
        former: Option<&Transcoders>,
    ) -> Result<Arc<Schema>, (String, &'static str)> {
        if let Some((_, schema)) = self.files.get(file) {
            return Ok(schema.clone());
        }
        let unreadable = "correct the path, which is relative to the file that it stands in, or the file's permissions";
        let bytes = std::fs::read(file).map_err(|why| {
            (
                format!("{} cannot be read: {why}", file.display()),
                unreadable,
            )
        })?;
        let hash = xxh3_128(&bytes);
        let known = former
            .and_then(|former| former.files.get(file))
            .filter(|(before, _)| *before == hash);
        let schema = match known {
            Some((_, schema)) => schema.clone(),
            None => {
                let read = descriptor::read(&bytes);
                Arc::new(read.map_err(|why| (format!("{}: {why}", file.display()), why.hint()))?)
            }
        };
        self.files.insert(file.to_owned(), (hash, schema.clone()));
        Ok(schema)
    }
}

/// Who tells the descriptors of a route: its upstream, or the first of several.
fn asked(route: &Route) -> Option<&str> {
    match &route.action {
        Action::Upstream(name) => Some(&name.value),
        Action::Split { branches, .. } => branches.first().map(|one| one.upstream.value.as_str()),
        Action::Respond { .. } | Action::Redirect { .. } => None,
    }
}

fn complain(route: &Item<Route>, upstream: &str, trouble: Vec<Trouble>) {
    let words: Vec<String> = { trouble.into_iter() }
        .map(|one| told(route, one).to_string())
        .collect();
    log::error(
        "the document's bindings do not fit the descriptors that the upstream told; the former ones stay",
        &[("upstream", &upstream), ("problems", &words.join("; "))],
    );
}

/// Compared, never followed.
fn address(route: &Arc<Route>) -> usize {
    Arc::as_ptr(route).addr()
}

fn told(route: &Item<Route>, trouble: Trouble) -> Problem {
    Problem {
        code: "bad-binding",
        place: route.place(trouble.at),
        message: trouble.message,
        text: None,
        hint: Some(trouble.hint.to_owned()),
    }
}
