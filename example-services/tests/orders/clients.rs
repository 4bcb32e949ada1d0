//! What clients of orders see when everything works.

use tollgate_example_services::contracts::orders::{
    self as contract, Address, CancelOrderRequest, CreateOrderRequest, GetOrderRequest,
    ListOrdersRequest, NewItem, OrderStatus, UpdateOrderStatusRequest, order::Phase,
};
use tonic::{Code, Request};

use crate::support::{books::Keeper, shop::Shop};

/// One order of this product.
pub(crate) fn order(user: &str, product: &str, quantity: i32, token: &str) -> CreateOrderRequest {
    CreateOrderRequest {
        user_id: user.into(),
        items: vec![NewItem {
            product_id: product.into(),
            quantity,
        }],
        shipping_address: Some(Address {
            street: "1 Main St".into(),
            city: "Springfield".into(),
            state: "IL".into(),
            zip_code: "62701".into(),
            country: "USA".into(),
        }),
        payment_method: "card".into(),
        payment_token: token.into(),
        idempotency_key: uuid::Uuid::new_v4().to_string(),
        ..CreateOrderRequest::default()
    }
}

/// A request on behalf of a user.
pub(crate) fn by<T>(user: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-user-id", user.parse().unwrap());
    metadata.insert("x-service-id", "gateway".parse().unwrap());
    request
}

/// ACC-202, ACC-301.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_order_is_confirmed_charged_once_and_taken_from_stock() {
    let shop = Shop::start(&[("orders", "--tax=825")]);
    let (user, product) = (shop.user().await, shop.product(5).await);
    let mut request = order(&user, &product, 2, "");
    request.set_shipping_method(contract::ShippingMethod::Express);
    let made = shop
        .orders()
        .create_order(by(&user, request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(made.status(), OrderStatus::Confirmed);
    assert_eq!(made.phase(), Phase::Confirmed);
    let sums = [&made.sub_total, &made.tax, &made.shipping, &made.total];
    assert_eq!(sums, ["20.00", "1.65", "9.99", "31.64"]);
    let states: Vec<_> = made
        .history
        .iter()
        .map(contract::StatusChange::status)
        .collect();
    use OrderStatus as S;
    assert_eq!(states, [S::Created, S::Reserved, S::Paid, S::Confirmed]);
    assert!(!made.processing && !made.payment_id.is_empty());
    let keeper = Keeper::open(&shop).await;
    assert_eq!(
        keeper.faults(&[(product, 5)].into()).await,
        Vec::<String>::new()
    );
    let page = keeper.read().await.into_values().next().unwrap();
    assert_eq!(
        (page.charges, page.reservation.as_str()),
        (vec![3164], "committed")
    );
}

/// ACC-305, SHOP-510, SHOP-606, DEC-22.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_order_many_times_is_one_order() {
    let shop = Shop::start(&[]);
    let (user, product) = (shop.user().await, shop.product(50).await);
    let request = order(&user, &product, 1, "");
    let many = (0..16).map(|_| {
        let (mut orders, request) = (shop.orders(), request.clone());
        tokio::spawn(async move { orders.create_order(request).await.unwrap().into_inner() })
    });
    let mut ids = Vec::new();
    for one in many.collect::<Vec<_>>() {
        let one = one.await.unwrap();
        assert_eq!(
            one.status(),
            OrderStatus::Confirmed,
            "everyone gets the same answer"
        );
        ids.push(one.order_id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let mut other = request.clone();
    other.items[0].quantity = 2;
    let refused = shop.orders().create_order(other).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::AlreadyExists,
        "another order under the same key"
    );

    let mut double = request.clone();
    double.idempotency_key.clear();
    let first = shop
        .orders()
        .create_order(double.clone())
        .await
        .unwrap()
        .into_inner();
    let second = shop
        .orders()
        .create_order(double)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first.order_id, second.order_id, "a double click");
    assert_ne!(first.order_id, ids[0]);
}

/// ACC-308: the last item has one buyer.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_buyers_of_the_last_item_one_gets_it() {
    let shop = Shop::start(&[]);
    let (user, product) = (shop.user().await, shop.product(1).await);
    let many = (0..12).map(|_| {
        let (mut orders, request) = (shop.orders(), order(&user, &product, 1, ""));
        tokio::spawn(async move { orders.create_order(request).await })
    });
    let mut made = 0;
    for one in many.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(order) => made += i32::from(order.get_ref().status() == OrderStatus::Confirmed),
            Err(refused) => assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}"),
        }
    }
    assert_eq!(made, 1);
    let keeper = Keeper::open(&shop).await;
    keeper.settle().await;
    assert_eq!(
        keeper.faults(&[(product, 1)].into()).await,
        Vec::<String>::new()
    );
}

