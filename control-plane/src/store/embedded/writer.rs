//! The thread that writes. It alone changes the state: a batch is drafted, made durable, then shown, then answered.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::Shared;
use super::log::Log;
use super::medium::Medium;
use crate::store::StoreError;
use crate::store::batch::{Leases, Order};

/// Most of what one batch holds.
const BATCH: usize = 4096;

/// It ends when nobody can send it anything any more.
pub(super) struct Writer<M> {
    pub(super) shared: Arc<Shared>,
    pub(super) log: Log<M>,
    pub(super) leases: Leases,
}

impl<M: Medium> Writer<M> {
    pub(super) fn run(mut self, waiting: &mpsc::Receiver<Order>) {
        self.leases = Leases::begin(&self.shared.shown.read(), Instant::now());
        loop {
            let end = self.leases.next_end();
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
        let now = Instant::now();
        let state = shared.shown.read();
        let batch = self.leases.draft(&state, orders, now);
        let mut result = Ok(());
        if !batch.written.is_empty() {
            let began = Instant::now();
            result = self.log.append(batch.written.clone(), &state);
            self.count(&result, batch.written.len() as u64, began.elapsed());
        }
        drop(state);
        if result.is_ok() && !batch.written.is_empty() {
            shared.shown.apply(&batch.written);
        }
        let error = result
            .err()
            .map(|error| StoreError::NotWritten(error.to_string()));
        self.leases.answer(batch, error.as_ref(), now);
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
        let compacted = self.log.compact(&shared.shown.read());
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
