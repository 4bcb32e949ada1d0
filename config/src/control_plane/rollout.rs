//! How a change of the fleet's documents reaches the nodes: in which stages, and what sends it back.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::problem::Fault;
use crate::unit::short;

/// Stages of one rollout.
pub const MOST_STAGES: usize = 20;

/// `[rollout]` (CP-109).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    pub stages: Vec<Stage>,
    pub hold: Duration,
    pub wait: Duration,
    pub without_traffic: WithoutTraffic,
    pub min_requests: u64,
    /// From 0 to 1, of the requests.
    pub error_rise: f64,
    pub refusal_rise: f64,
    pub slow_rise: f64,
}

impl Default for Rollout {
    fn default() -> Self {
        Rollout {
            stages: vec![Stage::All],
            hold: Duration::from_secs(30),
            wait: Duration::from_secs(600),
            without_traffic: WithoutTraffic::Pause,
            min_requests: 100,
            error_rise: 0.01,
            refusal_rise: 0.05,
            slow_rise: 0.05,
        }
    }
}

/// How many nodes have a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// At least one.
    Nodes(u32),
    /// Of 100; at least one, at most 99.
    Percent(u32),
    All,
}

/// What becomes of a stage in which too little was served to judge by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutTraffic {
    /// A person decides.
    Pause,
    Continue,
}

impl Stage {
    pub fn parse(text: &str) -> Result<Stage, Fault> {
        let wrong = || {
            Fault::new(
                format!("`{}` is no stage of a rollout", short(text)),
                "write a number of nodes such as \"1\", a share such as \"10%\", or \"all\"",
            )
        };
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u32>().map_err(|_| wrong()),
            false => Err(wrong()),
        };
        match (text, text.strip_suffix('%')) {
            ("all" | "100%", _) => Ok(Stage::All),
            (_, Some(share)) => match number(share)? {
                share @ 1..=99 => Ok(Stage::Percent(share)),
                _ => Err(wrong()),
            },
            (_, None) => match number(text)? {
                nodes @ 1..=1_000_000 => Ok(Stage::Nodes(nodes)),
                _ => Err(wrong()),
            },
        }
    }

    /// `1, 10%, all`: stages that end with all nodes.
    pub fn list(text: &str) -> Result<Vec<Stage>, Fault> {
        let stages: Result<Vec<Stage>, Fault> = { text.split(',') }
            .map(|one| Stage::parse(one.trim()))
            .collect();
        let stages = stages?;
        complete(&stages)?;
        Ok(stages)
    }
}

/// A span of time as a document writes it; not none at all.
pub fn duration(text: &str) -> Result<Duration, Fault> {
    crate::rule::positive_duration(text)
}

/// Whether stages lead to all nodes.
pub(super) fn complete(stages: &[Stage]) -> Result<(), Fault> {
    let earlier = stages.split_last();
    let good = earlier
        .is_some_and(|(last, earlier)| *last == Stage::All && !earlier.contains(&Stage::All));
    match good && stages.len() <= MOST_STAGES {
        true => Ok(()),
        false => Err(Fault::new(
            "the stages of a rollout do not end with all nodes",
            format!("write \"all\" as the last of at most {MOST_STAGES}, and nowhere else"),
        )),
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Nodes(nodes) => write!(f, "{nodes}"),
            Stage::Percent(share) => write!(f, "{share}%"),
            Stage::All => f.write_str("all"),
        }
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stage {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Stage, D::Error> {
        let text = String::deserialize(from)?;
        Stage::parse(&text).map_err(|fault| de::Error::custom(fault.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_numbers_shares_and_all() {
        let stages = Stage::list("1, 10%, all").expect("good");
        assert_eq!(stages, [Stage::Nodes(1), Stage::Percent(10), Stage::All]);
        let words: Vec<String> = stages.iter().map(Stage::to_string).collect();
        assert_eq!(words.join(", "), "1, 10%, all");
        assert_eq!(Stage::list("100%"), Ok(vec![Stage::All]));
    }

    #[test]
    fn what_is_no_stage_or_does_not_end_with_all_is_refused() {
        for text in [
            "", "0", "0%", "101%", "1.5", "-1", "+1", "1%%", "some", "1", "all, 1", "all, all",
        ] {
            assert!(Stage::list(text).is_err(), "{text}");
        }
    }
}
