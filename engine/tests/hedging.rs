//! A second try beside a late first one: GW-503 to GW-509, HI-49. Which try a request is, upstreams read in the
//! announcing header: who is asked first does not matter then.

use serde_json::Value;
use tollgate_engine::testing::gateway::{Gateway, document};
use tollgate_engine::testing::h2_client::{self, message};
use tollgate_engine::testing::http2::Http2Upstream;
use tollgate_engine::testing::journal::{Gate, Request};
use tollgate_engine::testing::upstream::{Conn, Upstream};
use tollgate_engine::testing::waiting::{self, until};

const KEYS: &str = "outlier = \"off\"\nmax_in_flight = 4\n";
const SOON: &str = "[route.retry]\nhedge = { after = \"20ms\" }";

fn attempt(request: &Request) -> &str {
    request.header("x-tollgate-attempt").unwrap_or("none")
}

/// Two endpoints with one script; `answer` says what becomes of a request.
fn pair(
    answer: impl Fn(&mut Conn, &Request) -> bool + Send + Sync + Clone + 'static,
) -> [Upstream; 2] {
    [answer.clone(), answer].map(|answer| {
        Upstream::http1(move |conn| {
            while let Some(request) = conn.read_request() {
                if !answer(conn, &request) {
                    return;
                }
            }
        })
    })
}

/// Says nothing to a first try for `/slow`, until the gate opens; answers everything else with what try it was.
fn slow_first(gate: &Gate) -> [Upstream; 2] {
    let gate = gate.clone();
    pair(move |conn, request| {
        if request.target() == "/slow" && !attempt(request).ends_with(";hedge") {
            return stall(conn, &gate) && tell(conn, request);
        }
        tell(conn, request)
    })
}

/// Waits until the gate opens, or (false) the connection is closed.
fn stall(conn: &mut Conn, gate: &Gate) -> bool {
    loop {
        if gate.opens_within(std::time::Duration::from_millis(1)) {
            return true;
        }
        if is_closed(conn) {
            return false;
        }
    }
}

fn is_closed(conn: &Conn) -> bool {
    let stream = conn.stream();
    stream.set_nonblocking(true).expect("a socket");
    let closed = match stream.peek(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).expect("a socket");
    closed
}

fn tell(conn: &mut Conn, request: &Request) -> bool {
    let body = format!(
        "{} {}",
        attempt(request),
        String::from_utf8_lossy(&request.body)
    );
    conn.respond("200 OK", &[], &body)
}

fn two(upstreams: &[Upstream; 2], route: &str, keys: &str) -> String {
    let [one, other] = upstreams.each_ref().map(Upstream::address);
    document(one, "", route, keys)
        .replace(&format!("\"{one}\""), &format!("\"{one}\", \"{other}\""))
}

fn of_app(gateway: &Gateway) -> Value {
    gateway.get_status()["upstreams"][0].clone()
}

/// Waits until `/status` shows the upstream so.
fn wait(gateway: &Gateway, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    waiting::wait(what, || of_app(gateway), wanted)
}

/// Nothing is in flight any more, anywhere.
fn at_rest(shown: &Value) -> bool {
    let endpoints = shown["endpoints"].as_array().expect("endpoints");
    shown["bulkhead"]["in_flight"] == 0 && endpoints.iter().all(|one| one["in_flight"] == 0)
}

fn arrived(upstreams: &[Upstream; 2]) -> usize {
    upstreams.iter().map(|one| one.requests().len()).sum()
}

/// Waits until so many first tries hang.
fn hanging(upstreams: &[Upstream; 2], count: usize) {
    let enough = |seen: &usize| *seen >= count;
    waiting::wait("first tries to hang", || arrived(upstreams), enough);
}

/// Waits until the scripts of so many connections have ended.
fn ended(upstreams: &[Upstream; 2], count: usize) {
    let ended = || -> usize { upstreams.iter().map(|one| one.journal().ended).sum() };
    waiting::wait("connections to end", ended, |seen| *seen >= count);
}