/// SHOP-408, SHOP-803.
#[tokio::test(flavor = "multi_thread")]
async fn others_do_not_see_an_order_and_lists_are_paged() {
    let shop = Shop::start(&[]);
    let (ada, eve, product) = (shop.user().await, shop.user().await, shop.product(50).await);
    let mut ids = Vec::new();
    for _ in 0..3 {
        let made = shop
            .orders()
            .create_order(by(&ada, order(&ada, &product, 1, "")))
            .await;
        ids.push(made.unwrap().into_inner().order_id);
    }
    let get = |user: &str| {
        by(
            user,
            GetOrderRequest {
                order_id: ids[0].clone(),
                ..GetOrderRequest::default()
            },
        )
    };
    assert!(shop.orders().get_order(get(&ada)).await.is_ok());
    assert_eq!(
        shop.orders().get_order(get(&eve)).await.unwrap_err().code(),
        Code::NotFound
    );
    let cancel = CancelOrderRequest {
        order_id: ids[0].clone(),
        ..CancelOrderRequest::default()
    };
    assert_eq!(
        shop.orders()
            .cancel_order(by(&eve, cancel))
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
    let foreign = shop
        .orders()
        .create_order(by(&eve, order(&ada, &product, 1, "")))
        .await;
    assert_eq!(foreign.unwrap_err().code(), Code::PermissionDenied);

    let list = |user: &str, page, status: &str| {
        by(
            user,
            ListOrdersRequest {
                page,
                limit: 2,
                status: status.into(),
                ..ListOrdersRequest::default()
            },
        )
    };
    let first = shop
        .orders()
        .list_orders(list(&ada, 1, "CONFIRMED"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (first.orders.len(), first.pagination.unwrap().total),
        (2, 3)
    );
    let second = shop
        .orders()
        .list_orders(list(&ada, 2, ""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(second.orders[0].order_id, ids[0], "the oldest comes last");
    let none = shop
        .orders()
        .list_orders(list(&eve, 1, ""))
        .await
        .unwrap()
        .into_inner();
    assert!(none.orders.is_empty());
    let wrong = shop
        .orders()
        .list_orders(list(&ada, 1, "LOST"))
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
}

/// SHOP-405, SHOP-409, SHOP-410, SHOP-307: parts, the whole, and back again.
#[tokio::test(flavor = "multi_thread")]
async fn orders_are_shipped_returned_and_cancelled_as_their_states_allow() {
    let shop = Shop::start(&[]);
    let (user, product) = (shop.user().await, shop.product(9).await);
    let make = || async {
        let made = shop
            .orders()
            .create_order(order(&user, &product, 3, ""))
            .await;
        made.unwrap().into_inner()
    };
    let update = |order: &contract::Order, status: OrderStatus, part: i32, version: Option<i32>| {
        let shipped = contract::ShippedItem {
            product_id: product.clone(),
            quantity: part,
        };
        UpdateOrderStatusRequest {
            order_id: order.order_id.clone(),
            status: status as i32,
            shipped: if part > 0 { vec![shipped] } else { Vec::new() },
            version,
            ..UpdateOrderStatusRequest::default()
        }
    };
    let mut orders = shop.orders();
    let one = make().await;
    let denied = orders
        .update_order_status(by(&user, update(&one, OrderStatus::Shipped, 0, None)))
        .await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    let stale = orders
        .update_order_status(update(&one, OrderStatus::Shipped, 0, Some(1)))
        .await;
    assert_eq!(stale.unwrap_err().code(), Code::Aborted);
    let part = orders
        .update_order_status(update(&one, OrderStatus::Shipped, 1, None))
        .await;
    assert_eq!(part.unwrap().into_inner().status(), OrderStatus::Confirmed);
    let much = orders
        .update_order_status(update(&one, OrderStatus::Shipped, 3, None))
        .await;
    assert_eq!(much.unwrap_err().code(), Code::InvalidArgument);
    let rest = orders
        .update_order_status(update(&one, OrderStatus::Shipped, 2, None))
        .await;
    assert_eq!(rest.unwrap().into_inner().status(), OrderStatus::Shipped);
    let cancel = |order: &contract::Order| CancelOrderRequest {
        order_id: order.order_id.clone(),
        reason: "changed my mind".into(),
        ..CancelOrderRequest::default()
    };
    let late = orders
        .cancel_order(by(&user, cancel(&one)))
        .await
        .unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition, "it is on its way");
    let back = orders
        .update_order_status(update(&one, OrderStatus::Returned, 0, None))
        .await;
    assert_eq!(back.unwrap().into_inner().status(), OrderStatus::Returned);

    let two = make().await;
    let cancelled = orders
        .cancel_order(by(&user, cancel(&two)))
        .await
        .unwrap()
        .into_inner();
    assert!(cancelled.status() == OrderStatus::Cancelled && cancelled.refunded);
    let again = orders
        .cancel_order(by(&user, cancel(&two)))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again.status(), OrderStatus::Cancelled);
    let shown = GetOrderRequest {
        order_id: two.order_id.clone(),
        ..GetOrderRequest::default()
    };
    let shown = orders
        .get_order(by(&user, shown))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(shown.cancel_reason, "changed my mind");
    make().await;

    let keeper = Keeper::open(&shop).await;
    keeper.settle().await;
    assert_eq!(
        keeper.faults(&[(product, 9)].into()).await,
        Vec::<String>::new()
    );
}
