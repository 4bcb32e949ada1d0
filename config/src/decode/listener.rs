//! Listeners.

use std::path::Path;
use std::time::Duration;

use std::sync::Arc;

use super::{
    at, duration, file, identity, or_off, retry, setting, setting_text, size, text, texts,
};
use crate::document::*;
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
    let name = text(node, "name").unwrap_or(bind_text);
    let protocol = match text(node, "protocol") {
        Some("http1") => ListenerProtocol::Http1,
        Some("http2") => ListenerProtocol::Http2,
        Some("tcp") => ListenerProtocol::Tcp,
        Some("detect") => ListenerProtocol::Detect,
        _ => ListenerProtocol::Auto,
    };
    relays(node, protocol, report);
    Some(Listener {
        name: name.to_owned(),
        bind,
        protocol,
        forward: forward(node, name, report),
        detect_timeout: setting(node, "detect_timeout", duration, Duration::from_millis(500)),
        capture: setting(node, "capture", Node::flag, false),
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

/// Keys about bytes that are not HTTP, where they contradict the protocol.
fn relays(node: &Node, protocol: ListenerProtocol, report: &mut ItemReport<'_>) {
    let word = text(node, "protocol").unwrap_or("auto");
    let takes_bytes = matches!(protocol, ListenerProtocol::Tcp | ListenerProtocol::Detect);
    // A member of the mesh asks for bytes by ALPN.
    let by_alpn = protocol == ListenerProtocol::Auto && node.get("mesh").is_some();
    match node.get("forward") {
        None if takes_bytes => report.add(
            "missing-key",
            node.get("protocol").map_or(node.spot, |node| node.spot),
            format!("`protocol = \"{word}\"` needs to know where bytes go"),
            "write `forward = \"…\"` with the name of an upstream",
        ),
        Some(forward) if !takes_bytes && !by_alpn => report.add(
            "contradiction",
            forward.spot,
            format!("`forward` is for bytes, but `protocol = \"{word}\"` has only HTTP"),
            "write `protocol = \"tcp\"` or `protocol = \"detect\"`, or take `forward` out",
        ),
        _ => {}
    }
    if let Some(timeout) = node.get("detect_timeout")
        && protocol != ListenerProtocol::Detect
    {
        report.add(
            "contradiction",
            timeout.spot,
            format!("nothing is detected with `protocol = \"{word}\"`"),
            "write `protocol = \"detect\"`, or take `detect_timeout` out",
        );
    }
    if let Some(capture) = node.get("capture")
        && capture.flag() == Some(true)
        && !cfg!(target_os = "linux")
    {
        report.add(
            "not-available",
            capture.spot,
            "only Linux tells where a redirected connection was going",
            "take `capture` out",
        );
    }
}

/// What bytes meet on their way is what a request meets that has no time-outs and may be tried again.
fn forward(node: &Node, name: &str, report: &mut ItemReport<'_>) -> Option<Arc<Route>> {
    Some(Arc::new(Route {
        name: name.to_owned(),
        matches: Match::default(),
        action: Action::Upstream(setting_text(node, "forward")?),
        timeout: Setting::default_of(None),
        adaptive_timeout: Setting::default_of(None),
        idle_timeout: setting(
            node,
            "relay_idle_timeout",
            or_off(duration),
            Some(Duration::from_secs(3600)),
        ),
        max_body: Setting::default_of(None),
        rewrite: None,
        priority: Setting::default_of(Priority::Default),
        filters: Vec::new(),
        retry: retry::retry(None, report),
        fallback: None,
    }))
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
