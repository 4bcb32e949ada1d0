//! Payments by themselves: refunds, repetitions, tokens, news (SHOP-452, SHOP-456, SHOP-457).

use tollgate_example_services::{
    contracts::payments::{
        Card, ConfirmPaymentRequest, CreatePaymentIntentRequest, GetPaymentRequest, PaymentStatus,
        ProcessPaymentRequest, RefundPaymentRequest, ValidatePaymentMethodRequest,
    },
    kit::time,
    payments::http::sign,
};
use tonic::Code;
use uuid::Uuid;

use crate::{
    clients::by,
    support::{service::curl, shop::Shop},
};

fn charge(order: &str, key: &str, amount: &str) -> ProcessPaymentRequest {
    ProcessPaymentRequest {
        order_id: order.into(),
        user_id: "u".into(),
        amount: amount.into(),
        currency: "USD".into(),
        method: "card".into(),
        token: String::new(),
        idempotency_key: key.into(),
    }
}

fn refund(order: &str, key: &str, amount: &str) -> RefundPaymentRequest {
    RefundPaymentRequest {
        order_id: order.into(),
        amount: amount.into(),
        idempotency_key: key.into(),
        ..RefundPaymentRequest::default()
    }
}

/// SHOP-456.
#[tokio::test(flavor = "multi_thread")]
async fn one_charge_for_an_order_and_never_more_back_than_was_paid() {
    let shop = Shop::start(&[]);
    let mut payments = shop.payments();
    let order = Uuid::new_v4().to_string();
    let many = (0..8).map(|_| {
        let (mut payments, request) = (shop.payments(), charge(&order, "k", "10.00"));
        tokio::spawn(async move {
            loop {
                match payments.process_payment(request.clone()).await {
                    // Another one of the eight is at it, for longer than is waited for.
                    Err(told) if told.code() == Code::Aborted => {}
                    told => return told.unwrap().into_inner(),
                }
            }
        })
    });
    let mut ids = Vec::new();
    for one in many.collect::<Vec<_>>() {
        ids.push(one.await.unwrap().payment_id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let other = payments
        .process_payment(charge(&order, "k", "11.00"))
        .await
        .unwrap_err();
    assert_eq!(
        other.code(),
        Code::AlreadyExists,
        "the key with another content"
    );
    let second = payments
        .process_payment(charge(&order, "k2", "10.00"))
        .await
        .unwrap_err();
    assert_eq!(
        second.code(),
        Code::AlreadyExists,
        "the order with another key"
    );

    let part = payments
        .refund_payment(refund(&order, "r1", "4.00"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(part.payment_status(), PaymentStatus::Completed);
    let again = payments
        .refund_payment(refund(&order, "r1", "4.00"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.refund_id, part.refund_id);
    let much = payments
        .refund_payment(refund(&order, "r2", "6.01"))
        .await
        .unwrap_err();
    assert_eq!(much.code(), Code::FailedPrecondition);
    let rest = payments
        .refund_payment(refund(&order, "r3", ""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (rest.amount.as_str(), rest.payment_status()),
        ("6.00", PaymentStatus::Refunded)
    );
    let none = payments
        .refund_payment(refund(&order, "r4", ""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(none.amount, "0.00");

    let ledger = shop.database("payments-processor").await;
    let sql = "SELECT kind, COUNT(*), CAST(SUM(amount) AS BIGINT) FROM movements GROUP BY kind ORDER BY kind";
    let rows = ledger.fetch(sql, &[]).await.unwrap();
    let numbers: Vec<_> = rows
        .iter()
        .map(|row| (row.int(1).unwrap(), row.int(2).unwrap()))
        .collect();
    assert_eq!(numbers, [(1, 1000), (2, 1000)]);
}

/// SHOP-507: compensation that comes first keeps the charge from ever being made.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_before_the_charge_closes_the_order() {
    let shop = Shop::start(&[]);
    let order = Uuid::new_v4().to_string();
    let early = shop
        .payments()
        .refund_payment(refund(&order, "r", ""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(early.amount, "0.00");
    let late = shop
        .payments()
        .process_payment(charge(&order, "k", "10.00"))
        .await
        .unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    let asked = GetPaymentRequest {
        order_id: order,
        ..GetPaymentRequest::default()
    };
    assert_eq!(
        shop.payments().get_payment(asked).await.unwrap_err().code(),
        Code::NotFound
    );
}

/// SHOP-457, SHOP-454: cards become tokens, and only the last four digits are kept.
#[tokio::test(flavor = "multi_thread")]
async fn card_numbers_are_kept_nowhere() {
    let shop = Shop::start(&[]);
    let card = |number: &str, year: i32| ValidatePaymentMethodRequest {
        user_id: "u".into(),
        method: "card".into(),
        card: Some(Card {
            number: number.into(),
            expiry_month: 12,
            expiry_year: year,
            cvc: "123".into(),
        }),
        save: true,
        ..ValidatePaymentMethodRequest::default()
    };
    let mut payments = shop.payments();
    let good = payments
        .validate_payment_method(card("4000 0000 0000 9995", 2999))
        .await
        .unwrap()
        .into_inner();
    assert!(good.is_valid && good.last_four == "9995" && good.token.starts_with("tok_"));
    for (request, reason) in [
        (card("4000000000000003", 2999), "CARD_NUMBER_INVALID"),
        (card("4242424242424242", 2001), "CARD_EXPIRED"),
    ] {
        let bad = payments
            .validate_payment_method(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!((bad.is_valid, bad.reason.as_str()), (false, reason));
    }
    let mut broke = charge(&Uuid::new_v4().to_string(), "k", "1.00");
    broke.token = good.token.clone();
    let broke = payments.process_payment(broke).await.unwrap_err();
    assert!(
        broke.message().contains("refused"),
        "the token stands for its card"
    );
    let stolen = ValidatePaymentMethodRequest {
        method: "card".into(),
        token: good.token,
        ..ValidatePaymentMethodRequest::default()
    };
    let stolen = payments
        .validate_payment_method(by("eve", stolen))
        .await
        .unwrap()
        .into_inner();
    assert!(!stolen.is_valid, "somebody else's token");
    for entry in std::fs::read_dir(shop.folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let digits = b"4000000000009995";
        assert!(!bytes.windows(digits.len()).any(|window| window == digits));
    }
}

/// SHOP-452: an intent, then its confirmation.
#[tokio::test(flavor = "multi_thread")]
async fn the_two_step_form_charges_once() {
    let shop = Shop::start(&[]);
    let mut payments = shop.payments();
    let request = CreatePaymentIntentRequest {
        order_id: Uuid::new_v4().to_string(),
        amount: "5.00".into(),
        currency: "USD".into(),
        user_id: "u".into(),
        idempotency_key: "i".into(),
    };
    let intent = payments
        .create_payment_intent(request.clone())
        .await
        .unwrap()
        .into_inner();
    let again = payments
        .create_payment_intent(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(intent, again);
    let confirm = |secret: &str| ConfirmPaymentRequest {
        payment_intent_id: intent.payment_intent_id.clone(),
        client_secret: secret.into(),
        method: "card".into(),
        ..ConfirmPaymentRequest::default()
    };
    let guessed = payments
        .confirm_payment(confirm("guess"))
        .await
        .unwrap_err();
    assert_eq!(guessed.code(), Code::NotFound);
    for _ in 0..2 {
        let paid = payments
            .confirm_payment(confirm(&intent.client_secret))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(paid.status(), PaymentStatus::Completed);
    }
    let ledger = shop.database("payments-processor").await;
    let count = ledger
        .first("SELECT COUNT(*) FROM movements", &[])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(count.int(0).unwrap(), 1);
}

/// SHOP-457: the processor's news are taken when they are signed.
#[tokio::test(flavor = "multi_thread")]
async fn news_need_a_signature() {
    let shop = Shop::start(&[("payments", "--webhook-secret=s3cret")]);
    let page = format!("{}/webhooks/processor", shop.services["payments"].http());
    let post = |signature: &str| {
        let header = format!("x-processor-signature: {signature}");
        curl(&["-d", "{}", "-H", &header, &page]).0
    };
    assert_eq!(post("t=1,v1=00"), 401);
    assert_eq!(post(&sign("s3cret", time::now() / 1000, b"{}")), 204);
}
