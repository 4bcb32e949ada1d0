//! What a control plane and a data plane say to each other: one JSON object per line, each with exactly one key.
//!
//! Both sides use these types. A line is read with bounds: whatever its bytes, it becomes a `Line` or is refused with
//! words, and nothing in it is longer or more than stated here. What the lines mean together is for whoever keeps
//! their state; what a block's text means is for the loader. No I/O and no clock.
//!
//! `POST /feed` takes a `Subscribe`, `POST /nodes/{node}/wants` a `Wants`, `POST /nodes/{node}/report` a `Report`,
//! `POST /nodes/{node}/answers/{id}` an `Answer`.

mod asking;
mod blocks;
mod bounds;
mod figures;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::identity::Trust;
use crate::problem::{Fault, Problem};
use crate::unit;

pub use asking::{Answer, Ask, Breaker, MOST_BREAKERS, Told, What};
pub use blocks::{Block, Blocks};
pub use bounds::{
    MOST_BLOCKS, MOST_BYTES, MOST_INSTANCES, MOST_LINE, MOST_SERVICES, MOST_TEXT, MOST_USES,
};
pub use figures::{Direction, Edge, Figures, LATENCIES, MOST_FIGURES, Tally};

/// One line of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Always the first.
    Hello(Hello),
    /// A batch begins: everything up to its `End` is applied together, or not at all.
    Begin(Begin),
    Put(Put),
    Remove(Remove),
    Service(Service),
    /// Whom members of the mesh trust. Stands inside of a batch or outside, and is told to who asked for it.
    Trust(Trust),
    /// A question, to nodes that said that they answer. Stands inside of a batch or outside.
    Ask(Ask),
    End(End),
    /// Nothing happened for a while. It may tell a later revision, of which nothing concerns this node.
    Beat(Beat),
    /// The request was wrong; the feed ends.
    Refused(Refused),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Which of several control planes this is.
    pub server: String,
    /// Revisions of different epochs cannot be compared: the control plane lost its memory between them.
    pub epoch: String,
    pub revision: u64,
    /// A feed that is silent for longer is dead; the control plane says `Beat` twice as often.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub beat: Duration,
    /// How often the node shall tell what it served; `None` = never.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_optional",
        deserialize_with = "read_optional"
    )]
    pub figures: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// What is not in the batch is gone.
    pub full: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub revision: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub revision: u64,
}

/// A block of a document, as the person wrote it: new, or with another text or place than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// Unique among all blocks, such as `routes/shop.toml#route:get-order`.
    pub id: String,
    pub kind: Kind,
    /// Where it stands at the control plane; problems, errors and explanations name this place.
    pub file: String,
    /// Of the header, counted from 1.
    pub line: u32,
    /// From the header to the last line of the block.
    pub text: String,
    /// What the control plane looked up for the references in the text; nothing else is asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<Use>,
}

/// What stood between the braces of `${…}`, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Use {
    pub reference: String,
    pub value: String,
}

/// The sections that a feed may bring. The others belong to the node's own file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Route,
    Upstream,
    Limit,
    Tiers,
    /// With the key's hash; a key itself never travels.
    ApiKey,
    /// To nodes that say which service they are of.
    Access,
    Test,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Route,
        Kind::Upstream,
        Kind::Limit,
        Kind::Tiers,
        Kind::ApiKey,
        Kind::Access,
        Kind::Test,
    ];

    /// The section's name in a document.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Route => "route",
            Kind::Upstream => "upstream",
            Kind::Limit => "limit",
            Kind::Tiers => "tiers",
            Kind::ApiKey => "api_key",
            Kind::Access => "access",
            Kind::Test => "test",
        }
    }

    pub fn of(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    pub id: String,
}

/// All instances of one service. Stands inside of a batch or outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    /// Grows with every change of the list, within an epoch.
    pub version: u64,
    pub instances: Vec<Instance>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: String,
    /// `host:port`.
    pub address: String,
    #[serde(default)]
    pub health: Health,
    /// Compared with the others; 0 is drained.
    #[serde(default = "one")]
    pub weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

