//! The cases of the W3C's trace-context test suite (`test/test.py`), each as what a gateway sends on, and ours after
//! them. Names are the suite's, so that the two can be laid side by side (HI-58).

use super::*;

const ID: &str = "12345678901234567890123456789012";
const GOOD: &str = "00-12345678901234567890123456789012-1234567890123456-00";

/// What the upstream would be sent: trace id, parent id, flags; and `tracestate`.
struct Sent {
    trace: String,
    parent: String,
    flags: String,
    state: Option<String>,
}

impl Sent {
    /// The members with their values; empty when there is no header.
    fn members(&self) -> Vec<(&str, &str)> {
        let members = self
            .state
            .as_deref()
            .unwrap_or_default()
            .split(',')
            .filter(|member| !member.is_empty());
        members
            .map(|member| member.split_once('=').expect("key and value"))
            .collect()
    }
}

fn map(headers: &[(&str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(name, HeaderValue::from_bytes(value).expect("a value"));
    }
    map
}

fn through(headers: &[(&str, &str)]) -> Sent {
    let bytes: Vec<_> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()))
        .collect();
    let mut map = map(&bytes);
    let mut random = fastrand::Rng::with_seed(7);
    TraceContext::from_headers(&map, || random.u64(..)).write_into(&mut map);
    assert_eq!(map.get_all(TRACEPARENT).iter().count(), 1);
    assert!(map.get_all(TRACESTATE).iter().count() <= 1);
    let text = |name| {
        map.get(name)
            .map(|value: &HeaderValue| value.to_str().expect("visible").to_owned())
    };
    let parts = text(TRACEPARENT).expect("always sent");
    assert!(parse(parts.as_bytes()).is_some(), "{parts}");
    let mut parts = parts.split('-').skip(1).map(str::to_owned);
    let mut part = || parts.next().expect("three parts");
    Sent {
        trace: part(),
        parent: part(),
        flags: part(),
        state: text(TRACESTATE),
    }
}

fn state(values: &[&str]) -> Sent {
    let mut headers = vec![("traceparent", GOOD)];
    headers.extend(values.iter().map(|value| ("tracestate", *value)));
    let sent = through(&headers);
    assert_eq!(sent.trace, ID, "a bad tracestate never changes the trace");
    sent
}

#[track_caller]
fn restarts(value: &str) {
    let sent = through(&[("traceparent", value), ("tracestate", "foo=1")]);
    assert!(!value.contains(&sent.trace), "{value}");
    assert_ne!(sent.trace, ID, "{value}");
    assert_eq!(sent.state, None, "{value}");
}

#[track_caller]
fn goes_on(value: &str) {
    let sent = through(&[("traceparent", value)]);
    assert_eq!(sent.trace, ID, "{value}");
    assert_ne!(sent.parent, "1234567890123456", "{value}");
}

#[test]
fn both_traceparent_and_tracestate_missing() {
    let sent = through(&[]);
    assert_eq!((sent.flags.as_str(), sent.state), ("02", None));
}

#[test]
fn traceparent_included_tracestate_missing() {
    goes_on("00-12345678901234567890123456789012-1234567890123456-01");
}

#[test]
fn traceparent_duplicated() {
    let sent = through(&[
        (
            "traceparent",
            "00-12345678901234567890123456789011-1234567890123456-01",
        ),
        (
            "traceparent",
            "00-12345678901234567890123456789012-1234567890123456-01",
        ),
    ]);
    assert!(!sent.trace.starts_with("123456789012345678901234567890"));
    let sent = through(&[
        ("traceparent", GOOD),
        ("traceparent", GOOD),
        ("tracestate", "foo=1"),
    ]);
    assert_ne!(sent.trace, ID);
    assert_eq!(sent.state, None);
}

#[test]
fn traceparent_header_name() {
    for name in ["trace-parent", "trace.parent"] {
        assert_ne!(through(&[(name, GOOD)]).trace, ID);
    }
}

#[test]
fn traceparent_header_name_valid_casing() {
    for name in ["TraceParent", "TrAcEpArEnT", "TRACEPARENT"] {
        assert_eq!(through(&[(name, GOOD)]).trace, ID);
    }
}

#[test]
fn traceparent_version_0x00() {
    restarts("00-12345678901234567890123456789012-1234567890123456-01.");
    restarts(
        "00-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like",
    );
}

