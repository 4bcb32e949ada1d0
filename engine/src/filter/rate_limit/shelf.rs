//! Words by key: buckets and monthly counts of clients, shared by all workers. Finds a known key without a lock; holds
//! at most so many, however many keys hostile clients make up (HI-59).
//!
//! Keys are keyed hashes; what was hashed is not kept. They stand in groups of seven within tables of growing size. A
//! known key costs a look at one group of each table. A new key goes under its group's latch: it takes a free place, or
//! that of a word that tells nothing any more; or a larger table is made. Only when neither is possible does it take the
//! place of the word that tells the least, which is forgotten. Where there is no memory for even the first table, keys
//! share one word.
//!
//! Nothing here knows what a word means: whoever calls says what a fresh one is, what it is worth, and which comes next.

use std::hint::spin_loop;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};

use super::bucket::VACANT;

/// Places in a group: with the latch, two cache lines.
const PLACES: usize = 7;
/// Groups of each table. Together 262,080 keys in 4.6 MiB; up to some fifty thousand find a place without anybody being
/// forgotten, however they are spread.
const TABLES: [usize; 4] = [64, 512, 4096, 32_768];
/// Low bits of a key's word: its class. The others are the hash.
const CLASSES: u64 = 0xff;

/// Who a word belongs to: 56 bits of a keyed hash, and a small number that the caller may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    hash: u64,
    class: u8,
}

impl Key {
    /// Of everybody who finds no place. No hash is likely to be this one, and if one were, it would share a bucket.
    pub const COMMON: Key = Key {
        hash: 1 << 8,
        class: 0,
    };

    pub fn new(hash: u64, class: u8) -> Self {
        Key {
            // Zero is a free place.
            hash: match hash & !CLASSES {
                0 => 1 << 8,
                hash => hash,
            },
            class,
        }
    }

    fn word(self) -> u64 {
        self.hash | u64::from(self.class)
    }

    /// The same key, of another class.
    pub fn in_class(self, class: u8) -> Self {
        Key { class, ..self }
    }

    pub(super) fn class(self) -> u8 {
        self.class
    }

    pub(crate) fn hash(self) -> u64 {
        self.hash
    }
}

/// Groups that may still be made, for all shelves of a process together.
#[derive(Debug)]
pub struct Budget(AtomicUsize);

impl Budget {
    /// In groups of 128 bytes.
    pub fn new(groups: usize) -> Self {
        Budget(AtomicUsize::new(groups))
    }

    fn take(&self, groups: usize) -> bool {
        self.0
            .fetch_update(AcqRel, Relaxed, |left| left.checked_sub(groups))
            .is_ok()
    }

    fn give(&self, groups: usize) {
        self.0.fetch_add(groups, AcqRel);
    }
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Group {
    /// Zero: free.
    keys: [AtomicU64; PLACES],
    words: [AtomicU64; PLACES],
    /// Held while a place changes its owner. In the first table only: a key's groups in all tables have the same one
    /// there.
    latch: AtomicU64,
}

/// What became of a key's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    Known,
    New,
    /// Another key was forgotten for it.
    Instead,
    /// It shares a word with others, for want of memory.
    Common,
}

pub struct Shelf {
    tables: [OnceLock<Box<[Group]>>; TABLES.len()],
    budget: Arc<Budget>,
    /// Workers that are making a table: a handful of times in a shelf's life.
    making: AtomicUsize,
    keys: AtomicUsize,
    /// For keys without a place.
    common: AtomicU64,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shelf of {} keys", self.len())
    }
}

/// What the words of a shelf mean.
pub trait Meaning {
    /// The word of a key that was never seen.
    fn fresh(&self, class: u8) -> u64;
    /// How much is lost with a word; 0: nothing.
    fn worth(&self, word: u64, class: u8) -> u64;
}

