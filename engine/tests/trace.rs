//! Trace context through the gateway, over both protocols: pairs of headers as they come and as they must be sent on
//! (HI-58). The cases are those of the W3C's own suite; each has its unit test in `exchange::trace` too, but headers
//! that are doubled, spelled oddly or wrapped in blanks are changed by codecs before they get there.

use tollgate_engine::testing::gateway::Gateway;
use tollgate_engine::testing::h2_client;
use tollgate_engine::testing::journal::Request;
use tollgate_engine::testing::upstream::Upstream;

const ID: &str = "12345678901234567890123456789012";
const PARENT: &str = "1234567890123456";
const GOOD: &str = "00-12345678901234567890123456789012-1234567890123456-01";

/// What becomes of a pair.
#[derive(Clone, Copy)]
enum Becomes {
    /// The trace goes on; this is the `tracestate`, "" for none.
    Joined(&'static str),
    /// A new trace without a state.
    Started,
}

use Becomes::{Joined, Started};

type Case = (&'static [(&'static str, &'static str)], Becomes);

const TP: &str = "traceparent";
const TS: &str = "tracestate";

const CASES: &[Case] = &[
    (&[], Started),
    (&[(TP, GOOD)], Joined("")),
    (&[(TP, GOOD), (TS, "foo=1,bar=2")], Joined("foo=1,bar=2")),
    (&[(TS, "foo=1")], Started),
    // Twice, whether equal or not.
    (&[(TP, GOOD), (TP, GOOD), (TS, "foo=1")], Started),
    (
        &[
            (TP, GOOD),
            (
                TP,
                "00-12345678901234567890123456789011-1234567890123456-01",
            ),
        ],
        Started,
    ),
    // Wrong in every part; all zero.
    (&[(TP, ""), (TS, "foo=1")], Started),
    (
        &[
            (
                TP,
                "00-00000000000000000000000000000000-1234567890123456-01",
            ),
            (TS, "foo=1"),
        ],
        Started,
    ),
    (
        &[
            (
                TP,
                "00-12345678901234567890123456789012-0000000000000000-01",
            ),
            (TS, "foo=1"),
        ],
        Started,
    ),
    (
        &[(TP, "00-1234567890123456789012345678901-1234567890123456-01")],
        Started,
    ),
    (
        &[(
            TP,
            "00-123456789012345678901234567890123-1234567890123456-01",
        )],
        Started,
    ),
    (
        &[(
            TP,
            "00-.2345678901234567890123456789012-1234567890123456-01",
        )],
        Started,
    ),
    (
        &[(
            TP,
            "00-1234567890123456789012345678901A-1234567890123456-01",
        )],
        Started,
    ),
    (
        &[(TP, "00-12345678901234567890123456789012-123456789012345-01")],
        Started,
    ),
    (
        &[(TP, "00-12345678901234567890123456789012-1234567890123456-1")],
        Started,
    ),
    (
        &[(
            TP,
            "00-12345678901234567890123456789012-1234567890123456-001",
        )],
        Started,
    ),
    (
        &[(TP, "0-12345678901234567890123456789012-1234567890123456-01")],
        Started,
    ),
    (
        &[(
            TP,
            "000-12345678901234567890123456789012-1234567890123456-01",
        )],
        Started,
    ),
    (
        &[(
            TP,
            "00-12345678901234567890123456789012-1234567890123456-01-more",
        )],
        Started,
    ),
    // Versions of the future, and the one that is none.
    (
        &[(
            TP,
            "cc-12345678901234567890123456789012-1234567890123456-01",
        )],
        Joined(""),
    ),
    (
        &[
            (
                TP,
                "cc-12345678901234567890123456789012-1234567890123456-01-more",
            ),
            (TS, "foo=1"),
        ],
        Joined("foo=1"),
    ),
    (
        &[(
            TP,
            "cc-12345678901234567890123456789012-1234567890123456-01.more",
        )],
        Started,
    ),
    (
        &[
            (
                TP,
                "ff-12345678901234567890123456789012-1234567890123456-01",
            ),
            (TS, "foo=1"),
        ],
        Started,
    ),
    // States: doubled lines, doubled keys, bad keys and values, blanks. A bad state never ends a trace.
    (
        &[(TP, GOOD), (TS, "foo=1,bar=2"), (TS, "baz=3")],
        Joined("foo=1,bar=2,baz=3"),
    ),
    (&[(TP, GOOD), (TS, "foo=1"), (TS, "")], Joined("foo=1")),
    (
        &[(TP, GOOD), (TS, "foo=1 \t , \t bar=2")],
        Joined("foo=1,bar=2"),
    ),
    (&[(TP, GOOD), (TS, "foo=1,foo=2")], Joined("foo=1")),
    (&[(TP, GOOD), (TS, "FOO=1")], Joined("")),
    (&[(TP, GOOD), (TS, "foo =1")], Joined("")),
    (&[(TP, GOOD), (TS, "foo=bar=baz")], Joined("")),
    (&[(TP, GOOD), (TS, "@foo=1,bar=2")], Joined("")),
    // Names that are near, and another case (which HTTP/2 does not have).
    (&[("trace-parent", GOOD)], Started),
    (&[(TP, GOOD), ("trace-state", "foo=1")], Joined("")),
];

/// What is wrong with a request that arrived.
fn fault(sent: &Request, becomes: Becomes) -> Option<String> {
    let (parents, states) = (sent.all(TP), sent.all(TS));
    let [parent] = parents[..] else {
        return Some(format!("parents {parents:?}"));
    };
    let parts: Vec<&str> = parent.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
    if lengths != [2, 32, 16, 2] || parts[0] != "00" || !parent.bytes().all(hex) {
        return Some(format!("not of the form: {parent}"));
    }
    if parts[2] == PARENT || parts[2].bytes().all(|byte| byte == b'0') {
        return Some(format!("no span of its own: {parent}"));
    }
    let (joined, state) = match becomes {
        Joined(state) => (true, state),
        Started => (false, ""),
    };
    if joined != (parts[1] == ID) || parts[1].starts_with(&ID[..30]) != joined {
        return Some(format!("joined or not: {parent}"));
    }
    let wanted = if state.is_empty() {
        vec![]
    } else {
        vec![state]
    };
    (states != wanted).then(|| format!("states {states:?}"))
}

/// Sends all cases by `send` and tells all that went wrong at once.
fn assert_all(send: impl FnOnce(&Gateway)) {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    send(&gateway);
    let requests = upstream.requests();
    assert_eq!(requests.len(), CASES.len());
    let faults: Vec<String> = CASES
        .iter()
        .zip(&requests)
        .filter_map(|((headers, becomes), sent)| {
            fault(sent, *becomes).map(|why| format!("{headers:?}: {why}"))
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn hi_58_pairs_of_trace_headers_over_http_1() {
    assert_all(|gateway| {
        let mut client = gateway.client();
        for (headers, _) in CASES {
            let lines: Vec<String> = headers
                .iter()
                .map(|(name, value)| format!("{name}: {value}"))
                .collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert_eq!(client.request("GET /", &lines).status, 200, "{lines:?}");
        }
    });
}

#[test]
fn hi_58_pairs_of_trace_headers_over_http_2() {
    assert_all(|gateway| {
        h2_client::run(async {
            let sender = h2_client::connect(gateway.address()).await;
            for (headers, _) in CASES {
                let request = h2_client::request("GET", "/", headers);
                let answer = h2_client::exchange(&sender, request, &[], None).await;
                assert_eq!(answer.expect("an answer").status, 200, "{headers:?}");
            }
        });
    });
}

/// HI-58: limits of length and number, which no table shows well.
#[test]
fn hi_58_a_state_that_is_too_long_is_dropped_and_the_trace_goes_on() {
    let upstream = Upstream::echo();
    let gateway = Gateway::in_front_of(upstream.address());
    let numbered = |to: usize| {
        let members: Vec<String> = (0..to).map(|n| format!("k{n}={n}")).collect();
        members.join(",")
    };
    let states = [
        (numbered(32), true),
        (numbered(33), false),
        (format!("{}=1", "k".repeat(256)), true),
        (format!("{}=1", "k".repeat(257)), false),
        (format!("k={}", "v".repeat(256)), true),
        (format!("k={}", "v".repeat(257)), false),
    ];
    let mut client = gateway.client();
    for (state, _) in &states {
        let lines = [format!("{TP}: {GOOD}"), format!("{TS}: {state}")];
        let response = client.request("GET /", &[&lines[0], &lines[1]]);
        assert_eq!(response.status, 200);
    }
    for (request, (state, kept)) in upstream.requests().iter().zip(&states) {
        let wanted = kept.then_some(state.as_str());
        assert_eq!(request.header(TS), wanted);
        let parent = request.header(TP).expect("always sent");
        assert!(parent.contains(ID), "{parent}");
    }
}
