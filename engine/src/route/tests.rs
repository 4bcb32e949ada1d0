//! What the table promises: precedence, 404 and 405, hosts, predicates, rewrites; and an oracle that reads the written
//! precedence without any trie.

mod oracle;
mod predicates;
mod rewrite;

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tollgate_config::path::PathPattern;
use tollgate_config::{At, HostPattern, Match, PathMatch, Rewrite, RewritePath, ValueMatch};

use super::*;

/// A match written as `GET,POST host/path`; `~` begins a regular expression, `!` stands for no path.
fn written(text: &str) -> Match {
    let (methods, place) = text.split_once(' ').unwrap_or(("", text));
    let at = place.find(['/', '~', '!']).unwrap();
    let (host, path) = place.split_at(at);
    Match {
        host: match host.strip_prefix("*.") {
            _ if host.is_empty() => None,
            Some(parent) => Some(HostPattern::Wildcard(parent.to_owned())),
            None => Some(HostPattern::Exact(host.to_owned())),
        },
        path: match path.strip_prefix('~') {
            _ if path == "!" => None,
            Some(regex) => Some(PathMatch::Regex(
                regex::Regex::new(&format!("^(?:{regex})$")).unwrap(),
            )),
            None => Some(PathMatch::Pattern(PathPattern::parse(path).unwrap())),
        },
        methods: methods
            .split(',')
            .filter(|m| !m.is_empty())
            .map(|m| m.parse().unwrap())
            .collect(),
        ..Match::default()
    }
}

fn table(matches: &[Match]) -> Table {
    let listeners = ["edge".to_owned(), "inside".to_owned()];
    Table::build(
        matches
            .iter()
            .enumerate()
            .map(|(id, m)| (RouteId(id as u32), m)),
        &listeners,
    )
}

#[derive(Debug)]
struct Request {
    method: Method,
    host: &'static str,
    path: &'static str,
    query: Option<&'static str>,
    headers: HeaderMap,
    listener: u16,
}

impl Request {
    fn lookup(&self) -> Lookup<'_> {
        Lookup {
            listener: ListenerIndex(self.listener),
            host: self.host,
            path: self.path,
            query: self.query,
            method: &self.method,
            headers: &self.headers,
        }
    }
}

fn get(host: &'static str, path: &'static str) -> Request {
    Request {
        method: Method::GET,
        host,
        path,
        query: None,
        headers: HeaderMap::new(),
        listener: 0,
    }
}

/// `Ok` route, or the status and what is allowed.
fn found(table: &Table, request: &Request) -> Result<u32, (u16, String)> {
    match table.find(&request.lookup()) {
        Found::Route(route) => Ok(route.0),
        Found::MethodNotAllowed(allow) => Err((405, allow.header())),
        Found::NotFound => Err((404, String::new())),
    }
}

fn not_found() -> Result<u32, (u16, String)> {
    Err((404, String::new()))
}

#[test]
fn a_table_is_shared_by_all_workers() {
    fn shared<T: Send + Sync + 'static>(_: &T) {}
    shared(&table(&[]));
    assert_eq!(found(&table(&[]), &get("h", "/")), not_found());
}

/// GW-105
#[test]
fn the_most_specific_path_wins() {
    let matches = [
        "/*", "/a/*", "/a/{x}", "/a/b", "/{x}/b", "/a/", "/a", "~/a/b.*", "!", "/",
    ]
    .map(written);
    let table = table(&matches);
    for (path, winner) in [
        ("/", 9),
        ("/a", 6),
        ("/a/", 5),
        ("/a/b", 3),
        ("/a/c", 2),
        ("/a/b/", 1),
        ("/a/b/c", 1),
        ("/z/b", 4),
        ("/z", 0),
        ("*", 8),
    ] {
        assert_eq!(found(&table, &get("h", path)), Ok(winner), "{path}");
    }
}

/// GW-105
#[test]
fn a_rest_matches_the_path_itself_and_all_below_but_no_longer_name() {
    let table = table(&["/a/*"].map(written));
    for path in ["/a", "/a/", "/a/b", "/a/b/c/"] {
        assert_eq!(found(&table, &get("", path)), Ok(0), "{path}");
    }
    for path in ["/", "/ab", "/A", "*"] {
        assert_eq!(found(&table, &get("", path)), not_found(), "{path}");
    }
}

#[test]
fn a_capture_holds_exactly_one_segment_that_is_not_empty() {
    let table = table(&["/a/{x}"].map(written));
    assert_eq!(found(&table, &get("", "/a/b")), Ok(0));
    for path in ["/a", "/a/", "/a/b/", "/a/b/c"] {
        assert_eq!(found(&table, &get("", path)), not_found(), "{path}");
    }
}

#[test]
fn a_pattern_beats_a_regex_and_a_regex_beats_no_path() {
    let table = table(&["!", "~/a.*", "/*"].map(written));
    assert_eq!(found(&table, &get("", "/a")), Ok(2));
    let table = self::table(&["!", "~/a.*"].map(written));
    assert_eq!(found(&table, &get("", "/ab")), Ok(1));
    assert_eq!(found(&table, &get("", "/b")), Ok(0));
}

