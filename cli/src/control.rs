//! `revisions`, `diff`, `apply`, `plan`, `rollback`: asks a control plane, and says it in tables. A
//! change that is refused is told with every problem, its line and what to write instead.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};
use tollgate_engine::process::exit;

use crate::desk::Desk;
use crate::status::{list, word};
use crate::table::{print, row, table};

/// Whom to ask, and how to say it.
#[derive(Debug, clap::Args)]
pub(crate) struct Asked {
    #[command(flatten)]
    desk: Desk,
    /// The answer as it came.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Plain {
    #[command(flatten)]
    pub(crate) asked: Asked,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// A revision; without it the one before `TO`.
    from: Option<u64>,
    /// A revision; without it the newest.
    to: Option<u64>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Change {
    /// Documents; each is known by its path as it is written here.
    files: Vec<PathBuf>,
    /// Takes a document out; may be repeated.
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// Only if the catalog is at this revision.
    #[arg(long, visible_alias = "expect", value_name = "REVISION")]
    if_revision: Option<u64>,
    /// Why, for the history.
    #[arg(long, default_value = "")]
    note: String,
    /// To how many nodes at first and then: `1, 10%, all`. Otherwise as the control plane's `[rollout]` says.
    #[arg(long, value_name = "STAGES")]
    stages: Option<String>,
    /// How long each stage is watched, such as `30s`.
    #[arg(long, value_name = "TIME")]
    hold: Option<String>,
    /// A node that goes first; may be repeated.
    #[arg(long, value_name = "NODE")]
    first: Vec<String>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    /// The revision to return to.
    to: u64,
    /// Only if the catalog is at this revision.
    #[arg(long, visible_alias = "expect", value_name = "REVISION")]
    if_revision: Option<u64>,
    /// Why, for the history.
    #[arg(long, default_value = "")]
    note: String,
    #[command(flatten)]
    asked: Asked,
}

/// Why there is no answer, and the exit code for it.
pub(crate) struct Failed(pub(crate) u8, pub(crate) String);

pub(crate) fn revisions(arguments: &Plain) -> ExitCode {
    let answer = ask(&arguments.asked, "GET", "/revisions", "");
    ended(&arguments.asked, answer, |answer| {
        let mut rows = vec![row(&[
            "REVISION", "TIME", "BY", "FROM", "BLOCKS", "ROLLOUT", "NOTE",
        ])];
        for one in list(&answer["revisions"]) {
            rows.push(row(&[
                &word(&one["revision"]),
                &word(&one["time"]),
                &word(&one["by"]),
                &word(&one["origin"]),
                &word(&one["changed"]),
                &word(&one["rollout"]["words"]),
                &word(&one["note"]),
            ]));
        }
        let mut text = unless_empty(&rows, "nothing was applied yet\n");
        let refused = &answer["folder_refused"];
        if !refused.is_null() {
            text += "\nthe folder's documents are refused, what was served stays:\n";
            text += &problems(&refused["problems"]);
        }
        text
    })
}

pub(crate) fn diff(arguments: &Diff) -> ExitCode {
    let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    let path = format!(
        "/diff?from={}&to={}",
        number(arguments.from),
        number(arguments.to)
    );
    let answer = ask(&arguments.asked, "GET", &path, "");
    ended(&arguments.asked, answer, |answer| texts(&answer["changes"]))
}

pub(crate) fn apply(arguments: &Change) -> ExitCode {
    let answer = change(arguments).and_then(|body| ask(&arguments.asked, "POST", "/apply", &body));
    ended(&arguments.asked, answer, made)
}

pub(crate) fn rollback(arguments: &Rollback) -> ExitCode {
    let mut body = json!({ "to": arguments.to, "by": user() });
    if !arguments.note.is_empty() {
        body["note"] = arguments.note.as_str().into();
    }
    if let Some(revision) = arguments.if_revision {
        body["if_revision"] = revision.into();
    }
    let answer = ask(&arguments.asked, "POST", "/rollback", &body.to_string());
    ended(&arguments.asked, answer, made)
}

pub(crate) fn plan(arguments: &Change) -> ExitCode {
    let answer = change(arguments).and_then(|body| ask(&arguments.asked, "POST", "/plan", &body));
    ended(&arguments.asked, answer, |answer| {
        if answer["changed"] != true {
            return format!("revision {} says this already\n", word(&answer["revision"]));
        }
        let mut text = texts(&answer["changes"]);
        let routes: Vec<String> = list(&answer["routes"]).iter().map(word).collect();
        let _infallible = writeln!(text, "\nroutes that are touched: {}", or_none(&routes));
        let nodes: Vec<String> = list(&answer["nodes"])
            .iter()
            .map(|one| word(&one["node"]))
            .collect();
        let _infallible = writeln!(text, "nodes that would be told: {}", or_none(&nodes));
        text
    })
}

fn made(answer: &Value) -> String {
    let revision = word(&answer["revision"]);
    if answer["changed"] != true {
        return format!("nothing is different from revision {revision}\n");
    }
    let mut rows = Vec::new();
    for one in list(&answer["changes"]) {
        rows.push(row(&[&word(&one["what"]), &word(&one["id"])]));
    }
    let mut text = format!("revision {revision}\n{}", table("  ", &rows));
    if !answer["rollout"].is_null() {
        text += "it is rolled out in stages; `tollgate rollout status` shows how far it is\n";
    }
    text
}

/// The body of a change.
fn change(arguments: &Change) -> Result<String, Failed> {
    let mut documents = Map::new();
    for file in &arguments.files {
        let text = std::fs::read_to_string(file)
            .map_err(|why| Failed(exit::BAD_DOCUMENT, format!("{}: {why}", file.display())))?;
        let name = file.to_string_lossy();
        let name = name.trim_start_matches("./").trim_start_matches('/');
        documents.insert(name.to_owned(), text.into());
    }
    for name in &arguments.remove {
        documents.insert(name.clone(), Value::Null);
    }
    if documents.is_empty() {
        let words = "name the documents, or one to `--remove`";
        return Err(Failed(exit::BAD_DOCUMENT, words.to_owned()));
    }
    let mut body = json!({ "documents": documents, "by": user(), "note": arguments.note });
    if let Some(revision) = arguments.if_revision {
        body["if_revision"] = revision.into();
    }
    for (key, value) in [("stages", &arguments.stages), ("hold", &arguments.hold)] {
        if let Some(value) = value {
            body[key] = value.as_str().into();
        }
    }
    if !arguments.first.is_empty() {
        body["first"] = json!(arguments.first);
    }
    Ok(body.to_string())
}

pub(crate) fn user() -> String {
    std::env::var("USER").unwrap_or_default()
}

pub(crate) fn ask(asked: &Asked, method: &str, path: &str, body: &str) -> Result<Value, Failed> {
    let control = asked.desk.control();
    let answer = asked.desk.send(method, path, body)?;
    let value: Value = serde_json::from_slice(&answer.body).map_err(|_| {
        let words = format!("{control} is no control plane: no JSON at {path}");
        Failed(exit::FAILURE, words)
    })?;
    if answer.status / 100 == 2 {
        return Ok(value);
    }
    if asked.json {
        return Err(Failed(code(answer.status), format!("{value:#}")));
    }
    let mut words = match value["title"].as_str() {
        Some(title) => title.to_owned(),
        None => format!("{control} answered {} to {method} {path}", answer.status),
    };
    let more = problems(&value["problems"]);
    if !more.is_empty() {
        words = format!("{more}{words}");
    }
    Err(Failed(code(answer.status), words))
}

/// 2 for a document that is refused, 1 for everything else.
fn code(status: u16) -> u8 {
    match status {
        422 => exit::BAD_DOCUMENT,
        _ => exit::FAILURE,
    }
}

/// As a problem of a file is told.
pub(crate) fn problems(problems: &Value) -> String {
    let mut text = String::new();
    for one in list(problems) {
        if let Some(place) = one["place"].as_str() {
            let _infallible = write!(text, "{place}: ");
        }
        let _infallible = writeln!(text, "{}", word(&one["message"]));
        for (sign, key) in [('|', "text"), ('=', "hint")] {
            if let Some(line) = one[key].as_str() {
                let _infallible = writeln!(text, "    {sign} {}", line.trim_end());
            }
        }
    }
    text
}

/// Changes as lines that come and go.
fn texts(changes: &Value) -> String {
    let mut text = String::new();
    for one in list(changes) {
        let _infallible = writeln!(text, "{} {}", word(&one["what"]), word(&one["id"]));
        if one["what"] == "moved" {
            continue;
        }
        let lines = |side: &str| -> Vec<String> {
            let text = one[side]["text"].as_str().unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        };
        let (before, after) = (lines("before"), lines("after"));
        let same = |(a, b): &(&String, &String)| a == b;
        let head = before.iter().zip(&after).take_while(same).count();
        let tail = before[head..].iter().rev().zip(after[head..].iter().rev());
        let tail = tail.take_while(same).count();
        let parts = [
            (' ', &before[..head]),
            ('-', &before[head..before.len() - tail]),
            ('+', &after[head..after.len() - tail]),
            (' ', &after[after.len() - tail..]),
        ];
        for (sign, lines) in parts {
            for line in lines {
                let _infallible = writeln!(text, "  {sign} {line}");
            }
        }
    }
    if text.is_empty() {
        text.push_str("nothing is different\n");
    }
    text
}

fn or_none(names: &[String]) -> String {
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

pub(crate) fn unless_empty(rows: &[Vec<String>], otherwise: &str) -> String {
    match rows.len() {
        1 => otherwise.to_owned(),
        _ => table("", rows),
    }
}

pub(crate) fn ended(
    asked: &Asked,
    answer: Result<Value, Failed>,
    told: impl FnOnce(&Value) -> String,
) -> ExitCode {
    match answer {
        Ok(answer) => {
            match asked.json {
                true => print(&format!("{answer:#}\n")),
                false => print(&told(&answer)),
            }
            ExitCode::SUCCESS
        }
        Err(Failed(code, words)) => {
            // With --json an error is JSON, too; a refusal came as such.
            match asked.json && !words.starts_with('{') {
                true => eprintln!("{:#}", json!({ "error": words })),
                false => eprintln!("{words}"),
            }
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_the_lines_that_differ() {
        let changes = json!([
            { "id": "a#route:x", "what": "changed", "before": { "text": "[[route]]\na = 1\nz = 1\n" }, "after": { "text": "[[route]]\na = 2\nz = 1\n" } },
            { "id": "a#route:y", "what": "moved" },
            { "id": "a#route:z", "what": "removed", "before": { "text": "[[route]]\n" }, "after": null },
        ]);
        let wanted = "changed a#route:x\n    [[route]]\n  - a = 1\n  + a = 2\n    z = 1\nmoved a#route:y\nremoved a#route:z\n  - [[route]]\n";
        assert_eq!(texts(&changes), wanted);
    }

    #[test]
    fn a_refusal_is_told_with_its_place_and_hint() {
        let refused = json!([{ "place": "a.toml:1:1", "message": "unknown key `x`", "text": "x = 1", "hint": "did you mean `y`?" }]);
        assert_eq!(
            problems(&refused),
            "a.toml:1:1: unknown key `x`\n    | x = 1\n    = did you mean `y`?\n"
        );
    }
}