impl Shelf {
    pub fn new(budget: Arc<Budget>) -> Self {
        Shelf {
            tables: Default::default(),
            budget,
            making: AtomicUsize::new(0),
            keys: AtomicUsize::new(0),
            common: AtomicU64::new(VACANT),
        }
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        self.keys.load(Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes a key's word by `step`, which may be asked again when another worker was quicker. `None`: it stays.
    pub fn change<T>(
        &self,
        key: Key,
        meaning: &impl Meaning,
        mut step: impl FnMut(u64) -> (Option<u64>, T),
    ) -> (T, Placed) {
        let mut placed = Placed::Known;
        loop {
            if let Some((group, place)) = self.find(key) {
                // Nothing: the place is changing its owner.
                if let Some(result) = advance(&group.words[place], &mut step, || {
                    is(group.keys[place].load(Acquire), key)
                }) {
                    let known = group.keys[place].load(Relaxed);
                    if known != key.word() && is(known, key) {
                        let _another_was_quicker =
                            group.keys[place].compare_exchange(known, key.word(), Relaxed, Relaxed);
                    }
                    return (result, placed);
                }
            }
            match self.place(key, meaning) {
                Some(Placed::Known) => {}
                Some(new) => placed = new,
                None => return (self.share(key, meaning, &mut step), Placed::Common),
            }
        }
    }

    /// Changes a key's word, if the key is known. `Key::COMMON`: the word that keys without a place share.
    pub fn alter<T>(&self, key: Key, mut step: impl FnMut(u64) -> (Option<u64>, T)) -> Option<T> {
        if key == Key::COMMON {
            return advance(&self.common, &mut step, || true);
        }
        let (group, place) = self.find(key)?;
        advance(&group.words[place], &mut step, || {
            is(group.keys[place].load(Acquire), key)
        })
    }

    /// Lets a key leave, unless its word is not this one any more.
    pub fn leave(&self, key: Key, word: u64) -> bool {
        let Some(_latch) = self.latch(number(key)) else {
            return false;
        };
        let Some((group, place)) = self.find(key) else {
            return false;
        };
        let left = group.words[place]
            .compare_exchange(word, VACANT, AcqRel, Relaxed)
            .is_ok();
        if left {
            group.keys[place].store(0, Release);
            self.keys.fetch_sub(1, Relaxed);
        }
        left
    }

    /// A key's word, if it is known.
    pub fn read(&self, key: Key) -> Option<u64> {
        if key == Key::COMMON {
            return Some(self.common.load(Acquire)).filter(|word| *word != VACANT);
        }
        let (group, place) = self.find(key)?;
        let word = group.words[place].load(Acquire);
        (word != VACANT && is(group.keys[place].load(Acquire), key)).then_some(word)
    }

    /// Every key with its word, one after the other; what changes meanwhile may be told as before or as after.
    pub fn each(&self, mut tell: impl FnMut(Key, u64)) {
        for group in self.tables.iter().filter_map(OnceLock::get).flatten() {
            for (key, word) in group.keys.iter().zip(&group.words) {
                let (key, word) = (key.load(Acquire), word.load(Acquire));
                if key != 0 && word != VACANT {
                    tell(Key::new(key, (key & CLASSES) as u8), word);
                }
            }
        }
    }

    /// Goes over all keys: `Some(word)` to put in its place, `None` to let the key leave. A key that is used meanwhile
    /// stays as it is. How many left.
    pub fn sweep(&self, keep: impl Fn(u64, u8) -> Option<u64>) -> usize {
        let mut left = 0;
        for table in self.tables.iter().filter_map(OnceLock::get) {
            for (number, group) in table.iter().enumerate() {
                for place in 0..PLACES {
                    let (key, word) = (
                        group.keys[place].load(Acquire),
                        group.words[place].load(Acquire),
                    );
                    if key == 0 || word == VACANT {
                        continue;
                    }
                    match keep(word, (key & CLASSES) as u8) {
                        Some(next) if next == word => {}
                        Some(next) => {
                            let _used =
                                group.words[place].compare_exchange(word, next, AcqRel, Relaxed);
                        }
                        None => {
                            let Some(_latch) = self.latch(number as u64) else {
                                continue;
                            };
                            let vacated = group.words[place]
                                .compare_exchange(word, VACANT, AcqRel, Relaxed)
                                .is_ok();
                            if vacated {
                                group.keys[place].store(0, Release);
                                left += 1;
                            }
                        }
                    }
                }
            }
        }
        self.keys.fetch_sub(left, Relaxed);
        left
    }

    fn find(&self, key: Key) -> Option<(&Group, usize)> {
        for table in &self.tables {
            let group = home(table.get()?, key)?;
            let place = (0..PLACES).find(|place| is(group.keys[*place].load(Acquire), key));
            if let Some(place) = place {
                return Some((group, place));
            }
        }
        None
    }

    /// Finds a place for a key and puts a fresh word there. `None`: there is no memory for any.
    fn place(&self, key: Key, meaning: &impl Meaning) -> Option<Placed> {
        self.table(0)?;
        let _latch = self.latch(number(key))?;
        if self.find(key).is_some() {
            return Some(Placed::Known);
        }
        let mut least: Option<(u64, &Group, usize)> = None;
        for index in 0..TABLES.len() {
            // A larger table only when the ones before have no place to spare.
            let Some(group) = self.table(index).and_then(|table| home(table, key)) else {
                break;
            };
            for place in 0..PLACES {
                let owner = group.keys[place].load(Acquire);
                if owner == 0 {
                    self.keys.fetch_add(1, Relaxed);
                    settle(group, place, key, meaning);
                    return Some(Placed::New);
                }
                let word = group.words[place].load(Acquire);
                let worth = meaning.worth(word, (owner & CLASSES) as u8);
                // A worthless word that is used just now is not worthless any more.
                let vacated = worth == 0
                    && group.words[place]
                        .compare_exchange(word, VACANT, AcqRel, Relaxed)
                        .is_ok();
                if vacated {
                    settle(group, place, key, meaning);
                    return Some(Placed::New);
                }
                if least.is_none_or(|(least, ..)| worth < least) {
                    least = Some((worth, group, place));
                }
            }
        }
        let (_, group, place) = least?;
        settle(group, place, key, meaning);
        Some(Placed::Instead)
    }

    fn share<T>(
        &self,
        key: Key,
        meaning: &impl Meaning,
        step: &mut impl FnMut(u64) -> (Option<u64>, T),
    ) -> T {
        loop {
            let _once =
                self.common
                    .compare_exchange(VACANT, meaning.fresh(key.class), AcqRel, Relaxed);
            if let Some(result) = advance(&self.common, step, || true) {
                return result;
            }
        }
    }

    /// A table, made when it is first asked for and the budget allows it.
    fn table(&self, index: usize) -> Option<&[Group]> {
        let (table, groups) = (self.tables.get(index)?, *TABLES.get(index)?);
        if let Some(table) = table.get() {
            return Some(table);
        }
        self.making.fetch_add(1, AcqRel);
        if self.budget.take(groups) {
            let made = (0..groups).map(|_| Group::default()).collect();
            if table.set(made).is_err() {
                self.budget.give(groups);
            }
            self.making.fetch_sub(1, AcqRel);
        } else {
            self.making.fetch_sub(1, AcqRel);
            // Perhaps another worker has taken the last of the budget for this very table.
            while self.making.load(Acquire) > 0 {
                std::thread::yield_now();
            }
        }
        table.get().map(|table| &**table)
    }

    /// The latch of the group of this number in whatever table: only new and leaving keys need it, for a few dozen
    /// loads. Which keys share one is a secret of the hash.
    fn latch(&self, number: u64) -> Option<Latch<'_>> {
        let first = self.tables.first()?.get()?;
        let latch = &first.get(number as usize % first.len())?.latch;
        let mut patience = 100;
        while latch.compare_exchange_weak(0, 1, Acquire, Relaxed).is_err() {
            // Whoever holds it may have lost its core.
            if patience == 0 {
                std::thread::yield_now();
            } else {
                patience -= 1;
                spin_loop();
            }
        }
        Some(Latch(latch))
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let made: usize = self
            .tables
            .iter()
            .filter_map(OnceLock::get)
            .map(|table| table.len())
            .sum();
        self.budget.give(made);
    }
}

struct Latch<'a>(&'a AtomicU64);