#[test]
fn traceparent_version_0xcc() {
    goes_on("cc-12345678901234567890123456789012-1234567890123456-01");
    goes_on("cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like");
    restarts(
        "cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be-like",
    );
}

#[test]
fn traceparent_version_0xff() {
    restarts("ff-12345678901234567890123456789012-1234567890123456-01");
}

#[test]
fn traceparent_version_illegal_characters() {
    restarts(".0-12345678901234567890123456789012-1234567890123456-01");
    restarts("0.-12345678901234567890123456789012-1234567890123456-01");
}

#[test]
fn traceparent_version_too_long() {
    restarts("000-12345678901234567890123456789012-1234567890123456-01");
    restarts("0000-12345678901234567890123456789012-1234567890123456-01");
}

#[test]
fn traceparent_version_too_short() {
    restarts("0-12345678901234567890123456789012-1234567890123456-01");
}

#[test]
fn traceparent_trace_id_all_zero() {
    restarts("00-00000000000000000000000000000000-1234567890123456-01");
}

#[test]
fn traceparent_trace_id_illegal_characters() {
    restarts("00-.2345678901234567890123456789012-1234567890123456-01");
    restarts("00-1234567890123456789012345678901.-1234567890123456-01");
}

#[test]
fn traceparent_trace_id_too_long() {
    restarts("00-123456789012345678901234567890123-1234567890123456-01");
}

#[test]
fn traceparent_trace_id_too_short() {
    restarts("00-1234567890123456789012345678901-1234567890123456-01");
}

#[test]
fn traceparent_parent_id_all_zero() {
    restarts("00-12345678901234567890123456789012-0000000000000000-01");
}

#[test]
fn traceparent_parent_id_illegal_characters() {
    restarts("00-12345678901234567890123456789012-.234567890123456-01");
    restarts("00-12345678901234567890123456789012-123456789012345.-01");
}

#[test]
fn traceparent_parent_id_too_long() {
    restarts("00-12345678901234567890123456789012-12345678901234567-01");
}

#[test]
fn traceparent_parent_id_too_short() {
    restarts("00-12345678901234567890123456789012-123456789012345-01");
}

#[test]
fn traceparent_trace_flags_illegal_characters() {
    restarts("00-12345678901234567890123456789012-1234567890123456-.0");
    restarts("00-12345678901234567890123456789012-1234567890123456-0.");
}

#[test]
fn traceparent_trace_flags_too_long() {
    restarts("00-12345678901234567890123456789012-1234567890123456-001");
}

#[test]
fn traceparent_trace_flags_too_short() {
    restarts("00-12345678901234567890123456789012-1234567890123456-1");
}

#[test]
fn traceparent_ows_handling() {
    for (before, after) in [(" ", ""), ("\t", ""), ("", " "), ("", "\t"), ("\t ", " \t")] {
        goes_on(&format!("{before}{GOOD}{after}"));
    }
}

#[test]
fn tracestate_included_traceparent_missing() {
    assert_eq!(through(&[("tracestate", "foo=1")]).state, None);
    assert_eq!(through(&[("tracestate", "foo=1,bar=2")]).state, None);
}

#[test]
fn tracestate_included_traceparent_included() {
    assert_eq!(
        state(&["foo=1,bar=2"]).members(),
        [("foo", "1"), ("bar", "2")]
    );
}

#[test]
fn tracestate_header_name() {
    for name in ["trace-state", "trace.state"] {
        assert_eq!(
            through(&[("traceparent", GOOD), (name, "foo=1")]).state,
            None
        );
    }
}

#[test]
fn tracestate_header_name_valid_casing() {
    for name in ["TraceState", "TrAcEsTaTe", "TRACESTATE"] {
        assert_eq!(
            through(&[("traceparent", GOOD), (name, "foo=1")]).members(),
            [("foo", "1")]
        );
    }
}

#[test]
fn tracestate_empty_header() {
    assert_eq!(state(&[""]).state, None);
    assert_eq!(state(&["foo=1", ""]).members(), [("foo", "1")]);
    assert_eq!(state(&["", "foo=1"]).members(), [("foo", "1")]);
}

