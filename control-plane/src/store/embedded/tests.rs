//! The file at every byte where a crash, a full disk or a rotten sector can hit it (HI-67), and the store around it.

use std::sync::{Arc, Mutex};

use super::log::Found;
use super::*;
use crate::store::state::{State, Step, Written};
use crate::store::{Compare, StoreError, Write};

/// A disk in memory that stops at a chosen step: each byte written, each sync, cut and swap is one.
#[derive(Debug, Default, Clone)]
struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    file: Vec<u8>,
    /// How much of the file is known to be durable.
    synced: usize,
    new: Vec<u8>,
    aside: Vec<u8>,
    steps: usize,
    /// No step after this one.
    stop: Option<usize>,
    fail_sync: bool,
    /// Whether a swap that fails happens all the same.
    fail_swap: Option<bool>,
}

impl Disk {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().expect("not poisoned")
    }

    /// The same disk after the machine came back.
    fn restarted(&self) -> Disk {
        let inner = self.lock();
        Disk::of(inner.file.clone())
    }

    /// The same, but what was not synced reads as zeros, as far as `kept` does not reach.
    fn after_power_loss(&self, kept: usize) -> Disk {
        let inner = self.lock();
        let mut file = inner.file.clone();
        let from = (inner.synced + kept).min(file.len());
        file[from..].fill(0);
        Disk::of(file)
    }

    fn of(file: Vec<u8>) -> Disk {
        let disk = Disk::default();
        disk.lock().synced = file.len();
        disk.lock().file = file;
        disk
    }
}

impl Inner {
    /// How many of so many steps may be made.
    fn steps(&mut self, wanted: usize) -> usize {
        let left = self
            .stop
            .map_or(usize::MAX, |stop| stop.saturating_sub(self.steps));
        let made = wanted.min(left);
        self.steps += made;
        made
    }

    fn step(&mut self) -> io::Result<()> {
        match self.steps(1) {
            0 => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

impl Medium for Disk {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.lock().file.clone())
    }

    fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        let at = usize::try_from(at).expect("small");
        let made = inner.steps(bytes.len());
        if inner.file.len() < at + made {
            inner.file.resize(at + made, 0);
        }
        inner.file[at..at + made].copy_from_slice(&bytes[..made]);
        match made == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.step()?;
        if inner.fail_sync {
            return Err(io::Error::other("a sector is broken"));
        }
        inner.synced = inner.file.len();
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut inner = self.lock();
        inner.step()?;
        let length = usize::try_from(length).expect("small");
        inner.file.truncate(length);
        inner.synced = inner.synced.min(length);
        Ok(())
    }

