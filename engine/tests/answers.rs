//! Answers of our own: their codes and fields, and that whatever the client was still sending is neither taken for a
//! request nor left to block anybody (HI-20, "undrained bodies").

use bytes::Bytes;
use tollgate_engine::testing::client::Ended;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;

/// `/known` for GET and PUT goes upstream, `/here` is answered, `/old` is redirected, nothing else is known.
fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(&format!(
        r#"
[[listener]]
name = "in"
bind = "127.0.0.1:0"

[[route]]
match    = {{ path = "/known", methods = ["GET", "PUT"] }}
upstream = "app"
timeout  = "60s"

[[route]]
match   = {{ path = "/here" }}
respond = {{ status = 203, body = "from here", headers = {{ x-ours = "1" }} }}

[[route]]
match    = {{ path = "/old/*" }}
redirect = {{ to = "https://new.example{{path}}", status = 308 }}

[[upstream]]
name      = "app"
endpoints = ["{}"]
"#,
        upstream.address()
    ))
}

#[test]
fn an_unknown_path_is_404_and_an_unknown_method_405_with_allow() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let mut client = gateway.client();
    let response = client.get("/unknown");
    assert_eq!((response.status, &*response.code()), (404, "no_route"));
    let response = client.request("DELETE /known", &[]);
    assert_eq!(
        (response.status, &*response.code()),
        (405, "method_not_allowed")
    );
    let mut allowed: Vec<&str> = response
        .header("allow")
        .expect("Allow")
        .split(',')
        .map(str::trim)
        .collect();
    allowed.sort_unstable();
    assert!(
        allowed.contains(&"GET") && allowed.contains(&"PUT") && !allowed.contains(&"DELETE"),
        "{allowed:?}"
    );
    assert_eq!(
        client.get("/known").status,
        200,
        "a refusal of a clean request costs no connection"
    );
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_problem_tells_its_code_phase_and_request_and_no_address() {
    let gateway = Gateway::in_front_of(Upstream::nobody());
    let response = gateway.get("/");
    let problem = response.problem();
    assert_eq!(
        (problem["code"].as_str(), problem["phase"].as_str()),
        (Some("connect_failed"), Some("connect"))
    );
    assert!(
        problem["title"]
            .as_str()
            .is_some_and(|title| !title.is_empty()),
        "{problem}"
    );
    assert!(
        problem["request_id"]
            .as_str()
            .is_some_and(|id| !id.is_empty()),
        "{problem}"
    );
    assert!(!response.text().contains("127.0.0.1"), "{problem}");
}

#[test]
fn fixed_answers_and_redirects_are_as_written() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let mut client = gateway.client();
    let response = client.get("/here");
    assert_eq!(
        (
            response.status,
            &*response.text(),
            response.header("x-ours")
        ),
        (203, "from here", Some("1"))
    );
    let response = client.request("HEAD /here", &[]);
    assert_eq!(
        (response.status, response.header("content-length")),
        (203, Some("9"))
    );
    let response = client.get("/old/a//b");
    assert_eq!(
        (response.status, response.header("location")),
        (308, Some("https://new.example/old/a/b"))
    );
    assert_eq!(upstream.connections(), 0);
}

/// Forty-nine bytes that look like a request.
const HIDDEN: &str = "GET /known HTTP/1.1\r\nHost: hidden\r\nX-P: 12345\r\n\r\n";

#[test]
fn hi_20_the_body_of_a_refused_request_is_never_taken_for_the_next() {
    assert_eq!(HIDDEN.len(), 49);
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let heads = [
        "POST /unknown HTTP/1.1\r\nHost: a\r\nContent-Length: 49\r\n\r\n",
        "POST /unknown HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 49\r\n\r\n",
        "POST /known HTTP/1.1\r\nHost: a\r\nContent-Length: 49\r\n\r\n",
        "POST /here HTTP/1.1\r\nHost: a\r\nContent-Length: 49\r\n\r\n",
        "POST /old/x HTTP/1.1\r\nHost: a\r\nContent-Length: 49\r\n\r\n",
        "POST /unknown HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n31\r\n",
    ];
    for head in heads {
        let chunk_end = if head.contains("chunked") {
            "\r\n0\r\n\r\n"
        } else {
            ""
        };
        // Once with the body right behind its head, once only after the answer has come.
        for early in [true, false] {
            let mut client = gateway.client();
            client.send(head);
            if early {
                client.send(HIDDEN).send(chunk_end);
            }
            let response = client.read_response();
            assert_ne!(response.status, 200, "{head:?}: {response:?}");
            if !early {
                client.send(HIDDEN).send(chunk_end);
            }
            client.send("GET /known?honest HTTP/1.1\r\nHost: honest\r\nConnection: close\r\n\r\n");
            let (rest, ended) = client.drain();
            assert_ne!(ended, Ended::Silent, "{head:?}");
            let rest = String::from_utf8_lossy(&rest).into_owned();
            assert!(rest.matches("HTTP/1.1 ").count() <= 2, "{head:?}: {rest}");
        }
    }
    for request in upstream.requests() {
        assert_eq!(
            (request.target(), request.header("host")),
            ("/known?honest", Some("honest")),
            "{request:?}"
        );
    }
    upstream.assert_clean();
}

