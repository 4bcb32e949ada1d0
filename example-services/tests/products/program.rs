//! The program itself: over gRPC and HTTP, its permissions, and its end.

use serde_json::json;
use tokio_stream::StreamExt;
use tollgate_example_services::{
    contracts::products::{self as wire, products_service_client::ProductsServiceClient},
    kit::refusal::Refusal,
    products::MIGRATIONS,
};
use tonic::{Code, Request, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use uuid::Uuid;

use super::{numbers, product};
use crate::support::{
    Store,
    service::{Program, curl},
    sqlite, stores,
};

fn start(store: &Store, settings: &[&str]) -> Program {
    let mut all = vec!["--database", &store.address];
    all.extend(settings);
    Program::start(env!("CARGO_BIN_EXE_shop-products"), &all)
}

async fn client(program: &Program) -> ProductsServiceClient<Channel> {
    ProductsServiceClient::connect(program.grpc.clone())
        .await
        .unwrap()
}

/// A call through a gateway: of this user, or of nobody.
fn by<T>(user: Option<&str>, roles: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("x-service-id", "gateway".parse().unwrap());
    if let Some(user) = user {
        request
            .metadata_mut()
            .insert("x-user-id", user.parse().unwrap());
        request
            .metadata_mut()
            .insert("x-user-roles", roles.parse().unwrap());
    }
    request
}

fn kettle(sku: &str) -> wire::CreateProductRequest {
    wire::CreateProductRequest {
        name: "Copper kettle".into(),
        description: "Boils a litre".into(),
        price: "49.90".into(),
        category: "kitchen".into(),
        sku: sku.into(),
        stock_quantity: 3,
        ..Default::default()
    }
}

/// SHOP-301, SHOP-302, SHOP-801: who may do what with the catalog.
#[tokio::test]
async fn administrators_change_the_catalog_and_everybody_reads_it() {
    for store in stores(&MIGRATIONS).await {
        let program = start(&store, &[]);
        let mut products = client(&program).await;
        for (request, code) in [
            (by(None, "", kettle("a")), Code::Unauthenticated),
            (by(Some("u"), "user", kettle("a")), Code::PermissionDenied),
        ] {
            assert_eq!(
                products.create_product(request).await.unwrap_err().code(),
                code
            );
        }
        let made = products
            .create_product(by(Some("u"), "user,admin", kettle("a")))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (made.price.as_str(), made.available_quantity, made.status()),
            ("49.90", 3, wire::ProductStatus::Active)
        );
        let twice = products.create_product(kettle("a")).await.unwrap_err();
        assert_eq!(Refusal::from_status(&twice).reason(), "SKU_TAKEN");

        let get = || wire::GetProductRequest {
            product_id: made.product_id.clone(),
        };
        assert_eq!(
            products
                .get_product(by(None, "", get()))
                .await
                .unwrap()
                .into_inner(),
            made
        );

        let change = |version| wire::UpdateProductRequest {
            product_id: made.product_id.clone(),
            price: Some("39.5".into()),
            version,
            ..Default::default()
        };
        let changed = products
            .update_product(change(Some(1)))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (changed.price.as_str(), changed.version, changed.name),
            ("39.50", 2, made.name.clone())
        );
        assert_eq!(
            products
                .update_product(change(Some(1)))
                .await
                .unwrap_err()
                .code(),
            Code::Aborted
        );

        let adjust = |change| wire::AdjustStockRequest {
            product_id: made.product_id.clone(),
            change,
            reason: "count".into(),
            idempotency_key: "k".into(),
        };
        assert_eq!(
            products
                .adjust_stock(adjust(2))
                .await
                .unwrap()
                .into_inner()
                .stock_quantity,
            5
        );
        assert_eq!(
            products
                .adjust_stock(adjust(2))
                .await
                .unwrap()
                .into_inner()
                .stock_quantity,
            5,
            "once"
        );
        assert_eq!(
            products.adjust_stock(adjust(3)).await.unwrap_err().code(),
            Code::AlreadyExists
        );

        let delete = wire::DeleteProductRequest {
            product_id: made.product_id.clone(),
        };
        products.delete_product(delete).await.unwrap();
        assert_eq!(
            products
                .get_product(by(None, "", get()))
                .await
                .unwrap_err()
                .code(),
            Code::NotFound
        );
        assert!(
            !products
                .get_product(get())
                .await
                .unwrap()
                .into_inner()
                .is_active
        );
        let items = vec![wire::Item {
            product_id: made.product_id.clone(),
            quantity: 1,
        }];
        let reserve = wire::ReserveInventoryRequest {
            order_id: Uuid::now_v7().to_string(),
            items,
            ..Default::default()
        };
        let refused = products
            .reserve_inventory(reserve.clone())
            .await
            .unwrap_err();
        assert_eq!(
            Refusal::from_status(&refused).reason(),
            "PRODUCT_UNAVAILABLE"
        );
        let refused = products
            .reserve_inventory(by(Some("u"), "admin", reserve))
            .await
            .unwrap_err();
        assert_eq!(
            refused.code(),
            Code::PermissionDenied,
            "stock is held by services only"
        );
    }
}