    fn prepare(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        let made = inner.steps(bytes.len());
        inner.new = bytes[..made].to_vec();
        match made == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn swap(&mut self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.step()?;
        if inner.fail_swap != Some(false) {
            inner.file = std::mem::take(&mut inner.new);
            inner.synced = inner.file.len();
        }
        match inner.fail_swap {
            Some(_) => Err(io::Error::other("a sector is broken")),
            None => Ok(()),
        }
    }

    fn put_aside(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.lock().aside = bytes.to_vec();
        Ok(())
    }
}

fn put(revision: u64, key: &str, value: &str) -> Written {
    Written {
        revision,
        steps: vec![Step::Put(Arc::from(key), Arc::from(value), None)],
    }
}

/// Key, value and revision of everything.
type Content = Vec<(String, String, u64)>;

/// What a state holds, to be compared.
fn content(state: &State) -> Content {
    let kept = state.range("").into_iter();
    kept.map(|kept| (kept.key.to_string(), kept.value.to_string(), kept.revision))
        .collect()
}

/// A log with a workload: batches of several transactions, and compactions in between. Returns the state after each
/// batch, and how many of them were answered.
fn work(disk: &Disk) -> (Vec<Content>, usize) {
    let mut states = vec![Vec::new()];
    let mut answered = 0;
    let Ok((mut log, mut state, _)) = Log::open(disk.clone(), 7) else {
        return (states, answered);
    };
    let mut revision = 0;
    // What would be there if every batch were written.
    let mut all = State::default();
    for number in 0..12u64 {
        let mut batch = Vec::new();
        for part in 0..=number % 3 {
            revision += 1;
            let key = format!("k{}", (number + part) % 5);
            batch.push(match number % 4 {
                3 => Written {
                    revision,
                    steps: vec![Step::Delete(key.into())],
                },
                _ => put(revision, &key, &format!("value {revision}")),
            });
        }
        batch.iter().for_each(|written| all.apply(written));
        states.push(content(&all));
        if log.append(batch.clone(), &state).is_err() {
            // The process is killed, or ends.
            return (states, answered);
        }
        batch.iter().for_each(|written| state.apply(written));
        answered += 1;
        if number % 5 == 4 && log.compact(&state).is_err() {
            return (states, answered);
        }
    }
    (states, answered)
}

fn open(disk: Disk) -> Result<(Content, Found), LogError> {
    Log::open(disk, 8).map(|(_, state, found)| (content(&state), found))
}

#[test]
fn a_process_killed_at_any_byte_of_any_write_loses_nothing_that_was_answered() {
    let whole = Disk::default();
    work(&whole);
    let steps = whole.lock().steps;
    assert!(steps > 1000);
    for stop in 0..steps {
        let disk = Disk::default();
        disk.lock().stop = Some(stop);
        let (states, answered) = work(&disk);
        let (found, _) = open(disk.restarted()).unwrap_or_else(|error| panic!("{stop}: {error:?}"));
        let good = found == states[answered] || states.get(answered + 1) == Some(&found);
        assert!(good, "stopped after {stop} steps");
    }
}

#[test]
fn a_power_loss_at_any_write_loses_nothing_that_was_answered() {
    let whole = Disk::default();
    work(&whole);
    let steps = whole.lock().steps;
    for stop in 0..steps {
        let disk = Disk::default();
        disk.lock().stop = Some(stop);
        let (states, answered) = work(&disk);
        for kept in [0, 1, 13, 40] {
            let disk = disk.after_power_loss(kept);
            let (found, _) = open(disk).unwrap_or_else(|error| panic!("{stop}: {error:?}"));
            let good = found == states[answered] || states.get(answered + 1) == Some(&found);
            assert!(good, "stopped after {stop} steps, {kept} bytes kept");
        }
    }
}

#[test]
fn a_file_cut_at_any_byte_opens_with_whole_batches_or_is_refused() {
    let disk = Disk::default();
    let (states, answered) = work(&disk);
    let file = disk.lock().file.clone();
    let mut opened = 0;
    for length in 1..file.len() {
        match open(Disk::of(file[..length].to_vec())) {
            Ok((found, _)) => {
                opened += 1;
                assert!(states[..=answered].contains(&found), "cut at {length}");
            }
            // The base is written in one step, so no crash cuts it.
            Err(LogError::Damaged(..)) => {}
            Err(LogError::Io(error)) => panic!("{error}"),
        }
    }
    assert!(opened > 100);
}

#[test]
fn a_bit_that_flips_anywhere_is_named_or_costs_the_last_write_only() {
    let disk = Disk::default();
    let (states, answered) = work(&disk);
    let file = disk.lock().file.clone();
    let mut refused = 0;
    for at in 0..file.len() {
        let mut file = file.clone();
        file[at] ^= 1 << (at % 8);
        match open(Disk::of(file)) {
            Ok((found, torn)) => {
                assert_eq!(
                    found,
                    states[answered - 1],
                    "at {at}: the last batch is torn"
                );
                assert!(torn.torn > 0);
            }
            Err(LogError::Damaged(byte, _)) => {
                refused += 1;
                assert!(byte <= at as u64);
            }
            Err(LogError::Io(error)) => panic!("{error}"),
        }
    }
    assert!(refused > 100);
}

#[test]
fn a_torn_tail_is_put_aside_and_the_file_goes_on_without_it() {
    let disk = Disk::default();
    let (states, answered) = work(&disk);
    let good = disk.lock().file.len();
    disk.lock().file.extend_from_slice(b"half a reco");
    let (found, torn) = open(disk.clone()).expect("opens");
    assert_eq!((found, torn.torn), (states[answered].clone(), 11));
    let inner = disk.lock();
    assert_eq!(
        (inner.file.len(), &*inner.aside),
        (good, &b"half a reco"[..])
    );
}

#[test]
fn a_full_disk_refuses_writes_and_takes_them_again_when_there_is_room() {
    let disk = Disk::default();
    let (mut log, mut state, _) = Log::open(disk.clone(), 7).expect("opens");
    let written = put(1, "a", "1");
    log.append(vec![written.clone()], &state).expect("room");
    state.apply(&written);
    let here = disk.lock().steps;
    // There is room for half a record, and not even for cutting it off.
    disk.lock().stop = Some(here + 20);
    log.append(vec![put(2, "b", "refused")], &state)
        .expect_err("full");
    log.append(vec![put(2, "c", "refused")], &state)
        .expect_err("full");
    disk.lock().stop = None;
    let written = put(2, "d", "accepted");
    log.append(vec![written.clone()], &state)
        .expect("room again");
    state.apply(&written);
    let (found, torn) = open(disk.restarted()).expect("opens");
    assert_eq!(found, content(&state));
    assert_eq!(torn, Found::default());
}

#[test]
fn after_a_failed_sync_the_file_is_written_anew_before_anything_is_accepted() {
    let disk = Disk::default();
    let (mut log, state, _) = Log::open(disk.clone(), 7).expect("opens");
    disk.lock().fail_sync = true;
    log.append(vec![put(1, "a", "refused")], &state)
        .expect_err("broken");
    disk.lock().fail_sync = false;
    // The kernel dropped the pages and will not say so again.
    let length = disk.lock().file.len();
    disk.lock().file[length / 2..].fill(0);
    log.append(vec![put(1, "b", "accepted")], &state)
        .expect("works again");
    let (found, _) = open(disk.restarted()).expect("opens");
    assert_eq!(found, [("b".to_owned(), "accepted".to_owned(), 1)]);
}

#[test]
fn a_swap_that_failed_is_repeated_before_anything_is_accepted() {
    for happened in [false, true] {
        let disk = Disk::default();
        let (mut log, mut state, _) = Log::open(disk.clone(), 7).expect("opens");
        let written = put(1, "a", "1");
        log.append(vec![written.clone()], &state).expect("room");
        state.apply(&written);
        disk.lock().fail_swap = Some(happened);
        log.compact(&state).expect_err("broken");
        log.append(vec![put(2, "b", "2")], &state)
            .expect_err("still broken");
        disk.lock().fail_swap = None;
        log.append(vec![put(2, "c", "3")], &state)
            .expect("works again");
        let (found, _) = open(disk.restarted()).expect("opens");
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].0, "c");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

#[test]
fn what_waits_together_is_made_durable_together_and_comes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Embedded::open(folder.path()).expect("opens");
    let epoch = store.epoch();
    runtime().block_on(async {
        let all: Vec<_> = (0..2000)
            .map(|n| store.commit(Transaction::put(format!("k{n:04}"), "v")))
            .collect();
        let mut revisions = Vec::new();
        for one in all {
            revisions.push(one.await.expect("written").revision);
        }
        assert!(revisions.is_sorted() && revisions.last() == Some(&2000));
    });
    let figures = store.figures();
    assert_eq!((figures.transactions, figures.keys), (2000, 2000));
    assert!(figures.syncs < 1000, "{} syncs", figures.syncs);
    assert!(matches!(
        Embedded::open(folder.path()),
        Err(OpenError::InUse(_))
    ));
    drop(store);
    let store = Embedded::open(folder.path()).expect("opens again");
    assert_eq!((store.epoch(), store.torn), (epoch, 0));
    runtime().block_on(async {
        let range = store.range("k00").await.expect("read");
        assert_eq!((range.kept.len(), range.revision), (100, 2000));
    });
}

