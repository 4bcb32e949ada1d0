//! What a reload costs in its pieces, for a document of 5,000 routes of which one changes: reading the text, compiling
//! with the former snapshot at hand, running the document's tests; and all of it, first and again.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate_config::Loader;
use tollgate_engine::snapshot::Snapshot;
use tollgate_engine::snapshot::compile::compile;
use tollgate_engine::snapshot::memory::Memory;
use tollgate_engine::snapshot::proof::prove;
use tollgate_engine::telemetry::metrics::Metrics;

const ROUTES: usize = 5_000;

/// A document whose route in the middle says `changed`.
fn text(changed: &str) -> String {
    let mut text = "[[listener]]\nname = \"http\"\nbind = \"127.0.0.1:0\"\n\n".to_owned();
    for at in 0..20 {
        text += &format!(
            "[[upstream]]\nname = \"up-{at}\"\nendpoints = [\"127.0.0.1:{}\"]\n\n",
            7000 + at
        );
    }
    for at in 0..ROUTES {
        let mark = if at == ROUTES / 2 { changed } else { "same" };
        text += &format!(
            "[[route]]\nname = \"route-{at}\"\nmatch = {{ host = \"api-{}.example.com\", path = \"/service-{at}/*\" }}\nupstream = \"up-{}\"\n\
             filters = [{{ set_headers = {{ request = {{ x-mark = \"{mark}\" }} }} }}]\n\n",
            at % 100,
            at % 20
        );
    }
    text + "[[test]]\nrequest = { host = \"api-1.example.com\", path = \"/service-1/x\" }\nexpect = { route = \"route-1\" }\n"
}

/// What a process keeps from one reload to the next.
struct World {
    loader: Loader,
    memory: Memory,
    metrics: Arc<Metrics>,
    snapshot: Option<Snapshot>,
}

impl World {
    fn new() -> Self {
        World {
            loader: Loader::new(),
            memory: Memory::default(),
            metrics: Arc::new(Metrics::new(1)),
            snapshot: None,
        }
    }

    fn reload(&mut self, text: &str) {
        let document = self
            .loader
            .load_text("bench.toml", text, Path::new("/"))
            .expect("a valid document");
        let snapshot = compile(
            &document,
            self.snapshot.as_ref(),
            &mut self.memory,
            &self.metrics,
            1,
        )
        .expect("it compiles");
        prove(&document, &snapshot).expect("its tests hold");
        self.snapshot = Some(snapshot);
    }
}

fn reload(criterion: &mut Criterion) {
    let texts = [text("one"), text("two")];
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(20);
    group.bench_function("first/5000", |bencher| {
        bencher.iter(|| World::new().reload(black_box(&texts[0])));
    });
    let mut world = World::new();
    let mut turns = texts.iter().cycle();
    let mut next = || turns.next().expect("a cycle has no end");
    world.reload(next());
    group.bench_function("change_one/5000", |bencher| {
        bencher.iter(|| world.reload(next()))
    });
    group.bench_function("change_one/5000/load", |bencher| {
        bencher.iter(|| {
            world
                .loader
                .load_text("bench.toml", next(), Path::new("/"))
                .is_ok()
        });
    });
    let document = world
        .loader
        .load_text("bench.toml", next(), Path::new("/"))
        .expect("a valid document");
    group.bench_function("change_one/5000/compile", |bencher| {
        bencher.iter(|| {
            compile(
                &document,
                world.snapshot.as_ref(),
                &mut world.memory,
                &world.metrics,
                1,
            )
            .is_ok()
        });
    });
    let snapshot = world.snapshot.as_ref().expect("loaded before");
    group.bench_function("change_one/5000/prove", |bencher| {
        bencher.iter(|| prove(black_box(&document), snapshot).is_ok());
    });
    group.finish();
}

criterion_group!(benches, reload);
criterion_main!(benches);
