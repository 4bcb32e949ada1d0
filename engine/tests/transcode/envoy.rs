//! The same requests to Envoy's `grpc_json_transcoder`, with the same descriptors and the same service behind it. Where both
//! mean the same, they must do the same; where we differ, it stands here and in `docs/transcoding.md`. Skipped, and
//! said so, where there is no Envoy: on the PATH, or named by `TOLLGATE_ENVOY`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::client::{Client, Response};
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::grpc::{Call, End, GrpcUpstream, Reply};

use super::shop::{document, message, order, read, set};

fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("TOLLGATE_ENVOY").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("envoy"))
        .find(|file| file.is_file());
    named.or(found)
}

struct Envoy {
    address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Envoy {
    fn start(program: PathBuf, upstream: SocketAddr) -> Envoy {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let descriptors = folder.path().join("shop.binpb");
        std::fs::write(&descriptors, set()).expect("it can be written");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("a bound socket has an address");
        drop(free);
        let at = |address: SocketAddr| json!({ "socket_address": { "address": "127.0.0.1", "port_value": address.port() } });
        let typed = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
        let config = json!({ "static_resources": {
            "listeners": [{ "name": "in", "address": at(address), "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": typed("filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "in",
                    "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [
                        { "match": { "prefix": "/" }, "route": { "cluster": "shop" } } ] }] },
                    "http_filters": [
                        { "name": "envoy.filters.http.grpc_json_transcoder", "typed_config": {
                            "@type": typed("filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder"),
                            "proto_descriptor": descriptors, "services": ["shop.v1.Orders"],
                            "convert_grpc_status": true,
                            "request_validation_options": { "reject_unknown_method": true, "reject_unknown_query_parameters": true },
                        } },
                        { "name": "envoy.filters.http.router", "typed_config": { "@type": typed("filters.http.router.v3.Router") } },
                    ],
                },
            }] }] }],
            "clusters": [{ "name": "shop", "type": "STATIC",
                "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": typed("upstreams.http.v3.HttpProtocolOptions"), "explicit_http_config": { "http2_protocol_options": {} } } },
                "load_assignment": { "cluster_name": "shop", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(upstream) } }] }] },
            }],
        } });
        let file = folder.path().join("envoy.json");
        std::fs::write(&file, config.to_string()).expect("it can be written");
        let log = std::fs::File::create(folder.path().join("log")).expect("it can be written");
        let child = Command::new(program)
            .args([
                "-c",
                file.to_str().expect("a plain path"),
                "--concurrency",
                "1",
                "--use-dynamic-base-id",
                "-l",
                "warning",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Envoy starts");
        let envoy = Envoy {
            address,
            child,
            _folder: folder,
        };
        let until = Instant::now() + PATIENCE * 3;
        while TcpStream::connect(address).is_err() {
            let log = std::fs::read_to_string(envoy._folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "Envoy does not listen: {log}");
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(20));
        }
        envoy
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Line, body, and what differs: Envoy's status and ours, or with the same statuses the bodies; `None`: nothing may.
type Case = (&'static str, &'static str, Option<(u16, u16)>);

const CASES: &[Case] = &[
    ("GET /v1/orders/7", "", None),
    ("GET /v1/orders/a%20b", "", None),
    (
        "GET /v1/orders/7?verbose=true&customer.name=x%20y",
        "",
        None,
    ),
    // Envoy also takes yes, no, t, f, 1 and 0.
    ("GET /v1/orders/7?verbose=yes", "", Some((200, 400))),
    ("GET /v1/orders/7?nobody=1", "", None),
    ("GET /v1/customers/c/orders/7", "", None),
    ("GET /v1/customers/c/last", "", None),
    (
        "GET /v1/orders?page_size=5&pageToken=t&states=OPEN&states=PAID&ids=a&ids=b",
        "",
        None,
    ),
    (
        "GET /v1/orders?since=2026-01-01T00:00:00Z&least_total=100",
        "",
        None,
    ),
    ("GET /v1/orders?page_size=x", "", None),
    // Envoy goes by the first binding's `response_body`.
    ("GET /v1/orders:bare", "", Some((200, 200))),
    (
        "PATCH /v1/orders/7?updateMask=note",
        r#"{"note": "n", "items": [{"quantity": 2, "unit_price": "5"}]}"#,
        None,
    ),
    ("DELETE /v1/orders/7", "", None),
    ("POST /v1/orders/7:cancel", r#"{"verbose": true}"#, None),
    ("GET /v1/files/a/b", "", None),
    // Ours says 201 of what was created.
    (
        "POST /v1/orders",
        r#"{"customer": {"id": "c"}, "state": "OPEN", "total": 9007199254740993, "labels": {"a": "b"}}"#,
        Some((200, 201)),
    ),
    (
        "POST /v1/orders",
        r#"{"createdAt": "2026-01-31T12:00:00.5Z", "signature": "AQID", "giftFor": ""}"#,
        Some((200, 201)),
    ),
    ("POST /v1/orders", r#"{"items": [{"quantity": 1.5}]}"#, None),
    ("POST /v1/orders", r#"{"state": "LOST"}"#, None),
    // Envoy has no way to refuse fields of a body that the type does not have.
    ("POST /v1/orders", r#"{"nobody": 1}"#, Some((200, 400))),
    ("POST /v1/orders", "{", None),
    ("POST /v1/orders", "[]", None),
    (
        "POST /v1/orders",
        r#"{"total": 99999999999999999999}"#,
        None,
    ),
    ("POST /v1/orders", r#"{"createdAt": "tomorrow"}"#, None),
    // Envoy takes the last of two.
    (
        "POST /v1/orders",
        r#"{"id": "1", "id": "2"}"#,
        Some((200, 400)),
    ),
    // Envoy knows the path alone.
    ("PUT /v1/orders/7", "{}", Some((404, 405))),
    ("GET /v2/orders", "", None),
    ("GET /v1/orders/error-3", "", None),
    ("GET /v1/orders/error-5", "", None),
    ("GET /v1/orders/error-6", "", None),
    ("GET /v1/orders/error-7", "", None),
    ("GET /v1/orders/error-8", "", None),
    ("GET /v1/orders/error-10", "", None),
    ("GET /v1/orders/error-11", "", None),
    ("GET /v1/orders/error-12", "", None),
    ("GET /v1/orders/error-13", "", None),
    ("GET /v1/orders/error-14", "", None),
    ("GET /v1/orders/error-16", "", None),
    // GW-206: a conflict, not a mistake of the request's.
    ("GET /v1/orders/error-9", "", Some((400, 409))),
];

fn script(call: &Call) -> Reply {
    let asked = |name: &str| read(name, &call.messages[0]);
    match &*call.path {
        "/shop.v1.Orders/GetOrder" => match asked("shop.v1.GetOrderRequest")["id"].as_str() {
            Some(id) if id.starts_with("error-") => {
                Reply::error(id[6..].parse().expect("a number"), "said")
            }
            _ => Reply::ok(&[order(json!({
                "id": "7", "items": [{ "productId": "p", "quantity": 2, "unitPrice": "9007199254740993" }], "state": "OPEN",
                "createdAt": "2026-01-31T12:00:00.5Z", "labels": { "a": "b" }, "note": "", "signature": "AQID",
            }))]),
        },
        "/shop.v1.Orders/ListOrders" => Reply::ok(&[message(
            "shop.v1.ListOrdersResponse",
            json!({ "orders": [{ "id": "1" }] }),
        )]),
        "/shop.v1.Orders/Download" => Reply::ok(&[message(
            "google.api.HttpBody",
            json!({ "contentType": "text/plain", "data": "YQ==" }),
        )]),
        "/shop.v1.Orders/DeleteOrder" => Reply::ok(&[Vec::new()]),
        _ if call.messages.is_empty() => Reply {
            end: End::Cut,
            ..Reply::ok(&[])
        },
        _ => Reply::ok(&[order(json!({ "id": "7" }))]),
    }
}

fn ask(address: SocketAddr, line: &str, body: &str) -> Response {
    let mut client = Client::connect(address);
    let (method, _) = line.split_once(' ').expect("a method and a target");
    let framing = if body.is_empty() && matches!(method, "GET" | "DELETE") {
        String::new()
    } else {
        format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        )
    };
    client.send(format!(
        "{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n{body}"
    ));
    client.read_response_to(method)
}

/// What reached the service, as the messages of its type say it.
fn asked(call: &Call) -> (String, Vec<Value>) {
    let kind = match call.path.rsplit('/').next() {
        Some("CreateOrder") => "shop.v1.Order",
        Some("ListOrders") => "shop.v1.ListOrdersRequest",
        Some("UpdateOrder") => "shop.v1.UpdateOrderRequest",
        _ => "shop.v1.GetOrderRequest",
    };
    (
        call.path.clone(),
        call.messages.iter().map(|one| read(kind, one)).collect(),
    )
}

#[test]
fn the_same_request_means_the_same_to_envoy_but_for_what_is_written_down() {
    let Some(program) = envoy() else {
        eprintln!("skipped: envoy is not on this machine");
        return;
    };
    let upstream = GrpcUpstream::start(script);
    let envoy = Envoy::start(program, upstream.address());
    let gateway = Gateway::start(&document(&upstream, "", "retry = \"off\""));
    let mut faults = Vec::new();
    for (line, body, differs) in CASES {
        let mut calls = Vec::new();
        let mut told = |address| {
            let before = upstream.calls().len();
            let answer = ask(address, line, body);
            calls.push(upstream.calls().get(before).map(asked));
            answer
        };
        let (theirs, ours) = (told(envoy.address), told(gateway.address()));
        let statuses = (theirs.status, ours.status);
        let wanted = differs.unwrap_or((theirs.status, theirs.status));
        if statuses != wanted {
            faults.push(format!(
                "{line} {body}: {statuses:?} instead of {wanted:?}: {} | {}",
                theirs.text(),
                ours.text()
            ));
            continue;
        }
        if statuses.0 >= 300 || statuses.1 >= 300 {
            continue;
        }
        let bodies = [&theirs, &ours].map(|answer| {
            let json = answer.header("content-type") == Some("application/json");
            if json {
                serde_json::from_slice(&answer.body).unwrap_or_default()
            } else {
                Value::from(answer.text())
            }
        });
        let may_differ = *differs == Some((200, 200));
        if bodies[0] != bodies[1] && !may_differ || calls[0] != calls[1] {
            faults.push(format!("{line} {body}: {bodies:?} {calls:?}"));
        }
    }
    assert!(
        faults.is_empty(),
        "{} differences:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
