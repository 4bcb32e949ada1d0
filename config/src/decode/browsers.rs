//! What browsers and clients are told: origins, careful fields, and how our own answers look.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::{duration, text, texts};
use crate::document::*;
use crate::parse::Node;
use crate::problem::Fault;
use crate::report::ItemReport;
use crate::rule;
use crate::unit::short;

/// GW-805.
const METHODS: [Method; 5] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];
const HEADERS: [&str; 5] = [
    "content-type",
    "authorization",
    "x-api-key",
    "idempotency-key",
    "traceparent",
];
const EXPOSED: [&str; 8] = [
    "x-total-count",
    "x-page-count",
    "ratelimit",
    "ratelimit-policy",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "retry-after",
];

/// GW-806: the key in a document, the field, its default.
const SECURITY: [(&str, &str, &str); 4] = [
    (
        "content_security_policy",
        "content-security-policy",
        "default-src 'self'; style-src 'self' 'unsafe-inline'; script-src 'self'; img-src 'self' data: https:",
    ),
    ("content_type_options", "x-content-type-options", "nosniff"),
    ("frame_options", "x-frame-options", "DENY"),
    (
        "referrer_policy",
        "referrer-policy",
        "strict-origin-when-cross-origin",
    ),
];
const HSTS: &str = "max-age=31536000; includeSubDomains; preload";

/// `{ cors = … }`
pub(super) fn cors(node: &Node, report: &mut ItemReport<'_>) -> Cors {
    let origins: Vec<OriginPattern> = match node.get("origins") {
        Some(list) => texts(Some(list))
            .into_iter()
            .filter_map(|text| origin(text).ok())
            .collect(),
        None => vec![OriginPattern::Exact("http://localhost:3000".to_owned())],
    };
    let credentials = node.get("credentials").and_then(Node::flag).unwrap_or(true);
    let everybody = |origin: &OriginPattern| {
        matches!(origin, OriginPattern::Any)
            || matches!(origin, OriginPattern::Exact(text) if text == "null")
    };
    if credentials
        && let Some(list) = node.get("origins")
        && origins.iter().any(everybody)
    {
        report.add(
            "contradiction",
            list.spot,
            "any web page at all could act as whoever is signed in: `credentials` are allowed, and so is every origin",
            "name the origins, or write `credentials = false`",
        );
    }
    let names = |key: &str, usual: &[&'static str]| -> Vec<HeaderName> {
        match node.get(key) {
            Some(list) => texts(Some(list))
                .into_iter()
                .filter_map(|text| rule::header_name(text).ok())
                .collect(),
            None => usual.iter().copied().map(HeaderName::from_static).collect(),
        }
    };
    Cors {
        methods: match node.get("methods") {
            Some(list) => texts(Some(list))
                .into_iter()
                .filter_map(|text| rule::method(text).ok())
                .collect(),
            None => METHODS.to_vec(),
        },
        headers: names("headers", &HEADERS),
        expose: names("expose", &EXPOSED),
        origins,
        credentials,
        max_age: node
            .get("max_age")
            .and_then(duration)
            .unwrap_or(Duration::from_secs(600))
            .as_secs(),
    }
}

/// As a browser writes it: a scheme and a host, in lower case, and a port that is not the scheme's own.
pub(crate) fn origin(written: &str) -> Result<OriginPattern, Fault> {
    let fault = |why: &str, hint: &str| {
        Err(Fault::new(
            format!("`{}` {why}", short(written)),
            hint.to_owned(),
        ))
    };
    match written {
        "*" => return Ok(OriginPattern::Any),
        "null" => return Ok(OriginPattern::Exact(written.to_owned())),
        _ => {}
    }
    let Some((scheme, host)) = written.split_once("://") else {
        return fault(
            "is not an origin",
            "write a scheme and a host, such as \"https://shop.example.com\"",
        );
    };
    if host.contains(['/', '?', '#', '@']) {
        return fault(
            "has more than a scheme and a host",
            "browsers send neither a path nor a slash at the end; leave it out",
        );
    }
    if written.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return fault(
            "has capital letters",
            "browsers send origins in lower case; write it so",
        );
    }
    if matches!(scheme, "http") && host.ends_with(":80")
        || matches!(scheme, "https") && host.ends_with(":443")
    {
        return fault(
            "has the scheme's own port",
            "browsers leave that port out; leave it out, too",
        );
    }
    let (suffix, below) = match host.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (host, false),
    };
    let scheme_fits = !scheme.is_empty()
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !scheme_fits || suffix.contains('*') || rule::split_port(suffix).is_err() {
        return fault(
            "is not an origin",
            "write a scheme and a host, such as \"https://shop.example.com\" or \"https://*.example.com\"",
        );
    }
    Ok(match below {
        true => OriginPattern::Subdomains {
            scheme: format!("{scheme}://"),
            suffix: format!(".{suffix}"),
        },
        false => OriginPattern::Exact(written.to_owned()),
    })
}

/// `{ security_headers = … }`
pub(super) fn security_headers(node: &Node) -> SecurityHeaders {
    let value = |key: &str, usual: &'static str| match text(node, key) {
        Some("off") => None,
        Some(text) => rule::header_value(text).ok(),
        None => Some(HeaderValue::from_static(usual)),
    };
    let fields = SECURITY
        .iter()
        .filter_map(|(key, name, usual)| Some((HeaderName::from_static(name), value(key, usual)?)));
    SecurityHeaders {
        fields: fields.collect(),
        hsts: value("hsts", HSTS),
    }
}

/// `[errors]`
pub(crate) fn errors(node: &Node) -> ErrorBody {
    match text(node, "body") {
        Some("envelope") => ErrorBody::Envelope,
        _ => ErrorBody::Problem,
    }
}
