//! The two-step form: an intent holds the order's place, its confirmation names a method and charges (SHOP-452).

use prost::Message;
use serde_json::json;
use tonic::Code;
use uuid::Uuid;

use super::{
    desk::{Desk, joined},
    domain::Payment,
    store::{self, By},
};
use crate::{
    contracts::payments as contract,
    kit::{
        idempotency::{self, Claim},
        observe,
        refusal::Refusal,
        time,
    },
};

impl Desk {
    /// An intent for an order; the same again is answered with the same secret.
    pub(super) async fn intend(&self, intent: Payment) -> Result<contract::PaymentIntent, Refusal> {
        let hash = idempotency::hash(&json!({
            "operation": "intent",
            "order_id": intent.order_id.to_string(),
            "amount": intent.amount.to_string(),
            "currency": intent.currency,
        }));
        let (now, claimed) = (time::now(), format!("create:{}", intent.key));
        let mut write = self.database.write().await?;
        match idempotency::claim(&mut write, &claimed, &hash, now).await? {
            Claim::Ours => {}
            Claim::Done(answer) => {
                return contract::PaymentIntent::decode(answer.as_slice())
                    .map_err(|_| Refusal::internal());
            }
            Claim::Refused(refusal) => return Err(refusal),
            Claim::InProgress => return Err(idempotency::in_progress()),
        }
        let secret = Uuid::new_v4().simple().to_string();
        let open = !store::is_closed(&mut write, intent.order_id, now).await?;
        if !open || !store::insert(&mut write, &intent, Some(&secret), None).await? {
            return Err(Refusal::new(
                Code::AlreadyExists,
                "ORDER_HAS_PAYMENT",
                "this order has a payment already, or was given up",
            )
            .with("order_id", intent.order_id));
        }
        let answer = contract::PaymentIntent {
            payment_intent_id: intent.id.to_string(),
            client_secret: secret,
            status: intent.status.contract() as i32,
        };
        idempotency::complete(&mut write, &claimed, &answer.encode_to_vec(), now).await?;
        write.commit().await?;
        Ok(answer)
    }

    /// Charges an intent. The first method stays; the work goes on when the caller is gone.
    pub(super) async fn confirm(
        &self,
        id: Uuid,
        secret: &str,
        method: String,
        token: String,
    ) -> Result<contract::Payment, Refusal> {
        let known = store::secret(&self.database, id).await?;
        let same = known.is_some_and(|known| {
            aws_lc_rs::constant_time::verify_slices_are_equal(known.as_bytes(), secret.as_bytes())
                .is_ok()
        });
        if !same {
            return Err(Refusal::not_found(
                "payment",
                "payment_intent_id",
                &id.to_string(),
            ));
        }
        let desk = self.clone();
        let work = observe::within(observe::current(), async move {
            let (mut payment, lease) = desk.take(By::Id(id)).await?;
            if payment.method.is_empty() {
                (payment.method, payment.token) = (method, token);
                let mut write = desk.database.write().await?;
                store::choose_method(&mut write, &payment).await?;
                write.commit().await?;
            }
            let ended = desk.bring_on(payment, lease, false).await;
            desk.answer(ended, lease).await
        });
        joined(tokio::spawn(work).await)
    }
}
