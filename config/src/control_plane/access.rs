//! Who may do what with a control plane: its tokens, and TLS of its address. Tokens are forgotten while they are read:
//! what stays is a hash, which is neither shown nor logged.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{ControlPlane, Server};
use crate::document::KeyHash;
use crate::grammar::Section;
use crate::interpolate::Interpolator;
use crate::parse::{Node, TopValue, Value};
use crate::report::{ItemReport, Spot};
use crate::unit::short;
use crate::validate::validate;

/// What a token is good for (CP-202).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Sees everything that is no secret.
    Read,
    /// Keeps things going: all that `Read` may, and what can be taken back.
    Operate,
    /// Everything.
    Administer,
    /// A gateway or sidecar: listens, reports.
    Node,
    /// A process that announces itself.
    Service,
}

impl Role {
    pub const ALL: [Role; 5] = [
        Role::Read,
        Role::Operate,
        Role::Administer,
        Role::Node,
        Role::Service,
    ];

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operate => "operate",
            Role::Administer => "administer",
            Role::Node => "node",
            Role::Service => "service",
        }
    }

    fn of(word: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// `[[token]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Unique.
    pub name: String,
    pub role: Role,
    pub hash: KeyHash,
    /// The one service that it may speak for.
    pub service: Option<String>,
    /// The one node that it may be; `None`: any.
    pub node: Option<String>,
}

/// Of the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// `None`: nobody is asked for a certificate.
    pub client_ca: Option<PathBuf>,
}

/// What may be meant so, but whoever wrote it should know.
pub fn warnings(document: &ControlPlane) -> Vec<String> {
    let Server { bind, tls, .. } = &document.server;
    let readable = !bind.ip().is_loopback() && tls.is_none();
    let mut words = Vec::new();
    if !readable {
        return words;
    }
    words.push(format!(
        "tokens cross the network readable on {bind}: write `[server] tls = {{ cert = \"…\", key = \"…\" }}`, or \
         let something else encrypt what reaches that address"
    ));
    if document.identity.enabled {
        words.push(format!(
            "whoever reads what crosses the network to {bind} can join the mesh with a token that it sees there, and \
             whoever changes it can tell members whom to trust: write `[server] tls = {{ … }}`, or `[identity] enabled = \
             false` where there is no mesh"
        ));
    }
    words
}

/// Whether a line of the document may hold a token.
pub(super) fn is_secret(line: &str) -> bool {
    line.contains("token") && line.contains('=')
}

/// A token that is not written down but referred to; of any kind of document. A problem shows the line that `spot` is on.
pub(crate) fn token<'n>(
    node: &'n Node,
    spot: Spot,
    report: &mut ItemReport<'_>,
) -> Option<&'n str> {
    let Value::Text(text, referred) = &node.value else {
        return None;
    };
    if !referred {
        report.add(
            "token-in-the-open",
            spot,
            "a token is written down here, where everybody who sees this file sees it",
            "write `token = \"${env:NAME}\"` or `token = \"${file:PATH}\"`",
        );
        return None;
    }
    let visible = text.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
    if !visible || !(20..=512).contains(&text.len()) {
        report.add(
            "bad-token",
            spot,
            "the token is not 20 to 512 visible ASCII characters",
            "take a long random one, as from `openssl rand -hex 32`",
        );
        return None;
    }
    Some(text)
}

pub(super) fn tls(node: &Node, folder: &Path) -> Option<Tls> {
    let file = |key: &str| Some(folder.join(node.get(key)?.text()?));
    Some(Tls {
        cert: file("cert")?,
        key: file("key")?,
        client_ca: file("client_ca"),
    })
}

/// All `[[token]]`s.
pub(super) fn tokens(
    value: &TopValue<'_, '_>,
    section: &'static Section,
    document: &mut ControlPlane,
    interpolator: &mut Interpolator<'_>,
    report: &mut ItemReport<'_>,
) {
    let Some(items) = value.items() else {
        report.add(
            "wrong-type",
            value.spot,
            "`token` is not written as a list of tables",
            "write `[[token]]`",
        );
        return;
    };
    for item in items {
        if !item.is_table() {
            let hint = "write `[[token]]`";
            report.add("wrong-type", item.spot, "a token is no table", hint);
            continue;
        }
        let node = item.node(0, interpolator, report);
        validate(section, &node, report);
        if let Some(token) = one(&node, report) {
            unlike(&token, &document.tokens, &node, report);
            document.tokens.push(token);
        }
    }
}

fn one(node: &Node, report: &mut ItemReport<'_>) -> Option<Token> {
    let text = |key: &str| node.get(key).and_then(Node::text);
    // Looked at in any case: what is wrong with it is told together with the rest.
    let given = node
        .get("token")
        .and_then(|node| token(node, node.spot, report));
    let hash = match given {
        Some(token) => Some(KeyHash::of(token.as_bytes())),
        None => text("hash").and_then(|hash| KeyHash::parse(hash).ok()),
    };
    let role = Role::of(text("role")?)?;
    let mut makes_no_sense = |key: &str, fits: &[Role]| {
        if let Some(found) = node.get(key).filter(|_| !fits.contains(&role)) {
            report.add(
                "contradiction",
                found.spot,
                format!("`{key}` says nothing about the role `{}`", role.word()),
                format!("take `{key}` out, or write another `role`"),
            );
        }
    };
    makes_no_sense("service", &[Role::Service, Role::Node]);
    makes_no_sense("node", &[Role::Node]);
    if role == Role::Service && node.get("service").is_none() {
        report.add(
            "missing-key",
            node.spot,
            "a token of the role `service` does not say which service it may speak for",
            "write `service = \"orders\"`",
        );
    }
    Some(Token {
        name: text("name")?.to_owned(),
        role,
        hash: hash?,
        service: text("service").map(str::to_owned),
        node: text("node").map(str::to_owned),
    })
}

/// One name is one person in the audit log, and one token has one role.
fn unlike(token: &Token, others: &[Token], node: &Node, report: &mut ItemReport<'_>) {
    for other in others {
        let (what, key) = match token {
            _ if token.name == other.name => ("name", "name"),
            _ if token.hash == other.hash => ("token", "role"),
            _ => continue,
        };
        let spot = node.get(key).map_or(node.spot, |node| node.spot);
        report.add(
            "duplicate-token",
            spot,
            format!("the same {what} as that of `{}`", short(&other.name)),
            format!("give each its own {what}"),
        );
    }
}

/// Without tokens, loopback is the only fence.
pub(super) fn reachable(bind: SocketAddr, spot: Spot, report: &mut ItemReport<'_>) {
    if !bind.ip().to_canonical().is_loopback() {
        report.add(
            "open-to-all",
            spot,
            format!(
                "other machines reach {bind}, and there is no `[[token]]`: everybody there could change what the fleet serves"
            ),
            "write a `[[token]]` with `role = \"administer\"` for yourself and others for nodes and services, or bind to \
             127.0.0.1",
        );
    }
}
