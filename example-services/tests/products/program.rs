//! The program: over HTTP, its health, its reflection, and its end.

use serde_json::json;
use tokio_stream::StreamExt;
use tollgate_example_services::{kit::channel, products::MIGRATIONS};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::start;
use crate::support::{service::curl, sqlite};

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

/// GW-201: a gateway that asks learns the services, and the rules of their routes.
#[tokio::test]
async fn reflection_tells_services_and_rules() {
    let store = sqlite(&MIGRATIONS).await;
    let program = start(&store, &[]);
    let mut reflection = ServerReflectionClient::new(channel::to(&program.grpc).unwrap());
    let asked = [
        MessageRequest::ListServices(String::new()),
        MessageRequest::FileContainingSymbol("products.v1.ProductsService".into()),
        MessageRequest::FileByFilename("google/api/http.proto".into()),
        MessageRequest::FileContainingSymbol("no.such.Thing".into()),
    ];
    let asked = asked.map(|asked| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(asked),
    });
    let answers = reflection
        .server_reflection_info(tokio_stream::iter(asked))
        .await
        .unwrap()
        .into_inner();
    let answers: Vec<_> = answers
        .map(|answer| answer.unwrap().message_response.unwrap())
        .collect()
        .await;
    let [
        MessageResponse::ListServicesResponse(services),
        MessageResponse::FileDescriptorResponse(file),
        MessageResponse::FileDescriptorResponse(_),
        MessageResponse::ErrorResponse(error),
    ] = &answers[..]
    else {
        panic!("{answers:?}");
    };
    assert!(
        services
            .service
            .iter()
            .any(|service| service.name == "products.v1.ProductsService")
    );
    let rule = b"/products/{product_id}/stock";
    assert!(
        file.file_descriptor_proto[0]
            .windows(rule.len())
            .any(|bytes| bytes == rule)
    );
    assert_eq!(error.error_code, 5);
}
