//! The ladder of time-outs (GW-604): times that can never run out because another runs out before them. Allowed, but
//! hardly meant.

use std::collections::HashMap;
use std::time::Duration;

use crate::document::*;
use crate::problem::Problem;

/// Every broken rung, in the order of routes.
pub(crate) fn warn(document: &Document, warnings: &mut Vec<Problem>) {
    let upstreams: HashMap<&str, &Item<Upstream>> = document
        .upstreams
        .iter()
        .map(|upstream| (upstream.name.as_str(), upstream))
        .collect();
    for route in &document.routes {
        let Some(timeout) = route.timeout.value else {
            continue;
        };
        if let Some(retry) = &route.retry.value {
            tries(route, retry, timeout, warnings);
        }
        let written = route.timeout.at;
        for upstream in asked(route)
            .iter()
            .filter_map(|name| upstreams.get(name.as_str()))
        {
            let connect = upstream.connect_timeout;
            waits(route, upstream, timeout, warnings);
            // Two defaults are in order; of the rest, one of the two has a line.
            if connect.value >= timeout {
                let place = upstream.place(connect.at).or_else(|| route.place(written));
                warnings.push(ladder(
                    place,
                    format!(
                        "upstream `{}` may take {:?} to connect{}, but route `{}` waits {timeout:?}{} for the answer",
                        upstream.name,
                        connect.value,
                        at(upstream, connect.at),
                        route.name,
                        at(route, written),
                    ),
                    "make `connect_timeout` shorter than the route's `timeout`",
                ));
            }
        }
    }
}

fn waits(
    route: &Item<Route>,
    upstream: &Item<Upstream>,
    timeout: Duration,
    warnings: &mut Vec<Problem>,
) {
    let Some(queue) = &upstream.queue else { return };
    let wait = queue.timeout;
    if upstream.max_in_flight.value.is_some() && wait.value >= timeout {
        let written = route.timeout.at;
        warnings.push(ladder(
            upstream.place(wait.at).or_else(|| route.place(written)),
            format!(
                "a request may wait {:?} for its turn at upstream `{}`{}, but route `{}` waits {timeout:?}{} in all",
                wait.value,
                upstream.name,
                at(upstream, wait.at),
                route.name,
                at(route, written),
            ),
            "make `queue.timeout` shorter than the route's `timeout`",
        ));
    }
}

fn tries(route: &Item<Route>, retry: &Retry, timeout: Duration, warnings: &mut Vec<Problem>) {
    if let Some(once) = retry.per_try_timeout.value
        && once >= timeout
    {
        warnings.push(ladder(
            route.place(retry.per_try_timeout.at),
            format!(
                "one try may take {once:?}, but route `{}` waits {timeout:?}{} for all of them together",
                route.name,
                at(route, route.timeout.at),
            ),
            "make `per_try_timeout` shorter than the route's `timeout`, so that another try fits in",
        ));
    }
    if retry.backoff_base >= timeout {
        warnings.push(ladder(
            route.place(route.retry.at),
            format!(
                "the first wait before another try is up to {:?}, but route `{}` waits {timeout:?}{} in all",
                retry.backoff_base,
                route.name,
                at(route, route.timeout.at),
            ),
            "make `backoff.base` shorter than the route's `timeout`",
        ));
    }
}

/// Names of the upstreams that a route may send to.
fn asked(route: &Route) -> Vec<&String> {
    match &route.action {
        Action::Upstream(name) => vec![&name.value],
        Action::Split { branches, .. } => branches.iter().map(|one| &one.upstream.value).collect(),
        Action::Respond { .. } | Action::Redirect { .. } => Vec::new(),
    }
}

/// Where a setting was written, to be put behind it.
fn at<T>(item: &Item<T>, at: At) -> String {
    match item.place(at) {
        Some(place) => format!(" ({}:{})", place.file, place.line),
        None => " (the default)".to_owned(),
    }
}

fn ladder(place: Option<Place>, message: String, hint: &str) -> Problem {
    Problem {
        code: "time-out-ladder",
        place,
        message,
        text: None,
        hint: Some(hint.to_owned()),
    }
}
