//! Brings a payment from state to state: a charge forward, up to its end (SHOP-453 to SHOP-456).
//!
//! One at a time works on a payment: whoever has its lease. What is about to be done is written down before, what came
//! of it after. A call that was written down and has no outcome is never repeated before the processor was asked.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tonic::Code;
use uuid::Uuid;

use super::{
    domain::{Event, Payment, Status},
    messages::message,
    processor::{Charge, FoundState, Processor, Trouble},
    store::{self, By},
};
use crate::{
    contracts::payments as contract,
    kit::{
        crash,
        database::Database,
        idempotency::{self, Claim},
        log, observe,
        refusal::Refusal,
        time,
    },
};

/// How long another one's work on the same payment is waited for (SHOP-603).
const PATIENCE: Duration = Duration::from_secs(5);

/// Where payments are made. Clones are the same desk.
#[derive(Clone, Debug)]
pub struct Desk {
    pub(super) database: Database,
    pub(super) processor: Arc<dyn Processor>,
    /// How long the processor may take for one answer.
    pub(super) patience: Duration,
}

/// A charge that is asked for, with fields that are in order.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What is to be made, `Pending`, with an id of its own.
    pub payment: Payment,
    /// Of everything that makes it this request and no other.
    pub hash: String,
}

impl Desk {
    /// With the processor, which may take so long for one answer.
    pub fn new(database: Database, processor: Arc<dyn Processor>, patience: Duration) -> Self {
        Self {
            database,
            processor,
            patience,
        }
    }

    /// Longer than anything that is done between two looks at the lease: two answers of the processor.
    pub(super) fn lease_span(&self) -> Duration {
        self.patience * 3 + Duration::from_secs(5)
    }

    /// Charges an order, once. The work goes on when the caller is gone.
    pub async fn charge(&self, asked: Asked) -> Result<contract::Payment, Refusal> {
        let (desk, trace) = (self.clone(), observe::current());
        let work = observe::within(trace, async move { desk.charge_now(asked).await });
        joined(tokio::spawn(work).await)
    }

    async fn charge_now(&self, asked: Asked) -> Result<contract::Payment, Refusal> {
        let (now, order) = (time::now(), asked.payment.order_id);
        let lease = Uuid::new_v4();
        let mut write = self.database.write().await?;
        match idempotency::claim(&mut write, &asked.payment.key, &asked.hash, now).await? {
            Claim::Done(answer) => {
                return contract::Payment::decode(answer.as_slice())
                    .map_err(|_| Refusal::internal());
            }
            Claim::Refused(refusal) => return Err(refusal),
            Claim::InProgress => drop(write),
            Claim::Ours if store::is_closed(&mut write, order, now).await? => {
                let refusal = failed(None, "ORDER_GIVEN_UP");
                idempotency::refuse(&mut write, &asked.payment.key, &refusal, now).await?;
                write.commit().await?;
                return Err(refusal);
            }
            Claim::Ours => {
                let until = time::after(now, self.lease_span());
                if !store::insert(&mut write, &asked.payment, None, Some((lease, until))).await? {
                    // Nothing of this is kept: the order has a payment, under another key.
                    return Err(Refusal::new(
                        Code::AlreadyExists,
                        "ORDER_HAS_PAYMENT",
                        "this order has a payment already; look it up by its order",
                    )
                    .with("order_id", order));
                }
                write.commit().await?;
                let ended = self.bring_on(asked.payment, lease, true).await;
                return self.answer(ended, lease).await;
            }
        }
        let (payment, lease) = self.take(By::Order(order)).await?;
        let ended = self.bring_on(payment, lease, false).await;
        self.answer(ended, lease).await
    }

    /// Takes a payment to work on it, or waits a little for who has it.
    pub(super) async fn take(&self, by: By) -> Result<(Payment, Uuid), Refusal> {
        let Some(found) = store::find(&self.database, by).await? else {
            // Its claim is there and its row is not: whoever claims inserts in the same transaction, so it was removed.
            return Err(idempotency::in_progress());
        };
        let asking = async {
            let mut pause = Duration::from_millis(5);
            loop {
                match store::lease(&self.database, found.id, self.lease_span()).await {
                    Ok(Some(taken)) => return Ok(taken),
                    Ok(None) => {}
                    Err(error) => return Err(Refusal::from(error)),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(250));
            }
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(taken) => taken,
            Err(_) => Err(idempotency::in_progress()),
        }
    }

