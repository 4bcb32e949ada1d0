//! What it costs to know who calls: a token that the worker has verified before (`remembered`), one that it has not
//! (`verified/…`, by kind of key), rules about callers, and what `cors` adds to an answer. On one thread, and remembered on
//! two. Goal: about a microsecond for a token that is remembered, whatever signed it, of which
//! most is the HMAC that it is known by.

use std::cell::Cell;
use std::hint::black_box;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Barrier;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tollgate_config::Loader;
use tollgate_config::identity::SpiffeId;
use tollgate_engine::exchange::body::Body;
use tollgate_engine::exchange::{Marks, Request, Response, Target};
use tollgate_engine::filter::jwt::Cache;
use tollgate_engine::filter::{Caller, Notes};
use tollgate_engine::snapshot::{self, Snapshot};
use tollgate_engine::testing::tokens::{Signer, jwks};

const NOW: u64 = 1_796_083_200;
const SECRET: &str = "a-secret-of-thirty-two-characters";

/// One route with these filters; `cache`: how many tokens are remembered.
fn world(signer: &Signer, cache: usize, filters: &str) -> Snapshot {
    world_with(signer, cache, filters, "")
}

fn world_with(signer: &Signer, cache: usize, filters: &str, more: &str) -> Snapshot {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.json");
    std::fs::write(&path, jwks(&[signer])).expect("a file");
    let text = format!(
        "[[listener]]\nname = \"http\"\nbind = \"127.0.0.1:0\"\n\n[[route]]\nname = \"own\"\nmatch = {{ path = \"/users/{{id}}\" }}\n\
         respond = {{ status = 200 }}\nfilters = [{filters}]\n\n\
         [[jwt]]\nname = \"users\"\nissuer = \"users\"\naudience = \"shop\"\ncache = {cache}\nkeys = [{{ file = \"{}\" }}]\n{more}",
        path.display()
    );
    let document = Loader::new()
        .load_text("bench.toml", &text, Path::new("/"))
        .expect("a valid document");
    snapshot::of(&document).expect("it compiles")
}

