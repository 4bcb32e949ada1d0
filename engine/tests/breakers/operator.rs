//! Breakers held open or closed by hand, and what is shown of them.

use tollgate_engine::testing::client::{Client, Response};
use tollgate_engine::testing::gateway::{Gateway, document};

use super::*;

pub(crate) fn post(gateway: &Gateway, path: &str, body: &str) -> Response {
    let mut client = Client::connect(gateway.admin());
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ));
    client.read_response()
}

#[test]
fn an_operator_opens_and_closes_a_breaker_and_is_told_what_is_wrong() {
    let (upstream, _) = moody(WELL);
    let keys = breaker("failures = 1\nvolume = 1");
    let gateway = Gateway::start(&document(upstream.address(), "", NO_RETRY, &keys));
    let opened = post(
        &gateway,
        "/breakers/app",
        "{\"state\":\"open\",\"for\":\"1h\",\"by\":\"ada\",\"why\":\"drill\"}",
    );
    assert_eq!(opened.status, 200, "{opened:?}");
    let open = of_app(&gateway);
    assert_eq!(open["held"]["by"], "ada", "{open:#}");
    assert_eq!(open["reason"], "operator", "{open:#}");
    let refused = gateway.get("/");
    assert_eq!((refused.status, &*refused.code()), (503, "circuit_open"));
    assert_eq!(refused.problem()["setting"], Value::Null);
    let wait: u64 = refused
        .header("retry-after")
        .and_then(|text| text.parse().ok())
        .expect("a number");
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(upstream.requests().len(), 0);
    let auto = post(&gateway, "/breakers/app", "{\"state\":\"auto\"}");
    assert_eq!(auto.status, 200, "{auto:?}");
    assert_eq!(of_app(&gateway)["state"], "half_open");
    let closed = post(&gateway, "/breakers/app", "{\"state\":\"closed\"}");
    assert_eq!(closed.status, 200, "{closed:?}");
    assert_eq!(gateway.get("/").status, 200);

    for (path, body, status) in [
        ("/breakers/nobody", "{\"state\":\"open\"}", 404),
        ("/breakers/app", "{\"state\":\"ajar\"}", 400),
        ("/breakers/app", "open", 400),
        ("/breakers/app", "{\"state\":\"open\",\"until\":1}", 400),
        ("/breakers/app", "{\"state\":\"open\",\"for\":\"25h\"}", 400),
        (
            "/breakers/app",
            "{\"state\":\"open\",\"for\":\"soon\"}",
            400,
        ),
    ] {
        let answer = post(&gateway, path, body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.text().contains("error"), "{answer:?}");
    }
    assert_eq!(gateway.ask("GET /breakers/app").status, 405);
    let all = gateway.ask("GET /breakers");
    let all: Value = serde_json::from_slice(&all.body).expect("JSON");
    assert_eq!(all["breakers"][0]["upstream"], "app", "{all:#}");
    assert_eq!(all["breakers"][0]["breaker"]["state"], "closed", "{all:#}");
}

#[test]
fn an_operator_s_word_outlives_a_reload_and_ends_by_itself() {
    let (upstream, state) = moody(FAILING);
    let toml = |keys: &str| document(upstream.address(), "", NO_RETRY, &breaker(keys));
    let gateway = Gateway::start(&toml("failures = 1\nvolume = 1"));
    let closed = post(&gateway, "/breakers/app", "{\"state\":\"closed\"}");
    assert_eq!(closed.status, 200, "{closed:?}");
    gateway
        .edit(&toml("failures = 2\nvolume = 1"))
        .expect("valid");
    for _ in 0..5 {
        assert_eq!(
            gateway.get("/").status,
            500,
            "held closed, whatever comes back"
        );
    }
    state.set(WELL);
    let open = "{\"state\":\"open\",\"for\":\"1ms\"}";
    assert_eq!(post(&gateway, "/breakers/app", open).status, 200);
    wait(&gateway, "the end of it", is("half_open"));
    for _ in 0..3 {
        assert_eq!(gateway.get("/").status, 200);
    }
    let closed = of_app(&gateway);
    let history = closed["history"].as_array().expect("a list");
    let told: Vec<_> = history.iter().map(|change| &change["reason"]).collect();
    assert_eq!(
        told,
        ["recovered", "expired", "operator", "operator"],
        "{closed:#}"
    );
    assert_eq!(
        (&closed["state"], &closed["trips"]),
        (&"closed".into(), &0.into())
    );
}

#[test]
fn a_breaker_that_is_off_is_shown_in_no_state_and_remembers_its_own() {
    let (upstream, _) = moody(FAILING);
    let toml = |keys: &str| document(upstream.address(), "", NO_RETRY, keys);
    let on = breaker("failures = 1\nvolume = 1");
    let gateway = Gateway::start(&toml(&on));
    let shown = |state: &str, number: usize| {
        let line =
            format!("circuit_breaker_state{{upstream=\"app\",state=\"{state}\"}} {number}\n");
        assert!(gateway.metrics().contains(&line), "{line}");
    };
    shown("closed", 1);
    assert_eq!(gateway.get("/").status, 500);
    shown("closed", 0);
    shown("open", 1);
    gateway.edit(&toml("breaker = \"off\"")).expect("valid");
    for state in ["closed", "open", "half_open"] {
        shown(state, 0);
    }
    assert_eq!(gateway.get("/").status, 500);
    let held = post(&gateway, "/breakers/app", "{\"state\":\"closed\"}");
    assert_eq!(held.status, 409, "{held:?}");
    gateway.edit(&toml(&on)).expect("valid");
    shown("open", 1);
    assert_eq!(gateway.get("/").code(), "circuit_open");
}
