//! The same shop on PostgreSQL: its SQL, its locks, and the recovery that waits for leases.

use tollgate_example_services::contracts::orders::{CancelOrderRequest, OrderStatus};
use tonic::{Code, Request};

use crate::{
    clients::order,
    support::{books::Keeper, postgres, shop::Shop},
};

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
            let (mut orders, request) = (shop.orders(), request.clone());
            let answer = tokio::spawn(async move { orders.create_order(request).await });
            asked.push((token, answer));
        }
        let (mut orders, request) = (shop.orders(), order(&user, &last, 1, ""));
        asked.push((
            "last",
            tokio::spawn(async move { orders.create_order(request).await }),
        ));
    }
    let (mut first_of_last, mut ids) = (0, Vec::new());
    for (token, answer) in asked {
        match (token, answer.await.unwrap()) {
            ("last", Ok(_)) => first_of_last += 1,
            ("last" | "declined" | "capture_rejected", Err(refused)) => {
                assert_eq!(refused.code(), Code::FailedPrecondition);
            }
            (_, answer) => ids.push(answer.unwrap().into_inner().order_id),
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
        crate::support::shop::until("it dies", || {
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