/// SHOP-301, SHOP-805: all bad fields at once.
#[tokio::test]
async fn every_bad_field_is_named() {
    let store = sqlite(&MIGRATIONS).await;
    let program = start(&store, &[]);
    let mut products = client(&program).await;
    let request = wire::CreateProductRequest {
        name: "x".repeat(256),
        description: String::new(),
        price: "-1".into(),
        category: " ".into(),
        category_id: "kitchen".into(),
        sku: "a b".into(),
        image_url: "data:".into(),
        weight: "heavy".into(),
        dimensions: Some(wire::Dimensions {
            length: "1".into(),
            width: String::new(),
            height: "1.2345".into(),
        }),
        stock_quantity: -1,
        shop_id: "x".repeat(101),
    };
    let refusal = Refusal::from_status(&products.create_product(request).await.unwrap_err());
    let mut names: Vec<_> = refusal
        .bad_fields()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    let expected = [
        "category",
        "category_id",
        "description",
        "dimensions.height",
        "dimensions.width",
        "image_url",
        "name",
        "price",
        "shop_id",
        "sku",
        "stock_quantity",
        "weight",
    ];
    assert_eq!(names, expected);

    let reserve = wire::ReserveInventoryRequest {
        order_id: "7".into(),
        items: vec![wire::Item {
            product_id: String::new(),
            quantity: 0,
        }],
        ..Default::default()
    };
    let refusal = Refusal::from_status(&products.reserve_inventory(reserve).await.unwrap_err());
    let names: Vec<_> = refusal
        .bad_fields()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        names,
        ["order_id", "items[0].product_id", "items[0].quantity"]
    );
}

/// SHOP-302, SHOP-309, SHOP-803: words, filters, order and pages; and all of it as a stream.
#[tokio::test]
async fn what_is_looked_for_is_found() {
    for store in stores(&MIGRATIONS).await {
        let program = start(&store, &["--sample-data"]);
        let mut products = client(&program).await;
        let mut names = async |request: wire::SearchProductsRequest| {
            let found = products
                .search_products(by(None, "", request))
                .await
                .unwrap()
                .into_inner();
            found
                .products
                .into_iter()
                .map(|product| product.name)
                .collect::<Vec<_>>()
        };
        let search = wire::SearchProductsRequest::default();
        assert_eq!(
            names(wire::SearchProductsRequest {
                text: "KETT boil".into(),
                ..search.clone()
            })
            .await,
            ["Copper kettle"]
        );
        assert_eq!(
            names(wire::SearchProductsRequest {
                text: "ettle".into(),
                ..search.clone()
            })
            .await
            .len(),
            0
        );
        let hostile = r#""' OR 1=1 -- NEAR( a:* & !b"#;
        assert_eq!(
            names(wire::SearchProductsRequest {
                text: hostile.into(),
                ..search.clone()
            })
            .await
            .len(),
            0
        );
        let cheap = wire::SearchProductsRequest {
            category: "kitchen".into(),
            max_price: "39".into(),
            sort_by: "price".into(),
            order: "asc".into(),
            ..search.clone()
        };
        assert_eq!(
            names(cheap).await,
            ["Tea towel", "Bread knife", "Cast iron pan"]
        );
        let page = |page| wire::SearchProductsRequest {
            page,
            limit: 4,
            sort_by: "name".into(),
            order: "asc".into(),
            ..search.clone()
        };
        let mut all = Vec::new();
        for number in 1..=3 {
            all.extend(names(page(number)).await);
        }
        assert_eq!(all.len(), 10);
        assert!(all.is_sorted());
        let bad = wire::SearchProductsRequest {
            sort_by: "secret".into(),
            min_price: "x".into(),
            status: 2,
            ..search.clone()
        };
        let refused = products
            .search_products(by(None, "", bad))
            .await
            .unwrap_err();
        assert_eq!(Refusal::from_status(&refused).bad_fields().len(), 3);
        let stream = products.stream_products(search).await.unwrap().into_inner();
        assert_eq!(
            stream.collect::<Result<Vec<_>, _>>().await.unwrap().len(),
            10
        );
    }
}

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

/// SHOP-105, ACC-102, OBS-707: HTTP, the gRPC health service, and a clean end.
#[tokio::test]
async fn the_same_over_http_and_healthy() {
    let store = sqlite(&MIGRATIONS).await;
    let mut program = start(&store, &["--sample-data", "--expiry-every", "100ms"]);
    let url = |path: &str| format!("{}{path}", program.http);
    let (status, page) = curl(&[&url("/products?limit=3&sortBy=price&order=desc")]);
    assert_eq!(
        (status, &page["data"][0]["price"]),
        (200, &json!("1899.00")),
        "{page}"
    );
    assert_eq!(page["pagination"]["pages"], 4);
    let id = page["data"][0]["product_id"].as_str().unwrap();
    let (status, one) = curl(&[&url(&format!("/products/{id}"))]);
    assert_eq!(
        (status, &one["data"]["available_quantity"]),
        (200, &json!(1))
    );
    let stock = json!({ "change": -2 }).to_string();
    let (status, refused) = curl(&["--json", &stock, &url(&format!("/products/{id}/stock"))]);
    assert_eq!(
        (status, &refused["error"]["code"]),
        (409, &json!("INSUFFICIENT_STOCK")),
        "{refused}"
    );
    assert_eq!(refused["error"]["details"]["available"], "1");
    let (status, _) = curl(&[
        "--json",
        &json!({ "name": "garden" }).to_string(),
        &url("/categories"),
    ]);
    assert_eq!(status, 201);
    let (_, list) = curl(&[&url("/categories")]);
    assert_eq!(list["data"]["categories"].as_array().unwrap().len(), 4);

    let mut health =
        HealthClient::new(tollgate_example_services::kit::channel::to(&program.grpc).unwrap());
    for service in ["", "products.v1.ProductsService"] {
        let asked = HealthCheckRequest {
            service: service.into(),
        };
        assert_eq!(health.check(asked).await.unwrap().into_inner().status, 1);
    }
    assert_eq!(program.stop(), Some(0));
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
