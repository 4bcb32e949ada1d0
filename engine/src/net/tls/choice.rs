//! Which certificate a handshake is answered with: the one that names the host exactly, else the longest wildcard,
//! else one without names. Runs once per full handshake and, for `serves`, when a request's host is not its SNI.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::client::verify_server_name;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;

/// All certificates of one listener, by the names they are for.
#[derive(Debug, Default)]
pub(super) struct Choice {
    keys: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, Vec<usize>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Vec<usize>>,
    unnamed: Vec<usize>,
}

impl Choice {
    /// Adds a certificate for these names (lower case); for any host when there are none.
    pub(super) fn add(&mut self, names: &[String], key: CertifiedKey) {
        let index = self.keys.len();
        self.keys.push(Arc::new(key));
        if names.is_empty() {
            self.unnamed.push(index);
        }
        for name in names {
            let list = match name.strip_prefix("*.") {
                Some(rest) => self.wildcard.entry(rest.to_owned()),
                None => self.exact.entry(name.clone()),
            };
            list.or_default().push(index);
        }
    }

    pub(super) fn keys(&self) -> &[Arc<CertifiedKey>] {
        &self.keys
    }

    /// Whether a connection that named `sni` may carry a request for `host` (lower case, no port).
    pub(super) fn serves(&self, sni: Option<&str>, host: &str) -> bool {
        // A client that named nobody was promised nobody: there is nothing to differ from.
        let Some(sni) = sni else { return true };
        if sni.eq_ignore_ascii_case(host) {
            return true;
        }
        let Some(chosen) = self.choose(Some(sni), |_| true) else {
            return false;
        };
        self.choose(Some(host), |_| true) == Some(chosen) || covers(&self.keys[chosen], host)
    }

    /// The certificate for a name. `fits` tells whether the client can verify a signature by that key; when none fits
    /// the best one is served all the same, and the client says what it misses.
    fn choose(&self, name: Option<&str>, fits: impl Fn(&CertifiedKey) -> bool) -> Option<usize> {
        let lower = name.map(str::to_ascii_lowercase);
        let lower = lower.as_deref();
        let list = match lower.and_then(|name| self.named(name)) {
            Some(list) => list,
            None if !self.unnamed.is_empty() => &self.unnamed,
            // All certificates have names. Who asks for another host is refused; who asks for none gets the first.
            None if lower.is_none() && !self.keys.is_empty() => &[0],
            None => return None,
        };
        let right = |index: &usize| {
            list.len() == 1 || lower.is_some_and(|name| covers(&self.keys[*index], name))
        };
        let fits = |index: &usize| fits(&self.keys[*index]);
        let mut order = list.iter();
        let best = order.find(|index| right(index) && fits(index));
        best.or_else(|| list.iter().find(|index| right(index)))
            .or_else(|| list.iter().find(|index| fits(index)))
            .or(list.first())
            .copied()
    }

    fn named(&self, name: &str) -> Option<&[usize]> {
        if let Some(list) = self.exact.get(name) {
            return Some(list);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(list) = self.wildcard.get(parent) {
                return Some(list);
            }
            rest = parent;
        }
        None
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let index = self.choose(hello.server_name(), |certified| {
            certified.key.choose_scheme(schemes).is_some()
        })?;
        Some(self.keys[index].clone())
    }
}

/// Whether a certificate is valid for a host name or address.
fn covers(certified: &CertifiedKey, host: &str) -> bool {
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let Ok(name) = ServerName::try_from(host) else {
        return false;
    };
    let Some(certificate) = certified.cert.first() else {
        return false;
    };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}
