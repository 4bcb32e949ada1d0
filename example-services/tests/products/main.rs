//! The products service, on both databases.

#[path = "../support/mod.rs"]
mod support;

mod buyers;
mod cached;
mod catalog;
mod histories;
mod hostile;
mod program;
mod reservations;

use std::time::Duration;

use tollgate_example_services::{
    contracts::products::{
        CreateProductRequest, Item, products_service_client::ProductsServiceClient,
    },
    kit::{
        cache::{self, Cache},
        caller::Caller,
        metrics::Metrics,
        rules::Fields,
    },
    products::{
        catalog::{Catalog, Products},
        domain::{Product, Wanted},
        inventory::Inventory,
    },
};
use tonic::{Request, transport::Channel};
use uuid::Uuid;

use support::{Store, service::Program};

/// The inventory of a store, with a lifetime of one second.
pub(crate) fn inventory(store: &Store) -> Inventory {
    Inventory::new(
        store.database.clone(),
        Duration::from_secs(1),
        2,
        "USD",
        no_cache(),
    )
}

fn no_cache() -> Products {
    let metrics = Metrics::new("products");
    Cache::new("product", 0, Duration::ZERO, &cache::counters(&metrics))
}

fn catalog(store: &Store) -> Catalog {
    Catalog::new(store.database.clone(), no_cache())
}

/// A new product with so many in stock.
pub(crate) async fn product(store: &Store, stock: i32) -> Uuid {
    let id = Uuid::now_v7();
    let request = CreateProductRequest {
        name: "Kettle".into(),
        description: "Copper".into(),
        price: "49.90".into(),
        category: "kitchen".into(),
        sku: id.to_string(),
        stock_quantity: stock,
        ..Default::default()
    };
    let product = Product::new(&request, id, 1).unwrap();
    catalog(store).create(&product, "test").await.unwrap();
    id
}

/// So many of each.
pub(crate) fn wanted(items: &[(Uuid, i32)]) -> Wanted {
    let items: Vec<_> = items
        .iter()
        .map(|(product, quantity)| Item {
            product_id: product.to_string(),
            quantity: *quantity,
        })
        .collect();
    Wanted::read(&mut Fields::default(), &items)
}

/// Stock and what is held of it.
pub(crate) async fn numbers(store: &Store, id: Uuid) -> (i64, i64) {
    let product = catalog(store).product(id).await.unwrap().unwrap();
    (product.stock, product.reserved)
}

pub(crate) fn orders() -> Caller {
    Caller::internal("orders")
}

pub(crate) fn start(store: &Store, settings: &[&str]) -> Program {
    let mut all = vec!["--database", &store.address];
    all.extend(settings);
    Program::start(env!("CARGO_BIN_EXE_shop-products"), &all)
}

pub(crate) async fn client(program: &Program) -> ProductsServiceClient<Channel> {
    ProductsServiceClient::connect(program.grpc.clone())
        .await
        .unwrap()
}

/// A call through a gateway: of this user, or of nobody.
pub(crate) fn by<T>(user: Option<&str>, roles: &'static str, message: T) -> Request<T> {
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
