//! The folder of documents: looks at it again and again, and takes over what has come to rest. What differs is one
//! change, whatever number of files it is in. A change that is refused is said once, and what was served stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tollgate_config::{Problem, Problems};
use tollgate_engine::telemetry::log::{self, Repeated};

use super::history::Origin;
use super::{Catalog, NotTaken, Refused, Request, Wish, millis};

/// How often the folder is looked at. A file is read when it looked the same twice.
const LOOK: Duration = Duration::from_millis(400);
/// Documents of one folder, and folders in folders.
const MOST_FILES: usize = 10_000;
const DEEPEST: usize = 8;
/// Bytes of one document.
const LARGEST: u64 = 16 << 20;

/// What can be seen of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    size: u64,
    modified: Option<SystemTime>,
}

type Sights = BTreeMap<String, Sight>;

/// Takes over the folder as it is now, then follows it. Never ends.
pub async fn follow(catalog: Arc<Catalog>, folder: PathBuf) {
    static UNREADABLE: Repeated = Repeated::new();
    let mut before: Option<Sights> = None;
    let mut done: Option<Sights> = None;
    loop {
        let here = folder.clone();
        let seen = tokio::task::spawn_blocking(move || look(&here)).await;
        match seen {
            Ok(Ok(sights)) => {
                let rests = before.as_ref() == Some(&sights);
                // One change after the other: what is rolled out is let come to its end.
                let rests = rests && catalog.staging().is_none();
                if rests && done.as_ref() != Some(&sights) && take(&catalog, &folder, &sights).await
                {
                    done = Some(sights.clone());
                }
                before = Some(sights);
            }
            Ok(Err(error)) => UNREADABLE.warn(
                "the folder of documents cannot be read; what was taken from it stays",
                &[("folder", &folder.display()), ("reason", &error)],
            ),
            Err(_) => return,
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Catalog {
    pub fn not_taken(&self) -> Option<Arc<NotTaken>> {
        let not_taken = self.not_taken.lock();
        not_taken.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_not_taken(&self, problems: Option<Problems>) {
        let told = problems.map(|problems| {
            Arc::new(NotTaken {
                time: millis(),
                problems,
            })
        });
        *self
            .not_taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = told;
    }
}

fn look(folder: &Path) -> std::io::Result<Sights> {
    let mut sights = Sights::new();
    below(folder, "", 0, &mut sights)?;
    Ok(sights)
}

fn below(folder: &Path, prefix: &str, depth: usize, sights: &mut Sights) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // Editors and mounts keep their own there.
        if name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        let Ok(about) = std::fs::metadata(&path) else {
            continue;
        };
        if about.is_dir() && depth < DEEPEST {
            below(&path, &format!("{prefix}{name}/"), depth + 1, sights)?;
        } else if about.is_file() && name.ends_with(".toml") && sights.len() < MOST_FILES {
            let sight = Sight {
                size: about.len(),
                modified: about.modified().ok(),
            };
            sights.insert(format!("{prefix}{name}"), sight);
        }
    }
    Ok(())
}

/// Whether it is settled: taken or refused, not put off.
async fn take(catalog: &Catalog, folder: &Path, sights: &Sights) -> bool {
    let names: Vec<String> = sights.keys().cloned().collect();
    let (here, known) = (folder.to_owned(), catalog.inner.lock().await.files.clone());
    let read = tokio::task::spawn_blocking(move || {
        let mut documents = BTreeMap::new();
        let mut files = BTreeMap::new();
        let mut problems = Vec::new();
        for name in names {
            match read(&here.join(&name)) {
                Ok(text) => {
                    let hash = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()));
                    if known.get(&name) != Some(&hash) {
                        documents.insert(name.clone(), Some(text));
                        files.insert(name, Some(hash));
                    }
                }
                Err(why) => problems.push(Problem {
                    code: "missing-file",
                    place: None,
                    message: format!("{name} cannot be read: {why}"),
                    text: None,
                    hint: Some("save it as UTF-8 text that this user may read".to_owned()),
                }),
            }
        }
        (documents, files, problems, known)
    });
    let Ok((mut documents, mut files, problems, known)) = read.await else {
        return false;
    };
    if !problems.is_empty() {
        refuse(catalog, Problems(problems));
        return true;
    }
    for gone in known.keys().filter(|name| !sights.contains_key(*name)) {
        documents.insert(gone.clone(), None);
        files.insert(gone.clone(), None);
    }
    if documents.is_empty() {
        catalog.set_not_taken(None);
        return true;
    }
    let note = documents.keys().cloned().collect::<Vec<_>>().join(", ");
    let request = Request {
        wish: Wish::Documents(documents),
        origin: Origin::Files,
        if_revision: None,
        by: "files".to_owned(),
        note: note.chars().take(200).collect(),
        files,
        plan: None,
        ends: None,
    };
    match catalog.apply(request).await {
        Ok(applied) => {
            catalog.set_not_taken(None);
            log::info(
                "the folder of documents was read",
                &[
                    ("revision", &applied.revision),
                    ("changes", &applied.changes.len()),
                ],
            );
            true
        }
        Err(Refused::Problems(problems)) => {
            refuse(catalog, problems);
            true
        }
        Err(Refused::Name(name, why)) => {
            refuse(
                catalog,
                Problems(vec![Problem {
                    code: "bad-name",
                    place: None,
                    message: format!("`{name}` {why}"),
                    text: None,
                    hint: Some("give the file another name".to_owned()),
                }]),
            );
            true
        }
        // The disk may have room again the next time.
        Err(_) => false,
    }
}

fn refuse(catalog: &Catalog, problems: Problems) {
    log::error(
        "the folder of documents is refused; what was served stays",
        &[("problems", &problems)],
    );
    catalog.set_not_taken(Some(problems));
}

fn read(path: &Path) -> Result<String, String> {
    let about = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if about.len() > LARGEST {
        return Err(format!("it has more than {LARGEST} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}
