//! What opens a breaker, what does not, and what is answered then.

use std::time::{Duration, Instant};

use tollgate_engine::testing::gateway::{Gateway, document, line_of};
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::http2::Http2Upstream;
use tollgate_engine::testing::journal::Gate;
use tollgate_engine::testing::upstream::Upstream;

use super::*;

#[test]
fn hi_49_a_breaker_opens_answers_at_once_probes_and_closes() {
    for mood in [FAILING, CLOSING, CUTTING] {
        let (upstream, state) = moody(mood);
        let toml = |open_for: &str| {
            let keys = format!("failures = 3\nvolume = 3\nopen_for = \"{open_for}\"");
            document(upstream.address(), "", NO_RETRY, &breaker(&keys))
        };
        let gateway = Gateway::start(&toml("1h"));
        assert_eq!(of_app(&gateway)["state"], "closed");
        for _ in 0..3 {
            let mut client = gateway.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            client.drain();
        }
        let open = wait(&gateway, "the end of the last try", is("open"));
        assert_eq!(open["reason"], "failures", "{open:#}");
        assert_eq!(open["trips"], 1, "{open:#}");
        let (sent, connections) = (upstream.requests().len(), upstream.connections());

        let refused = gateway.get("/");
        assert_eq!((refused.status, &*refused.code()), (503, "circuit_open"));
        let problem = refused.problem();
        assert_eq!(problem["setting"], "upstream.breaker.failures");
        let line = line_of(&toml("1h"), "failures = 3");
        assert_eq!(problem["at"], format!("gateway.toml:{line}"));
        let wait_for: u64 = refused
            .header("retry-after")
            .and_then(|text| text.parse().ok())
            .expect("a number");
        assert!((3000..=3600).contains(&wait_for), "{wait_for}");
        assert_eq!(
            (upstream.requests().len(), upstream.connections()),
            (sent, connections),
            "nothing is asked, nothing connected"
        );

        state.set(WELL);
        gateway.edit(&toml("1ms")).expect("valid");
        wait(&gateway, "the end of open_for", is("half_open"));
        for _ in 0..3 {
            assert_eq!(gateway.get("/").status, 200);
        }
        let closed = wait(&gateway, "enough probes", is("closed"));
        let history = closed["history"].as_array().expect("a list");
        let told: Vec<_> = history.iter().map(|change| &change["reason"]).collect();
        assert_eq!(told, ["recovered", "open_for", "failures"], "{closed:#}");
        let metrics = gateway.metrics();
        for line in [
            "circuit_breaker_state{upstream=\"app\",state=\"closed\"} 1",
            "circuit_breaker_state{upstream=\"app\",state=\"open\"} 0",
            "circuit_breaker_transitions_total{upstream=\"app\",reason=\"failures\"} 1",
            "circuit_breaker_requests_total{upstream=\"app\",result=\"admitted\"} 3",
            "circuit_breaker_requests_total{upstream=\"app\",result=\"probe\"} 3",
            "circuit_breaker_requests_total{upstream=\"app\",result=\"refused\"} 1",
        ] {
            assert!(metrics.contains(line), "{line}");
        }
    }
}

#[test]
fn gw_405_an_upstream_that_never_answers_opens_it_and_nobody_waits_any_more() {
    let gate = Gate::new();
    let theirs = gate.clone();
    let upstream = Upstream::http1(move |conn| {
        conn.read_request();
        theirs.wait();
    });
    let keys = breaker("failures = 3\nvolume = 3");
    let toml = |timeout: &str| {
        let route = format!("{NO_RETRY}\ntimeout = \"{timeout}\"");
        document(upstream.address(), "", &route, &keys)
    };
    let gateway = Gateway::start(&toml("20ms"));
    for _ in 0..3 {
        assert_eq!(gateway.get("/").code(), "route_timeout");
    }
    // Whoever waited for this upstream now would wait for an hour.
    gateway.edit(&toml("1h")).expect("valid");
    assert_eq!(gateway.get("/").code(), "circuit_open");
    // What was given up may not have been read yet.
    upstream.wait("three tries", |journal| journal.requests.len() == 3);
    gate.open();
}

#[test]
fn gw_405_every_try_of_one_request_counts_by_itself() {
    let (upstream, _) = moody(CLOSING);
    let route = "[route.retry]\nattempts = 5\nbackoff = { base = \"1ms\", max = \"2ms\" }";
    let keys = breaker("failures = 3\nvolume = 3");
    let gateway = Gateway::start(&document(upstream.address(), "", route, &keys));
    assert_eq!(
        gateway.get("/").code(),
        "upstream_reset",
        "what the last try brought"
    );
    let open = of_app(&gateway);
    assert_eq!(
        (&open["state"], &open["trips"]),
        (&"open".into(), &1.into())
    );
    assert_eq!(
        upstream.requests().len(),
        3,
        "nothing is tried again through an open breaker"
    );
}

#[test]
fn gw_411_an_adaptive_one_opens_by_failures_too_and_stays_open_for_about_its_time() {
    let (upstream, _) = moody(FAILING);
    let keys = breaker("kind = \"adaptive\"\nfailures = 2\nvolume = 2\nopen_for = \"100s\"");
    let gateway = Gateway::start(&document(upstream.address(), "", NO_RETRY, &keys));
    let began = Instant::now();
    for _ in 0..2 {
        assert_eq!(gateway.get("/").status, 500);
    }
    let refused = gateway.get("/");
    assert_eq!(refused.code(), "circuit_open");
    let passed = began.elapsed().as_secs();
    let wait: u64 = refused
        .header("retry-after")
        .and_then(|text| text.parse().ok())
        .expect("a number");
    // A tenth or two more or less.
    assert!((75 - passed..=125).contains(&wait), "{wait} {passed}");
}

