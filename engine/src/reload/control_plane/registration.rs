//! Announces a service for as long as this process is ready: registers, beats, and takes the word back first when it
//! stops (REG-402, REG-408). On a connection of its own, so that it does not depend on the feed. That no control plane
//! answers harms nothing that serves.

use std::hash::BuildHasher;
use std::rc::Rc;
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep_until, timeout};
use tollgate_config::{ControlPlane, Register};

use super::Feed;
use super::beats::{Act, Beats};
use super::link::{Connection, escaped};
use super::turns::Turns;
use crate::telemetry::log;

/// For the word to be taken back before a process drains.
const LEAVE: Duration = Duration::from_secs(2);

/// Registers and beats until aborted.
pub(super) async fn keep(feed: Rc<Feed>, settings: ControlPlane, register: Register, id: String) {
    feed.is_ready().await;
    let mut turns = Turns::new(settings.urls.len());
    let mut beats = Beats::new(Instant::now());
    let mut open: Option<(String, Connection)> = None;
    loop {
        sleep_until(beats.due().into()).await;
        let (url, connection) = match open.take() {
            Some(open) => open,
            None => {
                let (turn, _) = turns.take(0.0);
                let Some(url) = settings.urls.get(turn) else {
                    return;
                };
                match Connection::open(url, &settings).await {
                    Ok(connection) => (url.text.clone(), connection),
                    Err(why) => {
                        beats.failed(Instant::now(), fastrand::f64());
                        feed.unregistered(&url.text, &why);
                        continue;
                    }
                }
            }
        };
        let act = beats.act();
        let (method, path, body) = match act {
            Act::Register => (Method::POST, "/register".to_owned(), record(&register, &id)),
            Act::Beat => (
                Method::PUT,
                format!("/heartbeat/{}", escaped(&id)),
                json!({ "id": id, "name": register.name, "health": "healthy" }),
            ),
        };
        // Sent may be taken, whatever becomes of the answer.
        feed.status.borrow_mut().may_be_registered(&id);
        let answer = connection.ask(method, &path, body.to_string().into()).await;
        let (now, random) = (Instant::now(), fastrand::f64());
        match answer {
            Ok((status, text)) if status.is_success() => {
                if act == Act::Register {
                    beats.registered(beat_of(&text), now, random);
                    feed.registered(&url, &id);
                } else {
                    beats.kept(now, random);
                }
                turns.good();
                open = Some((url, connection));
            }
            Ok((StatusCode::NOT_FOUND, _)) if act == Act::Beat => {
                beats.unknown(now);
                feed.unregistered(&url, "it did not know us any more");
                open = Some((url, connection));
            }
            Ok((status, text)) => {
                beats.failed(now, random);
                feed.unregistered(&url, &format!("it answered {}: {text}", status.as_u16()));
            }
            Err(why) => {
                beats.failed(now, random);
                feed.unregistered(&url, &why);
            }
        }
    }
}

/// Takes the word back: nobody should come any more. Not for long, and whatever happens the process stops.
pub(super) async fn leave(settings: &ControlPlane, id: &str) {
    let path = format!("/services/{}", escaped(id));
    let leaving = async {
        let mut last = String::new();
        for url in &settings.urls {
            let asked = match Connection::open(url, settings).await {
                Ok(connection) => connection.ask(Method::DELETE, &path, "".into()).await,
                Err(why) => Err(why),
            };
            match asked {
                Ok((status, _)) if status.is_success() || status == StatusCode::NOT_FOUND => {
                    return Ok(());
                }
                Ok((status, text)) => last = format!("it answered {}: {text}", status.as_u16()),
                Err(why) => last = why,
            }
        }
        Err(last)
    };
    let left = timeout(LEAVE, leaving).await;
    match left.unwrap_or_else(|_| Err(format!("no answer within {LEAVE:?}"))) {
        Ok(()) => log::info("deregistered", &[("id", &id)]),
        Err(why) => log::warn(
            "not deregistered; the control plane will notice that no beat comes",
            &[("id", &id), ("why", &why)],
        ),
    }
}

fn record(register: &Register, id: &str) -> Value {
    let metadata = register.metadata.iter();
    let metadata: serde_json::Map<String, Value> = metadata
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    json!({
        "id": id,
        "name": register.name,
        "address": register.address,
        "health": "healthy",
        "health_endpoint": register.health,
        "metadata": metadata,
    })
}

/// How often the control plane wants to hear: what it says, or a third of the beats.
fn beat_of(answer: &str) -> Option<Duration> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let seconds = |key: &str| answer[key].as_u64();
    let beat = seconds("heartbeat_seconds").or_else(|| Some(seconds("lease_seconds")? / 3))?;
    Some(Duration::from_secs(beat))
}

/// `{service}-{machine}-{port}-{uuid}` (REG-101). The same for the same service at the same address of the same node:
/// a process that comes back, or takes over, is the instance that it was.
pub(super) fn id_of(register: &Register, node: &str, machine: &str) -> String {
    let of = |seed: u64| {
        let text = (&register.name, &register.address, node, machine);
        u128::from(FixedState::with_seed(seed).hash_one(text))
    };
    let port = register.address.rsplit(':').next().unwrap_or_default();
    let bits = of(1) << 64 | of(2);
    // As RFC 9562 writes one that its maker made in a way of its own.
    format!(
        "{}-{machine}-{port}-{}",
        register.name,
        super::uuid(bits, 8)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reg_101_an_instance_keeps_its_id_and_no_other_has_it() {
        let register = |address: &str| Register {
            name: "orders".to_owned(),
            address: address.to_owned(),
            health: "/health/ready".to_owned(),
            metadata: Vec::new(),
        };
        let id = id_of(&register("10.0.0.7:7000"), "n", "m");
        assert!(id.starts_with("orders-m-7000-"), "{id}");
        assert_eq!(id.len(), "orders-m-7000-".len() + 36);
        assert_eq!(id, id_of(&register("10.0.0.7:7000"), "n", "m"));
        assert_ne!(id, id_of(&register("10.0.0.8:7000"), "n", "m"));
        assert_ne!(id, id_of(&register("10.0.0.7:7000"), "o", "m"));
    }

    #[test]
    fn how_often_to_beat_is_the_control_planes_word() {
        let seconds = |text: &str| beat_of(text).map(|beat| beat.as_secs());
        assert_eq!(
            seconds(r#"{"lease_seconds": 45, "heartbeat_seconds": 15}"#),
            Some(15)
        );
        assert_eq!(seconds(r#"{"lease_seconds": 60}"#), Some(20));
        assert_eq!(seconds("{}"), None);
        assert_eq!(seconds("registered"), None);
    }
}
