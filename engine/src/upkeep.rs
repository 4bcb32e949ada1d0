//! Looks after the upstreams that serve: asks names again, probes health. One set of tasks per upstream, on the control
//! thread; a task ends with the upstream's place in the document.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::net::connect::{DialTls, dial};
use crate::net::tls::ClientTls;
use crate::snapshot::{Snapshot, UpstreamPlan};
use crate::telemetry::log;
use crate::telemetry::metrics::Known;
use crate::upstream::discovery::{self, Source};
use crate::upstream::{Connect, EndpointMemory, Prober, Turn};

/// How long a starting process waits for names to be found before it serves all the same.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Upkeep {
    tended: HashMap<String, Tended>,
}

struct Tended {
    plan: Arc<UpstreamPlan>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Upkeep {
    /// Tends exactly the upstreams of this snapshot from now on. Must run on the control thread.
    pub fn follow(&mut self, snapshot: &Snapshot, memory: &Arc<EndpointMemory>) {
        let serving: HashSet<_> = snapshot.upstreams.iter().map(Arc::as_ptr).collect();
        self.tended
            .retain(|_, tended| serving.contains(&Arc::as_ptr(&tended.plan)));
        for plan in &snapshot.upstreams {
            if !self.tended.contains_key(&plan.item.name) {
                let tasks = tend(plan, memory);
                self.tended.insert(
                    plan.item.name.clone(),
                    Tended {
                        plan: plan.clone(),
                        tasks,
                    },
                );
            }
        }
    }

    /// Waits until every upstream has an endpoint, but not for long.
    pub async fn first_answers(&self) {
        let until = Instant::now() + FIRST_ANSWERS;
        let empty = || {
            self.tended
                .values()
                .any(|tended| tended.plan.upstream.endpoints().is_empty())
        };
        while empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn tend(plan: &Arc<UpstreamPlan>, memory: &Arc<EndpointMemory>) -> Vec<AbortHandle> {
    let upstream = Arc::downgrade(&plan.upstream);
    plan.series.asks(move || {
        upstream
            .upgrade()
            .map_or_else(Known::default, |upstream| upstream.known(Instant::now()))
    });
    let mut tasks = Vec::new();
    if let Some(source) = Source::of(&plan.item.endpoints) {
        let discovering = discover(plan.clone(), memory.clone(), source);
        tasks.push(tokio::task::spawn_local(discovering).abort_handle());
    }
    if plan.item.health.is_some() {
        tasks.push(tokio::task::spawn_local(probe(plan.clone())).abort_handle());
    }
    tasks
}

async fn discover(plan: Arc<UpstreamPlan>, memory: Arc<EndpointMemory>, source: Source) {
    let identity = plan
        .item
        .tls
        .as_ref()
        .map(|tls| tls.name.as_deref().unwrap_or("*").to_owned());
    discovery::watch(source, |found| {
        let known = |one| memory.endpoint(&plan.item.name, identity.as_deref(), one);
        plan.upstream
            .replace(found.iter().map(known).collect(), Instant::now());
    })
    .await;
}

async fn probe(plan: Arc<UpstreamPlan>) {
    let connect = connector(plan.dial.tls.clone(), plan.upstream.clone());
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

fn connector(tls: Option<ClientTls>, upstream: Arc<crate::upstream::Upstream>) -> Connect {
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
                Some((tls, name)) => Some(DialTls::of(&tls, &name)?),
            };
            let (stream, _) = dial(address, tls.as_ref()).await?;
            Ok(Box::new(stream) as Box<dyn crate::upstream::AsyncReadWrite>)
        })
    })
}