#[test]
fn hi_20_bodies_that_nobody_reads_do_not_use_up_an_http_2_connection() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_head().is_some() {
            conn.respond("401 Unauthorized", &["Connection: close"], "no");
            conn.finish();
            conn.wait_closed();
        }
    });
    for path in ["/unknown", "/known"] {
        let gateway = gateway(&upstream);
        h2_client::run(async {
            let sender = h2_client::connect(gateway.address()).await;
            let body = vec![b'x'; 60_000];
            // Together several times the window of a connection.
            for n in 0..200 {
                let mut sender = sender.clone().ready().await.expect("the connection lives");
                let request = h2_client::request("PUT", path, &[]);
                let (response, mut send) = sender.send_request(request, false).expect("sent");
                let _refused_early = send.send_data(Bytes::from(body.clone()), true);
                let status = response
                    .await
                    .unwrap_or_else(|error| panic!("{path}, request {n}: {error}"))
                    .status();
                assert!(
                    matches!(status.as_u16(), 401 | 404),
                    "{path}, request {n}: {status}"
                );
            }
            let request = h2_client::request("GET", "/here", &[]);
            let answer = h2_client::exchange(&sender, request, &[], None)
                .await
                .expect("an answer");
            assert_eq!(answer.status, 203);
        });
    }
}

#[test]
fn hi_20_bodies_that_the_client_cuts_do_not_use_up_an_http_2_connection() {
    let upstream = Upstream::http1(|conn| {
        conn.read_head();
        conn.wait_closed();
    });
    let gateway = gateway(&upstream);
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        // Fewer than what counts as a storm of cancellations, together more than a connection's window.
        for _ in 0..100 {
            let mut sender = sender.clone().ready().await.expect("the connection lives");
            let request = h2_client::request("PUT", "/known", &[]);
            let (response, mut send) = sender.send_request(request, false).expect("sent");
            send.reserve_capacity(60_000);
            let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
            let room = room.expect("more").expect("no error");
            send.send_data(Bytes::from(vec![b'x'; room]), false)
                .expect("sent");
            tokio::task::yield_now().await;
            send.send_reset(h2::Reason::CANCEL);
            drop(response);
        }
        let request = h2_client::request("POST", "/here", &[]);
        let body = vec![b'y'; 50_000];
        let answer = h2_client::exchange(&sender, request, &[&body], None)
            .await
            .expect("an answer");
        assert_eq!(answer.status, 203);
    });
}

#[test]
fn when_every_connection_to_an_upstream_is_in_use_the_answer_is_503() {
    let gate = Gate::new();
    let wait = gate.clone();
    let upstream = Upstream::http1(move |conn| {
        while conn.read_request().is_some() {
            wait.wait();
            conn.respond("200 OK", &[], "done");
        }
    });
    let toml = document(
        upstream.address(),
        "",
        "retry = \"off\"",
        "max_connections = 1",
    );
    let gateway = Gateway::start(&toml);
    let mut first = gateway.client();
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.wait("the first request", |journal| journal.requests.len() == 1);
    let response = gateway.get("/");
    assert_eq!((response.status, &*response.code()), (503, "overloaded"));
    assert_eq!(response.problem()["setting"], "upstream.max_connections");
    gate.open();
    assert_eq!(first.read_response().text(), "done");
    assert_eq!(gateway.get("/").text(), "done");
    assert_eq!(upstream.connections(), 1);
}

