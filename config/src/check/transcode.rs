//! Of filters that speak gRPC: there is one of each, and the upstream speaks HTTP/2, without which there is no gRPC.

use std::path::Path;

use super::{Checks, Names};
use crate::document::*;

pub(super) fn check(route: &Item<Route>, upstreams: &Names<'_>, checks: &mut Checks<'_>) {
    let speaks =
        |filter: &&Setting<Filter>| matches!(filter.value, Filter::Transcode(_) | Filter::GrpcWeb);
    let mut speaking = route.filters.iter().filter(speaks);
    let Some(first) = speaking.next() else { return };
    let word = |filter: &Setting<Filter>| match filter.value {
        Filter::GrpcWeb => "grpc_web",
        _ => "transcode",
    };
    let mut seen = vec![word(first)];
    for filter in speaking {
        if seen.contains(&word(filter)) {
            checks.report.add(
                "contradiction",
                route.place(filter.at),
                format!("the route has `{}` twice", word(filter)),
                "leave one of the two out, or make two routes",
            );
        }
        seen.push(word(filter));
    }
    let names: Vec<&Setting<String>> = match &route.action {
        Action::Upstream(setting) => vec![setting],
        Action::Split { branches, .. } => branches.iter().map(|branch| &branch.upstream).collect(),
        Action::Respond { .. } | Action::Redirect { .. } => Vec::new(),
    };
    if names.is_empty() {
        checks.report.add(
            "contradiction",
            route.place(first.at),
            format!(
                "`{}` calls a service, but the route has no upstream",
                word(first)
            ),
            "give the route an `upstream`, or leave the filter out",
        );
    }
    for name in names {
        let Some(upstream) = upstreams
            .get(name.as_str())
            .and_then(|place| checks.upstreams.get(*place))
        else {
            continue;
        };
        let speaks_http2 = match upstream.protocol {
            UpstreamProtocol::Http1 => false,
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::Auto => upstream.tls.is_some() || upstream.mesh.is_some(),
        };
        if !speaks_http2 {
            checks.report.add(
                "contradiction",
                route.place(first.at),
                format!(
                    "gRPC needs HTTP/2, which the upstream `{}` does not speak",
                    name.as_str()
                ),
                "write `protocol = \"http2\"` in the upstream",
            );
        }
    }
}

/// What the filters read, and where that was written.
pub(super) fn files(routes: &[Item<Route>]) -> impl Iterator<Item = (&Path, bool, Option<Place>)> {
    routes.iter().flat_map(|route| {
        route
            .filters
            .iter()
            .filter_map(|filter| match &filter.value {
                Filter::Transcode(transcode) => {
                    let descriptors = transcode.file()?;
                    Some((
                        descriptors.value.as_path(),
                        false,
                        route.place(descriptors.at),
                    ))
                }
                _ => None,
            })
    })
}
