//! The file: a header, the state at the last compaction, then one frame for each batch of transactions.
//!
//! ```text
//! header  "TOLLGATE" "STORE  1"  epoch (8)  checksum (8)
//! frame   length (4)  checksum of the payload, seeded with epoch and position (8)  payload (JSON)
//! ```
//!
//! A batch is one frame, one write and one sync. What a crash can leave behind is therefore a last frame that is not
//! whole, and nothing valid after it: that tail was never answered, and is put aside. Damage anywhere else is not a
//! crash's work, and the file is refused rather than read around. The seed makes a frame that stands where it was not
//! written, or comes from another file, invalid.

use std::io;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::medium::Medium;
use crate::store::state::{Base, State, Written};

const MAGIC: &[u8; 16] = b"TOLLGATESTORE  1";
const HEADER: usize = 32;
const FRAME: usize = 12;
/// Nothing that is written is longer.
const LONGEST: usize = 256 << 20;
/// Entries in one frame of the base.
const BASE_STEP: usize = 1024;

#[derive(Serialize, Deserialize)]
enum Payload {
    /// Part of the state at the last compaction; `more` frames of it follow.
    Base { part: Base, more: usize },
    /// A batch.
    Batch(Vec<Written>),
}

/// The open file. The only one who writes to its medium.
pub(super) struct Log<M> {
    medium: M,
    epoch: u64,
    /// Of the file as far as it is good.
    length: u64,
    /// Of the file right after it was compacted.
    compacted: u64,
    /// A failed write may have left something behind the good end.
    dirty_end: bool,
    /// A failed sync may have lost what was written before: the kernel forgets, and says so only once. The file must be
    /// written anew before anything is accepted again.
    lost_faith: bool,
}

/// Why a file is not opened.
#[derive(Debug)]
pub(super) enum LogError {
    Io(io::Error),
    /// It is damaged from this byte on, and no crash of ours does that.
    Damaged(u64, &'static str),
}

impl From<io::Error> for LogError {
    fn from(error: io::Error) -> Self {
        LogError::Io(error)
    }
}

/// What opening found besides the state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Bytes of an unfinished write that were put aside.
    pub(super) torn: u64,
}

impl<M: Medium> Log<M> {
    /// Reads the file, or makes a new one with this epoch.
    pub(super) fn open(mut medium: M, new_epoch: u64) -> Result<(Log<M>, State, Found), LogError> {
        let bytes = medium.read()?;
        let mut found = Found::default();
        if bytes.is_empty() {
            let mut log = Log::of(medium, new_epoch);
            let state = State::default();
            log.compact(&state)?;
            return Ok((log, state, found));
        }
        let epoch = header(&bytes)?;
        let mut log = Log::of(medium, epoch);
        let mut state = State::default();
        let mut base = true;
        let mut at = HEADER;
        while at < bytes.len() {
            let Some(payload) = frame(&bytes, at, epoch) else {
                if base {
                    return Err(LogError::Damaged(at as u64, "the base is not whole"));
                }
                if (at + 1..bytes.len()).any(|later| frame(&bytes, later, epoch).is_some()) {
                    return Err(LogError::Damaged(
                        at as u64,
                        "good records follow a bad one",
                    ));
                }
                found.torn = (bytes.len() - at) as u64;
                break;
            };
            let read: Payload = serde_json::from_slice(payload)
                .map_err(|_| LogError::Damaged(at as u64, "a record cannot be understood"))?;
            match (read, base) {
                (Payload::Base { part, more }, true) => {
                    state.restore(part);
                    base = more > 0;
                    log.compacted = (at + FRAME + payload.len()) as u64;
                }
                (Payload::Batch(batch), false) => {
                    for written in &batch {
                        state.apply(written);
                    }
                }
                _ => {
                    return Err(LogError::Damaged(
                        at as u64,
                        "a record stands in the wrong place",
                    ));
                }
            }
            at += FRAME + payload.len();
        }
        if base {
            return Err(LogError::Damaged(at as u64, "the base is not whole"));
        }
        log.length = at as u64;
        if found.torn > 0 {
            log.medium.put_aside(&bytes[at..])?;
            log.medium.cut(log.length)?;
            log.medium.sync()?;
        }
        Ok((log, state, found))
    }

