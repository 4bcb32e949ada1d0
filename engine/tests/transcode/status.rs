//! How a call ended (GW-206 to GW-208).

use prost::Message as _;
use serde_json::json;
use tollgate_engine::testing::grpc::{End, Reply};

use super::shop::{Shop, json};

#[test]
fn gw_206_every_status_has_its_own() {
    let table = [
        (1, 499, "cancelled"),
        (2, 500, "unknown"),
        (3, 400, "invalid_argument"),
        (4, 504, "deadline_exceeded"),
        (5, 404, "not_found"),
        (6, 409, "already_exists"),
        (7, 403, "permission_denied"),
        (8, 429, "resource_exhausted"),
        (9, 409, "failed_precondition"),
        (10, 409, "aborted"),
        (11, 400, "out_of_range"),
        (12, 501, "unimplemented"),
        (13, 500, "internal"),
        (15, 500, "data_loss"),
        (16, 401, "unauthenticated"),
        (14, 503, "unavailable"),
        (77, 500, "unknown"),
    ];
    for (number, status, word) in table {
        for late in [false, true] {
            let shop = Shop::with("", "retry = \"off\"", move |_| match late {
                false => Reply::error(number, "said"),
                true => Reply {
                    end: End::Trailers(vec![
                        ("grpc-status", number.to_string()),
                        ("grpc-message", "sa%69d".to_owned()),
                    ]),
                    ..Reply::ok(&[])
                },
            });
            let answer = shop.get("/v1/orders/7");
            assert_eq!(answer.status, status, "{number} {late}");
            assert_eq!(
                answer.header("content-type"),
                Some("application/problem+json")
            );
            let problem = json(&answer);
            assert_eq!(
                (&problem["code"], &problem["status"]),
                (&json!(word), &json!(status))
            );
            // What the service's people say among themselves stays there.
            let detail = (status != 500).then_some("said");
            assert_eq!(problem["detail"].as_str(), detail, "{number}");
            assert!(problem["request_id"].is_string());
        }
    }
}

/// `google.rpc.Status` with an `ErrorInfo`, a `RetryInfo`, a `DebugInfo` and something that nobody here knows.
fn details() -> String {
    let any = |name: &str, value: Vec<u8>| prost_types_any(name, value);
    let info = [
        vec![0x0a, 14],
        b"PAYMENT_FAILED".to_vec(),
        vec![0x1a, 6, 0x0a, 1, b'k', 0x12, 1, b'v'],
    ]
    .concat();
    let retry = vec![0x0a, 4, 8, 2, 0x10, 1];
    let parts = [
        any("google.rpc.ErrorInfo", info),
        any("google.rpc.RetryInfo", retry),
        any(
            "google.rpc.DebugInfo",
            vec![0x12, 6, b's', b'e', b'c', b'r', b'e', b't'],
        ),
        any("nobody.Knows", vec![]),
    ];
    let mut status = vec![8, 9];
    for part in parts {
        status.extend([0x1a, u8::try_from(part.len()).expect("small")]);
        status.extend(part);
    }
    base64(&status)
}

fn prost_types_any(name: &str, value: Vec<u8>) -> Vec<u8> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    Any {
        type_url: format!("type.googleapis.com/{name}"),
        value,
    }
    .encode_to_vec()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    bits.chunks(6)
        .map(|chunk| {
            let value = chunk.iter().fold(0, |value, bit| value << 1 | bit) << (6 - chunk.len());
            char::from(LETTERS[usize::from(value)])
        })
        .collect()
}

#[test]
fn gw_207_details_reach_the_client_and_choose_status_and_retry_after() {
    let shop = Shop::with("statuses = { PAYMENT_FAILED = 402 }", "", |_| {
        let mut reply = Reply::error(9, "the card was refused");
        reply.head.push(("grpc-status-details-bin", details()));
        reply
    });
    let answer = shop.get("/v1/orders/7");
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (402, Some("3"))
    );
    let problem = json(&answer);
    assert_eq!(problem["title"], "the card was refused");
    assert_eq!(
        problem["details"],
        json!([
            { "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "PAYMENT_FAILED", "metadata": { "k": "v" } },
            { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.000000001s" },
        ])
    );
    assert!(
        !answer.text().contains("secret") && !answer.text().contains("DebugInfo"),
        "{answer:?}"
    );
    assert!(
        answer
            .headers
            .iter()
            .all(|(name, _)| !name.starts_with("grpc")),
        "{answer:?}"
    );
}

/// As the services' own REST answers (SHOP-804).
#[test]
fn gw_807_in_an_envelope_the_service_s_reason_is_the_code_and_what_it_said_the_details() {
    let envelope = "errors = { body = \"envelope\" }\n";
    let shop = Shop::under(envelope, "statuses = { PAYMENT_FAILED = 402 }", "", |_| {
        let mut reply = Reply::error(9, "the card was refused");
        reply.head.push(("grpc-status-details-bin", details()));
        reply
    });
    let answer = shop.get("/v1/orders/7");
    assert_eq!(answer.status, 402);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let told = json(&answer);
    assert_eq!(told["success"], false);
    let error = &told["error"];
    assert_eq!(
        (&error["code"], &error["status"]),
        (&json!("PAYMENT_FAILED"), &json!(402))
    );
    assert_eq!(error["message"], "the card was refused");
    assert_eq!(error["details"], json!({ "k": "v", "retry_after": 3 }));
    let hex = |key: &str| error[key].as_str().map(str::len);
    assert_eq!(
        (hex("trace_id"), hex("correlation_id")),
        (Some(32), Some(32))
    );
    assert!(!answer.text().contains("secret"), "{answer:?}");
}

#[test]
fn gw_207_a_pushback_is_when_to_come_again() {
    let shop = Shop::with("", "retry = \"off\"", |_| {
        let mut reply = Reply::error(14, "busy");
        reply
            .head
            .push(("grpc-retry-pushback-ms", "1500".to_owned()));
        reply
    });
    let answer = shop.get("/v1/orders/7");
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("2"))
    );
}

