//! Nodes to values. The grammar was compared before (`validate`), and whatever it found is noted; so decoding takes
//! what it can use, puts a default where something was refused, and reports only what the grammar cannot say: keys
//! that are fine alone but not together. Returns nothing for an item without its essential parts.

mod access;
mod browsers;
mod bulkhead;
mod callers;
mod control_plane;
mod fallback;
mod faults;
mod guard;
mod identity;
mod limits;
mod listener;
mod retry;
mod route;
mod store;
mod telemetry;
mod transcode;
mod upstream;
mod validate;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::document::{AccessTest, At, Expect, Server, Setting, Test};
use crate::parse::Node;
use crate::problem::Fault;
use crate::{rule, unit};

pub(crate) use access::{access, grpc_method, member, members};
pub(crate) use browsers::{errors, origin};
pub(crate) use callers::{jwks_url, jwt};
pub(crate) use control_plane::control_plane;
pub(crate) use identity::identity;
pub(crate) use limits::{api_key, limit, sharing, tiers};
pub(crate) use listener::listener;
pub(crate) use route::{match_key, route};
pub(crate) use telemetry::{collector, default_telemetry, telemetry};
pub(crate) use upstream::upstream;

pub(crate) fn default_server() -> Server {
    Server {
        workers: None,
        admin: Some(std::net::SocketAddr::from(([127, 0, 0, 1], 9901))),
        drain: Duration::from_secs(30),
        drain_lag: Duration::ZERO,
        state_dir: None,
    }
}

pub(crate) fn server(node: &Node, folder: &Path) -> Server {
    let default = default_server();
    Server {
        workers: count(node, "workers").and_then(|n| usize::try_from(n).ok()),
        admin: match text(node, "admin") {
            Some("off") => None,
            Some(address) => rule::bind(address).ok(),
            None => default.admin,
        },
        drain: parsed(node, "drain", unit::duration).unwrap_or(default.drain),
        drain_lag: parsed(node, "drain_lag", unit::duration).unwrap_or(default.drain_lag),
        state_dir: file(node, "state_dir", folder),
    }
}

pub(crate) fn test(node: &Node) -> Option<Test> {
    let request = node.get("request")?;
    let expect = node.get("expect")?;
    let status = |n: &Node| n.count().and_then(|n| u16::try_from(n).ok());
    Some(Test {
        method: parsed(request, "method", rule::method).unwrap_or(Method::GET),
        host: text(request, "host").map(str::to_owned),
        path: text(request, "path")?.to_owned(),
        headers: headers(request.get("headers")),
        listener: text(request, "listener").map(str::to_owned),
        access: expect.get("access").map(|wanted| AccessTest {
            caller: parsed(request, "caller", member),
            service: parsed(request, "service", member),
            allowed: Setting {
                value: wanted.text() == Some("allowed"),
                at: at(wanted),
            },
        }),
        expect: Expect {
            route: setting_text(expect, "route"),
            upstream: setting_text(expect, "upstream"),
            status: expect
                .get("status")
                .and_then(|n| status(n).map(|value| Setting { value, at: at(n) })),
            path: setting_text(expect, "path"),
        },
        at: at(node),
    })
}

fn at(node: &Node) -> At {
    At(Some(node.spot))
}

fn text<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    node.get(key).and_then(Node::text)
}

fn setting_text(node: &Node, key: &str) -> Option<Setting<String>> {
    let node = node.get(key)?;
    Some(Setting {
        value: node.text()?.to_owned(),
        at: at(node),
    })
}

fn count(node: &Node, key: &str) -> Option<u64> {
    node.get(key).and_then(Node::count)
}

fn file(node: &Node, key: &str, folder: &Path) -> Option<PathBuf> {
    text(node, key).map(|path| folder.join(path))
}

fn parsed<T>(node: &Node, key: &str, parse: impl Fn(&str) -> Result<T, Fault>) -> Option<T> {
    parse(text(node, key)?).ok()
}

/// The texts of a list, or the one text that stands for it.
fn texts(node: Option<&Node>) -> Vec<&str> {
    match node {
        Some(node) => match node.text() {
            Some(text) => vec![text],
            None => node.list().iter().filter_map(Node::text).collect(),
        },
        None => Vec::new(),
    }
}

/// The key's value, or its default without a place.
fn setting<T>(node: &Node, key: &str, read: impl Fn(&Node) -> Option<T>, default: T) -> Setting<T> {
    match node.get(key) {
        Some(node) => match read(node) {
            Some(value) => Setting {
                value,
                at: at(node),
            },
            None => Setting::default_of(default),
        },
        None => Setting::default_of(default),
    }
}

fn duration(node: &Node) -> Option<Duration> {
    unit::duration(node.text()?).ok()
}

fn size(node: &Node) -> Option<u64> {
    unit::size(node.text()?).ok()
}

/// A reader that also understands "off", as `None`.
fn or_off<T>(read: impl Fn(&Node) -> Option<T>) -> impl Fn(&Node) -> Option<Option<T>> {
    move |node| match node.text() {
        Some("off") => Some(None),
        _ => read(node).map(Some),
    }
}

fn headers(node: Option<&Node>) -> Vec<(HeaderName, HeaderValue)> {
    let entries = node.map_or(&[][..], Node::entries).iter();
    entries
        .filter_map(|entry| {
            let name = rule::header_name(&entry.key).ok()?;
            let value = rule::header_value(entry.node.text()?).ok()?;
            Some((name, value))
        })
        .collect()
}
