//! Writing, by the one who leads: a batch is drafted, sent, shown and answered, in this order. What was sent and not
//! answered stays pending until it is known what became of it.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::layout::{Head, PIECE, Record, base_of, piece, write};
use super::link::{Fault, Link};
use super::member::Task;
use super::new_epoch;
use super::wire::{Compare, RequestOp, TxnRequest};
use crate::store::StoreError;
use crate::store::batch::{Batch, Order};

/// Most of what one batch holds.
pub(super) const BATCH: usize = 4096;

/// A batch that was sent, or is about to be.
pub(super) struct Pending {
    number: u64,
    term: i64,
    batch: Batch,
    /// It was found in etcd.
    landed: bool,
    /// Nobody can have seen it yet.
    unsent: bool,
}

impl Task {
    pub(super) async fn commit(
        &mut self,
        link: &mut Link,
        orders: Vec<Order>,
    ) -> Result<(), Fault> {
        let now = Instant::now();
        let Some(term) = self.term else {
            return Ok(());
        };
        let shown = self.ours.shown.clone();
        let batch = self.leases.draft(&shown.read(), orders.into_iter(), now);
        if batch.written.is_empty() {
            self.leases.answer(batch, None, now);
            return Ok(());
        }
        self.pending = Some(Pending {
            number: self.record() + 1,
            term,
            batch,
            landed: false,
            unsent: true,
        });
        self.push(link).await
    }

    /// After a new beginning: what was pending has landed, is sent again, or cannot land any more.
    pub(super) async fn settle(&mut self, link: &mut Link) -> Result<(), Fault> {
        let Some(pending) = &self.pending else {
            return Ok(());
        };
        if pending.landed {
            self.landed_well();
            return Ok(());
        }
        if self.term == Some(pending.term) && pending.number == self.record() + 1 {
            return self.push(link).await;
        }
        // The term is over, and `landed` has seen everything that was written in it.
        let why = "another control plane leads since";
        self.drop_pending(&StoreError::NotWritten(why.to_owned()));
        Ok(())
    }

    /// A record of that term was found.
    pub(super) fn landed(&mut self, number: u64, term: u64) {
        if let Some(pending) = &mut self.pending
            && pending.number == number
            && u64::try_from(pending.term) == Ok(term)
        {
            pending.landed = true;
        }
    }

    /// Answers what is pending with an error, or with another one if nobody can have seen it.
    pub(super) fn drop_pending(&mut self, error: &StoreError) {
        if let Some(pending) = self.pending.take() {
            let error = match (pending.unsent, error) {
                (true, StoreError::Unsure(_)) => &StoreError::NotLeader,
                _ => error,
            };
            let count = pending.batch.written.len() as u64;
            self.ours.figures.refused.fetch_add(count, Relaxed);
            self.leases
                .answer(pending.batch, Some(error), Instant::now());
        }
    }

    fn landed_well(&mut self) {
        if let Some(pending) = self.pending.take() {
            let figures = &self.ours.figures;
            let count = pending.batch.written.len() as u64;
            figures.transactions.fetch_add(count, Relaxed);
            self.leases.answer(pending.batch, None, Instant::now());
        }
    }

