//! Notices that a document's files changed. Watches folders, not files: editors rename, and mounted volumes swap a
//! link whose name is never the document's. A slow look at the files themselves covers file systems without events.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use notify::event::ModifyKind;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::telemetry::log;

/// A burst of events is one change; this long after the last of them it is over.
pub const SETTLE: Duration = Duration::from_millis(20);
/// How often the files are looked at without any event.
pub const LOOK: Duration = Duration::from_secs(5);

pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    files: Vec<PathBuf>,
    /// The same files, for the watcher's thread.
    watched: Arc<Mutex<Vec<PathBuf>>>,
    events: UnboundedReceiver<()>,
    seen: Vec<Option<Stamp>>,
}

impl Default for Watch {
    fn default() -> Self {
        Watch::new()
    }
}

impl Watch {
    pub fn new() -> Self {
        let (tell, events) = unbounded_channel();
        let watched = Arc::<Mutex<Vec<PathBuf>>>::default();
        let files = watched.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let concerns = |event: Event| {
                concerns(
                    &event,
                    &files.lock().unwrap_or_else(PoisonError::into_inner),
                )
            };
            if event.is_ok_and(concerns) {
                let _nobody_listens_at_the_end = tell.send(());
            }
        });
        if let Err(error) = &watcher {
            log::warn(
                "no file events here; files are looked at every few seconds",
                &[("error", &error.to_string())],
            );
        }
        Watch {
            watcher: watcher.ok(),
            folders: BTreeSet::new(),
            files: Vec::new(),
            watched,
            events,
            seen: Vec::new(),
        }
    }

    /// Watches the folders of these files from now on.
    pub fn follow(&mut self, files: &[PathBuf]) {
        if self.files == files {
            return;
        }
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = files.to_vec();
        let folder = |file: &PathBuf| match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let folders: BTreeSet<PathBuf> = files.iter().map(folder).collect();
        if let Some(watcher) = &mut self.watcher {
            for gone in self.folders.difference(&folders) {
                let _was_removed_itself = watcher.unwatch(gone);
            }
            for new in folders.difference(&self.folders) {
                if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                    log::warn(
                        "a folder cannot be watched",
                        &[
                            ("folder", &new.display().to_string()),
                            ("error", &error.to_string()),
                        ],
                    );
                }
            }
        }
        self.folders = folders;
        self.files = files.to_vec();
        self.seen = self.look();
    }

    /// Returns when the files, or what lies beside them, are not what they were, and the burst of changes is over.
    pub async fn changed(&mut self) {
        loop {
            // What matters is what the files look like; an event, or its absence, only says when to look.
            let _event_or_time_to_look = tokio::time::timeout(LOOK, self.events.recv()).await;
            if self.look() == self.seen {
                continue;
            }
            while let Ok(Some(())) = tokio::time::timeout(SETTLE, self.events.recv()).await {}
            self.seen = self.look();
            return;
        }
    }

    fn look(&self) -> Vec<Option<Stamp>> {
        self.files
            .iter()
            .chain(&self.folders)
            .map(|path| stamp(path))
            .collect()
    }
}

/// Whether to look. An access log beside its document is written to ten times a second, and each time the whole control
/// thread would wake for nothing; entries that come and go may always be a link that was swapped.
fn concerns(event: &Event, files: &[PathBuf]) -> bool {
    match event.kind {
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_)) => {
            let ours = |path: &PathBuf| {
                files
                    .iter()
                    .any(|file| file.file_name() == path.file_name())
            };
            event.paths.is_empty() || event.paths.iter().any(ours)
        }
        _ => true,
    }
}

/// A file that was replaced, written to or linked elsewhere has another one of these; a folder whose entries changed
/// has, too.
type Stamp = (SystemTime, u64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?;
    let size = if data.is_dir() { 0 } else { data.len() };
    Some((data.modified().ok()?, size, data.ino()))
}

#[cfg(test)]
mod tests {
    use notify::event::{AccessKind, CreateKind, DataChange};

    use super::*;

    #[test]
    fn what_is_written_into_other_files_wakes_nobody_and_new_entries_do() {
        let files = [PathBuf::from("conf/gateway.toml")];
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let created = EventKind::Create(CreateKind::Any);
        for (kind, path, wanted) in [
            (written, "/conf/gateway.toml", true),
            (written, "/conf/access.log", false),
            (created, "/conf/..data", true),
            (
                EventKind::Access(AccessKind::Any),
                "/conf/gateway.toml",
                false,
            ),
        ] {
            let event = Event::new(kind).add_path(path.into());
            assert_eq!(concerns(&event, &files), wanted, "{kind:?} {path}");
        }
        assert!(
            concerns(&Event::new(written), &files),
            "of nobody knows what"
        );
    }
}
