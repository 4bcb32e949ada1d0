//! The precedence as it is written in the documentation, route by route and without any index, against the table.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use proptest::prelude::*;
use tollgate_config::path::Segment;

use super::*;

type Key = (
    (u8, Reverse<usize>),
    (u8, Vec<u8>),
    (bool, Reverse<usize>, Reverse<usize>, bool),
);

/// What comes first wins.
fn key(m: &Match) -> Key {
    let host = match &m.host {
        Some(HostPattern::Exact(_)) => (0, Reverse(0)),
        Some(HostPattern::Wildcard(parent)) => (1, Reverse(parent.len())),
        None => (2, Reverse(0)),
    };
    let path = match &m.path {
        Some(PathMatch::Pattern(pattern)) => {
            let segments = pattern.segments.iter().map(|s| {
                if matches!(s, Segment::Literal(_)) {
                    0
                } else {
                    1
                }
            });
            (
                0,
                segments.chain([if pattern.rest { 3 } else { 2 }]).collect(),
            )
        }
        Some(PathMatch::Regex(_)) => (1, vec![]),
        None => (2, vec![]),
    };
    (
        host,
        path,
        (
            m.methods.is_empty(),
            Reverse(m.headers.len()),
            Reverse(m.query.len()),
            m.listeners.is_empty(),
        ),
    )
}

fn is_on_path(m: &Match, lookup: &Lookup<'_>) -> bool {
    let listeners = ["edge", "inside"];
    let on_listener = m.listeners.is_empty()
        || m.listeners
            .iter()
            .any(|l| l == listeners[usize::from(lookup.listener.0)]);
    let on_host = match &m.host {
        None => true,
        Some(HostPattern::Exact(host)) => lookup.host == host,
        Some(HostPattern::Wildcard(parent)) => {
            lookup.host.len() > parent.len() + 1 && lookup.host.ends_with(&format!(".{parent}"))
        }
    };
    let on_path = match &m.path {
        None => true,
        Some(PathMatch::Regex(regex)) => regex.is_match(lookup.path),
        Some(PathMatch::Pattern(pattern)) => {
            // The pattern as a regular expression: another reading of the same words.
            let mut text = String::from("^");
            for segment in &pattern.segments {
                text.push('/');
                match segment {
                    Segment::Literal(literal) => text.push_str(&regex::escape(literal)),
                    Segment::Capture(_) => text.push_str("[^/]+"),
                }
            }
            text.push_str(
                match (
                    pattern.rest,
                    pattern.trailing_slash || pattern.segments.is_empty(),
                ) {
                    (true, _) => "(/.*)?$",
                    (false, true) => "/$",
                    (false, false) => "$",
                },
            );
            lookup.path.starts_with('/') && regex::Regex::new(&text).unwrap().is_match(lookup.path)
        }
    };
    on_listener && on_host && on_path
}

fn value_fits(wanted: &ValueMatch, value: &str) -> bool {
    match wanted {
        ValueMatch::Present => true,
        ValueMatch::Exact(text) => text == value,
        ValueMatch::Regex(regex) => regex.is_match(value),
    }
}

fn naive(matches: &[Match], lookup: &Lookup<'_>) -> Result<u32, (u16, String)> {
    let on_path: Vec<_> = matches
        .iter()
        .enumerate()
        .filter(|(_, m)| is_on_path(m, lookup))
        .collect();
    let takes_method = |m: &Match| m.methods.is_empty() || m.methods.contains(lookup.method);
    let fits = |m: &Match| {
        let pairs: Vec<(&str, &str)> = lookup
            .query
            .unwrap_or("")
            .split('&')
            .filter_map(|p| p.split_once('='))
            .collect();
        takes_method(m)
            && m.headers.iter().all(|(name, wanted)| {
                lookup
                    .headers
                    .get_all(name)
                    .iter()
                    .any(|value| value_fits(wanted, value.to_str().unwrap()))
            })
            && m.query.iter().all(|(name, wanted)| {
                pairs
                    .iter()
                    .any(|(n, v)| n == name && value_fits(wanted, v))
            })
    };
    if let Some((id, _)) = on_path
        .iter()
        .filter(|(_, m)| fits(m))
        .min_by_key(|(id, m)| (key(m), *id))
    {
        return Ok(*id as u32);
    }
    if on_path.is_empty() || on_path.iter().any(|(_, m)| takes_method(m)) {
        return not_found();
    }
    let allow: BTreeSet<_> = on_path
        .iter()
        .flat_map(|(_, m)| &m.methods)
        .map(Method::as_str)
        .collect();
    Err((405, allow.into_iter().collect::<Vec<_>>().join(", ")))
}

fn values() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        Just(ValueMatch::Present),
        Just(ValueMatch::Exact("1".to_owned())),
        Just(ValueMatch::Regex(regex::Regex::new("^(?:[12])$").unwrap())),
    ]
}