    async fn push(&mut self, link: &mut Link) -> Result<(), Fault> {
        match self.send(link).await {
            Ok(()) => Ok(()),
            Err(Fault::Refused(why)) => {
                // It says no for a reason, such as no space: another member would say the same.
                self.drop_pending(&StoreError::NotWritten(why));
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    async fn send(&mut self, link: &mut Link) -> Result<(), Fault> {
        let Some(pending) = &self.pending else {
            return Ok(());
        };
        let began = Instant::now();
        let (number, term) = (pending.number, pending.term);
        let mut record = Record {
            term: u64::try_from(term).unwrap_or_default(),
            batch: pending.batch.written.clone(),
            pieces: 0,
        };
        let mut bytes = write(&record).map_err(Fault::Refused)?;
        let mut size = bytes.len();
        if bytes.len() > PIECE {
            let whole = write(&record.batch).map_err(Fault::Refused)?;
            size = whole.len();
            let of = self.keys.pieces(number);
            record.pieces = self.put_pieces(link, &of, &whole).await?;
            record.batch = Vec::new();
            bytes = write(&record).map_err(Fault::Refused)?;
        }
        let Some((head, modified)) = self.head.clone() else {
            return Ok(());
        };
        let head = Head {
            record: number,
            ..head
        };
        let text = write(&head).map_err(Fault::Refused)?;
        let transaction = TxnRequest::new(
            [
                self.fence(term),
                Compare::modified(self.keys.head(), modified),
            ],
            [
                RequestOp::put(self.keys.record(number), bytes, 0),
                RequestOp::put(self.keys.head(), text, 0),
            ],
        );
        if let Some(pending) = &mut self.pending {
            pending.unsent = false;
        }
        let answer = link.transaction(transaction).await?;
        if !answer.succeeded {
            return self.doubt(link).await;
        }
        let modified = answer.revision();
        if let Some(pending) = &self.pending {
            self.ours.shown.apply(&pending.batch.written);
        }
        self.head = Some((head, modified));
        self.log_bytes += size;
        self.count_bytes();
        let figures = &self.ours.figures;
        figures.syncs.fetch_add(1, Relaxed);
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        figures.sync_micros.fetch_add(micros, Relaxed);
        self.landed_well();
        Ok(())
    }

    /// The comparison failed: it had landed before, or we do not lead.
    async fn doubt(&mut self, link: &mut Link) -> Result<(), Fault> {
        self.catch_up(link).await?;
        if self.pending.as_ref().is_some_and(|pending| pending.landed) {
            self.landed_well();
            return Ok(());
        }
        let why = "another control plane leads since";
        self.drop_pending(&StoreError::NotWritten(why.to_owned()));
        Err(Fault::Away("the term is over".to_owned()))
    }

    /// Whoever does not lead any more writes nothing.
    fn fence(&self, term: i64) -> Compare {
        Compare::created(self.keys.leader(), term)
    }

    /// Writes something long under names of its own, in front of what will make it count.
    async fn put_pieces(
        &mut self,
        link: &mut Link,
        of: &str,
        bytes: &[u8],
    ) -> Result<usize, Fault> {
        let mut count = 0;
        for part in bytes.chunks(PIECE) {
            self.renew(link).await?;
            let put = RequestOp::put(piece(of, count), part, 0);
            let fence = self.fence(self.term.unwrap_or_default());
            let answer = link.transaction(TxnRequest::new([fence], [put])).await?;
            if !answer.succeeded {
                return Err(Fault::Away("the term is over".to_owned()));
            }
            count += 1;
        }
        Ok(count)
    }

    /// The first leader of all makes the store.
    pub(super) async fn found(&mut self, link: &mut Link) -> Result<(), Fault> {
        let head = Head {
            epoch: new_epoch(),
            record: 0,
            base: 0,
            base_pieces: 0,
            oldest: 0,
        };
        let absent = Compare::created(self.keys.head(), 0);
        let put = RequestOp::put(self.keys.head(), write(&head).map_err(Fault::Wrong)?, 0);
        let fence = self.fence(self.term.unwrap_or_default());
        let transaction = TxnRequest::new([fence, absent], [put]);
        // Whether it was this one or one that was not answered: it is read.
        link.transaction(transaction).await?;
        self.catch_up(link).await.map(drop)
    }

    /// Writes the base anew when most of what is there is history.
    pub(super) async fn compact_if_wanted(&mut self, link: &mut Link) -> Result<(), Fault> {
        if self.log_bytes <= 2 * self.base_bytes + (1 << 20) {
            return Ok(());
        }
        let Some((head, modified)) = self.head.clone() else {
            return Ok(());
        };
        let bytes = base_of(&self.ours.shown.read()).map_err(Fault::Wrong)?;
        let of = self.keys.base(head.record);
        let base_pieces = self.put_pieces(link, &of, &bytes).await?;
        // Who is not far behind goes on with records: those since the former base stay.
        let next = Head {
            base: head.record,
            base_pieces,
            oldest: head.base,
            ..head.clone()
        };
        let transaction = TxnRequest::new(
            [
                self.fence(self.term.unwrap_or_default()),
                Compare::modified(self.keys.head(), modified),
            ],
            [
                RequestOp::put(self.keys.head(), write(&next).map_err(Fault::Wrong)?, 0),
                RequestOp::delete(self.keys.records_before(next.oldest + 1)),
                RequestOp::delete(self.keys.pieces_before(next.oldest + 1)),
                RequestOp::delete(self.keys.bases_before(next.base)),
            ],
        );
        let answer = link.transaction(transaction).await?;
        if !answer.succeeded {
            self.catch_up(link).await?;
            return Err(Fault::Away("the term is over".to_owned()));
        }
        let modified = answer.revision();
        self.head = Some((next, modified));
        (self.base_bytes, self.log_bytes) = (bytes.len(), 0);
        self.count_bytes();
        self.ours.figures.compactions.fetch_add(1, Relaxed);
        Ok(())
    }
}