fn request(signer: &Signer) -> Request {
    let claims = json!({
        "iss": "users", "aud": "shop", "sub": "7b0e7f0c-9a52-4c1e-8d0f-3f3b6a3d2f11", "iat": NOW, "nbf": NOW, "exp": NOW + 900,
        "jti": "0e8a7f0c-1a52-4c1e-8d0f-3f3b6a3d2f12", "sid": "1e8a7f0c-1a52-4c1e-8d0f-3f3b6a3d2f13",
        "roles": ["customer"], "permissions": ["orders:read", "orders:write"], "tenant": "shop",
    });
    let fields = [
        ("user-agent", "bench/1".to_owned()),
        ("accept", "*/*".to_owned()),
        ("origin", "http://localhost:3000".to_owned()),
        ("authorization", format!("Bearer {}", signer.token(&claims))),
    ];
    Request {
        method: Method::GET,
        authority: "api.example.com".to_owned(),
        target: Target::new("/users/7b0e7f0c-9a52-4c1e-8d0f-3f3b6a3d2f11", None),
        headers: fields
            .map(|(name, value)| {
                let value = HeaderValue::try_from(value).expect("a value");
                (name.parse().expect("a name"), value)
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

fn caller<'a>(tokens: &'a Cache, world: &'a Snapshot) -> Caller<'a> {
    Caller {
        peer: IpAddr::from([10, 0, 0, 1]),
        trusted: &[],
        secure: true,
        worker: 0,
        tokens,
        now: Instant::now(),
        unix: NOW,
        draw: 0,
        member: None,
        access: &world.access,
    }
}

/// One way in; whether it was let in.
fn ask(world: &Snapshot, request: &mut Request, caller: &Caller<'_>) -> (bool, Notes) {
    let plan = &world.routes[0];
    let mut notes = Notes::default();
    let asked = { &plan.compiled.chain }.on_request(request, caller, &mut notes, &plan.item);
    (asked.is_ok(), notes)
}

const JWT: &str = "{ jwt = \"users\" }";
const OWNER: &str = "{ jwt = \"users\" }, { allow = { any_of = [{ roles = [\"admin\"] }, { owner = { parameter = \"id\" } }] } }";

fn one(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("callers");
    let hs256 = Signer::secret(SECRET);
    for (name, signer, cache, filters) in [
        ("no_filter", &hs256, 64, ""),
        ("remembered", &hs256, 64, JWT),
        ("remembered_owner", &hs256, 64, OWNER),
        ("verified/hs256", &hs256, 0, JWT),
        ("verified/ed25519", &Signer::ed25519("1"), 0, JWT),
        ("verified/es256", &Signer::es256("1"), 0, JWT),
        ("verified/rs256", &Signer::rs256("1"), 0, JWT),
    ] {
        let (world, mut request) = (world(signer, cache, filters), request(signer));
        let tokens = Cache::default();
        let caller = caller(&tokens, &world);
        assert!(ask(&world, &mut request, &caller).0, "{name} is let in");
        group.bench_function(name, |bencher| {
            bencher.iter(|| ask(black_box(&world), &mut request, &caller).0);
        });
    }
    // A made-up token costs its maker more than us.
    let (refusing, mut forged) = (
        world(&hs256, 64, JWT),
        request(&Signer::secret("another-secret-of-32-characters!")),
    );
    let (tokens, refused) = (Cache::default(), Cell::new(0u64));
    let asking = caller(&tokens, &refusing);
    group.bench_function("forged/hs256", |bencher| {
        bencher.iter(|| {
            refused.set(refused.get() + u64::from(!ask(&refusing, &mut forged, &asking).0))
        });
    });
    assert!(refused.get() > 0);
    let (answering, mut asked) = (world(&hs256, 64, "{ cors = {} }"), request(&hs256));
    group.bench_function("cors", |bencher| {
        bencher.iter(|| {
            let (admitted, notes) = ask(black_box(&answering), &mut asked, &asking);
            let mut response = Response::new(StatusCode::OK, HeaderMap::new(), Body::Empty);
            answering.routes[0]
                .compiled
                .chain
                .on_response(&mut response, &notes);
            (
                admitted,
                response
                    .headers
                    .contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN),
            )
        });
    });
    group.finish();
}

/// The last of so many rules about a service lets the caller in; each lets another one, but for the first few.
fn services(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("services");
    let signer = Signer::secret(SECRET);
    let member = SpiffeId::new("shop.example", "default", "orders").expect("good names");
    for count in [1, 100] {
        let rule = |number: usize| {
            let from = match number + 1 == count {
                true => "orders".to_owned(),
                false => format!("service-{number}"),
            };
            format!(
                "[[access]]\nname = \"{number}\"\nfrom = [\"{from}\"]\nmethods = [\"GET\"]\npath = \"/users/{{id}}\"\n"
            )
        };
        let rules: String = (0..count).map(rule).collect();
        let world = world_with(&signer, 64, "{ access = \"enforce\" }", &rules);
        let (mut request, tokens) = (request(&signer), Cache::default());
        let caller = Caller {
            member: Some(&member),
            ..caller(&tokens, &world)
        };
        assert!(ask(&world, &mut request, &caller).0, "it is let in");
        group.bench_function(format!("{count}_rules"), |bencher| {
            bencher.iter(|| ask(black_box(&world), &mut request, &caller).0);
        });
    }
    group.finish();
}

/// Two workers that know the same token: they share its settings and keys, and nothing that is written.
fn two(criterion: &mut Criterion) {
    let signer = Signer::secret(SECRET);
    let world = world(&signer, 64, JWT);
    criterion.bench_function("two_threads/remembered", |bencher| {
        bencher.iter_custom(|times| {
            let begin = Barrier::new(2);
            let run = || {
                let (mut request, tokens) = (request(&signer), Cache::default());
                begin.wait();
                let began = Instant::now();
                let caller = caller(&tokens, &world);
                for _ in 0..times {
                    black_box(ask(&world, &mut request, &caller).0);
                }
                began.elapsed()
            };
            std::thread::scope(|scope| {
                let other = scope.spawn(run);
                run().max(other.join().expect("no thread fails"))
            })
        });
    });
}

criterion_group!(benches, one, services, two);
criterion_main!(benches);
