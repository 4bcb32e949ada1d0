//! What an instance says of itself (REG-101), and the words for what we make of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Names and values that an instance tells of itself.
pub type Metadata = BTreeMap<String, String>;

/// Names of metadata that one instance may have, at most.
pub const MOST_METADATA: usize = 64;

/// One instance in its own words; kept in the store as JSON. Never changed, only replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: Arc<str>,
    /// Of the service.
    pub name: Arc<str>,
    /// `host:port`.
    pub address: Arc<str>,
    pub health: Health,
    /// What a probe asks for; begins with `/`.
    pub health_endpoint: String,
    pub metadata: Metadata,
    /// Milliseconds since 1970 of the first registration under this id.
    pub registered_at: u64,
}

/// What an instance says of its own state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Healthy,
    /// In lookups, but last.
    Degraded,
    Unhealthy,
    /// Not ready yet (REG-106).
    Unknown,
}

impl Health {
    pub const WORDS: [(&'static str, Health); 4] = [
        ("healthy", Health::Healthy),
        ("degraded", Health::Degraded),
        ("unhealthy", Health::Unhealthy),
        ("unknown", Health::Unknown),
    ];

    /// Whether lookups may return who says this.
    pub fn serves(self) -> bool {
        matches!(self, Health::Healthy | Health::Degraded)
    }

    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize].0
    }

    pub fn of(word: &str) -> Option<Health> {
        let mut words = Self::WORDS.into_iter();
        words.find(|(known, _)| *known == word).map(|(_, h)| h)
    }
}

/// Where an instance is in its life (REG-301). Removed ones are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Registered, but says that it is not ready.
    Starting,
    Active,
    /// Something speaks against it; still in lookups, and probed.
    Suspected,
    /// Out of lookups; calls in flight may finish, and a good sign brings it back.
    Draining,
}

impl State {
    pub const ALL: [State; 4] = [
        State::Starting,
        State::Active,
        State::Suspected,
        State::Draining,
    ];

    pub fn word(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Active => "active",
            State::Suspected => "suspected",
            State::Draining => "draining",
        }
    }
}

/// Why something was done to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Somebody asked for it.
    Request,
    /// A heartbeat came.
    Heartbeat,
    /// No heartbeat came.
    Silence,
    /// Probes said so.
    Probes,
    /// Enough data planes said so.
    Observed,
    /// An instance with another id registered at its address.
    Replaced,
    /// The process started, and knows it from the store only.
    Restart,
}

impl Cause {
    pub fn word(self) -> &'static str {
        match self {
            Cause::Request => "request",
            Cause::Heartbeat => "heartbeat",
            Cause::Silence => "silence",
            Cause::Probes => "probes",
            Cause::Observed => "observed",
            Cause::Replaced => "replaced",
            Cause::Restart => "restart",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Whether a name of metadata holds a figure that changes all the time. Such a figure is shown, but its change is no
/// news to a data plane: it makes no new version of its service.
fn is_figure(name: &str) -> bool {
    let rest = name.strip_prefix("load");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '.', '-']))
}

impl Record {
    /// Whether a data plane is told the same of both.
    pub(super) fn reads_like(&self, other: &Record) -> bool {
        let lasting = |record: &Record| {
            let metadata = record.metadata.iter();
            metadata
                .filter(|(name, _)| !is_figure(name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect::<Vec<_>>()
        };
        self.address == other.address
            && self.health == other.health
            && (self.metadata == other.metadata || lasting(self) == lasting(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_health_has_its_word() {
        for (word, health) in Health::WORDS {
            assert_eq!((health.word(), Health::of(word)), (word, Some(health)));
            assert_eq!(serde_json::to_value(health).expect("JSON"), word);
        }
        assert_eq!(Health::of("Healthy"), None);
    }

    #[test]
    fn load_figures_are_no_news() {
        for (name, figure) in [
            ("load", true),
            ("load_cpu", true),
            ("load.queue", true),
            ("loader", false),
            ("version", false),
        ] {
            assert_eq!(is_figure(name), figure, "{name}");
        }
    }
}