/// What the control plane thinks of an instance (REG-101).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    #[default]
    Healthy,
    /// Asked when no other is healthy.
    Degraded,
    Unhealthy,
    /// Not ready yet.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub problems: Vec<Trouble>,
}

/// A `Problem` as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub code: String,
    /// `file:line:column`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    pub message: String,
    /// The line that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<&Problem> for Trouble {
    fn from(problem: &Problem) -> Trouble {
        Trouble {
            code: problem.code.to_owned(),
            place: problem.place.as_ref().map(ToString::to_string),
            message: problem.message.clone(),
            text: problem.text.clone(),
            hint: problem.hint.clone(),
        }
    }
}

/// What a node asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    pub node: String,
    pub kind: NodeKind,
    /// Of this process: another one of the same node has another.
    pub instance: String,
    pub version: String,
    /// What the node knows already; a batch that is not full tells what changed since.
    pub have: Option<Have>,
    /// Whose instances the node wants.
    pub services: Wanted,
    /// Services that the node's own file names, besides those of `services`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Names of the node's own listeners.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// The service that the node stands for: documents of it concern a sidecar, its instances do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stands_for: Option<String>,
    /// Whether the node is a member of the mesh, and wants to know whom members trust.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trust: bool,
    /// `namespace/service` that the node is of: the rules about who may call it are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callee: Option<String>,
    /// Whether the node answers questions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answers: bool,
}

/// Which services a node that listens wants from now on, in the place of `Subscribe.also`; `POST /nodes/{node}/wants`.
/// What it lacks comes over its feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wants {
    /// Of the process that subscribed.
    pub instance: String,
    pub also: Vec<String>,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantsAnswer {
    /// Of those, the ones that are not registered.
    #[serde(default)]
    pub unknown: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    Gateway,
    Sidecar,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    pub epoch: String,
    pub revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Wanted {
    Routed(Routed),
    /// These and no others.
    Names(Vec<String>),
}

/// Those that the upstreams among the node's blocks name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Routed {
    #[serde(rename = "routed")]
    Routed,
}

/// What a node tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Report {
    Outcome(Outcome),
    Observed { observed: Vec<Observed> },
    Figures { figures: Figures },
}

/// What became of a batch: of the latest one, if several were told at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub instance: String,
    pub revision: u64,
    pub applied: bool,
    /// Of everything that serves, the node's own file included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// From the batch's last byte to serving it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micros: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Trouble>,
}

/// What a node saw of an instance while it used it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    pub service: String,
    pub address: String,
    pub failures: u64,
    pub successes: u64,
    /// The time that both were counted in.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub span: Duration,
}

impl Line {
    /// Reads one line, with or without its line end.
    pub fn read(bytes: &[u8]) -> Result<Line, Fault> {
        let hint = "both sides must speak the same version of the feed";
        if bytes.len() > MOST_LINE {
            return Err(Fault::new(
                format!("a line has more than {MOST_LINE} bytes"),
                hint,
            ));
        }
        let line = serde_json::from_slice(bytes).map_err(|error| {
            Fault::new(
                // What the library says may quote the line.
                format!(
                    "a line cannot be read: {}",
                    unit::short(&error.to_string()).replace(char::is_control, " ")
                ),
                hint,
            )
        })?;
        bounds::check(&line).map_err(|why| Fault::new(why, hint))?;
        Ok(line)
    }

    /// One line, with its line end.
    pub fn write(&self) -> String {
        // Maps have text as keys and nothing here fails to be written.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

fn write_duration<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1000) {
        to.collect_str(&format_args!("{}s", millis / 1000))
    } else {
        to.collect_str(&format_args!("{millis}ms"))
    }
}

fn write_optional<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => write_duration(duration, to),
        None => to.serialize_none(),
    }
}

fn read_optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    read_duration(from).map(Some)
}

fn read_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    unit::duration(&text).map_err(|fault| de::Error::custom(fault.message))
}