#[test]
fn tracestate_multiple_headers_different_keys() {
    let sent = state(&["foo=1,bar=2", "rojo=1,congo=2", "baz=3"]);
    assert_eq!(
        sent.state.as_deref(),
        Some("foo=1,bar=2,rojo=1,congo=2,baz=3")
    );
}

#[test]
fn tracestate_duplicated_keys() {
    assert_eq!(state(&["foo=1,foo=1"]).members(), [("foo", "1")]);
    assert_eq!(state(&["foo=1,foo=2"]).members(), [("foo", "1")]);
    assert_eq!(state(&["foo=1", "foo=1"]).members(), [("foo", "1")]);
    assert_eq!(state(&["foo=1", "foo=2"]).members(), [("foo", "1")]);
}

#[test]
fn tracestate_all_allowed_characters() {
    let without_vendor = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
    let with_vendor = format!("{without_vendor}@a-z0-9_-*/");
    let value: String = (' '..='~')
        .filter(|letter| !",=".contains(*letter))
        .collect();
    for key in [without_vendor, &with_vendor] {
        assert_eq!(
            state(&[&format!("{key}={value}")]).members(),
            [(key, value.as_str())]
        );
    }
}

#[test]
fn tracestate_ows_handling() {
    let three = [("foo", "1"), ("bar", "2"), ("baz", "3")];
    assert_eq!(state(&["foo=1 \t , \t bar=2, \t baz=3"]).members(), three);
    assert_eq!(
        state(&["foo=1\t \t,\t \tbar=2,\t \tbaz=3"]).members(),
        three
    );
    for value in [" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t"] {
        assert_eq!(state(&[value]).members(), [("foo", "1")]);
    }
}

#[test]
fn tracestate_key_illegal_characters() {
    for value in ["foo =1", "FOO=1", "foo.bar=1"] {
        assert_eq!(state(&[value]).state, None);
    }
}

#[test]
fn tracestate_key_illegal_vendor_format() {
    for key in ["foo@", "foo@@bar", "foo@bar@baz"] {
        assert_eq!(
            state(&[&format!("{key}=1,bar=2")]).members(),
            [(key, "1"), ("bar", "2")]
        );
    }
    assert_eq!(state(&["@foo=1,bar=2"]).state, None);
}

fn numbered(from: usize, to: usize) -> String {
    (from..=to)
        .map(|number| format!("bar{number:02}={number:02}"))
        .collect::<Vec<_>>()
        .join(",")
}

#[test]
fn tracestate_member_count_limit() {
    let lines = [
        numbered(1, 10),
        numbered(11, 20),
        numbered(21, 30),
        numbered(31, 32),
    ];
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    assert_eq!(state(&lines).members().len(), 32);
    assert_eq!(
        state(&[lines[0], lines[1], lines[2], &numbered(31, 33)]).state,
        None
    );
}

#[test]
fn tracestate_key_length_limit() {
    for key in [
        "z".repeat(256),
        "t".repeat(241) + "@" + &"v".repeat(14),
        "t".repeat(242) + "@v",
        "t@".to_owned() + &"v".repeat(15),
    ] {
        assert_eq!(
            state(&["foo=1", &format!("{key}=1")]).members(),
            [("foo", "1"), (key.as_str(), "1")]
        );
    }
    assert_eq!(state(&["foo=1", &("z".repeat(257) + "=1")]).state, None);
}

#[test]
fn tracestate_value_illegal_characters() {
    assert_eq!(state(&["foo=bar=baz"]).state, None);
    assert_eq!(state(&["foo=,bar=3"]).state, None);
}

#[test]
fn multiple_requests_with_valid_traceparent() {
    let headers = map(&[("traceparent", GOOD.as_bytes())]);
    let mut random = fastrand::Rng::with_seed(1);
    let mut next = || TraceContext::from_headers(&headers, || random.u64(..));
    let (one, two) = (next(), next());
    assert_eq!(one.trace_id, two.trace_id);
    assert_ne!(one.span_id, two.span_id);
    assert_eq!(
        one.parent,
        Some([0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56])
    );
}

#[test]
fn multiple_requests_without_traceparent() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut next = || TraceContext::from_headers(&HeaderMap::new(), || random.u64(..));
    let (one, two) = (next(), next());
    assert_ne!(one.trace_id, two.trace_id);
    assert_ne!(one.span_id, two.span_id);
    assert_eq!(one.parent, None);
}

