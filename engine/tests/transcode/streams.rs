//! Streams: of the service's as lines or events, of the client's from lines, and both at once.

use serde_json::{Value, json};
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::grpc::{End, Reply};
use tollgate_engine::testing::h2_client;

use super::shop::{Shop, message, order, read};

fn two() -> Reply {
    Reply::ok(&[order(json!({ "id": "1" })), order(json!({ "id": "2" }))])
}

#[test]
fn gw_209_each_message_is_a_line_as_soon_as_it_comes() {
    let shop = Shop::answering(|_| Reply {
        gate_behind: Some(1),
        ..two()
    });
    let mut client = Client::connect(shop.gateway.address());
    client.send("GET /v1/orders:watch?page_size=2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.read_head();
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("application/x-ndjson"))
    );
    assert_eq!(
        client.read_chunk(),
        b"{\"id\":\"1\"}\n",
        "it does not wait for the second"
    );
    shop.upstream.open_gate();
    assert_eq!(client.read_chunk(), b"{\"id\":\"2\"}\n");
    assert_eq!(client.read_chunk(), b"", "the end");
    assert_eq!(
        shop.asked("shop.v1.ListOrdersRequest"),
        json!({ "page_size": 2 })
    );
}

#[test]
fn gw_209_events_are_for_who_accepts_them() {
    let shop = Shop::answering(|_| two());
    let answer = shop.gateway.client().request(
        "GET /v1/orders:watch",
        &["Accept: text/html, text/event-stream;q=0.9"],
    );
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(
        answer.text(),
        "data: {\"id\":\"1\"}\n\ndata: {\"id\":\"2\"}\n\n"
    );
}

