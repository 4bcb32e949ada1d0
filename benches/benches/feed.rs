//! What a change from a control plane costs in this process: 5,000 routes from the feed, of which one changes. From the
//! bytes of its lines to the snapshot that the next request reads; and the pieces of it, a change of instances, and a
//! start from what served last.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate_config::feed::{Begin, End, Hello, Instance, Kind, Line, Put, Service};
use tollgate_config::{Document, Loader};
use tollgate_engine::reload::control_plane::{Content, Known, LastGood, begin};
use tollgate_engine::snapshot::compile::compile;
use tollgate_engine::snapshot::memory::Memory;
use tollgate_engine::snapshot::proof::prove;
use tollgate_engine::snapshot::store::Store;
use tollgate_engine::telemetry::metrics::Metrics;

const ROUTES: usize = 5_000;
const FILE: &str = "[[listener]]\nname = \"http\"\nbind = \"127.0.0.1:0\"\n\
    [control_plane]\nurls = [\"http://127.0.0.1:8080\"]\nnode = \"bench\"\n";

fn route(at: usize, mark: &str) -> Line {
    let text = format!(
        "[[route]]\nname = \"route-{at}\"\nmatch = {{ host = \"api-{}.example.com\", path = \"/service-{at}/*\" }}\nupstream = \"up-{}\"\n\
         filters = [{{ set_headers = {{ request = {{ x-mark = \"{mark}\" }} }} }}]\n",
        at % 100,
        at % 20
    );
    put(format!("route:{at}"), Kind::Route, at * 6 + 200, text)
}

fn put(id: String, kind: Kind, line: usize, text: String) -> Line {
    Line::Put(Put {
        id,
        kind,
        file: "routes/shop.toml".to_owned(),
        line: line as u32,
        text,
        uses: Vec::new(),
    })
}

fn service(version: u64) -> Line {
    let instances = (0..50u16).map(|at| Instance {
        id: format!("orders-{at}"),
        address: format!("10.0.0.{at}:{}", 7000 + version % 2),
        health: Default::default(),
        weight: 1,
        zone: None,
        metadata: [("version".to_owned(), "1.2.3".to_owned())].into(),
    });
    Line::Service(Service {
        name: "orders".to_owned(),
        version,
        instances: instances.collect(),
    })
}

fn first() -> Vec<String> {
    let mut lines = vec![
        Line::Hello(Hello {
            server: "bench".to_owned(),
            epoch: "e".to_owned(),
            revision: 1,
            beat: Duration::from_secs(5),
            figures: None,
        }),
        Line::Begin(Begin { full: true }),
    ];
    for at in 0..20 {
        let text = format!(
            "[[upstream]]\nname = \"up-{at}\"\nendpoints = [\"127.0.0.1:{}\"]\n",
            7000 + at
        );
        lines.push(put(
            format!("upstream:{at}"),
            Kind::Upstream,
            at * 4 + 1,
            text,
        ));
    }
    lines.extend((0..ROUTES).map(|at| route(at, "same")));
    lines.push(Line::End(End { revision: 1 }));
    lines.iter().map(Line::write).collect()
}

/// A batch that changes the route in the middle.
fn change(revision: u64) -> Vec<String> {
    let lines = [
        Line::Begin(Begin { full: false }),
        route(ROUTES / 2, &format!("mark-{revision}")),
        Line::End(End { revision }),
    ];
    lines.iter().map(Line::write).collect()
}

/// What a process keeps.
struct World {
    loader: Loader,
    file: Document,
    known: Known,
    memory: Memory,
    metrics: Arc<Metrics>,
    store: Option<Store>,
}

impl World {
    fn new() -> World {
        let mut loader = Loader::with_environment(|_| None);
        let file = loader.load_text("bench.toml", FILE, Path::new("/"));
        let mut known = Known::default();
        known.connected(Instant::now());
        World {
            loader,
            file: file.expect("valid"),
            known,
            memory: Memory::default(),
            metrics: Arc::new(Metrics::new(1)),
            store: None,
        }
    }

    fn hear(&mut self, lines: &[String]) {
        let now = Instant::now();
        for line in lines {
            let line = Line::read(line.as_bytes()).expect("well written");
            self.known.line(line, now).expect("in order");
        }
    }

    fn join(&mut self) -> Document {
        let blocks = self.known.blocks();
        self.loader.join(&self.file, &blocks).expect("valid")
    }

    fn serve(&mut self, document: &Document) {
        let former = self.store.as_ref().map(Store::current);
        let next = compile(
            document,
            former.as_deref(),
            &mut self.memory,
            &self.metrics,
            1,
        );
        let next = next.expect("it compiles");
        prove(document, &next).expect("no test fails");
        match &self.store {
            Some(store) => store.publish(Arc::new(next)),
            None => self.store = Some(Store::new(Arc::new(next))),
        }
    }

    fn apply(&mut self, lines: &[String]) {
        self.hear(lines);
        let document = self.join();
        self.serve(&document);
    }
}

fn feed(criterion: &mut Criterion) {
    let first = first();
    let mut group = criterion.benchmark_group("feed");
    group.sample_size(20);
    group.bench_function("first/5000", |bencher| {
        bencher.iter(|| World::new().apply(black_box(&first)));
    });
    let mut world = World::new();
    world.apply(&first);
    let mut revision = 1;
    group.bench_function("change_one/5000", |bencher| {
        bencher.iter(|| {
            revision += 1;
            world.apply(&change(revision));
        });
    });
    group.bench_function("change_one/5000/hear", |bencher| {
        bencher.iter(|| {
            revision += 1;
            world.hear(&change(revision));
        });
    });
    group.bench_function("change_one/5000/join", |bencher| {
        bencher.iter(|| {
            revision += 1;
            world.hear(&change(revision));
            world.join()
        });
    });
    let folder = tempfile::tempdir().expect("a folder");
    let last_good = LastGood::new(folder.path());
    let content = Content {
        epoch: "e".to_owned(),
        revision,
        blocks: world.known.blocks(),
        services: Vec::new(),
    };
    group.bench_function("last_good/5000/write", |bencher| {
        bencher.iter(|| last_good.write(&content).expect("there is room"));
    });
    group.bench_function("last_good/5000/start", |bencher| {
        let text = format!(
            "{FILE}[server]\nstate_dir = \"{}\"\n",
            folder.path().display()
        );
        bencher.iter(|| {
            let (mut world, metrics) = (World::new(), Arc::new(Metrics::new(1)));
            let file = world.loader.load_text("bench.toml", &text, Path::new("/"));
            let services = world.memory.services.clone();
            let begun = begin(
                file.expect("valid"),
                &mut world.loader,
                &services,
                |document| compile(document, None, &mut world.memory, &metrics, 1),
            );
            assert!(begun.expect("it compiles").restored.serves);
        });
    });
    let mut version = 0;
    group.bench_function("instances/50", |bencher| {
        bencher.iter(|| {
            version += 1;
            world.hear(&[service(version).write()]);
        });
    });
    group.finish();
}

criterion_group!(benches, feed);
criterion_main!(benches);
