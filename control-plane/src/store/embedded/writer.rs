//! The thread that writes. It alone changes the state: a batch is drafted, made durable, then shown, then answered.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::log::Log;
use super::medium::Medium;
use super::state::Draft;
use super::{Order, Shared};
use crate::store::{Committed, LeaseId, StoreError};

/// Most of what one batch holds.
const BATCH: usize = 4096;

/// It ends when nobody can send it anything any more.
pub(super) struct Writer<M> {
    pub(super) shared: Arc<Shared>,
    pub(super) log: Log<M>,
    /// When each lease ends. After a start every lease has its whole time again.
    pub(super) leases: BTreeMap<u64, Instant>,
}

/// Who waits for the batch, with what to tell them if it becomes durable.
enum Reply {
    Commit(oneshot::Sender<Result<Committed, StoreError>>, Committed),
    Grant(
        oneshot::Sender<Result<LeaseId, StoreError>>,
        LeaseId,
        Duration,
    ),
    Revoke(Option<oneshot::Sender<Result<(), StoreError>>>, LeaseId),
}

impl<M: Medium> Writer<M> {
    pub(super) fn run(mut self, waiting: &mpsc::Receiver<Order>) {
        let now = Instant::now();
        let begun = self.shared.read();
        let leases: Vec<_> = begun.leases().collect();
        drop(begun);
        self.leases = { leases.into_iter() }
            .map(|(id, time)| (id, now + time))
            .collect();
        loop {
            let end = self.leases.values().min();
            let next = match end {
                Some(end) => waiting.recv_timeout(end.saturating_duration_since(Instant::now())),
                None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let first = match next {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let more = waiting.try_iter().take(BATCH);
            self.batch(first.into_iter().chain(more));
            if self.log.wants_compaction() {
                self.compact();
            }
        }
    }

    /// Everything that waits becomes durable with one sync, or nothing of it does.
    fn batch(&mut self, orders: impl Iterator<Item = Order>) {
        let shared = self.shared.clone();
        let state = shared.read();
        let mut draft = Draft::on(&state);
        let mut replies = Vec::new();
        let now = Instant::now();
        let over = self.leases.iter().filter(|(_, end)| **end <= now);
        let over: Vec<u64> = over.map(|(id, _)| *id).collect();
        for id in over {
            if draft.revoke(id) {
                replies.push(Reply::Revoke(None, LeaseId(id)));
            } else {
                self.leases.remove(&id);
            }
        }
        for order in orders {
            match order {
                Order::Commit(transaction, reply) => match draft.transaction(transaction) {
                    Ok(written) => {
                        let revision = draft.revision();
                        replies.push(Reply::Commit(reply, Committed { written, revision }));
                    }
                    Err(error) => tell(reply, Err(error)),
                },
                Order::Grant(time, reply) => {
                    let id = LeaseId(draft.grant(time));
                    replies.push(Reply::Grant(reply, id, time));
                }
                Order::Revoke(lease, reply) => match draft.revoke(lease.0) {
                    true => replies.push(Reply::Revoke(Some(reply), lease)),
                    false => tell(reply, Err(StoreError::NoLease)),
                },
                Order::KeepAlive(lease, reply) => {
                    let time = state.lease(lease.0);
                    let end = self.leases.get_mut(&lease.0);
                    tell(
                        reply,
                        match (end, time) {
                            (Some(end), Some(time)) => {
                                *end = now + time;
                                Ok(())
                            }
                            _ => Err(StoreError::NoLease),
                        },
                    );
                }
            }
        }
        let written = std::mem::take(&mut draft.written);
        drop(draft);
        let mut result = Ok(());
        if !written.is_empty() {
            let began = Instant::now();
            result = self.log.append(written.clone(), &state);
            self.count(&result, written.len() as u64, began.elapsed());
        }
        drop(state);
        if result.is_ok() && !written.is_empty() {
            let mut state = { shared.state.write() }.unwrap_or_else(PoisonError::into_inner);
            for written in &written {
                state.apply(written);
            }
            shared.revision.send_replace(state.revision);
        }
        for reply in replies {
            self.reply(reply, result.as_ref().err(), now);
        }
    }

    fn reply(&mut self, reply: Reply, error: Option<&io::Error>, now: Instant) {
        let error = error.map(|error| StoreError::NotWritten(error.to_string()));
        match reply {
            Reply::Commit(reply, committed) => tell(reply, error.map_or(Ok(committed), Err)),
            Reply::Grant(reply, lease, time) => {
                if error.is_none() {
                    self.leases.insert(lease.0, now + time);
                }
                tell(reply, error.map_or(Ok(lease), Err));
            }
            Reply::Revoke(reply, lease) => {
                match error {
                    None => self.leases.remove(&lease.0),
                    // Not at once again: the disk needs time, or a person.
                    Some(_) => self.leases.insert(lease.0, now + Duration::from_secs(1)),
                };
                if let Some(reply) = reply {
                    tell(reply, error.map_or(Ok(()), Err));
                }
            }
        }
    }

    fn count(&self, result: &io::Result<()>, transactions: u64, took: Duration) {
        let counters = &self.shared.figures;
        counters.failing.store(result.is_err(), Relaxed);
        match result {
            Ok(()) => {
                counters.transactions.fetch_add(transactions, Relaxed);
                counters.syncs.fetch_add(1, Relaxed);
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                counters.sync_micros.fetch_add(micros, Relaxed);
                counters.bytes.store(self.log.length(), Relaxed);
            }
            Err(_) => {
                counters.refused.fetch_add(transactions, Relaxed);
            }
        }
    }

    fn compact(&mut self) {
        let shared = self.shared.clone();
        let compacted = self.log.compact(&shared.read());
        match compacted {
            Ok(()) => {
                shared.figures.compactions.fetch_add(1, Relaxed);
                shared.figures.bytes.store(self.log.length(), Relaxed);
            }
            // The old file is whole and goes on.
            Err(_) => self.log.postpone_compaction(),
        }
    }
}

/// Whoever asked may have gone; what was written stays written.
fn tell<T>(reply: oneshot::Sender<T>, answer: T) {
    drop(reply.send(answer));
}
