//! Breakers of parts of an upstream: GW-412.

use serde_json::json;
use tollgate_engine::testing::client::Client;
use tollgate_engine::testing::gateway::{Gateway, document};

use super::operator::post;
use super::*;

/// Answers what only reads, and fails at the rest.
fn readonly() -> Upstream {
    Upstream::http1(|conn| {
        while let Some(request) = conn.read_request() {
            if request.method() == "GET" {
                conn.respond("200 OK", &[], "");
            } else {
                conn.respond("500 Internal Server Error", &[], "");
            }
        }
    })
}

fn code(gateway: &Gateway, line: &str) -> (u16, String) {
    let answer = gateway.client().request(line, &["Content-Length: 0"]);
    let code = if answer.status == 503 {
        answer.code()
    } else {
        String::new()
    };
    (answer.status, code)
}

fn refused() -> (u16, String) {
    (503, "circuit_open".to_owned())
}

/// Part and state of each breaker.
fn shown(gateway: &Gateway) -> Value {
    let status = gateway.get_status();
    let breakers = status["upstreams"][0]["breakers"]
        .as_array()
        .expect("a list");
    breakers
        .iter()
        .map(|one| json!([one["part"], one["state"]]))
        .collect()
}

fn shows(gateway: &Gateway, state: &str, number: usize) {
    let line = format!("circuit_breaker_state{{upstream=\"app\",state=\"{state}\"}} {number}\n");
    assert!(gateway.metrics().contains(&line), "{line}");
}

#[test]
fn gw_412_writes_that_fail_leave_reads_alone() {
    let upstream = readonly();
    let keys = breaker("grain = \"operation\"\nfailures = 2\nvolume = 2");
    let gateway = Gateway::start(&document(upstream.address(), "", NO_RETRY, &keys));
    for _ in 0..2 {
        assert_eq!(gateway.get("/").status, 200);
        assert_eq!(
            code(&gateway, "POST /").0,
            500,
            "reads do not end a row of writes"
        );
    }
    assert_eq!(code(&gateway, "DELETE /"), refused());
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(
        shown(&gateway),
        json!([["reads", "closed"], ["writes", "open"]])
    );
    shows(&gateway, "closed", 1);
    shows(&gateway, "open", 1);

    let held = "{\"state\":\"open\",\"part\":\"reads\"}";
    assert_eq!(post(&gateway, "/breakers/app", held).status, 200);
    assert_eq!(code(&gateway, "GET /"), refused());
    let nobody = "{\"state\":\"open\",\"part\":\"all\"}";
    assert_eq!(post(&gateway, "/breakers/app", nobody).status, 404);
    let both = post(&gateway, "/breakers/app", "{\"state\":\"closed\"}");
    let both: Value = serde_json::from_slice(&both.body).expect("JSON");
    assert_eq!(
        both["breakers"].as_array().map(Vec::len),
        Some(2),
        "{both:#}"
    );
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(code(&gateway, "POST /").0, 500);
}

#[test]
fn gw_412_each_route_has_a_breaker_of_its_own_and_keeps_it_over_a_reload() {
    let upstream = readonly();
    let keys = breaker("grain = \"route\"\nfailures = 1\nvolume = 1");
    let toml = |route: &str| {
        format!(
            "{}\n[[route]]\nname = \"other\"\nmatch = {{ path = \"/other/*\" }}\nupstream = \"app\"\n{NO_RETRY}\n{route}",
            document(upstream.address(), "", NO_RETRY, &keys)
        )
    };
    let gateway = Gateway::start(&toml(""));
    assert_eq!(code(&gateway, "POST /other/1").0, 500);
    assert_eq!(code(&gateway, "GET /other/1"), refused());
    assert_eq!(gateway.get("/").status, 200);
    let both = json!([["all", "closed"], ["other", "open"]]);
    assert_eq!(shown(&gateway), both, "a route called all");
    gateway.edit(&toml("timeout = \"3s\"")).expect("valid");
    assert_eq!(code(&gateway, "GET /other/1"), refused());
    assert_eq!(shown(&gateway), both);

    // Another grain begins with breakers of its own.
    let whole = toml("").replace("grain = \"route\"", "grain = \"upstream\"");
    gateway.edit(&whole).expect("valid");
    assert_eq!(shown(&gateway), json!([["all", "closed"]]));
    assert_eq!(gateway.get("/other/1").status, 200);
    let mut client = Client::connect(gateway.address());
    assert_eq!(client.request("POST /", &["Content-Length: 0"]).status, 500);
    assert_eq!(code(&gateway, "GET /other/1"), refused());
}
