//! Announces a service for as long as this process is ready, and the application behind it answers its probes:
//! registers, beats, and takes the word back first when it stops (REG-402, REG-408, MESH-105). On a connection of its own, so that it does not depend on the feed. That no control plane
//! answers harms nothing that serves.

use std::hash::BuildHasher;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, sleep_until, timeout};
use tollgate_config::{Announced, ControlPlane, Register};

use super::Feed;
use super::beats::{Act, Beats};
use super::link::{Connection, escaped};
use super::turns::Turns;
use crate::telemetry::log;
use crate::upstream::{Standing, Upstream};

/// How long an answer of probes may be overlooked after a reload put another upstream in place.
const LOOK: Duration = Duration::from_secs(1);
/// For the word to be taken back before a process drains.
const LEAVE: Duration = Duration::from_secs(2);

/// Announces the instance whenever the application answers, until aborted.
pub(super) async fn keep(feed: Rc<Feed>, settings: ControlPlane, register: Register, id: String) {
    feed.is_ready().await;
    let application = Application {
        feed: &feed,
        upstream: register.upstream.as_deref(),
    };
    loop {
        if application.upstream.is_some() {
            feed.status
                .borrow_mut()
                .is_withdrawn("none of its probes was good yet");
        }
        application.answers().await;
        let Some(why) = announce(&feed, &settings, &register, &id, &application).await else {
            return;
        };
        feed.withdrawn(&why);
        leave(&settings, &id).await;
        feed.status.borrow_mut().forget_registration();
    }
}

/// Registers and beats until the application answers no more; returns why.
async fn announce(
    feed: &Feed,
    settings: &ControlPlane,
    register: &Register,
    id: &str,
    application: &Application<'_>,
) -> Option<String> {
    let mut turns = Turns::new(settings.urls.len());
    let mut beats = Beats::new(Instant::now());
    let mut open: Option<(String, Connection)> = None;
    loop {
        // Only between two requests: one that was sent may be taken after the word was taken back.
        tokio::select! {
            () = sleep_until(beats.due().into()) => {}
            why = application.fails() => return Some(why),
        }
        let (url, connection) = match open.take() {
            Some(open) => open,
            None => {
                let (turn, _) = turns.take(0.0);
                let url = settings.urls.get(turn)?;
                match Connection::open(url, settings).await {
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
            Act::Register => {
                let address = reached(register, connection.local());
                (
                    Method::POST,
                    "/register".to_owned(),
                    record(register, &address, id),
                )
            }
            Act::Beat => (
                Method::PUT,
                format!("/heartbeat/{}", escaped(id)),
                json!({ "id": id, "name": register.name, "health": "healthy" }),
            ),
        };
        // Sent may be taken, whatever becomes of the answer.
        feed.status.borrow_mut().may_be_registered(id);
        let answer = connection.ask(method, &path, body.to_string().into()).await;
        let (now, random) = (Instant::now(), fastrand::f64());
        match answer {
            Ok((status, text)) if status.is_success() => {
                if act == Act::Register {
                    beats.registered(beat_of(&text), now, random);
                    feed.registered(&url, id);
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

/// Whom the instance is announced for, as probes of an upstream know it. Without an upstream it is this process, which
/// is well as long as it can say so.
struct Application<'f> {
    feed: &'f Feed,
    upstream: Option<&'f str>,
}

impl Application<'_> {
    /// Returns as soon as it passed a probe.
    async fn answers(&self) {
        self.until(|upstream| upstream.standing() == Standing::Well)
            .await;
    }

    /// Returns as soon as it fails its probes, and why.
    async fn fails(&self) -> String {
        if self.upstream.is_none() {
            return std::future::pending().await;
        }
        let complaint = self
            .until(|upstream| upstream.standing() == Standing::Failing)
            .await;
        complaint.unwrap_or_else(|| "there is nobody to ask".to_owned())
    }

    async fn until(&self, is: impl Fn(&Upstream) -> bool) -> Option<String> {
        let name = self.upstream?;
        loop {
            // A reload may put another in its place, so nobody holds on to one for long.
            let upstream = self.feed.upstream(name);
            let Some(upstream) = upstream else {
                sleep(LOOK).await;
                continue;
            };
            let mut probed = pin!(upstream.probed());
            probed.as_mut().enable();
            if is(&upstream) {
                return upstream.complaint();
            }
            let _looked_at_again = timeout(LOOK, probed).await;
        }
    }
}

/// The address that is announced. Whoever listens everywhere is reached where the way to the control plane begins.
fn reached(register: &Register, local: Option<IpAddr>) -> String {
    let Announced::Address(address) = &register.address else {
        return String::new();
    };
    match (address.parse::<SocketAddr>(), local) {
        (Ok(bound), Some(local)) if bound.ip().is_unspecified() => {
            SocketAddr::new(local, bound.port()).to_string()
        }
        _ => address.clone(),
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

fn record(register: &Register, address: &str, id: &str) -> Value {
    let metadata = register.metadata.iter();
    let metadata: serde_json::Map<String, Value> = metadata
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    json!({
        "id": id,
        "name": register.name,
        "address": address,
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
    let (Announced::Address(address) | Announced::Listener(address)) = &register.address;
    let of = |seed: u64| {
        let text = (&register.name, address, node, machine);
        u128::from(FixedState::with_seed(seed).hash_one(text))
    };
    let port = address.rsplit(':').next().unwrap_or_default();
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
            address: Announced::Address(address.to_owned()),
            upstream: None,
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
    fn who_listens_everywhere_is_announced_where_the_control_plane_sees_him() {
        let at = |address: &str, local: Option<&str>| {
            let register = Register {
                name: "orders".to_owned(),
                address: Announced::Address(address.to_owned()),
                health: "/health/ready".to_owned(),
                metadata: Vec::new(),
                upstream: None,
            };
            reached(&register, local.map(|local| local.parse().unwrap()))
        };
        assert_eq!(at("0.0.0.0:15006", Some("10.1.2.3")), "10.1.2.3:15006");
        assert_eq!(at("[::]:15006", Some("fd00::1")), "[fd00::1]:15006");
        assert_eq!(at("127.0.0.1:7000", Some("10.1.2.3")), "127.0.0.1:7000");
        assert_eq!(at("orders:7000", Some("10.1.2.3")), "orders:7000");
        assert_eq!(at("0.0.0.0:15006", None), "0.0.0.0:15006");
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
