//! Where the endpoints of an upstream are: addresses written down, names to look up, services that DNS lists.
//!
//! Answers are asked for again when they grow old. When no answer comes, the last good one stands: names that cannot
//! be resolved for a while must not take a working upstream away. `Refresh` decides when to ask and knows no clock;
//! `dns` asks; `watch` drives both, on the control thread. No request ever waits here.

pub mod dns;
mod refresh;

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::sleep_until;
use tollgate_config::document::EndpointSource;

pub use dns::Dns;
pub use refresh::Refresh;

/// One place to send requests to, as an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resolved {
    pub address: SocketAddr,
    /// The host as the document has it: what a certificate must bear. A name that only DNS told us is never trusted
    /// with that; for a service it is the domain that was asked about.
    pub name: String,
    pub weight: u32,
    pub zone: Option<String>,
}

/// What a name stood for, and for how long that may be believed.
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
    /// Refuses what the document should have refused already.
    pub fn new(source: &EndpointSource) -> Result<Self, BadAddress> {
        let questions = match source {
            EndpointSource::Static(endpoints) => endpoints
                .iter()
                .map(|endpoint| question(&endpoint.address, endpoint.weight, endpoint.zone.clone()))
                .collect::<Result<_, _>>()?,
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
    if let Ok(address) = address.parse::<SocketAddr>() {
        let name = address.ip().to_string();
        return Ok(Question::Fixed(Resolved {
            address,
            name,
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

/// What `watch` has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// All endpoints there are now. Comes once after the first round, even if empty, and then whenever they change.
    Changed(Vec<Resolved>),
    /// A name was not resolved; what it stood for before still stands.
    Failed(Failure),
}

/// Follows a source until dropped; returns only when there is nothing to follow. `random` gives numbers from 0 up to 1,
/// so that many processes do not ask in step.
pub async fn watch(
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
            (refresh, answer)
        }));
        for (refresh, answer) in asked.await {
            let answer = answer.map_err(|failure| report(Report::Failed(failure)));
            refresh.answered(answer.ok(), Instant::now(), random());
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

/// One list of all parts, in their order; an address that several parts name is there once.
fn merged<'a>(parts: impl Iterator<Item = &'a [Resolved]>) -> Vec<Resolved> {
    let mut all: Vec<Resolved> = Vec::new();
    for resolved in parts.flatten() {
        if !all.iter().any(|one| one.address == resolved.address) {
            all.push(resolved.clone());
        }
    }
    all
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
        assert_eq!((all[1].name.as_str(), all[1].weight), ("::1", 3));
        assert_eq!(all[1].zone.as_deref(), Some("a"));

        let source = EndpointSource::Static(vec![fixed("10.0.0.1:80"), fixed("localhost:80")]);
        let source = Source::new(&source).unwrap();
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
        watch(&dns, &source, || 0.5, |report| reports.push(report)).await;
        let [Report::Changed(all)] = reports.as_slice() else {
            panic!("{reports:?}")
        };
        assert_eq!(all.len(), 2);
    }
}
