//! Where facts are kept: keys and values with revisions, shaped like etcd, so that one process with a file and several
//! processes with an etcd cluster are the same to the rooms above.
//!
//! Every write is a transaction: comparisons, and what is written if they hold. A transaction that was answered is
//! durable. Revisions rise by one with every transaction that wrote. Values are text. Nothing here knows what is kept.

mod batch;
mod embedded;
mod etcd;
mod figures;
mod shown;
mod state;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire};
use std::time::{Duration, Instant};

use tokio::sync::watch;

pub use embedded::{Embedded, Glance, OpenError};
pub use etcd::{Etcd, EtcdError};
pub use figures::Figures;

/// A future that a store returns; it is sent off when it is made, not when it is first polled.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The one door to any kind of store.
pub trait Store: Send + Sync {
    /// Differs when revisions may not be compared: the store is another one than before.
    fn epoch(&self) -> String;

    /// What stands under a key.
    fn one<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Kept>>;

    /// Everything whose key begins with `prefix`, in the order of keys, and the revision at which that is so.
    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range>;

    /// Writes `transaction.then` if all of `transaction.when` holds.
    fn commit(&self, transaction: Transaction) -> Answer<'static, Committed>;

    /// Changes under `prefix` after `revision`, from now on.
    fn watch(&self, prefix: &str, revision: u64) -> Box<dyn Watch>;

    /// A new lease: keys that are put with it vanish when it was not kept alive for `time`.
    fn grant(&self, time: Duration) -> Answer<'static, LeaseId>;

    /// Begins a lease's time anew; fails with `NoLease` when it is over.
    fn keep_alive(&self, lease: LeaseId) -> Answer<'static, ()>;

    /// Ends a lease now, with its keys.
    fn revoke(&self, lease: LeaseId) -> Answer<'static, ()>;

    fn figures(&self) -> Figures;

    /// Gives the lead back, for good: the process stops. Others need not wait for a lease to end.
    fn resign(&self) {}

    /// What this process is among those that share the store; `None`: it has the store for itself.
    fn cluster(&self) -> Option<&Cluster> {
        None
    }
}

/// The processes that share a store. One of them leads: it alone writes.
pub struct Cluster {
    /// What this process is called.
    pub node: Arc<str>,
    /// Follows what is known; the store's own task holds the other end and outlives its readers.
    role: watch::Receiver<Role>,
    /// All of them, this one included.
    members: watch::Receiver<Arc<[Member]>>,
    /// Until when this process leads, unless that is confirmed again, in microseconds after `started`.
    until: Arc<AtomicU64>,
    started: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub node: Arc<str>,
    /// Where it is reached.
    pub url: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// In this term; no two have the same number, and later ones have larger ones.
    Leads(u64),
    /// Another leads; `None`: nobody, as far as is known.
    Follows(Option<Member>),
}

impl Cluster {
    /// Whether this process leads at this very moment. Looks at the clock: a process that was stopped for a while
    /// does not, whatever it knew before.
    pub fn leads(&self) -> bool {
        let now = self.started.elapsed().as_micros();
        now < u128::from(self.until.load(Acquire))
    }

    pub fn role(&self) -> Role {
        self.role.borrow().clone()
    }

    pub fn roles(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Who leads, as far as is known, unless it is this process.
    pub fn leader(&self) -> Option<Member> {
        match &*self.role.borrow() {
            Role::Follows(leader) => leader.clone(),
            Role::Leads(_) => None,
        }
    }

    pub fn members(&self) -> Arc<[Member]> {
        self.members.borrow().clone()
    }
}

/// Where changes are read from.
pub trait Watch: Send {
    /// The next changes, in the order of their revisions; waits for the first. May be dropped and called again.
    fn next(&mut self)
    -> Pin<Box<dyn Future<Output = Result<Vec<Event>, StoreError>> + Send + '_>>;
}

/// Names a lease for as long as it lives; a number is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub key: Arc<str>,
    pub value: Arc<str>,
    /// The revision that made it.
    pub created: u64,
    /// The revision that wrote it last.
    pub revision: u64,
    pub lease: Option<LeaseId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub kept: Vec<Kept>,
    pub revision: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    pub when: Vec<Compare>,
    pub then: Vec<Write>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    Absent(Arc<str>),
    Present(Arc<str>),
    /// The key was last written by this revision.
    At(Arc<str>, u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put {
        key: Arc<str>,
        value: Arc<str>,
        lease: Option<LeaseId>,
    },
    Delete(Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Whether the comparisons held, so that it was written.
    pub written: bool,
    /// The transaction's revision; the store's when nothing was written.
    pub revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub revision: u64,
    pub key: Arc<str>,
    /// `None` when the key was deleted.
    pub value: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// Nothing was written. What was accepted before is safe, and can be read.
    NotWritten(String),
    /// The lease is over.
    NoLease,
    /// More than a transaction may hold.
    TooLarge,
    /// A watch asks for changes that are forgotten: read the whole range again. The store is at this revision.
    Compacted(u64),
    /// Another process writes, or nobody may. Nothing was written.
    NotLeader,
    /// It was sent, and nobody has said what became of it: it may be written, or may yet be.
    Unsure(String),
    /// The store is closed.
    Closed,
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::NotWritten(why) => write!(f, "the store cannot write: {why}"),
            StoreError::NoLease => f.write_str("the lease is over"),
            StoreError::TooLarge => f.write_str("the transaction is larger than 16 MiB"),
            StoreError::Compacted(at) => {
                write!(
                    f,
                    "changes before revision {at} are forgotten, read the range again"
                )
            }
            StoreError::NotLeader => {
                f.write_str("the store cannot write: no control plane leads at the moment")
            }
            StoreError::Unsure(why) => {
                write!(f, "it is not known whether the store has written it: {why}")
            }
            StoreError::Closed => f.write_str("the store is closed"),
        }
    }
}

impl std::error::Error for StoreError {}

impl Transaction {
    /// Writes a value, whatever stood there.
    pub fn put(key: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Transaction {
        Transaction {
            when: Vec::new(),
            then: vec![Write::Put {
                key: key.into(),
                value: value.into(),
                lease: None,
            }],
        }
    }

    pub fn delete(key: impl Into<Arc<str>>) -> Transaction {
        Transaction {
            when: Vec::new(),
            then: vec![Write::Delete(key.into())],
        }
    }

    /// Only if this holds too.
    #[must_use]
    pub fn when(mut self, compare: Compare) -> Transaction {
        self.when.push(compare);
        self
    }
}
