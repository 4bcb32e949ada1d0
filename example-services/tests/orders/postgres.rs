//! The same shop on PostgreSQL: its SQL, its locks, and the recovery that waits for leases.

use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinHandle;
use tollgate_example_services::contracts::orders::{
    CancelOrderRequest, CreateOrderRequest, Order, OrderStatus,
    orders_service_client::OrdersServiceClient,
};
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    clients::order,
    support::{
        books::Keeper,
        postgres,
        shop::{Shop, channel, until},
    },
};

/// Asks until it is told an end: as a client does whose answer is a 202, or that it should send it again.
fn ask(
    mut orders: OrdersServiceClient<Channel>,
    request: CreateOrderRequest,
) -> JoinHandle<Result<Order, Status>> {
    tokio::spawn(async move {
        loop {
            match orders.create_order(request.clone()).await {
                Ok(told) if told.get_ref().processing => {}
                Err(told) if matches!(told.code(), Code::Unavailable | Code::Aborted) => {}
                told => return told.map(tonic::Response::into_inner),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

/// PROD-6, ACC-301, ACC-302, ACC-305, ACC-307, ACC-308.
#[tokio::test(flavor = "multi_thread")]
async fn orders_of_every_kind_end_all_or_nothing_on_postgres() {
    let Some(server) = postgres::server() else {
        return;
    };
    let more = ["--step-timeout=1s", "--payment-timeout=1s"].map(|setting| ("orders", setting));
    let mut shop = Shop::on(Some(server), &more);
    let (user, plenty, last) = (
        shop.user().await,
        shop.product(500).await,
        shop.product(1).await,
    );
    let keeper = Keeper::open(&shop).await;

    let tokens = [
        "",
        "flaky",
        "lost_answer",
        "declined",
        "capture_rejected",
        "",
    ];
    let mut asked = Vec::new();
    for token in tokens.repeat(3) {
        let request = order(&user, &plenty, 2, token);
        for _ in 0..2 {
            asked.push((token, ask(shop.orders(), request.clone())));
        }
        asked.push(("last", ask(shop.orders(), order(&user, &last, 1, ""))));
    }
    let (mut first_of_last, mut ids) = (0, Vec::new());
    for (token, answer) in asked {
        let answer = answer.await.unwrap();
        let made = answer.as_ref().map(|order| order.status());
        match (token, &made) {
            ("last", Ok(OrderStatus::Confirmed)) => first_of_last += 1,
            ("last" | "declined" | "capture_rejected", Err(refused)) => {
                assert_eq!(refused.code(), Code::FailedPrecondition, "{token}");
            }
            ("" | "flaky" | "lost_answer", Ok(OrderStatus::Confirmed)) => {
                ids.push(answer.unwrap().order_id);
            }
            _ => panic!("`{token}` is told {made:?}"),
        }
    }
    assert_eq!(first_of_last, 1);
    assert_eq!(ids.len(), 24);
    ids.dedup();
    assert_eq!(ids.len(), 12, "the same request twice is one order");
    let cancel = CancelOrderRequest {
        order_id: ids[0].clone(),
        ..CancelOrderRequest::default()
    };
    let cancelled = shop
        .orders()
        .cancel_order(cancel)
        .await
        .unwrap()
        .into_inner();
    assert!(cancelled.status() == OrderStatus::Cancelled && cancelled.refunded);

    // Orders dies while many are under way; another process takes over when the leases are over.
    for place in ["called ProcessPayment:2", "called CommitInventory:2"] {
        shop.service("orders").kill();
        shop.service("orders").start(Some(place));
        for _ in 0..4 {
            let mut request = Request::new(order(&user, &plenty, 1, ""));
            request
                .metadata_mut()
                .insert("prefer", "respond-async".parse().unwrap());
            // The one that kills it gets no answer.
            shop.orders().create_order(request).await.ok();
        }
        until("it dies", || {
            let dead = shop.service("orders").is_dead();
            async move { dead }
        })
        .await;
    }
    shop.service("orders").start(None);
    keeper.settle().await;
    let stock = [(plenty, 500), (last, 1)].into();
    assert_eq!(keeper.faults(&stock).await, Vec::<String>::new());
}

/// SHOP-403, SHOP-603: one request at two processes of orders is one order, and both tell how it ended: the process that
/// drives it, and the one that does not.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_repeats_a_request_is_told_its_end_wherever_it_is_driven() {
    let Some(server) = postgres::server() else {
        return;
    };
    let shop = Shop::on(Some(server), &[("orders", "--payment-timeout=180s")]);
    let other = shop.another("orders");
    let (user, product) = (shop.user().await, shop.product(5).await);
    // Nothing comes to its end before payments goes on.
    shop.services["payments"].signal(Signal::STOP);
    let request = order(&user, &product, 1, "declined");
    let doors = [shop.orders(), OrdersServiceClient::new(channel(&other))];
    let answers = doors.map(|mut orders| {
        let request = request.clone();
        tokio::spawn(async move { orders.create_order(request).await })
    });
    let [mut first, mut second] = answers;
    // One that is answered too early is so at once. This long nobody is, whatever the machine does.
    let early = tokio::time::timeout(Duration::from_secs(1), async {
        tokio::select! {
            told = &mut first => told,
            told = &mut second => told,
        }
    });
    if let Ok(told) = early.await {
        panic!("told before there is an end: {told:?}");
    }
    shop.services["payments"].signal(Signal::CONT);
    for answer in [first, second] {
        let refused = answer.await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    }
}
