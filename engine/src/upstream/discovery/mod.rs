//! Where the endpoints of an upstream are: addresses written down, names to look up, services that DNS lists or that
//! a control plane knows.
//!
//! Answers are asked for again when they grow old. When no answer comes, the last good one stands: names that cannot
//! be resolved for a while must not take a working upstream away. `Refresh` decides when to ask and knows no clock;
//! `dns` asks; `follow` drives both, on the control thread. No request ever waits here.

pub mod dns;
mod one;
mod refresh;
mod services;

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep_until;
use tollgate_config::document::EndpointSource;

pub use dns::Dns;
pub(crate) use one::resolve;
pub use refresh::Refresh;
pub use services::Services;

use super::Resolved;
use crate::telemetry::log;

/// What a name stood for, and for how long that may be believed.
///
/// The names of endpoints are `host:port` with the host that the document has, since a certificate must bear it: a name
/// that only DNS told us is never trusted with that. For a service it is the domain that was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub endpoints: Vec<Resolved>,
    pub ttl: Duration,
}

/// A name that could not be resolved this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub name: String,
    pub why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot resolve `{}`: {}", self.name, self.why)
    }
}

impl std::error::Error for Failure {}

/// One part of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Nothing to ask: an address was written down.
    Fixed(Resolved),
    /// All addresses of a name.
    Addresses {
        name: String,
        port: u16,
        weight: u32,
        zone: Option<String>,
    },
    /// The servers of a service (SRV): those of the best priority, with their weights.
    Servers { name: String },
}

impl Question {
    pub fn name(&self) -> &str {
        match self {
            Question::Fixed(resolved) => &resolved.name,
            Question::Addresses { name, .. } | Question::Servers { name } => name,
        }
    }
}

/// Where one upstream's endpoints come from, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    questions: Vec<Question>,
}

/// An address that is not `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadAddress {
    pub address: String,
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not `host:port`; an IPv6 address is written `[::1]:80`",
            self.address
        )
    }
}

impl std::error::Error for BadAddress {}

impl Source {
    /// A source that has something to ask for. What the document should have refused is passed over.
    pub fn of(source: &EndpointSource) -> Option<Self> {
        Source::new(source)
            .ok()
            .filter(|source| source.fixed().is_none())
    }

    /// Refuses what the document should have refused already. Whose instances a control plane knows, `Services` knows.
    pub fn new(source: &EndpointSource) -> Result<Self, BadAddress> {
        let questions = match source {
            EndpointSource::Static(endpoints) => endpoints
                .iter()
                .map(|endpoint| question(&endpoint.address, endpoint.weight, endpoint.zone.clone()))
                .collect::<Result<_, _>>()?,
            // Told by the control plane, or by each connection.
            EndpointSource::Service { .. }
            | EndpointSource::Asked { .. }
            | EndpointSource::Original { .. } => Vec::new(),
            EndpointSource::Dns {
                name, srv: true, ..
            } => {
                vec![Question::Servers { name: name.clone() }]
            }
            EndpointSource::Dns {
                name,
                port: Some(port),
                ..
            } => {
                vec![question(&format!("{name}:{port}"), 1, None)?]
            }
            EndpointSource::Dns {
                name, port: None, ..
            } => {
                return Err(BadAddress {
                    address: name.clone(),
                });
            }
        };
        Ok(Source { questions })
    }

    /// All endpoints, when there is nothing to ask for.
    pub fn fixed(&self) -> Option<Vec<Resolved>> {
        self.questions
            .iter()
            .map(|question| match question {
                Question::Fixed(resolved) => Some(resolved.clone()),
                _ => None,
            })
            .collect()
    }

    pub fn questions(&self) -> &[Question] {
        &self.questions
    }
}

fn question(address: &str, weight: u32, zone: Option<String>) -> Result<Question, BadAddress> {
    let bad = || BadAddress {
        address: address.to_owned(),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    if let Ok(socket) = address.parse::<SocketAddr>() {
        return Ok(Question::Fixed(Resolved {
            address: socket,
            name: address.to_owned(),
            weight,
            zone,
        }));
    }
    let port = port.parse().map_err(|_| bad())?;
    if host.is_empty() || host.contains([':', '[', ']', '/', ' ']) {
        return Err(bad());
    }
    Ok(Question::Addresses {
        name: host.to_owned(),
        port,
        weight,
        zone,
    })
}

/// What `follow` has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// All endpoints there are now. Comes once after the first round, even if empty, and then whenever they change.
    Changed(Vec<Resolved>),
    /// A name is not resolved any more; what it stood for before still stands. Said once per outage.
    Failed(Failure),
    /// A name is resolved again.
    Recovered(String),
}