/// GW-810, GW-807: all that is wrong with a body is told at once, to whoever may call, and nobody else gets it.
#[test]
fn gw_810_a_body_that_is_not_what_its_schema_says_goes_no_further() {
    let upstream = Upstream::echo();
    let schema = r#"{"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string", "maxLength": 3}, "count": {"type": "integer"}}}"#;
    let route =
        format!("filters = [{{ validate = {{ schema = '''{schema}''', max_body = \"64B\" }} }}]");
    let gateway = Gateway::start(&document(upstream.address(), "", &route, ""));
    let json = "Content-Type: application/vnd.shop+json; charset=utf-8";
    let send = |line: &str, field: &str, body: &str| {
        let length = format!("Content-Length: {}", body.len());
        let mut client = gateway.client();
        client.send(format!(
            "{line} HTTP/1.1\r\nHost: a\r\n{field}\r\n{length}\r\n\r\n{body}"
        ));
        client.read_response()
    };
    let good = send(
        "POST /a",
        json,
        r#"{"name": "ada", "count": 1, "more": {}}"#,
    );
    assert_eq!(good.status, 200, "{good:?}");
    assert_eq!(upstream.requests().len(), 1);

    let bad = send("POST /a", json, r#"{"name": "augusta", "count": "1"}"#);
    assert_eq!((bad.status, &*bad.code()), (400, "validation_error"));
    let problem = bad.problem();
    assert_eq!(problem["errors"][0]["field"], "name");
    assert_eq!(problem["errors"][1]["field"], "count");
    assert_eq!(problem["errors"][2], serde_json::Value::Null);
    for (line, field, body, status, code) in [
        ("PUT /a", json, "", 400, "validation_error"),
        ("DELETE /a", json, "{}", 400, "validation_error"),
        (
            "POST /a",
            json,
            "{\"name\": \"a\", \"name\": \"b\"}",
            400,
            "validation_error",
        ),
        (
            "POST /a",
            "Content-Type: text/plain",
            "{\"name\": \"a\"}",
            415,
            "unsupported_content",
        ),
        (
            "POST /a",
            "Content-Encoding: gzip",
            "{\"name\": \"a\"}",
            415,
            "unsupported_content",
        ),
        ("POST /a", json, &" ".repeat(65), 413, "body_too_large"),
    ] {
        let refused = send(line, field, body);
        assert_eq!(
            (refused.status, &*refused.code()),
            (status, code),
            "{line} {body}"
        );
    }
    assert_eq!(upstream.requests().len(), 1, "nobody else gets it");
    // In pieces, and without a body.
    let mut client = gateway.client();
    client.send(format!(
        "POST /a HTTP/1.1\r\nHost: a\r\n{json}\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{{\"name\"\r\n6\r\n: \"a\"}}\r\n0\r\n\r\n"
    ));
    assert_eq!(client.read_response().status, 200);
    assert_eq!(client.get("/a").status, 200);
    assert_eq!(upstream.requests().len(), 3);
    assert_eq!(upstream.requests()[1].body, b"{\"name\": \"a\"}");
}

/// GW-810: flagged texts are sanitized before they are checked and passed on; the rest of a body stays as it is, and nothing
/// goes on that speaks of the bytes that came.
#[test]
fn gw_810_flagged_texts_are_sanitized_on_their_way() {
    let upstream = Upstream::echo();
    let schema =
        r#"{"properties": {"note": {"sanitize": ["nul", "strip_html", "trim"], "minLength": 1}}}"#;
    let route = format!("filters = [{{ validate = {{ schema = '''{schema}''' }} }}]");
    let gateway = Gateway::start(&document(upstream.address(), "", &route, ""));
    let send = |body: &str| {
        let length = body.len();
        let mut client = gateway.client();
        client.send(format!(
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Digest: sha-256=:x:\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        client.read_response()
    };
    let answer = send("{\"n\": 1.50, \"note\": \" <b>a\\u0000</b> b\", \"other\": \" <i> \"}");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(send("{\"note\":\"a\"}").status, 200);
    assert_eq!(send("{\"note\": \" <b> \"}").code(), "validation_error");
    let seen = upstream.requests();
    let bodies: Vec<_> = seen.iter().map(|request| request.body.clone()).collect();
    assert_eq!(
        bodies,
        [
            &b"{\"n\": 1.50, \"note\": \"a b\", \"other\": \" <i> \"}"[..],
            b"{\"note\":\"a\"}"
        ]
    );
    let digests = seen
        .iter()
        .map(|request| request.header("content-digest").is_some());
    assert_eq!(digests.collect::<Vec<_>>(), [false, true]);
}

/// GW-807: the same in the shop's envelope.
#[test]
fn gw_807_an_envelope_names_fields_under_validation_error() {
    let upstream = Upstream::echo();
    let route = "filters = [{ validate = { schema = '{\"required\": [\"name\"]}' } }]";
    let text = format!(
        "[errors]\nbody = \"envelope\"\n\n{}",
        document(upstream.address(), "", route, "")
    );
    let gateway = Gateway::start(&text);
    let mut client = gateway.client();
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
    let answer = client.read_response();
    let told: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(told["error"]["code"], "VALIDATION_ERROR");
    assert_eq!(told["error"]["details"]["errors"][0]["field"], "name");
}
