//! Orders to a store, as many as wait, made into one batch: drafted one after the other on top of the state, then made
//! durable together by whoever owns the store, then answered. What an order means is decided here, for every kind of
//! store alike; how a batch becomes durable is not known here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::state::{Draft, State, Written};
use super::{Answer, Committed, LeaseId, StoreError, Transaction, Write};

/// Most of what one transaction holds, in bytes.
const LARGEST: usize = 16 << 20;

pub(super) enum Order {
    Commit(Transaction, oneshot::Sender<Result<Committed, StoreError>>),
    Grant(Duration, oneshot::Sender<Result<LeaseId, StoreError>>),
    Revoke(LeaseId, oneshot::Sender<Result<(), StoreError>>),
    KeepAlive(LeaseId, oneshot::Sender<Result<(), StoreError>>),
}

impl Order {
    /// Sends an order off now, unless nobody takes it; the future only waits for its answer.
    pub(super) fn send<T: Send + 'static>(
        order: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Order,
        to: impl FnOnce(Order) -> bool,
    ) -> Answer<'static, T> {
        let (reply, answer) = oneshot::channel();
        let sent = to(order(reply));
        Box::pin(async move {
            if !sent {
                return Err(StoreError::Closed);
            }
            answer.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    /// A transaction, unless it is too large.
    pub(super) fn commit(
        transaction: Transaction,
        to: impl FnOnce(Order) -> bool,
    ) -> Answer<'static, Committed> {
        let size: usize = { transaction.then.iter() }
            .map(|write| match write {
                Write::Put { key, value, .. } => key.len() + value.len(),
                Write::Delete(key) => key.len(),
            })
            .sum();
        if size > LARGEST {
            return Box::pin(async { Err(StoreError::TooLarge) });
        }
        Order::send(|reply| Order::Commit(transaction, reply), to)
    }

    /// Answers without doing it.
    pub(super) fn refuse(self, error: StoreError) {
        match self {
            Order::Commit(_, reply) => tell(reply, Err(error)),
            Order::Grant(_, reply) => tell(reply, Err(error)),
            Order::Revoke(_, reply) | Order::KeepAlive(_, reply) => tell(reply, Err(error)),
        }
    }
}

/// Who waits for a batch, with what to tell them if it becomes durable.
enum Reply {
    Commit(oneshot::Sender<Result<Committed, StoreError>>, Committed),
    Grant(
        oneshot::Sender<Result<LeaseId, StoreError>>,
        LeaseId,
        Duration,
    ),
    Revoke(Option<oneshot::Sender<Result<(), StoreError>>>, LeaseId),
}

pub(super) struct Batch {
    /// To be made durable; may be nothing.
    pub(super) written: Vec<Written>,
    replies: Vec<Reply>,
}

/// When each lease ends. Who begins to write gives every lease its whole time again.
#[derive(Default)]
pub(super) struct Leases(BTreeMap<u64, Instant>);

impl Leases {
    pub(super) fn begin(state: &State, now: Instant) -> Leases {
        Leases(state.leases().map(|(id, time)| (id, now + time)).collect())
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }

    /// What the orders would do, and the ends of leases whose time is over.
    pub(super) fn draft(
        &mut self,
        state: &State,
        orders: impl Iterator<Item = Order>,
        now: Instant,
    ) -> Batch {
        let mut draft = Draft::on(state);
        let mut replies = Vec::new();
        let over = self.0.iter().filter(|(_, end)| **end <= now);
        let over: Vec<u64> = over.map(|(id, _)| *id).collect();
        for id in over {
            if draft.revoke(id) {
                replies.push(Reply::Revoke(None, LeaseId(id)));
            } else {
                self.0.remove(&id);
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
                    let end = self.0.get_mut(&lease.0);
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
        Batch {
            written: std::mem::take(&mut draft.written),
            replies,
        }
    }

    /// Tells everybody who waits what became of the batch.
    pub(super) fn answer(&mut self, batch: Batch, error: Option<&StoreError>, now: Instant) {
        for reply in batch.replies {
            let error = error.cloned();
            match reply {
                Reply::Commit(reply, committed) => tell(reply, error.map_or(Ok(committed), Err)),
                Reply::Grant(reply, lease, time) => {
                    if error.is_none() {
                        self.0.insert(lease.0, now + time);
                    }
                    tell(reply, error.map_or(Ok(lease), Err));
                }
                Reply::Revoke(reply, lease) => {
                    match error {
                        None => self.0.remove(&lease.0),
                        // Not at once again: the disk needs time, or a person.
                        Some(_) => self.0.insert(lease.0, now + Duration::from_secs(1)),
                    };
                    if let Some(reply) = reply {
                        tell(reply, error.map_or(Ok(()), Err));
                    }
                }
            }
        }
    }
}

/// Whoever asked may have gone; what was written stays written.
fn tell<T>(reply: oneshot::Sender<T>, answer: T) {
    drop(reply.send(answer));
}
