//! Pages of payments: receipts, events, and the door at which the processor tells us news (SHOP-457).
//!
//! News are believed when they are signed, and then only as a reason to ask the processor: what they claim is not taken
//! over. The header `x-processor-signature` is `t=SECONDS,v1=HEX`, an HMAC-SHA256 over `SECONDS.BODY`.

use std::time::Duration;

use aws_lc_rs::hmac;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::{
    desk::Desk,
    store::{self, By},
};
use crate::kit::{caller::Trust, listen::refuse, money::Money, refusal::Refusal, time};

/// Older or newer news are a repetition by somebody else.
const TOLERANCE: i64 = 300;

/// What the pages need.
#[derive(Clone)]
pub(super) struct Pages {
    pub(super) desk: Desk,
    pub(super) trust: Trust,
    /// Empty: the door is closed.
    pub(super) secret: String,
}

pub(super) fn router(pages: Pages) -> Router {
    Router::new()
        .route("/webhooks/processor", post(news))
        .route("/payments/{id}/receipt", get(receipt))
        .with_state(pages)
}

/// The signature of a body sent at this second.
pub fn sign(secret: &str, second: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, &signed(second, body));
    let hex: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t={second},v1={hex}")
}

fn signed(second: i64, body: &[u8]) -> Vec<u8> {
    let mut text = format!("{second}.").into_bytes();
    text.extend_from_slice(body);
    text
}

/// Whether the header's signature is the body's, and fresh.
fn is_signed(secret: &str, header: &str, body: &[u8], now: i64) -> bool {
    let part = |name: &str| {
        header
            .split(',')
            .find_map(|part| part.trim().strip_prefix(name))
    };
    let (Some(second), Some(_)) = (
        part("t=").and_then(|text| text.parse::<i64>().ok()),
        part("v1="),
    ) else {
        return false;
    };
    let fresh = (now / 1000).abs_diff(second) <= TOLERANCE.unsigned_abs();
    let expected = sign(secret, second, body);
    let given = format!("t={second},v1={}", part("v1=").unwrap_or_default());
    fresh
        && !secret.is_empty()
        && aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), given.as_bytes())
            .is_ok()
}

async fn news(State(pages): State<Pages>, headers: HeaderMap, body: Bytes) -> Response {
    let header = headers
        .get("x-processor-signature")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !is_signed(&pages.secret, header, &body, time::now()) {
        return refuse(&Refusal::unauthenticated());
    }
    // What it is about does not matter: whatever is half done is asked for.
    pages.desk.tidy(Duration::ZERO).await;
    StatusCode::NO_CONTENT.into_response()
}

async fn receipt(
    State(pages): State<Pages>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let unknown = || Refusal::not_found("payment", "payment_id", &id);
    let caller = pages.trust.of(&headers);
    let found = async {
        let name = Uuid::try_parse(&id).map_err(|_| unknown())?;
        let payment = store::find(&pages.desk.database, By::Id(name))
            .await?
            .filter(|payment| caller.is_or_may_act_for(&payment.user_id))
            .ok_or_else(unknown)?;
        let (amount, currency, at) = store::receipt(&pages.desk.database, name)
            .await?
            .ok_or_else(unknown)?;
        Ok::<_, Refusal>(json!({
            "payment_id": id.clone(),
            "order_id": payment.order_id.to_string(),
            "amount": Money::from_minor(amount).to_string(),
            "currency": currency,
            "at": time::text(at),
            "refund_amount": payment.refunded.to_string(),
        }))
    };
    match found.await {
        Ok(receipt) => Json(receipt).into_response(),
        Err(refusal) => refuse(&refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHOP-457.
    #[test]
    fn only_fresh_and_untouched_news_are_believed() {
        let (now, body) = (1_795_287_600_000, b"{}".as_slice());
        let good = sign("secret", now / 1000, body);
        assert!(is_signed("secret", &good, body, now));
        assert!(!is_signed("secret", &good, b"{ }", now));
        assert!(!is_signed("other", &good, body, now));
        assert!(!is_signed("secret", &good, body, now + 301_000));
        assert!(!is_signed("", &sign("", now / 1000, body), body, now));
        for bad in ["", "t=,v1=", "v1=00", "t=1795287600", "t=1795287600,v1="] {
            assert!(!is_signed("secret", bad, body, now), "{bad}");
        }
    }
}
