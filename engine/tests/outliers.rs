//! Endpoints that fail more often than the others, and endpoints that ask for less: GW-705, HI-50, through the whole
//! gateway. When exactly is a matter of the simulations in `upstream/tests`.

use std::time::{Duration, Instant};

use tollgate_engine::testing::PATIENCE;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_client::{self, message};
use tollgate_engine::testing::http2::Http2Upstream;
use tollgate_engine::testing::upstream::Upstream;
use tollgate_engine::testing::waiting::until;

/// How long an ejection lasts, the first time.
const EJECTION: Duration = Duration::from_secs(10);

/// Answers every request with this status, or every other one.
fn answers(status: &'static str, every_other: bool) -> Upstream {
    Upstream::http1(move |conn| {
        let mut odd = false;
        while conn.read_request().is_some() {
            odd = !odd;
            let status = if odd || !every_other {
                status
            } else {
                "200 OK"
            };
            conn.respond(status, &[], "");
        }
    })
}

fn endpoint(gateway: &Gateway, address: std::net::SocketAddr) -> serde_json::Value {
    let status = gateway.get_status();
    let endpoints = status["upstreams"][0]["endpoints"].as_array().cloned();
    endpoints
        .unwrap_or_default()
        .into_iter()
        .find(|endpoint| endpoint["address"] == address.to_string())
        .expect("the endpoint is in /status")
}

#[test]
fn hi_50_of_three_endpoints_the_one_that_fails_every_other_request_is_ejected_and_no_other() {
    let (bad, good, fine) = (
        answers("503 Service Unavailable", true),
        answers("200 OK", false),
        answers("200 OK", false),
    );
    let endpoints = format!(
        "{}\", \"{}\", \"{}",
        bad.address(),
        good.address(),
        fine.address()
    );
    let keys = "balance = \"round_robin\"\noutlier = { failures = 1000, volume = 20 }";
    let toml = document(bad.address(), "", "retry = \"off\"", keys).replace(
        &format!("endpoints = [\"{}", bad.address()),
        &format!("endpoints = [\"{endpoints}"),
    );
    // An ejection is over after ten seconds, and what was seen is forgotten as soon: whoever took longer plays again.
    until("an ejection that is seen in time", || {
        let gateway = Gateway::start(&toml);
        let began = Instant::now();
        let mut client = gateway.client();
        let mut failed = 0;
        for _ in 0..200 {
            failed += u32::from(client.get("/").status == 503);
        }
        let found = endpoint(&gateway, bad.address());
        let metrics = gateway.metrics();
        let others = [&good, &fine].map(|one| endpoint(&gateway, one.address()));
        if began.elapsed() >= EJECTION {
            return false;
        }
        assert_eq!(found["health"]["state"], "ejected", "{found}");
        // Twenty of its requests had to be seen, and half of them fail.
        assert!(failed <= 15, "{failed}");
        for found in others {
            assert_eq!(found["health"]["state"], "healthy", "{found}");
        }
        assert!(metrics.contains(r#"upstream_ejections_total{upstream="app"} 1"#));
        true
    });
}

#[test]
fn an_endpoint_that_answers_429_keeps_a_smaller_share_and_is_not_out() {
    let upstream = answers("429 Too Many Requests", false);
    let gateway = Gateway::in_front_of(upstream.address());
    let mut client = gateway.client();
    let mut found = serde_json::Value::Null;
    // It has all of it back after a few seconds.
    until("a smaller share", || {
        for _ in 0..10 {
            assert_eq!(client.get("/").status, 429);
        }
        found = endpoint(&gateway, upstream.address());
        found["rate_limited"]
            .as_f64()
            .is_some_and(|share| share < 0.9)
    });
    assert_eq!(
        (&found["health"]["state"], &found["failures"]),
        (&"healthy".into(), &0.into())
    );
}

#[test]
fn an_endpoint_whose_trailers_say_resource_exhausted_keeps_a_smaller_share() {
    let upstream = Http2Upstream::echo();
    let gateway = Gateway::start(&document(
        upstream.address(),
        "",
        "",
        "protocol = \"http2\"",
    ));
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        let less = || {
            let found = endpoint(&gateway, upstream.address());
            found["rate_limited"]
                .as_f64()
                .is_some_and(|share| share < 1.0)
        };
        // A second later it has all of it back.
        let began = Instant::now();
        loop {
            let request = h2_client::request("POST", "/echo.Echo/Exhausted", &grpc);
            let answer = h2_client::exchange(&sender, request, &[&message(b"x")], None).await;
            assert_eq!(answer.unwrap().grpc_status(), Some("8"));
            if less() {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "its share never shrinks");
        }
    });
}
