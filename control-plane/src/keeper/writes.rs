//! The one task through which registrations and removals go: first into the store, then into the registry, then the
//! answer. What waits is sent to the store together, which makes it durable together; of each instance there is one
//! change in a batch, so that the order of changes is the order in both.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tollgate_engine::telemetry::log::Repeated;

use super::{INSTANCES, Keeper, Refused};
use crate::registry::Record;
use crate::store::{Answer, Committed, Compare, StoreError, Transaction};

/// Changes of so many instances are one batch.
const BATCH: usize = 2048;

pub(super) type Reply<T> = oneshot::Sender<Result<T, Refused>>;

pub(super) enum Ask {
    Register(Box<Record>, Arc<str>, Reply<()>),
    Deregister(Arc<str>, Arc<str>, Reply<bool>),
    /// A beat said something new; the registry has it already.
    Refresh(Arc<Record>),
    /// The registry removed it.
    Forget(Arc<Record>),
}

impl Ask {
    fn id(&self) -> Arc<str> {
        match self {
            Ask::Register(record, ..) => record.id.clone(),
            Ask::Deregister(id, ..) => id.clone(),
            Ask::Refresh(record) | Ask::Forget(record) => record.id.clone(),
        }
    }
}

impl Keeper {
    /// Ends with the channel, that is never while somebody can ask.
    pub(super) async fn write(self: Arc<Self>, mut asks: mpsc::UnboundedReceiver<Ask>) {
        let mut left = None;
        loop {
            let first = match left.take() {
                Some(ask) => ask,
                None => match asks.recv().await {
                    Some(ask) => ask,
                    None => return,
                },
            };
            let mut ids = BTreeSet::from([first.id()]);
            let mut batch = Vec::new();
            self.send(first, &mut batch);
            while batch.len() < BATCH
                && let Ok(ask) = asks.try_recv()
            {
                if !ids.insert(ask.id()) {
                    left = Some(ask);
                    break;
                }
                self.send(ask, &mut batch);
            }
            for (ask, answer) in batch {
                self.finish(ask, answer.await);
            }
        }
    }

    /// Sends an ask's transaction to the store, or answers it at once.
    fn send(&self, mut ask: Ask, batch: &mut Vec<(Ask, Answer<'static, Committed>)>) {
        if !self.leads() {
            // Whoever leads decides, and sees to what the registry here has decided before.
            match ask {
                Ask::Register(_, _, reply) => {
                    tell(reply, Err(Refused::Store(StoreError::NotLeader)))
                }
                Ask::Deregister(_, _, reply) => {
                    tell(reply, Err(Refused::Store(StoreError::NotLeader)))
                }
                Ask::Refresh(_) | Ask::Forget(_) => {}
            }
            return;
        }
        let key = format!("{INSTANCES}{}", ask.id());
        let transaction = match &mut ask {
            Ask::Register(record, ..) => {
                let checked = self.judged(|registry, rules, _| {
                    if let Some(former) = registry.record(&record.id) {
                        record.registered_at = former.registered_at;
                    }
                    registry.check(rules, record)
                });
                if let Err(refusal) = checked {
                    if let Ask::Register(_, _, reply) = ask {
                        tell(reply, Err(Refused::Registry(refusal)));
                    }
                    return;
                }
                Transaction::put(key, text(record))
            }
            Ask::Deregister(..) => Transaction::delete(key),
            // Whoever was removed meanwhile does not come back by it.
            Ask::Refresh(record) => {
                Transaction::put(key.clone(), text(record)).when(Compare::Present(key.into()))
            }
            // It may have registered again meanwhile.
            Ask::Forget(record) => {
                match self.judged(|registry, _, _| registry.contains(&record.id)) {
                    true => return,
                    false => Transaction::delete(key),
                }
            }
        };
        batch.push((ask, self.store.commit(transaction)));
    }

    /// The store has answered: now it is true.
    fn finish(&self, ask: Ask, answer: Result<Committed, StoreError>) {
        static NOT_WRITTEN: Repeated = Repeated::new();
        if let Err(error) = &answer {
            NOT_WRITTEN.error(
                "the store does not take a write; registrations are refused, lookups go on",
                &[("reason", error)],
            );
        }
        let answer = answer.map_err(Refused::Store);
        match ask {
            Ask::Register(record, by, reply) => {
                let record = Arc::new(*record);
                let registered = answer.and_then(|_| {
                    self.call(|registry, rules, now| {
                        registry.register(rules, record, Some(&by), now)
                    })
                    .map_err(Refused::Registry)
                });
                tell(reply, registered);
            }
            Ask::Deregister(id, by, reply) => {
                let gone = answer.map(|_| {
                    self.call(|registry, _, now| registry.deregister(&id, Some(&by), now))
                });
                tell(reply, gone);
            }
            Ask::Refresh(_) | Ask::Forget(_) => {}
        }
    }
}

fn text(record: &Record) -> String {
    // A record is strings and numbers.
    serde_json::to_string(record).unwrap_or_default()
}

/// Whoever asked may have gone.
fn tell<T>(reply: oneshot::Sender<T>, answer: T) {
    drop(reply.send(answer));
}