/// A literal branch that ends nowhere does not hide a capture beside it.
#[test]
fn a_dead_end_goes_back_to_less_specific_paths_and_hosts() {
    let matches = [
        "/a/b/c",
        "/a/{x}/d",
        "/{x}/b/e",
        "h.test/a/b",
        "*.test/a/b/f",
        "GET h.test/g",
        "POST /g",
    ]
    .map(written);
    let table = table(&matches);
    for (path, winner) in [
        ("/a/b/c", 0),
        ("/a/b/d", 1),
        ("/a/b/e", 2),
        ("/a/b", 3),
        ("/a/b/f", 4),
    ] {
        assert_eq!(found(&table, &get("h.test", path)), Ok(winner), "{path}");
    }
    let post = Request {
        method: Method::POST,
        ..get("h.test", "/g")
    };
    assert_eq!(found(&table, &post), Ok(6));
}

#[test]
fn the_most_specific_host_wins_even_with_a_vaguer_path() {
    let table = table(&["/a", "*.test/a", "*.h.test/a", "a.h.test/*"].map(written));
    for (host, winner) in [
        ("a.h.test", 3),
        ("b.h.test", 2),
        ("x.y.h.test", 2),
        ("h.test", 1),
        ("test", 0),
        ("", 0),
    ] {
        assert_eq!(found(&table, &get(host, "/a")), Ok(winner), "{host}");
    }
}

/// HI-54
#[test]
fn spellings_of_a_host_reach_the_same_route() {
    let table = table(&["/*", "xn--bcher-kva.test/*", "[::1]/*"].map(written));
    for host in [
        "xn--bcher-kva.test",
        "XN--Bcher-KVA.Test",
        "xn--bcher-kva.test.",
        "xn--bcher-kva.test:8443",
        "XN--bcher-kva.test.:1",
    ] {
        assert_eq!(found(&table, &get(host, "/")), Ok(1), "{host}");
    }
    for host in ["[::1]", "[::1]:8000", "[0:0:0:0:0:0:0:1]:8000"] {
        assert_eq!(found(&table, &get(host, "/")), Ok(2), "{host}");
    }
    assert_eq!(found(&table, &get("other.test", "/")), Ok(0));
}

/// HI-54
#[test]
fn a_host_longer_than_any_name_matches_no_host_pattern() {
    let long: &'static str = Box::leak("a.".repeat(30_000).into_boxed_str());
    let table = table(&["*.a/x", "/x"].map(written));
    assert_eq!(found(&table, &get(long, "/x")), Ok(1));
}

/// GW-105
#[test]
fn a_known_path_with_another_method_is_405_and_names_the_methods() {
    let mut only_inside = written("DELETE /a");
    only_inside.listeners = vec!["inside".to_owned()];
    let table = table(&[
        written("POST,PUT /a"),
        written("h.test/b"),
        written("PURGE /{x}"),
        only_inside,
    ]);
    assert_eq!(
        found(&table, &get("", "/a")),
        Err((405, "POST, PURGE, PUT".to_owned()))
    );
    assert_eq!(found(&table, &get("", "/a/b")), not_found());
    let purge = Request {
        method: "PURGE".parse().unwrap(),
        ..get("", "/a")
    };
    assert_eq!(found(&table, &purge), Ok(2));
}

/// A route that takes the method but misses a header is no reason to speak of methods.
#[test]
fn a_path_whose_method_fits_but_not_its_header_is_404() {
    let mut beta = written("GET /a");
    beta.headers = vec![(HeaderName::from_static("x-beta"), ValueMatch::Present)];
    let table = table(&[beta, written("POST /a")]);
    assert_eq!(found(&table, &get("", "/a")), not_found());
}

#[test]
fn an_explanation_tells_the_order_and_the_reasons() {
    let mut beta = written("GET h.test/a/{x}");
    beta.headers = vec![(HeaderName::from_static("x-beta"), ValueMatch::Present)];
    let table = table(&[
        written("/*"),
        beta,
        written("POST *.test/a/b"),
        written("h.test/z"),
        written("i.test/a"),
        written("~/a.*"),
    ]);
    let explanation = table.explain(&get("H.test:80", "/a/b").lookup());
    assert_eq!(explanation.outcome, Outcome::Route { route: RouteId(0) });
    assert_eq!(explanation.host, "h.test");
    let told = |list: &[Considered]| {
        list.iter()
            .map(|c| {
                format!(
                    "{} {}{}: {}: {}",
                    c.route.0, c.host, c.path, c.specificity, c.verdict
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(&explanation.candidates),
        [
            "1 h.test/a/{}: exact host, path pattern, methods, 1 header predicate: header x-beta does not fit",
            "2 *.test/a/b: wildcard host, path pattern, methods: does not take this method",
            "0 any host/*: any host, path pattern: matches, and is the most specific that does",
            "5 any host^(?:/a.*)$: any host, path regex: matches, but is less specific",
        ]
    );
    assert_eq!(
        told(&explanation.others),
        [
            "3 h.test/z: exact host, path pattern: path does not fit",
            "4 i.test/a: exact host, path pattern: host does not fit"
        ]
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["candidates"][0]["verdict"], "header");
    assert_eq!(json["candidates"][0]["name"], "x-beta");
    assert_eq!(json["outcome"]["route"], 0);
}
