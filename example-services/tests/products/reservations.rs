//! Reservations over gRPC: what orders are told, what time takes back, and what kills leave.

use tollgate_example_services::{
    contracts::products as wire, kit::refusal::Refusal, products::MIGRATIONS,
};
use tonic::Code;
use uuid::Uuid;

use super::{client, numbers, product, start};
use crate::support::{sqlite, stores};

/// SHOP-303, SHOP-306, SHOP-806: what orders are told.
#[tokio::test]
async fn orders_are_told_what_is_missing_and_repeat_without_harm() {
    for store in stores(&MIGRATIONS).await {
        let (program, id) = (start(&store, &[]), product(&store, 3).await);
        let mut products = client(&program).await;
        let items = |quantity| {
            vec![wire::Item {
                product_id: id.to_string(),
                quantity,
            }]
        };
        let check = wire::CheckAvailabilityRequest { items: items(4) };
        let told = products
            .check_availability(check)
            .await
            .unwrap()
            .into_inner();
        assert_eq!((told.all_available, told.items[0].available), (false, 3));

        let reserve = |order: Uuid, quantity| wire::ReserveInventoryRequest {
            order_id: order.to_string(),
            items: items(quantity),
            idempotency_key: format!("saga:{order}:reserve"),
        };
        let order = Uuid::now_v7();
        let status = products
            .reserve_inventory(reserve(order, 4))
            .await
            .unwrap_err();
        let refusal = Refusal::from_status(&status);
        assert_eq!(
            (status.code(), refusal.reason()),
            (Code::FailedPrecondition, "INSUFFICIENT_STOCK")
        );
        let details = [
            ("available", "3"),
            ("product_id", &id.to_string()),
            ("requested", "4"),
        ];
        let details: Vec<_> = details
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        assert_eq!(refusal.metadata(), details);
        // The refusal is kept for the key, the key is bound to its request.
        assert_eq!(
            Refusal::from_status(
                &products
                    .reserve_inventory(reserve(order, 4))
                    .await
                    .unwrap_err()
            ),
            refusal
        );
        let other = products
            .reserve_inventory(reserve(order, 1))
            .await
            .unwrap_err();
        assert_eq!(
            Refusal::from_status(&other).reason(),
            "IDEMPOTENCY_KEY_REUSED"
        );

        let order = Uuid::now_v7();
        let held = products
            .reserve_inventory(reserve(order, 2))
            .await
            .unwrap()
            .into_inner();
        let release = wire::ReleaseInventoryRequest {
            reservation_id: held.reservation_id,
            ..Default::default()
        };
        for _ in 0..2 {
            let released = products
                .release_inventory(release.clone())
                .await
                .unwrap()
                .into_inner();
            assert_eq!(released.state(), wire::ReservationState::Released);
        }
        assert_eq!(numbers(&store, id).await, (3, 0));
        let commit = wire::CommitInventoryRequest {
            order_id: order.to_string(),
            ..Default::default()
        };
        let refused = products.commit_inventory(commit).await.unwrap_err();
        assert_eq!(Refusal::from_status(&refused).reason(), "RESERVATION_ENDED");

        // A release that overtook its reservation.
        let order = Uuid::now_v7();
        let release = wire::ReleaseInventoryRequest {
            order_id: order.to_string(),
            ..Default::default()
        };
        products.release_inventory(release).await.unwrap();
        let late = products
            .reserve_inventory(reserve(order, 1))
            .await
            .unwrap_err();
        assert_eq!(Refusal::from_status(&late).reason(), "RESERVATION_ENDED");
        let unknown = wire::GetReservationRequest {
            order_id: Uuid::now_v7().to_string(),
        };
        assert_eq!(
            products.get_reservation(unknown).await.unwrap_err().code(),
            Code::NotFound
        );
    }
}