impl Drop for Latch<'_> {
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}

/// Steps a word; `None` when it is vacant, or no longer whose it was. The owner is looked at after the word was loaded:
/// a place gets a new owner only by way of `VACANT`, so a word that is still there is still the owner's.
fn advance<T>(
    word: &AtomicU64,
    step: &mut impl FnMut(u64) -> (Option<u64>, T),
    owned: impl Fn() -> bool,
) -> Option<T> {
    let mut was = word.load(Acquire);
    loop {
        if was == VACANT || !owned() {
            return None;
        }
        let (next, result) = step(was);
        let Some(next) = next else {
            return Some(result);
        };
        match word.compare_exchange_weak(was, next, AcqRel, Acquire) {
            Ok(_) => return Some(result),
            Err(now) => was = now,
        }
    }
}

/// Gives a place to a key. Under the latch.
fn settle(group: &Group, place: usize, key: Key, meaning: &impl Meaning) {
    group.words[place].store(VACANT, Release);
    group.keys[place].store(key.word(), Release);
    group.words[place].store(meaning.fresh(key.class), Release);
}

/// Groups whose numbers agree in their low bits share a latch, so a number is good for every table.
fn number(key: Key) -> u64 {
    key.hash >> 8
}

fn home(table: &[Group], key: Key) -> Option<&Group> {
    // Sizes are powers of two.
    table.get(number(key) as usize & (table.len() - 1))
}

fn is(owner: u64, key: Key) -> bool {
    owner & !CLASSES == key.hash
}

#[cfg(test)]
mod tests;
