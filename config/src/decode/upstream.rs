//! Upstreams: where their endpoints come from, how one is chosen, how it is watched.

use std::path::Path;
use std::time::Duration;

use super::{at, bulkhead, count, duration, file, guard, identity, or_off, parsed, setting, text};
use crate::document::*;
use crate::parse::{Node, Value};
use crate::report::ItemReport;
use crate::rule;
use crate::unit::short;

/// `service` of an upstream for whichever one is asked for.
const ANY: &str = "*";

pub(crate) fn upstream(
    node: &Node,
    folder: &Path,
    report: &mut ItemReport<'_>,
) -> Option<Upstream> {
    let tls = node.get("tls").map(|node| tls(node, folder));
    let mesh = identity::upstream(node, tls.as_ref(), report);
    let original = is_original(node, report);
    let protocol = match text(node, "protocol") {
        Some("http2") => UpstreamProtocol::Http2,
        Some("auto") => UpstreamProtocol::Auto,
        _ => UpstreamProtocol::Http1,
    };
    let health = node.get("health").and_then(|node| health(node, report));
    if let Some(Health {
        probe: Probe::Grpc { .. },
        ..
    }) = &health
    {
        let speaks_http2 = match protocol {
            UpstreamProtocol::Http2 => true,
            UpstreamProtocol::Auto => tls.is_some() || mesh.is_some(),
            UpstreamProtocol::Http1 => false,
        };
        if !speaks_http2 {
            let place = node
                .get("health")
                .and_then(|h| h.get("grpc"))
                .unwrap_or(node);
            report.add(
                "needs-http2",
                place.spot,
                "a gRPC probe needs an upstream that speaks HTTP/2",
                "write `protocol = \"http2\"` in the upstream, or probe by `path` or `tcp = true`",
            );
        }
    }
    Some(Upstream {
        name: text(node, "name")?.to_owned(),
        endpoints: source(node, report)?,
        protocol,
        tls,
        mesh,
        balance: balance(node.get("balance")),
        connect_timeout: setting(node, "connect_timeout", duration, Duration::from_secs(1)),
        max_connections: setting(node, "max_connections", or_off(Node::count), None),
        max_in_flight: bulkhead::max_in_flight(node, report),
        queue: bulkhead::queue(node, report),
        idle_connections: setting(
            node,
            "idle_connections",
            |n| n.count().and_then(|n| usize::try_from(n).ok()),
            512,
        ),
        // What one address does says nothing about another.
        outlier: { !original }
            .then(|| outlier(node.get("outlier")))
            .flatten(),
        breaker: { !original }
            .then(|| guard::breaker(node.get("breaker"), report))
            .flatten(),
        retry_budget: guard::retry_budget(node.get("retry_budget")),
        health,
    })
}

pub(super) fn tls(node: &Node, folder: &Path) -> UpstreamTls {
    UpstreamTls {
        ca: file(node, "ca", folder),
        name: text(node, "name").map(str::to_owned),
        cert: file(node, "cert", folder),
        key: file(node, "key", folder),
        at: at(node),
    }
}

/// Whether the endpoints are wherever clients were going. Then there is nothing to choose from, and nothing that all
/// endpoints have in common.
fn is_original(node: &Node, report: &mut ItemReport<'_>) -> bool {
    if text(node, "endpoints") != Some("original") {
        return false;
    }
    for key in ["balance", "health", "outlier", "breaker"] {
        if let Some(other) = node.get(key).filter(|node| node.text() != Some("off")) {
            report.add(
                "contradiction",
                other.spot,
                format!(
                    "`{key}` is about endpoints that answer alike, and with `endpoints = \"original\"` each is another service"
                ),
                format!("take `{key}` out"),
            );
        }
    }
    true
}