#[test]
fn comparisons_are_made_in_order_also_within_a_batch() {
    let store = Embedded::in_memory();
    runtime().block_on(async {
        let absent = || Transaction::put("k", "mine").when(Compare::Absent("k".into()));
        let first = store.commit(absent());
        let second = store.commit(absent());
        assert!(first.await.expect("answered").written);
        assert!(!second.await.expect("answered").written);
        let at = |revision| Transaction::delete("k").when(Compare::At("k".into(), revision));
        assert!(!store.commit(at(7)).await.expect("answered").written);
        let revision = store.one("k").await.expect("read").expect("there").revision;
        assert!(store.commit(at(revision)).await.expect("answered").written);
        let present = Transaction::put("k", "again").when(Compare::Present("k".into()));
        assert!(!store.commit(present).await.expect("answered").written);
        assert_eq!(store.one("k").await, Ok(None));
    });
}

#[test]
fn a_watch_sees_every_change_of_its_prefix_once_and_in_order() {
    let store = Embedded::in_memory();
    runtime().block_on(async {
        let mut watch = store.watch("a/", 0);
        for (key, value) in [("a/1", "x"), ("b/1", "y"), ("a/2", "z")] {
            store
                .commit(Transaction::put(key, value))
                .await
                .expect("written");
        }
        store
            .commit(Transaction::delete("a/1"))
            .await
            .expect("written");
        let mut seen = Vec::new();
        while seen.len() < 3 {
            seen.extend(watch.next().await.expect("changes"));
        }
        let seen: Vec<_> = seen
            .iter()
            .map(|e| (e.revision, &*e.key, e.value.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                (1, "a/1", Some("x")),
                (3, "a/2", Some("z")),
                (4, "a/1", None)
            ]
        );
        for number in 0..11_000 {
            drop(store.commit(Transaction::put("a/1", number.to_string())));
        }
        store
            .commit(Transaction::put("a/1", "last"))
            .await
            .expect("written");
        assert!(matches!(watch.next().await, Err(StoreError::Compacted(_))));
    });
}