fn matches() -> impl Strategy<Value = Match> {
    let host = proptest::sample::select(vec![
        "", "", "test", "h.test", "*.test", "*.h.test", "a.h.test",
    ]);
    let segments =
        proptest::collection::vec(proptest::sample::select(vec!["a", "a", "b", "{}"]), 0..4);
    let end = proptest::sample::select(vec!["", "", "/", "/*"]);
    let pattern = (segments, end).prop_map(|(segments, end)| {
        let mut text = String::new();
        for (at, segment) in segments.iter().enumerate() {
            text.push('/');
            text.push_str(&if *segment == "{}" {
                format!("{{c{at}}}")
            } else {
                (*segment).to_owned()
            });
        }
        text.push_str(end);
        if text.is_empty() {
            "/".to_owned()
        } else {
            text
        }
    });
    let path = prop_oneof![
        8 => pattern,
        1 => proptest::sample::select(vec!["~/a.*", "~.*b", "~/a/b"]).prop_map(str::to_owned),
        1 => Just("!".to_owned()),
    ];
    let methods = proptest::sample::select(vec!["", "", "GET", "POST", "GET,POST", "PURGE"]);
    let headers = proptest::collection::vec(
        (proptest::sample::select(vec!["x-a", "x-b"]), values()),
        0..2,
    );
    let query =
        proptest::collection::vec((proptest::sample::select(vec!["q", "r"]), values()), 0..2);
    let listener = proptest::sample::select(vec!["", "", "edge", "inside", "gone"]);
    (host, path, methods, headers, query, listener).prop_map(
        |(host, path, methods, headers, query, listener)| Match {
            headers: headers
                .into_iter()
                .map(|(name, value)| (HeaderName::from_static(name), value))
                .collect(),
            query: query
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            listeners: (!listener.is_empty())
                .then(|| listener.to_owned())
                .into_iter()
                .collect(),
            ..written(&format!("{methods} {host}{path}"))
        },
    )
}

fn requests() -> impl Strategy<Value = Request> {
    let host = proptest::sample::select(vec![
        "",
        "test",
        "h.test",
        "a.h.test",
        "b.a.h.test",
        "other",
    ]);
    let path = proptest::sample::select(vec![
        "/", "/a", "/a/", "/b", "/c", "/a/b", "/a/a/", "/a/b/a", "/c/b/c", "/a/a/a/a", "/b/c",
        "/c/c/b/", "*",
    ]);
    let method = proptest::sample::select(vec![
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::from_bytes(b"PURGE").unwrap(),
    ]);
    let header = proptest::collection::vec(
        proptest::sample::select(vec![("x-a", "1"), ("x-a", "2"), ("x-b", "3")]),
        0..3,
    );
    let query = proptest::sample::select(vec![
        None,
        Some("q=1"),
        Some("q=2&r=1"),
        Some("r=3&q=3&q=1"),
    ]);
    (host, path, method, header, query, 0..2u16).prop_map(
        |(host, path, method, header, query, listener)| Request {
            method,
            host,
            path,
            query,
            headers: header
                .into_iter()
                .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
                .collect(),
            listener,
        },
    )
}

/// As many cases as `TOLLGATE_FUZZ_CASES` says, and `least` without it.
fn cases(least: u32) -> ProptestConfig {
    let more = std::env::var("TOLLGATE_FUZZ_CASES").ok();
    let cases = more.and_then(|text| text.parse().ok()).unwrap_or(least);
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases.max(least))
    }
}

proptest! {
    #![proptest_config(cases(256))]

    /// GW-105
    #[test]
    fn the_table_decides_as_the_written_precedence_does(
        matches in proptest::collection::vec(matches(), 0..24),
        requests in proptest::collection::vec(requests(), 4),
    ) {
        let table = table(&matches);
        for request in &requests {
            let expected = naive(&matches, &request.lookup());
            prop_assert_eq!(found(&table, request), expected.clone(), "{} {} {}", request.method, request.host, request.path);
            let explanation = table.explain(&request.lookup());
            let winner = explanation.candidates.iter().find(|c| c.verdict == Verdict::Wins).map(|c| c.route.0);
            prop_assert_eq!(winner, expected.ok());
            prop_assert_eq!(explanation.candidates.len() + explanation.others.len(), matches.len());
        }
    }

    /// GW-105: only routes that ask for the very same may be told apart by their order.
    #[test]
    fn the_order_in_the_file_never_matters(
        (matches, shuffled) in proptest::collection::vec(matches(), 1..16).prop_flat_map(|matches| {
            let order: Vec<usize> = (0..matches.len()).collect();
            (Just(matches), Just(order).prop_shuffle())
        }),
        request in requests(),
    ) {
        let reordered: Vec<Match> = shuffled.iter().map(|at| matches[*at].clone()).collect();
        match (found(&table(&matches), &request), found(&table(&reordered), &request)) {
            (Ok(one), Ok(other)) => {
                let other = shuffled[other as usize];
                prop_assert!(one as usize == other || key(&matches[one as usize]) == key(&matches[other]));
            }
            (one, other) => prop_assert_eq!(one, other),
        }
    }
}
