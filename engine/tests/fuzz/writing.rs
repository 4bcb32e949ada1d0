//! What an upstream is sent, read again by the second reading: one request, one host, one framing, nothing of the
//! client's hop, our own fields exactly once, everything else untouched (HI-1, HI-22, HI-25, HI-57, HI-58).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use tollgate_engine::exchange::headers::Sender;
use tollgate_engine::exchange::request_id::RequestId;
use tollgate_engine::exchange::trace::TraceContext;
use tollgate_engine::exchange::{Marks, Request};
use tollgate_engine::http1::Framing;
use tollgate_engine::testing::fuzz;

use crate::strict::{self, Ends};
use crate::{config, generate};

/// Set once in every request.
const ALWAYS: &[&str] = &[
    "traceparent",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "via",
];
/// Belongs to a hop.
const HOP: &[&str] = &[
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "http2-settings",
    "expect",
];
/// Believed only when a trusted proxy says it.
const TOLD: &[&str] = &[
    "forwarded",
    "x-forwarded-port",
    "x-real-ip",
    "x-forwarded-client-cert",
];

#[derive(Debug, Clone)]
struct How {
    trusted: bool,
    deadline: Option<Duration>,
    host: Option<HeaderValue>,
    framing: Framing,
}

fn how() -> impl Strategy<Value = How> {
    let deadline = prop_oneof![
        Just(None),
        (0u64..u64::MAX / 2).prop_map(|millis| Some(Duration::from_millis(millis)))
    ];
    let framing = prop_oneof![
        Just(Framing::None),
        Just(Framing::Chunked),
        (1u64..1 << 62).prop_map(Framing::Length)
    ];
    let host = prop_oneof![2 => Just(None), 1 => Just(Some(HeaderValue::from_static("inside.example:81")))];
    (any::<bool>(), deadline, host, framing).prop_map(|(trusted, deadline, host, framing)| How {
        trusted,
        deadline,
        host,
        framing,
    })
}

/// Whether a client's field is neither of its hop, nor named by it as such, nor ours.
fn passes(request: &Request, how: &How, name: &str) -> bool {
    let ours = ALWAYS.contains(&name)
        || [
            "host",
            "tracestate",
            "x-request-deadline-ms",
            "connection",
            "upgrade",
        ]
        .contains(&name)
        || ["content-length", "transfer-encoding"].contains(&name)
        || name == "grpc-timeout" && how.deadline.is_some()
        || TOLD.contains(&name) && !how.trusted;
    !ours && !HOP.contains(&name) && !request.named.iter().any(|named| named == name)
}

