//! Bad input: told with field and place, and never sent on.

use serde_json::json;
use tollgate_engine::testing::client::Client;

use super::shop::{Shop, json};

#[test]
fn gw_203_what_does_not_fit_is_told_with_every_field_and_its_place() {
    let shop = Shop::of_order(json!({}));
    let answer = shop.send(
        "POST /v1/orders?total=x&nobody=1",
        "{\"items\": [{\"quantity\": 1.5},\n {\"quantity\": \"2147483648\", \"color\": 1}],\n \"state\": \"LOST\", \"signature\": \"?\"}",
    );
    assert_eq!((answer.status, &*answer.code()), (400, "validation_error"));
    let errors = json(&answer)["errors"].clone();
    let told: Vec<(&str, u64, u64)> = { errors.as_array().expect("a list").iter() }
        .map(|one| {
            let number = |key: &str| one[key].as_u64().unwrap_or_default();
            (
                one["field"].as_str().expect("a name"),
                number("line"),
                number("column"),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("items[0].quantity", 1, 25),
            ("items[1].quantity", 2, 15),
            ("items[1].color", 2, 37),
            ("state", 3, 11),
            ("signature", 3, 32),
        ],
        "{errors}"
    );
    assert_eq!(
        errors[0]["message"],
        "it should be a whole number of 32 bits"
    );
    let query =
        shop.get("/v1/orders?page_size=x&nobody=1&customer=1&customer.id=1&customer.id=2&ids=%zz");
    let errors = json(&query)["errors"].clone();
    let names: Vec<&str> = { errors.as_array().expect("a list").iter() }
        .filter_map(|one| one["field"].as_str())
        .collect();
    assert_eq!(
        names,
        ["page_size", "nobody", "customer", "customer.id", "ids"],
        "{errors}"
    );
    assert!(shop.upstream.calls().is_empty(), "nothing was sent on");
}

#[test]
fn hi_hostile_json_is_refused_as_what_it_is() {
    let shop = Shop::with(
        "max_depth = 20, max_fields = 50, max_message = \"2KiB\"",
        "",
        |_| panic!("never called"),
    );
    let deep = format!("{{\"customer\": {}", "{\"customer\":".repeat(50));
    let value = "{\"a\":".repeat(100);
    let many = format!("{{\"items\": [{}]}}", vec!["{}"; 60].join(","));
    let long = format!("{{\"id\": \"{}\"}}", "x".repeat(3000));
    let labels = format!(
        "{{\"labels\": {{{}}}}}",
        (0..60)
            .map(|n| format!("\"k{n}\":\"\""))
            .collect::<Vec<_>>()
            .join(",")
    );
    let cases: [(&str, &[u8], u16, &str); 19] = [
        ("no JSON", b"{", 400, "validation_error"),
        ("something behind it", b"{} {}", 400, "validation_error"),
        ("not an object", b"[]", 400, "validation_error"),
        (
            "a duplicate key",
            br#"{"id":"1","id":"2"}"#,
            400,
            "validation_error",
        ),
        (
            "a duplicate key in two spellings",
            br#"{"gift_for":"1","giftFor":"2"}"#,
            400,
            "validation_error",
        ),
        (
            "a duplicate key of a map",
            br#"{"labels":{"a":"1","a":"2"}}"#,
            400,
            "validation_error",
        ),
        (
            "an unknown field",
            br#"{"__proto__":{"id":"1"}}"#,
            400,
            "validation_error",
        ),
        ("not UTF-8", b"{\"id\":\"\xff\"}", 400, "validation_error"),
        (
            "half a surrogate",
            br#"{"id":"\ud800"}"#,
            400,
            "validation_error",
        ),
        (
            "a control character",
            b"{\"id\":\"\x00\"}",
            400,
            "validation_error",
        ),
        (
            "a number that is too large",
            br#"{"total":99999999999999999999}"#,
            400,
            "validation_error",
        ),
        (
            "a number that is endless",
            br#"{"total":1e999999999}"#,
            400,
            "validation_error",
        ),
        (
            "a time that is none",
            br#"{"createdAt":"tomorrow"}"#,
            400,
            "validation_error",
        ),
        (
            "bytes that are none",
            br#"{"signature":"***"}"#,
            400,
            "validation_error",
        ),
        (
            "deep nesting of what is unknown",
            deep.as_bytes(),
            400,
            "validation_error",
        ),
        ("deep nesting", value.as_bytes(), 400, "validation_error"),
        ("many elements", many.as_bytes(), 413, "message_too_large"),
        ("many keys", labels.as_bytes(), 413, "message_too_large"),
        ("a large body", long.as_bytes(), 413, "message_too_large"),
    ];
    for (what, body, status, code) in cases {
        let answer = shop.send_as("POST /v1/orders", "application/json", body);
        assert_eq!(
            (answer.status, &*answer.code()),
            (status, code),
            "{what}: {answer:?}"
        );
    }
    let line = shop.line_of("max_depth");
    let answer = shop.send("POST /v1/orders", &many);
    assert_eq!(
        json(&answer)["setting"],
        "route.filters.transcode.max_fields"
    );
    assert_eq!(json(&answer)["at"], format!("gateway.toml:{line}"));
    assert!(shop.upstream.calls().is_empty());
}

#[test]
fn a_body_without_length_is_bounded_too() {
    let shop = Shop::with("max_message = \"2KiB\"", "", |_| panic!("never called"));
    let mut client = Client::connect(shop.gateway.address());
    client.send("POST /v1/orders HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        client.send(format!("400\r\n{}\r\n", " ".repeat(1024)));
    }
    let answer = client.read_response_to("POST");
    assert_eq!((answer.status, &*answer.code()), (413, "message_too_large"));
}

#[test]
fn unknown_fields_are_passed_over_when_the_document_says_so() {
    let order = super::shop::order(json!({}));
    let shop = Shop::with("unknown_fields = \"ignore\"", "", move |_| {
        tollgate_engine::testing::grpc::Reply::ok(std::slice::from_ref(&order))
    });
    let answer = shop.send(
        "POST /v1/orders?utm_source=x",
        r#"{"id": "7", "colour": {"deep": [1, {}]}}"#,
    );
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(shop.asked("shop.v1.Order"), json!({ "id": "7" }));
}

#[test]
fn a_compressed_body_is_not_guessed_at() {
    let shop = Shop::of_order(json!({}));
    let mut client = Client::connect(shop.gateway.address());
    client.send("POST /v1/orders HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}");
    let answer = client.read_response_to("POST");
    assert_eq!(
        (answer.status, &*answer.code()),
        (415, "unsupported_content")
    );
}
