//! The task of a process among others: asks one member of the cluster after the other until one answers, keeps its
//! lease alive, follows what is written, and leads when nobody else does. One thing after the other, each with a bound
//! on its time, so that there is no state but the one that stands here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, sleep_until};
use tollgate_config::control_plane::Etcd as Settings;
use tollgate_engine::telemetry::log::Repeated;

use super::Ours;
use super::layout::{Card, Head, Keys, read, write};
use super::link::{Credentials, Fault, Link, Pair};
use super::wire::WatchResponse;
use super::wire::event::EventType;
use super::writer::Pending;
use crate::store::batch::{Leases, Order};
use crate::store::{Member, StoreError};

pub(super) struct Task {
    urls: Vec<String>,
    credentials: Credentials,
    pub(super) keys: Keys,
    pub(super) lease_time: Duration,
    pub(super) own: Member,
    pub(super) ours: Arc<Ours>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// True when this process shall not lead any more; it follows on.
    pub(super) resign: watch::Receiver<bool>,
    /// Who opens the store waits for its epoch; `None` once that is told.
    opened: Option<Sender<Result<String, String>>>,
    /// What is shown, and etcd's revision that wrote it.
    pub(super) head: Option<(Head, i64)>,
    /// Bytes of the base, and of the records after it.
    pub(super) base_bytes: usize,
    pub(super) log_bytes: usize,
    /// In etcd; ours as long as it lives.
    pub(super) lease: Option<i64>,
    /// When it is to be kept alive again.
    pub(super) next_beat: Instant,
    /// The create revision of our leader's key.
    pub(super) term: Option<i64>,
    pub(super) leader: Option<(i64, Member)>,
    members: BTreeMap<String, Member>,
    /// Of keys of the store, as long as we lead.
    pub(super) leases: Leases,
    pub(super) pending: Option<Pending>,
    /// Records that the watch told and `head` does not count yet.
    pub(super) told: BTreeMap<u64, Vec<u8>>,
}

/// Why a session with a member ends.
enum End {
    Stop,
    Fault(Fault),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        End::Fault(fault)
    }
}

impl Task {
    pub(super) fn new(
        settings: &Settings,
        credentials: Credentials,
        own: Member,
        ours: Arc<Ours>,
        (orders, resign): (mpsc::UnboundedReceiver<Order>, watch::Receiver<bool>),
        opened: Sender<Result<String, String>>,
    ) -> Task {
        Task {
            urls: settings.endpoints.clone(),
            credentials,
            keys: Keys::below(&settings.prefix),
            lease_time: settings.lease,
            own,
            ours,
            orders,
            resign,
            opened: Some(opened),
            head: None,
            base_bytes: 0,
            log_bytes: 0,
            lease: None,
            next_beat: Instant::now(),
            term: None,
            leader: None,
            members: BTreeMap::new(),
            leases: Leases::default(),
            pending: None,
            told: BTreeMap::new(),
        }
    }