fn check(request: &Request, how: &How) -> Result<(), TestCaseError> {
    let trace = TraceContext::from_headers(&request.headers, || 7);
    let id = RequestId::from_headers(&request.headers, || 7);
    let sender = Sender {
        peer: "192.0.2.1",
        scheme: "https",
        trusted: how.trusted,
        trace: &trace,
        span_id: trace.span_id,
        request_id: id.as_str(),
        deadline: how.deadline,
        attempt: None,
        hedge: false,
        caller: None,
        host: how.host.as_ref(),
    };
    let text = fuzz::to_http1(&sender, request, how.framing);
    let Some((head, ends)) = strict::request(&text) else {
        return Err(TestCaseError::fail(format!(
            "no strict reader takes {:?}",
            Bytes::from(text)
        )));
    };
    prop_assert_eq!(&head.line[0][..], request.method.as_str().as_bytes());
    prop_assert_eq!(&head.line[1][..], request.target.as_str().as_bytes());
    prop_assert_eq!(ends, Ends::from(how.framing));
    let host = how
        .host
        .as_ref()
        .map_or(request.authority.as_bytes(), |host| host.as_bytes());
    prop_assert_eq!(head.all("host"), [host]);
    for name in ALWAYS {
        prop_assert_eq!(head.all(name).len(), 1, "{}", name);
    }
    prop_assert_eq!(head.all("traceparent"), [&trace.traceparent()[..]]);
    prop_assert_eq!(head.all("x-request-id"), [id.as_str().as_bytes()]);
    prop_assert_eq!(
        head.all("tracestate").len(),
        usize::from(trace.state.is_some())
    );
    prop_assert_eq!(
        head.all("x-request-deadline-ms").len(),
        usize::from(how.deadline.is_some())
    );
    let peer = head.all("x-forwarded-for")[0];
    prop_assert!(peer == b"192.0.2.1" || how.trusted && peer.ends_with(b", 192.0.2.1"));
    for name in HOP {
        prop_assert!(head.all(name).is_empty(), "{}", name);
    }
    let upgrade = request.upgrade.as_deref().map(str::as_bytes);
    prop_assert_eq!(
        head.all("upgrade"),
        Vec::from_iter(upgrade.map(strict::trim))
    );
    prop_assert_eq!(
        head.all("connection"),
        Vec::from_iter(upgrade.map(|_| &b"upgrade"[..]))
    );
    let mut passed = 0;
    for name in request
        .headers
        .keys()
        .filter(|name| passes(request, how, name.as_str()))
    {
        let sent: Vec<_> = request
            .headers
            .get_all(name)
            .iter()
            .map(|value| strict::trim(value.as_bytes()))
            .collect();
        let got = head.all(name.as_str());
        if name == "cookie" && request.is_http2 {
            let joined = sent.join(&b"; "[..]);
            prop_assert_eq!(got, [strict::trim(&joined)]);
            passed += 1;
        } else {
            passed += sent.len();
            prop_assert_eq!(got, sent, "{}", name);
        }
    }
    let grpc = head.all("grpc-timeout").len() * usize::from(how.deadline.is_some());
    let own = 1
        + ALWAYS.len()
        + usize::from(trace.state.is_some())
        + usize::from(how.deadline.is_some())
        + usize::from(how.framing != Framing::None)
        + 2 * usize::from(upgrade.is_some())
        + grpc;
    prop_assert_eq!(
        head.fields.len(),
        passed + own,
        "nothing else is sent: {:?}",
        head
    );
    over_http2(request, how, &sender.for_http2(request))
}

/// The same for an upstream that speaks HTTP/2.
fn over_http2(request: &Request, how: &How, headers: &HeaderMap) -> Result<(), TestCaseError> {
    for name in ALWAYS {
        prop_assert_eq!(headers.get_all(*name).iter().count(), 1, "{}", name);
    }
    for name in HOP
        .iter()
        .chain(&["host", "connection", "upgrade", "transfer-encoding"])
    {
        let trailers = *name == "te" && headers.get("te").is_none_or(|te| te == "trailers");
        // The length of an HTTP/2 body has been checked by the library and may go on as it came, once.
        let length = *name == "content-length"
            && request.is_http2
            && headers.get_all(*name).iter().count() == 1
            && headers.get(*name) == request.headers.get(*name);
        prop_assert!(
            !headers.contains_key(*name) || trailers || length,
            "{}",
            name
        );
    }
    // The length of the body is told to HTTP/2 as it was told to us.
    for name in request
        .headers
        .keys()
        .filter(|name| *name == "content-length" || passes(request, how, name.as_str()))
    {
        let sent = request.headers.get_all(name);
        prop_assert!(headers.get_all(name).iter().eq(sent.iter()), "{}", name);
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_upstream_is_sent_one_clean_request(text in generate::changed(generate::request()), how in how()) {
        if let Ok(request) = fuzz::from_http1(&Bytes::copy_from_slice(&text)) {
            check(&request, &how)?;
        }
    }

    /// The fields of an HTTP/2 request have no `Connection` to name them, and crumbs instead of one cookie.
    #[test]
    fn an_upstream_is_sent_one_clean_request_for_one_over_http2(
        fields in generate::fields(),
        crumbs in proptest::collection::vec("[a-z]=[a-z]{0,3}", 0..4),
        how in how(),
    ) {
        let mut request = http::Request::builder().uri("http://a.example/x?y");
        for (name, value) in &fields {
            // What the library refuses.
            let name = name.to_ascii_lowercase();
            if !["connection", "transfer-encoding", "keep-alive", "proxy-connection", "upgrade"].contains(&name.as_str()) {
                request = request.header(name, value);
            }
        }
        for crumb in crumbs {
            request = request.header("cookie", crumb);
        }
        let parts = request.body(()).expect("valid parts").into_parts().0;
        if let Ok(request) = fuzz::from_http2(parts) {
            prop_assert_eq!(request.marks, Marks::of(&request.headers));
            check(&request, &how)?;
        }
    }
}
