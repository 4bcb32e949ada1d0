//! Asks the endpoints of one upstream whether they are well, again and again, on the control thread. Every probe uses a
//! connection of its own, made by whoever knows how (`Connect` does TCP, and TLS where the upstream has it). The owner
//! runs `Prober::run` and stops it by dropping the future; nothing else is left behind but what an endpoint remembers.
//! Tells its owner about turns only, never about single probes: a dead endpoint cannot flood a log.

mod grpc;
mod http;

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite};
use tollgate_config::{Health, Probe, UpstreamProtocol};

use super::Upstream;
use super::endpoint::Endpoint;
use super::health::{Turn, Watch};
use super::moment::Moment;

/// A connection to an endpoint, secured as the upstream wants it.
pub trait AsyncReadWrite: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> AsyncReadWrite for T {}

/// A connection being made.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn AsyncReadWrite>>> + Send>>;
/// Makes connections. On TLS, ALPN must offer `h2` for upstreams with protocol `http2` and gRPC probes, and
/// `http/1.1` for all others.
pub type Connect = Arc<dyn Fn(SocketAddr) -> Connecting + Send + Sync>;

/// Probes the endpoints of one upstream.
pub struct Prober {
    upstream: Arc<Upstream>,
    connect: Connect,
    /// `Host` or `:authority`; absent: the endpoint's name.
    authority: Option<String>,
}

impl Prober {
    /// An upstream without `[upstream.health]` gets a prober that does nothing.
    pub fn new(upstream: Arc<Upstream>, connect: Connect) -> Self {
        let authority = upstream
            .settings
            .tls
            .as_ref()
            .and_then(|tls| tls.name.clone());
        Prober {
            upstream,
            connect,
            authority,
        }
    }

    /// Runs until dropped, which is safe at any point. Endpoints that discovery brings are probed, ones that it takes
    /// away are not any more. `told` hears of every turn, after it took effect.
    pub async fn run(self, told: impl Fn(&Arc<Endpoint>, &Turn)) {
        let Some(policy) = self.upstream.settings.health.clone() else {
            return;
        };
        let mut watched: HashSet<u32> = HashSet::new();
        let mut watches = FuturesUnordered::new();
        loop {
            for endpoint in self.upstream.endpoints().iter() {
                if watched.insert(endpoint.id()) {
                    watches.push(self.watch(endpoint.clone(), &policy, &told));
                }
            }
            tokio::select! {
                () = self.upstream.changed.notified() => {}
                Some(endpoint) = watches.next() => {
                    watched.remove(&endpoint.id());
                }
            }
        }
    }

    /// Probes one endpoint until it is in the upstream no more. The endpoint is held all the while, so its number
    /// stays its own.
    async fn watch(
        &self,
        endpoint: Arc<Endpoint>,
        policy: &Health,
        told: &impl Fn(&Arc<Endpoint>, &Turn),
    ) -> Arc<Endpoint> {
        let mut watch = Watch::new(!endpoint.verdict.is_failing());
        tokio::time::sleep(Watch::first_wait(policy, fastrand::u64(..))).await;
        while self.upstream.endpoints().contains(&endpoint) {
            let result = self.probe(&endpoint, policy).await;
            let now = Moment::from(tokio::time::Instant::now().into_std());
            endpoint.verdict.note(&result, now);
            if let Some(turn) = watch.record(policy, result) {
                if turn == Turn::Healthy {
                    endpoint.begin_slowly(now);
                }
                endpoint.verdict.set_failing(turn != Turn::Healthy);
                told(&endpoint, &turn);
            }
            self.upstream.probed.notify_waiters();
            tokio::time::sleep(watch.wait(policy, fastrand::u64(..))).await;
        }
        endpoint
    }

    /// One probe: well, or why not. Connecting and the answer share one time-out.
    async fn probe(&self, endpoint: &Endpoint, policy: &Health) -> Result<(), String> {
        let authority = self.authority.as_deref().unwrap_or(endpoint.name());
        let probing = async {
            let stream = (self.connect)(endpoint.address())
                .await
                .map_err(|error| format!("could not connect: {error}"))?;
            match &policy.probe {
                Probe::Tcp => Ok(()),
                Probe::Http { path }
                    if self.upstream.settings.protocol == UpstreamProtocol::Http2 =>
                {
                    http::over_http2(stream, authority, path).await
                }
                Probe::Http { path } => http::over_http1(stream, authority, path).await,
                Probe::Grpc { service } => grpc::check(stream, authority, service).await,
            }
        };
        match tokio::time::timeout(policy.timeout, probing).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {}", words(policy.timeout))),
        }
    }
}

fn words(span: Duration) -> String {
    format!("{span:?}")
}

/// The endpoint closed the connection, or spoke something else.
fn broken(error: hyper::Error) -> String {
    format!("the exchange broke off: {error}")
}

/// The request could not even be written.
fn unwritable(error: ::http::Error) -> String {
    format!("the probe is no valid request: {error}")
}

#[cfg(test)]
mod tests;