#[test]
fn gw_405_answers_below_500_and_clients_that_leave_are_no_failures() {
    let (upstream, _) = moody(MISSING);
    let keys = breaker("failures = 1\nvolume = 1");
    let gateway = Gateway::start(&document(upstream.address(), "", NO_RETRY, &keys));
    for _ in 0..30 {
        assert_eq!(gateway.get("/").status, 404);
    }
    assert_eq!(of_app(&gateway)["failed"], 0);

    let gate = Gate::new();
    let theirs = gate.clone();
    let slow = Upstream::http1(move |conn| {
        conn.read_request();
        theirs.wait();
    });
    let gateway = Gateway::start(&document(slow.address(), "", NO_RETRY, &keys));
    for number in 1..=5 {
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        slow.wait("a request", |journal| journal.requests.len() == number);
        client.reset();
    }
    slow.wait("the connections' end", |journal| journal.connections == 5);
    gateway.wait_status("all of them to be gone", |status| {
        status["upstreams"][0]["endpoints"][0]["in_flight"] == 0
    });
    assert_eq!(of_app(&gateway)["state"], "closed");
    gate.open();
}

#[test]
fn gw_405_a_grpc_call_that_fails_in_its_trailers_is_a_failure_and_not_found_is_none() {
    let upstream = Http2Upstream::echo();
    let keys = format!(
        "protocol = \"http2\"\n{}",
        breaker("failures = 1\nvolume = 1")
    );
    let gateway = Gateway::start(&document(upstream.address(), "", NO_RETRY, &keys));
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let call = |method: &str| {
            let headers = [("content-type", "application/grpc"), ("te", "trailers")];
            h2_client::request("POST", &format!("/echo.Echo/{method}"), &headers)
        };
        for _ in 0..5 {
            let answer = h2_client::exchange(&sender, call("Fail"), &[], None).await;
            assert_eq!(answer.expect("an answer").grpc_status(), Some("5"));
        }
        assert_eq!(of_app(&gateway)["state"], "closed");
        let answer = h2_client::exchange(&sender, call("FailLate"), &[], None).await;
        assert_eq!(answer.expect("an answer").grpc_status(), Some("13"));
        wait(&gateway, "the end of the call", is("open"));
    });
}

#[test]
fn gw_401_one_upstream_s_breaker_leaves_the_others_alone() {
    let ((bad, _), (good, _)) = (moody(FAILING), moody(WELL));
    let toml = format!(
        "{}\n[[route]]\nname = \"other\"\nmatch = {{ path = \"/other/*\" }}\nupstream = \"other\"\n\
         [[upstream]]\nname = \"other\"\nendpoints = [\"{}\"]\n",
        document(
            bad.address(),
            "",
            NO_RETRY,
            &breaker("failures = 1\nvolume = 1")
        ),
        good.address()
    );
    let gateway = Gateway::start(&toml);
    assert_eq!(gateway.get("/").status, 500);
    assert_eq!(gateway.get("/").code(), "circuit_open");
    for _ in 0..30 {
        assert_eq!(gateway.get("/other/1").status, 200);
    }
}

#[test]
fn gw_407_a_grpc_caller_is_told_unavailable_and_when_to_come_again() {
    let keys = format!(
        "protocol = \"http2\"\n{}",
        breaker("failures = 1\nvolume = 1")
    );
    let toml = document(Upstream::nobody(), "", NO_RETRY, &keys);
    let gateway = Gateway::start(&toml);
    let began = Instant::now();
    h2_client::run(async {
        let sender = h2_client::connect(gateway.address()).await;
        let call = || {
            let headers = [("content-type", "application/grpc"), ("te", "trailers")];
            h2_client::request("POST", "/echo.Echo/Unary", &headers)
        };
        let answers = [
            h2_client::exchange(&sender, call(), &[], None).await,
            h2_client::exchange(&sender, call(), &[], None).await,
        ];
        let [first, second] = answers.map(|answer| answer.expect("an answer"));
        assert_eq!((first.status, first.grpc_status()), (200, Some("14")));
        assert_eq!((second.status, second.grpc_status()), (200, Some("14")));
        let message = second.headers["grpc-message"].to_str().expect("text");
        assert!(message.contains("circuit_open"), "{message}");
        let wait = second.headers["grpc-retry-pushback-ms"].to_str();
        let wait: u64 = wait.expect("text").parse().expect("a number");
        let passed = u64::try_from(began.elapsed().as_millis()).expect("no age");
        let least = 59_990 - passed;
        assert!((least..=60_000).contains(&wait), "{wait} {passed}");
    });
}

#[test]
fn an_open_breaker_answers_long_before_any_time_out() {
    let (upstream, _) = moody(FAILING);
    let keys = breaker("failures = 1\nvolume = 1");
    let gateway = Gateway::start(&document(upstream.address(), "", "timeout = \"1h\"", &keys));
    assert_eq!(gateway.get("/").status, 500);
    let mut client = gateway.client();
    for _ in 0..100 {
        assert_eq!(client.get("/").code(), "circuit_open");
        assert!(!client.hears_within(Duration::ZERO));
    }
    assert_eq!(
        upstream.requests().len(),
        1,
        "500 is not tried again, nor is this"
    );
}
