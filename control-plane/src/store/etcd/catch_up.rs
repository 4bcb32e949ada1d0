//! Reading: from what this process shows to what the majority has. The base where too much is missing, then record after
//! record; each is the next one, or nothing is believed.

use std::sync::atomic::Ordering::Relaxed;

use super::layout::{Head, Record, continues, piece, read, state_of};
use super::link::{Fault, Link, Pair};
use super::member::Task;
use crate::store::StoreError;
use crate::store::state::{State, Written};

impl Task {
    /// The last record that is shown.
    pub(super) fn record(&self) -> u64 {
        self.head.as_ref().map_or(0, |(head, _)| head.record)
    }

    /// Reads everything that is missing; returns etcd's revision up to which that is so.
    pub(super) async fn catch_up(&mut self, link: &mut Link) -> Result<i64, Fault> {
        let found = link.one(&self.keys.head()).await?;
        match (found.pairs.first(), &self.head) {
            (Some(pair), _) => self.up_to(link, pair, found.at).await?,
            (None, None) => {}
            (None, Some(_)) => {
                return Err(Fault::Wrong(
                    "the store in etcd is gone; what was known is still served. Restart to begin with what is there"
                        .to_owned(),
                ));
            }
        }
        self.tell_opened();
        Ok(found.at)
    }

    /// What the watch told, if it told everything; otherwise it is read.
    pub(super) async fn follow(&mut self, link: &mut Link, pair: &Pair) -> Result<(), Fault> {
        self.up_to(link, pair, 0).await
    }

    async fn up_to(&mut self, link: &mut Link, pair: &Pair, at: i64) -> Result<(), Fault> {
        let head: Head = read("`head`", &pair.value).map_err(Fault::Wrong)?;
        if let Some((known, modified)) = &self.head {
            if known.epoch != head.epoch {
                return Err(Fault::Wrong(
                    "the store in etcd is another one than before; what was known is still served. Restart to begin \
                     with what is there"
                        .to_owned(),
                ));
            }
            if pair.modified <= *modified {
                return Ok(());
            }
        }
        let fresh = self.head.is_none();
        if fresh || self.record() < head.oldest {
            self.load(link, &head, at).await?;
        }
        let mut next = self.record() + 1;
        while next <= head.record {
            let bytes = match self.told.remove(&next) {
                Some(bytes) => vec![bytes],
                None => {
                    let (from, to) = (self.keys.record(next), self.keys.record(head.record + 1));
                    let pairs = link.span(&from, &to, at).await?;
                    pairs.into_iter().map(|pair| pair.value).collect()
                }
            };
            if bytes.is_empty() {
                return Err(Fault::Away(format!("record {next} is not there")));
            }
            for bytes in bytes {
                let (term, batch) = self.batch_of(link, next, &bytes, at).await?;
                if !continues(self.ours.shown.read().revision, &batch) {
                    return Err(Fault::Wrong(format!(
                        "record {next} does not follow the one before it"
                    )));
                }
                self.ours.shown.apply(&batch);
                self.landed(next, term);
                self.log_bytes += bytes.len();
                if let Some((known, _)) = &mut self.head {
                    known.record = next;
                }
                next += 1;
            }
        }
        self.told.retain(|number, _| *number > head.record);
        self.head = Some((head, pair.modified));
        self.count_bytes();
        Ok(())
    }

    /// Begins with the base.
    async fn load(&mut self, link: &mut Link, head: &Head, at: i64) -> Result<(), Fault> {
        // Whether what is pending landed is in none of the records that are left.
        let why = "it is no longer in the log";
        self.drop_pending(&StoreError::Unsure(why.to_owned()));
        let mut state = State::default();
        self.base_bytes = 0;
        if head.base > 0 {
            let bytes = self
                .pieces(link, &self.keys.base(head.base), head.base_pieces, at)
                .await?;
            self.base_bytes = bytes.len();
            state = state_of(&bytes).map_err(Fault::Wrong)?;
        }
        self.ours.shown.replace(state);
        self.log_bytes = 0;
        let begun = Head {
            record: head.base,
            ..head.clone()
        };
        self.head = Some((begun, 0));
        Ok(())
    }

    async fn batch_of(
        &self,
        link: &mut Link,
        number: u64,
        bytes: &[u8],
        at: i64,
    ) -> Result<(u64, Vec<Written>), Fault> {
        let record: Record = read("a record", bytes).map_err(Fault::Wrong)?;
        if record.pieces == 0 {
            return Ok((record.term, record.batch));
        }
        let bytes = self
            .pieces(link, &self.keys.pieces(number), record.pieces, at)
            .await?;
        let batch = read("a record", &bytes).map_err(Fault::Wrong)?;
        Ok((record.term, batch))
    }

    async fn pieces(
        &self,
        link: &mut Link,
        of: &str,
        count: usize,
        at: i64,
    ) -> Result<Vec<u8>, Fault> {
        let pairs = link.span(&piece(of, 0), &piece(of, count), at).await?;
        if pairs.len() != count {
            return Err(Fault::Away(format!(
                "{of} has {} pieces of {count}",
                pairs.len()
            )));
        }
        Ok(pairs.into_iter().flat_map(|pair| pair.value).collect())
    }

    pub(super) fn count_bytes(&self) {
        let bytes = (self.base_bytes + self.log_bytes) as u64;
        self.ours.figures.bytes.store(bytes, Relaxed);
    }
}
