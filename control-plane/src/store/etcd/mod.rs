//! A store in an etcd cluster, for several processes of which one leads. Everything is in the memory of each of them;
//! the leader makes batches durable in etcd, and all of them, the leader too, show what became durable there, in the
//! same order and with the same revisions. Readers never wait for the network: what was known goes on being read when
//! the whole cluster is away.
//!
//! **Why a log in etcd, and not a key for each key.** A transaction of etcd holds 128 operations and 1.5 MiB, unless
//! each cluster is set up otherwise; one change of a catalog has thousands of blocks, and is whole or nothing. As
//! records of a log it is written in pieces and counts with the one small transaction that moves `head`; and everything
//! that waits becomes durable with one transaction, as in a file. What it costs: `etcdctl` shows records, not keys.
//!
//! **Who may write.** Every write compares the create revision of the leader's key, which is the number of the term, and
//! the revision of `head`. A leader that was stopped, cut off or replaced cannot write, whatever it believes. It
//! believes it only for two thirds of its lease after the last confirmation, so it has stopped acting before anybody
//! else begins. What was sent and not answered is asked about until then; if nobody answers, the caller is told that
//! it is not known.

mod catch_up;
mod layout;
mod lead;
mod link;
mod member;
#[cfg(test)]
mod tests;
mod wire;
mod writer;

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tollgate_config::control_plane::Etcd as Settings;

use super::batch::Order;
use super::figures::Counters;
use super::shown::Shown;
use super::state::State;
use super::{
    Answer, Cluster, Committed, Figures, Kept, LeaseId, Member, Range, Role, Store, Transaction,
    Watch,
};
use link::Credentials;

/// The open store. Dropping it gives the lease back, so that another process may lead at once.
pub struct Etcd {
    ours: Arc<Ours>,
    cluster: Cluster,
    epoch: String,
    /// To the task. `None` only while it is dropped.
    orders: Option<mpsc::UnboundedSender<Order>>,
    resigned: watch::Sender<bool>,
    /// Its end ends the task.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the task shows.
struct Ours {
    shown: Arc<Shown>,
    figures: Counters,
    role: watch::Sender<Role>,
    members: watch::Sender<Arc<[Member]>>,
    until: Arc<AtomicU64>,
    started: Instant,
}

/// Why a store does not open.
#[derive(Debug)]
pub struct EtcdError(String);

impl fmt::Display for EtcdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store in etcd does not open: {}", self.0)
    }
}

impl std::error::Error for EtcdError {}

impl Etcd {
    /// Opens the store, or makes one. Blocks until it is known what is in it, for as long as no member answers: to be
    /// called at start. `url` is where the others reach this process.
    pub fn open(settings: &Settings, node: &str, url: &str) -> Result<Etcd, EtcdError> {
        let credentials = Credentials::read(settings).map_err(EtcdError)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| EtcdError(error.to_string()))?;
        let (role, roles) = watch::channel(Role::Follows(None));
        let (members, all) = watch::channel(Arc::from([]));
        let until = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let ours = Arc::new(Ours {
            shown: Shown::of(State::default()),
            figures: Counters::default(),
            role,
            members,
            until: until.clone(),
            started,
        });
        let cluster = Cluster {
            node: node.into(),
            role: roles,
            members: all,
            until,
            started,
        };
        let (orders, waiting) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let (resigned, resign) = watch::channel(false);
        let (opened, is_open) = std::sync::mpsc::channel();
        let member = Member {
            node: node.into(),
            url: url.into(),
        };
        let task = member::Task::new(
            settings,
            credentials,
            member,
            ours.clone(),
            (waiting, resign),
            opened,
        );
        // A thread of its own: the lease is kept alive however much there is to do elsewhere.
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || runtime.block_on(task.run(stopped)))
            .map_err(|error| EtcdError(error.to_string()))?;
        let epoch = match is_open.recv() {
            Ok(Ok(epoch)) => epoch,
            Ok(Err(why)) => return Err(EtcdError(why)),
            Err(_) => return Err(EtcdError("its task has died".to_owned())),
        };
        Ok(Etcd {
            ours,
            cluster,
            epoch,
            orders: Some(orders),
            resigned,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn take(&self, order: Order) -> bool {
        let orders = self.orders.as_ref();
        orders.is_some_and(|orders| orders.send(order).is_ok())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.orders = None;
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has told so on standard error.
            let _panicked = thread.join();
        }
    }
}

impl Store for Etcd {
    fn epoch(&self) -> String {
        self.epoch.clone()
    }

    fn one<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Kept>> {
        Box::pin(async move { Ok(self.ours.shown.one(key)) })
    }

    fn range<'a>(&'a self, prefix: &'a str) -> Answer<'a, Range> {
        Box::pin(async move { Ok(self.ours.shown.range(prefix)) })
    }

    fn commit(&self, transaction: Transaction) -> Answer<'static, Committed> {
        Order::commit(transaction, |order| self.take(order))
    }

    fn watch(&self, prefix: &str, revision: u64) -> Box<dyn Watch> {
        self.ours.shown.watch(prefix, revision)
    }

    fn grant(&self, time: Duration) -> Answer<'static, LeaseId> {
        Order::send(|reply| Order::Grant(time, reply), |order| self.take(order))
    }

    fn keep_alive(&self, lease: LeaseId) -> Answer<'static, ()> {
        let order = |reply| Order::KeepAlive(lease, reply);
        Order::send(order, |order| self.take(order))
    }

    fn revoke(&self, lease: LeaseId) -> Answer<'static, ()> {
        let order = |reply| Order::Revoke(lease, reply);
        Order::send(order, |order| self.take(order))
    }

    fn figures(&self) -> Figures {
        self.ours.figures.figures(&self.ours.shown)
    }

    fn resign(&self) {
        self.resigned.send_replace(true);
    }

    fn cluster(&self) -> Option<&Cluster> {
        Some(&self.cluster)
    }
}

/// A number that no other store has: the standard library's seed is random.
fn new_epoch() -> String {
    let number = std::hash::RandomState::new().build_hasher().finish();
    format!("{number:016x}")
}
