//! Products that are kept in memory for those who look around (SHOP-809): never other than in the database, whatever changes.

use tollgate_example_services::{
    contracts::products::{self as wire, products_service_client::ProductsServiceClient},
    products::MIGRATIONS,
};
use tonic::transport::Channel;
use uuid::Uuid;

use super::{client, start};
use crate::support::{service::Program, shop::until, stores};

type Client = ProductsServiceClient<Channel>;

/// As it is kept, beside what is read each time.
async fn seen(client: &mut Client, id: &str) -> [wire::Product; 2] {
    let one = wire::GetProductRequest {
        product_id: id.into(),
    };
    let many = wire::GetProductsRequest {
        product_ids: vec![id.into()],
    };
    let fresh = client.get_products(many).await.unwrap().into_inner();
    [
        client.get_product(one).await.unwrap().into_inner(),
        fresh.products[0].clone(),
    ]
}

async fn new_product(client: &mut Client) -> String {
    let request = wire::CreateProductRequest {
        name: "Kettle".into(),
        description: "Copper".into(),
        price: "10.00".into(),
        category: "kitchen".into(),
        sku: Uuid::new_v4().to_string(),
        stock_quantity: 10,
        ..Default::default()
    };
    let made = client.create_product(request).await.unwrap();
    made.into_inner().product_id
}

/// Holds two of it.
async fn reserved(client: &mut Client, id: &str) -> String {
    let order = Uuid::new_v4().to_string();
    let asked = wire::ReserveInventoryRequest {
        order_id: order.clone(),
        items: vec![wire::Item {
            product_id: id.into(),
            quantity: 2,
        }],
        ..Default::default()
    };
    client.reserve_inventory(asked).await.unwrap();
    order
}

fn reads(program: &Program, result: &str) -> u64 {
    let url = format!("{}/metrics", program.http);
    let out = std::process::Command::new("curl")
        .args(["--silent", &url])
        .output();
    let page = String::from_utf8(out.unwrap().stdout).unwrap();
    let line = format!("cache_reads_total{{cache=\"product\",result=\"{result}\"}} ");
    let value = page
        .lines()
        .find_map(|found| found.strip_prefix(line.as_str()));
    value.unwrap().parse().unwrap()
}

/// SHOP-809, SHOP-308: every kind of change is seen at once, although nothing grows old here.
#[tokio::test]
async fn shop_809_whatever_changes_is_seen_at_once() {
    for store in stores(&MIGRATIONS).await {
        let settings = ["--cache-lifetime=1h", "--expiry-every=100ms"];
        let program = start(&store, &settings);
        let mut client = client(&program).await;
        let id = new_product(&mut client).await;
        let mut available = Vec::new();
        let mut look = async |client: &mut Client| {
            let [kept, fresh] = seen(client, &id).await;
            assert_eq!(kept, fresh);
            available.push(kept.available_quantity);
        };
        look(&mut client).await;
        let change = wire::AdjustStockRequest {
            product_id: id.clone(),
            change: 5,
            ..Default::default()
        };
        client.adjust_stock(change).await.unwrap();
        look(&mut client).await;
        let order = reserved(&mut client, &id).await;
        look(&mut client).await;
        let asked = wire::ReleaseInventoryRequest {
            order_id: order,
            ..Default::default()
        };
        client.release_inventory(asked).await.unwrap();
        look(&mut client).await;
        let order = reserved(&mut client, &id).await;
        let asked = wire::CommitInventoryRequest {
            order_id: order.clone(),
            ..Default::default()
        };
        client.commit_inventory(asked).await.unwrap();
        look(&mut client).await;
        let asked = wire::RestockInventoryRequest {
            order_id: order,
            ..Default::default()
        };
        client.restock_inventory(asked).await.unwrap();
        look(&mut client).await;
        let update = wire::UpdateProductRequest {
            product_id: id.clone(),
            price: Some("12.00".into()),
            ..Default::default()
        };
        client.update_product(update).await.unwrap();
        look(&mut client).await;
        assert_eq!(available, [10, 15, 13, 15, 13, 15, 15]);
        let before = reads(&program, "hit");
        let misses = reads(&program, "miss");
        seen(&mut client, &id).await;
        assert_eq!(reads(&program, "hit"), before + 1);
        assert_eq!(reads(&program, "miss"), misses);
    }
}

/// SHOP-305: what runs out by itself is a change like any other.
#[tokio::test]
async fn shop_809_what_runs_out_is_seen() {
    for store in stores(&MIGRATIONS).await {
        let settings = [
            "--cache-lifetime=1h",
            "--expiry-every=50ms",
            "--reservation-lifetime=100ms",
        ];
        let program = start(&store, &settings);
        let mut client = client(&program).await;
        let id = new_product(&mut client).await;
        reserved(&mut client, &id).await;
        until("it is available again", || {
            let (mut client, id) = (client.clone(), id.clone());
            async move { seen(&mut client, &id).await[0].available_quantity == 10 }
        })
        .await;
    }
}