/// Follows a source with the system's resolver until dropped, and logs what cannot be resolved. The first call of
/// `on_change` comes after the first round, even if nothing was found.
pub async fn watch(source: Source, mut on_change: impl FnMut(Vec<Resolved>)) {
    let dns = match Dns::system() {
        Ok(dns) => dns,
        Err(error) => {
            let error = error.to_string();
            log::error("names cannot be resolved at all", &[("error", &error)]);
            return;
        }
    };
    follow(&dns, &source, fastrand::f64, |report| match report {
        Report::Changed(endpoints) => on_change(endpoints),
        Report::Failed(failure) => log::warn(
            "a name is not resolved; its last addresses stay in use",
            &[("name", &failure.name), ("error", &failure.why)],
        ),
        Report::Recovered(name) => log::info("a name is resolved again", &[("name", &name)]),
    })
    .await;
}

/// Follows a source until dropped; returns only when there is nothing to follow. `random` gives numbers from 0 up to 1,
/// so that many processes do not ask in step.
pub async fn follow(
    dns: &Dns,
    source: &Source,
    mut random: impl FnMut() -> f64,
    mut report: impl FnMut(Report),
) {
    let begin = Instant::now();
    let mut parts: Vec<(&Question, Refresh)> = source
        .questions
        .iter()
        .map(|question| {
            let refresh = match question {
                Question::Fixed(resolved) => Refresh::never(resolved.clone()),
                _ => Refresh::new(begin),
            };
            (question, refresh)
        })
        .collect();
    let mut reported = None;
    loop {
        let now = Instant::now();
        let due = parts.iter_mut().filter(|(_, refresh)| refresh.is_due(now));
        let asked = join_all(due.map(|(question, refresh)| async move {
            let answer = dns.ask(question).await;
            (&**question, refresh, answer)
        }));
        for (question, refresh, answer) in asked.await {
            let failed_before = refresh.is_failing();
            match answer {
                Ok(answer) => refresh.answered(Some(answer), Instant::now(), random()),
                Err(failure) => {
                    refresh.answered(None, Instant::now(), random());
                    if !failed_before {
                        report(Report::Failed(failure));
                    }
                }
            }
            if failed_before && !refresh.is_failing() {
                report(Report::Recovered(question.name().to_owned()));
            }
        }
        let endpoints = merged(parts.iter().map(|(_, refresh)| refresh.current()));
        if reported.as_ref() != Some(&endpoints) {
            report(Report::Changed(endpoints.clone()));
            reported = Some(endpoints);
        }
        let Some(next) = parts.iter().filter_map(|(_, refresh)| refresh.due()).min() else {
            return;
        };
        sleep_until(next.into()).await;
    }
}

/// One list of all parts, in their order; what several parts say alike is there once.
fn merged<'a>(parts: impl Iterator<Item = &'a [Resolved]>) -> Vec<Resolved> {
    let mut seen = HashSet::new();
    let all = parts.flatten();
    all.filter(|one| seen.insert((one.address, &one.name)))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use tollgate_config::document::{At, Endpoint};

    use super::*;

    fn fixed(address: &str) -> Endpoint {
        Endpoint {
            address: address.to_owned(),
            weight: 3,
            zone: Some("a".to_owned()),
            at: At(None),
        }
    }

    #[test]
    fn addresses_are_taken_as_they_are_and_names_are_asked_for() {
        let source = EndpointSource::Static(vec![fixed("10.0.0.1:80"), fixed("[::1]:8080")]);
        let all = Source::new(&source).unwrap().fixed().unwrap();
        assert_eq!(all[0].address, "10.0.0.1:80".parse().unwrap());
        assert_eq!((all[1].name.as_str(), all[1].weight), ("[::1]:8080", 3));
        assert_eq!(all[1].zone.as_deref(), Some("a"));

        assert_eq!(Source::of(&source), None);

        let source = EndpointSource::Static(vec![fixed("10.0.0.1:80"), fixed("localhost:80")]);
        let source = Source::of(&source).unwrap();
        assert_eq!(source.fixed(), None);
        assert!(matches!(&source.questions()[1],
            Question::Addresses { name, port: 80, weight: 3, .. } if name == "localhost"));
    }

    #[test]
    fn what_is_not_host_and_port_is_refused() {
        for address in [
            "localhost",
            ":80",
            "::1:80",
            "[::1]",
            "a b:80",
            "host:port",
            "host:99999",
        ] {
            let source = EndpointSource::Static(vec![fixed(address)]);
            assert!(Source::new(&source).is_err(), "{address}");
        }
        let name = "orders.internal".to_owned();
        let source = EndpointSource::Dns {
            name,
            port: None,
            srv: false,
            at: At(None),
        };
        assert!(Source::new(&source).is_err());
    }

    #[tokio::test]
    async fn a_source_of_addresses_only_is_reported_once_and_not_followed() {
        let endpoints = vec![
            fixed("10.0.0.1:80"),
            fixed("10.0.0.2:80"),
            fixed("10.0.0.1:80"),
        ];
        let source = Source::new(&EndpointSource::Static(endpoints)).unwrap();
        let dns = Dns::with_servers(&[]).unwrap();
        let mut reports = Vec::new();
        follow(&dns, &source, || 0.5, |report| reports.push(report)).await;
        let [Report::Changed(all)] = reports.as_slice() else {
            panic!("{reports:?}")
        };
        assert_eq!(all.len(), 2);
    }
}