#[test]
fn multiple_requests_with_illegal_traceparent() {
    let headers = map(&[(
        "traceparent",
        b"00-00000000000000000000000000000000-1234567890123456-01",
    )]);
    let mut random = fastrand::Rng::with_seed(1);
    let mut next = || TraceContext::from_headers(&headers, || random.u64(..));
    assert_ne!(next().span_id, next().span_id);
}

#[test]
fn propagates_random_flag() {
    let sent = through(&[(
        "traceparent",
        "00-12345678901234567890123456789012-1234567890123456-02",
    )]);
    assert_eq!((sent.trace.as_str(), sent.flags.as_str()), (ID, "02"));
}

// From here on ours.

#[test]
fn flags_that_do_not_exist_are_sent_as_zero_and_an_unset_random_flag_stays_unset() {
    assert_eq!(
        through(&[("traceparent", &GOOD.replace("-00", "-fd"))]).flags,
        "01"
    );
}

#[test]
fn upper_case_digits_and_wrong_separators_start_a_new_trace() {
    restarts("00-ABCDEFABCDEFABCDEFABCDEFABCDEFAB-1234567890123456-01");
    restarts("CC-12345678901234567890123456789012-1234567890123456-01");
    restarts("00_12345678901234567890123456789012_1234567890123456_01");
    restarts("");
}

#[test]
fn bytes_beyond_ascii_are_refused_without_harm() {
    let mut headers = map(&[
        ("traceparent", GOOD.as_bytes()),
        ("tracestate", b"foo=\xff\xfe"),
    ]);
    let context = TraceContext::from_headers(&headers, || 3);
    assert_eq!((context.parent.is_some(), &context.state), (true, &None));
    headers.insert(
        TRACEPARENT,
        HeaderValue::from_bytes(&[0xe9; LENGTH]).expect("obs-text"),
    );
    assert_eq!(TraceContext::from_headers(&headers, || 3).parent, None);
}

#[test]
fn a_list_over_512_bytes_loses_long_members_first_and_then_its_end() {
    let long = format!("long={}", "x".repeat(200));
    let short = |number: usize| format!("k{number}={}", "y".repeat(90));
    let sent = state(&[&short(1), &long, &short(2), &short(3), &short(4)]);
    let keys: Vec<_> = sent.members().iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, ["k1", "k2", "k3", "k4"]);
    let many: Vec<_> = (1..=7).map(short).collect();
    let sent = state(&[&many.join(",")]);
    assert!(sent.state.as_ref().is_some_and(|state| state.len() <= 512));
    let keys: Vec<_> = sent.members().iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, ["k1", "k2", "k3", "k4", "k5"]);
}

#[test]
fn a_value_keeps_its_leading_spaces_and_a_line_that_needs_no_change_none_of_its_bytes() {
    assert_eq!(state(&["foo=  1"]).state.as_deref(), Some("foo=  1"));
    assert_eq!(
        state(&["foo=1,,bar=2"]).state.as_deref(),
        Some("foo=1,bar=2")
    );
    assert_eq!(state(&[",,"]).state, None);
}

#[test]
fn a_value_longer_than_256_discards_the_list() {
    assert_eq!(state(&[&format!("a=1,b={}", "v".repeat(257))]).state, None);
    assert_eq!(
        state(&[&format!("a=1,b={}", "v".repeat(256))])
            .members()
            .len(),
        2
    );
}

#[test]
fn identifiers_are_never_zero_whatever_the_generator_gives() {
    let context = TraceContext::from_headers(&HeaderMap::new(), || 0);
    assert_ne!(context.trace_id, [0; 16]);
    assert_ne!(context.span_id, [0; 8]);
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_sent_is_always_valid(
        parent in "[0-9a-f\\-]{50,60}",
        states in proptest::collection::vec("[a-z0-9@=, \t~]{0,300}", 0..6),
    ) {
        let mut headers = vec![("traceparent", parent.as_str())];
        headers.extend(states.iter().map(|state| ("tracestate", state.as_str())));
        through(&headers);
        headers[0].1 = GOOD;
        let sent = through(&headers);
        proptest::prop_assert!(sent.members().len() <= 32);
        proptest::prop_assert!(sent.state.is_none_or(|state| !state.is_empty() && state.len() <= 512));
    }
}
