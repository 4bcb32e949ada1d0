//! What customers are told of their orders (SHOP-902), through a carrier that only writes down what it would carry.

use std::sync::Arc;

use serde_json::Value;
use tollgate_example_services::contracts::{
    orders::{CancelOrderRequest, OrderStatus},
    users::{
        Notifications, Preferences, Profile, UpdateUserRequest,
        users_service_client::UsersServiceClient,
    },
};

use crate::{
    clients::order,
    support::{
        postgres::{self, Server},
        shop::{Shop, channel, until},
    },
};

const FILES: [(&str, &str); 2] = [
    ("orders", "--mail=simulated:mail.jsonl"),
    ("orders", "--sms=simulated:sms.jsonl"),
];

/// What was carried so far.
fn carried(shop: &Shop, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(shop.folder.path().join(file)).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn until_carried(shop: &Shop, file: &str, count: usize) -> Vec<Value> {
    until("so many are carried", || async {
        carried(shop, file).len() >= count
    })
    .await;
    carried(shop, file)
}

async fn ordered(shop: &Shop, user: &str, product: &str) -> String {
    let made = shop
        .orders()
        .create_order(order(user, product, 1, ""))
        .await;
    let made = made.unwrap().into_inner();
    assert_eq!(made.status(), OrderStatus::Confirmed);
    made.order_id
}

async fn both_ends_are_told(server: Option<Arc<Server>>) {
    let mut shop = Shop::on(server, &FILES);
    let (user, product) = (shop.user().await, shop.product(5).await);
    let id = ordered(&shop, &user, &product).await;
    // Nobody has to be there when it is carried.
    shop.service("orders").kill();
    shop.service("orders").start(None);
    until_carried(&shop, "mail.jsonl", 1).await;
    let asked = CancelOrderRequest {
        order_id: id.clone(),
        ..Default::default()
    };
    shop.orders().cancel_order(asked).await.unwrap();
    let told = |kind: &'static str| {
        let (shop, id) = (&shop, &id);
        move || async move {
            let letters = carried(shop, "mail.jsonl");
            let subject = format!("Your order {id} is {kind}");
            letters
                .iter()
                .any(|letter| letter["subject"] == subject.as_str())
        }
    };
    until("confirmed", told("confirmed")).await;
    until("cancelled", told("cancelled")).await;
    // A kill may have one carried twice; it is the same letter by its key.
    let letters = carried(&shop, "mail.jsonl");
    let mut keys: Vec<_> = letters
        .iter()
        .map(|letter| letter["key"].to_string())
        .collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 2, "{letters:?}");
    assert!(letters[0]["to"].as_str().unwrap().ends_with("@example.com"));
    assert!(
        carried(&shop, "sms.jsonl").is_empty(),
        "nobody asked for it"
    );
    let orders = shop.database("orders").await;
    until("it is kept that they were sent", || async {
        let sql = "SELECT COUNT(*) FROM events WHERE type = 'notification.sent.v1'";
        let row = orders.first(sql, &[]).await.unwrap().unwrap();
        row.int(0).unwrap() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shop_902_customers_are_told_that_an_order_is_confirmed_or_cancelled() {
    both_ends_are_told(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shop_902_customers_are_told_on_postgres() {
    if let Some(server) = postgres::server() {
        both_ends_are_told(Some(server)).await;
    }
}

/// SHOP-902: a carrier that does not work costs no order, and is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn shop_902_a_letter_that_is_not_carried_harms_no_order() {
    let shop = Shop::on(None, &[("orders", "--mail=simulated:later/mail.jsonl")]);
    let (user, product) = (shop.user().await, shop.product(5).await);
    ordered(&shop, &user, &product).await;
    let orders = shop.database("orders").await;
    until("it was tried", || async {
        let sql = "SELECT tries FROM notices WHERE state = 'waiting' AND tries > 0";
        orders.first(sql, &[]).await.unwrap().is_some()
    })
    .await;
    std::fs::create_dir(shop.folder.path().join("later")).unwrap();
    let letters = until_carried(&shop, "later/mail.jsonl", 1).await;
    assert_eq!(letters.len(), 1);
}

/// SHOP-201, SHOP-902: told where they want to be told.
#[tokio::test(flavor = "multi_thread")]
async fn shop_902_preferences_say_how_somebody_is_told() {
    let shop = Shop::on(None, &FILES);
    let (user, product) = (shop.user().await, shop.product(5).await);
    let wishes = UpdateUserRequest {
        user_id: user.clone(),
        profile: Some(Profile {
            phone: "+15551234567".into(),
            ..Default::default()
        }),
        preferences: Some(Preferences {
            notifications: Some(Notifications {
                sms: true,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut users = UsersServiceClient::new(channel(&shop.services["users"]));
    users.update_user(wishes).await.unwrap();
    ordered(&shop, &user, &product).await;
    let messages = until_carried(&shop, "sms.jsonl", 1).await;
    assert_eq!(messages[0]["to"], "+15551234567");
    assert!(carried(&shop, "mail.jsonl").is_empty());
}
