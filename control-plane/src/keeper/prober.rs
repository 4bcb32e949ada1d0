//! Sends the probes that the registry orders, so many at a time, and gives back what they found. A probe begins a
//! little later than it might, each by another span, so that those that were ordered together do not go out together.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Keeper, OUTCOMES};
use crate::registry::{Order, Outcome, Record};

impl Keeper {
    pub(super) async fn probe(
        self: Arc<Self>,
        mut orders: mpsc::UnboundedReceiver<(Order, Instant)>,
    ) {
        // Ends its tasks when this one ends.
        let mut sent = JoinSet::new();
        while let Some((order, ordered)) = orders.recv().await {
            let rules = self.rules();
            while sent.try_join_next().is_some() {}
            while sent.len() >= rules.probe.max_in_flight {
                sent.join_next().await;
            }
            // The registry has given it up.
            if ordered.elapsed() > rules.probe.timeout * 4 + rules.probe.interval {
                continue;
            }
            let keeper = self.clone();
            let late = spread(rules.probe.interval);
            sent.spawn(async move {
                tokio::time::sleep(late).await;
                let asked = tokio::time::timeout(order.timeout, ask(&order.record));
                let outcome = asked.await.unwrap_or(Outcome::Silent);
                if let Some(at) = OUTCOMES.iter().position(|known| *known == outcome) {
                    keeper.counts.probes[at].fetch_add(1, Relaxed);
                }
                keeper.call(|registry, rules, now| {
                    registry.probe_result(rules, &order.record.id, order.number, outcome, now)
                });
            });
        }
    }
}

/// Up to a twentieth of the interval.
fn spread(interval: Duration) -> Duration {
    interval.mul_f64(fastrand::f64() / 20.0)
}

/// Asks an instance whether it is ready.
async fn ask(record: &Record) -> Outcome {
    let stream = match TcpStream::connect(&*record.address).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Outcome::Refused,
        Err(_) => return Outcome::Silent,
    };
    let protocol = record.metadata.get("protocol").map(String::as_str);
    if !matches!(protocol, None | Some("http")) {
        return Outcome::Good;
    }
    match status(stream, record).await {
        Some(status) if status < 400 => Outcome::Good,
        Some(_) => Outcome::Refused,
        None => Outcome::Silent,
    }
}

async fn status(stream: TcpStream, record: &Record) -> Option<u16> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let request = Request::get(&record.health_endpoint)
        .header(header::HOST, &*record.address)
        .header(header::USER_AGENT, "tollgate-control-plane")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .ok()?;
    let mut answer = pin!(sender.send_request(request));
    let mut connection = pin!(connection);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // Whatever there is to come has come.
        _ = &mut connection => answer.await,
    };
    Some(answer.ok()?.status().as_u16())
}
