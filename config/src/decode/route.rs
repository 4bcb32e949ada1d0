//! Routes: what they match, what becomes of the request, what is tried again.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;

use super::{
    at, browsers, callers, count, duration, fallback, faults, headers, limits, or_off, parsed,
    retry, setting, setting_text, size, text, texts, transcode, validate,
};
use crate::document::*;
use crate::parse::Node;
use crate::path::{PathPattern, Segment};
use crate::report::ItemReport;
use crate::rule;

pub(crate) fn route(node: &Node, folder: &Path, report: &mut ItemReport<'_>) -> Option<Route> {
    let matches = node.get("match").map(matches).unwrap_or_default();
    let action = action(node, &matches, report)?;
    let rewrite = node
        .get("rewrite")
        .map(|node| rewrite(node, &matches, report));
    Some(Route {
        name: text(node, "name").map_or_else(|| default_name(&matches), str::to_owned),
        action,
        timeout: setting(
            node,
            "timeout",
            or_off(duration),
            Some(Duration::from_secs(5)),
        ),
        adaptive_timeout: adaptive_timeout(node, report),
        idle_timeout: setting(
            node,
            "idle_timeout",
            or_off(duration),
            Some(Duration::from_secs(60)),
        ),
        max_body: setting(node, "max_body", or_off(size), None),
        rewrite,
        priority: setting(node, "priority", priority, Priority::Default),
        filters: node
            .get("filters")
            .map_or(&[][..], Node::list)
            .iter()
            .filter_map(|node| {
                filter(node, folder, &matches, report).map(|value| Setting {
                    value,
                    at: at(node),
                })
            })
            .collect(),
        retry: retry::retry(node.get("retry"), report),
        fallback: fallback::fallback(node, report),
        matches,
    })
}

fn adaptive_timeout(route: &Node, report: &mut ItemReport<'_>) -> Setting<Option<Duration>> {
    const LEAST: Duration = Duration::from_millis(100);
    let Some(node) = route.get("adaptive_timeout") else {
        return Setting::default_of(None);
    };
    if node.text() == Some("off") {
        return Setting {
            value: None,
            at: at(node),
        };
    }
    let least = node.get("least").and_then(duration).unwrap_or(LEAST);
    let written = route.get("timeout");
    let ceiling = written.map_or(Some(Some(Duration::from_secs(5))), or_off(duration));
    let place = report.written_at(written.map(at).unwrap_or_default());
    match ceiling.flatten() {
        None => report.add(
            "contradiction",
            node.spot,
            format!("there is no ceiling: `timeout` is \"off\"{place}"),
            "give `timeout` a value: no try takes longer, whatever answers usually take",
        ),
        Some(most) if least >= most => report.add(
            "contradiction",
            node.spot,
            format!("a try may take {least:?} at least and {most:?} at most, which is the `timeout`{place}"),
            "make `least` shorter than `timeout`",
        ),
        Some(_) => {}
    }
    Setting {
        value: Some(least),
        at: at(node),
    }
}

fn priority(node: &Node) -> Option<Priority> {
    match node.text() {
        Some("critical") => Some(Priority::Critical),
        Some("sheddable") => Some(Priority::Sheddable),
        _ => Some(Priority::Default),
    }
}

/// Methods and path, such as `GET /orders/{id}`.
fn default_name(matches: &Match) -> String {
    let path = match &matches.path {
        None => "/*".to_owned(),
        Some(PathMatch::Pattern(pattern)) => pattern.to_string(),
        Some(PathMatch::Regex(regex)) => {
            let text = regex.as_str();
            let inner = text
                .strip_prefix(r"\A(?:")
                .and_then(|t| t.strip_suffix(r")\z"));
            format!("~{}", inner.unwrap_or(text))
        }
    };
    let methods: Vec<&str> = matches.methods.iter().map(|m| m.as_str()).collect();
    if methods.is_empty() {
        path
    } else {
        format!("{} {path}", methods.join(","))
    }
}

fn matches(node: &Node) -> Match {
    let path = parsed(node, "path", rule::path_pattern).map(PathMatch::Pattern);
    let regex = || parsed(node, "path_regex", rule::anchored).map(PathMatch::Regex);
    Match {
        listeners: texts(node.get("listener"))
            .into_iter()
            .map(str::to_owned)
            .collect(),
        host: parsed(node, "host", rule::host),
        path: path.or_else(regex),
        methods: texts(node.get("methods"))
            .into_iter()
            .filter_map(|method| rule::method(method).ok())
            .collect(),
        headers: predicates(node.get("headers"))
            .into_iter()
            .filter_map(|(name, value)| Some((rule::header_name(name).ok()?, value)))
            .collect(),
        query: predicates(node.get("query"))
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
        at: at(node),
    }
}

pub(super) fn predicates(node: Option<&Node>) -> Vec<(&str, ValueMatch)> {
    let entries = node.map_or(&[][..], Node::entries).iter();
    entries
        .map(|entry| {
            let value = match entry.node.text() {
                Some(text) => ValueMatch::Exact(text.to_owned()),
                None => match parsed(&entry.node, "regex", rule::anchored) {
                    Some(regex) => ValueMatch::Regex(regex),
                    None => ValueMatch::Present,
                },
            };
            (entry.key.as_str(), value)
        })
        .collect()
}

