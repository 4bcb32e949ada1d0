//! Metrics as a scrape sees them.

use std::time::Duration;

use http::Method;
use tollgate_config::Priority;

use super::*;

fn seen(method: &Method, status: u16, upstream: Option<usize>) -> Observation<'_> {
    Observation {
        method,
        status,
        upstream,
        duration: Duration::from_millis(7),
        bytes_in: 0,
        bytes_out: 300,
    }
}

fn has(page: &str, line: &str) {
    assert!(
        page.lines().any(|present| present == line),
        "no line {line:?} in\n{page}"
    );
}

#[test]
fn a_scrape_sums_what_the_workers_counted() {
    let metrics = Metrics::new(2);
    let route = metrics.route("users", &["a", "b"]);
    route.observe(0, &seen(&Method::GET, 200, Some(0)));
    route.observe(1, &seen(&Method::GET, 200, Some(0)));
    route.observe(1, &seen(&Method::POST, 503, Some(1)));
    route.observe(1, &seen(&Method::GET, 504, None));
    let page = metrics.page();
    has(
        &page,
        r#"http_requests_total{route="users",upstream="a",method="GET",status="200"} 2"#,
    );
    has(
        &page,
        r#"http_requests_total{route="users",upstream="b",method="POST",status="503"} 1"#,
    );
    has(
        &page,
        r#"http_requests_total{route="users",upstream="none",method="GET",status="504"} 1"#,
    );
    let labels = r#"route="users",upstream="a",method="GET",status="200""#;
    has(
        &page,
        &format!(r#"http_request_duration_seconds_bucket{{{labels},le="0.005"}} 0"#),
    );
    has(
        &page,
        &format!(r#"http_request_duration_seconds_bucket{{{labels},le="0.01"}} 2"#),
    );
    has(
        &page,
        &format!(r#"http_request_duration_seconds_bucket{{{labels},le="+Inf"}} 2"#),
    );
    has(
        &page,
        &format!(r#"http_request_duration_seconds_sum{{{labels}}} 0.014000000"#),
    );
    has(
        &page,
        &format!(r#"http_request_duration_seconds_count{{{labels}}} 2"#),
    );
    has(
        &page,
        r#"http_response_size_bytes_bucket{route="users",le="1024"} 4"#,
    );
    has(&page, r#"http_response_size_bytes_sum{route="users"} 1200"#);
}

/// HI-59.
#[test]
fn methods_and_statuses_from_the_wire_make_no_labels_of_their_own() {
    let metrics = Metrics::new(1);
    let route = metrics.route(NONE, &[]);
    for number in 0..1000_u16 {
        let method = Method::from_bytes(format!("X{number}").as_bytes()).expect("a token");
        route.observe(0, &seen(&method, 600 + number % 400, None));
    }
    let page = metrics.page();
    has(
        &page,
        r#"http_requests_total{route="none",upstream="none",method="OTHER",status="other"} 1000"#,
    );
    assert_eq!(page.matches("http_requests_total{").count(), 1);
}

#[test]
fn series_survive_a_reload_and_end_with_their_last_holder() {
    let metrics = Metrics::new(1);
    let before = metrics.route("users", &["a"]);
    before.observe(0, &seen(&Method::GET, 200, Some(0)));
    assert!(Arc::ptr_eq(&before, &metrics.route("users", &["a"])));
    let after = metrics.route("users", &["b", "a"]);
    drop(before);
    after.observe(0, &seen(&Method::GET, 200, Some(1)));
    has(
        &metrics.page(),
        r#"http_requests_total{route="users",upstream="a",method="GET",status="200"} 2"#,
    );
    drop(after);
    assert!(!metrics.page().contains("users"));
    assert!(metrics.names().grids.is_empty() && metrics.names().handles.is_empty());
}

#[test]
fn upstreams_and_listeners_count_by_closed_lists() {
    let metrics = Metrics::new(2);
    let upstream = metrics.upstream("a");
    upstream.connection_enters(0, ConnectionState::Active);
    upstream.connection_enters(0, ConnectionState::Idle);
    upstream.connection_leaves(1, ConnectionState::Active);
    upstream.connected(1, ConnectResult::TimedOut);
    upstream.retried(1, RetryClass::Reset);
    upstream.timed_out(0, TimeoutKind::PerTry);
    upstream.asks(|| Known {
        ejections: 1,
        endpoints: [3, 0, 0],
        bulkhead: Some(KnownBulkhead {
            in_flight: 7,
            limit: 8,
            waiting: [0, 2, 0],
        }),
    });
    upstream.refused(0, Priority::Sheddable, Refusal::Shed);
    upstream.waited(1, Duration::from_millis(7));
    let listener = metrics.listener("public");
    listener.accepted(0);
    listener.accepted(1);
    listener.closed(1);
    listener.refused(0);
    listener.handshake_failed(0);
    listener.rejected(1, Code::BadPath);
    metrics.answered_error(0, Code::BadPath);
    let page = metrics.page();
    has(
        &page,
        r#"upstream_connections{upstream="a",state="active"} 0"#,
    );
    has(
        &page,
        r#"upstream_connections{upstream="a",state="idle"} 1"#,
    );
    has(
        &page,
        r#"upstream_connects_total{upstream="a",result="timed_out"} 1"#,
    );
    has(&page, r#"retries_total{upstream="a",class="reset"} 1"#);
    has(&page, r#"timeouts_total{upstream="a",kind="per_try"} 1"#);
    has(&page, r#"upstream_ejections_total{upstream="a"} 1"#);
    has(&page, r#"upstream_health{upstream="a",state="healthy"} 3"#);
    has(&page, r#"upstream_in_flight{upstream="a"} 7"#);
    has(&page, r#"upstream_in_flight_limit{upstream="a"} 8"#);
    has(
        &page,
        r#"upstream_queue_depth{upstream="a",priority="default"} 2"#,
    );
    has(
        &page,
        r#"upstream_refusals_total{upstream="a",priority="sheddable",reason="shed"} 1"#,
    );
    has(
        &page,
        r#"upstream_queue_wait_seconds_bucket{upstream="a",le="0.01"} 1"#,
    );
    has(&page, r#"listener_connections{listener="public"} 1"#);
    has(
        &page,
        r#"listener_connections_total{listener="public",result="accepted"} 2"#,
    );
    has(
        &page,
        r#"http_rejected_total{listener="public",code="bad_path"} 1"#,
    );
    has(&page, r#"errors_total{code="bad_path"} 1"#);
}

#[test]
fn the_process_and_its_configuration_are_told() {
    let metrics = Metrics::new(1);
    metrics.config_serves(7, UNIX_EPOCH + Duration::from_millis(1_500));
    metrics.config_reload_failed();
    metrics.generations_alive(1);
    let dropped = Arc::new(AtomicU64::new(5));
    metrics.watch_access_log(dropped);
    let page = metrics.page();
    has(&page, "config_revision 7");
    has(&page, "config_reload_failures_total 1");
    has(&page, "config_last_reload_timestamp_seconds 1.500");
    has(&page, "config_generations 1");
    has(&page, "access_log_dropped_total 5");
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(
            page.lines()
                .any(|line| line.starts_with(&format!("{name} "))),
            "{name}"
        );
    }
}

#[test]
fn every_family_is_announced_once_and_before_its_samples() {
    let metrics = Metrics::new(1);
    let route = metrics.route("users", &["a"]);
    route.observe(0, &seen(&Method::GET, 200, Some(0)));
    let (_upstream, _listener) = (metrics.upstream("a"), metrics.listener("public"));
    let page = metrics.page();
    let mut announced: Vec<&str> = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().expect("a name");
            assert!(!announced.contains(&name), "{name} twice");
            announced.push(name);
        } else if !line.starts_with('#') {
            let family = announced.last().expect("announced");
            assert!(line.starts_with(family), "{line} under {family}");
        }
    }
}

/// The scrape reads what workers write meanwhile.
#[test]
fn nothing_is_lost_while_scrapes_go_on() {
    let metrics = Metrics::new(2);
    let route = metrics.route("users", &["a"]);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let route = &route;
            scope.spawn(move || {
                for number in 0..10_000_u16 {
                    route.observe(worker, &seen(&Method::GET, 200 + number % 4, Some(0)));
                }
            });
        }
        for _ in 0..20 {
            assert!(metrics.page().contains("http_requests_total"));
        }
    });
    has(
        &metrics.page(),
        r#"http_requests_total{route="users",upstream="a",method="GET",status="203"} 5000"#,
    );
}
