//! Gives back what was taken, or sees to it that nothing will be taken (SHOP-456, SHOP-507).
//!
//! A refund for an order of which no payment is known closes the order: a charge that arrives later is refused. So
//! compensation may come in any order, and twice.

use prost::Message;
use serde_json::json;
use tonic::Code;
use uuid::Uuid;

use super::{
    desk::{Desk, joined},
    domain::{Event, Payment, Status},
    processor::{FoundState, Trouble},
    store::{self, By},
};
use crate::{
    contracts::payments as contract,
    kit::{
        crash,
        idempotency::{self, Claim},
        log,
        money::Money,
        observe,
        refusal::Refusal,
        time,
    },
};

/// What is asked for, with fields that are in order.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Of which payment.
    pub of: By,
    /// Nothing: all that is left.
    pub amount: Option<Money>,
    /// For the record.
    pub reason: String,
    /// Ours and the processor's name for it.
    pub key: String,
}

impl Asked {
    fn hash(&self) -> String {
        let of = match self.of {
            By::Id(id) => json!({ "payment_id": id.to_string() }),
            By::Order(id) => json!({ "order_id": id.to_string() }),
        };
        let amount = self.amount.map(|amount| amount.to_string());
        idempotency::hash(&json!({ "operation": "refund", "of": of, "amount": amount }))
    }
}

impl Desk {
    /// Gives back. The work goes on when the caller is gone.
    pub async fn refund(&self, asked: Asked) -> Result<contract::Refund, Refusal> {
        let desk = self.clone();
        let work = observe::within(observe::current(), async move {
            if let Some(answer) = desk.close(&asked).await? {
                return Ok(answer);
            }
            let (payment, lease) = desk.take(asked.of).await?;
            let id = payment.id;
            let ended = desk.give_back(payment, lease, &asked).await;
            store::release(&desk.database, id, lease).await?;
            ended
        });
        joined(tokio::spawn(work).await)
    }

    /// Closes an order that has no payment. Nothing, when it has one.
    async fn close(&self, asked: &Asked) -> Result<Option<contract::Refund>, Refusal> {
        if store::find(&self.database, asked.of).await?.is_some() {
            return Ok(None);
        }
        let By::Order(order) = asked.of else {
            let By::Id(id) = asked.of else {
                return Ok(None);
            };
            return Err(Refusal::not_found("payment", "payment_id", &id.to_string()));
        };
        let mut write = self.database.write().await?;
        // In the transaction that closes, or a charge could slip in between.
        store::close_order(&mut write, order, time::now()).await?;
        if store::find_in(&mut write, asked.of).await?.is_some() {
            return Ok(None);
        }
        write.commit().await?;
        Ok(Some(contract::Refund {
            amount: Money::ZERO.to_string(),
            payment_status: Status::Failed.contract() as i32,
            ..contract::Refund::default()
        }))
    }

    async fn give_back(
        &self,
        mut payment: Payment,
        lease: Uuid,
        asked: &Asked,
    ) -> Result<contract::Refund, Refusal> {
        let now = time::now();
        let mut write = self.database.write().await?;
        match idempotency::claim(&mut write, &asked.key, &asked.hash(), now).await? {
            Claim::Done(answer) => {
                return contract::Refund::decode(answer.as_slice())
                    .map_err(|_| Refusal::internal());
            }
            Claim::Refused(refusal) => return Err(refusal),
            // What was left half done is a state of the payment, and brought to its end below.
            Claim::InProgress | Claim::Ours => write.commit().await?,
        }
        if matches!(
            payment.status,
            Status::Pending | Status::Authorized | Status::Processing
        ) {
            payment = self.give_up(payment, lease).await?;
        }
        if payment.status == Status::Refunding {
            payment = self.finish_refund(payment, lease).await?;
            // It may have been this one, which an earlier call had begun.
            let mut write = self.database.write().await?;
            if let Claim::Done(answer) =
                idempotency::claim(&mut write, &asked.key, &asked.hash(), now).await?
            {
                return contract::Refund::decode(answer.as_slice())
                    .map_err(|_| Refusal::internal());
            }
            write.commit().await?;
        }
        let amount = asked.amount.unwrap_or_else(|| payment.left());
        if amount == Money::ZERO || (payment.status == Status::Failed && asked.amount.is_none()) {
            return self.nothing_to_do(&payment, asked).await;
        }
        if payment.status != Status::Completed || amount > payment.left() {
            let refusal = Refusal::new(
                Code::FailedPrecondition,
                "REFUND_EXCEEDS_PAYMENT",
                "more than what is left of the payment cannot be given back",
            )
            .with(
                "left",
                if payment.status == Status::Completed {
                    payment.left()
                } else {
                    Money::ZERO
                },
            )
            .with("status", payment.status.word());
            let mut write = self.database.write().await?;
            idempotency::refuse(&mut write, &asked.key, &refusal, now).await?;
            write.commit().await?;
            return Err(refusal);
        }
        let mut refund = store::Refund {
            id: Uuid::now_v7(),
            key: asked.key.clone(),
            amount,
            status: "pending".into(),
            created_at: now,
            updated_at: now,
        };
        payment.status = Status::Refunding;
        payment.updated_at = now;
        payment.needs_attention = false;
        let mut write = self.database.write().await?;
        refund.id = store::begin_refund(&mut write, &payment, &refund, &asked.reason).await?;
        let started = Event::RefundStarted;
        store::change(&mut write, &payment, started, lease, &asked.reason).await?;
        write.commit().await?;
        let ended = self.give(payment, refund.clone(), lease, true).await?;
        if ended.needs_attention {
            return Err(refused());
        }
        Ok(message(&ended, &refund))
    }