#[test]
fn a_late_first_try_gets_a_second_elsewhere_whose_answer_wins_and_is_cancelled_itself() {
    let gate = Gate::new();
    let upstreams = slow_first(&gate);
    let toml = format!(
        "{}\n[telemetry]\naccess_log = \"access.log\"\n",
        two(&upstreams, SOON, KEYS)
    );
    let gateway = Gateway::start(&toml);
    let response = gateway.get("/slow");
    assert_eq!((response.status, &*response.text()), (200, "2;hedge "));
    assert!(
        upstreams.iter().all(|one| one.requests().len() == 1),
        "one try each"
    );
    ended(&upstreams, 1);
    let shown = wait(&gateway, "rest", at_rest);
    let hedges = &shown["hedges"];
    assert_eq!(
        (&hedges["won"], &hedges["lost"]),
        (&1.into(), &0.into()),
        "{hedges}"
    );
    assert!(hedges["wait_ms"].as_f64().is_some(), "{hedges}");
    assert_eq!(shown["retry_budget"]["retries"], 1, "from the same purse");
    assert!(
        shown["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["failures"] == 0),
        "losing is no failure: {shown}"
    );
    let metrics = gateway.metrics();
    assert!(metrics.contains("hedges_total{upstream=\"app\",result=\"won\"} 1"));
    assert!(metrics.contains("hedge_wait_seconds_count{upstream=\"app\",hedged=\"yes\"} 1"));
    let line = &gateway.wait_lines("access.log", 1)[0];
    assert_eq!(
        (&line["hedge"], &line["attempts"]),
        (&"won".into(), &2.into())
    );
    let winner = upstreams
        .iter()
        .find(|one| attempt(&one.requests()[0]) == "2;hedge")
        .unwrap();
    assert_eq!(line["endpoint"], winner.address().to_string());
}

#[test]
fn the_first_wins_when_its_answer_is_first_after_all() {
    let gate = Gate::new();
    let upstreams = pair(move |conn, request| match attempt(request) {
        "1" => stall(conn, &gate) && tell(conn, request),
        _ => {
            gate.open();
            conn.wait_closed();
            false
        }
    });
    let gateway = Gateway::start(&two(&upstreams, SOON, KEYS));
    assert_eq!(gateway.get("/slow").text(), "1 ");
    ended(&upstreams, 1);
    let shown = wait(&gateway, "rest", at_rest);
    assert_eq!(shown["hedges"]["lost"], 1);
}

#[test]
fn a_bad_answer_wins_nothing_while_the_other_try_may_bring_a_good_one() {
    let gate = Gate::new();
    let upstreams = pair(move |conn, request| match attempt(request) {
        "1" => stall(conn, &gate) && tell(conn, request),
        _ => {
            conn.respond("503 Service Unavailable", &[], "");
            gate.open();
            true
        }
    });
    let gateway = Gateway::start(&two(&upstreams, SOON, KEYS));
    let response = gateway.get("/slow");
    assert_eq!((response.status, &*response.text()), (200, "1 "));
    let shown = wait(&gateway, "rest", at_rest);
    assert_eq!(shown["hedges"]["lost"], 1);
}

#[test]
fn gw_504_what_may_not_be_repeated_is_never_hedged() {
    let gate = Gate::new();
    let upstreams = slow_first(&gate);
    let route =
        "max_body = \"off\"\n[route.retry]\nmax_replay = \"1KiB\"\nhedge = { after = \"1ms\" }";
    let gateway = Gateway::start(&two(&upstreams, route, "outlier = \"off\""));
    let large = "x".repeat(100_000);
    let cases = [
        "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
        format!("PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{large}"),
        // Somebody else repeats this one (GW-509).
        "GET /slow HTTP/1.1\r\nHost: a\r\nX-Tollgate-Attempt: 1\r\n\r\n".to_owned(),
    ];
    let mut clients: Vec<_> = cases
        .iter()
        .map(|bytes| {
            let mut client = gateway.client();
            client.send(bytes);
            client
        })
        .collect();
    hanging(&upstreams, 3);
    // Whoever comes later and is hedged shows that the others would have been.
    for _ in 0..3 {
        assert_eq!(gateway.get("/slow").text(), "2;hedge ");
    }
    assert_eq!(of_app(&gateway)["hedges"]["won"], 3);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response().status, 200);
    }
    let all = upstreams.iter().flat_map(Upstream::requests);
    let hedged = all.filter(|one| attempt(one).ends_with(";hedge"));
    assert!(hedged.into_iter().all(|one| one.method() == "GET"));
    assert_eq!(of_app(&gateway)["hedges"]["won"], 3);
}

#[test]
fn a_small_body_and_a_post_with_a_key_reach_the_second_endpoint_whole() {
    let upstreams = slow_first(&Gate::new());
    let gateway = Gateway::start(&two(&upstreams, SOON, KEYS));
    let cases = [
        "PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "PUT /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        "POST /slow HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 7\r\nContent-Length: 5\r\n\r\nhello",
    ];
    for case in cases {
        let mut client = gateway.client();
        client.send(case);
        assert_eq!(client.read_response().text(), "2;hedge hello", "{case}");
    }
    for upstream in &upstreams {
        upstream.assert_clean();
    }
}

