//! From a peer's words to the request that routes see: one host, one path in normal form, the query as it came, or a
//! refusal (HI-13, HI-14, HI-49 to HI-53).

use bytes::Bytes;
use h2::ext::Protocol;
use http::{Method, Uri};
use proptest::prelude::*;
use tollgate_engine::exchange::Request;
use tollgate_engine::testing::fuzz;

use crate::strict::{self, Ends, Head};
use crate::{config, generate, paths};

/// `host [":" port]` of RFC 3986, without user info.
pub(crate) fn is_authority(text: &str) -> bool {
    let (host, port) = match text
        .rfind(':')
        .filter(|colon| !text[*colon..].contains(']'))
    {
        Some(colon) => (&text[..colon], &text[colon + 1..]),
        None => (text, ""),
    };
    let port = port.is_empty()
        || port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u32>().is_ok_and(|port| port < 65536);
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok());
    let name = (1..=255).contains(&host.len())
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._~%!$&'()*+;=".contains(c));
    port && (literal || name)
}

/// Host, path and query of a request whose body ends so; `None` where it is refused.
fn meaning(head: &Head, ends: &Ends) -> Option<(String, String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let [method, target, version] =
        [0, 1, 2].map(|word| text(&head.line[word]).unwrap_or_default());
    let is_1_0 = version == "HTTP/1.0";
    let host = match head.all("host").first() {
        Some(host) => text(host)?,
        None => String::new(),
    };
    let scheme = |scheme: &str| {
        let (front, rest) = target.split_at_checked(scheme.len())?;
        front.eq_ignore_ascii_case(scheme).then(|| rest.to_owned())
    };
    let (authority, rest) = if method == "CONNECT" {
        // RFC 9110 section 9.3.6: a host and a port, and no body.
        let (name, port) = target.rsplit_once(':')?;
        let port: u32 = port.parse().ok()?;
        if name.is_empty() || port == 0 || !matches!(ends, Ends::Nowhere) {
            return None;
        }
        (target.clone(), "/".to_owned())
    } else if target.starts_with('/') || target == "*" && method == "OPTIONS" {
        (host.clone(), target.clone())
    } else {
        let rest = scheme("http://").or_else(|| scheme("https://"))?;
        match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('/') => {
                (rest[..at].to_owned(), rest[at..].to_owned())
            }
            Some(_) => return None,
            None => (rest, "/".to_owned()),
        }
    };
    for name in [&authority, &host] {
        let absent = is_1_0 && name.is_empty();
        if !absent && !is_authority(name) {
            return None;
        }
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (rest.as_str(), None),
    };
    if query.as_ref().is_some_and(|query| query.contains('#')) {
        return None;
    }
    // Only the first line counts, and only what is asked for there.
    let expects = head.all("expect");
    if expects
        .first()
        .is_some_and(|value| strict::lower(value) != "100-continue")
    {
        return None;
    }
    Some((authority, paths::form(path)?, query))
}

fn of(request: &Request) -> (String, String, Option<String>) {
    let target = &request.target;
    let query = target.query().map(str::to_owned);
    (request.authority.clone(), target.path().to_owned(), query)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_request_over_http1_means_what_the_second_reading_says(text in generate::changed(generate::request())) {
        let theirs = strict::request(&text).and_then(|(head, ends)| meaning(&head, &ends));
        match (fuzz::from_http1(&Bytes::copy_from_slice(&text)), theirs) {
            (Ok(ours), Some(theirs)) => prop_assert_eq!(of(&ours), theirs),
            (Err(_), None) => {}
            (ours, theirs) => {
                let ours = ours.map(|request| of(&request)).map_err(|error| error.code);
                prop_assert!(false, "we: {ours:?}\nthe second reading: {theirs:?}");
            }
        }
    }

    #[test]
    fn a_request_over_http2_has_one_host_and_one_path(
        method in generate::method(),
        authority in prop_oneof![generate::host(), Just("a.example".to_owned())],
        target in generate::target(),
        fields in generate::fields(),
        protocol in prop_oneof![
            3 => Just(None),
            1 => Just(Some("websocket".to_owned())),
            2 => "[a-z\r\n :]{0,6}".prop_map(Some),
        ],
    ) {
        let uri = Uri::builder().scheme("http").authority(authority.as_str()).path_and_query(target.as_str()).build();
        let method = Method::from_bytes(method.as_bytes());
        let (Ok(uri), Ok(method)) = (uri, method) else {
            // The library would not have let it pass.
            return Ok(());
        };
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in &fields {
            request = request.header(name.to_ascii_lowercase(), value);
        }
        let mut request = request.body(()).expect("valid parts");
        if let Some(protocol) = &protocol {
            request.extensions_mut().insert(Protocol::from(protocol.as_str()));
        }
        if let Ok(ours) = fuzz::from_http2(request.into_parts().0) {
            prop_assert!(is_authority(&ours.authority), "{}", ours.authority);
            prop_assert_eq!(&ours.authority, &authority);
            // The library has dropped a fragment before anybody of ours sees the path; over HTTP/1 it is refused.
            let raw = target.split(['?', '#']).next().expect("split gives at least one");
            let raw = if raw.is_empty() { "/" } else { raw };
            prop_assert_eq!(Some(ours.target.path().to_owned()), paths::form(raw));
            prop_assert!(ours.target.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(ours.upgrade.is_none_or(|protocol| strict::is_token(protocol.as_bytes())));
        }
    }
}
