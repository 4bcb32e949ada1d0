//! What is kept of a rollout: enough to go on with it, or to take it back, in another process.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tollgate_config::control_plane::{Rollout as Settings, Stage};

/// What somebody asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub settings: Settings,
    /// Nodes that go first, whatever their names hash to.
    #[serde(default)]
    pub first: Vec<String>,
}

impl Plan {
    /// Whether there is anything to stage: a change that goes to all at once is no rollout.
    pub fn is_staged(&self) -> bool {
        self.settings.stages.len() > 1
    }
}

/// One rollout. Times are milliseconds since 1970, shown and never compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What is rolled out.
    pub revision: u64,
    /// What the other nodes have meanwhile, and what is returned to.
    pub base: u64,
    pub plan: Plan,
    pub by: String,
    pub began: u64,
    /// Index of `plan.settings.stages`.
    pub stage: usize,
    pub since: u64,
    /// Nodes that have the revision, as long as not all shall have it.
    pub chosen: BTreeSet<String>,
    /// Why it does not go on by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub time: u64,
    pub how: How,
    /// In words: which figure, which route, which nodes, how much.
    pub why: String,
    /// The revision that says again what `base` said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_as: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// All nodes have it.
    Done,
    /// Taken back because it was worse.
    Returned,
    /// Taken back by a person.
    Aborted,
}

impl How {
    pub fn word(self) -> &'static str {
        match self {
            How::Done => "done",
            How::Returned => "returned",
            How::Aborted => "aborted",
        }
    }
}

impl Record {
    pub fn begin(revision: u64, base: u64, plan: Plan, by: &str, time: u64) -> Record {
        Record {
            revision,
            base,
            plan,
            by: by.to_owned(),
            began: time,
            stage: 0,
            since: time,
            chosen: BTreeSet::new(),
            paused: None,
            ended: None,
        }
    }

    pub fn stage(&self) -> Stage {
        let stages = &self.plan.settings.stages;
        stages.get(self.stage).copied().unwrap_or(Stage::All)
    }

    pub fn is_last(&self) -> bool {
        self.stage + 1 >= self.plan.settings.stages.len()
    }

    /// Whether this node shall have the revision.
    pub fn has(&self, node: &str) -> bool {
        self.stage() == Stage::All || self.chosen.contains(node)
    }

    /// How far it is, in a few words.
    pub fn words(&self) -> String {
        if let Some(ended) = &self.ended {
            return ended.how.word().to_owned();
        }
        let (at, of) = (self.stage + 1, self.plan.settings.stages.len());
        let paused = if self.paused.is_some() {
            ", paused"
        } else {
            ""
        };
        format!("stage {at} of {of} ({}){paused}", self.stage())
    }
}