#[test]
fn hi_49_a_used_up_budget_pays_for_no_hedge() {
    let gate = Gate::new();
    let upstreams = slow_first(&gate);
    let keys =
        format!("{KEYS}[upstream.retry_budget]\nratio = 0.0\nfloor = \"2/m\"\nwindow = \"60s\"");
    let gateway = Gateway::start(&two(&upstreams, SOON, &keys));
    for _ in 0..2 {
        assert_eq!(gateway.get("/slow").text(), "2;hedge ");
    }
    let mut client = gateway.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    wait(&gateway, "a hedge that is not paid", |shown| {
        shown["hedges"]["unsent"]["retry_budget_exhausted"] == 1
    });
    gate.open();
    assert_eq!(client.read_response().text(), "1 ");
    let shown = wait(&gateway, "rest", at_rest);
    assert_eq!(
        (&shown["hedges"]["won"], &shown["retry_budget"]["retries"]),
        (&2.into(), &2.into())
    );
    let line = "hedges_unsent_total{upstream=\"app\",reason=\"retry_budget_exhausted\"} 1";
    assert!(gateway.metrics().contains(line));
}

#[test]
fn gw_406_a_probe_is_not_hedged_and_no_hedge_is_a_probe() {
    let gate = Gate::new();
    let theirs = gate.clone();
    let upstreams = pair(move |conn, request| match request.target() {
        "/fail" => conn.respond("500 Internal Server Error", &[], ""),
        _ => stall(conn, &theirs) && tell(conn, request),
    });
    let keys = format!(
        "{KEYS}[upstream.breaker]\nfailures = 1\nvolume = 1\nsuccesses = 1\nopen_for = \"1ms\""
    );
    let gateway = Gateway::start(&two(&upstreams, SOON, &keys));
    assert_eq!(gateway.get("/fail").status, 500);
    wait(&gateway, "probing", |shown| {
        shown["breakers"][0]["state"] == "half_open"
    });
    let mut client = gateway.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let shown = wait(&gateway, "a hedge that is not sent", |shown| {
        shown["hedges"]["unsent"]["circuit_open"] == 1
    });
    assert_eq!(shown["breakers"][0]["probes"]["under_way"], 1);
    gate.open();
    assert_eq!(client.read_response().text(), "1 ");
    wait(&gateway, "closed", |shown| {
        shown["breakers"][0]["state"] == "closed"
    });
}

#[test]
fn without_a_second_endpoint_or_a_second_permit_there_is_no_hedge() {
    let gate = Gate::new();
    let upstreams = slow_first(&gate);
    let one = document(upstreams[0].address(), "", SOON, KEYS);
    let full = two(
        &upstreams,
        SOON,
        &KEYS.replace("= 4", "= 1\nqueue = { timeout = \"50s\" }"),
    );
    for (toml, reason) in [(one, "no_endpoint"), (full, "overloaded")] {
        let gate_before = upstreams
            .iter()
            .map(|one| one.requests().len())
            .sum::<usize>();
        let gateway = Gateway::start(&toml);
        let mut client = gateway.client();
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        wait(&gateway, reason, |shown| {
            shown["hedges"]["unsent"][reason] == 1
        });
        let sent = upstreams
            .iter()
            .map(|one| one.requests().len())
            .sum::<usize>();
        assert_eq!(sent, gate_before + 1, "{reason}");
        client.reset();
        wait(&gateway, "rest", at_rest);
    }
}

#[test]
fn a_client_that_leaves_takes_both_tries_with_it() {
    let upstreams = pair(|conn, _| {
        conn.wait_closed();
        false
    });
    let gateway = Gateway::start(&two(&upstreams, SOON, KEYS));
    let mut client = gateway.client();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    hanging(&upstreams, 2);
    client.reset();
    ended(&upstreams, 2);
    let shown = wait(&gateway, "rest", at_rest);
    assert_eq!(shown["hedges"]["abandoned"], 1);
}

#[test]
fn the_route_s_time_out_ends_both_tries() {
    let upstreams = pair(|conn, _| {
        conn.wait_closed();
        false
    });
    let route = format!("timeout = \"1s\"\n{SOON}");
    let gateway = Gateway::start(&two(&upstreams, &route, KEYS));
    // A machine that stands still for the whole second gives no time for the second try; the time-out ends the one then.
    let mut asked = 0;
    until("two tries at once", || {
        assert_eq!(gateway.get("/slow").code(), "route_timeout");
        asked += 1;
        ended(&upstreams, arrived(&upstreams));
        let shown = wait(&gateway, "rest", at_rest);
        shown["hedges"]["neither"] == 1
    });
    let series = "timeouts_total{upstream=\"app\",kind=\"route\"}";
    gateway.wait_count(series, asked);
}

