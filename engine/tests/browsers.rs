//! What browsers and clients are told: preflights, origins, careful fields, and our own answers in an envelope.

use serde_json::Value;
use tollgate_engine::testing::client::Response;
use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::upstream::Upstream;

const SHOP: &str = "Origin: https://shop.example";

/// One route for GET with these filters, and the same path for other methods without.
fn toml(upstream: &Upstream, filters: &str, more: &str) -> String {
    format!(
        "[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n\n\
         [[upstream]]\nname = \"app\"\nendpoints = [\"{}\"]\n\n\
         [[route]]\nname = \"read\"\nmatch = {{ path = \"/orders\", methods = [\"GET\"] }}\nupstream = \"app\"\ntimeout = \"60s\"\nfilters = [{filters}]\n\n\
         [[route]]\nname = \"write\"\nmatch = {{ path = \"/orders\", methods = [\"POST\"] }}\nupstream = \"app\"\ntimeout = \"60s\"\n{more}\n",
        upstream.address()
    )
}

fn preflight<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["Access-Control-Request-Method: GET"], more].concat()
}

/// A route that hardly anybody may use.
const GUARDED: &str =
    "{ rate_limit = { by = \"route\", rate = \"1/h\", burst = 1 } }, { api_key = \"required\" }";
const KEY: &str = "[[api_key]]\nkey = \"a-long-enough-key\"\nclient = \"c\"\n";

#[test]
fn gw_805_a_preflight_is_answered_here_before_keys_and_limits_and_costs_nothing() {
    let upstream = Upstream::fixed("ok");
    let filters = format!(
        "{GUARDED}, {{ cors = {{ origins = [\"https://shop.example\", \"https://*.shop.example\"] }} }}"
    );
    let gateway = Gateway::start(&toml(&upstream, &filters, KEY));
    for origin in [SHOP, "Origin: https://eu.shop.example"] {
        for _ in 0..3 {
            let answer = gateway
                .client()
                .request("OPTIONS /orders", &preflight(&[origin]));
            assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer:?}");
            for (name, value) in [
                ("access-control-allow-origin", Some(&origin[8..])),
                (
                    "access-control-allow-methods",
                    Some("GET, POST, PUT, PATCH, DELETE"),
                ),
                (
                    "access-control-allow-headers",
                    Some("content-type, authorization, x-api-key, idempotency-key, traceparent"),
                ),
                ("access-control-allow-credentials", Some("true")),
                ("access-control-max-age", Some("600")),
                ("access-control-expose-headers", None),
                ("vary", Some("origin")),
            ] {
                assert_eq!(answer.header(name), value, "{name}");
            }
        }
    }
    for other in [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: https://shop.example.evil",
    ] {
        let answer = gateway
            .client()
            .request("OPTIONS /orders", &preflight(&[other]));
        assert_eq!(answer.status, 204);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            None,
            "{other}"
        );
        assert_eq!(answer.header("vary"), Some("origin"));
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn gw_805_answers_say_which_origin_may_read_them_refusals_too_and_an_upstreams_word_is_replaced() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            let lines = [
                "Access-Control-Allow-Origin: *",
                "Access-Control-Allow-Origin: http://x",
                "Vary: accept",
            ];
            conn.respond("200 OK", &lines, "ok");
        }
    });
    let filters = format!(
        "{GUARDED}, {{ cors = {{ origins = [\"https://shop.example\"], expose = [\"x-a\"] }} }}"
    );
    let gateway = Gateway::start(&toml(&upstream, &filters, KEY));
    let served = gateway
        .client()
        .request("GET /orders", &[SHOP, "X-API-Key: a-long-enough-key"]);
    assert_eq!(served.status, 200);
    let limited = gateway
        .client()
        .request("GET /orders", &[SHOP, "X-API-Key: a-long-enough-key"]);
    assert_eq!(limited.status, 429);
    for answer in [&served, &limited] {
        assert_eq!(
            answer.all("access-control-allow-origin"),
            ["https://shop.example"]
        );
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            Some("true")
        );
        assert_eq!(answer.header("access-control-expose-headers"), Some("x-a"));
    }
    assert_eq!(served.all("vary"), ["accept", "origin"]);
    for lines in [&[][..], &["Origin: https://evil.example"], &[SHOP, SHOP]] {
        let answer = gateway.client().request("GET /orders", lines);
        assert_eq!(
            answer.all("access-control-allow-origin"),
            [""; 0],
            "{lines:?}"
        );
        assert_eq!(answer.all("vary"), ["origin"], "{lines:?}");
    }
}

