//! `breakers`: the circuit breakers of a running gateway as a table, and an operator's word to one of them.

use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::{Value, json};

use crate::client::Admin;
use crate::status::{list, word};
use crate::table::{row, span, table};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    act: Option<Act>,
    /// The admin address that is asked.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:9901",
        global = true
    )]
    admin: Admin,
    /// The answer as it came.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Sends nothing to this upstream for a while; after that it is half-open.
    Open(Word),
    /// Sends everything to this upstream for a while, whatever comes back; after that its counts begin anew.
    Close(Word),
    /// Leaves it to its counts again.
    Auto(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The upstream's name.
    name: String,
    /// Of an upstream with several breakers: "reads", "writes", or a route's name. All of them when it is left out.
    #[arg(long)]
    part: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Word {
    #[command(flatten)]
    which: Which,
    /// For how long, at most 24h.
    #[arg(long = "for", value_name = "DURATION", default_value = "5m")]
    span: String,
    /// Why, for the log.
    #[arg(long, default_value = "")]
    why: String,
}

pub(crate) fn breakers(arguments: &Arguments) -> Result<String, String> {
    let admin = &arguments.admin;
    let answer = match &arguments.act {
        None => admin.ask("GET", "/breakers", "")?,
        Some(act) => {
            let (which, state, said) = match act {
                Act::Open(said) => (&said.which, "open", Some(said)),
                Act::Close(said) => (&said.which, "closed", Some(said)),
                Act::Auto(which) => (which, "auto", None),
            };
            let by = std::env::var("USER").unwrap_or_default();
            let mut wanted = json!({ "state": state, "by": by });
            if let Some(part) = &which.part {
                wanted["part"] = part.as_str().into();
            }
            if let Some(said) = said {
                wanted["for"] = said.span.as_str().into();
                wanted["why"] = said.why.as_str().into();
            }
            let path = format!("/breakers/{}", encoded(&which.name));
            admin.ask("POST", &path, &wanted.to_string())?
        }
    };
    Ok(if arguments.json {
        format!("{answer:#}\n")
    } else {
        told(&answer)
    })
}

/// A name as a path can hold it.
fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _infallible = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn told(answer: &Value) -> String {
    let mut rows = vec![row(&[
        "UPSTREAM", "PART", "STATE", "WHY", "NEXT", "TRIES", "FAILED", "IN A ROW", "TRIPS",
        "RETRIES",
    ])];
    let mut last = vec![row(&[
        "UPSTREAM", "PART", "AGO", "FROM", "TO", "WHY", "SEEN",
    ])];
    for one in list(&answer["breakers"]) {
        let breaker = &one["breaker"];
        rows.push(row(&[
            &word(&one["upstream"]),
            &word(&breaker["part"]),
            &word(&breaker["state"]),
            &why(breaker),
            &next(breaker),
            &word(&breaker["tries"]),
            &word(&breaker["failed"]),
            &word(&breaker["failures_in_a_row"]),
            &word(&breaker["trips"]),
            &budget(&one["retry_budget"]),
        ]));
        for change in list(&breaker["history"]) {
            let tries = change["tries"].as_u64().unwrap_or(0);
            let seen = match tries {
                0 => String::new(),
                _ if change["reason"] == "slow" => {
                    format!("{} of {tries} answers were slow", word(&change["failed"]))
                }
                _ => format!(
                    "{} in a row; {} of {tries} tries failed",
                    word(&change["failures_in_a_row"]),
                    word(&change["failed"]),
                ),
            };
            last.push(row(&[
                &word(&one["upstream"]),
                &word(&breaker["part"]),
                &seconds(&change["seconds_ago"]),
                &word(&change["from"]),
                &word(&change["to"]),
                &word(&change["reason"]),
                &seen,
            ]));
        }
    }
    let mut text = table("", &rows);
    if last.len() > 1 {
        text.push('\n');
        text.push_str(&table("", &last));
    }
    text
}

fn why(breaker: &Value) -> String {
    let held = &breaker["held"];
    if held.is_null() {
        return match breaker["state"].as_str() {
            Some("closed" | "off") => "-".to_owned(),
            _ => word(&breaker["reason"]),
        };
    }
    let mut text = "held".to_owned();
    for (before, key) in [(" by ", "by"), (": ", "why")] {
        if let Some(said) = held[key].as_str().filter(|said| !said.is_empty()) {
            text.push_str(before);
            text.push_str(said);
        }
    }
    text
}

/// What happens next, and when.
fn next(breaker: &Value) -> String {
    let held = &breaker["held"]["ends_in_seconds"];
    if !held.is_null() {
        return format!("ends in {}", seconds(held));
    }
    if !breaker["probes_in_seconds"].is_null() {
        return format!("probes in {}", seconds(&breaker["probes_in_seconds"]));
    }
    if let Some(share) = breaker["rising_share"].as_f64() {
        return format!("admits {:.0} % of tries, and more by and by", share * 100.0);
    }
    let probes = &breaker["probes"];
    if probes.is_null() {
        return "-".to_owned();
    }
    format!(
        "{} of {} probes succeeded, {} under way",
        word(&probes["succeeded"]),
        word(&probes["needed"]),
        word(&probes["under_way"])
    )
}

fn budget(budget: &Value) -> String {
    match (budget["retries"].as_u64(), budget["allowed"].as_u64()) {
        (Some(retries), Some(allowed)) => format!("{retries} of {allowed}"),
        _ => word(budget),
    }
}

fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(
        || "-".to_owned(),
        |seconds| match seconds {
            0.0..10.0 => format!("{seconds:.1} s"),
            _ => span(seconds as u64),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_breaker_says_why_and_when_it_probes() {
        let text = told(&json!({ "breakers": [
            { "upstream": "orders", "retry_budget": { "retries": 3, "allowed": 120 }, "breaker": {
                "state": "open", "reason": "failures", "probes_in_seconds": 42.5, "tries": 30, "failed": 5,
                "failures_in_a_row": 5, "trips": 1, "history": [
                    { "from": "closed", "to": "open", "reason": "failures", "seconds_ago": 17.5,
                      "failures_in_a_row": 5, "tries": 30, "failed": 5 }] } },
            { "upstream": "users", "retry_budget": "off", "breaker": { "state": "closed", "history": [],
                "held": { "by": "ada", "why": "drill", "ends_in_seconds": 299.9 } } },
            { "upstream": "carts", "retry_budget": "off", "breaker": { "state": "half_open", "reason": "open_for",
                "history": [], "probes": { "under_way": 1, "succeeded": 2, "needed": 3 } } },
        ] }));
        for expected in [
            "probes in 42 s",
            "3 of 120",
            "5 in a row; 5 of 30 tries failed",
            "held by ada: drill",
            "ends in 4 min 59 s",
            "2 of 3 probes succeeded, 1 under way",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn an_answer_without_any_known_field_is_no_failure() {
        assert!(told(&json!({})).starts_with("UPSTREAM"));
        assert!(told(&json!({ "breakers": [{}] })).contains('-'));
    }

    #[test]
    fn a_name_with_odd_characters_fits_into_a_path() {
        assert_eq!(encoded("a b/c%"), "a%20b%2Fc%25");
    }
}
