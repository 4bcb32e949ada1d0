//! Who may call: issuers of tokens, and rules about whom a route serves.

use std::path::Path;
use std::time::Duration;

use http::HeaderName;

use super::{at, duration, file, setting_text, text, texts};
use crate::document::*;
use crate::parse::Node;
use crate::path::Segment;
use crate::problem::Fault;
use crate::report::ItemReport;
use crate::{quick, rule};

/// Problems with a secret point at the section's header, because a problem shows the line that it is about.
pub(crate) fn jwt(node: &Node, folder: &Path, report: &mut ItemReport<'_>) -> Option<Jwt> {
    let name = text(node, "name")?.to_owned();
    let keys = node.get("keys").map_or(&[][..], Node::list).iter();
    let keys: Vec<JwtKey> = keys.filter_map(|node| key(node, folder, report)).collect();
    let jwks = node.get("jwks").and_then(|node| jwks(node, folder, report));
    let none = node.get("keys").is_none_or(|keys| keys.list().is_empty());
    if none && node.get("jwks").is_none() {
        report.add(
            "no-key",
            (0, 1),
            "no token could ever be checked: there is no key",
            "add `keys = [{ file = \"issuer.pem\" }]`, or `jwks = \"https://…\"`",
        );
    }
    let audience = match text(node, "audience") {
        Some("off") => Vec::new(),
        _ => texts(node.get("audience"))
            .into_iter()
            .map(str::to_owned)
            .collect(),
    };
    if audience.is_empty() && text(node, "audience") != Some("off") {
        report.add(
            "no-audience",
            node.get("audience")?.spot,
            "no token is for anybody in an empty list",
            "name at least one audience, or write \"off\"",
        );
    }
    let word = |key: &str| text(node, key).unwrap_or(key).to_owned();
    let (roles, permissions) = (word("roles"), word("permissions"));
    let headers = match node.get("headers") {
        Some(headers) => headers.entries().iter().filter_map(told).collect(),
        None => vec![
            (HeaderName::from_static("x-user-id"), "sub".to_owned()),
            (HeaderName::from_static("x-user-roles"), roles.clone()),
            (
                HeaderName::from_static("x-user-permissions"),
                permissions.clone(),
            ),
            (HeaderName::from_static("x-tenant-id"), "tenant".to_owned()),
        ],
    };
    let grants = node.get("grants").map_or(&[][..], Node::entries).iter();
    Some(Jwt {
        name,
        issuer: text(node, "issuer")?.to_owned(),
        audience,
        keys,
        jwks,
        leeway: node
            .get("leeway")
            .and_then(duration)
            .unwrap_or(Duration::from_secs(30)),
        remembered: node
            .get("cache")
            .and_then(Node::count)
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(4096),
        roles,
        permissions,
        grants: grants
            .map(|entry| (entry.key.clone(), words(Some(&entry.node))))
            .collect(),
        headers,
        at: at(node),
    })
}

fn told(entry: &crate::parse::Entry) -> Option<(HeaderName, String)> {
    let name = rule::own_header(&entry.key).ok()?;
    Some((name, entry.node.text()?.to_owned()))
}

fn key(node: &Node, folder: &Path, report: &mut ItemReport<'_>) -> Option<JwtKey> {
    let algorithm = text(node, "algorithm").and_then(Algorithm::of);
    let source = match text(node, "secret") {
        Some(secret) => {
            let algorithm = algorithm.unwrap_or(Algorithm::Hs256);
            let Some(least) = algorithm.least_secret() else {
                report.add(
                    "contradiction",
                    (0, 1),
                    format!("a secret cannot be a key of {}", algorithm.word()),
                    "write `file` with the public key instead, or `algorithm = \"HS256\"`",
                );
                return None;
            };
            if secret.len() < least {
                report.add(
                    "bad-key",
                    (0, 1),
                    format!(
                        "a secret of {} has fewer than {least} bytes",
                        algorithm.word()
                    ),
                    "take a long random one, as from `openssl rand -hex 32`",
                );
                return None;
            }
            KeySource::Secret(Secret(secret.to_owned()))
        }
        None => KeySource::File(file(node, "file", folder)?),
    };
    Some(JwtKey {
        source,
        algorithm,
        id: text(node, "id").map(str::to_owned),
        at: at(node),
    })
}