    /// What the caller is told, once the lease is let go.
    pub(super) async fn answer(
        &self,
        ended: Result<Payment, (Refusal, Uuid)>,
        lease: Uuid,
    ) -> Result<contract::Payment, Refusal> {
        let id = match &ended {
            Ok(payment) => payment.id,
            Err((_, id)) => *id,
        };
        store::release(&self.database, id, lease).await?;
        match ended {
            Ok(payment) if payment.status == Status::Failed => Err(failed(
                Some(payment.id),
                payment.failure.as_deref().unwrap_or("DECLINED"),
            )),
            Ok(payment) => Ok(message(&payment)),
            Err((refusal, _)) => Err(refusal),
        }
    }

    /// Goes on until the payment is taken or has failed. `fresh`: the processor cannot know it yet.
    pub(super) async fn bring_on(
        &self,
        mut payment: Payment,
        lease: Uuid,
        mut fresh: bool,
    ) -> Result<Payment, (Refusal, Uuid)> {
        let id = payment.id;
        loop {
            let next = match payment.status {
                Status::Pending => self.authorize(&mut payment, fresh).await,
                Status::Authorized => Ok((Event::CaptureStarted, String::new())),
                Status::Processing => self.capture(&payment, fresh).await,
                _ => return Ok(payment),
            };
            // Whether a capture was tried before is only known to the one who has just begun it.
            fresh = payment.status == Status::Authorized;
            let kept = match next {
                Ok((event, detail)) => self.keep(&mut payment, event, lease, &detail).await,
                Err(refusal) => Err(refusal),
            };
            kept.map_err(|refusal| (refusal, id))?;
        }
    }

    async fn authorize(
        &self,
        payment: &mut Payment,
        fresh: bool,
    ) -> Result<(Event, String), Refusal> {
        if !fresh && let Some(found) = self.ask(self.processor.find(&payment.key)).await? {
            payment.external = Some(found.id);
            return Ok(match found.state {
                FoundState::Authorized | FoundState::Captured => {
                    (Event::Authorized, "found".into())
                }
                FoundState::Voided => (Event::Voided, "VOIDED".into()),
                FoundState::Declined(reason) => (Event::Declined, reason),
            });
        }
        crash::at(&["charging"]);
        let charge = Charge {
            key: &payment.key,
            amount: payment.amount,
            currency: &payment.currency,
            method: &payment.method,
            token: &payment.token,
        };
        let held = self.wait(self.processor.authorize(charge)).await;
        crash::at(&["charged"]);
        match held {
            Ok(id) => {
                payment.external = Some(id);
                Ok((Event::Authorized, String::new()))
            }
            Err(Trouble::Declined(reason)) => Ok((Event::Declined, reason)),
            Err(Trouble::Away) => Err(away()),
        }
    }

    async fn capture(&self, payment: &Payment, fresh: bool) -> Result<(Event, String), Refusal> {
        if !fresh && let Some(found) = self.ask(self.processor.find(&payment.key)).await? {
            match found.state {
                FoundState::Captured => return Ok((Event::Captured, "found".into())),
                FoundState::Authorized => {}
                FoundState::Voided => return Ok((Event::Voided, "VOIDED".into())),
                FoundState::Declined(reason) => return Ok((Event::CaptureRejected, reason)),
            }
        }
        crash::at(&["capturing"]);
        let id = payment.external.as_deref().unwrap_or_default();
        let taken = self.wait(self.processor.capture(id)).await;
        crash::at(&["captured"]);
        let reason = match taken {
            Ok(()) => return Ok((Event::Captured, String::new())),
            Err(Trouble::Away) => return Err(away()),
            Err(Trouble::Declined(reason)) => reason,
        };
        // What cannot be taken must not stay held either. Refused means that nothing is.
        crash::at(&["voiding"]);
        match self.wait(self.processor.void(id)).await {
            Ok(()) | Err(Trouble::Declined(_)) => Ok((Event::CaptureRejected, reason)),
            Err(Trouble::Away) => Err(away()),
        }
    }

