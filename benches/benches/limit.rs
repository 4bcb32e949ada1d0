//! What a rate limit costs a request: the take alone (`take/…`, without the answer's fields), and with what the answer is
//! told (`whole/…`); on one thread, and on two that share a bucket or have one each. Goal: tens of nanoseconds for a take
//! on a known key.

use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Barrier, LazyLock};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tollgate_config::Loader;
use tollgate_engine::exchange::body::Body;
use tollgate_engine::exchange::{Marks, Request, Response, Target};
use tollgate_engine::filter::access::Access;
use tollgate_engine::filter::jwt::Cache;
use tollgate_engine::filter::{Caller, Notes};
use tollgate_engine::snapshot::{self, Snapshot};

fn world(filter: &str) -> Snapshot {
    let text = format!(
        "[[listener]]\nname = \"http\"\nbind = \"127.0.0.1:0\"\n\n[[route]]\nname = \"all\"\nrespond = {{ status = 200 }}\n\
         filters = [{filter}]\n\n[[api_key]]\nkey = \"a-key-of-32-characters-in-length\"\nclient = \"one\"\ntier = \"enterprise\"\n\
         [limits]\nstore = \"redis://127.0.0.1:1\"\novershoot = 1.0\n\n\
         [[limit]]\nname = \"shared\"\nby = \"client_ip\"\nrate = \"1/s\"\nburst = 10000000\nshared = true\n"
    );
    let document = Loader::new()
        .load_text("bench.toml", &text, Path::new("/"))
        .expect("a valid document");
    snapshot::of(&document).expect("it compiles")
}

fn request() -> Request {
    let fields = [
        ("user-agent", "bench/1"),
        ("accept", "*/*"),
        ("x-user", "81723"),
        ("x-api-key", "a-key-of-32-characters-in-length"),
    ];
    Request {
        method: Method::GET,
        authority: "api.example.com".to_owned(),
        target: Target::new("/items/81723", None),
        headers: fields
            .map(|(name, value)| {
                (
                    name.parse().expect("a name"),
                    HeaderValue::from_static(value),
                )
            })
            .into_iter()
            .collect(),
        marks: Marks::default(),
        named: Default::default(),
        body: Body::Empty,
        upgrade: None,
        is_http2: false,
        is_call: false,
    }
}

static NO_RULES: LazyLock<Access> = LazyLock::new(Access::default);

fn caller(tokens: &Cache, peer: impl Into<IpAddr>, now: Instant) -> Caller<'_> {
    Caller {
        peer: peer.into(),
        trusted: &[],
        secure: false,
        worker: 0,
        tokens,
        now,
        unix: 1_796_083_200,
        draw: 0,
        member: None,
        access: &NO_RULES,
    }
}

/// One take; whether it was admitted.
fn take(world: &Snapshot, request: &mut Request, caller: &Caller<'_>) -> (bool, Notes) {
    let plan = &world.routes[0];
    let mut notes = Notes::default();
    let asked = plan
        .compiled
        .chain
        .on_request(request, caller, &mut notes, &plan.item);
    (asked.is_ok(), notes)
}

const NEVER_EMPTY: &str = "rate = \"1000000/s\", burst = 10000000";

fn one(criterion: &mut Criterion) {
    let by = |by: &str| format!("{{ rate_limit = {{ by = {by}, {NEVER_EMPTY} }} }}");
    let cases = [
        ("none", String::new()),
        ("route", by("\"route\"")),
        ("client_ip", by("\"client_ip\"")),
        ("header", by("{ header = \"x-user\" }")),
        ("tier_by_key", "{ rate_limit = \"tiers\" }".to_owned()),
        (
            "refused",
            "{ rate_limit = { by = \"client_ip\", rate = \"1/h\", burst = 1 } }".to_owned(),
        ),
    ];
    let (now, tokens) = (Instant::now(), Cache::default());
    let mut group = criterion.benchmark_group("take");
    for (name, filter) in &cases {
        let (world, mut request) = (world(filter), request());
        let mut step = now;
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                step += Duration::from_millis(1);
                take(
                    black_box(&world),
                    &mut request,
                    &caller(&tokens, [10, 0, 0, 1], step),
                )
                .0
            });
        });
    }
    // Every request from an address that was never seen.
    let (crowded, mut asking) = (world(&by("\"client_ip\"")), request());
    let mut number = 0u32;
    group.bench_function("new_client", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_add(1);
            let caller = caller(&tokens, number.to_be_bytes(), now);
            take(black_box(&crowded), &mut asking, &caller).0
        });
    });
    // Nobody brings tokens here, so another client comes before the ten million on credit are used up.
    let (shared, mut asking) = (world("{ rate_limit = \"shared\" }"), request());
    let mut number = 0u64;
    group.bench_function("shared", |bencher| {
        bencher.iter(|| {
            number += 1;
            let client = u32::try_from(number >> 22).unwrap_or(u32::MAX);
            let caller = caller(&tokens, client.to_be_bytes(), now);
            take(black_box(&shared), &mut asking, &caller).0
        });
    });
    group.finish();
    let mut group = criterion.benchmark_group("whole");
    for (name, filter) in &cases {
        let (world, mut request) = (world(filter), request());
        let mut response = Response::new(StatusCode::OK, HeaderMap::new(), Body::Empty);
        let caller = caller(&tokens, [10, 0, 0, 1], now);
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                let (admitted, notes) = take(black_box(&world), &mut request, &caller);
                let chain = &world.routes[0].compiled.chain;
                chain.on_response(&mut response, &notes);
                admitted
            });
        });
    }
    group.finish();
}

/// Two threads: what one take costs each of them.
fn two(criterion: &mut Criterion) {
    let filter = format!("{{ rate_limit = {{ by = \"client_ip\", {NEVER_EMPTY} }} }}");
    let world = world(&filter);
    let mut group = criterion.benchmark_group("two_threads");
    for (name, last) in [("one_bucket", 1), ("a_bucket_each", 2)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let begin = Barrier::new(2);
                let run = |last: u8| {
                    let (mut request, tokens) = (request(), Cache::default());
                    begin.wait();
                    let began = Instant::now();
                    let caller = caller(&tokens, [10, 0, 0, last], began);
                    for _ in 0..times {
                        black_box(take(&world, &mut request, &caller).0);
                    }
                    began.elapsed()
                };
                std::thread::scope(|scope| {
                    let other = scope.spawn(|| run(last));
                    run(1).max(other.join().expect("no thread fails"))
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, one, two);
criterion_main!(benches);
