//! Rate limits, tiers, keys and quotas as clients see them (GW-301 to GW-317, HI-59, HI-60).
//!
//! Rates are either so slow that nothing comes back while a test runs, or the bounds are computed from the time that
//! the test itself measured around what it did.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tollgate_engine::testing::client::{Client, Response};
use tollgate_engine::testing::gateway::{Gateway, document, line_of};
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::upstream::Upstream;

/// A gateway of two workers with one route that answers by itself.
fn here(listener: &str, filters: &str, more: &str) -> String {
    format!(
        "[server]\nadmin = \"127.0.0.1:0\"\nworkers = 2\ndrain = \"2s\"\n\n[[listener]]\nname = \"in\"\nbind = \"127.0.0.1:0\"\n{listener}\n\n\
         [[route]]\nname = \"here\"\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"here\" }}\n\
         filters = [{filters}]\n\n{more}\n"
    )
}

fn limit(name: &str, by: &str, rate: &str, burst: u64) -> String {
    format!("[[limit]]\nname = \"{name}\"\nby = {by}\nrate = \"{rate}\"\nburst = {burst}\n\n")
}

fn key(key: &str, client: &str, tier: &str) -> String {
    format!("[[api_key]]\nkey = \"{key}\"\nclient = \"{client}\"\ntier = \"{tier}\"\n\n")
}

fn number(response: &Response, name: &str) -> u64 {
    let value = response.header(name);
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{name}: {response:?}"))
}

/// How many of so many requests on one connection are admitted.
fn admitted(client: &mut Client, requests: usize, lines: &[&str]) -> usize {
    (0..requests)
        .filter(|_| client.request("GET /", lines).status == 200)
        .count()
}

fn unix() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

#[test]
fn gw_308_309_317_a_refusal_names_its_limit_and_says_when_to_come_again() {
    let toml = here(
        "",
        r#"{ rate_limit = "login" }"#,
        &limit("login", "\"client_ip\"", "5/15m", 5),
    );
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    let began = unix();
    for left in (0..5).rev() {
        let response = client.get("/");
        assert_eq!(response.status, 200);
        assert_eq!(number(&response, "x-ratelimit-limit"), 5);
        assert_eq!(number(&response, "x-ratelimit-remaining"), left);
        let reset = number(&response, "x-ratelimit-reset");
        // A sixteenth of a token is told early; the bucket has been filling since the first was taken.
        let whole = 180 * (5 - left);
        let full = began + whole - 13..=unix() + whole + 1;
        assert!(full.contains(&reset), "{reset} {full:?}");
        assert_eq!(
            response.header("ratelimit-policy"),
            Some("\"login\";q=5;w=900")
        );
        let state = response.header("ratelimit").expect("RateLimit");
        assert!(
            state.starts_with(&format!("\"login\";r={left};t=")),
            "{state}"
        );
        assert_eq!(response.header("retry-after"), None);
    }
    let refused = client.get("/");
    assert_eq!((refused.status, &*refused.code()), (429, "rate_limited"));
    let after = number(&refused, "retry-after");
    let passed = unix() - began + 1;
    assert!((167 - passed..=180).contains(&after), "{after} {passed}");
    assert_eq!(number(&refused, "x-ratelimit-remaining"), 0);
    let problem = refused.problem();
    assert_eq!(problem["limit"], "login");
    assert_eq!(problem["setting"], "limit.rate");
    assert_eq!(problem["value"], "5/15m");
    assert_eq!(
        problem["at"],
        format!("gateway.toml:{}", line_of(&toml, "5/15m"))
    );
    assert_eq!(client.get("/").status, 429, "the connection goes on");
}

#[test]
fn gw_103_a_refused_request_costs_the_upstream_nothing() {
    let upstream = Upstream::fixed("ok");
    let toml = document(
        upstream.address(),
        "",
        r#"filters = [{ rate_limit = { by = "route", rate = "1/h", burst = 3 } }]"#,
        "",
    );
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    assert_eq!(admitted(&mut client, 20, &[]), 3);
    assert_eq!(upstream.requests().len(), 3);
    let refused = client.get("/");
    let problem = refused.problem();
    assert_eq!(problem["limit"], "route:all");
    assert_eq!(problem["setting"], "route.filters.rate_limit.rate");
    assert_eq!(
        problem["at"],
        format!("gateway.toml:{}", line_of(&toml, "1/h"))
    );
}

