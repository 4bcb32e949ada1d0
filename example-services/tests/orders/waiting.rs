//! What becomes of orders while payments is away (SHOP-511, GW-702): refused at once, or kept until it is back.

use std::sync::Arc;

use tollgate_example_services::{
    contracts::orders::{
        CancelOrderRequest, GetOrderStatusRequest, GetOrderStatusResponse, OrderStatus,
    },
    kit::refusal::Refusal,
};
use tonic::Code;

use crate::{
    clients::order,
    support::{
        books::Keeper,
        postgres::{self, Server},
        service::curl,
        shop::{Shop, until},
    },
};

/// Orders that wait as long as it takes, behind a breaker that opens soon.
const PATIENT: [(&str, &str); 5] = [
    ("orders", "--payment-queue=1h"),
    ("orders", "--payment-queue-every=100ms"),
    ("orders", "--payment-breaker=2"),
    ("orders", "--payment-breaker-open=100ms"),
    ("orders", "--retries=1"),
];

async fn status(shop: &Shop, id: &str) -> GetOrderStatusResponse {
    let asked = GetOrderStatusRequest {
        order_id: id.into(),
    };
    let told = shop.orders().get_order_status(asked).await;
    told.unwrap().into_inner()
}

async fn until_status(shop: &Shop, id: &str, wanted: OrderStatus) {
    until(wanted.as_str_name(), || async {
        status(shop, id).await.status() == wanted
    })
    .await;
}

/// SHOP-511: accepted at once, seen by everybody, there after `kill -9`, and paid for once.
async fn an_order_waits(server: Option<Arc<Server>>) {
    let mut shop = Shop::on(server, &PATIENT);
    let (user, product) = (shop.user().await, shop.product(5).await);
    shop.service("payments").kill();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let request = order(&user, &product, 1, "");
        let made = shop.orders().create_order(request.clone()).await.unwrap();
        assert!(made.metadata().get("location").is_some(), "it is a 202");
        let made = made.into_inner();
        assert!(made.status() == OrderStatus::Reserved && made.processing);
        let again = shop.orders().create_order(request).await.unwrap();
        assert_eq!(again.into_inner().order_id, made.order_id);
        ids.push(made.order_id);
    }
    let keeper = Keeper::open(&shop).await;
    for _ in 0..2 {
        for id in &ids {
            let told = status(&shop, id).await;
            assert_eq!(
                (told.reason.as_str(), told.processing),
                ("PAYMENTS_AWAY", true)
            );
        }
        shop.service("orders").kill();
        shop.service("orders").start(None);
    }
    let page = format!("{}/sagas/{}", shop.services["orders"].http(), ids[0]);
    let (_, told) = curl(&[&page]);
    assert!(told["queued_until"].is_string(), "{told}");
    let asked = CancelOrderRequest {
        order_id: ids[2].clone(),
        ..Default::default()
    };
    // A client who does not want to wait so long. Its money is looked for when payments is back.
    let mut orders = shop.orders();
    let cancelled = tokio::spawn(async move { orders.cancel_order(asked).await });
    until_status(&shop, &ids[2], OrderStatus::Cancelled).await;
    shop.service("payments").start(None);
    for id in &ids[..2] {
        until_status(&shop, id, OrderStatus::Confirmed).await;
    }
    cancelled.await.unwrap().unwrap();
    let stock = [(product, 5)].into();
    assert_eq!(keeper.faults(&stock).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_waits_for_payments_over_kills_and_is_paid_once() {
    an_order_waits(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_waits_for_payments_on_postgres() {
    if let Some(server) = postgres::server() {
        an_order_waits(Some(server)).await;
    }
}

/// SHOP-511: a wait has an end, which gives the stock back while payments is still away; the same request is a new order then.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_waits_in_vain_ends_and_holds_nothing() {
    let more = [
        PATIENT[1],
        PATIENT[2],
        PATIENT[3],
        PATIENT[4],
        ("orders", "--payment-queue=500ms"),
    ];
    let mut shop = Shop::on(None, &more);
    let (user, product) = (shop.user().await, shop.product(5).await);
    shop.service("payments").kill();
    let request = order(&user, &product, 1, "");
    // It may be over before it is told: a machine may stand still.
    let told = shop.orders().create_order(request.clone()).await;
    assert!(told.is_ok() || told.is_err_and(|told| told.code() == Code::Unavailable));
    let keeper = Keeper::open(&shop).await;
    until("the stock is free", || async {
        let books = keeper.read().await;
        books
            .values()
            .any(|page| page.reservation == "released" && page.order == "CANCELLED")
    })
    .await;
    let books = keeper.read().await;
    let (id, page) = books.iter().next().unwrap();
    assert!(page.why.contains("PAYMENT_QUEUE_EXPIRED"), "{page:?}");
    let told = status(&shop, &id.to_string()).await;
    assert_eq!(told.reason, "PAYMENT_QUEUE_EXPIRED");
    shop.service("payments").start(None);
    until("the same request is an order", || async {
        let told = shop.orders().create_order(request.clone()).await;
        told.is_ok_and(|made| made.into_inner().status() == OrderStatus::Confirmed)
    })
    .await;
    let stock = [(product, 5)].into();
    assert_eq!(keeper.faults(&stock).await, Vec::<String>::new());
}

/// SHOP-511: without a queue nothing is begun that cannot be paid, until payments is back.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_queue_orders_are_refused_at_once() {
    let more = [
        ("orders", "--payment-breaker=2"),
        ("orders", "--payment-breaker-open=1h"),
        ("orders", "--retries=1"),
    ];
    let mut shop = Shop::on(None, &more);
    let (user, product) = (shop.user().await, shop.product(5).await);
    shop.service("payments").kill();
    let first = shop
        .orders()
        .create_order(order(&user, &product, 1, ""))
        .await;
    assert_eq!(first.unwrap_err().code(), Code::Unavailable);
    let second = shop
        .orders()
        .create_order(order(&user, &product, 1, ""))
        .await;
    let refusal = Refusal::from_status(&second.unwrap_err());
    assert_eq!(refusal.reason(), "PAYMENTS_AWAY");
    assert!(refusal.retry_span().is_some());
    let keeper = Keeper::open(&shop).await;
    assert_eq!(keeper.read().await.len(), 1, "nothing was begun");
    shop.service("payments").start(None);
    // What the first one left is looked for at payments, whose answer closes the breaker.
    until("orders are taken again", || async {
        let again = shop
            .orders()
            .create_order(order(&user, &product, 1, ""))
            .await;
        again.is_ok()
    })
    .await;
    let stock = [(product, 5)].into();
    assert_eq!(keeper.faults(&stock).await, Vec::<String>::new());
}

/// SHOP-511: who finds the queue full is told at once, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_bounded() {
    let mut more = PATIENT.to_vec();
    more.push(("orders", "--payment-queue-limit=1"));
    let mut shop = Shop::on(None, &more);
    let (user, product) = (shop.user().await, shop.product(5).await);
    shop.service("payments").kill();
    let first = shop
        .orders()
        .create_order(order(&user, &product, 1, ""))
        .await;
    let first = first.unwrap().into_inner();
    let second = shop
        .orders()
        .create_order(order(&user, &product, 1, ""))
        .await;
    assert_eq!(second.unwrap_err().code(), Code::Unavailable);
    shop.service("payments").start(None);
    until_status(&shop, &first.order_id, OrderStatus::Confirmed).await;
    let keeper = Keeper::open(&shop).await;
    let stock = [(product, 5)].into();
    assert_eq!(keeper.faults(&stock).await, Vec::<String>::new());
}
