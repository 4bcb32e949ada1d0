//! Which descriptors a document names, read once for each content, and the filters made of them. What did not change is
//! the same object in the next snapshot: a file with other bytes makes its routes anew, and no others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::fast::RandomState;
use tollgate_config::{Document, Filter, Item, Problem, Route};
use xxhash_rust::xxh3::xxh3_128;

use super::descriptor;
use super::plan::{Transcoder, Trouble};
use super::schema::Schema;

/// Everything that is transcoded in one snapshot.
#[derive(Default)]
pub struct Transcoders {
    files: HashMap<PathBuf, (u128, Arc<Schema>), RandomState>,
    /// By the route's address, which lives as long as it is kept here.
    routes: HashMap<usize, (Arc<Route>, Arc<Transcoder>), RandomState>,
}

impl Transcoders {
    /// Of a document and of what was there before it; problems are added to the others.
    pub fn compile(
        document: &Document,
        former: Option<&Transcoders>,
        problems: &mut Vec<Problem>,
    ) -> Transcoders {
        let mut next = Transcoders::default();
        for route in &document.routes {
            for filter in &route.filters {
                let Filter::Transcode(settings) = &filter.value else {
                    continue;
                };
                let schema = match next.schema(&settings.descriptors.value, former) {
                    Ok(schema) => schema,
                    Err((message, hint)) => {
                        problems.push(Problem {
                            code: "bad-descriptors",
                            place: route.place(settings.descriptors.at),
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
