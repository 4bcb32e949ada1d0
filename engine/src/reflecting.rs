//! Asks upstreams for their descriptors (gRPC server reflection), for routes that transcode by them: on the control thread,
//! one task for each such upstream, from the first snapshot that names it to the last. No request and no other part of a
//! document waits for it: descriptors stay as long as no others come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, StatusCode, header};
use tokio::task::AbortHandle;

use crate::clock::unix_seconds;
use crate::net::connect::{DialTls, dial};
use crate::snapshot::{Snapshot, UpstreamPlan};
use crate::telemetry::log;
use crate::telemetry::metrics::{DescriptorSeries, Metrics};
use crate::transcode::Reflected;
use crate::transcode::frames::Frames;
use crate::transcode::reflection::{Gathering, LARGEST, PATHS};

/// From dialing to the last file.
const ASKING: Duration = Duration::from_secs(10);
/// Between two attempts before the first descriptors; doubled up to the second.
const RETRY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];
/// Between two attempts when there are descriptors and the upstream does not answer.
const STALE: Duration = Duration::from_secs(30);
/// How long a starting process waits for the first answers before it serves all the same.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);
/// What may be on its way to us, of a stream and of all.
const WINDOW: u32 = 1 << 20;

/// Who asks whom.
pub struct Reflecting {
    metrics: Arc<Metrics>,
    tended: HashMap<String, Tended>,
}

struct Tended {
    plan: Arc<UpstreamPlan>,
    refresh: Duration,
    series: Arc<DescriptorSeries>,
    task: AbortHandle,
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reflecting {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Reflecting {
            metrics,
            tended: HashMap::new(),
        }
    }

    /// Asks exactly the upstreams of which this snapshot wants descriptors from now on. Must run on the control thread.
    pub fn follow(&mut self, snapshot: &Snapshot, reflected: &Arc<Reflected>) {
        let mut former = std::mem::take(&mut self.tended);
        for (name, refresh) in snapshot.transcoders.reflected() {
            let mut plans = snapshot.upstreams.iter();
            let Some(plan) = plans.find(|plan| plan.item.name == name) else {
                continue;
            };
            let same = former
                .remove(name)
                .filter(|tended| Arc::ptr_eq(&tended.plan, plan) && tended.refresh == refresh);
            let tended = same.unwrap_or_else(|| self.tend(plan, refresh, reflected));
            self.tended.insert(name.to_owned(), tended);
        }
        for name in former.keys() {
            reflected.forget(name);
        }
    }

    /// Waits until every upstream whose descriptors are not known was asked once, but not for long.
    pub async fn first_answers(&self, reflected: &Reflected) {
        let until = Instant::now() + FIRST_ANSWERS;
        let unasked = |(name, tended): (&String, &Tended)| {
            tended.series.fetches() == 0 && reflected.of(name).is_none()
        };
        while self.tended.iter().any(unasked) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn tend(
        &self,
        plan: &Arc<UpstreamPlan>,
        refresh: Duration,
        reflected: &Arc<Reflected>,
    ) -> Tended {
        let series = self.metrics.descriptors(&plan.item.name);
        let asking = asking(plan.clone(), refresh, reflected.clone(), series.clone());
        Tended {
            plan: plan.clone(),
            refresh,
            series,
            task: tokio::task::spawn_local(asking).abort_handle(),
        }
    }
}

async fn asking(
    plan: Arc<UpstreamPlan>,
    refresh: Duration,
    reflected: Arc<Reflected>,
    series: Arc<DescriptorSeries>,
) {
    let (name, mut retry, mut was_well) = (&plan.item.name, RETRY[0], true);
    for turn in 0.. {
        let began = tokio::time::Instant::now();
        let told = match tokio::time::timeout(ASKING, ask(&plan, turn)).await {
            Ok(told) => told,
            Err(_) => Err(format!("no complete answer within {ASKING:?}")),
        };
        let result = match told {
            Ok(set) => take(name, set, &reflected).await,
            Err(why) => Err(why),
        };
        series.asked(result.is_ok().then(|| unix_seconds(SystemTime::now())));
        tell(name, &result, was_well);
        was_well = result.is_ok();
        let pause = match (&result, reflected.of(name).is_some()) {
            (Ok(()), _) => refresh,
            (Err(_), true) => refresh.min(STALE),
            (Err(_), false) => {
                let pause = retry;
                retry = (retry * 2).min(RETRY[1]);
                pause
            }
        };
        tokio::time::sleep_until(began + pause).await;
    }
}

/// What was told becomes what is known, and is kept.
async fn take(name: &str, set: Vec<u8>, reflected: &Arc<Reflected>) -> Result<(), String> {
    if !reflected.learn(name, &set)? {
        return Ok(());
    }
    let size = set.len().to_string();
    log::info(
        "descriptors of an upstream came",
        &[("upstream", &name), ("bytes", &size)],
    );
    let (reflected, name) = (reflected.clone(), name.to_owned());
    // A disk may be slow, and this thread has others to look after.
    let keeping = tokio::task::spawn_blocking(move || reflected.keep(&name, &set));
    let _told_in_the_log = keeping.await;
    Ok(())
}

/// Once when it begins to fail, and once when it is well again.
fn tell(name: &str, result: &Result<(), String>, was_well: bool) {
    match (result, was_well) {
        (Ok(()), false) => log::info(
            "an upstream tells its descriptors again",
            &[("upstream", &name)],
        ),
        (Err(why), true) => log::warn(
            "an upstream does not tell its descriptors; those before stay",
            &[("upstream", &name), ("reason", why)],
        ),
        _ => {}
    }
}

/// One endpoint is asked; after a failure another one, if there is.
async fn ask(plan: &UpstreamPlan, turn: usize) -> Result<Vec<u8>, String> {
    let endpoints = plan.upstream.endpoints();
    let now = Instant::now();
    let healthy: Vec<_> = endpoints
        .iter()
        .filter(|endpoint| endpoint.is_healthy(now))
        .collect();
    let all: Vec<_> = endpoints.iter().collect();
    let those = if healthy.is_empty() { all } else { healthy };
    let Some(endpoint) = those.get(turn % those.len().max(1)) else {
        return Err("it has no endpoint".to_owned());
    };
    let name = endpoint.name();
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", endpoint.address());
    let tls = match &plan.dial.tls {
        None => None,
        Some(tls) => Some(DialTls::of(tls, name).map_err(|error| told(&error))?),
    };
    let dialed = dial(endpoint.address(), tls.as_ref()).await;
    let (stream, _) = dialed.map_err(|error| told(&error))?;
    let handshake = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await;
    let (sender, connection) = handshake.map_err(|error| told(&error))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let origin = format!("{scheme}://{name}");
    let asking = async {
        let mut unserved = String::new();
        for path in PATHS {
            match gather(&sender, &format!("{origin}{path}")).await {
                Ok(set) => return Ok(set),
                Err(Failed::Unserved(why)) => unserved = why,
                Err(Failed::Otherwise(why)) => return Err(why),
            }
        }
        Err(format!("it serves no reflection: {unserved}"))
    };
    // Whoever waits for a stream of it is told when it ends.
    let driving = async {
        drop(connection.await);
        std::future::pending().await
    };
    tokio::select! {
        gathered = asking => gathered.map_err(|why| told(&why)),
        () = driving => Err(told(&"the connection ended")),
    }
}

/// Why there was no answer.
enum Failed {
    /// The method is not there.
    Unserved(String),
    Otherwise(String),
}

impl Failed {
    fn because(why: impl std::fmt::Display) -> Failed {
        Failed::Otherwise(why.to_string())
    }

