//! `payments.v1` over gRPC: fields are checked, callers told apart, and the desk does the rest.

use tonic::{Request, Response, Status, async_trait};
use uuid::Uuid;

use super::{
    desk::{self, Desk},
    domain::{METHODS, Payment, Status as State},
    messages::{hash, message},
    processor::Card,
    refunds, store,
    store::By,
};
use crate::{
    contracts::payments::{self as contract, payments_service_server::PaymentsService},
    kit::{
        caller::Trust, channel::idempotency_key, money::Money, refusal::Refusal, rules::Fields,
        time,
    },
};

/// The contract's implementation.
#[derive(Debug)]
pub(super) struct Payments {
    pub(super) desk: Desk,
    pub(super) trust: Trust,
}

/// An amount above nothing.
fn amount(fields: &mut Fields, text: &str) -> Money {
    let amount = fields
        .take("amount", Money::parse(text))
        .unwrap_or_default();
    if Money::parse(text) == Ok(Money::ZERO) {
        fields.wrong("amount", "must be more than 0");
    }
    amount
}

fn key(fields: &mut Fields, own: &str, metadata: &tonic::metadata::MetadataMap) -> String {
    let key = idempotency_key(own, metadata).unwrap_or_default();
    fields.text("idempotency_key", &key, 1, 200)
}

/// Which payment is meant.
fn which(fields: &mut Fields, payment: &str, order: &str) -> By {
    match (payment, order) {
        ("", order) if !order.is_empty() => By::Order(fields.id("order_id", order)),
        (payment, "") => By::Id(fields.id("payment_id", payment)),
        _ => {
            fields.wrong("payment_id", "must not come together with order_id");
            By::Id(Uuid::nil())
        }
    }
}

fn new(order_id: Uuid, user_id: String, amount: Money, currency: &str, key: String) -> Payment {
    let now = time::now();
    Payment {
        id: Uuid::now_v7(),
        order_id,
        user_id,
        amount,
        currency: currency.into(),
        method: String::new(),
        token: String::new(),
        status: State::Pending,
        key,
        external: None,
        failure: None,
        refunded: Money::ZERO,
        needs_attention: false,
        processed_at: None,
        created_at: now,
        updated_at: now,
    }
}

impl Payments {
    /// A payment that this caller may see. Others do not learn whether there is one (SHOP-408).
    async fn visible<T>(&self, request: &Request<T>, by: By) -> Result<Payment, Refusal> {
        let caller = self.trust.caller(request.metadata());
        let found = store::find(&self.desk.database, by).await?;
        let mine = |payment: &Payment| caller.is_or_may_act_for(&payment.user_id);
        found.filter(mine).ok_or_else(|| match by {
            By::Id(id) => Refusal::not_found("payment", "payment_id", &id.to_string()),
            By::Order(id) => Refusal::not_found("payment", "order_id", &id.to_string()),
        })
    }
}

#[async_trait]
impl PaymentsService for Payments {
    async fn process_payment(
        &self,
        request: Request<contract::ProcessPaymentRequest>,
    ) -> Result<Response<contract::Payment>, Status> {
        self.trust.caller(request.metadata()).need_service()?;
        let (mut fields, asked) = (Fields::default(), request.get_ref());
        let order = fields.id("order_id", &asked.order_id);
        let user = fields.text("user_id", &asked.user_id, 1, 100);
        let sum = amount(&mut fields, &asked.amount);
        fields.three_letters("currency", &asked.currency);
        let method = fields.text("method", &asked.method, 0, 100);
        let token = fields.text("token", &asked.token, 0, 200);
        let key = key(&mut fields, &asked.idempotency_key, request.metadata());
        fields.check()?;
        let mut payment = new(order, user, sum, &asked.currency, key);
        payment.method = method;
        payment.token = token;
        let hash = hash(&payment);
        let charged = self.desk.charge(desk::Asked { payment, hash }).await?;
        Ok(Response::new(charged))
    }

    async fn get_payment(
        &self,
        request: Request<contract::GetPaymentRequest>,
    ) -> Result<Response<contract::Payment>, Status> {
        let mut fields = Fields::default();
        let asked = request.get_ref();
        let by = which(&mut fields, &asked.payment_id, &asked.order_id);
        fields.check()?;
        let payment = self.visible(&request, by).await?;
        Ok(Response::new(message(&payment)))
    }

    async fn refund_payment(
        &self,
        request: Request<contract::RefundPaymentRequest>,
    ) -> Result<Response<contract::Refund>, Status> {
        self.trust.caller(request.metadata()).need_admin()?;
        let (mut fields, asked) = (Fields::default(), request.get_ref());
        let of = which(&mut fields, &asked.payment_id, &asked.order_id);
        let amount = (!asked.amount.is_empty()).then(|| amount(&mut fields, &asked.amount));
        let reason = fields.text("reason", &asked.reason, 0, 500);
        let key = key(&mut fields, &asked.idempotency_key, request.metadata());
        fields.check()?;
        let asked = refunds::Asked {
            of,
            amount,
            reason,
            key,
        };
        Ok(Response::new(self.desk.refund(asked).await?))
    }

