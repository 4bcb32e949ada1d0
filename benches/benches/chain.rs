//! What a request and its answer pay for a route's filters: none, one, five. Each filter sets one field both ways.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tollgate_config::Loader;
use tollgate_engine::exchange::body::Body;
use tollgate_engine::exchange::{Marks, Request, Response, Target};
use tollgate_engine::filter::{Caller, Notes};
use tollgate_engine::snapshot::{self, RoutePlan, Snapshot};

fn world(filters: usize) -> Snapshot {
    let filters: Vec<_> = (0..filters)
        .map(|at| {
            format!(
                "{{ set_headers = {{ request = {{ x-in-{at} = \"1\" }}, response = {{ x-out-{at} = \"1\" }} }} }}"
            )
        })
        .collect();
    let text = format!(
        "[[listener]]\nname = \"http\"\nbind = \"127.0.0.1:0\"\n\n[[route]]\nmatch = {{ path = \"/*\" }}\nupstream = \"one\"\n\
         filters = [{}]\n\n[[upstream]]\nname = \"one\"\nendpoints = [\"127.0.0.1:1\"]\n",
        filters.join(", ")
    );
    let document = Loader::new()
        .load_text("bench.toml", &text, Path::new("/"))
        .expect("a valid document");
    snapshot::of(&document).expect("it compiles")
}

fn fields() -> HeaderMap {
    [
        ("user-agent", "bench/1"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip"),
        ("cookie", "a=1; b=2"),
    ]
    .map(|(name, value)| {
        (
            name.parse().expect("a name"),
            HeaderValue::from_static(value),
        )
    })
    .into_iter()
    .collect()
}

fn request() -> Request {
    Request {
        method: Method::GET,
        authority: "api.example.com".to_owned(),
        target: Target::new("/items/81723", None),
        headers: fields(),
        marks: Marks::default(),
        named: Default::default(),
        body: Body::Empty,
        upgrade: None,
        is_http2: false,
        is_call: false,
    }
}

fn run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chain");
    for filters in [0, 1, 5] {
        let world = world(filters);
        let RoutePlan { item, compiled } = &world.routes[0];
        let tokens = tollgate_engine::filter::jwt::Cache::default();
        let caller = Caller {
            peer: [127, 0, 0, 1].into(),
            trusted: &[],
            secure: false,
            worker: 0,
            tokens: &tokens,
            now: Instant::now(),
            unix: 0,
            draw: 0,
            member: None,
            access: &world.access,
        };
        group.bench_function(filters.to_string(), |bencher| {
            bencher.iter_batched_ref(
                || {
                    (
                        request(),
                        Response::new(StatusCode::OK, fields(), Body::Empty),
                    )
                },
                |(request, response)| {
                    let mut notes = Notes::default();
                    let chain = &compiled.chain;
                    let verdict = chain.on_request(black_box(request), &caller, &mut notes, item);
                    chain.on_response(black_box(response), &notes);
                    verdict.is_ok()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, run);
criterion_main!(benches);
