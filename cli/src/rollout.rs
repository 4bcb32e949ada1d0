//! `rollout status | pause | resume | promote | abort`: how far a change is on its way to all nodes, and what an operator
//! does about it.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::control::{Asked, ask, ended, user};
use crate::status::{list, word};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    wish: Wish,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, clap::Subcommand)]
enum Wish {
    /// How far it is, what it waits for, and how the last one ended.
    Status,
    /// Stops it at its stage; what is worse still returns.
    Pause,
    /// Goes on by itself.
    Resume,
    /// To the next stage now, whatever the figures say.
    Promote {
        /// Through all stages.
        #[arg(long)]
        all: bool,
    },
    /// Takes it back everywhere.
    Abort,
}

pub(crate) fn rollout(arguments: &Arguments) -> ExitCode {
    let by = user();
    let (method, path, body) = match &arguments.wish {
        Wish::Status => ("GET", "/rollout", String::new()),
        Wish::Pause => ("POST", "/rollout/pause", json!({ "by": by }).to_string()),
        Wish::Resume => ("POST", "/rollout/resume", json!({ "by": by }).to_string()),
        Wish::Promote { all } => {
            let body = json!({ "by": by, "to_all": all }).to_string();
            ("POST", "/rollout/promote", body)
        }
        Wish::Abort => ("POST", "/rollout/abort", json!({ "by": by }).to_string()),
    };
    let answer = ask(&arguments.asked, method, path, &body);
    ended(&arguments.asked, answer, told)
}

fn told(answer: &Value) -> String {
    let (now, last) = (&answer["rollout"], &answer["last"]);
    let mut text = String::new();
    if now.is_null() {
        text.push_str("nothing is being rolled out\n");
    } else {
        one(&mut text, now);
    }
    if !last.is_null() {
        let _infallible = write!(text, "the last one: ");
        one(&mut text, last);
    }
    text
}

fn one(text: &mut String, rollout: &Value) {
    let _infallible = writeln!(
        text,
        "revision {} (after {}), by {}: {}",
        word(&rollout["revision"]),
        word(&rollout["base"]),
        word(&rollout["by"]),
        word(&rollout["words"]),
    );
    let nodes: Vec<String> = list(&rollout["nodes"]).iter().map(word).collect();
    if !nodes.is_empty() {
        let _infallible = writeln!(text, "  nodes: {}", nodes.join(", "));
    }
    for (what, key) in [
        ("requests in this stage", "requests"),
        ("waits for", "waits_for"),
        ("looks worse", "suspicion"),
        ("paused", "paused"),
        ("because", "reason"),
        ("returned as revision", "returned_as"),
    ] {
        let value = &rollout[key];
        if !value.is_null() && *value != "" {
            let _infallible = writeln!(text, "  {what}: {}", word(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_told_with_what_it_waits_for_and_the_last_one_with_its_reason() {
        let answer = json!({
            "rollout": {
                "revision": 8, "base": 7, "by": "ann", "words": "stage 1 of 3 (1)", "nodes": ["edge-2"],
                "requests": 40, "waits_for": "the end of the stage, in 20 s", "suspicion": null, "paused": null,
            },
            "last": { "revision": 6, "base": 5, "by": "bob", "words": "returned", "nodes": [], "reason": "too slow", "returned_as": 7 },
        });
        let wanted = "revision 8 (after 7), by ann: stage 1 of 3 (1)\n  nodes: edge-2\n  requests in this stage: 40\n  waits for: the end of the stage, in 20 s\n\
                      the last one: revision 6 (after 5), by bob: returned\n  because: too slow\n  returned as revision: 7\n";
        assert_eq!(told(&answer), wanted);
        assert_eq!(
            told(&json!({ "rollout": null, "last": null })),
            "nothing is being rolled out\n"
        );
    }
}
