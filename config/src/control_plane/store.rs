//! `[store]`: where a control plane keeps what it knows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Server;
use super::read::{duration, take};
use crate::parse::Node;
use crate::quick;
use crate::report::ItemReport;

#[derive(Debug, Clone, PartialEq, Default)]
pub enum Store {
    /// A file in `server.state_dir`.
    #[default]
    Embedded,
    Etcd(Box<Etcd>),
}

/// An etcd cluster, and what we are among those that share it.
#[derive(Debug, Clone, PartialEq)]
pub struct Etcd {
    /// URLs, the preferred one first.
    pub endpoints: Vec<String>,
    pub prefix: String,
    pub user: Option<Secret>,
    pub tls: Option<EtcdTls>,
    pub lease: Duration,
    /// `None` = the machine's name.
    pub node: Option<String>,
    /// A URL; `None` = `server.bind`.
    pub advertise: Option<String>,
}

/// A user and a password; the latter is never shown.
#[derive(Clone, PartialEq)]
pub struct Secret {
    pub name: String,
    pub password: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:…", self.name)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct EtcdTls {
    pub ca: PathBuf,
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    pub name: Option<String>,
}

const LEASE: std::ops::RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(60);

pub(super) fn read(
    node: &Node,
    folder: &Path,
    server: &Server,
    report: &mut ItemReport<'_>,
) -> Store {
    let etcd = node.get("kind").and_then(Node::text) == Some("etcd");
    if !etcd {
        let only = ["endpoints", "user", "tls", "advertise"];
        for key in only.into_iter().filter(|key| node.get(key).is_some()) {
            report.add(
                "contradiction",
                node.get(key).map_or(node.spot, |node| node.spot),
                format!("`{key}` is there, but the store is a file"),
                format!("write `kind = \"etcd\"`, or take `{key}` out"),
            );
        }
        return Store::Embedded;
    }
    let mut store = Etcd {
        endpoints: Vec::new(),
        prefix: "tollgate".to_owned(),
        user: None,
        tls: None,
        lease: Duration::from_secs(10),
        node: None,
        advertise: None,
    };
    let text = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
    if let Some(endpoints) = node.get("endpoints") {
        let texts = endpoints.list().iter().filter_map(Node::text);
        store.endpoints = texts
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
    }
    take(
        node,
        "prefix",
        |n| Some(n.text()?.to_owned()),
        &mut store.prefix,
    );
    take(node, "lease", duration, &mut store.lease);
    store.user =
        { text("user").zip(text("password")) }.map(|(name, password)| Secret { name, password });
    store.tls = node.get("tls").and_then(|tls| {
        let file = |key: &str| Some(folder.join(tls.get(key)?.text()?));
        Some(EtcdTls {
            ca: file("ca")?,
            identity: file("cert").zip(file("key")),
            name: tls.get("name").and_then(Node::text).map(str::to_owned),
        })
    });
    store.node = text("node");
    store.advertise = text("advertise").map(|url| url.trim_end_matches('/').to_owned());
    check(node, &store, server, report);
    Store::Etcd(Box::new(store))
}

fn spot_of(node: &Node, key: &str) -> crate::report::Spot {
    node.get(key).map_or(node.spot, |node| node.spot)
}

/// What the grammar cannot say.
fn check(node: &Node, store: &Etcd, server: &Server, report: &mut ItemReport<'_>) {
    let bind = server.bind;
    if server.tls.is_some() {
        report.add(
            "contradiction",
            spot_of(node, "kind"),
            "`server.tls` beside a shared store is not available in this build: control planes talk to each other in clear text",
            "take `server.tls` out, and end TLS in front of the control planes",
        );
    }
    let spot = |key: &str| node.get(key).map_or(node.spot, |node| node.spot);
    if store.endpoints.is_empty() {
        report.add(
            "no-url",
            spot("endpoints"),
            "no member of the etcd cluster is named",
            "write `endpoints = [\"http://127.0.0.1:2379\"]`, with a URL for each member",
        );
    }
    let is_encrypted = |url: &String| quick::target(url).is_ok_and(|(_, encrypted)| encrypted);
    let encrypted = store
        .endpoints
        .iter()
        .filter(|url| is_encrypted(url))
        .count();
    if encrypted > 0 && store.tls.is_none() && node.get("tls").is_none() {
        report.add(
            "contradiction",
            spot("endpoints"),
            "a member has an https URL, and nothing says who signs its certificate",
            "write `tls = { ca = \"etcd-ca.pem\" }`",
        );
    }
    if encrypted < store.endpoints.len() && node.get("tls").is_some() {
        report.add(
            "contradiction",
            spot("tls"),
            "`tls` is there, but a member has an http URL",
            "begin every URL in `endpoints` with https://, or take `tls` out",
        );
    }
    if !LEASE.contains(&store.lease) {
        report.add(
            "bad-duration",
            spot("lease"),
            "`lease` is not between 2s and 60s",
            "write `lease = \"10s\"`",
        );
    }
    if store
        .advertise
        .as_deref()
        .is_some_and(|url| is_encrypted(&url.to_owned()))
    {
        report.add(
            "contradiction",
            spot("advertise"),
            "`advertise` begins with https://, and control planes talk to each other in clear text",
            "begin it with http://, and keep it inside a network that you trust",
        );
    }
    if store.advertise.is_none() && bind.ip().is_unspecified() {
        report.add(
            "contradiction",
            node.spot,
            format!("other control planes cannot reach this one at {bind}"),
            "write `advertise = \"http://10.0.0.1:8080\"` with an address of this machine",
        );
    }
}
