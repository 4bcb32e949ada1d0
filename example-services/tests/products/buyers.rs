//! Many buyers at once over the last few of a product (SHOP-303, SHOP-304, SHOP-702, ACC-308): nothing is sold twice,
//! nobody is turned away while there is enough, and stock adds up.

use proptest::{prelude::*, test_runner::TestRunner};
use tollgate_example_services::{contracts::products::ReservationState, products::MIGRATIONS};
use uuid::Uuid;

use super::{inventory, numbers, orders, product, wanted};
use crate::support::{Store, stores};

/// What a buyer wants, and what becomes of the order: 0 held, 1 committed, 2 released.
#[derive(Clone, Debug)]
struct Buyer {
    wants: Vec<(usize, i32)>,
    then: u8,
}

fn buyers() -> impl Strategy<Value = (Vec<i32>, Vec<Buyer>)> {
    let stock = prop::collection::vec(0..6i32, 1..4);
    stock.prop_flat_map(|stock| {
        let item = (0..stock.len(), 1..4i32);
        let buyer = (prop::collection::vec(item, 1..4), 0..3u8)
            .prop_map(|(wants, then)| Buyer { wants, then });
        (Just(stock), prop::collection::vec(buyer, 2..12))
    })
}

async fn rush(store: &Store, stock: &[i32], buyers: &[Buyer]) {
    let mut ids = Vec::new();
    for count in stock {
        ids.push(product(store, *count).await);
    }
    let tasks: Vec<_> = buyers
        .iter()
        .map(|buyer| {
            let wants: Vec<_> = buyer
                .wants
                .iter()
                .map(|(at, count)| (ids[*at], *count))
                .collect();
            let (inventory, wanted, then) = (inventory(store), wanted(&wants), buyer.then);
            tokio::spawn(async move {
                let order = Uuid::now_v7();
                let result = inventory
                    .reserve(order, &wanted, Some(&order.to_string()), &orders(), 1)
                    .await;
                match (&result, then) {
                    (Ok(_), 1) => drop(inventory.commit(order, &orders(), 2).await.unwrap()),
                    (Ok(_), 2) => drop(inventory.release(order, &orders(), 2).await.unwrap()),
                    _ => {}
                }
                (wanted, result, then)
            })
        })
        .collect();
    let mut held = vec![0; ids.len()];
    let mut sold = vec![0; ids.len()];
    let mut turned_away = Vec::new();
    for task in tasks {
        let (wanted, result, then) = task.await.unwrap();
        match result {
            Ok(_) => {
                for (product, count) in &wanted.0 {
                    let at = ids.iter().position(|id| id == product).unwrap();
                    match then {
                        0 => held[at] += count,
                        1 => sold[at] += count,
                        _ => {}
                    }
                }
            }
            Err(refusal) => {
                assert_eq!(refusal.reason(), "INSUFFICIENT_STOCK", "{refusal:?}");
                turned_away.push(wanted);
            }
        }
    }
    for (at, id) in ids.iter().enumerate() {
        let (now, reserved) = numbers(store, *id).await;
        assert!(reserved <= now);
        assert_eq!(reserved, held[at], "what is held is what the orders hold");
        assert_eq!(now + sold[at], i64::from(stock[at]), "stock adds up");
    }
    // Whoever was turned away for good: had nobody given anything back, it was for a reason.
    if buyers.iter().all(|buyer| buyer.then != 2) {
        for wanted in turned_away {
            let mut left = Vec::new();
            for (product, count) in &wanted.0 {
                let (now, reserved) = numbers(store, *product).await;
                left.push(now - reserved >= *count);
            }
            // Several at once may have stood in each other's way only when one of their products ran short.
            assert!(
                wanted.0.len() > 1 || !left[0],
                "turned away although there is enough"
            );
        }
    }
}

#[test]
fn no_interleaving_sells_more_than_there_is() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    for store in runtime.block_on(stores(&MIGRATIONS)) {
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 32,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        runner
            .run(&buyers(), |(stock, buyers)| {
                runtime.block_on(rush(&store, &stock, &buyers));
                Ok(())
            })
            .unwrap();
    }
}

/// ACC-308: N buyers for the last item, exactly one succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_buyers_of_the_last_one_exactly_one_gets_it() {
    for store in stores(&MIGRATIONS).await {
        for _ in 0..10 {
            let id = product(&store, 1).await;
            let tasks: Vec<_> = (0..20)
                .map(|_| {
                    let (inventory, wanted) = (inventory(&store), wanted(&[(id, 1)]));
                    tokio::spawn(async move {
                        inventory
                            .reserve(Uuid::now_v7(), &wanted, None, &orders(), 1)
                            .await
                    })
                })
                .collect();
            let mut got = 0;
            for task in tasks {
                got += i32::from(task.await.unwrap().is_ok());
            }
            assert_eq!((got, numbers(&store, id).await), (1, (1, 1)));
        }
    }
}

/// SHOP-603, ACC-305: the same reservation many times at once is one, and all are told of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_order_reserves_once_however_often_it_asks() {
    for store in stores(&MIGRATIONS).await {
        for key in [None, Some("saga:1:reserve:1")] {
            let (id, order) = (product(&store, 10).await, Uuid::now_v7());
            let tasks: Vec<_> = (0..12)
                .map(|_| {
                    let (inventory, wanted) = (inventory(&store), wanted(&[(id, 3)]));
                    tokio::spawn(async move {
                        inventory
                            .reserve(order, &wanted, key, &orders(), 1)
                            .await
                            .unwrap()
                    })
                })
                .collect();
            let mut told = Vec::new();
            for task in tasks {
                told.push(task.await.unwrap());
            }
            told.dedup();
            assert_eq!((told.len(), numbers(&store, id).await), (1, (10, 3)));
            assert_eq!(told[0].state(), ReservationState::Held);
        }
    }
}

/// Commit, release and expiry of one order at once: one of them happens, and stock adds up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_order_ends_in_one_way_only() {
    for store in stores(&MIGRATIONS).await {
        for _ in 0..20 {
            let (id, order) = (product(&store, 5).await, Uuid::now_v7());
            let reserved = inventory(&store)
                .reserve(order, &wanted(&[(id, 2)]), None, &orders(), 1)
                .await
                .unwrap();
            assert_eq!(reserved.items[0].unit_price, "49.90");
            let (one, two, three) = (inventory(&store), inventory(&store), inventory(&store));
            let commit = tokio::spawn(async move { one.commit(order, &orders(), 5000).await });
            let release = tokio::spawn(async move { two.release(order, &orders(), 5000).await });
            let expire = tokio::spawn(async move { three.expire(5000).await });
            let committed = commit.await.unwrap();
            release.await.unwrap().unwrap();
            expire.await.unwrap().unwrap();
            let state = inventory(&store).reservation(order).await.unwrap().state();
            let expected = if state == ReservationState::Committed {
                (3, 0)
            } else {
                (5, 0)
            };
            assert_eq!(committed.is_ok(), state == ReservationState::Committed);
            assert_eq!(numbers(&store, id).await, expected, "{state:?}");
        }
    }
}
