//! What clients of orders see when something does not work, and that nothing is left of it (ACC-302 to ACC-310).

use rustix::process::Signal;
use tollgate_example_services::{
    contracts::orders::{CancelOrderRequest, GetOrderRequest, OrderStatus},
    kit::refusal::Refusal,
};
use tonic::{Code, Request};

use crate::{
    clients::{by, order},
    support::{
        books::Keeper,
        service::curl,
        shop::{PATIENCE, Shop, until},
    },
};

/// ACC-302, SHOP-455: a refusal for good is told as what it is, again and again, and nothing is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_payment_leaves_nothing() {
    let shop = Shop::start(&[]);
    let (user, product) = (shop.user().await, shop.product(5).await);
    for (method, token, reason) in [
        ("invalid", "", "DECLINED"),
        ("card", "card_expired", "CARD_EXPIRED"),
        ("card", "insufficient_funds", "INSUFFICIENT_FUNDS"),
        ("card", "fraud", "FRAUD_SUSPECTED"),
        ("card", "capture_rejected", "CAPTURE_REJECTED"),
    ] {
        let mut request = order(&user, &product, 1, token);
        request.payment_method = method.into();
        let first = shop
            .orders()
            .create_order(request.clone())
            .await
            .unwrap_err();
        let again = shop.orders().create_order(request).await.unwrap_err();
        let refusal = Refusal::from_status(&first);
        assert_eq!(
            (first.code(), refusal.reason()),
            (Code::FailedPrecondition, "PAYMENT_FAILED")
        );
        let told = refusal
            .metadata()
            .iter()
            .find(|(key, _)| key == "reason")
            .unwrap();
        assert_eq!(told.1, reason);
        assert_eq!(Refusal::from_status(&again), refusal, "the same result");
    }
    let keeper = Keeper::open(&shop).await;
    keeper.settle().await;
    assert_eq!(
        keeper.faults(&[(product, 5)].into()).await,
        Vec::<String>::new()
    );
    let books = keeper.read().await;
    assert_eq!(books.len(), 5);
    assert!(
        books
            .values()
            .all(|page| page.charges.is_empty() && page.order == "CANCELLED")
    );
    // ACC-302: the order of compensation is in the analysis.
    let id = books.keys().next().unwrap();
    let (status, told) = curl(&[&format!("{}/sagas/{id}", shop.services["orders"].http())]);
    assert_eq!(
        (status, &told["failed_step"]),
        (200, &"ProcessPayment".into())
    );
    let undone = told["compensation"]["succeeded"].as_array().unwrap();
    let undone: Vec<_> = undone
        .iter()
        .map(|one| one["step"].as_str().unwrap())
        .collect();
    assert_eq!(undone, ["CreateOrder", "ReserveInventory"]);
}

/// ACC-303, ACC-304: refused at once, and nobody was asked for money.
#[tokio::test(flavor = "multi_thread")]
async fn too_little_stock_and_unknown_users_are_refused_at_once() {
    let shop = Shop::start(&[]);
    let (user, product) = (shop.user().await, shop.product(1).await);
    let scarce = shop
        .orders()
        .create_order(order(&user, &product, 2, ""))
        .await
        .unwrap_err();
    let refusal = Refusal::from_status(&scarce);
    assert_eq!(
        (scarce.code(), refusal.reason()),
        (Code::FailedPrecondition, "INSUFFICIENT_STOCK")
    );
    let stranger = uuid::Uuid::new_v4().to_string();
    let stranger = shop
        .orders()
        .create_order(order(&stranger, &product, 1, ""))
        .await
        .unwrap_err();
    assert_eq!(stranger.code(), Code::NotFound);
    let keeper = Keeper::open(&shop).await;
    keeper.settle().await;
    assert_eq!(
        keeper.faults(&[(product, 1)].into()).await,
        Vec::<String>::new()
    );
    assert!(
        keeper
            .read()
            .await
            .values()
            .all(|page| page.payment.is_empty() && page.order.is_empty())
    );
}

/// SHOP-454, SHOP-456, ACC-306: answers that get lost are asked for, never repeated blindly; the ledger counts.
#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_first_failures_are_charged_once() {
    let shop = Shop::start(&[]);
    let (user, product) = (shop.user().await, shop.product(50).await);
    let many = ["lost_answer", "flaky", "slow"]
        .repeat(4)
        .into_iter()
        .map(|token| {
            let (mut orders, request) = (shop.orders(), order(&user, &product, 1, token));
            tokio::spawn(async move {
                orders
                    .create_order(request)
                    .await
                    .unwrap()
                    .into_inner()
                    .status()
            })
        });
    for one in many.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), OrderStatus::Confirmed);
    }
    let keeper = Keeper::open(&shop).await;
    assert_eq!(
        keeper.faults(&[(product, 50)].into()).await,
        Vec::<String>::new()
    );
}

/// ACC-310, SHOP-505: payments away is told soon, with nothing left; the same request works when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn payments_away_is_a_temporary_failure() {
    let mut shop = Shop::start(&[]);
    let (user, product) = (shop.user().await, shop.product(5).await);
    shop.service("payments").kill();
    let request = order(&user, &product, 1, "");
    let mut away = Request::new(request.clone());
    away.set_timeout(PATIENCE);
    let away = shop.orders().create_order(away).await.unwrap_err();
    assert_eq!(away.code(), Code::Unavailable);
    shop.service("payments").start(None);
    let back = shop
        .orders()
        .create_order(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        back.status(),
        OrderStatus::Confirmed,
        "a temporary failure is not kept (SHOP-605)"
    );
    let keeper = Keeper::open(&shop).await;
    keeper.settle().await;
    assert_eq!(
        keeper.faults(&[(product, 5)].into()).await,
        Vec::<String>::new()
    );
}

