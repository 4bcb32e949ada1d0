//! Things to buy (SHOP-810).

use uuid::Uuid;

use super::{catalog::Catalog, domain::Product};
use crate::{
    contracts::products::{Category, CreateProductRequest},
    kit::{refusal::Refusal, time},
};

/// Name, description, price, category, SKU, how many.
const THINGS: [(&str, &str, &str, &str, &str, i32); 10] = [
    (
        "Copper kettle",
        "Boils a litre of water in four minutes.",
        "49.90",
        "kitchen",
        "KIT-001",
        1000,
    ),
    (
        "Cast iron pan",
        "Heavy, and good for generations.",
        "39.00",
        "kitchen",
        "KIT-002",
        1000,
    ),
    (
        "Bread knife",
        "Serrated, 24 cm of steel.",
        "24.50",
        "kitchen",
        "KIT-003",
        1000,
    ),
    (
        "Tea towel",
        "Linen, dries quickly.",
        "7.95",
        "kitchen",
        "KIT-004",
        1000,
    ),
    (
        "Desk lamp",
        "Warm light, two joints.",
        "59.00",
        "office",
        "OFF-001",
        1000,
    ),
    (
        "Notebook",
        "Squared paper, 160 pages.",
        "6.40",
        "office",
        "OFF-002",
        1000,
    ),
    (
        "Fountain pen",
        "Steel nib, with a converter.",
        "32.00",
        "office",
        "OFF-003",
        1000,
    ),
    (
        "Wool blanket",
        "Merino, 140 by 200 cm.",
        "119.00",
        "home",
        "HOM-001",
        1000,
    ),
    (
        "Beeswax candle",
        "Burns for thirty hours.",
        "14.20",
        "home",
        "HOM-002",
        1000,
    ),
    (
        "Grandfather clock",
        "The last one.",
        "1899.00",
        "home",
        "HOM-003",
        1,
    ),
];

/// Fills an empty catalog; leaves every other one alone.
pub(super) async fn fill(catalog: &Catalog) -> Result<(), Refusal> {
    if !catalog.is_empty().await? {
        return Ok(());
    }
    for name in ["kitchen", "office", "home"] {
        let category = Category {
            name: name.into(),
            ..Default::default()
        };
        catalog
            .create_category(&category, Uuid::now_v7(), None)
            .await?;
    }
    for (name, description, price, category, sku, stock) in THINGS {
        let request = CreateProductRequest {
            name: name.into(),
            description: description.into(),
            price: price.into(),
            category: category.into(),
            sku: sku.into(),
            stock_quantity: stock,
            ..Default::default()
        };
        let product = Product::new(&request, Uuid::now_v7(), time::now())?;
        catalog.create(&product, "sample").await?;
    }
    Ok(())
}
