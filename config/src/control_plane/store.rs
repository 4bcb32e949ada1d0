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
    pub tls: Option<StoreTls>,
    pub lease: Duration,
    /// `None` = the machine's name.
    pub node: Option<String>,
    /// A URL; `None` = `server.bind`.
    pub advertise: Option<String>,
    /// How the other control planes prove themselves; there if and only if `server.tls` is.
    pub peers: Option<StoreTls>,
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

/// Whom we trust at the other end, and what we show.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreTls {
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
        let only = ["endpoints", "user", "tls", "advertise", "peers"];
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
        peers: None,
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
    let files = |key: &str| {
        let tls = node.get(key)?;
        let file = |key: &str| Some(folder.join(tls.get(key)?.text()?));
        Some(StoreTls {
            ca: file("ca")?,
            identity: file("cert").zip(file("key")),
            name: tls.get("name").and_then(Node::text).map(str::to_owned),
        })
    };
    store.tls = files("tls");
    store.peers = files("peers");
    store.node = text("node");
    store.advertise = text("advertise").map(|url| url.trim_end_matches('/').to_owned());
    check(node, &store, server, report);
    Store::Etcd(Box::new(store))
}

/// What the grammar cannot say.
fn check(node: &Node, store: &Etcd, server: &Server, report: &mut ItemReport<'_>) {
    let bind = server.bind;
    let spot = |key: &str| node.get(key).map_or(node.spot, |node| node.spot);
    let written = node.get("peers").is_some();
    match (&server.tls, &store.peers) {
        (Some(_), None) if !written => report.add(
            "contradiction",
            spot("kind"),
            "`server.tls` is there, and nothing says who signs the certificates of the other control planes",
            "write `peers = { ca = \"ca.pem\" }` in `[store]`",
        ),
        (Some(tls), Some(peers)) if tls.client_ca.is_some() && peers.identity.is_none() => report
            .add(
                "contradiction",
                spot("peers"),
                "`server.tls` asks callers for a certificate, and we show the other control planes none",
                "write `peers = { ca = \"ca.pem\", cert = \"cp.pem\", key = \"cp.key\" }`",
            ),
        (None, _) if written => report.add(
            "contradiction",
            spot("peers"),
            "`peers` is there, but control planes without `server.tls` talk to each other in clear text",
            "write `[server] tls = { cert = \"cp.pem\", key = \"cp.key\" }`, or take `peers` out",
        ),
        _ => {}
    }
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
    match store.advertise.as_ref().map(is_encrypted) {
        Some(true) if server.tls.is_none() => report.add(
            "contradiction",
            spot("advertise"),
            "`advertise` begins with https://, and there is no `server.tls`",
            "begin it with http://, or write `[server] tls = { cert = \"cp.pem\", key = \"cp.key\" }`",
        ),
        Some(false) if server.tls.is_some() => report.add(
            "contradiction",
            spot("advertise"),
            "`advertise` begins with http://, and `server.tls` lets nobody in who speaks clear text",
            "begin it with https://",
        ),
        _ => {}
    }
    if store.advertise.is_none() && bind.ip().is_unspecified() {
        report.add(
            "contradiction",
            node.spot,
            format!("other control planes cannot reach this one at {bind}"),
            "write `advertise = \"http://10.0.0.1:8080\"` (https:// with `server.tls`) with an address of this machine",
        );
    }
}
