//! What happens to orders after they were made: cancelled, shipped, delivered, returned (SHOP-405, SHOP-410).
//!
//! An order whose saga still runs is cancelled by telling the saga. One that is through is cancelled by turning its saga
//! back: the order's state and the saga's turn are one transaction, refund and stock follow durably.

use std::time::Duration;

use uuid::Uuid;

use super::{
    conductor::{Conductor, cancelled},
    domain::Status,
    saga::{Saga, State, Step, UndoStatus},
    sagas::{self, Change, Kept},
    store::{self, With},
};
use crate::{
    contracts::orders as contract,
    kit::{database::Transaction, idempotency, refusal::Refusal, time},
};

/// How long another one's work on the same saga is waited for (SHOP-603).
const PATIENCE: Duration = Duration::from_secs(5);

impl Conductor {
    /// Cancels an order, and waits for it so long. The saga as it is then.
    pub(super) async fn cancel(
        &self,
        order: Uuid,
        reason: &str,
        actor: &str,
        within: Duration,
    ) -> Result<Saga, Refusal> {
        let reason = if reason.is_empty() {
            "cancelled"
        } else {
            reason
        };
        let mut write = self.database.write().await?;
        let running = sagas::wish_cancel(&mut write, order, reason).await?;
        write.commit().await?;
        if running {
            // Left by somebody who died: nobody would hear the wish before the next scan.
            self.pick_up(order, &mut None).await?;
            self.wait(order, within).await;
        }
        let unknown = || Refusal::not_found("order", "order_id", &order.to_string());
        let kept = sagas::of_order(&self.database, order).await?;
        let kept = kept.ok_or_else(unknown)?;
        if kept.saga.state != State::Completed {
            return Ok(kept.saga);
        }
        self.turn_back(order, Status::Cancelled, reason, actor)
            .await?;
        self.wait(order, within).await;
        let kept = sagas::of_order(&self.database, order).await?;
        Ok(kept.ok_or_else(unknown)?.saga)
    }

    /// Turns the saga of an order that is through: what was paid goes back, and what was sold returns to stock.
    async fn turn_back(
        &self,
        order: Uuid,
        next: Status,
        reason: &str,
        actor: &str,
    ) -> Result<(), Refusal> {
        let (mut write, kept, lease) = self.take_soon(order).await?;
        let (mut saga, now) = (kept.saga, time::now());
        let with = With {
            note: reason,
            actor,
            reason: (next == Status::Cancelled).then_some(reason),
            ..With::default()
        };
        if !store::change(&mut write, order, next, with, now).await? {
            return Ok(());
        }
        let mut why = cancelled();
        if next == Status::Returned {
            why.reason = "ORDER_RETURNED".into();
        }
        saga.turn(why, now);
        if self.keep(&mut write, &saga, lease).await? == Change::Lost {
            return Err(idempotency::in_progress());
        }
        write.commit().await?;
        self.drive(saga, lease);
        Ok(())
    }

    /// Takes a saga, within a change that goes on with it. Whoever drove it to its end, or looks at it once more, lets it
    /// go a moment later, which is waited for.
    pub(super) async fn take_soon(
        &self,
        order: Uuid,
    ) -> Result<(Transaction, Kept, Uuid), Refusal> {
        let asking = async {
            let mut pause = Duration::from_millis(5);
            loop {
                let mut write = self.database.write().await?;
                if let Some((kept, lease)) = self.take(&mut write, order, time::now()).await? {
                    return Ok((write, kept, lease));
                }
                drop(write);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(250));
            }
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(taken) => taken,
            Err(_) => Err(idempotency::in_progress()),
        }
    }

    /// What administrators and carriers say about an order.
    pub(super) async fn update(
        &self,
        order: Uuid,
        asked: &contract::UpdateOrderStatusRequest,
        actor: &str,
    ) -> Result<(), Refusal> {
        let next = Status::from_contract(asked.status);
        let mut write = self.database.write().await?;
        let unknown = || Refusal::not_found("order", "order_id", &order.to_string());
        let (before, version) = store::standing(&mut write, order)
            .await?
            .ok_or_else(unknown)?;
        if asked
            .version
            .is_some_and(|known| i64::from(known) != version)
        {
            return Err(store::conflict());
        }
        let now = time::now();
        let with = With {
            note: &asked.note,
            actor,
            tracking: (!asked.tracking_number.is_empty()).then_some(&asked.tracking_number),
            ..With::default()
        };
        match next {
            Some(Status::Cancelled) => {
                drop(write);
                let within = Duration::from_secs(5);
                return self
                    .cancel(order, &asked.note, actor, within)
                    .await
                    .map(drop);
            }
            Some(Status::Returned) => {
                drop(write);
                return self
                    .turn_back(order, Status::Returned, &asked.note, actor)
                    .await;
            }
            Some(Status::Shipped) => {
                // Between PAID and CONFIRMED the saga may still turn back.
                if before == Status::Paid || !before.may_become(Status::Shipped) {
                    return Err(before.refuse(Status::Shipped.word()));
                }
                // First, so that two who ship at once come one after the other.
                store::touch(&mut write, order, version, now).await?;
                for part in &asked.shipped {
                    let quantity = i64::from(part.quantity.max(0));
                    if !store::ship(&mut write, order, &part.product_id, quantity).await? {
                        return Err(Refusal::fields(vec![(
                            "shipped".into(),
                            "names a product that is not part of the order, or more than is left of it".into(),
                        )]));
                    }
                }
                if asked.shipped.is_empty() {
                    store::ship_all(&mut write, order).await?;
                }
                if store::unshipped(&mut write, order).await? > 0 {
                    let note = format!("a part was shipped; {}", asked.note);
                    store::entry(&mut write, order, before, &note, now, actor).await?;
                } else {
                    store::change(&mut write, order, Status::Shipped, with, now).await?;
                }
            }
            Some(Status::Delivered) => {
                store::change(&mut write, order, Status::Delivered, with, now).await?;
            }
            // Everything before is the saga's alone.
            Some(next) => return Err(before.refuse(next.word())),
            None => {
                return Err(Refusal::fields(vec![(
                    "status".into(),
                    "must be SHIPPED, DELIVERED, CANCELLED or RETURNED".into(),
                )]));
            }
        }
        write.commit().await?;
        Ok(())
    }
}

/// Whether what was paid goes back.
pub(super) fn refunds(saga: &Saga) -> bool {
    let mut undo = saga.compensation.undo.iter();
    undo.any(|undo| undo.step == Step::ProcessPayment && undo.status != UndoStatus::Failed)
        && !saga.data.payment_id.is_empty()
}
