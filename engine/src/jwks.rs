//! Fetches the keys that issuers of tokens publish: on the control thread, one task for each, from the first snapshot that
//! names it to the last. No request waits for it: keys stay as long as no newer ones come, and a request that would like
//! newer ones leaves a wish, which is granted at most once in ten seconds.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tollgate_config::document::{At, UpstreamTls};
use tollgate_config::{Jwks, UpstreamProtocol};

use crate::clock::unix_seconds;
use crate::filter::jwt::learned::FRESH;
use crate::filter::jwt::{Issuer, Learned};
use crate::net::connect::{DialTls, dial};
use crate::net::tls::ClientTls;
use crate::snapshot::Snapshot;
use crate::telemetry::log;
use crate::telemetry::metrics::JwtSeries;
use crate::upstream::discovery::resolve;

/// From a name to the last byte of an answer.
const FETCH: Duration = Duration::from_secs(10);
/// Bytes of a set of keys.
const LARGEST: usize = 256 * 1024;
/// Between two attempts before the first keys; doubled up to the second.
const RETRY: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];
/// Between two attempts when there are keys and no newer ones come.
const STALE: Duration = Duration::from_secs(30);
/// How long a starting process waits for the first keys before it serves all the same.
const FIRST_KEYS: Duration = Duration::from_secs(2);

/// Who fetches for whom.
#[derive(Default)]
pub struct Fetching {
    tended: HashMap<String, Tended>,
}

struct Tended {
    learned: Arc<Learned>,
    settings: Jwks,
    task: AbortHandle,
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fetching {
    /// Fetches for exactly the issuers of this snapshot from now on. Must run on the control thread.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let mut former = std::mem::take(&mut self.tended);
        for issuer in snapshot.issuers.all() {
            let item = issuer.item();
            let (Some(settings), Some(learned)) = (&item.jwks, issuer.learned()) else {
                continue;
            };
            let same = former.remove(&item.name).filter(|tended| {
                tended.settings == *settings && Arc::ptr_eq(&tended.learned, learned)
            });
            let tended = same.unwrap_or_else(|| tend(issuer, settings, learned));
            self.tended.insert(item.name.clone(), tended);
        }
    }

    /// Waits until every issuer was asked once, but not for long.
    pub async fn first_answers(&self) {
        let until = Instant::now() + FIRST_KEYS;
        let unasked = |tended: &Tended| tended.learned.standing().fetches == 0;
        while self.tended.values().any(unasked) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn tend(issuer: &Arc<Issuer>, settings: &Jwks, learned: &Arc<Learned>) -> Tended {
    let task = fetching(
        issuer.item().name.clone(),
        settings.clone(),
        learned.clone(),
        issuer.series().clone(),
    );
    Tended {
        learned: learned.clone(),
        settings: settings.clone(),
        task: tokio::task::spawn_local(task).abort_handle(),
    }
}

async fn fetching(name: String, settings: Jwks, learned: Arc<Learned>, series: Arc<JwtSeries>) {
    let mut retry = RETRY[0];
    let mut was_well = true;
    loop {
        let began = tokio::time::Instant::now();
        let body = fetch(&settings).await;
        let wall = SystemTime::now();
        let result = learned.learn(body, Instant::now(), wall);
        tell(&name, &settings, &result, was_well);
        was_well = result.is_ok();
        {
            let standing = learned.standing();
            let since = standing.since.map_or(0, unix_seconds);
            let keys = learned.count() as u64;
            series.stands(standing.fetches, standing.failures, keys, since);
        }
        let pause = match (&result, learned.is_empty()) {
            (Ok(()), _) => settings.refresh,
            (Err(_), false) => settings.refresh.min(STALE),
            (Err(_), true) => {
                let pause = retry;
                retry = (retry * 2).min(RETRY[1]);
                pause
            }
        };
        let again = tokio::time::sleep_until(began + pause);
        if learned.is_empty() {
            again.await;
            continue;
        }
        let wished = async {
            learned.wished().await;
            tokio::time::sleep_until(began + FRESH).await;
        };
        let _whichever_comes_first = select(pin!(again), pin!(wished)).await;
    }
}

/// Once when it begins to fail, and once when it is well again.
fn tell(name: &str, settings: &Jwks, result: &Result<(), String>, was_well: bool) {
    let url = &settings.url.text;
    match (result, was_well) {
        (Ok(()), false) => log::info("keys of tokens come again", &[("jwt", &name), ("url", url)]),
        (Err(why), true) => log::warn(
            "keys of tokens cannot be fetched; those before stay",
            &[("jwt", &name), ("url", url), ("reason", why)],
        ),
        _ => {}
    }
}

async fn fetch(settings: &Jwks) -> Result<Vec<u8>, String> {
    match tokio::time::timeout(FETCH, ask(settings)).await {
        Ok(answered) => answered,
        Err(_) => Err(format!("no answer within {FETCH:?}")),
    }
}

async fn ask(settings: &Jwks) -> Result<Vec<u8>, String> {
    let url = &settings.url;
    let address = resolve(&url.address).await?;
    let tls = match url.encrypted {
        false => None,
        true => {
            // Read at every attempt: a renewed authority needs no restart.
            let tls = UpstreamTls {
                ca: settings.ca.clone(),
                name: None,
                cert: None,
                key: None,
                at: At(None),
            };
            let tls = ClientTls::load(&tls, UpstreamProtocol::Http1);
            let tls = tls.map_err(|error| error.to_string())?;
            Some(DialTls::of(&tls, &url.address).map_err(|error| error.to_string())?)
        }
    };
    let dialed = dial(address, tls.as_ref()).await;
    let (stream, _) = dialed.map_err(|error| error.to_string())?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(&url.path)
        .header(header::HOST, &url.address)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(
            header::USER_AGENT,
            concat!("tollgate/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let asking = async {
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        // Not even a redirect: whoever says where keys are is the document alone.
        if answer.status() != StatusCode::OK {
            return Err(format!("it answered {}", answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes().to_vec())
    };
    match select(pin!(asking), pin!(connection)).await {
        Either::Left((answered, _)) => answered,
        // The connection is over before the answer was taken: it may be there all the same.
        Either::Right((_, asking)) => asking.await,
    }
}
