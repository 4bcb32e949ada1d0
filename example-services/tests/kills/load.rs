//! Orders of every kind, from clients that go on asking with the same key until they are told something definite.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::task::JoinHandle;
use tollgate_example_services::{
    contracts::orders::{
        Address, CancelOrderRequest, CreateOrderRequest, NewItem, OrderStatus,
        orders_service_client::OrdersServiceClient,
    },
    kit::refusal::Refusal,
};
use tonic::{Code, Request, Status, transport::Channel};
use uuid::Uuid;

use crate::support::{
    books::{Books, Page},
    shop::Shop,
};

/// What a client was told about an order, for good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Told {
    Confirmed,
    Refused,
    Cancelled,
}

/// Where orders come from.
pub(crate) struct Load {
    orders: OrdersServiceClient<Channel>,
    users: [String; 2],
    products: Vec<String>,
    stopped: AtomicBool,
}

impl Load {
    pub(crate) fn new(shop: &Shop, users: [String; 2], products: Vec<String>) -> Self {
        Self {
            orders: shop.orders(),
            users,
            products,
            stopped: AtomicBool::new(false),
        }
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn request(&self, rng: &mut Rng) -> CreateOrderRequest {
        // The processor's behaviours; good ones more often.
        let tokens = [
            "",
            "",
            "",
            "slow",
            "flaky",
            "flaky",
            "lost_answer",
            "lost_answer",
            "declined",
            "capture_rejected",
            "outage",
        ];
        let user = match rng.u8(..20) {
            0 => Uuid::new_v4().to_string(),
            _ => self.users[rng.usize(..2)].clone(),
        };
        // The last one is scarce.
        let kinds = if rng.u8(..8) == 0 { 3 } else { 2 };
        let first = rng.usize(..kinds);
        let chosen = [Some(first), rng.bool().then_some((first + 1) % kinds)];
        let items = chosen.into_iter().flatten().map(|index| NewItem {
            product_id: self.products[index].clone(),
            quantity: rng.i32(1..=3),
        });
        CreateOrderRequest {
            user_id: user,
            items: items.collect(),
            shipping_address: Some(Address {
                street: "1 Main St".into(),
                city: "Springfield".into(),
                state: "IL".into(),
                zip_code: "62701".into(),
                country: "USA".into(),
            }),
            payment_method: "card".into(),
            payment_token: tokens[rng.usize(..tokens.len())].into(),
            idempotency_key: Uuid::new_v4().to_string(),
            ..CreateOrderRequest::default()
        }
    }

    /// One order, until it has an end that is told.
    async fn order(&self, request: CreateOrderRequest, alone: bool) -> Option<(Uuid, Told)> {
        // Nobody waits for the end of an outage.
        let most = if request.payment_token == "outage" {
            2
        } else {
            usize::MAX
        };
        for _ in 0..most {
            let mut asked = Request::new(request.clone());
            asked.set_timeout(Duration::from_secs(10));
            if alone {
                asked
                    .metadata_mut()
                    .insert("prefer", "respond-async".parse().unwrap());
            }
            match self.orders.clone().create_order(asked).await {
                Ok(answer) => {
                    let order = answer.into_inner();
                    let id = Uuid::try_parse(&order.order_id).unwrap();
                    match order.status() {
                        OrderStatus::Cancelled => return Some((id, Told::Cancelled)),
                        _ if alone => return Some((id, Told::Confirmed)),
                        _ if order.processing => {}
                        OrderStatus::Confirmed => return Some((id, Told::Confirmed)),
                        other => panic!("{other:?} is no answer"),
                    }
                }
                Err(status) if is_temporary(&status) => {}
                Err(status) => {
                    let refusal = Refusal::from_status(&status);
                    let id = refusal.metadata().iter().find(|(key, _)| key == "order_id");
                    let id = Uuid::try_parse(&id.expect("refusals name their order").1);
                    return Some((id.unwrap(), Told::Refused));
                }
            }
            if self.stopped.load(Ordering::Relaxed) {
                return None;
            }
            // As a client does, who would otherwise only find the same.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        None
    }

    async fn cancel(&self, order: Uuid) -> Option<(Uuid, Told)> {
        loop {
            let mut asked = Request::new(CancelOrderRequest {
                order_id: order.to_string(),
                reason: "changed my mind".into(),
                ..CancelOrderRequest::default()
            });
            asked.set_timeout(Duration::from_secs(10));
            match self.orders.clone().cancel_order(asked).await {
                Ok(answer) if answer.get_ref().status() == OrderStatus::Cancelled => {
                    return Some((order, Told::Cancelled));
                }
                Ok(_) => {}
                Err(status) => assert!(is_temporary(&status), "{status:?}"),
            }
            if self.stopped.load(Ordering::Relaxed) {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn client(&self, mut rng: Rng) -> Vec<(Uuid, Told)> {
        let mut told = Vec::new();
        while !self.stopped.load(Ordering::Relaxed) {
            let request = self.request(&mut rng);
            match rng.u8(..10) {
                // Wants it no more, while it is made.
                0 => {
                    if let Some((order, _)) = self.order(request, true).await {
                        told.extend(self.cancel(order).await);
                    }
                }
                // Wants it no more, when it is made.
                1 => match self.order(request, false).await {
                    Some((order, Told::Confirmed)) => told.extend(self.cancel(order).await),
                    other => told.extend(other),
                },
                // Sends it twice at once.
                2 => {
                    let both = tokio::join!(
                        self.order(request.clone(), false),
                        self.order(request, false)
                    );
                    if let (Some(one), Some(other)) = both {
                        assert_eq!(one, other, "two orders of one request");
                        told.extend([one, other]);
                    }
                }
                _ => told.extend(self.order(request, false).await),
            }
        }
        told
    }
}

fn is_temporary(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::Unknown
            | Code::Internal
    )
}

/// So many clients. They end when the load stops.
pub(crate) fn start(
    load: &Arc<Load>,
    clients: u64,
    seed: u64,
) -> Vec<JoinHandle<Vec<(Uuid, Told)>>> {
    (0..clients)
        .map(|client| {
            let (load, rng) = (load.clone(), Rng::with_seed(seed.wrapping_add(client)));
            tokio::spawn(async move { load.client(rng).await })
        })
        .collect()
}

/// What clients were told that is not so.
pub(crate) fn lies(told: &[(Uuid, Told)], books: &Books) -> Vec<String> {
    let mut last = BTreeMap::new();
    for (order, told) in told {
        last.insert(order, *told);
    }
    let nothing = Page::default();
    last.into_iter()
        .filter_map(|(order, told)| {
            let page = books.get(order).unwrap_or(&nothing);
            let so = match told {
                Told::Confirmed => page.saga == "completed",
                Told::Refused | Told::Cancelled => page.saga == "failed",
            };
            (!so).then(|| format!("{order}: told {told:?}, but {page:?}"))
        })
        .collect()
}
