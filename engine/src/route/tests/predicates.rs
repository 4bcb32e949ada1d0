//! Listeners, headers and query: what a route asks for behind host and path.

use super::*;

#[test]
fn a_route_is_only_on_the_listeners_it_names() {
    let mut inside = written("/a");
    inside.listeners = vec!["inside".to_owned()];
    let mut nowhere = written("/b");
    nowhere.listeners = vec!["gone".to_owned()];
    let table = table(&[written("/a"), inside, nowhere]);
    assert_eq!(found(&table, &get("", "/a")), Ok(0));
    assert_eq!(
        found(
            &table,
            &Request {
                listener: 1,
                ..get("", "/a")
            }
        ),
        Ok(1)
    );
    assert_eq!(found(&table, &get("", "/b")), not_found());
}

#[test]
fn more_predicates_win_and_a_miss_falls_back() {
    let mut header = written("/a");
    header.headers = vec![(
        HeaderName::from_static("x-beta"),
        ValueMatch::Exact("1".to_owned()),
    )];
    let mut query = written("/a");
    query.query = vec![("v".to_owned(), ValueMatch::Exact("2".to_owned()))];
    let table = table(&[written("/a"), query, header, written("GET /a")]);
    let mut request = Request {
        method: Method::POST,
        ..get("", "/a")
    };
    assert_eq!(found(&table, &request), Ok(0));
    request.query = Some("v=2");
    assert_eq!(found(&table, &request), Ok(1));
    request
        .headers
        .append("x-beta", HeaderValue::from_static("0"));
    assert_eq!(found(&table, &request), Ok(1));
    request
        .headers
        .append("x-beta", HeaderValue::from_static("1"));
    assert_eq!(found(&table, &request), Ok(2));
    request.method = Method::GET;
    assert_eq!(found(&table, &request), Ok(3));
}

#[test]
fn a_header_value_that_is_not_text_matches_only_byte_by_byte() {
    let with = |value| Match {
        headers: vec![(HeaderName::from_static("x-v"), value)],
        ..written("/a")
    };
    let any = ValueMatch::Regex(regex::Regex::new("^(?s:.*)$").unwrap());
    let mut request = get("", "/a");
    request
        .headers
        .insert("x-v", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    assert_eq!(found(&table(&[with(any.clone())]), &request), not_found());
    assert_eq!(found(&table(&[with(ValueMatch::Present)]), &request), Ok(0));
    assert_eq!(
        found(
            &table(&[with(ValueMatch::Exact("caf\u{e9}".to_owned()))]),
            &request
        ),
        not_found()
    );
    request.headers.insert(
        "x-v",
        HeaderValue::from_bytes("caf\u{e9}".as_bytes()).unwrap(),
    );
    assert_eq!(
        found(
            &table(&[with(ValueMatch::Exact("caf\u{e9}".to_owned()))]),
            &request
        ),
        Ok(0)
    );
    assert_eq!(found(&table(&[with(any)]), &request), Ok(0));
}

#[test]
fn a_query_is_compared_decoded_and_any_of_several_values_fits() {
    let with = |value| {
        table(&[Match {
            query: vec![("a b".to_owned(), value)],
            ..written("/a")
        }])
    };
    let exact = with(ValueMatch::Exact("1 é".to_owned()));
    let present = with(ValueMatch::Present);
    let regex = with(ValueMatch::Regex(regex::Regex::new("^[0-9]+ é$").unwrap()));
    for (query, fits, is_there) in [
        (None, false, false),
        (Some(""), false, false),
        (Some("a+b=1+%C3%A9"), true, true),
        (Some("x&a%20b=0&&a%20b=1%20%c3%a9&y=="), true, true),
        (Some("a+b=1+%FF"), false, true),
        (Some("a+b"), false, true),
        (Some("A+b=1+%C3%A9"), false, false),
        (Some("a+b=1+%C3%A9%"), false, true),
    ] {
        let request = Request {
            query,
            ..get("", "/a")
        };
        assert_eq!(found(&exact, &request).is_ok(), fits, "{query:?}");
        assert_eq!(found(&regex, &request).is_ok(), fits, "{query:?}");
        assert_eq!(found(&present, &request).is_ok(), is_there, "{query:?}");
    }
}
