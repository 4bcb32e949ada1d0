//! Picks up sagas that nobody drives, and looks at failed ones once more (SHOP-508). What is done with which is the table of
//! `saga::recover`; nothing here makes a step.

use std::time::Duration;

use uuid::Uuid;

use super::{
    conductor::{Conductor, cancelled},
    partners::{Paid, Stock},
    queue::waited_in_vain,
    saga::{Action, Failure, Saga, State, Step, recover},
    sagas::{self, Change},
};
use crate::kit::{log, refusal::Refusal, time};

impl Conductor {
    /// Picks up what nobody drives (SHOP-508). At start, and again and again.
    pub async fn recover(&self) {
        let now = time::now();
        let room = self.room();
        let left =
            match sagas::left(&self.database, now, self.verify_after, room.min(200) as i64).await {
                Ok(left) => left,
                Err(error) => return log::error("recovery cannot read", &[("error", &error)]),
            };
        let mut payments_up = None;
        for order in left {
            if self.running.has(order) {
                continue;
            }
            if let Err(error) = self.pick_up(order, &mut payments_up).await {
                log::error("recovery cannot go on", &[("error", &error)]);
            }
        }
        if let Ok(manual) = sagas::manual(&self.database).await {
            self.counts.manual.set(manual);
        }
    }

    /// One saga that nobody drives. `payments_up` is asked once for many.
    pub(super) async fn pick_up(
        &self,
        order: Uuid,
        payments_up: &mut Option<bool>,
    ) -> Result<(), sqlx::Error> {
        let now = time::now();
        let mut write = self.database.write().await?;
        let Some((kept, lease)) = self.take(&mut write, order, now).await? else {
            return Ok(());
        };
        write.commit().await?;
        let mut saga = kept.saga;
        if kept.settled {
            return sagas::release(&self.database, saga.id, lease).await;
        }
        let age = now - saga.updated_at;
        if saga.state == State::PaymentProcessed && payments_up.is_none() {
            *payments_up = Some(self.partners.payments_up().await);
        }
        let waited = saga.queued_until.filter(|_| saga.queued);
        let action = match waited {
            Some(until) if until <= now => Action::Compensate,
            Some(_) => Action::Continue,
            None => recover(saga.state, age, payments_up.unwrap_or(true)),
        };
        match action {
            Action::Verify => return self.verify(saga, lease, age).await,
            Action::Leave => return sagas::settle(&self.database, &saga, lease).await,
            // What its last call came to was kept before it was left to wait, so that there is no doubt to begin with.
            _ if waited.is_some() && kept.cancel.is_some() => saga.turn(cancelled(), now),
            Action::Continue if waited.is_some() => saga.dequeued(now),
            Action::Compensate if waited.is_some() => saga.turn(waited_in_vain(), now),
            Action::Continue | Action::Finish | Action::Resume => saga.resumed(now),
            Action::Compensate => {
                saga.resumed(now);
                let why = "the order took too long; send it again";
                saga.turn(Failure::of(&Refusal::unavailable(why, Duration::ZERO)), now);
            }
        }
        if kept.cancel.is_some() {
            saga.turn(cancelled(), now);
        }
        saga.recovery.status = format!("{action:?}").to_lowercase();
        self.counts.recovered.inc();
        // Kept before anything is done: a decision, once made, holds.
        let mut write = self.database.write().await?;
        if self.keep(&mut write, &saga, lease).await? == Change::Lost {
            return Ok(());
        }
        write.commit().await?;
        self.drive(saga, lease);
        Ok(())
    }

    /// Looks whether a failed saga left anything behind: what could not be undone is tried again, what arrived late is
    /// undone once more.
    async fn verify(&self, mut saga: Saga, lease: Uuid, age: i64) -> Result<(), sqlx::Error> {
        let now = time::now();
        let mut again = saga.undo_again(false, now);
        let late = age >= self.verify_after.as_millis() as i64;
        if !again && late {
            match self.leftovers(&saga).await {
                Ok(left) if left.is_empty() && !saga.compensation.manual => {
                    return sagas::settle(&self.database, &saga, lease).await;
                }
                Ok(left) => {
                    // What somebody has to look at is theirs.
                    let stuck = saga.stuck();
                    for step in left.into_iter().filter(|step| !stuck.contains(step)) {
                        saga.undo_late(step, now);
                        again = true;
                    }
                }
                // Whoever does not answer is asked the next time.
                Err(_) => {}
            }
        }
        if !again {
            return sagas::release(&self.database, saga.id, lease).await;
        }
        let mut write = self.database.write().await?;
        if self.keep(&mut write, &saga, lease).await? == Change::Lost {
            return Ok(());
        }
        write.commit().await?;
        self.drive(saga, lease);
        Ok(())
    }

    /// Steps of a failed saga whose effect is still there.
    pub(super) async fn leftovers(&self, saga: &Saga) -> Result<Vec<Step>, Failure> {
        let mut left = Vec::new();
        match self.partners.paid(saga.order_id).await? {
            Paid::Taken(_) | Paid::Open => left.push(Step::ProcessPayment),
            Paid::Unknown | Paid::GivenBack | Paid::Failed(_) => {}
        }
        match self.partners.stock(saga.order_id).await? {
            Stock::Held(..) | Stock::Committed => left.push(Step::ReserveInventory),
            Stock::Unknown | Stock::Gone => {}
        }
        Ok(left)
    }
}
