//! Asks the system's name servers. Keeps no answers: `Refresh` does, by the time to live that the server set, and a
//! cache below it would only make answers older than they say.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};

use super::{Answer, Failure, Question, Resolved};

/// A resolver. Cheap to clone; to be used on the runtime that made it.
#[derive(Debug, Clone)]
pub struct Dns {
    resolver: TokioResolver,
    /// Whether this machine can reach an address at all.
    reachable: fn(IpAddr) -> bool,
}

impl Dns {
    /// As `/etc/resolv.conf` says. Without such a file only `/etc/hosts` is known.
    pub fn system() -> io::Result<Self> {
        let builder = TokioResolver::builder_tokio().unwrap_or_else(|_| builder(Vec::new()));
        Dns::build(builder, reachable)
    }

    /// Asks these servers, over UDP and TCP, and takes every address to be reachable. `/etc/hosts` still goes first.
    pub fn with_servers(servers: &[SocketAddr]) -> io::Result<Self> {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.to_vec())
        });
        Dns::build(builder(servers.collect()), |_| true)
    }

    fn build(
        mut builder: ResolverBuilder<TokioRuntimeProvider>,
        reachable: fn(IpAddr) -> bool,
    ) -> io::Result<Self> {
        builder.options_mut().cache_size = 0;
        let resolver = builder.build().map_err(io::Error::other)?;
        Ok(Dns {
            resolver,
            reachable,
        })
    }

    /// One answer, with its endpoints in order of their addresses; at least one.
    pub async fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        match question {
            Question::Fixed(resolved) => Ok(Answer {
                endpoints: vec![resolved.clone()],
                ttl: Duration::MAX,
            }),
            Question::Addresses {
                name,
                port,
                weight,
                zone,
            } => {
                let resolver = self.fresh();
                let (addresses, ttl) = self.addresses(&resolver, name).await?;
                let endpoints = addresses.into_iter().map(|address| Resolved {
                    address: SocketAddr::new(address, *port),
                    name: format!("{}:{port}", plain(name)),
                    weight: *weight,
                    zone: zone.clone(),
                });
                Ok(ordered(endpoints.collect(), ttl))
            }
            Question::Servers { name } => self.servers(name).await,
        }
    }

    /// The resolver with `/etc/hosts` as it is now: the file is short, and changes while processes live.
    fn fresh(&self) -> TokioResolver {
        let mut resolver = self.resolver.clone();
        if let Ok(hosts) = Hosts::from_system() {
            resolver.set_hosts(Arc::new(hosts));
        }
        resolver
    }

    async fn addresses(
        &self,
        resolver: &TokioResolver,
        name: &str,
    ) -> Result<(Vec<IpAddr>, Duration), Failure> {
        let (four, six) = join(
            resolver.lookup(name, RecordType::A),
            resolver.lookup(name, RecordType::AAAA),
        )
        .await;
        // One family is enough: many servers answer for the other with an error.
        let mut records = Vec::new();
        let mut error = None;
        for answer in [four, six] {
            match answer {
                Ok(lookup) => records.extend_from_slice(lookup.answers()),
                // "There is none" says less than any other error.
                Err(this) if this.is_no_records_found() => error = error.or(Some(this)),
                Err(this) => error = Some(this),
            }
        }
        let addresses = records
            .iter()
            .filter_map(|record| record.data.ip_addr())
            .collect();
        let addresses = self.usable(addresses);
        if addresses.is_empty() {
            return Err(failure(name, error.as_ref()));
        }
        Ok((addresses, shortest(&records)))
    }

    /// Leaves out what could only fail: IPv6 where this machine has no way there, and the IPv6 twin of a loopback
    /// address, for `localhost` is one endpoint, and most servers listen on its IPv4 side only.
    fn usable(&self, all: Vec<IpAddr>) -> Vec<IpAddr> {
        let local = all.iter().all(IpAddr::is_loopback);
        let fits = |address: &IpAddr| address.is_ipv4() || (!local && (self.reachable)(*address));
        if all.iter().any(fits) {
            all.into_iter().filter(fits).collect()
        } else {
            all
        }
    }

    async fn servers(&self, name: &str) -> Result<Answer, Failure> {
        let resolver = self.fresh();
        let lookup = resolver
            .lookup(name, RecordType::SRV)
            .await
            .map_err(|error| failure(name, Some(&error)))?;
        let all = lookup
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                // The root as target says: this service is not offered here.
                RData::SRV(server) if !server.target.is_root() => Some(server),
                _ => None,
            });
        let all: Vec<&SRV> = all.collect();
        let best = all.iter().map(|server| server.priority).min();
        let group = all
            .into_iter()
            .filter(|server| Some(server.priority) == best);

        let asked = join_all(group.map(|server| {
            let resolver = &resolver;
            async move {
                let target = server.target.to_ascii();
                (server, self.addresses(resolver, &target).await)
            }
        }));
        let mut ttl = shortest(lookup.answers());
        let mut endpoints = Vec::new();
        let mut failed = None;
        for (server, answer) in asked.await {
            // A target that is unknown for now is left out; the others carry on.
            let (addresses, its_ttl) = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            ttl = ttl.min(its_ttl);
            endpoints.extend(addresses.into_iter().map(|address| Resolved {
                address: SocketAddr::new(address, server.port),
                name: format!("{}:{}", domain(name), server.port),
                // Zero means "hardly ever", not "never".
                weight: u32::from(server.weight).max(1),
                zone: None,
            }));
        }
        if endpoints.is_empty() {
            return Err(failed.unwrap_or_else(|| failure(name, None)));
        }
        Ok(ordered(endpoints, ttl))
    }
}

fn builder(servers: Vec<NameServerConfig>) -> ResolverBuilder<TokioRuntimeProvider> {
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

/// Servers shuffle their answers; sorted, the same answer is the same value.
fn ordered(mut endpoints: Vec<Resolved>, ttl: Duration) -> Answer {
    endpoints.sort_by_key(|resolved| resolved.address);
    endpoints.dedup_by_key(|resolved| resolved.address);
    Answer { endpoints, ttl }
}

fn shortest(records: &[Record]) -> Duration {
    let seconds = records.iter().map(|record| record.ttl).min().unwrap_or(0);
    Duration::from_secs(seconds.into())
}

fn failure(name: &str, error: Option<&NetError>) -> Failure {
    let why = match error {
        Some(error) if error.is_no_records_found() => "no such name, or no address for it".into(),
        Some(error) => error.to_string(),
        None => "the service has no servers".into(),
    };
    Failure {
        name: name.to_owned(),
        why,
    }
}

/// Without the dot that makes a name absolute.
fn plain(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// What follows the `_service._protocol.` of a service's name.
fn domain(name: &str) -> &str {
    let mut rest = plain(name);
    while rest.starts_with('_') {
        match rest.split_once('.') {
            Some((_, parent)) => rest = parent,
            None => break,
        }
    }
    rest
}

/// Whether there is a route; asks the kernel and sends nothing.
fn reachable(address: IpAddr) -> bool {
    if address.is_ipv4() {
        return true;
    }
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect((address, 9)))
        .is_ok()
}

#[cfg(test)]
mod tests;