/// The same text for two matches that accept the same requests, as far as that can be told by looking.
pub(crate) fn match_key(matches: &Match) -> String {
    let mut key = String::with_capacity(64);
    let mut listeners: Vec<&str> = matches.listeners.iter().map(String::as_str).collect();
    listeners.sort_unstable();
    listeners.dedup();
    let mut methods: Vec<&str> = matches.methods.iter().map(|m| m.as_str()).collect();
    methods.sort_unstable();
    methods.dedup();
    let value = |value: &ValueMatch| match value {
        ValueMatch::Exact(text) => format!("={text:?}"),
        ValueMatch::Present => "?".to_owned(),
        ValueMatch::Regex(regex) => format!("~{:?}", regex.as_str()),
    };
    let mut headers: Vec<String> = matches
        .headers
        .iter()
        .map(|(n, v)| format!("{n}{}", value(v)))
        .collect();
    headers.sort_unstable();
    let mut query: Vec<String> = matches
        .query
        .iter()
        .map(|(n, v)| format!("{n:?}{}", value(v)))
        .collect();
    query.sort_unstable();
    // No path and `/*` accept the same; so do captures of another name.
    match &matches.path {
        None => key.push_str("/*"),
        Some(PathMatch::Regex(regex)) => {
            key.push('~');
            key.push_str(regex.as_str());
        }
        Some(PathMatch::Pattern(pattern)) => {
            for segment in &pattern.segments {
                key.push('/');
                key.push_str(match segment {
                    Segment::Literal(text) => text,
                    Segment::Capture(_) => "{}",
                });
            }
            key.push_str(
                match (
                    pattern.rest,
                    pattern.trailing_slash || pattern.segments.is_empty(),
                ) {
                    (true, _) => "/*",
                    (false, true) => "/",
                    (false, false) => "",
                },
            );
        }
    }
    write!(
        key,
        "\n{:?}\n{listeners:?}{methods:?}{headers:?}{query:?}",
        matches.host
    )
    .expect("writing to a string cannot fail");
    key
}

fn action(node: &Node, matches: &Match, report: &mut ItemReport<'_>) -> Option<Action> {
    if let Some(upstream) = setting_text(node, "upstream") {
        return Some(Action::Upstream(upstream));
    }
    if let Some(split_node) = node.get("split") {
        return split(split_node, node.get("sticky"), report);
    }
    if let Some(respond) = node.get("respond") {
        let status = count(respond, "status").and_then(|n| u16::try_from(n).ok());
        return Some(Action::Respond {
            status: status
                .and_then(|n| StatusCode::from_u16(n).ok())
                .unwrap_or(StatusCode::OK),
            body: text(respond, "body").unwrap_or_default().to_owned(),
            headers: headers(respond.get("headers")),
        });
    }
    let redirect = node.get("redirect")?;
    let target = redirect.get("to")?;
    let to = target.text()?.to_owned();
    let known = captures(matches);
    for name in references(&to) {
        if name != "path" && name != "query" && !known.contains(&name) {
            unknown_capture(name, &known, target, report);
        }
    }
    let status = count(redirect, "status").and_then(|n| u16::try_from(n).ok());
    Some(Action::Redirect {
        to,
        status: status
            .and_then(|n| StatusCode::from_u16(n).ok())
            .unwrap_or(StatusCode::PERMANENT_REDIRECT),
    })
}

fn split(node: &Node, sticky_node: Option<&Node>, report: &mut ItemReport<'_>) -> Option<Action> {
    let branches: Vec<Branch> = node
        .list()
        .iter()
        .filter_map(|branch| {
            let weight = count(branch, "weight").unwrap_or(1);
            Some(Branch {
                upstream: setting_text(branch, "upstream")?,
                weight: u32::try_from(weight).unwrap_or(1),
            })
        })
        .collect();
    if node.list().is_empty() {
        report.add(
            "no-weight",
            node.spot,
            "`split` has no branch",
            "write `split = [{ upstream = \"a\", weight = 1 }, …]`, or `upstream = \"a\"`",
        );
        return None;
    }
    if branches.len() == node.list().len() && branches.iter().all(|b| b.weight == 0) {
        report.add(
            "no-weight",
            node.spot,
            "every weight of `split` is 0, so no branch can be chosen",
            "give at least one branch a weight above 0",
        );
    }
    let sticky = sticky_node.and_then(|node| {
        if let Some(header) = parsed(node, "header", rule::header_name) {
            return Some(Sticky::Header(header));
        }
        if let Some(cookie) = text(node, "cookie") {
            return Some(Sticky::Cookie(cookie.to_owned()));
        }
        node.get("client").map(|_| Sticky::Client)
    });
    Some(Action::Split {
        branches,
        sticky,
        at: at(node),
    })
}

