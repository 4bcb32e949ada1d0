//! What a document may say, what becomes of it when it changes, and how it is refused.

use prost::Message as _;
use serde_json::json;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::grpc::{GrpcUpstream, Reply};

use super::shop::{document, order, set};

#[test]
fn gw_202_names_say_what_no_annotation_does_and_bindings_what_the_document_wants() {
    let upstream = GrpcUpstream::start(|_| Reply::ok(&[Vec::new()]));
    let filter = "convention = true,\nbindings = [\n  { method = \"shop.v1.Products.Reindex\", http = \"POST /admin/reindex\", status = 202 },\n\
                  { method = \"shop.v1.Products.DeleteProduct\", http = \"POST /products/{product_id}:delete\", body = \"*\" },\n]";
    let text = document(&upstream, filter, "").replace("shop.v1.Orders\"]", "shop.v1.Products\"]");
    let gateway = Gateway::start(&text);
    let cases = [
        ("POST /products", 201, "CreateProduct"),
        ("GET /products/p", 200, "GetProduct"),
        ("GET /products?page_size=1", 200, "ListProducts"),
        ("PUT /products/p", 200, "UpdateProduct"),
        ("PATCH /products/p", 200, "UpdateProduct"),
        ("POST /admin/reindex", 202, "Reindex"),
        ("POST /products/p:delete", 200, "DeleteProduct"),
    ];
    for (count, (line, status, method)) in cases.into_iter().enumerate() {
        let answer = gateway.client().request(line, &["Content-Length: 0"]);
        assert_eq!(answer.status, status, "{line}: {answer:?}");
        assert_eq!(
            upstream.calls()[count].path,
            format!("/shop.v1.Products/{method}"),
            "{line}"
        );
    }
    let gone = gateway.client().request("DELETE /products/p", &[]);
    assert_eq!(gone.status, 405, "the binding took the name's place");
}

#[test]
fn gw_112_descriptors_that_change_are_read_again_and_bad_ones_refused_with_the_line() {
    let upstream = GrpcUpstream::start(|_| Reply::ok(&[order(json!({ "id": "7" }))]));
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("shop.binpb");
    std::fs::write(&file, set()).expect("it can be written");
    let text = document(&upstream, "", "");
    let (head, rest) = text
        .split_once("descriptors = \"")
        .expect("it names a file");
    let (_, rest) = rest.split_once('"').expect("a string ends");
    let text = format!("{head}descriptors = \"{}\"{rest}", file.display());
    let gateway = Gateway::start(&text);
    assert_eq!(gateway.get("/v1/orders/7").status, 200);
    let line = tollgate_engine::testing::gateway::line_of(&text, "descriptors");

    std::fs::write(&file, b"no descriptors").expect("it can be written");
    let refusal = gateway.reload().expect_err("it is refused");
    assert!(
        refusal.contains(&format!("gateway.toml:{line}:"))
            && refusal.contains("it is no descriptor set"),
        "{refusal}"
    );
    assert!(refusal.contains("--include_imports"), "{refusal}");
    assert_eq!(
        gateway.get("/v1/orders/7").status,
        200,
        "the last good ones serve on"
    );

    // The same service, called otherwise.
    let mut files = prost_reflect::DescriptorPool::decode(set())
        .expect("a set")
        .encode_to_vec();
    let at = files
        .windows(15)
        .position(|part| part == b"/v1/orders/{id}")
        .expect("a template");
    files[at..at + 3].copy_from_slice(b"/v9");
    std::fs::write(&file, &files).expect("it can be written");
    gateway.reload().expect("it is good");
    assert_eq!(gateway.get("/v9/orders/7").status, 200);
    assert_eq!(
        gateway.client().request("GET /v1/orders/7", &[]).status,
        405,
        "only others are left there"
    );

    std::fs::remove_file(&file).expect("it was there");
    let refusal = gateway.reload().expect_err("it is refused");
    assert!(refusal.contains("cannot be read"), "{refusal}");
}

#[test]
fn a_set_without_its_imports_is_refused_with_what_is_missing() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Set {
        #[prost(bytes = "vec", repeated, tag = "1")]
        files: Vec<Vec<u8>>,
    }
    let mut whole = Set::decode(set()).expect("a set");
    whole
        .files
        .retain(|file| !file[2..].starts_with(b"google/protobuf/timestamp.proto"));
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("shop.binpb");
    std::fs::write(&file, whole.encode_to_vec()).expect("it can be written");
    let upstream = GrpcUpstream::start(|_| Reply::ok(&[]));
    let text = document(&upstream, "", "");
    let (head, rest) = text
        .split_once("descriptors = \"")
        .expect("it names a file");
    let (_, rest) = rest.split_once('"').expect("a string ends");
    let text = format!("{head}descriptors = \"{}\"{rest}", file.display());
    let Err(refusal) = Gateway::try_start(&text) else {
        panic!("it is refused")
    };
    assert!(
        refusal.contains("google.protobuf.Timestamp, which the set does not hold"),
        "{refusal}"
    );
}

#[test]
fn documents_that_cannot_be_are_refused_with_the_next_step() {
    let upstream = GrpcUpstream::start(|_| Reply::ok(&[]));
    let good = document(&upstream, "", "");
    let cases = [
        (
            good.replace("protocol = \"http2\"", ""),
            "gRPC needs HTTP/2",
        ),
        (
            good.replace("shop.v1.Orders\"]", "shop.v1.Nobody\"]"),
            "hold no service `shop.v1.Nobody`",
        ),
        (
            good.replace("shop.v1.Orders\"]", "shop.v1.Products\"]"),
            "no method can be called",
        ),
        (
            document(
                &upstream,
                "bindings = [{ method = \"shop.v1.Orders.Nobody\", http = \"GET /x\" }]",
                "",
            ),
            "have no method",
        ),
        (
            document(
                &upstream,
                "bindings = [{ method = \"shop.v1.Orders.GetOrder\", http = \"GET /x/{nobody}\" }]",
                "",
            ),
            "has no field `nobody`",
        ),
        (
            document(
                &upstream,
                "bindings = [{ method = \"shop.v1.Orders.GetOrder\", http = \"GET /x/{customer}\" }]",
                "",
            ),
            "which no path can say",
        ),
        (
            document(
                &upstream,
                "bindings = [{ method = \"shop.v1.Orders.GetOrder\", http = \"GET /v1/orders\" }]",
                "",
            ),
            "calls both",
        ),
        (
            document(
                &upstream,
                "bindings = [{ method = \"shop.v1.Orders.GetOrder\", http = \"GET /x/**/y\" }]",
                "",
            ),
            "no template",
        ),
        (
            document(
                &upstream,
                "bindings = [{ method = \"shop.v1.Orders.GetOrder\", http = \"/x\" }]",
                "",
            ),
            "not a method and a path template",
        ),
        (
            document(&upstream, "reflection = true", ""),
            "not from both",
        ),
        (document(&upstream, "max_message = \"1B\"", ""), "1KiB"),
        (
            good.replace("upstream = \"shop\"\n", "respond = { status = 200 }\n"),
            "the route has no upstream",
        ),
        (
            good.replace(
                "filters = [",
                "filters = [{ grpc_web = true }, { grpc_web = true }, ",
            ),
            "`grpc_web` twice",
        ),
    ];
    for (text, wanted) in cases {
        let Err(refusal) = Gateway::try_start(&text) else {
            panic!("accepted, though {wanted}:\n{text}")
        };
        assert!(refusal.contains(wanted), "{wanted}: {refusal}");
    }
}