#[test]
fn anybody_means_without_credentials_and_does_not_vary() {
    let upstream = Upstream::fixed("ok");
    let gateway = Gateway::start(&toml(
        &upstream,
        "{ cors = { origins = [\"*\"], credentials = false } }",
        "",
    ));
    let answer = gateway.client().request("GET /orders", &["Origin: null"]);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(
        (
            answer.header("access-control-allow-credentials"),
            answer.header("vary")
        ),
        (None, None)
    );
}

#[test]
fn what_is_no_preflight_for_a_route_with_cors_goes_its_way() {
    let upstream = Upstream::fixed("ok");
    let more = "[[route]]\nname = \"options\"\nmatch = { path = \"/orders\", methods = [\"OPTIONS\"] }\nupstream = \"app\"\n";
    let gateway = Gateway::start(&toml(&upstream, "{ cors = {} }", more));
    let origin = "Origin: http://localhost:3000";
    for lines in [
        &[origin][..],
        &["Access-Control-Request-Method: GET"],
        &[origin, "Access-Control-Request-Method: POST"],
        &[origin, "Access-Control-Request-Method: G E T"],
    ] {
        assert_eq!(
            gateway.client().request("OPTIONS /orders", lines).status,
            200,
            "{lines:?}"
        );
    }
    assert_eq!(upstream.requests().len(), 4);
    let answered = gateway
        .client()
        .request("OPTIONS /orders", &preflight(&[origin]));
    assert_eq!((answered.status, upstream.requests().len()), (204, 4));
}

#[test]
fn gw_806_careful_fields_are_added_where_an_upstream_has_none_of_its_own() {
    let upstream = Upstream::http1(|conn| {
        while conn.read_request().is_some() {
            conn.respond("200 OK", &["X-Frame-Options: SAMEORIGIN"], "ok");
        }
    });
    let filters = "{ security_headers = { referrer_policy = \"off\", content_security_policy = \"default-src 'none'\" } }";
    let gateway = Gateway::start(&toml(&upstream, filters, ""));
    let answer = gateway.get("/orders");
    for (name, value) in [
        ("content-security-policy", Some("default-src 'none'")),
        ("x-content-type-options", Some("nosniff")),
        ("x-frame-options", Some("SAMEORIGIN")),
        ("referrer-policy", None),
        ("strict-transport-security", None),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
}

#[test]
fn gw_807_our_own_answers_come_in_an_envelope_when_the_document_says_so() {
    let upstream = Upstream::fixed("ok");
    let more = format!("{KEY}[errors]\nbody = \"envelope\"\n");
    let gateway = Gateway::start(&toml(&upstream, "{ api_key = \"required\" }", &more));
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let told = |answer: &Response| -> Value {
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(body["success"], false);
        body["error"].clone()
    };
    let answer = gateway
        .client()
        .request("GET /orders", &[trace, "X-Request-Id: r-1"]);
    let error = told(&answer);
    assert_eq!(
        (answer.status, &error["code"], &error["status"]),
        (401, &"API_KEY_REFUSED".into(), &401.into())
    );
    assert_eq!(error["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(error["correlation_id"], "r-1");
    assert_eq!(told(&gateway.get("/nowhere"))["code"], "NO_ROUTE");
    let mut client = gateway.client();
    client.send("GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
    assert_eq!(told(&client.read_response())["code"], "BAD_HOST");
    gateway
        .edit(&toml(&upstream, "{ api_key = \"required\" }", KEY))
        .expect("good");
    assert_eq!(
        gateway.get("/orders").header("content-type"),
        Some("application/problem+json")
    );
}
