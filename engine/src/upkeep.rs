//! Looks after the upstreams that serve: asks names again, follows services, probes health. One set of tasks per upstream, on the control
//! thread; a task ends with the upstream's place in the document.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;
use tollgate_config::{EndpointSource, Probe};

use crate::jwks::Fetching;
use crate::net::connect::{DialTls, dial};
use crate::reflecting::Reflecting;
use crate::snapshot::compile::peer_name;
use crate::snapshot::memory::Memory;
use crate::snapshot::{Snapshot, UpstreamPlan};
use crate::telemetry::log;
use crate::telemetry::metrics::{Known, Metrics};
use crate::upstream::discovery::{self, Source};
use crate::upstream::{Connect, EndpointMemory, Prober, Resolved, Turn};

/// How long a starting process waits for names to be found before it serves all the same.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);

pub struct Upkeep {
    tended: HashMap<String, Tended>,
    /// Keys that issuers of tokens publish.
    keys: Fetching,
    /// Descriptors that upstreams tell.
    descriptors: Reflecting,
}

struct Tended {
    plan: Arc<UpstreamPlan>,
    /// Asks for names that the endpoints are behind; without it there is nothing to wait for.
    discovery: Option<AbortHandle>,
    probe: Option<AbortHandle>,
}

impl Drop for Tended {
    fn drop(&mut self) {
        let tasks = [&self.discovery, &self.probe];
        tasks.into_iter().flatten().for_each(AbortHandle::abort);
    }
}

impl Upkeep {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Upkeep {
            tended: HashMap::new(),
            keys: Fetching::default(),
            descriptors: Reflecting::new(metrics),
        }
    }

    /// Tends exactly the upstreams of this snapshot from now on. Must run on the control thread.
    pub fn follow(&mut self, snapshot: &Snapshot, memory: &Memory) {
        self.keys.follow(snapshot);
        self.descriptors.follow(snapshot, &memory.reflected);
        let serving: HashSet<_> = snapshot.upstreams.iter().map(Arc::as_ptr).collect();
        self.tended
            .retain(|_, tended| serving.contains(&Arc::as_ptr(&tended.plan)));
        // A template has no endpoints, only what is made of it.
        for plan in snapshot
            .upstreams
            .iter()
            .filter(|plan| plan.learns().is_none())
        {
            if !self.tended.contains_key(&plan.item.name) {
                self.tended
                    .insert(plan.item.name.clone(), tend(plan, memory));
            }
        }
    }

    /// The instances of these services are others: their upstreams, and nothing else, learn of it.
    pub fn services_changed(&mut self, names: &[String], memory: &Memory) {
        for tended in self.tended.values_mut() {
            let EndpointSource::Service { name, .. } = &tended.plan.item.endpoints else {
                continue;
            };
            if !names.contains(name) {
                continue;
            }
            if let Some(former) = tended.discovery.take() {
                former.abort();
            }
            let source = memory.services.source(&tended.plan.item.endpoints);
            match source.as_ref().and_then(Source::fixed) {
                Some(found) => replace(&tended.plan, &memory.endpoints, &found),
                None => tended.discovery = discovery(&tended.plan, memory),
            }
        }
    }

    /// Whether the addresses of its instances are still to be found.
    pub fn seeks(&self, plan: &UpstreamPlan) -> bool {
        let tended = self.tended.get(&plan.item.name);
        tended.is_some_and(|tended| tended.discovery.is_some())
            && plan.upstream.endpoints().is_empty()
    }

    /// Waits until every upstream has an endpoint, every issuer was asked for its keys, and every upstream whose descriptors
    /// are needed for them, but not for long.
    pub async fn first_answers(&self, memory: &Memory) {
        tokio::join!(
            self.first_endpoints(),
            self.keys.first_answers(),
            self.descriptors.first_answers(&memory.reflected)
        );
    }

    async fn first_endpoints(&self) {
        let all = async {
            for tended in self.tended.values() {
                if tended.discovery.is_some() {
                    tended.plan.upstream.found().await;
                }
            }
        };
        let _late = tokio::time::timeout(FIRST_ANSWERS, all).await;
    }
}

fn tend(plan: &Arc<UpstreamPlan>, memory: &Memory) -> Tended {
    let upstream = Arc::downgrade(&plan.upstream);
    plan.series.asks(move || {
        upstream
            .upgrade()
            .map_or_else(Known::default, |upstream| upstream.known(Instant::now()))
    });
    let probed = plan.item.health.is_some();
    Tended {
        plan: plan.clone(),
        discovery: discovery(plan, memory),
        probe: probed.then(|| tokio::task::spawn_local(probe(plan.clone())).abort_handle()),
    }
}

fn discovery(plan: &Arc<UpstreamPlan>, memory: &Memory) -> Option<AbortHandle> {
    let source = memory.services.source(&plan.item.endpoints)?;
    if source.fixed().is_some() {
        return None;
    }
    let discovering = discover(plan.clone(), memory.endpoints.clone(), source);
    Some(tokio::task::spawn_local(discovering).abort_handle())
}

async fn discover(plan: Arc<UpstreamPlan>, memory: Arc<EndpointMemory>, source: Source) {
    discovery::watch(source, |found| replace(&plan, &memory, &found)).await;
}

fn replace(plan: &UpstreamPlan, memory: &EndpointMemory, found: &[Resolved]) {
    let identity = peer_name(&plan.item, plan.dial.tls.as_ref());
    let known = |one| memory.endpoint(&plan.item.name, identity.as_deref(), one);
    plan.upstream
        .replace(found.iter().map(known).collect(), Instant::now());
}

async fn probe(plan: Arc<UpstreamPlan>) {
    let connect = connector(&plan);
    let name = plan.item.name.clone();
    Prober::new(plan.upstream.clone(), connect)
        .run(move |endpoint, turn| {
            let address = endpoint.address().to_string();
            match turn {
                Turn::Healthy => log::info(
                    "endpoint is healthy again",
                    &[("upstream", &name), ("endpoint", &address)],
                ),
                Turn::Unhealthy(reason) => {
                    log::warn(
                        "endpoint fails its probes",
                        &[
                            ("upstream", &name),
                            ("endpoint", &address),
                            ("reason", reason),
                        ],
                    );
                }
            }
        })
        .await;
}

/// Makes a probe's connections. Where an endpoint may choose the protocol, a page is asked for over HTTP/1.1, and nothing else
/// is offered; the health service of gRPC is asked over HTTP/2.
fn connector(plan: &UpstreamPlan) -> Connect {
    let (tls, upstream) = (plan.dial.tls.clone(), plan.upstream.clone());
    let health = plan.item.health.as_ref();
    let asks_a_page = health.is_some_and(|health| matches!(health.probe, Probe::Http { .. }));
    let secured = match plan.dial.http2 {
        None if asks_a_page => DialTls::for_http1,
        _ => DialTls::of,
    };
    Arc::new(move |address: SocketAddr| {
        let tls = tls.clone().map(|tls| {
            let name = upstream
                .endpoints()
                .iter()
                .find(|endpoint| endpoint.address() == address)
                .map(|endpoint| endpoint.name().to_owned());
            (tls, name.unwrap_or_else(|| address.to_string()))
        });
        Box::pin(async move {
            let tls = match tls {
                None => None,
                Some((tls, name)) => Some(secured(&tls, &name)?),
            };
            let (stream, _) = dial(address, tls.as_ref()).await?;
            Ok(Box::new(stream) as Box<dyn crate::upstream::AsyncReadWrite>)
        })
    })
}
