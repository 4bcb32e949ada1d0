//! Payments as the contract has them, and what makes one request another than the next.

use serde_json::json;

use super::domain::Payment;
use crate::{
    contracts::payments as contract,
    kit::{idempotency, time},
};

/// As the contract has it.
pub(super) fn message(payment: &Payment) -> contract::Payment {
    contract::Payment {
        payment_id: payment.id.to_string(),
        order_id: payment.order_id.to_string(),
        user_id: payment.user_id.clone(),
        amount: payment.amount.to_string(),
        currency: payment.currency.clone(),
        method: payment.method.clone(),
        status: payment.status.contract() as i32,
        external_transaction_id: payment.external.clone().unwrap_or_default(),
        processed_at: payment.processed_at.map(time::timestamp),
        failure_reason: payment.failure.clone().unwrap_or_default(),
        refund_amount: payment.refunded.to_string(),
        created_at: Some(time::timestamp(payment.created_at)),
        updated_at: Some(time::timestamp(payment.updated_at)),
        needs_attention: payment.needs_attention,
    }
}

/// The hash of a charge: another content under the same key is another request (DEC-22).
pub(super) fn hash(payment: &Payment) -> String {
    idempotency::hash(&json!({
        "operation": "charge",
        "order_id": payment.order_id.to_string(),
        "user_id": payment.user_id,
        "amount": payment.amount.to_string(),
        "currency": payment.currency,
        "method": payment.method,
        "token": payment.token,
    }))
}