#[test]
fn an_error_in_the_middle_is_the_last_line() {
    for (accept, begin) in [
        ("*/*", "{\"error\":"),
        ("text/event-stream", "event: error\ndata: "),
    ] {
        let shop = Shop::answering(|_| Reply {
            end: End::Trailers(vec![
                ("grpc-status", "5".to_owned()),
                ("grpc-message", "gone".to_owned()),
            ]),
            ..two()
        });
        let answer = shop
            .gateway
            .client()
            .request("GET /v1/orders:watch", &[&format!("Accept: {accept}")]);
        assert!(answer.complete, "{answer:?}");
        let text = answer.text();
        let (_, last) = text.split_once(begin).unwrap_or_else(|| panic!("{text}"));
        assert!(
            last.contains(r#""code":"not_found""#) && last.contains(r#""detail":"gone""#),
            "{last}"
        );
    }
    let shop = Shop::answering(|_| Reply::error(7, "not you"));
    assert_eq!(
        shop.get("/v1/orders:watch").status,
        403,
        "before the first message it is the answer's status"
    );
}

#[test]
fn a_stream_that_breaks_is_told_and_never_whole() {
    let cases: [fn() -> Reply; 4] = [
        || Reply {
            end: End::Reset,
            ..two()
        },
        || Reply {
            end: End::Cut,
            ..two()
        },
        || Reply::ok(&[order(json!({})), vec![0xff; 4]]),
        || Reply {
            pieces: vec![vec![0, 0, 0, 0, 9, 1]],
            ..Reply::ok(&[])
        },
    ];
    for reply in cases {
        let shop = Shop::answering(move |_| reply());
        let answer = shop.get("/v1/orders:watch");
        // A reset may overtake what was sent before it.
        let early = answer.status == 502;
        assert!(
            early || !answer.complete && answer.text().contains("\"error\""),
            "{answer:?}"
        );
    }
}

#[test]
fn lines_of_a_client_become_messages() {
    let shop = Shop::answering(|_| {
        Reply::ok(&[message(
            "shop.v1.ListOrdersResponse",
            json!({ "nextPageToken": "t" }),
        )])
    });
    let mut client = Client::connect(shop.gateway.address());
    client.send("POST /v1/orders:import HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in [
        "{\"id\":",
        "\"1\"}\n\n{\"id\": \"2\"}\r\n{\"i",
        "d\":\"3\"}",
    ] {
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
    }
    client.send("0\r\n\r\n");
    let answer = client.read_response_to("POST");
    assert_eq!(
        (answer.status, &*answer.text()),
        (200, "{\"nextPageToken\":\"t\"}")
    );
    let messages = shop.upstream.call().messages;
    let ids: Vec<Value> = messages
        .iter()
        .map(|one| read("shop.v1.Order", one)["id"].clone())
        .collect();
    assert_eq!(ids, ["1", "2", "3"]);
}

#[test]
fn a_line_that_is_no_message_ends_the_call_with_its_fields() {
    let shop = Shop::answering(|_| Reply::ok(&[Vec::new()]));
    let answer = shop.send("POST /v1/orders:import", "{\"id\":\"1\"}\n{\"id\": 2}\n");
    assert_eq!(
        (answer.status, &*answer.code()),
        (400, "validation_error"),
        "{answer:?}"
    );
    assert!(answer.text().contains(r#""field":"id""#), "{answer:?}");
}

#[test]
fn both_sides_talk_at_once() {
    let shop = Shop::answering(|_| panic!("the service talks by itself"));
    h2_client::run(async {
        let mut sender = h2_client::connect(shop.gateway.address()).await;
        let request = h2_client::request(
            "POST",
            "/v1/orders:talk",
            &[("content-type", "application/x-ndjson")],
        );
        let (response, mut send) = sender.send_request(request, false).expect("sent");
        let mut body = response.await.expect("a head before any line").into_body();
        for n in 0..5 {
            let line = format!("{{\"id\":\"{n}\"}}\n");
            send.send_data(line.clone().into(), false).expect("sent");
            assert_eq!(
                h2_client::piece(&mut body)
                    .await
                    .expect("more")
                    .expect("no error"),
                line
            );
        }
        send.send_data("".into(), true).expect("sent");
        while let Some(piece) = h2_client::piece(&mut body).await {
            assert_eq!(piece.expect("no error"), "");
        }
    });
    assert_eq!(shop.upstream.call().messages.len(), 5);
}

#[test]
fn bad_lines_of_clients_open_no_breaker() {
    let shop = Shop::answering(|_| panic!("the service talks by itself"));
    let document = format!(
        "{}\n[upstream.breaker]\nfailures = 2\nvolume = 1\n",
        shop.document
    );
    shop.gateway.edit(&document).expect("a good document");
    for _ in 0..5 {
        let answer = h2_client::run(async {
            let mut sender = h2_client::connect(shop.gateway.address()).await;
            let request = h2_client::request(
                "POST",
                "/v1/orders:talk",
                &[("content-type", "application/x-ndjson")],
            );
            let (response, mut send) = sender.send_request(request, false).expect("sent");
            let mut body = response.await.expect("a head before any line").into_body();
            send.send_data("{\"id\":\"1\"}\n".into(), false)
                .expect("sent");
            h2_client::piece(&mut body)
                .await
                .expect("more")
                .expect("no error");
            send.send_data("{\"id\":1}\n".into(), false).expect("sent");
            let mut rest = Vec::new();
            while let Some(Ok(piece)) = h2_client::piece(&mut body).await {
                rest.extend_from_slice(&piece);
            }
            String::from_utf8(rest).expect("text")
        });
        assert!(
            answer.contains("validation_error") && answer.contains(r#""field":"id""#),
            "{answer}"
        );
    }
    let status = shop.gateway.get_status().to_string();
    assert!(!status.contains(r#""state":"open""#), "{status}");
}

#[test]
fn a_stream_of_bytes_is_of_the_type_that_its_first_message_says() {
    let piece = |text: &str, kind: &str| {
        let mut piece = vec![0x0a, u8::try_from(kind.len()).expect("small")];
        piece.extend_from_slice(kind.as_bytes());
        piece.extend([0x12, u8::try_from(text.len()).expect("small")]);
        piece.extend_from_slice(text.as_bytes());
        piece
    };
    let shop = Shop::answering(move |_| {
        Reply::ok(&[
            piece("a,b\n", "text/csv"),
            piece("", ""),
            piece("c,d\n", ""),
        ])
    });
    let answer = shop.get("/v1/streams/7");
    assert_eq!(
        (answer.header("content-type"), &*answer.text()),
        (Some("text/csv"), "a,b\nc,d\n")
    );
    let shop = Shop::answering(|_| Reply {
        end: End::Trailers(vec![("grpc-status", "5".to_owned())]),
        ..Reply::ok(&[])
    });
    assert_eq!(
        shop.get("/v1/streams/7").status,
        404,
        "nothing had gone out yet"
    );
}
