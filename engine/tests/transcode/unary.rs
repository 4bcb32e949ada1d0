//! One message there, one back.

use serde_json::json;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::grpc::{End, Reply};
use tollgate_engine::testing::h2_client::{self, message as framed};

use super::shop::{Shop, json, message, order};

/// As the services' own REST answers (GW-809), with a status of the service's choosing.
#[test]
fn gw_809_answers_can_be_wrapped_and_a_service_may_say_that_it_only_accepted() {
    let order = order(json!({ "id": "7" }));
    let wrapped = "envelope = true, status_header = \"x-http-code\"";
    let shop = Shop::with(wrapped, "", move |_| {
        let mut reply = Reply::ok(std::slice::from_ref(&order));
        reply.head.push(("x-http-code", "202".to_owned()));
        reply
    });
    let answer = shop.get("/v1/orders/7");
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("x-http-code"), None);
    let told = json(&answer);
    assert_eq!(
        (&told["success"], &told["data"]["id"]),
        (&json!(true), &json!("7"))
    );
}

/// GW-810: a `validate` before it sees the JSON, and the message is made of what it let through.
#[test]
fn gw_810_a_message_is_made_of_texts_that_were_sanitized() {
    let shop = Shop::of_order(json!({ "id": "7" }));
    let schema =
        r#"{"properties": {"note": {"sanitize": ["strip_html", "trim"], "maxLength": 5}}}"#;
    let filters = format!("filters = [{{ validate = {{ schema = '''{schema}''' }} }}, ");
    let document = shop.document.replace("filters = [", &filters);
    let gateway = Gateway::start(&document);
    let send = |body: &str| {
        let mut client = gateway.client();
        client.send(format!(
            "POST /v1/orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        client.read_response()
    };
    let body = r#"{"note": " <b>n</b> ", "items": [{"product_id": "<p>", "quantity": 2}]}"#;
    assert_eq!(send(body).status, 201);
    assert_eq!(
        shop.asked("shop.v1.Order"),
        json!({ "note": "n", "items": [{ "product_id": "<p>", "quantity": 2 }] })
    );
    for body in [r#"{"note": "too long"}"#, r#"{"note": 7}"#] {
        let refused = send(body);
        assert_eq!(
            (refused.status, &*refused.code()),
            (400, "validation_error")
        );
        assert_eq!(refused.problem()["errors"][0]["field"], "note");
    }
}

#[test]
fn gw_201_a_body_becomes_the_message_and_the_answer_is_json() {
    let shop = Shop::of_order(json!({
        "id": "7", "items": [{ "productId": "p", "quantity": 2, "unitPrice": "9007199254740993" }], "state": "OPEN",
        "createdAt": "2026-01-31T12:00:00.5Z", "labels": { "a": "b" }, "note": "n", "signature": "AQID",
    }));
    let body = r#"{"customer": {"id": "c"}, "items": [{"product_id": "p", "quantity": 2}], "state": "OPEN", "giftFor": ""}"#;
    let answer = shop.send("POST /v1/orders", body);
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        json(&answer),
        json!({
            "id": "7", "items": [{ "productId": "p", "quantity": 2, "unitPrice": "9007199254740993" }], "state": "OPEN",
            "createdAt": "2026-01-31T12:00:00.500Z", "labels": { "a": "b" }, "note": "n", "signature": "AQID",
        })
    );
    let call = shop.upstream.call();
    assert_eq!(
        (&*call.method, &*call.path),
        ("POST", "/shop.v1.Orders/CreateOrder")
    );
    assert_eq!(call.header("content-type"), Some("application/grpc"));
    assert_eq!(call.header("te"), Some("trailers"));
    assert_eq!(
        call.header("content-length"),
        None,
        "the length was that of the JSON"
    );
    assert_eq!(
        shop.asked("shop.v1.Order"),
        json!({
            "customer": { "id": "c" }, "items": [{ "product_id": "p", "quantity": 2 }], "state": "OPEN", "gift_for": "",
        })
    );
}

#[test]
fn gw_201_names_and_defaults_are_as_the_document_says() {
    let script = |_: &tollgate_engine::testing::grpc::Call| {
        Reply::ok(&[message(
            "shop.v1.ListOrdersResponse",
            json!({ "orders": [{ "state": "PAID" }] }),
        )])
    };
    let shop = Shop::with(
        "names = \"proto\", defaults = true, enums = \"number\"",
        "",
        script,
    );
    assert_eq!(
        json(&shop.get("/v1/orders")),
        json!({
            "orders": [{ "id": "", "items": [], "state": 2, "total": "0", "labels": {}, "signature": "" }],
            "next_page_token": "",
        })
    );
}

#[test]
fn gw_203_captures_and_parameters_reach_nested_fields() {
    let shop = Shop::of_order(json!({}));
    let cases = [
        (
            "/v1/orders/a%20b%2Bc?verbose=true&customer.name=x+y",
            json!({ "id": "a b+c", "verbose": true, "customer": { "name": "x y" } }),
        ),
        (
            "/v1/customers/c/orders/7",
            json!({ "id": "7", "customer": { "id": "c" } }),
        ),
        (
            "/v1/customers/c/last",
            json!({ "customer": { "name": "customers/c" } }),
        ),
    ];
    for (count, (target, wanted)) in cases.into_iter().enumerate() {
        assert_eq!(shop.get(target).status, 200, "{target}");
        let call = shop.upstream.calls().remove(count);
        assert_eq!(
            super::shop::read("shop.v1.GetOrderRequest", &call.messages[0]),
            wanted,
            "{target}"
        );
    }
}

#[test]
fn gw_203_parameters_are_of_every_kind_that_a_text_can_say() {
    let shop = Shop::answering(|_| Reply::ok(&[Vec::new()]));
    let target = "/v1/orders?page_size=5&pageToken=t&states=OPEN&states=2&customer.id=c&since=2026-01-01T00:00:00Z\
                  &fields=total,customer.id&least_total=100&ids=a&ids=b";
    assert_eq!(shop.get(target).status, 200);
    assert_eq!(
        shop.asked("shop.v1.ListOrdersRequest"),
        json!({
            "page_size": 5, "page_token": "t", "states": ["OPEN", "PAID"], "customer": { "id": "c" },
            "since": "2026-01-01T00:00:00Z", "fields": "total,customer.id", "least_total": "100", "ids": ["a", "b"],
        })
    );
}

#[test]
fn gw_203_the_path_beats_the_query_and_the_query_beats_the_body() {
    let shop = Shop::of_order(json!({}));
    let answer = shop.send(
        "POST /v1/orders/path:cancel?id=query&customer.id=query",
        r#"{"id": "body", "customer": {"id": "body", "name": "body"}}"#,
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        shop.asked("shop.v1.GetOrderRequest"),
        json!({ "id": "path", "customer": { "id": "query", "name": "body" } })
    );
}

#[test]
fn gw_203_a_form_says_what_json_would() {
    let shop = Shop::of_order(json!({}));
    let form = "application/x-www-form-urlencoded";
    shop.send_as(
        "PATCH /v1/orders/7?updateMask=note",
        form,
        b"customer.name=A+%C3%84&note=n",
    );
    assert_eq!(
        shop.asked("shop.v1.UpdateOrderRequest"),
        json!({ "order": { "id": "7", "customer": { "name": "A \u{c4}" }, "note": "n" }, "update_mask": "note" })
    );
}

#[test]
fn gw_203_an_absent_body_is_an_empty_message_and_a_response_body_is_one_field() {
    let shop = Shop::answering(|_| {
        Reply::ok(&[message(
            "shop.v1.ListOrdersResponse",
            json!({ "orders": [{ "id": "1" }, { "id": "2" }] }),
        )])
    });
    assert_eq!(
        json(&shop.get("/v1/orders:bare")),
        json!([{ "id": "1" }, { "id": "2" }])
    );
    let shop = Shop::of_order(json!({}));
    let answer = shop.send("POST /v1/orders/7:cancel", "");
    assert_eq!((answer.status, &*answer.text()), (200, "{}"));
    assert_eq!(shop.asked("shop.v1.GetOrderRequest"), json!({ "id": "7" }));
}

#[test]
fn gw_204_metadata_and_deadlines_reach_the_service() {
    let shop = Shop::of_order(json!({}));
    shop.gateway.client().request(
        "GET /v1/orders/7",
        &[
            "x-tenant: t",
            "x-request-deadline-ms: 40000",
            "Accept: application/json",
            "Accept-Encoding: gzip",
        ],
    );
    let call = shop.upstream.call();
    assert_eq!(call.header("x-tenant"), Some("t"));
    let timeout = call.header("grpc-timeout").expect("a deadline");
    let left: u32 = timeout
        .strip_suffix('m')
        .expect("milliseconds")
        .parse()
        .expect("a number");
    assert!((1..=40_000).contains(&left), "{timeout}");
    assert!(call.header("traceparent").is_some() && call.header("x-request-id").is_some());
    assert_eq!(
        (call.header("accept"), call.header("accept-encoding")),
        (None, None)
    );
}

#[test]
fn gw_205_metadata_of_the_answer_is_passed_and_nothing_of_grpc() {
    let shop = Shop::answering(|_| Reply {
        head: vec![
            ("x-kept", "yes".to_owned()),
            ("grpc-encoding", "identity".to_owned()),
        ],
        ..Reply::ok(&[Vec::new()])
    });
    let answer = shop.get("/v1/orders/7");
    assert_eq!(answer.header("x-kept"), Some("yes"));
    assert!(
        answer
            .headers
            .iter()
            .all(|(name, _)| !name.starts_with("grpc")),
        "{answer:?}"
    );
    assert!(answer.trailers.is_empty());
}

#[test]
fn http_bodies_pass_as_they_are_in_both_directions() {
    let page = message(
        "google.api.HttpBody",
        json!({ "contentType": "text/html", "data": "PGI+" }),
    );
    let shop = Shop::answering(move |call| match &*call.path {
        "/shop.v1.Orders/Download" => Reply::ok(std::slice::from_ref(&page)),
        _ => Reply::ok(&[order(json!({}))]),
    });
    let answer = shop.get("/v1/files/a/b%20c.html");
    assert_eq!(
        (answer.header("content-type"), &*answer.text()),
        (Some("text/html"), "<b>")
    );
    shop.send_as("PUT /v1/files/7", "image/png", b"\x00\xff{");
    let calls = shop.upstream.calls();
    assert_eq!(
        super::shop::read("shop.v1.UploadRequest", &calls[1].messages[0]),
        json!({ "id": "7", "file": { "content_type": "image/png", "data": "AP97" } })
    );
}

#[test]
fn what_is_grpc_already_passes_untouched() {
    let shop = Shop::of_order(json!({ "id": "7" }));
    let answer = h2_client::run(async {
        let sender = h2_client::connect(shop.gateway.address()).await;
        let headers = [
            ("content-type", "application/grpc+proto"),
            ("te", "trailers"),
        ];
        let request = h2_client::request("POST", "/shop.v1.Orders/GetOrder", &headers);
        h2_client::exchange(&sender, request, &[&framed(b"\x0a\x017")], None)
            .await
            .expect("an answer")
    });
    assert_eq!(answer.grpc_status(), Some("0"));
    assert_eq!(answer.body, framed(&order(json!({ "id": "7" }))));
    assert_eq!(
        shop.upstream.call().header("content-type"),
        Some("application/grpc+proto")
    );
}

#[test]
fn gw_105_methods_of_their_own_are_found_and_a_known_path_names_its_methods() {
    let shop = Shop::of_order(json!({}));
    assert_eq!(shop.send("LOCK /v1/orders/7", "").status, 200);
    assert_eq!(shop.upstream.call().path, "/shop.v1.Orders/Lock");
    let other = shop.send("PUT /v1/orders/7", "{}");
    assert_eq!(
        (other.status, other.header("allow")),
        (405, Some("DELETE, GET, LOCK, PATCH"))
    );
    let unknown = shop.get("/v2/orders");
    assert_eq!((unknown.status, &*unknown.code()), (404, "unknown_method"));
}

#[test]
fn a_rewritten_path_is_the_one_that_is_looked_for_and_the_log_keeps_the_other() {
    let order = order(json!({}));
    let shop = Shop::with(
        "",
        "match = { path = \"/api/*\" }\nrewrite = { strip_prefix = \"/api\" }",
        move |_| Reply::ok(std::slice::from_ref(&order)),
    );
    assert_eq!(shop.get("/api/v1/orders/7").status, 200);
    assert_eq!(shop.asked("shop.v1.GetOrderRequest"), json!({ "id": "7" }));
}

#[test]
fn an_unmatched_request_passes_when_the_document_says_so() {
    let shop = Shop::with("unmatched = \"pass\"", "", |_| Reply {
        end: End::Cut,
        ..Reply::ok(&[])
    });
    assert_eq!(shop.get("/anything").status, 200);
    assert_eq!(shop.upstream.call().path, "/anything");
}

#[test]
fn gw_404_a_get_that_finds_its_service_unavailable_is_tried_again() {
    let failed = std::sync::atomic::AtomicBool::new(false);
    let shop = Shop::answering(move |_| {
        if failed.swap(true, std::sync::atomic::Ordering::SeqCst) {
            Reply::ok(&[order(json!({ "id": "7" }))])
        } else {
            Reply::error(14, "not yet")
        }
    });
    let answer = shop.get("/v1/orders/7");
    assert_eq!((answer.status, json(&answer)), (200, json!({ "id": "7" })));
    assert_eq!(shop.upstream.calls().len(), 2);
    let post = Shop::answering(|_| Reply::error(14, "not yet"));
    assert_eq!(post.send("POST /v1/orders", "{}").status, 503);
    assert_eq!(
        post.upstream.calls().len(),
        1,
        "what is not idempotent is sent once"
    );
}