#[test]
fn a_time_out_of_each_try_holds_for_each_and_a_retry_comes_after_both() {
    let upstreams = pair(|conn, request| match attempt(request) {
        "3" => tell(conn, request),
        _ => {
            conn.wait_closed();
            false
        }
    });
    let route = "[route.retry]\nper_try_timeout = \"1s\"\nbackoff = { base = \"1ms\", max = \"2ms\" }\nhedge = { after = \"20ms\" }";
    // Where the machine stands still, there is no time for the second try, or the third is late itself.
    until("two tries at once, and one after them", || {
        let gateway = Gateway::start(&two(&upstreams, route, KEYS));
        let answer = gateway.get("/slow");
        let shown = wait(&gateway, "rest", at_rest);
        let told = (
            shown["hedges"]["neither"].as_u64(),
            shown["retry_budget"]["retries"].as_u64(),
        );
        let as_planned = told == (Some(1), Some(2));
        assert!(!as_planned || answer.text() == "3 ", "{answer:?}");
        as_planned
    });
}

#[test]
fn late_is_what_one_answer_in_twenty_is_and_nothing_is_known_at_first() {
    let upstreams = slow_first(&Gate::new());
    let route = "[route.retry]\nhedge = { least = \"1ms\" }";
    let gateway = Gateway::start(&two(&upstreams, route, "outlier = \"off\""));
    let hedging = || gateway.get_status()["hedging"][0].clone();
    assert_eq!(hedging()["late_after_ms"], Value::Null);
    let mut client = gateway.client();
    for _ in 0..110 {
        assert_eq!(client.get("/").status, 200);
    }
    let found = hedging();
    assert!(
        found["p95_ms"].as_f64().is_some_and(|p95| p95 > 0.0),
        "{found}"
    );
    assert!(
        found["late_after_ms"]
            .as_f64()
            .is_some_and(|late| late >= 1.0),
        "{found}"
    );
    assert_eq!(gateway.get("/slow").text(), "2;hedge ");
}

#[test]
fn one_late_answer_in_thirty_two_is_left_alone_for_comparison() {
    let gate = Gate::new();
    let upstreams = slow_first(&gate);
    let keys = "outlier = \"off\"\nretry_budget = \"off\"";
    let gateway = Gateway::start(&two(
        &upstreams,
        "[route.retry]\nhedge = { after = \"1ms\" }",
        keys,
    ));
    let mut client = gateway.client();
    for _ in 0..31 {
        assert_eq!(client.get("/slow").text(), "2;hedge ");
    }
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    wait(&gateway, "one that is left alone", |shown| {
        shown["hedges"]["unsent"]["control"] == 1
    });
    gate.open();
    assert_eq!(client.read_response().text(), "1 ");
    let shown = wait(&gateway, "its measure", |shown| {
        shown["hedges"]["wait_alone_ms"].is_f64()
    });
    assert_eq!(shown["hedges"]["won"], 31);
}

#[test]
fn over_http2_the_loser_s_stream_is_reset_and_its_connection_stays_also_for_grpc() {
    let upstreams = [Http2Upstream::echo(), Http2Upstream::echo()];
    let [one, other] = upstreams.each_ref().map(Http2Upstream::address);
    let keys = format!("{KEYS}protocol = \"http2\"");
    let toml = document(one, "", SOON, &keys)
        .replace(&format!("\"{one}\""), &format!("\"{one}\", \"{other}\""));
    let gateway = Gateway::start(&toml);
    let headers = [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("idempotency-key", "7"),
    ];
    let call = || h2_client::request("POST", "/echo.Echo/HangFirst", &headers);
    let sent = message(b"one");
    for round in 1..=2 {
        h2_client::run(async {
            let sender = h2_client::connect(gateway.address()).await;
            let answer = h2_client::exchange(&sender, call(), &[&sent], None)
                .await
                .expect("answered");
            assert_eq!((answer.grpc_status(), &answer.body), (Some("0"), &sent));
        });
        let resets = || -> usize { upstreams.iter().map(|one| one.journal().resets()).sum() };
        waiting::wait("the loser's reset", resets, |seen| *seen >= round);
    }
    let shown = wait(&gateway, "rest", at_rest);
    assert_eq!(shown["hedges"]["won"], 2);
    let journals = upstreams.each_ref().map(Http2Upstream::journal);
    assert_eq!(
        journals.iter().map(|one| one.requests.len()).sum::<usize>(),
        4
    );
    // One for each worker at most: resets cost no connection.
    assert!(
        journals.iter().all(|one| one.connections <= 2),
        "{journals:#?}"
    );
}
