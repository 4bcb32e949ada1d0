//! Input that nobody sends by accident: every one is refused by name, and none is our failure.

use tollgate_example_services::{
    contracts::products as wire, kit::refusal::Refusal, products::MIGRATIONS,
};
use tonic::Code;
use uuid::Uuid;

use super::{client, numbers, product, start};
use crate::support::stores;

/// SHOP-301, SHOP-303, SHOP-805.
#[tokio::test]
async fn numbers_and_texts_at_their_ends() {
    for store in stores(&MIGRATIONS).await {
        let (program, id) = (start(&store, &[]), product(&store, 1_000_000_000).await);
        let mut products = client(&program).await;
        let item = |quantity| wire::Item {
            product_id: id.to_string(),
            quantity,
        };
        let reserve = |items: Vec<wire::Item>, key: &str| wire::ReserveInventoryRequest {
            order_id: Uuid::now_v7().to_string(),
            items,
            idempotency_key: key.into(),
        };
        for items in [
            vec![],
            vec![item(0)],
            vec![item(-1)],
            vec![item(i32::MAX)],
            vec![item(i32::MIN)],
            vec![item(1); 101],
        ] {
            let refused = products
                .reserve_inventory(reserve(items, ""))
                .await
                .unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
        }
        // Named twice is wanted twice; a key may be anything.
        for key in ["a\0b".to_string(), "k".repeat(10_000), "ключ".into()] {
            let held = products
                .reserve_inventory(reserve(vec![item(1), item(2)], &key))
                .await
                .unwrap()
                .into_inner();
            assert_eq!((held.items.len(), held.items[0].quantity), (1, 3));
        }
        assert_eq!(numbers(&store, id).await, (1_000_000_000, 9));

        let adjust = |change| wire::AdjustStockRequest {
            product_id: id.to_string(),
            change,
            ..Default::default()
        };
        for change in [0, i32::MAX, i32::MIN] {
            assert_eq!(
                products
                    .adjust_stock(adjust(change))
                    .await
                    .unwrap_err()
                    .code(),
                Code::InvalidArgument
            );
        }
        assert_eq!(
            products.adjust_stock(adjust(1)).await.unwrap_err().code(),
            Code::FailedPrecondition,
            "as many as can be"
        );
        assert_eq!(
            products
                .adjust_stock(adjust(-1_000_000_000))
                .await
                .unwrap_err()
                .code(),
            Code::FailedPrecondition
        );
        assert_eq!(numbers(&store, id).await, (1_000_000_000, 9));

        let nul = || "a\0b".to_string();
        let request = wire::CreateProductRequest {
            name: nul(),
            description: nul(),
            price: nul(),
            category: nul(),
            category_id: nul(),
            sku: nul(),
            image_url: "https://a\0b".into(),
            weight: nul(),
            dimensions: Some(wire::Dimensions {
                length: nul(),
                width: nul(),
                height: nul(),
            }),
            stock_quantity: i32::MIN,
            shop_id: nul(),
        };
        let refusal = Refusal::from_status(&products.create_product(request).await.unwrap_err());
        assert_eq!(
            (refusal.code(), refusal.bad_fields().len()),
            (Code::InvalidArgument, 13),
            "{refusal:?}"
        );
        let search = wire::SearchProductsRequest {
            text: nul(),
            category: nul(),
            category_id: nul(),
            min_price: "99999999999999999999".into(),
            max_price: "-0".into(),
            shop_id: nul(),
            page: i32::MIN,
            limit: i32::MAX,
            sort_by: nul(),
            order: nul(),
            status: 99,
        };
        let refusal = Refusal::from_status(&products.search_products(search).await.unwrap_err());
        assert_eq!(
            (refusal.code(), refusal.bad_fields().len()),
            (Code::InvalidArgument, 10),
            "{refusal:?}"
        );
        let many = wire::GetProductsRequest {
            product_ids: vec![id.to_string(); 101],
        };
        assert_eq!(
            products.get_products(many).await.unwrap_err().code(),
            Code::InvalidArgument
        );
        let category = wire::CreateCategoryRequest {
            name: "ok".into(),
            parent_id: Uuid::now_v7().to_string(),
            description: String::new(),
        };
        assert_eq!(
            products.create_category(category).await.unwrap_err().code(),
            Code::InvalidArgument,
            "no such parent"
        );
    }
}
