//! Listeners.

use std::path::Path;
use std::time::Duration;

use super::{at, duration, file, identity, setting, size, text, texts};
use crate::document::{Certificate, ClientAuth, Listener, ListenerProtocol, ListenerTls};
use crate::parse::{Node, Value};
use crate::report::ItemReport;
use crate::rule;

pub(crate) fn listener(
    node: &Node,
    folder: &Path,
    report: &mut ItemReport<'_>,
) -> Option<Listener> {
    let bind_text = text(node, "bind")?;
    let bind = rule::bind(bind_text).ok()?;
    let tls = { node.get("tls") }.and_then(|tls| listener_tls(tls, folder, report));
    Some(Listener {
        name: text(node, "name").unwrap_or(bind_text).to_owned(),
        bind,
        protocol: match text(node, "protocol") {
            Some("http1") => ListenerProtocol::Http1,
            Some("http2") => ListenerProtocol::Http2,
            _ => ListenerProtocol::Auto,
        },
        mesh: identity::listener(node, tls.as_ref(), report),
        tls,
        max_connections: setting(node, "max_connections", Node::count, 20_000),
        header_timeout: setting(node, "header_timeout", duration, Duration::from_secs(10)),
        idle_timeout: setting(node, "idle_timeout", duration, Duration::from_secs(75)),
        max_header_size: setting(node, "max_header_size", size, 64 << 10),
        trusted_proxies: texts(node.get("trusted_proxies"))
            .into_iter()
            .filter_map(|block| rule::cidr(block).ok())
            .collect(),
    })
}

fn listener_tls(node: &Node, folder: &Path, report: &mut ItemReport<'_>) -> Option<ListenerTls> {
    let tables = match node.list() {
        [] if node.entries().is_empty() => {
            if matches!(node.value, Value::List(_)) {
                report.add(
                    "missing-key",
                    node.spot,
                    "`tls` holds no certificate",
                    "write `tls = { cert = \"edge.pem\", key = \"edge.key\" }`, or take it out for clear text",
                );
            }
            return None;
        }
        [] => std::slice::from_ref(node),
        list => list,
    };
    for table in tables.iter().skip(1) {
        for key in ["client_ca", "client_auth"] {
            if let Some(misplaced) = table.get(key) {
                report.add(
                    "contradiction",
                    misplaced.spot,
                    format!("`{key}` holds for the whole listener, not for one certificate"),
                    "write it in the first entry of `tls`",
                );
            }
        }
    }
    let first = tables.first()?;
    let client_ca = file(first, "client_ca", folder);
    let client_auth = match text(first, "client_auth") {
        Some("optional") => ClientAuth::Optional,
        Some("required") => ClientAuth::Required,
        _ => ClientAuth::None,
    };
    if client_auth != ClientAuth::None && client_ca.is_none() {
        report.add(
            "missing-key",
            first.get("client_auth").map_or(first.spot, |n| n.spot),
            "`client_auth` needs to know who signs clients' certificates",
            "write `client_ca = \"ca.pem\"` too",
        );
    }
    let certificates: Vec<Certificate> = tables
        .iter()
        .filter_map(|table| {
            Some(Certificate {
                names: texts(table.get("names"))
                    .into_iter()
                    .filter_map(|name| rule::server_name(name).ok())
                    .collect(),
                cert: file(table, "cert", folder)?,
                key: file(table, "key", folder)?,
            })
        })
        .collect();
    (!certificates.is_empty()).then(|| ListenerTls {
        certificates,
        client_ca,
        client_auth,
        at: at(node),
    })
}