/// Names of the captures in the match's path. A regular expression has none.
fn captures(matches: &Match) -> Vec<&str> {
    match &matches.path {
        Some(PathMatch::Pattern(pattern)) => captured(pattern).collect(),
        _ => Vec::new(),
    }
}

fn captured(pattern: &PathPattern) -> impl Iterator<Item = &str> {
    pattern.segments.iter().filter_map(|segment| match segment {
        Segment::Capture(name) => Some(name.as_str()),
        Segment::Literal(_) => None,
    })
}

/// The names between braces.
fn references(text: &str) -> impl Iterator<Item = &str> {
    text.split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

fn unknown_capture(name: &str, known: &[&str], node: &Node, report: &mut ItemReport<'_>) {
    let near = crate::nearest::nearest(name, known.iter().copied());
    report.add(
        "unknown-capture",
        node.spot,
        format!(
            "the match's path captures no `{{{}}}`",
            crate::unit::short(name)
        ),
        crate::validate::did_you_mean(near, "captures", known),
    );
}

fn rewrite(node: &Node, matches: &Match, report: &mut ItemReport<'_>) -> Rewrite {
    let template = parsed(node, "path", rule::path_pattern);
    let prefix = text(node, "strip_prefix").filter(|prefix| rule::path_prefix(prefix).is_ok());
    let path = match (template, prefix) {
        (Some(template), _) => {
            if let Some(place) = node.get("path") {
                check_template(&template, matches, place, report);
            }
            RewritePath::Template(template)
        }
        (None, Some(prefix)) => {
            if let Some(place) = node.get("strip_prefix") {
                check_prefix(prefix, matches, place, report);
            }
            RewritePath::StripPrefix(prefix.to_owned())
        }
        (None, None) => RewritePath::Keep,
    };
    Rewrite {
        path,
        host: parsed(node, "host", rule::authority),
        at: at(node),
    }
}

fn check_template(
    template: &PathPattern,
    matches: &Match,
    place: &Node,
    report: &mut ItemReport<'_>,
) {
    let known = captures(matches);
    for name in captured(template) {
        if !known.contains(&name) {
            unknown_capture(name, &known, place, report);
        }
    }
    let holds_rest = matches!(&matches.path, Some(PathMatch::Pattern(pattern)) if pattern.rest);
    if template.rest && !holds_rest {
        report.add(
            "unknown-capture",
            place.spot,
            "the match's path has no trailing `/*` that the rewrite could put in",
            "end the match's path with `/*`, or take `/*` out of the rewrite",
        );
    }
}

fn check_prefix(prefix: &str, matches: &Match, place: &Node, report: &mut ItemReport<'_>) {
    let Some(PathMatch::Pattern(pattern)) = &matches.path else {
        return;
    };
    let mut segments = pattern.segments.iter();
    let fits = prefix
        .split('/')
        .skip(1)
        .all(|part| matches!(segments.next(), Some(Segment::Literal(text)) if text == part));
    // `/*` alone may hold the prefix or not; whoever writes that knows why.
    let everything = pattern.rest && pattern.segments.is_empty();
    if !(fits || everything) {
        report.add(
            "prefix-mismatch",
            place.spot,
            format!("no path that matches `{pattern}` begins with `{prefix}`"),
            "write a prefix of the match's path, made of whole literal segments",
        );
    }
}

fn filter(
    node: &Node,
    folder: &Path,
    matches: &Match,
    report: &mut ItemReport<'_>,
) -> Option<Filter> {
    if let Some(limit) = node.get("rate_limit") {
        return limits::rate_limit(limit, report).map(Filter::RateLimit);
    }
    if let Some(key) = node.get("api_key") {
        return limits::api_key_use(key).map(Filter::ApiKey);
    }
    if let Some(node) = node.get("transcode") {
        let transcode = transcode::transcode(node, folder, report)?;
        return Some(Filter::Transcode(Box::new(transcode)));
    }
    if node.get("grpc_web").is_some() {
        return Some(Filter::GrpcWeb);
    }
    if let Some(node) = node.get("validate") {
        return validate::validate(node).map(Filter::Validate);
    }
    if let Some(fault) = node.get("fault") {
        return faults::fault(fault, report).map(Filter::Fault);
    }
    if let Some(jwt) = node.get("jwt") {
        return callers::jwt_use(jwt).map(Filter::Jwt);
    }
    if let Some(allow) = node.get("allow") {
        return callers::allow(allow, matches, report).map(Filter::Allow);
    }
    if let Some(mode) = text(node, "access") {
        return AccessMode::of(mode).map(Filter::Access);
    }
    if let Some(cors) = node.get("cors") {
        return Some(Filter::Cors(browsers::cors(cors, report)));
    }
    if let Some(fields) = node.get("security_headers") {
        return Some(Filter::SecurityHeaders(browsers::security_headers(fields)));
    }
    let set = node.get("set_headers")?;
    Some(Filter::SetHeaders(SetHeaders {
        request: headers(set.get("request")),
        response: headers(set.get("response")),
        remove: texts(set.get("remove"))
            .into_iter()
            .filter_map(|name| rule::header_name(name).ok())
            .collect(),
    }))
}