/// ACC-306: payments hangs in the middle; what it does when it wakes up is not lost and not doubled.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_hangs_and_wakes_up_does_no_harm() {
    let mut shop = Shop::start(&[]);
    let (user, product) = (shop.user().await, shop.product(50).await);
    let keeper = Keeper::open(&shop).await;
    for name in ["payments", "products"] {
        let many = (0..6).map(|_| {
            let (mut orders, request) = (shop.orders(), order(&user, &product, 1, "slow"));
            tokio::spawn(async move { orders.create_order(request).await })
        });
        let many: Vec<_> = many.collect();
        shop.service(name).signal(Signal::STOP);
        // Until somebody has given up on it.
        until("a call timed out", || async {
            let books = keeper.read().await;
            books
                .values()
                .any(|page| page.saga.starts_with("compensate") || page.saga == "failed")
                || many.iter().all(tokio::task::JoinHandle::is_finished)
        })
        .await;
        shop.service(name).signal(Signal::CONT);
        for one in many {
            one.await.unwrap().ok();
        }
    }
    keeper.settle().await;
    assert_eq!(
        keeper.faults(&[(product, 50)].into()).await,
        Vec::<String>::new()
    );
}

/// SHOP-405: a cancellation in the middle of the saga, at every point where it may come.
#[tokio::test(flavor = "multi_thread")]
async fn cancelling_while_the_saga_runs_leaves_nothing() {
    let shop = Shop::start(&[]);
    let (user, product) = (shop.user().await, shop.product(50).await);
    let mut asked = Vec::new();
    for token in ["slow", "", "slow", "flaky", "lost_answer", ""] {
        let mut request = by(&user, order(&user, &product, 1, token));
        request
            .metadata_mut()
            .insert("prefer", "respond-async".parse().unwrap());
        let id = shop
            .orders()
            .create_order(request)
            .await
            .unwrap()
            .into_inner()
            .order_id;
        let cancel = CancelOrderRequest {
            order_id: id.clone(),
            ..CancelOrderRequest::default()
        };
        let (mut orders, cancel) = (shop.orders(), by(&user, cancel));
        asked.push((
            id,
            tokio::spawn(async move { orders.cancel_order(cancel).await }),
        ));
    }
    for (id, one) in asked {
        let told = one.await.unwrap().unwrap().into_inner();
        assert_eq!(told.status(), OrderStatus::Cancelled);
        let get = GetOrderRequest {
            order_id: id,
            ..GetOrderRequest::default()
        };
        let shown = shop
            .orders()
            .get_order(by(&user, get))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(shown.status(), OrderStatus::Cancelled);
    }
    let keeper = Keeper::open(&shop).await;
    keeper.settle().await;
    assert_eq!(
        keeper.faults(&[(product, 50)].into()).await,
        Vec::<String>::new()
    );
}

/// SHOP-506, SHOP-512: what cannot be undone is flagged, told, and can be tried again by a person.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_is_refused_is_flagged_for_a_person() {
    let shop = Shop::start(&[]);
    let (user, product) = (shop.user().await, shop.product(5).await);
    let made = shop
        .orders()
        .create_order(order(&user, &product, 1, "refund_refused"))
        .await;
    let id = made.unwrap().into_inner().order_id;
    let cancel = CancelOrderRequest {
        order_id: id.clone(),
        ..CancelOrderRequest::default()
    };
    let told = shop
        .orders()
        .cancel_order(cancel)
        .await
        .unwrap()
        .into_inner();
    assert!(told.status() == OrderStatus::Cancelled && !told.refunded);
    let page = format!("{}/sagas/{id}", shop.services["orders"].http());
    let (_, told) = curl(&[&page]);
    assert_eq!(told["compensation"]["manual_intervention_required"], true);
    assert_eq!(told["recovery_options"][0]["type"], "retry");
    let consistency = format!("{}/consistency", shop.services["orders"].http());
    until("the comparison finds it", || async {
        let (_, told) = curl(&[&consistency]);
        told["inconsistent"]
            .as_array()
            .is_some_and(|wrong| !wrong.is_empty())
    })
    .await;
    // The person talks to the processor.
    let ledger = shop.database("payments-processor").await;
    let mut write = ledger.write().await.unwrap();
    let sql = "UPDATE charges SET behaviour = 'works'";
    write.execute(sql, &[]).await.unwrap();
    write.commit().await.unwrap();
    // Whoever looks at it at this moment goes first.
    until("the retry is taken", || async {
        let (status, told) = curl(&["-X", "POST", &format!("{page}/retry")]);
        assert!(matches!(status, 202 | 409 | 503), "{status}: {told}");
        status == 202
    })
    .await;
    let keeper = Keeper::open(&shop).await;
    keeper.settle().await;
    assert_eq!(
        keeper.faults(&[(product, 5)].into()).await,
        Vec::<String>::new()
    );
}
