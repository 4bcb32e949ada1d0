//! The audit log (REG-505, CP-202): what became of every instance, who changed something, who was refused; one JSON object
//! a line, appended by a thread of its own, so that a slow disk delays nobody but who waits for its own line. A file a
//! day, and a further one when it is large; the oldest go when their time is over or all together are too large. The
//! latest lines are also kept in memory, for `/debug`, and for everything where nothing is kept on disk.

mod action;
mod revisions;
mod search;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use tollgate_config::control_plane::Audit as Settings;
use tollgate_engine::telemetry::log::{Repeated, timestamp};

use crate::registry::Event;
use action::Enough;
pub use action::{Action, Outcome};
pub use revisions::follow;
pub use search::{Filter, Found};

/// Lines that wait for the disk. More are left out of the file, and counted.
const WAITING: usize = 65_536;
/// Lines in memory.
const LATEST: usize = 1000;
/// All files together may be so many times as large as one.
const FILES: u64 = 8;

pub struct Audit {
    latest: Mutex<VecDeque<Event>>,
    /// The latest of what people did, and of who was refused.
    actions: Mutex<VecDeque<serde_json::Value>>,
    /// So many refusals are written down.
    enough: Mutex<Enough>,
    folder: Option<PathBuf>,
    lines: Option<SyncSender<Line>>,
    writer: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

/// For the writer.
struct Line {
    bytes: Vec<u8>,
    /// Told when the line, and every one before it, is on disk.
    done: Option<oneshot::Sender<()>>,
}

struct Shared {
    settings: RwLock<Settings>,
    written: AtomicU64,
    /// Lines that are in no file.
    lost: AtomicU64,
}

impl Audit {
    /// Writes into `folder`, or keeps only what is in memory.
    pub fn start(folder: Option<PathBuf>, settings: Settings) -> io::Result<Audit> {
        let shared = Arc::new(Shared {
            settings: RwLock::new(settings),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let mut audit = Audit {
            latest: Mutex::default(),
            actions: Mutex::default(),
            enough: Mutex::default(),
            folder: folder.clone(),
            lines: None,
            writer: None,
            shared: shared.clone(),
        };
        if let Some(folder) = folder {
            std::fs::create_dir_all(&folder)?;
            let (lines, waiting) = sync_channel(WAITING);
            let writer = Writer {
                folder,
                shared,
                file: None,
            };
            let writer = std::thread::Builder::new()
                .name("audit".to_owned())
                .spawn(move || writer.run(&waiting))?;
            audit.lines = Some(lines);
            audit.writer = Some(writer);
        }
        Ok(audit)
    }

    /// Takes lines down; never waits.
    pub fn note(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            self.send(line(event), None);
            if latest.len() >= LATEST {
                latest.pop_front();
            }
            latest.push_back(event.clone());
        }
    }

    /// Takes down what became of the fleet's documents by itself; never waits.
    pub fn note_change(&self, change: &serde_json::Value) {
        let mut object = change.clone();
        object["time"] = timestamp(SystemTime::now()).into();
        self.send(self.told(object), None);
    }

    /// Takes a line down; whether the writer has it.
    fn send(&self, bytes: Vec<u8>, done: Option<oneshot::Sender<()>>) -> bool {
        let Some(lines) = &self.lines else {
            return false;
        };
        match lines.try_send(Line { bytes, done }) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.lose(1);
                false
            }
        }
    }

    /// The latest lines that `wanted` wants, the newest first.
    pub fn latest(&self, most: usize, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let found = latest.iter().rev().filter(|event| wanted(event));
        found.take(most).cloned().collect()
    }

    pub fn change(&self, settings: Settings) {
        *{ self.shared.settings.write() }.unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Lines written, and lines that are in no file.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.shared.written.load(Relaxed),
            self.shared.lost.load(Relaxed),
        )
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            let _panicked = writer.join();
        }
    }
}

impl Shared {
    fn lose(&self, lines: u64) {
        static LOST: Repeated = Repeated::new();
        self.lost.fetch_add(lines, Relaxed);
        LOST.warn(
            "lines of the audit log are lost: the disk does not take them",
            &[],
        );
    }
}

/// An event as it stands in the file: its time as text.
pub fn object(event: &Event) -> serde_json::Value {
    let mut object = serde_json::to_value(event).unwrap_or_default();
    object["time"] = moment(event.time).into();
    object
}

fn line(event: &Event) -> Vec<u8> {
    format!("{}\n", object(event)).into_bytes()
}

/// Milliseconds since 1970 as text.
pub fn moment(millis: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(millis));
    timestamp(time.unwrap_or(UNIX_EPOCH))
}