fn jwks(node: &Node, folder: &Path, report: &mut ItemReport<'_>) -> Option<Jwks> {
    let url = node.text().or_else(|| text(node, "url"))?;
    let url = jwks_url(url).ok()?;
    let ca = file(node, "ca", folder);
    if let (Some(ca), false) = (node.get("ca"), url.encrypted) {
        report.add(
            "contradiction",
            ca.spot,
            "`ca` says nothing of a server that is reached without TLS",
            "write \"https://…\", or take `ca` out",
        );
    }
    Some(Jwks {
        url,
        ca,
        refresh: node
            .get("refresh")
            .and_then(duration)
            .unwrap_or(Duration::from_secs(300)),
    })
}

/// An absolute URL without user and fragment.
pub(crate) fn jwks_url(url: &str) -> Result<WebUrl, Fault> {
    web_url(
        url,
        "write a URL such as \"https://issuer.example/.well-known/jwks.json\"",
    )
}

/// `hint`: what to write instead.
pub(super) fn web_url(url: &str, hint: &str) -> Result<WebUrl, Fault> {
    let fault = |why: &str| Fault::new(format!("`{}` {why}", crate::unit::short(url)), hint);
    let behind = url.find("://").ok_or_else(|| fault("is not a URL"))? + 3;
    let slash = url[behind..].find('/').map(|at| behind + at);
    let (base, path) = match slash {
        Some(slash) => url.split_at(slash),
        None => (url, "/"),
    };
    let visible = path.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
    if !visible || path.contains(['#', '"', '<', '>', '\\']) {
        return Err(fault("has a path with a character that no URL has"));
    }
    let (address, encrypted) =
        quick::target(base).map_err(|told| Fault::new(told.message, hint))?;
    Ok(WebUrl {
        text: url.to_owned(),
        address,
        path: path.to_owned(),
        encrypted,
    })
}

/// `{ jwt = … }`
pub(super) fn jwt_use(node: &Node) -> Option<JwtUse> {
    Some(JwtUse {
        name: node.text().or_else(|| text(node, "name"))?.to_owned(),
        optional: text(node, "token") == Some("optional"),
    })
}

/// `{ allow = … }`
pub(super) fn allow(node: &Node, matches: &Match, report: &mut ItemReport<'_>) -> Option<Allow> {
    let any_of = node.get("any_of").map_or(&[][..], Node::list);
    let says_nothing = |node: &Node| node.entries().is_empty();
    let empty = std::iter::once(node)
        .chain(any_of)
        .find(|node| says_nothing(node))
        .or_else(|| node.get("any_of").filter(|list| list.list().is_empty()));
    if let Some(empty) = empty {
        report.add(
            "missing-key",
            empty.spot,
            "this rule says nothing, so it cannot be meant",
            "write `roles`, `permissions`, `owner` or `cidr`",
        );
        return None;
    }
    Some(Allow {
        all: allow_rule(node, matches, report),
        any_of: any_of
            .iter()
            .map(|node| allow_rule(node, matches, report))
            .collect(),
    })
}

fn allow_rule(node: &Node, matches: &Match, report: &mut ItemReport<'_>) -> AllowRule {
    for key in ["roles", "permissions", "cidr"] {
        if let Some(list) = node.get(key).filter(|list| list.list().is_empty()) {
            report.add(
                "missing-key",
                list.spot,
                format!("`{key}` is empty, which nobody or everybody would fit"),
                format!("name at least one, or take `{key}` out"),
            );
        }
    }
    AllowRule {
        roles: words(node.get("roles")),
        permissions: words(node.get("permissions")),
        owner: node
            .get("owner")
            .and_then(|node| owner(node, matches, report)),
        cidr: texts(node.get("cidr"))
            .into_iter()
            .filter_map(|text| rule::cidr(text).ok())
            .collect(),
        at: at(node),
    }
}

fn owner(node: &Node, matches: &Match, report: &mut ItemReport<'_>) -> Option<Owner> {
    let parameter = setting_text(node, "parameter")?;
    let captured = match &matches.path {
        Some(PathMatch::Pattern(pattern)) => pattern
            .segments
            .iter()
            .any(|segment| matches!(segment, Segment::Capture(name) if *name == parameter.value)),
        _ => false,
    };
    if !captured {
        report.add(
            "unknown-capture",
            node.get("parameter")?.spot,
            format!(
                "the match's path does not capture `{{{}}}`",
                crate::unit::short(&parameter.value)
            ),
            "name a `{…}` that stands in the route's path",
        );
        return None;
    }
    Some(Owner {
        parameter,
        claim: text(node, "claim").unwrap_or("sub").to_owned(),
    })
}

fn words(node: Option<&Node>) -> Vec<String> {
    texts(node).into_iter().map(str::to_owned).collect()
}
