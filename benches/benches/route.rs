//! What a route lookup costs in tables of 10, 1,000 and 10,000 routes, what a miss costs, and what building a table of
//! 5,000 costs. A lookup must stay flat as tables grow: requests walk through the whole table in a scattered order, so
//! that large tables pay for their cache misses.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use tollgate_config::path::{PathPattern, normalize};
use tollgate_config::{HostPattern, Match, PathMatch};
use tollgate_engine::route::{Found, ListenerIndex, Lookup, RouteId, Table};

/// A typical mixture: literals, captures, a trailing rest, one in four with methods; `hosts` spreads them over names.
fn matches(count: usize, hosts: bool) -> Vec<Match> {
    (0..count)
        .map(|at| {
            let path = match at % 3 {
                0 => format!("/service-{at}/items"),
                1 => format!("/service-{at}/items/{{id}}"),
                _ => format!("/service-{at}/*"),
            };
            Match {
                host: hosts.then(|| HostPattern::Exact(format!("api-{}.example.com", at % 100))),
                path: Some(PathMatch::Pattern(
                    PathPattern::parse(&path).expect("a valid pattern"),
                )),
                methods: if at % 4 == 0 {
                    vec![Method::GET]
                } else {
                    Vec::new()
                },
                ..Match::default()
            }
        })
        .collect()
}

fn table(matches: &[Match]) -> Table {
    Table::build(
        matches.iter().zip(0..).map(|(one, id)| (RouteId(id), one)),
        &["http".to_owned()],
    )
}

/// A host and a path for each route, scattered.
fn requests(count: usize) -> Vec<(String, String)> {
    (0..count)
        .map(|at| {
            let at = at * 7919 % count;
            let tail = ["items", "items/81723", "a/b/c"][at % 3];
            (
                format!("api-{}.example.com", at % 100),
                format!("/service-{at}/{tail}"),
            )
        })
        .collect()
}

fn lookups(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    for (name, hosts) in [("lookup", false), ("lookup_by_host", true)] {
        let mut group = criterion.benchmark_group(name);
        for count in [10, 1_000, 10_000] {
            let table = table(&matches(count, hosts));
            let requests = requests(count);
            let mut next = requests.iter().cycle();
            group.bench_function(count.to_string(), |bencher| {
                bencher.iter(|| {
                    let (host, path) = next.next().expect("a cycle has no end");
                    let found = table.find(&Lookup {
                        listener: ListenerIndex(0),
                        host,
                        path,
                        query: None,
                        method: &Method::GET,
                        headers: &headers,
                    });
                    let Found::Route(route) = found else {
                        panic!("{host}{path} is a route's")
                    };
                    black_box(route)
                });
            });
        }
        group.finish();
    }
}

fn build(criterion: &mut Criterion) {
    for (name, hosts) in [("build/5000", false), ("build_by_host/5000", true)] {
        let matches = matches(5_000, hosts);
        criterion.bench_function(name, |bencher| bencher.iter(|| table(black_box(&matches))));
    }
}

fn normal_form(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("normalize");
    for (name, path) in [
        ("normal", "/service-1234/items/81723"),
        ("escaped", "/service-1234/caf%C3%A9/81723"),
        ("odd", "/service-1234//x/../items/%381723"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| normalize(black_box(path)).map(|path| path.len()))
        });
    }
    group.finish();
}

criterion_group!(route, lookups, build, normal_form);
criterion_main!(route);