    /// By how the call ended.
    fn ended(headers: &HeaderMap) -> Failed {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let words = format!(
            "grpc-status {}, {}",
            text("grpc-status").unwrap_or("missing"),
            text("grpc-message").unwrap_or("without a message"),
        );
        match text("grpc-status") {
            Some("12") => Failed::Unserved(words),
            _ => Failed::Otherwise(words),
        }
    }
}

/// One call of the method: question after question, each when the one before was answered.
async fn gather(sender: &SendRequest<Bytes>, url: &str) -> Result<Vec<u8>, Failed> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(
            header::USER_AGENT,
            concat!("tollgate/", env!("CARGO_PKG_VERSION")),
        )
        .body(())
        .map_err(Failed::because)?;
    let mut sender = sender.clone().ready().await.map_err(Failed::because)?;
    let (answer, mut questions) = sender
        .send_request(request, false)
        .map_err(Failed::because)?;
    let mut gathering = Gathering::default();
    let mut question = gathering.next();
    // The library keeps what does not fit into the other side's window: one short question at a time.
    if let Some(first) = &question {
        let sent = questions.send_data(framed(&first.message()), false);
        sent.map_err(Failed::because)?;
    }
    let (head, mut body) = answer.await.map_err(Failed::because)?.into_parts();
    match head.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED => {
            return Err(Failed::Unserved(format!("HTTP {}", head.status.as_u16())));
        }
        status => return Err(Failed::because(format!("HTTP {}", status.as_u16()))),
    }
    if head.headers.contains_key("grpc-status") {
        return Err(Failed::ended(&head.headers));
    }
    let mut frames = Frames::new(LARGEST);
    while let Some(asked) = question {
        let message = loop {
            let next = frames.next();
            if let Some(message) = next.map_err(|error| Failed::because(error.words()))? {
                break message;
            }
            let Some(piece) = body.data().await else {
                let trailers = body.trailers().await.map_err(Failed::because)?;
                return Err(Failed::ended(&trailers.unwrap_or_default()));
            };
            let piece = piece.map_err(Failed::because)?;
            let taken = body.flow_control().release_capacity(piece.len());
            taken.map_err(Failed::because)?;
            frames.push(piece);
        };
        gathering.take(&asked, &message).map_err(Failed::because)?;
        question = gathering.next();
        let message = question.as_ref().map(|next| framed(&next.message()));
        let sent = questions.send_data(message.unwrap_or_default(), question.is_none());
        sent.map_err(Failed::because)?;
    }
    Ok(gathering.set())
}

/// Not compressed, length, message.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}
