//! What is kept in `server.state_dir` for the next process: this month's counts of quotas (GW-310). Read once at start;
//! written by the control thread every ten seconds and at the end, into a new file that then takes the old one's place,
//! so that a reader finds the old counts or the new ones. A process that is killed loses what it admitted since the
//! last time, at most ten seconds. A file that is not ours or is damaged is put aside and told, never guessed at.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use xxhash_rust::xxh3::xxh3_64;

use crate::clock::unix_seconds;
use crate::filter::rate_limit::month::Month;
use crate::filter::rate_limit::{LimitMemory, Seed};
use crate::kept;
use crate::snapshot::store::Store;
use crate::telemetry::log;

/// Between two writings, and two sweeps of the limits.
const EVERY: Duration = Duration::from_secs(10);
const MAGIC: &[u8; 16] = b"tollgate quotas1";
/// Magic, the seed, when it was written, how many; then pairs of hash and count, then a checksum.
const HEAD: usize = 16 + 16 + 8 + 8;

/// The file, and what was last written to it.
pub struct State {
    file: PathBuf,
    sum: Cell<u64>,
}

impl State {
    /// What the last process left. A folder that cannot be used is told; limits work without.
    pub fn open(folder: &Path) -> (Option<State>, LimitMemory) {
        let file = folder.join("quotas");
        let told = |what: &str, error: &str| {
            let file = file.display().to_string();
            log::warn(what, &[("file", &file), ("error", &error)]);
        };
        if let Err(error) = fs::create_dir_all(folder) {
            told(
                "server.state_dir cannot be used; monthly quotas begin anew with every restart",
                &error.to_string(),
            );
            return (None, LimitMemory::default());
        }
        let memory = match fs::read(&file) {
            Ok(bytes) => read(&bytes).unwrap_or_else(|| {
                told(
                    "the counts of monthly quotas are damaged and were put aside; they begin anew",
                    &kept::put_aside(&file),
                );
                LimitMemory::default()
            }),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    told(
                        "the counts of monthly quotas cannot be read; they begin anew",
                        &error.to_string(),
                    );
                }
                LimitMemory::default()
            }
        };
        let sum = Cell::new(0);
        (Some(State { file, sum }), memory)
    }

    /// Writes this month's counts, unless they are what was written last.
    pub fn write(&self, memory: &LimitMemory) -> io::Result<()> {
        let now = unix();
        let bytes = written(memory, now);
        // When it was written is no news.
        let sum = xxh3_64(&bytes[HEAD - 8..]);
        if self.sum.get() == sum {
            return Ok(());
        }
        // The seed in it is what keeps strangers from making keys meet.
        kept::replace(&self.file, &bytes)?;
        self.sum.set(sum);
        Ok(())
    }

    /// As `write`; what goes wrong is told.
    pub fn keep(&self, memory: &LimitMemory) {
        if let Err(error) = self.write(memory) {
            log::warn(
                "the counts of monthly quotas cannot be written",
                &[
                    ("file", &self.file.display().to_string()),
                    ("error", &error.to_string()),
                ],
            );
        }
    }
}

/// Looks after limits for as long as the process serves: full buckets leave, counts are written. On the control thread.
pub async fn keeper(
    store: Arc<Store>,
    memory: Arc<LimitMemory>,
    state: Option<std::rc::Rc<State>>,
) {
    loop {
        tokio::time::sleep(EVERY).await;
        for limit in store.current().limits() {
            limit.sweep(Instant::now());
        }
        memory.forget_months(Month::of(unix()));
        if let Some(state) = &state {
            state.keep(&memory);
        }
    }
}

fn written(memory: &LimitMemory, now: u64) -> Vec<u8> {
    let mut counts = memory.months(Month::of(now));
    counts.sort_unstable();
    let mut bytes = MAGIC.to_vec();
    for part in memory.seed().0 {
        bytes.extend_from_slice(&part.to_le_bytes());
    }
    bytes.extend_from_slice(&now.to_le_bytes());
    bytes.extend_from_slice(&(counts.len() as u64).to_le_bytes());
    for (hash, count) in counts {
        bytes.extend_from_slice(&hash.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// `None`: not what `written` writes.
fn read(bytes: &[u8]) -> Option<LimitMemory> {
    let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    if number(sum)? != xxh3_64(body) {
        return None;
    }
    let (head, pairs) = body.split_at_checked(HEAD)?;
    let head = head.strip_prefix(MAGIC.as_slice())?;
    let mut words = head.chunks_exact(8).map(number);
    let seed = Seed([words.next()??, words.next()??]);
    let at = words.next()??;
    let count = usize::try_from(words.next()??).ok()?;
    if pairs.len() != count.checked_mul(16)? {
        return None;
    }
    let memory = LimitMemory::new(seed);
    let month = Month::of(at);
    if month == Month::of(unix()) {
        for pair in pairs.chunks_exact(16) {
            let (hash, count) = pair.split_at(8);
            memory.restore(number(hash)?, month, number(count)?);
        }
    }
    Some(memory)
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_le_bytes)
}

fn unix() -> u64 {
    unix_seconds(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> LimitMemory {
        let memory = LimitMemory::default();
        for client in 1..1000u64 {
            memory.restore(client << 8, Month::of(unix()), client);
        }
        memory
    }

    #[test]
    fn gw_310_what_was_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (state, fresh) = State::open(&folder.path().join("new"));
        let state = state.expect("it can be made");
        assert!(fresh.months(Month::of(unix())).is_empty());
        let memory = memory();
        state.write(&memory).expect("it can be written");
        let (_, again) = State::open(&folder.path().join("new"));
        let sorted = |memory: &LimitMemory| {
            let mut months = memory.months(Month::of(unix()));
            months.sort_unstable();
            months
        };
        assert_eq!(sorted(&again), sorted(&memory));
        assert_eq!(sorted(&again).len(), 999);
        assert!(again.seed() == memory.seed());
    }

    #[test]
    fn a_damaged_file_is_put_aside_wherever_it_is_damaged() {
        let bytes = written(&memory(), unix());
        assert!(read(&bytes).is_some());
        for at in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_none(), "byte {at}");
            assert!(read(&bytes[..at]).is_none(), "cut at {at}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("quotas"), b"nonsense").expect("written");
        let (state, memory) = State::open(folder.path());
        assert!(state.is_some() && memory.months(Month::of(unix())).is_empty());
        assert!(folder.path().join("quotas.damaged").exists());
    }

    #[test]
    fn counts_of_another_month_are_nothing() {
        let last = Month::of(unix()).begins() - 1;
        let bytes = {
            let memory = LimitMemory::default();
            memory.restore(1 << 8, Month::of(last), 7);
            written(&memory, last)
        };
        let memory = read(&bytes).expect("not damaged");
        assert!(memory.months(Month::of(unix())).is_empty());
    }
}
