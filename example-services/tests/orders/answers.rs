//! How soon a request for an order is answered, and over what.

use std::time::Duration;

use rustix::process::Signal;
use tollgate_example_services::contracts::orders::{
    GetOrderStatusRequest, OrderStatus, order::Phase,
};
use tonic::{Code, Request};

use crate::{
    clients::order,
    support::{
        service::curl,
        shop::{Shop, until},
    },
};

/// SHOP-403, SHOP-404: who does not wait is told where to look, and everything known is told at once.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_not_finished_can_be_asked_for() {
    let shop = Shop::start(&[("orders", "--payment-timeout=180s")]);
    let (user, product) = (shop.user().await, shop.product(5).await);
    let mut request = Request::new(order(&user, &product, 1, ""));
    // Nothing comes to its end before payments goes on.
    shop.services["payments"].signal(Signal::STOP);
    request
        .metadata_mut()
        .insert("prefer", "respond-async".parse().unwrap());
    let accepted = shop.orders().create_order(request).await.unwrap();
    assert_eq!(accepted.metadata().get("x-http-code").unwrap(), "202");
    let place = accepted
        .metadata()
        .get("location")
        .unwrap()
        .to_str()
        .unwrap()
        .to_string();
    let accepted = accepted.into_inner();
    assert!(accepted.processing);
    assert_eq!(place, format!("/orders/{}/status", accepted.order_id));
    let asked = GetOrderStatusRequest {
        order_id: accepted.order_id.clone(),
    };
    let first = shop
        .orders()
        .get_order_status(asked.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first.phase(), Phase::Pending);

    // A deadline that is over leaves the order to its saga. Where even the answer came too late, it is asked for again.
    let request = order(&user, &product, 1, "");
    until("the deadline is heeded", || async {
        let mut short = Request::new(request.clone());
        short.set_timeout(Duration::from_secs(1));
        match shop.orders().create_order(short).await {
            Ok(short) => {
                assert!(short.get_ref().processing);
                true
            }
            Err(late) => {
                assert!(matches!(
                    late.code(),
                    Code::Cancelled | Code::DeadlineExceeded
                ));
                false
            }
        }
    })
    .await;

    shop.services["payments"].signal(Signal::CONT);
    until("it is confirmed", || async {
        let now = shop
            .orders()
            .get_order_status(asked.clone())
            .await
            .unwrap()
            .into_inner();
        now.status() == OrderStatus::Confirmed && !now.processing
    })
    .await;
}

/// ACC-202, SHOP-105, SHOP-403: the service's own REST says 201, or 202 for what is not finished.
#[tokio::test(flavor = "multi_thread")]
async fn orders_can_be_made_in_json() {
    let shop = Shop::start(&[("orders", "--payment-timeout=180s")]);
    let (user, product) = (shop.user().await, shop.product(5).await);
    let address = r#""shipping_address": {"street": "1 Main St", "city": "Springfield", "state": "IL", "zip_code": "62701", "country": "USA"}"#;
    let order = |quantity: i32| {
        format!(
            r#"{{"user_id": "{user}", "payment_method": "card", "payment_token": "",
                "items": [{{"product_id": "{product}", "quantity": {quantity}}}], {address}}}"#
        )
    };
    let page = format!("{}/orders", shop.services["orders"].http());
    let post = |body: &str, prefer: &str| {
        let header = format!("prefer: {prefer}");
        curl(&[
            "-d",
            body,
            "-H",
            "content-type: application/json",
            "-H",
            &header,
            &page,
        ])
    };
    let (status, made) = post(&order(1), "");
    assert_eq!(
        (status, &made["data"]["status"]),
        (201, &"CONFIRMED".into()),
        "{made}"
    );
    shop.services["payments"].signal(Signal::STOP);
    let (status, accepted) = post(&order(2), "respond-async");
    assert_eq!(
        (status, &accepted["data"]["processing"]),
        (202, &true.into())
    );
    shop.services["payments"].signal(Signal::CONT);
    let (status, refused) = post(&order(9), "");
    assert_eq!(
        (status, &refused["error"]["code"]),
        (409, &"INSUFFICIENT_STOCK".into())
    );
    let (status, wrong) = post("{}", "");
    let fields = wrong["error"]["details"]["fields"].as_array().unwrap();
    assert!(status == 400 && fields.len() > 2, "{wrong}");
}