    /// Sees to it that nothing is taken; or finds out that it was.
    async fn give_up(&self, mut payment: Payment, lease: Uuid) -> Result<Payment, Refusal> {
        let found = self.ask(self.processor.find(&payment.key)).await?;
        match found.map(|found| (found.state, found.id)) {
            Some((FoundState::Captured, id)) => {
                payment.external = Some(id);
                // Through the states in between, so that the log tells all of it.
                if payment.status == Status::Pending {
                    self.keep(&mut payment, Event::Authorized, lease, "found")
                        .await?;
                }
                if payment.status == Status::Authorized {
                    self.keep(&mut payment, Event::CaptureStarted, lease, "found")
                        .await?;
                }
                self.keep(&mut payment, Event::Captured, lease, "found")
                    .await?;
            }
            Some((FoundState::Authorized, id)) => {
                crash::at(&["voiding"]);
                match self.wait(self.processor.void(&id)).await {
                    // Refused means that it is settled at the processor; what came of it is asked next time.
                    Ok(()) => {
                        self.keep(&mut payment, Event::Voided, lease, "VOIDED")
                            .await?
                    }
                    Err(_) => return Err(super::desk::away()),
                }
            }
            Some((FoundState::Voided | FoundState::Declined(_), _)) | None => {
                self.keep(&mut payment, Event::Voided, lease, "VOIDED")
                    .await?;
            }
        }
        Ok(payment)
    }

    /// Ends the refund that was begun.
    pub(super) async fn finish_refund(
        &self,
        payment: Payment,
        lease: Uuid,
    ) -> Result<Payment, Refusal> {
        match store::open_refund(&self.database, payment.id).await? {
            Some(refund) => self.give(payment, refund, lease, false).await,
            // It began in the transaction that wrote the state.
            None => Err(Refusal::internal()),
        }
    }

    async fn give(
        &self,
        mut payment: Payment,
        refund: store::Refund,
        lease: Uuid,
        fresh: bool,
    ) -> Result<Payment, Refusal> {
        let made = !fresh && self.ask(self.processor.find_refund(&refund.key)).await?;
        if !made {
            crash::at(&["refunding"]);
            let id = payment.external.clone().unwrap_or_default();
            let given = self.processor.refund(&id, &refund.key, refund.amount);
            match self.wait(given).await {
                Ok(()) => {}
                Err(Trouble::Away) => return Err(super::desk::away()),
                Err(Trouble::Declined(reason)) => {
                    return self.refund_failed(payment, &refund, lease, &reason).await;
                }
            }
            crash::at(&["refunded"]);
        }
        let now = time::now();
        payment.refunded = payment
            .refunded
            .plus(refund.amount)
            .ok_or_else(Refusal::internal)?;
        let event = if payment.left() == Money::ZERO {
            Event::Refunded
        } else {
            Event::RefundedInPart
        };
        payment.status = payment.status.after(event).ok_or_else(Refusal::internal)?;
        payment.updated_at = now;
        let mut write = self.database.write().await?;
        let amount = refund.amount.to_string();
        store::change(&mut write, &payment, event, lease, &amount).await?;
        store::end_refund(&mut write, refund.id, "completed", now).await?;
        let answer = message(&payment, &refund).encode_to_vec();
        idempotency::complete(&mut write, &refund.key, &answer, now).await?;
        write.commit().await?;
        Ok(payment)
    }

    async fn refund_failed(
        &self,
        mut payment: Payment,
        refund: &store::Refund,
        lease: Uuid,
        reason: &str,
    ) -> Result<Payment, Refusal> {
        let now = time::now();
        payment.status = Status::Completed;
        payment.updated_at = now;
        payment.failure = Some(reason.to_string());
        payment.needs_attention = true;
        let mut write = self.database.write().await?;
        store::change(&mut write, &payment, Event::RefundFailed, lease, reason).await?;
        store::end_refund(&mut write, refund.id, "failed", now).await?;
        // Somebody looks at it and tries again, with the same key.
        idempotency::give_back(&mut write, &refund.key).await?;
        write.commit().await?;
        log::error(
            "a refund was refused; somebody has to look at it",
            &[("payment_id", &payment.id), ("error", &reason)],
        );
        Ok(payment)
    }

    async fn nothing_to_do(
        &self,
        payment: &Payment,
        asked: &Asked,
    ) -> Result<contract::Refund, Refusal> {
        let now = time::now();
        let answer = contract::Refund {
            payment_id: payment.id.to_string(),
            amount: Money::ZERO.to_string(),
            currency: payment.currency.clone(),
            payment_status: payment.status.contract() as i32,
            created_at: Some(time::timestamp(now)),
            updated_at: Some(time::timestamp(now)),
            ..contract::Refund::default()
        };
        let mut write = self.database.write().await?;
        idempotency::complete(&mut write, &asked.key, &answer.encode_to_vec(), now).await?;
        write.commit().await?;
        Ok(answer)
    }
}

fn refused() -> Refusal {
    Refusal::new(
        Code::FailedPrecondition,
        "REFUND_REFUSED",
        "the payment processor refuses to give back; somebody has to look at it",
    )
}

fn message(payment: &Payment, refund: &store::Refund) -> contract::Refund {
    contract::Refund {
        refund_id: refund.id.to_string(),
        payment_id: payment.id.to_string(),
        amount: refund.amount.to_string(),
        currency: payment.currency.clone(),
        payment_status: payment.status.contract() as i32,
        created_at: Some(time::timestamp(refund.created_at)),
        updated_at: Some(time::timestamp(payment.updated_at)),
    }
}
