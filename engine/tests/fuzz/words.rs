//! Single values that a peer writes and we understand: deadlines, trace context, request ids, each against a pattern
//! (OBS-101 to OBS-111, HI-58).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use regex::bytes::Regex;
use tollgate_engine::exchange::headers::deadline;
use tollgate_engine::exchange::request_id::RequestId;
use tollgate_engine::exchange::trace::TraceContext;

use crate::{config, generate};

fn headers(lines: &[(&'static str, &[u8])]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_bytes(value).ok()?,
        );
    }
    Some(headers)
}

fn matches(pattern: &str, value: &[u8]) -> bool {
    Regex::new(pattern)
        .expect("a valid pattern")
        .is_match(value)
}

fn traceparent() -> impl Strategy<Value = Vec<u8>> {
    "(00|00|01|cc|ff)-([0-9a-f]{32}|0{32})-([0-9a-f]{16}|0{16})-[0-9a-f]{2}(-[a-z]{0,3})?"
        .prop_map(String::into_bytes)
}

fn tracestate() -> impl Strategy<Value = Vec<u8>> {
    "([a-z0-9][a-z0-9_*/@-]{0,6}=[!-+.-<>-~]{1,90}[ \t]{0,1},[ ]?){0,9}[a-z]=[0-9]"
        .prop_map(String::into_bytes)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_grpc_timeout_is_digits_and_a_unit_or_nothing(value in generate::changed("[0-9]{1,9}[HMSmunx]".prop_map(String::into_bytes))) {
        if let Some(headers) = headers(&[("grpc-timeout", &value)]) {
            prop_assert_eq!(deadline(&headers).is_some(), matches(r"^(?-u)[0-9]{1,8}[HMSmun]$", &value));
            prop_assert!(deadline(&headers).is_none_or(|time| time <= Duration::from_secs(99_999_999 * 3600)));
        }
        if let Some(headers) = headers(&[("x-request-deadline-ms", &value)]) {
            prop_assert_eq!(deadline(&headers).is_some(), matches(r"^(?-u)[0-9]{1,8}$", &value));
        }
    }

    #[test]
    fn a_trace_goes_on_exactly_when_its_parent_is_valid(
        parent in generate::changed(traceparent()),
        state in generate::changed(tracestate()),
        number in 1u64..,
    ) {
        let Some(headers) = headers(&[("traceparent", &parent), ("tracestate", &state)]) else {
            return Ok(());
        };
        let trace = TraceContext::from_headers(&headers, || number);
        let trimmed = parent.trim_ascii();
        let valid = (matches(r"^(?-u)00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$", trimmed)
            || matches(r"^(?s-u)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$", trimmed)
                && !trimmed.starts_with(b"00") && !trimmed.starts_with(b"ff"))
            && !matches("^.{3}0{32}", trimmed)
            && !matches("^.{36}0{16}", trimmed);
        prop_assert_eq!(trace.parent.is_some(), valid);
        let text = trace.traceparent();
        let written = matches(r"^(?-u)00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]$", &text);
        prop_assert!(written);
        if valid {
            prop_assert_eq!(&text[3..35], &trimmed[3..35]);
        }
        if let Some(state) = trace.state {
            prop_assert!(valid && state.len() <= 512);
            let members = state.as_bytes().split(|byte| *byte == b',').collect::<Vec<_>>();
            prop_assert!(members.len() <= 32);
            for member in members {
                prop_assert!(matches(r"^(?-u)[a-z0-9][a-z0-9_*/@-]*=[ -+\--<>-~]+$", member), "{:?}", member);
            }
        }
    }

    #[test]
    fn a_request_id_is_taken_over_when_it_is_harmless(value in generate::changed("[0-9a-zA-Z._~:/+=@#!$*,;|-]{0,130}".prop_map(String::into_bytes))) {
        if let Some(headers) = headers(&[("x-request-id", &value)]) {
            let id = RequestId::from_headers(&headers, || 7);
            let harmless = matches(r"^(?-u)[0-9a-zA-Z._~:/+=@#!$*,;|-]{1,128}$", &value);
            prop_assert_eq!(id.as_str().as_bytes() == &value[..], harmless);
            prop_assert!(harmless || id.as_str().len() == 32);
        }
    }
}
