//! gRPC-Web: framed alike, trailers in the body, base64 in the text form.

use serde_json::json;
use tollgate_engine::testing::client::Response;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::grpc::{GrpcUpstream, Reply};
use tollgate_engine::testing::h2_client::message;

use super::shop::{Shop, order};

fn gateway(upstream: &GrpcUpstream) -> Gateway {
    Gateway::start(&tollgate_engine::testing::gateway::document(
        upstream.address(),
        "",
        "filters = [{ grpc_web = true }]",
        "protocol = \"http2\"",
    ))
}

fn ask(gateway: &Gateway, kind: &str, body: &[u8]) -> Response {
    let mut client = gateway.client();
    let head = format!(
        "POST /shop.v1.Orders/GetOrder HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nX-Grpc-Web: 1\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.send([head.as_bytes(), body].concat());
    client.read_response_to("POST")
}

const TRAILERS: &[u8] = b"\x80\0\0\0\x10grpc-status: 0\r\n";

#[test]
fn messages_pass_and_trailers_are_the_last_frame() {
    let upstream = GrpcUpstream::start(|_| Reply::ok(&[order(json!({ "id": "7" }))]));
    let gateway = gateway(&upstream);
    let answer = ask(
        &gateway,
        "application/grpc-web+proto",
        &message(b"\x0a\x017"),
    );
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/grpc-web+proto"))
    );
    assert_eq!(
        answer.body,
        [&*message(&order(json!({ "id": "7" }))), TRAILERS].concat()
    );
    let call = upstream.call();
    assert_eq!(
        (call.header("content-type"), call.header("te")),
        (Some("application/grpc+proto"), Some("trailers"))
    );
    assert_eq!(call.messages, [b"\x0a\x017"]);
}

#[test]
fn the_text_form_is_base64_both_ways_and_may_be_padded_in_the_middle() {
    let upstream = GrpcUpstream::start(|call| Reply::ok(&call.messages));
    let gateway = gateway(&upstream);
    // The frame's head, then its message, each padded on its own.
    let answer = ask(&gateway, "application/grpc-web-text", b"AAAAAAE=AQ==");
    assert_eq!(
        answer.header("content-type"),
        Some("application/grpc-web-text+proto")
    );
    assert_eq!(upstream.call().messages, [[1]]);
    let text = answer.text();
    assert!(text == "AAAAAAEBgAAAABBncnBjLXN0YXR1czogMA0K", "{text}");
    let bad = ask(&gateway, "application/grpc-web-text", b"AAAAAAE!");
    assert_eq!(
        (bad.status, bad.header("content-type")),
        (200, Some("application/grpc-web-text+proto")),
        "{bad:?}"
    );
    assert_eq!(bad.header("grpc-status"), Some("3"), "{bad:?}");
}

#[test]
fn errors_of_the_service_and_ours_are_in_its_language() {
    let upstream = GrpcUpstream::start(|_| Reply::error(5, "gone"));
    let answer = ask(&gateway(&upstream), "application/grpc-web", &message(b""));
    assert_eq!(
        (answer.status, answer.header("grpc-status")),
        (200, Some("5"))
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/grpc-web+proto")
    );
    let nobody = tollgate_engine::testing::upstream::Upstream::nobody();
    let gateway = Gateway::start(&tollgate_engine::testing::gateway::document(
        nobody,
        "",
        "filters = [{ grpc_web = true }]",
        "protocol = \"http2\"",
    ));
    let answer = ask(&gateway, "application/grpc-web", &message(b""));
    assert_eq!(
        (answer.status, answer.header("grpc-status")),
        (200, Some("14"))
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/grpc-web+proto")
    );
}

#[test]
fn one_route_speaks_json_and_grpc_web() {
    let both = Shop::of_order(json!({ "id": "7" }));
    let document = both
        .document
        .replace("filters = [", "filters = [{ grpc_web = true }, ");
    both.gateway.edit(&document).expect("a good document");
    assert_eq!(both.get("/v1/orders/7").text(), "{\"id\":\"7\"}");
    let answer = ask(
        &both.gateway,
        "application/grpc-web+proto",
        &message(b"\x0a\x017"),
    );
    assert_eq!(
        answer.body,
        [&*message(&order(json!({ "id": "7" }))), TRAILERS].concat()
    );
}
