//! What stands in etcd, under the prefix. Pure.
//!
//! ```text
//! leader                 who leads; its create revision is the number of the term
//! members/{node}         who is there
//! head                   epoch, number of the last record, and of the base
//! log/{record}           a batch of transactions
//! base/{record}/{piece}  the state after that record, in pieces
//! piece/{record}/{piece} pieces of a batch that is too large for one value
//! ```
//!
//! A record counts when `head` says so. Pieces are written before it, and are nothing without it.

use serde::{Deserialize, Serialize};

use crate::store::state::{Base, State, Written};

/// The most that is written at once. etcd takes 1.5 MiB unless it is told otherwise.
pub(super) const PIECE: usize = 512 << 10;
/// Entries of one part of the base.
const BASE_STEP: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) epoch: String,
    /// The last record.
    pub(super) record: u64,
    /// The record that the base was made after; 0 = there is none.
    pub(super) base: u64,
    pub(super) base_pieces: usize,
    /// Records after this one are there.
    pub(super) oldest: u64,
}

/// A batch as it stands in the log.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of the leader that wrote it.
    pub(super) term: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) batch: Vec<Written>,
    /// The batch is in so many pieces instead.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) pieces: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Whoever is there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Card {
    pub(super) node: String,
    pub(super) url: String,
}

/// Names of keys.
#[derive(Debug, Clone)]
pub(super) struct Keys(String);

impl Keys {
    pub(super) fn below(prefix: &str) -> Keys {
        Keys(format!("{prefix}/"))
    }

    pub(super) fn all(&self) -> &str {
        &self.0
    }

    pub(super) fn leader(&self) -> String {
        format!("{}leader", self.0)
    }

    pub(super) fn head(&self) -> String {
        format!("{}head", self.0)
    }

    pub(super) fn members(&self) -> String {
        format!("{}members/", self.0)
    }

    pub(super) fn record(&self, number: u64) -> String {
        format!("{}log/{number:020}", self.0)
    }

    pub(super) fn number_of_record(&self, key: &[u8]) -> Option<u64> {
        let key = std::str::from_utf8(key).ok()?;
        key.strip_prefix(&self.0)?
            .strip_prefix("log/")?
            .parse()
            .ok()
    }

    /// Up to and without this record.
    pub(super) fn records_before(&self, number: u64) -> (String, String) {
        (self.record(0), self.record(number))
    }

    pub(super) fn pieces(&self, record: u64) -> String {
        format!("{}piece/{record:020}/", self.0)
    }

    pub(super) fn pieces_before(&self, record: u64) -> (String, String) {
        (self.pieces(0), self.pieces(record))
    }

    pub(super) fn base(&self, record: u64) -> String {
        format!("{}base/{record:020}/", self.0)
    }

    pub(super) fn bases_before(&self, record: u64) -> (String, String) {
        (self.base(0), self.base(record))
    }
}

pub(super) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|error| error.to_string())
}

pub(super) fn read<'b, T: Deserialize<'b>>(what: &str, bytes: &'b [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{what} cannot be understood: {error}"))
}

/// The name of a piece, after those of all pieces.
pub(super) fn piece(of: &str, number: usize) -> String {
    format!("{of}{number:06}")
}

pub(super) fn base_of(state: &State) -> Result<Vec<u8>, String> {
    write(&state.parts(BASE_STEP))
}

pub(super) fn state_of(base: &[u8]) -> Result<State, String> {
    let mut state = State::default();
    for part in read::<Vec<Base>>("the base", base)? {
        state.restore(part);
    }
    Ok(state)
}

/// Whether a batch is the next one.
pub(super) fn continues(mut revision: u64, batch: &[Written]) -> bool {
    batch.iter().all(|written| {
        revision += 1;
        written.revision == revision
    })
}
