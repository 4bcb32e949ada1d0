//! What is counted of each listener: its connections, and the requests that never reached a route.

use super::cell::{Cell, Shard, shards, sum};
use super::closed::{ByCode, RelayEnd};
use crate::exchange::error::Code;

#[derive(Debug, Default)]
struct Counts {
    active: Cell,
    accepted: Cell,
    refused: Cell,
    handshakes_failed: Cell,
    rejected: ByCode,
    relays: Cell,
    relayed: [Cell; RelayEnd::COUNT],
    /// To the upstream, to the client.
    bytes: [Cell; 2],
}

/// A listener's resolved handle. A worker passes its own number, which nobody else uses.
#[derive(Debug)]
pub struct ListenerSeries {
    workers: Box<[Shard<Counts>]>,
}

impl ListenerSeries {
    pub(crate) fn new(workers: usize) -> Self {
        ListenerSeries {
            workers: shards(workers),
        }
    }

    /// A connection was accepted and is served. Pair with [`closed`](Self::closed), on any worker.
    pub fn accepted(&self, worker: usize) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.accepted.add(1);
            counts.active.add(1);
        }
    }

    pub fn closed(&self, worker: usize) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.active.subtract(1);
        }
    }

    /// A connection was closed at once, the listener's limit being reached.
    pub fn refused(&self, worker: usize) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.refused.add(1);
        }
    }

    /// TLS did not come about on an accepted connection.
    pub fn handshake_failed(&self, worker: usize) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.handshakes_failed.add(1);
        }
    }

    /// A request was answered by us before it had a route.
    pub fn rejected(&self, worker: usize, code: Code) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.rejected.add(code);
        }
    }

    /// A connection's bytes are relayed from now on. Pair with [`relay_ends`](Self::relay_ends).
    pub fn relay_begins(&self, worker: usize) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.relays.add(1);
        }
    }

    pub fn relay_ends(&self, worker: usize, end: RelayEnd) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            counts.relays.subtract(1);
            if let Some(cell) = counts.relayed.get(end as usize) {
                cell.add(1);
            }
        }
    }

    /// So many more bytes were relayed.
    pub fn relayed(&self, worker: usize, to_upstream: u64, to_client: u64) {
        if let Some(Shard(counts)) = self.workers.get(worker) {
            let [out, back] = &counts.bytes;
            out.add(to_upstream);
            back.add(to_client);
        }
    }

    pub(crate) fn active_relays(&self) -> i64 {
        sum(&self.workers, |counts| &counts.relays).cast_signed()
    }

    /// Relays that ended, with the label of each end.
    pub(crate) fn relays(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let words = RelayEnd::WORDS.iter().enumerate();
        words.map(|(index, word)| (*word, sum(&self.workers, |counts| &counts.relayed[index])))
    }

    /// Bytes that were relayed, by direction as the access log names them.
    pub(crate) fn relayed_bytes(&self) -> [(&'static str, u64); 2] {
        [
            ("in", sum(&self.workers, |counts| &counts.bytes[0])),
            ("out", sum(&self.workers, |counts| &counts.bytes[1])),
        ]
    }

    pub(crate) fn active_connections(&self) -> i64 {
        sum(&self.workers, |counts| &counts.active).cast_signed()
    }

    /// Accepted, refused, failed in their handshake: with the label each has.
    pub(crate) fn connections(&self) -> [(&'static str, u64); 3] {
        [
            ("accepted", sum(&self.workers, |counts| &counts.accepted)),
            ("refused", sum(&self.workers, |counts| &counts.refused)),
            (
                "handshake_failed",
                sum(&self.workers, |counts| &counts.handshakes_failed),
            ),
        ]
    }

    pub(crate) fn rejections(&self, code: usize) -> u64 {
        self.workers
            .iter()
            .map(|shard| shard.0.rejected.value(code))
            .sum()
    }
}
