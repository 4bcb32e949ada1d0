//! What a request pays for being seen: counting it, its line in the access log, its trace context.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method};
use tollgate_config::{AccessLog as Target, Telemetry};
use tollgate_engine::exchange::request_id::RequestId;
use tollgate_engine::exchange::trace::TraceContext;
use tollgate_engine::telemetry::access::{AccessLog, Line};
use tollgate_engine::telemetry::metrics::{Metrics, Observation};

fn observation(method: &Method, status: u16) -> Observation<'_> {
    let duration = Duration::from_micros(870);
    Observation {
        method,
        status,
        upstream: Some(0),
        duration,
        bytes_in: 0,
        bytes_out: 1200,
    }
}

fn observe(criterion: &mut Criterion) {
    let metrics = Metrics::new(2);
    let route = metrics.route("users", &["users", "users-next"]);
    let mut group = criterion.benchmark_group("telemetry/observe");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one_series", |bencher| {
        bencher.iter(|| {
            route.observe(
                black_box(0),
                &observation(black_box(&Method::GET), black_box(200)),
            )
        });
    });
    let mut status = 199;
    group.bench_function("a_hundred_statuses", |bencher| {
        bencher.iter(|| {
            status = if status == 299 { 200 } else { status + 1 };
            route.observe(black_box(0), &observation(black_box(&Method::POST), status));
        });
    });
    group.bench_function("two_workers_at_once", |bencher| {
        bencher.iter_custom(|iterations| {
            let run = |worker| {
                let start = std::time::Instant::now();
                for _ in 0..iterations {
                    route.observe(
                        black_box(worker),
                        &observation(black_box(&Method::GET), black_box(200)),
                    );
                }
                start.elapsed()
            };
            std::thread::scope(|scope| {
                let other = scope.spawn(|| run(1));
                let mine = run(0);
                mine.max(other.join().expect("no panic"))
            })
        });
    });
    group.finish();
    let handles: Vec<_> = (0..100)
        .map(|number| metrics.route(&format!("route{number}"), &["users"]))
        .collect();
    for handle in &handles {
        for status in [200, 404, 503] {
            handle.observe(0, &observation(&Method::GET, status));
        }
    }
    criterion.bench_function("telemetry/scrape/400_series", |bencher| {
        bencher.iter(|| metrics.page())
    });
}

fn access(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, target) in [
        ("null", Target::File("/dev/null".into())),
        ("file", Target::File(folder.path().join("access.log"))),
    ] {
        let telemetry = Telemetry {
            access_log: target,
            access_log_sample: 1.0,
            labels: Vec::new(),
            traces: None,
        };
        let log = AccessLog::start(&telemetry).expect("the log opens");
        let mut worker = log.worker(1);
        let mut line = Line {
            now: SystemTime::now(),
            method: "GET",
            path: "/api/users/12345/orders",
            status: 200,
            duration: Duration::from_micros(870),
            bytes_in: 0,
            bytes_out: 1200,
            client: Some([203, 0, 113, 7].into()),
            user_agent: Some(
                b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
            ),
            host: "api.example.org",
            protocol: "HTTP/1.1",
            route: "users",
            upstream: Some("users"),
            endpoint: Some(([10, 0, 0, 2], 8080).into()),
            attempts: 1,
            not_retried: None,
            hedge: None,
            request_id: "0123456789abcdef0123456789abcdef",
            trace_id: [0xab; 16],
            span_id: [0xcd; 8],
            fallback: None,
            error: None,
            fault: None,
            services: Default::default(),
            listener: "public",
            generation: 3,
        };
        criterion.bench_function(&format!("telemetry/access_line/{name}"), |bencher| {
            bencher.iter(|| {
                line.now += Duration::from_micros(100);
                worker.write(black_box(&line));
            });
        });
        drop(worker);
        log.close(Duration::from_secs(10));
    }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (
                name.parse().expect("a name"),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

fn trace(criterion: &mut Criterion) {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut random = fastrand::Rng::with_seed(1);
    for (name, headers) in [
        (
            "absent",
            headers(&[("host", "api.example.org"), ("accept", "*/*")]),
        ),
        (
            "traceparent",
            headers(&[("host", "api.example.org"), ("traceparent", PARENT)]),
        ),
        (
            "traceparent_and_state",
            headers(&[
                ("traceparent", PARENT),
                ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            ]),
        ),
    ] {
        criterion.bench_function(&format!("telemetry/trace_read/{name}"), |bencher| {
            bencher.iter(|| TraceContext::from_headers(black_box(&headers), || random.u64(..)));
        });
        let context = TraceContext::from_headers(&headers, || random.u64(..));
        let mut out = headers.clone();
        criterion.bench_function(&format!("telemetry/trace_write/{name}"), |bencher| {
            bencher.iter(|| black_box(&context).write_into(&mut out));
        });
    }
    let context = TraceContext::from_headers(&HeaderMap::new(), || random.u64(..));
    criterion.bench_function("telemetry/trace_format", |bencher| {
        bencher.iter(|| black_box(&context).traceparent())
    });
    let none = HeaderMap::new();
    criterion.bench_function("telemetry/request_id/made", |bencher| {
        bencher.iter(|| RequestId::from_headers(black_box(&none), || random.u64(..)));
    });
    let given = headers(&[("x-request-id", "3f2c9c1e-8a7b-4c55-9d3b-0a1b2c3d4e5f")]);
    criterion.bench_function("telemetry/request_id/taken_over", |bencher| {
        bencher.iter(|| RequestId::from_headers(black_box(&given), || random.u64(..)));
    });
}

/// What the control thread pays, every few seconds, to tell a control plane what was served.
fn figures(criterion: &mut Criterion) {
    let metrics = Metrics::new(2);
    let routes: Vec<_> = { 0..5000 }
        .map(|number| metrics.route(&format!("route-{number}"), &["users"]))
        .collect();
    let mut group = criterion.benchmark_group("telemetry/figures");
    group.bench_function("5000_idle_routes", |bencher| {
        bencher.iter(|| metrics.take_figures());
    });
    for route in &routes {
        route.observe(0, &observation(&Method::GET, 200));
    }
    group.bench_function("5000_routes_that_were_busy_once", |bencher| {
        bencher.iter(|| metrics.take_figures());
    });
    group.bench_function("5000_busy_routes", |bencher| {
        bencher.iter_batched(
            || {
                for route in &routes {
                    route.observe(0, &observation(&Method::GET, 200));
                    route.observe(1, &observation(&Method::GET, 503));
                }
            },
            |()| metrics.take_figures(),
            criterion::BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, observe, access, trace, figures);
criterion_main!(benches);