    fn of(medium: M, epoch: u64) -> Log<M> {
        Log {
            medium,
            epoch,
            length: 0,
            compacted: 0,
            dirty_end: false,
            lost_faith: false,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Makes a batch durable. After an error nothing of it is in the file, nor will be.
    pub(super) fn append(&mut self, batch: Vec<Written>, state: &State) -> io::Result<()> {
        if self.lost_faith {
            self.compact(state)?;
        }
        if self.dirty_end {
            self.medium.cut(self.length)?;
            self.dirty_end = false;
        }
        let bytes = framed(&Payload::Batch(batch), self.length, self.epoch)?;
        if let Err(error) = self.medium.append(self.length, &bytes) {
            // The space may be needed by others, and a half frame must not stand before the next one.
            self.dirty_end = self.medium.cut(self.length).is_err();
            return Err(error);
        }
        if let Err(error) = self.medium.sync() {
            self.lost_faith = true;
            self.dirty_end = self.medium.cut(self.length).is_err();
            return Err(error);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Whether most of the file is history.
    pub(super) fn wants_compaction(&self) -> bool {
        self.length > 2 * self.compacted + (1 << 20)
    }

    /// Gives up for now: there was no room. Asks again when the file has doubled.
    pub(super) fn postpone_compaction(&mut self) {
        self.compacted = self.length;
    }

    /// Writes the state into a new file that takes the place of the old one in one step.
    pub(super) fn compact(&mut self, state: &State) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(1 << 16);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        let checksum = xxh3_64_with_seed(&bytes, 0);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        let parts = state.parts(BASE_STEP);
        let count = parts.len();
        for (number, part) in parts.into_iter().enumerate() {
            let more = count - number - 1;
            let frame = framed(
                &Payload::Base { part, more },
                bytes.len() as u64,
                self.epoch,
            )?;
            bytes.extend_from_slice(&frame);
        }
        self.medium.prepare(&bytes)?;
        if let Err(error) = self.medium.swap() {
            // Which of the two files is there after a crash is not known, so neither may be written to.
            self.lost_faith = true;
            return Err(error);
        }
        self.length = bytes.len() as u64;
        self.compacted = self.length;
        self.dirty_end = false;
        self.lost_faith = false;
        Ok(())
    }
}

fn seed(epoch: u64, at: u64) -> u64 {
    epoch.rotate_left(32) ^ at
}

fn framed(payload: &Payload, at: u64, epoch: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; FRAME];
    serde_json::to_writer(&mut bytes, payload)?;
    let length = bytes.len() - FRAME;
    let short = u32::try_from(length).ok().filter(|_| length <= LONGEST);
    let Some(short) = short else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a record is too long",
        ));
    };
    let checksum = xxh3_64_with_seed(&bytes[FRAME..], seed(epoch, at));
    bytes[..4].copy_from_slice(&short.to_le_bytes());
    bytes[4..FRAME].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn header(bytes: &[u8]) -> Result<u64, LogError> {
    let damaged = LogError::Damaged(0, "this is no store of ours, or its header is damaged");
    let (Some(epoch), Some(checksum)) = (number(bytes, 16), number(bytes, 24)) else {
        return Err(damaged);
    };
    let good = bytes.starts_with(MAGIC) && xxh3_64_with_seed(&bytes[..24], 0) == checksum;
    good.then_some(epoch).ok_or(damaged)
}

/// The payload of a whole frame that belongs here.
fn frame(bytes: &[u8], at: usize, epoch: u64) -> Option<&[u8]> {
    let length = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
    let checksum = number(bytes, at + 4)?;
    let length = usize::try_from(length).ok().filter(|l| *l <= LONGEST)?;
    let payload = bytes.get(at + FRAME..)?.get(..length)?;
    // No payload is empty, so a row of zeros is no frame.
    let good = length > 0 && xxh3_64_with_seed(payload, seed(epoch, at as u64)) == checksum;
    good.then_some(payload)
}