#[test]
fn gw_208_malformed_answers_are_502_and_ours() {
    type Case = (&'static str, fn() -> Reply);
    let cases: [Case; 7] = [
        ("no message", || Reply::ok(&[])),
        ("two messages", || Reply::ok(&[Vec::new(), Vec::new()])),
        ("no protobuf", || Reply::ok(&[vec![0xff; 4]])),
        ("no UTF-8", || Reply::ok(&[vec![0x0a, 1, 0xff]])),
        ("a compressed message", || Reply {
            pieces: vec![vec![1, 0, 0, 0, 0]],
            ..Reply::ok(&[])
        }),
        ("a frame that is cut", || Reply {
            pieces: vec![vec![0, 0, 0, 0, 9, 1]],
            ..Reply::ok(&[])
        }),
        ("a frame beyond the bound", || Reply {
            pieces: vec![vec![0, 0xff, 0, 0, 0]],
            ..Reply::ok(&[])
        }),
    ];
    for (what, reply) in cases {
        let shop = Shop::answering(move |_| reply());
        let answer = shop.get("/v1/orders/7");
        assert_eq!(
            (answer.status, &*answer.code()),
            (502, "upstream_bad_message"),
            "{what}"
        );
    }
    let shop = Shop::answering(|_| Reply {
        end: End::Cut,
        ..Reply::ok(&[Vec::new()])
    });
    assert_eq!(
        shop.get("/v1/orders/7").status,
        500,
        "a call that does not say how it ended"
    );
    let shop = Shop::answering(|_| Reply {
        end: End::Reset,
        ..Reply::ok(&[Vec::new()])
    });
    assert_eq!(shop.get("/v1/orders/7").status, 502, "a reset");
}

#[test]
fn gw_208_no_service_and_no_answer_are_503_and_504() {
    let shop = Shop::with("", "timeout = \"300ms\"", |_| Reply {
        end: End::Hang,
        ..Reply::ok(&[])
    });
    let answer = shop.get("/v1/orders/7");
    assert_eq!((answer.status, &*answer.code()), (504, "route_timeout"));
    let shop = Shop::with("", "timeout = \"300ms\"", |_| Reply {
        end: End::Hang,
        ..Reply::ok(&[Vec::new()])
    });
    let answer = shop.get("/v1/orders/7");
    assert_eq!(
        (answer.status, &*answer.code()),
        (504, "route_timeout"),
        "the trailers are waited for, too"
    );
    let shop = Shop::of_order(json!({}));
    let address = shop.upstream.address().to_string();
    let nobody = tollgate_engine::testing::upstream::Upstream::nobody().to_string();
    shop.gateway
        .edit(&shop.document.replace(&address, &nobody))
        .expect("a good document");
    let answer = shop.get("/v1/orders/7");
    assert_eq!(
        (answer.status, &*answer.code()),
        (503, "connect_failed"),
        "in JSON, for the client speaks it"
    );
}

#[test]
fn gw_405_the_breaker_hears_what_trailers_say() {
    let shop = Shop::answering(|_| Reply {
        end: End::Trailers(vec![("grpc-status", "13".to_owned())]),
        ..Reply::ok(&[])
    });
    let document = format!(
        "{}\n[upstream.breaker]\nfailures = 3\nvolume = 1\n",
        shop.document
    );
    shop.gateway.edit(&document).expect("a good document");
    let statuses: Vec<u16> = (0..5).map(|_| shop.get("/v1/orders/7").status).collect();
    assert_eq!(
        statuses,
        [500, 500, 500, 503, 503],
        "three failures open it"
    );
    assert_eq!(shop.upstream.calls().len(), 3);
}