#[test]
fn gw_306_of_many_concurrent_requests_exactly_as_many_as_there_are_tokens_are_admitted() {
    let toml = here(
        "",
        r#"{ rate_limit = { by = "client_ip", rate = "1/h", burst = 137 } }"#,
        "",
    );
    let gateway = Gateway::start(&toml);
    const CLIENTS: usize = 16;
    let begin = Barrier::new(CLIENTS);
    let total: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    begin.wait();
                    admitted(&mut client, 40, &[])
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("no client fails"))
            .sum()
    });
    assert_eq!(total, 137);
    let workers = gateway.metrics();
    assert!(
        workers.contains(
            "rate_limit_requests_total{limit=\"route:here\",tier=\"\",result=\"admitted\"} 137\n"
        ),
        "{workers}"
    );
    assert!(workers.contains(
        "rate_limit_requests_total{limit=\"route:here\",tier=\"\",result=\"refused\"} 503\n"
    ));
}

/// Ten times as much as is allowed, on two workers, for as long as it takes.
#[test]
fn hi_60_under_overload_the_burst_and_what_came_back_are_admitted_and_nothing_else() {
    let toml = here(
        "",
        r#"{ rate_limit = { by = "client_ip", rate = "200/s", burst = 50 } }"#,
        "",
    );
    let gateway = Gateway::start(&toml);
    let admitted = AtomicU64::new(0);
    let (asked, began) = (AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.client();
                // Until 300 were admitted: 250 of them had to come back first. And until it was an overload, also
                // where the machine lets clients ask slowly.
                while admitted.load(Ordering::Relaxed) < 300 || asked.load(Ordering::Relaxed) <= 600
                {
                    asked.fetch_add(1, Ordering::Relaxed);
                    if client.get("/").status == 200 {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let most = 50.0 + began.elapsed().as_secs_f64() * 200.0 + 1.0;
    let got = admitted.load(Ordering::Relaxed) as f64;
    assert!(got <= most, "{got} of {asked:?}, at most {most}");
    // It was overload: the bucket was empty nearly all the time.
    assert!(asked.load(Ordering::Relaxed) > 600, "{asked:?}");
}

#[test]
fn gw_313_routes_that_name_a_limit_share_it_and_others_do_not() {
    let more = format!(
        "{}[[route]]\nname = \"b\"\nmatch = {{ path = \"/b\" }}\nrespond = {{ status = 200 }}\nfilters = [{{ rate_limit = \"shared\" }}]\n\n\
         [[route]]\nname = \"c\"\nmatch = {{ path = \"/c\" }}\nrespond = {{ status = 200 }}\n\
         filters = [{{ rate_limit = {{ by = \"client_ip\", rate = \"1/h\", burst = 2 }} }}, {{ rate_limit = \"each\" }}]\n",
        limit("shared", "\"client_ip\"", "1/h", 3) + &limit("each", "\"route\"", "1/h", 50)
    );
    let gateway = Gateway::start(&here("", r#"{ rate_limit = "shared" }"#, &more));
    let mut client = gateway.client();
    let statuses: Vec<u16> = ["/", "/b", "/", "/b", "/c", "/c", "/c"]
        .map(|path| client.get(path).status)
        .to_vec();
    assert_eq!(statuses, [200, 200, 200, 429, 200, 200, 429]);
    let told = client.get("/c");
    assert_eq!(
        told.header("ratelimit-policy"),
        Some("\"route:c\";q=1;w=3600"),
        "what was not asked is not told"
    );
}

#[test]
fn gw_311_a_changed_limit_applies_at_once_and_forgets_no_level() {
    let toml = |rate: &str, burst: u64| {
        here(
            "",
            r#"{ rate_limit = "a" }"#,
            &limit("a", "\"client_ip\"", rate, burst),
        )
    };
    let gateway = Gateway::start(&toml("1/h", 10));
    let mut client = gateway.client();
    assert_eq!(admitted(&mut client, 4, &[]), 4);
    // Six are left: a larger bucket does not fill by being larger, a smaller one is full.
    gateway.edit(&toml("2/h", 100)).expect("valid");
    let response = client.get("/");
    assert_eq!(number(&response, "x-ratelimit-remaining"), 5);
    assert_eq!(number(&response, "x-ratelimit-limit"), 2);
    gateway.edit(&toml("1/h", 3)).expect("valid");
    assert_eq!(admitted(&mut client, 10, &[]), 3);
    gateway
        .edit(&here("", "", &limit("a", "\"client_ip\"", "1/h", 3)))
        .expect("valid");
    assert_eq!(client.get("/").header("ratelimit"), None);
    gateway.edit(&toml("1/h", 500)).expect("valid");
    assert_eq!(
        client.get("/").status,
        429,
        "empty, however often the document changed"
    );
}

#[test]
fn gw_301_addresses_behind_a_trusted_proxy_count_and_ipv6_by_its_64() {
    let toml = here(
        "trusted_proxies = [\"127.0.0.0/8\"]",
        r#"{ rate_limit = { by = "client_ip", rate = "1/h", burst = 2 } }"#,
        "",
    );
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    let mut from = |address: &str| {
        let line = format!("X-Forwarded-For: {address}");
        client.request("GET /", &[&line]).status
    };
    assert_eq!(
        [from("1.1.1.1"), from("1.1.1.1"), from("1.1.1.1")],
        [200, 200, 429]
    );
    assert_eq!(
        from("6.6.6.6, 1.1.1.1"),
        429,
        "what a client says is hearsay"
    );
    assert_eq!(from("1.1.1.2"), 200);
    let slash_64 = [
        from("2001:db8::1"),
        from("2001:db8::2"),
        from("2001:db8::3:4"),
    ];
    assert_eq!(slash_64, [200, 200, 429]);
    assert_eq!(from("2001:db8:0:1::1"), 200);
}

#[test]
fn gw_301_without_trust_nobody_chooses_an_address() {
    let gateway = Gateway::start(&here(
        "",
        r#"{ rate_limit = { by = "client_ip", rate = "1/h", burst = 2 } }"#,
        "",
    ));
    let mut client = gateway.client();
    let mut passed = 0;
    for last in 0..20 {
        let line = format!("X-Forwarded-For: 1.1.1.{last}");
        passed += usize::from(client.request("GET /", &[&line]).status == 200);
    }
    assert_eq!(passed, 2);
}

#[test]
fn gw_301_303_keys_lift_clients_into_their_tiers_and_unknown_ones_are_anonymous() {
    let more = key("key-of-mobile", "mobile", "free")
        + &key("key-of-mobile-2", "mobile", "free")
        + &key("key-of-other", "other", "gold")
        + "[tiers.gold]\nrate = \"1/h\"\nburst = 4\n\n[tiers.anonymous]\nrate = \"1/h\"\nburst = 2\n";
    let gateway = Gateway::start(&here("", r#"{ rate_limit = "tiers" }"#, &more));
    let mut client = gateway.client();
    assert_eq!(admitted(&mut client, 10, &["X-Api-Key: key-of-other"]), 4);
    assert_eq!(admitted(&mut client, 10, &["X-Api-Key: nobody-s-key"]), 2);
    assert_eq!(admitted(&mut client, 10, &[]), 0, "by the same address");
    let response = client.request("GET /", &["X-Api-Key: key-of-mobile"]);
    assert_eq!(response.status, 200);
    assert_eq!(number(&response, "x-ratelimit-limit"), 100);
    assert_eq!(number(&response, "x-ratelimit-remaining"), 199);
    let second = client.request("GET /", &["X-Api-Key: key-of-mobile-2"]);
    let left = number(&second, "x-ratelimit-remaining");
    assert!((198..200).contains(&left), "two keys of one client: {left}");
    assert_eq!(
        second.header("ratelimit-policy"),
        Some("\"free\";q=100;w=60, \"free-month\";q=10000;w=2678400")
    );
    let refused = client.request("GET /", &["X-Api-Key: key-of-other"]);
    let problem = refused.problem();
    assert_eq!(
        (&problem["limit"], &problem["setting"]),
        (&"gold".into(), &"tiers.rate".into())
    );
}

#[test]
fn gw_311_another_tier_applies_from_the_next_request_and_keeps_the_level() {
    let more = |tier: &str| {
        key("key-of-mobile", "mobile", tier)
            + "[tiers.a]\nrate = \"1/h\"\nburst = 10\nmonthly_quota = 100\n\n[tiers.b]\nrate = \"1/h\"\nburst = 5\nmonthly_quota = 9\n"
    };
    let toml = |tier: &str| here("", r#"{ rate_limit = "tiers" }"#, &more(tier));
    let gateway = Gateway::start(&toml("a"));
    let mut client = gateway.client();
    let lines = ["X-Api-Key: key-of-mobile"];
    assert_eq!(admitted(&mut client, 3, &lines), 3);
    gateway.edit(&toml("b")).expect("valid");
    // Seven were left, which is more than the new bucket holds; three of the month's nine are used.
    assert_eq!(admitted(&mut client, 9, &lines), 5);
    gateway.edit(&toml("a")).expect("valid");
    assert_eq!(client.request("GET /", &lines).status, 429, "still empty");
}

#[test]
fn gw_310_a_quota_ends_with_the_month_and_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = format!("state_dir = \"{}\"", folder.path().display());
    let toml = here(
        "",
        r#"{ rate_limit = "tiers" }"#,
        &(key("key-of-mobile", "mobile", "small")
            + "[tiers.small]\nrate = \"1000/s\"\nmonthly_quota = 7\n"),
    )
    .replace("workers = 2", &format!("workers = 2\n{state}"));
    let lines = ["X-Api-Key: key-of-mobile"];
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    let first = client.request("GET /", &lines);
    let told = first.header("ratelimit").expect("RateLimit");
    assert!(told.contains("\"small-month\";r=6;t="), "{told}");
    assert_eq!(number(&first, "x-ratelimit-remaining"), 6, "the nearest");
    assert_eq!(admitted(&mut client, 4, &lines), 4);
    drop(client);
    gateway.stop();
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    assert_eq!(admitted(&mut client, 10, &lines), 2);
    let refused = client.request("GET /", &lines);
    assert_eq!((refused.status, &*refused.code()), (429, "quota_exceeded"));
    let after = number(&refused, "retry-after");
    assert!(after <= 31 * 86_400 && after > 0, "{after}");
    let problem = refused.problem();
    assert_eq!(problem["setting"], "tiers.monthly_quota");
    assert_eq!(problem["value"], "7");
    // A larger quota counts what was used.
    gateway
        .edit(&toml.replace("monthly_quota = 7", "monthly_quota = 9"))
        .expect("valid");
    assert_eq!(admitted(&mut client, 10, &lines), 2);
}

#[test]
fn an_api_key_can_be_required_and_is_never_told() {
    let more = key("key-of-mobile", "mobile", "free")
        + "[[route]]\nname = \"open\"\nmatch = { path = \"/open\" }\nrespond = { status = 200 }\nfilters = [{ api_key = \"optional\" }]\n";
    let gateway = Gateway::start(&here("", r#"{ api_key = "required" }"#, &more));
    let mut client = gateway.client();
    let mut ask = |line: &str, lines: &[&str]| client.request(line, lines);
    let missing = ask("GET /", &[]);
    assert_eq!((missing.status, &*missing.code()), (401, "api_key_refused"));
    assert!(missing.header("www-authenticate").is_some());
    let wrong = ask("GET /", &["X-Api-Key: key-of-mobilf"]);
    assert_eq!(wrong.status, 401);
    assert!(!wrong.text().contains("key-of"), "{wrong:?}");
    assert_eq!(ask("GET /", &["X-Api-Key: key-of-mobile"]).status, 200);
    assert_eq!(ask("GET /open", &[]).status, 200);
    assert_eq!(ask("GET /open", &["X-Api-Key: wrong-key"]).status, 401);
    let told = gateway.get_status().to_string() + &gateway.metrics();
    assert!(!told.contains("key-of-mobile"));
}

#[test]
fn grpc_callers_are_told_resource_exhausted_with_retry_information() {
    let toml = here(
        "",
        r#"{ rate_limit = { by = "client_ip", rate = "1/h", burst = 1 } }"#,
        "",
    );
    let gateway = Gateway::start(&toml);
    let ask = || {
        h2_client::run(async {
            let sender = h2_client::connect(gateway.address()).await;
            let headers = [("content-type", "application/grpc"), ("te", "trailers")];
            let request = h2_client::request("POST", "/shop.Orders/Get", &headers);
            h2_client::exchange(&sender, request, &[], None)
                .await
                .expect("an answer")
        })
    };
    let began = Instant::now();
    assert_eq!(ask().status, 200);
    let refused = ask();
    assert_eq!(refused.status, 200);
    let field = |name: &str| {
        let value = refused.header(name);
        value
            .unwrap_or_else(|| panic!("{name}: {refused:?}"))
            .to_owned()
    };
    assert_eq!(field("grpc-status"), "8");
    assert!(field("grpc-message").contains("rate_limited"));
    let pushback: u64 = field("grpc-retry-pushback-ms").parse().expect("a number");
    // A sixteenth of an hour is told early.
    let passed = u64::try_from(began.elapsed().as_millis()).expect("no age");
    let least = 3_374_000 - passed;
    assert!(
        (least..=3_600_000).contains(&pushback),
        "{pushback} {passed}"
    );
    // google.rpc.Status with code 8 and a message, as base64 begins.
    assert!(field("grpc-status-details-bin").starts_with("CAgS"));
    assert_eq!(field("x-ratelimit-remaining"), "0");
}

#[test]
fn hi_59_a_hundred_thousand_keys_that_clients_make_up_stay_within_bounds() {
    let toml = here(
        "",
        r#"{ rate_limit = "by-user" }"#,
        &limit("by-user", "{ header = \"x-user\" }", "1/h", 2),
    );
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    assert_eq!(admitted(&mut client, 5, &["X-User: honest"]), 2);
    let before = gateway.metrics().lines().count();
    const BATCH: usize = 500;
    for first in (0..100_000).step_by(BATCH) {
        let requests: String = (first..first + BATCH)
            .map(|n| format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: made-up-{n}\r\n\r\n"))
            .collect();
        let sending = client.send_aside(requests.into_bytes());
        for _ in 0..BATCH {
            assert_eq!(client.read_response().status, 200);
        }
        sending.join().expect("sent").expect("sent");
    }
    let status = gateway.get_status();
    let told = &status["limits"][0];
    assert_eq!(told["name"], "by-user");
    let keys = told["keys"].as_u64().expect("a number");
    let forgotten = told["forgotten"].as_u64().expect("a number");
    assert!(keys + forgotten == 100_001 && keys <= 262_080, "{told}");
    assert_eq!(
        client.request("GET /", &["X-User: honest"]).status,
        429,
        "who has used up the most is forgotten last"
    );
    let metrics = gateway.metrics();
    assert_eq!(metrics.lines().count(), before);
    assert!(!metrics.contains("made-up") && !metrics.contains("honest"));
    assert!(metrics.contains(&format!("rate_limit_keys{{limit=\"by-user\"}} {keys}\n")));
}

#[test]
fn operators_see_each_limit_and_explain_names_it_with_its_line() {
    let toml = here(
        "",
        r#"{ rate_limit = "login" }, { rate_limit = "tiers" }"#,
        &(limit("login", "\"client_ip\"", "1/h", 5) + &key("key-of-mobile", "mobile", "free")),
    );
    let gateway = Gateway::start(&toml);
    let mut client = gateway.client();
    assert_eq!(admitted(&mut client, 8, &[]), 5);
    let status = gateway.get_status();
    let login = &status["limits"][0];
    assert_eq!(login["by"], "client_ip");
    assert_eq!(login["tiers"][0]["rate"], "1/h");
    assert_eq!(login["tiers"][0]["admitted"], 5);
    assert_eq!(login["tiers"][0]["refused"], 3);
    assert_eq!(login["keys"], 1);
    assert_eq!(status["limits"][1]["name"], "tiers");
    let body = r#"{"url":"/"}"#;
    let mut admin = Client::connect(gateway.admin());
    admin.send(format!(
        "POST /explain HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let explained: serde_json::Value =
        serde_json::from_slice(&admin.read_response().body).expect("JSON");
    let filters = explained["filters"].to_string();
    assert!(
        filters.contains("rate_limit login: 1/h, burst 5, by client_ip ("),
        "{filters}"
    );
    assert!(
        filters.contains("free 100/m, burst 200, 10000 a month"),
        "{filters}"
    );
}
