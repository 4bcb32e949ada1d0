//! Who may call whom in a mesh, as values: services by their names, and rules about what they may ask of each other.

use std::fmt;

use http::Method;

use super::{At, Document, Setting};
use crate::identity::SpiffeId;
use crate::path::PathPattern;

/// A service of a mesh without its trust domain, which the handshake judged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    pub namespace: String,
    pub service: String,
}

impl Member {
    pub fn new(namespace: &str, service: &str) -> Member {
        Member {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)
    }
}

impl From<&SpiffeId> for Member {
    fn from(id: &SpiffeId) -> Member {
        Member::new(id.namespace(), id.service())
    }
}

/// The namespace of services that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

impl Document {
    /// Who this node is in the mesh; `None`: nobody, so that no rule that names a callee is about it.
    pub fn own_service(&self) -> Option<Member> {
        let own = self.identity.as_ref()?;
        Some(Member::new(&own.namespace, &own.service))
    }
}

/// Some services: `orders`, `shop/orders`, `shop/*` or `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Members {
    /// `None`: that of the callee.
    pub namespace: Option<Wanted>,
    pub service: Wanted,
}

/// One name, or every one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Wanted {
    Any,
    Only(String),
}

impl Wanted {
    pub fn fits(&self, name: &str) -> bool {
        match self {
            Wanted::Any => true,
            Wanted::Only(only) => only == name,
        }
    }
}

impl Members {
    /// Whether this service is one of them, where `home` is the callee's namespace.
    pub fn fits(&self, namespace: &str, service: &str, home: &str) -> bool {
        let near = match &self.namespace {
            Some(wanted) => wanted.fits(namespace),
            None => namespace == home,
        };
        near && self.service.fits(service)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wanted::Any => "*",
            Wanted::Only(name) => name,
        })
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, &self.service) {
            (Some(Wanted::Any), Wanted::Any) => f.write_str("any member"),
            (Some(namespace), service) => write!(f, "{namespace}/{service}"),
            (None, service) => write!(f, "{service}"),
        }
    }
}

/// `[[access]]`: these may ask this of that (MESH-402). Rules only ever allow; what none allows is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub name: String,
    pub from: Vec<Members>,
    /// `None`: every service.
    pub to: Option<Members>,
    /// Empty: any.
    pub methods: Vec<Method>,
    /// Empty: any.
    pub paths: Vec<PathPattern>,
    /// The person behind the call, as a token before says it, has one of these roles …
    pub roles: Vec<String>,
    /// … all of these permissions …
    pub permissions: Vec<String>,
    /// … and for each of these claims one of its values.
    pub claims: Vec<(String, Vec<String>)>,
    pub at: At,
}

impl Access {
    /// Whether it is about calls of this service.
    pub fn is_about(&self, callee: Option<&Member>) -> bool {
        match (&self.to, callee) {
            (None, _) => true,
            // A callee without a namespace in its rule is the one of that name in any.
            (Some(to), Some(own)) => to.fits(&own.namespace, &own.service, &own.namespace),
            (Some(_), None) => false,
        }
    }

    /// Whether a token must say who the person is.
    pub fn asks_who(&self) -> bool {
        !(self.roles.is_empty() && self.permissions.is_empty() && self.claims.is_empty())
    }
}

/// `orders may POST /payments.v1.PaymentsService/*`, as explanations and refusals say it.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from: Vec<String> = self.from.iter().map(Members::to_string).collect();
        let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        write!(f, "{} may", from.join(", "))?;
        match methods.as_slice() {
            [] => f.write_str(" ask for")?,
            methods => write!(f, " {}", methods.join(", "))?,
        }
        match self.paths.as_slice() {
            [] => f.write_str(" everything")?,
            [path] => write!(f, " {path}")?,
            [path, more @ ..] => write!(f, " {path} and {} more", more.len())?,
        }
        let mut before = " for a person with";
        if !self.roles.is_empty() {
            write!(f, "{before} a role of {}", self.roles.join(", "))?;
            before = " and";
        }
        if !self.permissions.is_empty() {
            write!(f, "{before} permission {}", self.permissions.join(", "))?;
            before = " and";
        }
        for (claim, values) in &self.claims {
            write!(f, "{before} {claim} = {}", values.join(" or "))?;
            before = " and";
        }
        Ok(())
    }
}

/// `{ access = … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    /// What no rule allows is refused.
    Enforce,
    /// It passes, and is counted and logged.
    Audit,
}

impl AccessMode {
    pub fn of(word: &str) -> Option<AccessMode> {
        let modes = [AccessMode::Enforce, AccessMode::Audit];
        modes.into_iter().find(|mode| mode.word() == word)
    }

    pub fn word(self) -> &'static str {
        match self {
            AccessMode::Enforce => "enforce",
            AccessMode::Audit => "audit",
        }
    }
}

/// What a `[[test]]` expects of the rules.
#[derive(Debug, Clone)]
pub struct AccessTest {
    /// `None`: nobody that is known.
    pub caller: Option<Member>,
    /// The callee; `None`: the node that the document is of.
    pub service: Option<Member>,
    pub allowed: Setting<bool>,
}
