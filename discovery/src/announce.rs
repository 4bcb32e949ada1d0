//! Keeps one instance registered: announces it, beats, announces it again when the registry has forgotten it, and takes it
//! back at the end (REG-402, REG-408). However long no registry answers, it goes on trying and nobody else notices.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::instance::{Health, Registration};
use crate::registry::Registry;
use crate::wire::escaped;

/// Between beats, unless the registry says otherwise (REG-302).
const HEARTBEAT: Duration = Duration::from_secs(15);
/// After the first failure; twice as long after each further one, never longer than between beats.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// For the word to be taken back while a process ends.
const LEAVE: Duration = Duration::from_secs(2);

/// An instance that is being announced. Dropped, it falls silent, and the registry finds out by itself;
/// [`deregister`](Announced::deregister) tells it.
#[derive(Debug)]
pub struct Announced {
    registry: Registry,
    id: String,
    says: watch::Sender<Says>,
    registered: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

/// What may change while it is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Says {
    health: Health,
    metadata: BTreeMap<String, String>,
}

impl Announced {
    pub(crate) fn start(registry: Registry, registration: Registration) -> Self {
        let id = registration.id.clone();
        let (says, heard) = watch::channel(Says {
            health: registration.health,
            metadata: registration.metadata.clone(),
        });
        let (tell, registered) = watch::channel(false);
        let task = tokio::spawn(keep(registry.clone(), registration, heard, tell));
        Announced {
            registry,
            id,
            says,
            registered,
            task,
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether a registry has it, as far as we know.
    pub fn is_registered(&self) -> bool {
        *self.registered.borrow()
    }

    /// Waits until a registry has it.
    pub async fn registered(&mut self) {
        // Its end is ours: the task holds the other end for as long as this lives.
        let _has_ended = self.registered.wait_for(|registered| *registered).await;
    }

    /// Told at once, not with the next beat (REG-307).
    pub fn set_health(&self, health: Health) {
        self.says
            .send_if_modified(|says| std::mem::replace(&mut says.health, health) != health);
    }

    /// One name of the metadata, such as a figure of its load; told at once.
    pub fn set_metadata(&self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        self.says
            .send_if_modified(|says| says.metadata.insert(name, value.clone()) != Some(value));
    }

    /// Takes it back; when this returns, no registry that could be reached sends anybody here any more. The first step of
    /// a graceful stop, before draining (REG-408). Waits no longer than two seconds.
    pub async fn deregister(self) {
        self.task.abort();
        let path = format!("/services/{}", escaped(&self.id));
        let _unreachable =
            timeout(LEAVE, self.registry.ask(Method::DELETE, &path, Vec::new())).await;
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(
    registry: Registry,
    mut registration: Registration,
    mut heard: watch::Receiver<Says>,
    registered: watch::Sender<bool>,
) {
    let mut pace = Pace::default();
    loop {
        let says = heard.borrow_and_update().clone();
        registration.health = says.health;
        registration.metadata = says.metadata;
        let is_registered = *registered.borrow();
        let told = match is_registered {
            false => register(&registry, &registration, &mut pace).await,
            true => beat(&registry, &registration).await,
        };
        let wait = match told {
            Told::Taken => {
                registered.send_replace(true);
                pace.went_well(fastrand::f64())
            }
            // It has lost its memory, or we were silent for too long: announce it anew, now.
            Told::Unknown => {
                registered.send_replace(false);
                continue;
            }
            Told::Not => pace.failed(fastrand::f64()),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            changed = heard.changed() => if changed.is_err() { return },
        }
    }
}

enum Told {
    Taken,
    Unknown,
    Not,
}

async fn register(registry: &Registry, registration: &Registration, pace: &mut Pace) -> Told {
    let body = serde_json::to_vec(registration).unwrap_or_default();
    match registry.ask(Method::POST, "/register", body).await {
        // REG-205: both are good.
        Ok((StatusCode::CREATED | StatusCode::OK, answer)) => {
            let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
            if let Some(seconds) = answer["heartbeat_seconds"].as_u64().filter(|s| *s > 0) {
                pace.heartbeat = Duration::from_secs(seconds);
            }
            Told::Taken
        }
        _ => Told::Not,
    }
}

async fn beat(registry: &Registry, registration: &Registration) -> Told {
    let body = json!({
        "id": registration.id,
        "name": registration.name,
        "health": registration.health,
        "metadata": registration.metadata,
    });
    let path = format!("/heartbeat/{}", escaped(&registration.id));
    match registry
        .ask(Method::PUT, &path, body.to_string().into_bytes())
        .await
    {
        Ok((StatusCode::NOT_FOUND, _)) => Told::Unknown,
        Ok((status, _)) if status.is_success() => Told::Taken,
        _ => Told::Not,
    }
}

/// How long until the next word. Chance (0 up to 1) is an argument.
#[derive(Debug)]
struct Pace {
    heartbeat: Duration,
    failures: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            heartbeat: HEARTBEAT,
            failures: 0,
        }
    }
}

impl Pace {
    /// A tenth more or less, so that a fleet that started together does not beat together (REG-308).
    fn went_well(&mut self, chance: f64) -> Duration {
        self.failures = 0;
        self.heartbeat.mul_f64(0.9 + 0.2 * chance)
    }

    fn failed(&mut self, chance: f64) -> Duration {
        let longest = FIRST_RETRY
            .saturating_mul(1 << self.failures.min(16))
            .min(self.heartbeat);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(0.5 + chance / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reg_402_retries_take_longer_each_time_and_never_longer_than_a_beat() {
        let mut pace = Pace::default();
        let waits: Vec<_> = (0..8).map(|_| pace.failed(1.0).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        assert_eq!(pace.went_well(0.5), HEARTBEAT);
        assert_eq!(pace.failed(0.0), FIRST_RETRY / 2);
    }

    #[test]
    fn reg_308_beats_are_spread() {
        let mut pace = Pace::default();
        assert_eq!(pace.went_well(0.0), HEARTBEAT.mul_f64(0.9));
        assert_eq!(pace.went_well(1.0), HEARTBEAT.mul_f64(1.1));
    }
}