fn source(node: &Node, report: &mut ItemReport<'_>) -> Option<EndpointSource> {
    if let Some(list) = node.get("endpoints") {
        if list.text() == Some("original") {
            return Some(EndpointSource::Original { at: at(list) });
        }
        if matches!(&list.value, Value::List(nodes) if nodes.is_empty()) {
            report.add(
                "no-endpoints",
                list.spot,
                "the upstream has no endpoints",
                "write at least one, as in `endpoints = [\"10.0.0.7:7000\"]`",
            );
        }
        let endpoints: Vec<Endpoint> = list.list().iter().filter_map(endpoint).collect();
        if !endpoints.is_empty()
            && endpoints.len() == list.list().len()
            && endpoints.iter().all(|e| e.weight == 0)
        {
            report.add(
                "no-weight",
                list.spot,
                "every endpoint has weight 0, so none can be chosen",
                "give at least one endpoint a weight above 0",
            );
        }
        return Some(EndpointSource::Static(endpoints));
    }
    if let Some(service) = node.get("service") {
        let with = node.get("with").map_or(&[][..], Node::entries).iter();
        let with = with.filter_map(|e| Some((e.key.clone(), e.node.text()?.to_owned())));
        let (name, with, at) = (service.text()?, with.collect(), at(service));
        if name == ANY {
            let learn = learn(node.get("learn"));
            return Some(EndpointSource::Asked { with, learn, at });
        }
        if let Some(learn) = node.get("learn") {
            report.add(
                "contradiction",
                learn.spot,
                format!(
                    "`learn` is of no use: the service is always `{}`",
                    short(name)
                ),
                "leave it out, or write `service = \"*\"`",
            );
        }
        let name = name.to_owned();
        return Some(EndpointSource::Service { name, with, at });
    }
    let dns = node.get("dns")?;
    let srv = node.get("srv").and_then(Node::flag).unwrap_or(false);
    let (name, port) = rule::split_port(dns.text()?).ok()?;
    if port.is_none() && !srv {
        report.add(
            "bad-address",
            dns.spot,
            "`dns` has no port",
            format!(
                "write `dns = \"{name}:80\"` with the port, or `srv = true` to ask for SRV records"
            ),
        );
    }
    Some(EndpointSource::Dns {
        name: name.to_owned(),
        port,
        srv,
        at: at(dns),
    })
}

fn learn(node: Option<&Node>) -> Learn {
    let none = Node {
        value: Value::Table(Vec::new()),
        spot: (0, 1),
    };
    let node = node.unwrap_or(&none);
    let number = |node: &Node| node.count().and_then(|n| usize::try_from(n).ok());
    let week = Duration::from_secs(7 * 24 * 3600);
    Learn {
        max_services: setting(node, "max_services", number, 200),
        timeout: setting(node, "timeout", duration, Duration::from_secs(2)),
        forget: setting(node, "forget", duration, week),
    }
}

fn endpoint(node: &Node) -> Option<Endpoint> {
    let address = node.text().or_else(|| text(node, "address"))?;
    rule::endpoint(address).ok()?;
    let weight = count(node, "weight").and_then(|n| u32::try_from(n).ok());
    Some(Endpoint {
        address: address.to_owned(),
        weight: weight.unwrap_or(1),
        zone: text(node, "zone").map(str::to_owned),
        at: at(node),
    })
}

fn balance(node: Option<&Node>) -> Balance {
    let Some(node) = node else {
        return Balance::PeakEwma;
    };
    let hash = |node: &Node| {
        if let Some(header) = parsed(node, "header", rule::header_name) {
            return Some(HashKey::Header(header));
        }
        if let Some(cookie) = text(node, "cookie") {
            return Some(HashKey::Cookie(cookie.to_owned()));
        }
        if node.get("client").is_some() {
            return Some(HashKey::Client);
        }
        node.get("path").map(|_| HashKey::Path)
    };
    match node.text() {
        Some("least_requests") => Balance::LeastRequests,
        Some("round_robin") => Balance::RoundRobin,
        Some("random") => Balance::Random,
        _ => node
            .get("hash")
            .and_then(hash)
            .map_or(Balance::PeakEwma, Balance::Hash),
    }
}

fn outlier(node: Option<&Node>) -> Option<Outlier> {
    let none = Node {
        value: Value::Table(Vec::new()),
        spot: (0, 1),
    };
    let node = node.unwrap_or(&none);
    if node.text() == Some("off") {
        return None;
    }
    let number = |node: &Node| node.count().and_then(|n| u32::try_from(n).ok());
    Some(Outlier {
        failures: setting(node, "failures", number, 5),
        deviation: setting(node, "deviation", or_off(Node::number), Some(0.3)),
        volume: node.get("volume").and_then(number).unwrap_or(50),
    })
}

fn health(node: &Node, report: &mut ItemReport<'_>) -> Option<Health> {
    let probe = if let Some(path) = text(node, "path") {
        Probe::Http {
            path: path.to_owned(),
        }
    } else if let Some(service) = text(node, "grpc") {
        Probe::Grpc {
            service: service.to_owned(),
        }
    } else {
        node.get("tcp")?;
        Probe::Tcp
    };
    let interval = node
        .get("interval")
        .and_then(duration)
        .unwrap_or(Duration::from_secs(10));
    let timeout = match node
        .get("timeout")
        .and_then(|n| duration(n).map(|d| (n, d)))
    {
        Some((place, timeout)) => {
            if timeout > interval {
                report.add(
                    "health-timeout",
                    place.spot,
                    format!(
                        "a probe may take {timeout:?}, longer than the interval of {interval:?}"
                    ),
                    "make `timeout` at most as long as `interval`",
                );
            }
            timeout
        }
        None => interval.min(Duration::from_secs(5)),
    };
    let times = |key: &str, default: u32| {
        count(node, key)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(default)
    };
    Some(Health {
        probe,
        interval,
        timeout,
        unhealthy_after: times("unhealthy_after", 3),
        healthy_after: times("healthy_after", 1),
    })
}