    /// How long a member may take for an answer: within two thirds of the lease, three may be asked in vain.
    fn patience(&self) -> Duration {
        (self.lease_time / 10).max(Duration::from_millis(300))
    }

    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        static AWAY: Repeated = Repeated::new();
        let mut turn = 0;
        loop {
            let url = self.urls[turn % self.urls.len()].clone();
            let why = match self.session(&url, &mut stop).await {
                End::Stop => return,
                End::Fault(why) => why,
            };
            if let (Some(opened), Fault::Refused(why) | Fault::Wrong(why)) = (&self.opened, &why) {
                drop(opened.send(Err(format!("{url}: {why}"))));
                return;
            }
            self.ours.figures.failing.store(true, Relaxed);
            AWAY.warn(
                "a member of the etcd cluster does not answer as it should; the next one is asked",
                &[("url", &url), ("reason", &why)],
            );
            turn += 1;
            let pause = match turn % self.urls.len() {
                0 => Duration::from_millis(200),
                _ => Duration::from_millis(20),
            };
            tokio::select! {
                _ = &mut stop => return,
                () = sleep(pause) => {}
            }
            self.between();
        }
    }

    /// While nobody is asked: whoever waits must not wait for ever.
    fn between(&mut self) {
        self.tell_role();
        if self.leads() {
            return;
        }
        self.drop_pending(&StoreError::Unsure(
            "etcd has not answered since; look before you try again".to_owned(),
        ));
        while let Ok(order) = self.orders.try_recv() {
            order.refuse(StoreError::NotLeader);
        }
    }

    async fn session(&mut self, url: &str, stop: &mut oneshot::Receiver<()>) -> End {
        let opening = Link::open(url, &self.credentials, self.patience());
        let mut link = tokio::select! {
            _ = &mut *stop => return End::Stop,
            link = opening => match link {
                Ok(link) => link,
                Err(fault) => return End::Fault(fault),
            },
        };
        match self.with(&mut link, stop).await {
            Ok(()) => {
                // Others need not wait for the lease to end.
                if let Some(lease) = self.lease {
                    drop(link.revoke(lease).await);
                }
                End::Stop
            }
            Err(fault) => End::Fault(fault),
        }
    }

    async fn with(
        &mut self,
        link: &mut Link,
        stop: &mut oneshot::Receiver<()>,
    ) -> Result<(), Fault> {
        self.told.clear();
        let at = self.catch_up(link).await?;
        self.look(link).await?;
        let mut watch = link.watch(self.keys.all(), at + 1).await?;
        self.beat(link).await?;
        self.settle(link).await?;
        self.ours.figures.failing.store(false, Relaxed);
        self.next_beat = Instant::now() + self.tick();
        loop {
            if self.leads() {
                self.compact_if_wanted(link).await?;
            }
            let end = self.leases.next_end().filter(|_| self.leads());
            let wake = end.map_or(self.next_beat, |end| end.min(self.next_beat));
            tokio::select! {
                biased;
                _ = &mut *stop => return Ok(()),
                () = sleep_until(wake.into()) => {
                    if Instant::now() >= self.next_beat {
                        self.beat(link).await?;
                        self.next_beat = Instant::now() + self.tick();
                    }
                    if self.leases.next_end().is_some_and(|end| end <= Instant::now()) {
                        self.orders(link, None).await?;
                    }
                }
                Ok(()) = self.resign.changed() => self.beat(link).await?,
                message = watch.message() => match message? {
                    Some(message) => self.heard(link, message).await?,
                    None => return Err(Fault::Away("the watch ended".to_owned())),
                },
                order = self.orders.recv() => match order {
                    Some(order) => self.orders(link, Some(order)).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Makes what waits durable, if we lead.
    async fn orders(&mut self, link: &mut Link, first: Option<Order>) -> Result<(), Fault> {
        if !self.leads() {
            self.tell_role();
            if let Some(order) = first {
                order.refuse(StoreError::NotLeader);
            }
            return Ok(());
        }
        let mut orders: Vec<Order> = first.into_iter().collect();
        while orders.len() < super::writer::BATCH
            && let Ok(order) = self.orders.try_recv()
        {
            orders.push(order);
        }
        self.commit(link, orders).await
    }

    /// Reads who leads, who is there and what was written last, as the majority has it.
    pub(super) async fn look(&mut self, link: &mut Link) -> Result<(), Fault> {
        let leader = link.one(&self.keys.leader()).await?;
        let leader = leader.pairs.first();
        self.leader = leader.and_then(leader_of);
        // Ours, by a campaign whose answer was lost: nobody else has our lease.
        if self.term.is_none()
            && let Some(pair) = leader
            && Some(pair.lease) == self.lease
        {
            self.begin_term(link, pair.created).await?;
        }
        let members = link.below(&self.keys.members()).await?;
        self.members = { members.pairs.iter() }
            .filter_map(|pair| Some((text(&pair.key), card_of(&pair.value)?)))
            .collect();
        self.tell_members();
        let own = self.members.values().find(|one| one.node == self.own.node);
        if let Some(other) = own.filter(|one| one.url != self.own.url) {
            static SAME: Repeated = Repeated::new();
            SAME.warn(
                "another control plane is called the same; give each its own `store.node`",
                &[("node", &other.node), ("url", &other.url)],
            );
        }
        self.catch_up(link).await?;
        Ok(())
    }

    async fn heard(&mut self, link: &mut Link, message: WatchResponse) -> Result<(), Fault> {
        if message.canceled {
            return Err(Fault::Away(format!(
                "the watch was ended: {}",
                message.cancel_reason
            )));
        }
        let mut vacant = false;
        let mut head = None;
        for event in message.events {
            let put = event.r#type() == EventType::Put;
            let Some(pair) = event.kv.map(Pair::from) else {
                continue;
            };
            if pair.key == self.keys.leader().as_bytes() {
                vacant = !put;
                self.leader = leader_of(&pair).filter(|_| put);
            } else if pair.key == self.keys.head().as_bytes() {
                head = put.then_some(pair);
            } else if let Some(number) = self.keys.number_of_record(&pair.key) {
                if put && number > self.record() {
                    self.told.insert(number, pair.value);
                }
            } else if pair.key.starts_with(self.keys.members().as_bytes()) {
                let name = text(&pair.key);
                match card_of(&pair.value).filter(|_| put) {
                    Some(member) => self.members.insert(name, member),
                    None => self.members.remove(&name),
                };
                self.tell_members();
            }
        }
        if let Some(head) = head {
            self.follow(link, &head).await?;
        }
        if vacant {
            // Nobody leads: whoever is first.
            self.beat(link).await?;
        }
        self.tell_role();
        Ok(())
    }

    pub(super) fn card(&self) -> Result<Vec<u8>, Fault> {
        write(&Card {
            node: self.own.node.to_string(),
            url: self.own.url.to_string(),
        })
        .map_err(Fault::Wrong)
    }

    fn tell_members(&self) {
        let now: Arc<[Member]> = self.members.values().cloned().collect();
        let tell = |known: &mut Arc<[Member]>| {
            let news = **known != *now;
            *known = now;
            news
        };
        self.ours.members.send_if_modified(tell);
    }

    /// The store is known: whoever waits for that may begin.
    pub(super) fn tell_opened(&mut self) {
        if let Some((head, _)) = &self.head
            && let Some(opened) = self.opened.take()
        {
            drop(opened.send(Ok(head.epoch.clone())));
        }
    }
}

pub(super) fn leader_of(pair: &Pair) -> Option<(i64, Member)> {
    Some((pair.created, card_of(&pair.value)?))
}

fn card_of(value: &[u8]) -> Option<Member> {
    let card: Card = read("a member's card", value).ok()?;
    Some(Member {
        node: card.node.into(),
        url: card.url.into(),
    })
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
