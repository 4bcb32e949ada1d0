//! The products service, on both databases.

#[path = "../support/mod.rs"]
mod support;

mod buyers;
mod histories;
mod program;

use tollgate_example_services::{
    contracts::products::{CreateProductRequest, Item},
    kit::{caller::Caller, rules::Fields},
    products::{
        catalog::Catalog,
        domain::{Product, Wanted},
        inventory::Inventory,
    },
};
use uuid::Uuid;

use support::Store;

/// The inventory of a store, with a lifetime of one second.
pub(crate) fn inventory(store: &Store) -> Inventory {
    Inventory::new(
        store.database.clone(),
        std::time::Duration::from_secs(1),
        2,
        "USD",
    )
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
    Catalog::new(store.database.clone())
        .create(&product, "test")
        .await
        .unwrap();
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
    let product = Catalog::new(store.database.clone())
        .product(id)
        .await
        .unwrap()
        .unwrap();
    (product.stock, product.reserved)
}

pub(crate) fn orders() -> Caller {
    Caller::internal("orders")
}
