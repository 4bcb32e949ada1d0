//! Leading: the lease that is kept alive, the key that says who leads, and until when we may believe that it is us.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use tollgate_engine::telemetry::log;

use super::Role;
use super::link::{Fault, Link, Pair};
use super::member::{Task, leader_of};
use super::wire::response_op::Response;
use super::wire::{Compare, RequestOp, TxnRequest};
use crate::store::Member;
use crate::store::batch::Leases;

impl Task {
    /// Keeps the lease alive, and looks whether what the watch told is all there is: a watch may lose things.
    pub(super) async fn beat(&mut self, link: &mut Link) -> Result<(), Fault> {
        if *self.resign.borrow() {
            self.lost();
            if let Some(lease) = self.lease.take() {
                link.revoke(lease).await?;
            }
            self.look(link).await?;
            self.tell_role();
            return Ok(());
        }
        let before = Instant::now();
        let alive = match self.lease {
            Some(lease) => link.keep_alive(lease).await?,
            None => false,
        };
        if !alive {
            self.lost();
            let lease = link.grant(self.lease_time).await?;
            self.lease = Some(lease);
            let card = self.card()?;
            let key = format!("{}{}", self.keys.members(), self.own.node);
            link.put(key, card, lease).await?;
        }
        self.look(link).await?;
        if self.leader.is_none() {
            self.campaign(link).await?;
        }
        if self.term.is_some() && self.leader.as_ref().map(|(created, _)| *created) == self.term {
            self.confirmed(before);
        } else {
            self.lost();
        }
        self.tell_role();
        Ok(())
    }

    /// Keeps the lease alive in the middle of something long, when it is time to.
    pub(super) async fn renew(&mut self, link: &mut Link) -> Result<(), Fault> {
        let before = Instant::now();
        if let Some(lease) = self.lease.filter(|_| before >= self.next_beat) {
            match link.keep_alive(lease).await? {
                true => self.confirmed(before),
                false => return Err(Fault::Away("the lease is over".to_owned())),
            }
        }
        Ok(())
    }

    /// The lease lived at that time. Until two thirds of it are over we may believe that we lead: others wait for all
    /// of it.
    fn confirmed(&mut self, at: Instant) {
        self.next_beat = at + self.tick();
        if self.term.is_some() {
            let until = at + self.lease_time * 2 / 3;
            let until = until.saturating_duration_since(self.ours.started);
            let until = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
            self.ours.until.store(until, Release);
        }
    }

    /// How often the lease is kept alive.
    pub(super) fn tick(&self) -> Duration {
        self.lease_time / 6
    }

    /// Tries to be the one who leads.
    async fn campaign(&mut self, link: &mut Link) -> Result<(), Fault> {
        let Some(lease) = self.lease else {
            return Ok(());
        };
        let key = self.keys.leader();
        let nobody = Compare::created(key.clone(), 0);
        let put = RequestOp::put(key.clone(), self.card()?, lease);
        let transaction = TxnRequest {
            failure: vec![RequestOp::get(key)],
            ..TxnRequest::new([nobody], [put])
        };
        let answer = link.transaction(transaction).await?;
        if answer.succeeded {
            let term = answer.revision();
            self.leader = Some((term, self.own.clone()));
            return self.begin_term(link, term).await;
        }
        for answer in answer.responses {
            if let Some(Response::ResponseRange(found)) = answer.response {
                let pair = found.kvs.into_iter().next().map(Pair::from);
                self.leader = pair.as_ref().and_then(leader_of);
            }
        }
        Ok(())
    }

    pub(super) async fn begin_term(&mut self, link: &mut Link, term: i64) -> Result<(), Fault> {
        self.term = Some(term);
        if let Err(fault) = self.prepare(link).await {
            // It is begun again from the beginning: the key is ours.
            self.term = None;
            return Err(fault);
        }
        self.leases = Leases::begin(&self.ours.shown.read(), Instant::now());
        log::info(
            "this control plane leads now",
            &[("node", &self.own.node), ("term", &term)],
        );
        Ok(())
    }

    async fn prepare(&mut self, link: &mut Link) -> Result<(), Fault> {
        // Whatever a former leader wrote last.
        self.catch_up(link).await?;
        match self.head {
            Some(_) => Ok(()),
            None => self.found(link).await,
        }
    }

    pub(super) fn leads(&self) -> bool {
        let now = self.ours.started.elapsed().as_micros();
        self.term.is_some() && now < u128::from(self.ours.until.load(Relaxed))
    }

    /// We do not lead, whatever we thought.
    fn lost(&mut self) {
        if let Some(term) = self.term.take() {
            log::warn(
                "this control plane does not lead any more",
                &[("term", &term)],
            );
        }
        self.ours.until.store(0, Release);
        self.leases = Leases::default();
    }

    pub(super) fn tell_role(&self) {
        let role = match self.term {
            Some(term) if self.leads() => Role::Leads(u64::try_from(term).unwrap_or_default()),
            _ => {
                // Our own key of a life before this one leads nobody.
                let others = |member: &Member| *member != self.own;
                let leader = self.leader.as_ref().map(|(_, member)| member.clone());
                Role::Follows(leader.filter(others))
            }
        };
        let tell = |known: &mut Role| {
            let news = *known != role;
            *known = role;
            news
        };
        self.ours.role.send_if_modified(tell);
    }
}