struct Writer {
    folder: PathBuf,
    shared: Arc<Shared>,
    /// The open file, its name and its size.
    file: Option<(File, String, u64)>,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Line>) {
        self.tidy();
        let mut batch = Vec::new();
        while let Ok(first) = waiting.recv() {
            batch.clear();
            let (mut count, mut waiters) = (0, Vec::new());
            for line in std::iter::once(first).chain(waiting.try_iter().take(1000)) {
                batch.extend_from_slice(&line.bytes);
                count += u64::from(!line.bytes.is_empty());
                waiters.extend(line.done);
            }
            let written = self.write(&batch, !waiters.is_empty());
            match written {
                Ok(()) => {
                    self.shared.written.fetch_add(count, Relaxed);
                }
                Err(_) => {
                    // A part of a line may be there: the next ones go into another file.
                    self.file = None;
                    self.shared.lose(count);
                }
            }
            // Also after a failure: what is lost is counted, and nobody waits for ever.
            for waiter in waiters {
                let _nobody_waits_any_more = waiter.send(());
            }
        }
    }

    fn write(&mut self, batch: &[u8], durable: bool) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let today = timestamp(SystemTime::now());
        let today = today.get(..10).unwrap_or_default();
        let settings = self.settings();
        let fits = self.file.as_ref().is_some_and(|(_, name, size)| {
            name.contains(today) && *size < settings.max_size / FILES
        });
        if !fits {
            self.file = None;
            self.file = Some(open(&self.folder, today)?);
            self.tidy();
        }
        if let Some((file, _, size)) = &mut self.file {
            file.write_all(batch)?;
            *size += batch.len() as u64;
            if durable {
                file.sync_data()?;
            }
        }
        Ok(())
    }

    fn settings(&self) -> Settings {
        let settings = self.shared.settings.read();
        settings.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes what is too old or too much.
    fn tidy(&self) {
        let Ok(files) = files(&self.folder) else {
            return;
        };
        let settings = self.settings();
        let oldest = SystemTime::now().checked_sub(settings.retention);
        let oldest = timestamp(oldest.unwrap_or(UNIX_EPOCH));
        let oldest = oldest.get(..10).unwrap_or_default();
        let own = self.file.as_ref().map(|(_, name, _)| name.as_str());
        for name in superfluous(&files, oldest, settings.max_size) {
            if Some(name) != own {
                let _gone_already = std::fs::remove_file(self.folder.join(name));
            }
        }
    }
}

/// A new file for a day, numbered so that names are in the order of time.
fn open(folder: &Path, day: &str) -> io::Result<(File, String, u64)> {
    let there = files(folder)?;
    let of_day = there.iter().filter_map(|(name, _)| {
        let number = name
            .strip_prefix("audit-")?
            .strip_prefix(day)?
            .strip_prefix('-')?;
        number.strip_suffix(".jsonl")?.parse::<u32>().ok()
    });
    let number = of_day.max().map_or(1, |last| last.saturating_add(1));
    let name = format!("audit-{day}-{number:06}.jsonl");
    let file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(folder.join(&name))?;
    Ok((file, name, 0))
}

/// Names and sizes of our files, oldest first.
fn files(folder: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && name.starts_with("audit-")
            && name.ends_with(".jsonl")
        {
            files.push((name, entry.metadata()?.len()));
        }
    }
    files.sort();
    Ok(files)
}

/// Which files are to go: those of days before `oldest`, and the oldest ones as long as all together are too large.
fn superfluous<'f>(files: &'f [(String, u64)], oldest: &str, most: u64) -> Vec<&'f str> {
    let mut total: u64 = files.iter().map(|(_, size)| size).sum();
    let old = |name: &str| name.get(6..16).is_some_and(|day| day < oldest);
    let mut gone = Vec::new();
    for (name, size) in files {
        if !old(name) && total <= most {
            break;
        }
        total -= size;
        gone.push(name.as_str());
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Cause, What};

    fn event(number: u64) -> Event {
        Event {
            time: number,
            service: "orders".into(),
            id: format!("i{number}").into(),
            what: What::Registered,
            from: None,
            to: None,
            cause: Cause::Request,
            by: Some("10.0.0.1".into()),
        }
    }

    #[test]
    fn lines_are_appended_and_the_latest_are_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let audit =
            Audit::start(Some(folder.path().to_owned()), Settings::default()).expect("starts");
        for number in 0..1500 {
            audit.note(&[event(number)]);
        }
        let latest = audit.latest(3, |event| event.time % 2 == 0);
        let times: Vec<u64> = latest.iter().map(|event| event.time).collect();
        assert_eq!(times, [1498, 1496, 1494]);
        assert_eq!(audit.latest(usize::MAX, |_| true).len(), LATEST);
        drop(audit);
        let files = files(folder.path()).expect("read");
        assert_eq!(files.len(), 1);
        let text = std::fs::read_to_string(folder.path().join(&files[0].0)).expect("read");
        assert_eq!(text.lines().count(), 1500);
        assert_eq!(
            text.lines().next(),
            Some(
                r#"{"by":"10.0.0.1","cause":"request","id":"i0","service":"orders","time":"1970-01-01T00:00:00.000Z","what":"registered"}"#
            )
        );
    }

    #[test]
    fn all_files_together_stay_below_their_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings {
            max_size: 64 << 10,
            ..Settings::default()
        };
        for _ in 0..20 {
            let audit =
                Audit::start(Some(folder.path().to_owned()), settings.clone()).expect("starts");
            for number in 0..100 {
                audit.note(&[event(number)]);
            }
        }
        let files = files(folder.path()).expect("read");
        let total: u64 = files.iter().map(|(_, size)| size).sum();
        assert!(total <= 80 << 10, "{total} bytes");
        assert!(files.len() > 1);
    }

    #[test]
    fn old_files_go_and_so_do_the_oldest_of_too_many() {
        let files: Vec<(String, u64)> = [
            ("audit-2026-08-20-000001.jsonl", 5),
            ("audit-2026-11-20-000001.jsonl", 60),
            ("audit-2026-11-21-000001.jsonl", 60),
        ]
        .map(|(name, size)| (name.to_owned(), size))
        .into();
        assert_eq!(
            superfluous(&files, "2026-08-23", 1000),
            ["audit-2026-08-20-000001.jsonl"]
        );
        assert_eq!(superfluous(&files, "2026-08-01", 100).len(), 2);
        assert!(superfluous(&files, "2026-08-01", 1000).is_empty());
    }
}