    /// Writes down what happened.
    pub(super) async fn keep(
        &self,
        payment: &mut Payment,
        event: Event,
        lease: Uuid,
        detail: &str,
    ) -> Result<(), Refusal> {
        let now = time::now();
        advance(payment, event, detail, now)?;
        let mut write = self.database.write().await?;
        store::change(&mut write, payment, event, lease, detail).await?;
        match payment.status {
            Status::Completed if event == Event::Captured => {
                let answer = message(payment).encode_to_vec();
                idempotency::complete(&mut write, &payment.key, &answer, now).await?;
            }
            Status::Failed => {
                let reason = payment.failure.as_deref().unwrap_or("DECLINED");
                let refusal = failed(Some(payment.id), reason);
                idempotency::refuse(&mut write, &payment.key, &refusal, now).await?;
            }
            _ => {}
        }
        write.commit().await?;
        Ok(())
    }

    pub(super) async fn wait<T>(
        &self,
        answer: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        match tokio::time::timeout(self.patience, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Trouble::Away),
        }
    }

    /// A question, which has no effect and so nothing to be refused.
    pub(super) async fn ask<T>(
        &self,
        answer: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Refusal> {
        self.wait(answer).await.map_err(|_| away())
    }

    /// Brings on what was left half done, such as by a process that died. What is only asked for is left to who asked.
    pub async fn tidy(&self, older_than: Duration) {
        let before = time::now() - older_than.as_millis() as i64;
        let left = store::left_behind(&self.database, before).await;
        for id in left.unwrap_or_default() {
            let Ok(Some((payment, lease))) =
                store::lease(&self.database, id, self.lease_span()).await
            else {
                continue;
            };
            let status = payment.status;
            let ended = if status == Status::Refunding {
                self.finish_refund(payment, lease).await
            } else {
                self.bring_on(payment, lease, false)
                    .await
                    .map_err(|(refusal, _)| refusal)
            };
            if let Err(refusal) = ended {
                log::warn(
                    "a payment cannot be brought on yet",
                    &[("payment_id", &id), ("error", &refusal.message())],
                );
            }
            store::release(&self.database, id, lease).await.ok();
        }
    }
}

/// The payment after the event; an event that may not happen now is our own mistake.
fn advance(payment: &mut Payment, event: Event, detail: &str, now: i64) -> Result<(), Refusal> {
    let Some(next) = payment.status.after(event) else {
        log::error(
            "a payment cannot do this",
            &[("payment_id", &payment.id), ("event", &event.word())],
        );
        return Err(Refusal::internal());
    };
    payment.status = next;
    payment.updated_at = now;
    match event {
        Event::Captured => payment.processed_at = Some(now),
        Event::Declined | Event::CaptureRejected | Event::Voided => {
            payment.failure = Some(detail.to_string());
        }
        Event::RefundFailed => {
            payment.failure = Some(detail.to_string());
            payment.needs_attention = true;
        }
        _ => {}
    }
    Ok(())
}

/// A payment that is refused for good (SHOP-455, SHOP-806).
fn failed(id: Option<Uuid>, reason: &str) -> Refusal {
    let refusal = Refusal::new(
        Code::FailedPrecondition,
        "PAYMENT_FAILED",
        "the payment was refused; use another payment method",
    )
    .with("reason", reason);
    match id {
        Some(id) => refusal.with("payment_id", id),
        None => refusal,
    }
}

/// The processor does not answer (SHOP-455): try again.
pub(super) fn away() -> Refusal {
    Refusal::unavailable(
        "the payment processor does not answer",
        Duration::from_secs(1),
    )
}

/// The end of a task that nobody ends but the process.
pub(super) fn joined<T>(
    task: Result<Result<T, Refusal>, tokio::task::JoinError>,
) -> Result<T, Refusal> {
    task.unwrap_or_else(|_| Err(Refusal::internal()))
}