/// ACC-309: stock that an order forgot comes back by itself.
#[tokio::test]
async fn a_forgotten_reservation_expires() {
    let store = sqlite(&MIGRATIONS).await;
    let id = product(&store, 2).await;
    let program = start(
        &store,
        &["--reservation-lifetime", "1ms", "--expiry-every", "10ms"],
    );
    let mut products = client(&program).await;
    let order_id = Uuid::now_v7().to_string();
    let items = vec![wire::Item {
        product_id: id.to_string(),
        quantity: 2,
    }];
    let reserve = wire::ReserveInventoryRequest {
        order_id: order_id.clone(),
        items,
        ..Default::default()
    };
    products.reserve_inventory(reserve).await.unwrap();
    let asked = wire::GetReservationRequest { order_id };
    while products
        .get_reservation(asked.clone())
        .await
        .unwrap()
        .into_inner()
        .state()
        == wire::ReservationState::Held
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(numbers(&store, id).await, (2, 0));
}

/// SHOP-106: `kill -9` again and again while orders are held, committed and released. What was told is so, what is held is
/// what the reservations hold, and stock adds up.
#[tokio::test(flavor = "multi_thread")]
async fn kills_leave_stock_that_adds_up() {
    for store in stores(&MIGRATIONS).await {
        let ids = [product(&store, 10_000).await, product(&store, 10_000).await];
        let mut told = Vec::new();
        for _ in 0..5 {
            let mut program = start(&store, &[]);
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            for task in 0..4 {
                let (mut products, sender) = (client(&program).await, sender.clone());
                tokio::spawn(async move {
                    loop {
                        let order_id = Uuid::now_v7().to_string();
                        let items = ids.iter().map(|id| wire::Item {
                            product_id: id.to_string(),
                            quantity: 1 + task % 2,
                        });
                        let reserve = wire::ReserveInventoryRequest {
                            order_id: order_id.clone(),
                            items: items.collect(),
                            idempotency_key: format!("saga:{order_id}"),
                        };
                        let Ok(_) = products.reserve_inventory(reserve).await else {
                            return;
                        };
                        let done = match task {
                            0 | 1 => {
                                products
                                    .commit_inventory(wire::CommitInventoryRequest {
                                        order_id: order_id.clone(),
                                        ..Default::default()
                                    })
                                    .await
                            }
                            2 => {
                                products
                                    .release_inventory(wire::ReleaseInventoryRequest {
                                        order_id: order_id.clone(),
                                        ..Default::default()
                                    })
                                    .await
                            }
                            _ => {
                                products
                                    .get_reservation(wire::GetReservationRequest {
                                        order_id: order_id.clone(),
                                    })
                                    .await
                            }
                        };
                        let Ok(done) = done else { return };
                        sender.send((order_id, done.into_inner().state())).unwrap();
                    }
                });
            }
            drop(sender);
            for _ in 0..15 {
                told.push(receiver.recv().await.unwrap());
            }
            program.kill();
            while let Some(done) = receiver.recv().await {
                told.push(done);
            }
        }
        let inventory = super::inventory(&store);
        for (order, state) in told {
            assert_eq!(
                inventory
                    .reservation(order.parse().unwrap())
                    .await
                    .unwrap()
                    .state(),
                state
            );
        }
        for id in ids {
            let sum = "SELECT CAST(COALESCE(sum(CASE WHEN r.state = 'held' THEN i.quantity ELSE 0 END), 0) AS BIGINT), \
                       CAST(COALESCE(sum(CASE WHEN r.state = 'committed' THEN i.quantity ELSE 0 END), 0) AS BIGINT) \
                       FROM reservation_items i JOIN reservations r ON r.id = i.reservation_id WHERE i.product_id = $1";
            let row = store
                .database
                .first(sum, tollgate_example_services::values![id])
                .await
                .unwrap()
                .unwrap();
            let (held, committed) = (row.int(0).unwrap(), row.int(1).unwrap());
            assert_eq!(numbers(&store, id).await, (10_000 - committed, held));
        }
        let events = "SELECT count(*) FROM events WHERE type = 'inventory.reserved.v1'";
        let reservations = "SELECT count(*) FROM reservations";
        let mut counts = Vec::new();
        for sql in [events, reservations] {
            counts.push(
                store
                    .database
                    .first(sql, &[])
                    .await
                    .unwrap()
                    .unwrap()
                    .int(0)
                    .unwrap(),
            );
        }
        assert_eq!(counts[0], counts[1], "no reservation without its event");
    }
}
