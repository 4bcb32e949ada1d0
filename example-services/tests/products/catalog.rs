//! The catalog over gRPC: who may change it, what may be in it, how it is searched.

use tokio_stream::StreamExt;
use tollgate_example_services::{
    contracts::products as wire, kit::refusal::Refusal, products::MIGRATIONS,
};
use tonic::Code;
use uuid::Uuid;

use super::{by, client, start};
use crate::support::{sqlite, stores};

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

#[tokio::test]
async fn shop_801_a_product_page_is_told_in_one_answer() {
    for store in stores(&MIGRATIONS).await {
        let program = start(&store, &[]);
        let mut products = client(&program).await;
        for (sku, stock) in [("some", 3), ("none", 0)] {
            let mut new = kettle(sku);
            new.stock_quantity = stock;
            let made = products
                .create_product(by(Some("u"), "admin", new))
                .await
                .unwrap()
                .into_inner();
            let page = wire::GetProductRequest {
                product_id: made.product_id.clone(),
            };
            let page = { products.get_complete_product(by(None, "", page)).await }
                .unwrap()
                .into_inner();
            assert_eq!(page.in_stock, stock > 0);
            assert_eq!(
                page.product.map(|product| product.product_id),
                Some(made.product_id)
            );
            // Nobody here keeps reviews, and nobody makes them up.
            assert_eq!((page.rating, page.partial), (None, vec!["reviews".into()]));
        }
        let nobody = wire::GetProductRequest {
            product_id: uuid::Uuid::now_v7().to_string(),
        };
        let refused = products.get_complete_product(nobody).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }
}