    async fn validate_payment_method(
        &self,
        request: Request<contract::ValidatePaymentMethodRequest>,
    ) -> Result<Response<contract::ValidatePaymentMethodResponse>, Status> {
        let caller = self.trust.caller(request.metadata());
        let asked = request.into_inner();
        let user = match caller.user_id() {
            Some(user) if asked.user_id.is_empty() => user.to_string(),
            _ => asked.user_id.clone(),
        };
        caller.need_self(&user)?;
        let invalid = |reason: &str| {
            Ok(Response::new(contract::ValidatePaymentMethodResponse {
                reason: reason.into(),
                ..contract::ValidatePaymentMethodResponse::default()
            }))
        };
        if !METHODS.contains(&asked.method.as_str()) {
            return invalid("METHOD_UNKNOWN");
        }
        if !asked.token.is_empty() {
            let found = store::method(&self.desk.database, &asked.token).await;
            return match found.map_err(Refusal::from)? {
                Some((owner, kind, last_four)) if owner == user && kind == asked.method => {
                    let token = asked.token;
                    Ok(Response::new(contract::ValidatePaymentMethodResponse {
                        is_valid: true,
                        token,
                        last_four,
                        ..contract::ValidatePaymentMethodResponse::default()
                    }))
                }
                _ => invalid("TOKEN_UNKNOWN"),
            };
        }
        if asked.method != "card" {
            return Ok(Response::new(contract::ValidatePaymentMethodResponse {
                is_valid: true,
                ..contract::ValidatePaymentMethodResponse::default()
            }));
        }
        let Some(card) = asked.card else {
            return invalid("CARD_MISSING");
        };
        let number: String = card.number.chars().filter(|digit| *digit != ' ').collect();
        if !luhn(&number) {
            return invalid("CARD_NUMBER_INVALID");
        }
        let good_code = (3..=4).contains(&card.cvc.len())
            && card.cvc.bytes().all(|digit| digit.is_ascii_digit());
        if !good_code {
            return invalid("CARD_CODE_INVALID");
        }
        if !(1..=12).contains(&card.expiry_month) || !(2000..=2999).contains(&card.expiry_year) {
            return invalid("CARD_EXPIRY_INVALID");
        }
        // `YYYY-MM`, which sorts as time does. A card is good to the end of its month.
        let expiry = format!("{:04}-{:02}", card.expiry_year, card.expiry_month);
        if expiry.as_str() < time::text(time::now()).get(..7).unwrap_or_default() {
            return invalid("CARD_EXPIRED");
        }
        let last_four = number[number.len() - 4..].to_string();
        let handed = Card {
            number: &number,
            month: card.expiry_month,
            year: card.expiry_year,
        };
        let token = self.desk.processor.tokenize(handed);
        let Ok(token) = self.desk.wait(token).await else {
            return Err(desk::away().into());
        };
        if asked.save {
            let database = &self.desk.database;
            let mut write = database.write().await.map_err(Refusal::from)?;
            store::keep_method(&mut write, &token, &user, "card", &last_four, time::now())
                .await
                .map_err(Refusal::from)?;
            write.commit().await.map_err(Refusal::from)?;
        }
        Ok(Response::new(contract::ValidatePaymentMethodResponse {
            is_valid: true,
            reason: String::new(),
            token,
            last_four,
        }))
    }

    async fn create_payment_intent(
        &self,
        request: Request<contract::CreatePaymentIntentRequest>,
    ) -> Result<Response<contract::PaymentIntent>, Status> {
        self.trust.caller(request.metadata()).need_service()?;
        let (mut fields, asked) = (Fields::default(), request.get_ref());
        let order = fields.id("order_id", &asked.order_id);
        let user = fields.text("user_id", &asked.user_id, 0, 100);
        let sum = amount(&mut fields, &asked.amount);
        fields.three_letters("currency", &asked.currency);
        let key = key(&mut fields, &asked.idempotency_key, request.metadata());
        fields.check()?;
        let intent = new(order, user, sum, &asked.currency, format!("intent:{key}"));
        Ok(Response::new(self.desk.intend(intent).await?))
    }

    async fn confirm_payment(
        &self,
        request: Request<contract::ConfirmPaymentRequest>,
    ) -> Result<Response<contract::Payment>, Status> {
        self.trust.caller(request.metadata()).need_service()?;
        let (mut fields, asked) = (Fields::default(), request.get_ref());
        let id = fields.id("payment_intent_id", &asked.payment_intent_id);
        let secret = fields.text("client_secret", &asked.client_secret, 1, 100);
        let method = fields.text("method", &asked.method, 1, 100);
        let token = fields.text("token", &asked.token, 0, 200);
        fields.check()?;
        Ok(Response::new(
            self.desk.confirm(id, &secret, method, token).await?,
        ))
    }
}

/// Twelve to nineteen digits, of which the last checks the others.
fn luhn(number: &str) -> bool {
    let digits = number.bytes().rev().enumerate();
    (12..=19).contains(&number.len())
        && number.bytes().all(|digit| digit.is_ascii_digit())
        && digits
            .map(|(at, digit)| match (at % 2, u32::from(digit - b'0')) {
                (0, digit) => digit,
                (_, digit) if digit < 5 => digit * 2,
                (_, digit) => digit * 2 - 9,
            })
            .sum::<u32>()
            .is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_check_themselves() {
        assert!(luhn("4242424242424242") && luhn("4000000000000002"));
        for bad in [
            "4242424242424241",
            "",
            "0",
            "42424242٤٢",
            "0000000000000000000000",
        ] {
            assert!(!luhn(bad), "{bad}");
        }
    }
}
