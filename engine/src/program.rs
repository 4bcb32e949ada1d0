//! What every program around the engine does in the same words: checks a document, explains a request, says where it
//! serves and how it ended. Prints, and returns the process's exit code; takes no decision about traffic.

use std::collections::BTreeMap;
use std::process::ExitCode;

use tollgate_config::{Document, Problems};

use crate::admin;
use crate::drain::DrainReport;
use crate::engine::{Running, StartError};
use crate::explain::explain as explained;
use crate::process::exit;
use crate::snapshot::{self, Snapshot};

/// The request to explain, as typed.
pub struct Question {
    pub method: String,
    pub url: String,
    pub headers: Vec<String>,
    pub listener: Option<String>,
    /// The service that calls.
    pub caller: Option<String>,
    pub json: bool,
}

/// Reports every problem of a document, or what is in it; its tests are run.
pub fn check(name: &str, loaded: Result<Document, Problems>) -> ExitCode {
    match compiled(loaded) {
        Ok((document, _)) => {
            for warning in tollgate_config::warnings(&document) {
                eprintln!("warning: {warning}");
            }
            println!(
                "{name}: {} listeners, {} routes, {} upstreams, {} tests passed",
                document.listeners.len(),
                document.routes.len(),
                document.upstreams.len(),
                document.tests.len()
            );
            ExitCode::SUCCESS
        }
        Err(problems) => refused(&problems),
    }
}

/// Tells which route a request takes, and why.
pub fn explain(loaded: Result<Document, Problems>, question: &Question) -> ExitCode {
    let snapshot = match compiled(loaded) {
        Ok((_, snapshot)) => snapshot,
        Err(problems) => return refused(&problems),
    };
    let answer = question
        .asked()
        .and_then(|asked| explained(&snapshot, &asked.ask()?));
    match answer {
        Ok(answer) if question.json => print_json(&answer),
        Ok(answer) => println!("{answer}"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(exit::BAD_DOCUMENT);
        }
    }
    ExitCode::SUCCESS
}

impl Question {
    fn asked(&self) -> Result<admin::Question, String> {
        let mut headers = BTreeMap::new();
        for header in &self.headers {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| format!("-H {header}: write it as 'name: value'"))?;
            headers.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        Ok(admin::Question {
            method: self.method.clone(),
            url: self.url.clone(),
            headers,
            listener: self.listener.clone(),
            caller: self.caller.clone(),
        })
    }
}

/// A value, for people and programs.
pub fn print_json(value: &impl serde::Serialize) {
    println!(
        "{}",
        serde_json::to_string_pretty(value).unwrap_or_default()
    );
}

/// A document and what it compiles to, with its tests passed.
pub fn compiled(loaded: Result<Document, Problems>) -> Result<(Document, Snapshot), Problems> {
    let document = loaded?;
    let snapshot = snapshot::of(&document)?;
    Ok((document, snapshot))
}

/// Says what is wrong.
pub fn refused(problems: &Problems) -> ExitCode {
    eprintln!("{problems}");
    ExitCode::from(exit::BAD_DOCUMENT)
}

/// A running proxy, having said where it serves; or the code of why it does not run, having said that.
pub fn serving(started: Result<Running, StartError>) -> Result<Running, ExitCode> {
    let running = started.map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(error.exit_code())
    })?;
    for (name, address) in running.listeners() {
        eprintln!("serving {name} on {address}");
    }
    if let Some(admin) = running.admin() {
        eprintln!("admin on http://{admin} (health/ready, metrics, status)");
    }
    Ok(running)
}

/// Says how it ended.
pub fn stopped(report: &DrainReport) -> ExitCode {
    eprintln!("stopped: {report}");
    ExitCode::from(if report.cut == 0 { exit::OK } else { exit::CUT })
}