#[test]
fn keys_of_a_lease_end_with_it() {
    let store = Embedded::in_memory();
    runtime().block_on(async {
        let long = store
            .grant(Duration::from_secs(3600))
            .await
            .expect("granted");
        let short = store
            .grant(Duration::from_millis(5))
            .await
            .expect("granted");
        let put = |key: &str, lease| Transaction {
            when: Vec::new(),
            then: vec![Write::Put {
                key: key.into(),
                value: "v".into(),
                lease: Some(lease),
            }],
        };
        let mut watch = store.watch("", 0);
        let kept = store.commit(put("a", long)).await.expect("answered");
        // It may be over already; either way its key does not stay.
        drop(store.commit(put("b", short)).await);
        while store.keep_alive(short).await.is_ok() {}
        store.keep_alive(long).await.expect("alive");
        store.revoke(long).await.expect("alive");
        assert_eq!(store.range("").await.expect("read").kept, []);
        assert_eq!(store.commit(put("c", long)).await, Err(StoreError::NoLease));
        let first = watch.next().await.expect("changes");
        assert!(first.iter().any(|event| event.revision == kept.revision));
    });
}

#[test]
fn the_file_stays_bounded_however_often_a_key_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Embedded::open(folder.path()).expect("opens");
    let value: Arc<str> = Arc::from("v".repeat(2000));
    runtime().block_on(async {
        for _ in 0..20 {
            let all: Vec<_> = (0..500)
                .map(|n| store.commit(Transaction::put(format!("k{}", n % 10), value.clone())))
                .collect();
            for one in all {
                one.await.expect("written");
            }
        }
    });
    let figures = store.figures();
    assert!(figures.compactions > 0);
    drop(store);
    let file = std::fs::metadata(folder.path().join("store")).expect("there");
    assert!(file.len() < 4 << 20, "{} bytes of 20 MB", file.len());
}

#[test]
fn a_glance_takes_nothing_and_changes_nothing_whatever_the_file_is_like() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(Embedded::glance(folder.path()).expect("looked"), None);
    let store = Embedded::open(folder.path()).expect("opens");
    let put = |n: u32| store.commit(Transaction::put(format!("k{n}"), "v"));
    runtime().block_on(async {
        put(1).await.expect("written");
        put(2).await.expect("written");
    });
    // While somebody else has it open.
    let seen = Embedded::glance(folder.path())
        .expect("looked")
        .expect("there");
    assert_eq!((seen.revision, seen.keys, seen.torn), (2, 2, 0));
    drop(store);
    let file = folder.path().join("store");
    let whole = std::fs::read(&file).expect("there");
    for length in 0..whole.len() {
        std::fs::write(&file, &whole[..length]).expect("written");
        let _whatever_it_finds = Embedded::glance(folder.path());
        assert_eq!(std::fs::read(&file).expect("there"), whole[..length]);
    }
    std::fs::write(&file, &whole[..whole.len() - 1]).expect("written");
    let seen = Embedded::glance(folder.path())
        .expect("looked")
        .expect("there");
    assert!(seen.torn > 0 && seen.keys == 1);
    assert!(!folder.path().join("store.torn").exists());
}
