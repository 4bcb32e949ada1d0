//! `check`, `explain`, `schema` and `openapi`: what can be said of a document without serving it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use tollgate_config::{Document, Loader, Problems};
use tollgate_engine::explain::{Explained, explain as explained};
use tollgate_engine::process::exit;
use tollgate_engine::snapshot::Snapshot;

/// The request to explain, as typed.
pub(crate) struct Question {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<String>,
    pub(crate) listener: Option<String>,
    pub(crate) caller: Option<String>,
    pub(crate) json: bool,
}

pub(crate) fn check(path: &Path) -> ExitCode {
    match compiled(path) {
        Ok((document, _)) => {
            for warning in tollgate_config::warnings(&document) {
                eprintln!("warning: {warning}");
            }
            println!(
                "{}: {} listeners, {} routes, {} upstreams, {} tests passed",
                path.display(),
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

pub(crate) fn explain(path: &Path, question: &Question) -> ExitCode {
    let snapshot = match compiled(path) {
        Ok((_, snapshot)) => snapshot,
        Err(problems) => return refused(&problems),
    };
    match ask(&snapshot, question) {
        Ok(answer) if question.json => println!(
            "{}",
            serde_json::to_string_pretty(&answer).unwrap_or_default()
        ),
        Ok(answer) => println!("{answer}"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(exit::BAD_DOCUMENT);
        }
    }
    ExitCode::SUCCESS
}

pub(crate) fn schema() -> ExitCode {
    println!(
        "{}",
        serde_json::to_string_pretty(&tollgate_config::schema()).unwrap_or_default()
    );
    ExitCode::SUCCESS
}

/// Of the route with this name, or of the only one.
pub(crate) fn openapi(path: &Path, wanted: Option<&str>) -> ExitCode {
    let snapshot = match compiled(path) {
        Ok((_, snapshot)) => snapshot,
        Err(problems) => return refused(&problems),
    };
    let speaking: Vec<_> = { snapshot.routes.iter() }
        .filter(|plan| wanted.is_none_or(|wanted| plan.item.name == wanted))
        .filter_map(|plan| Some((&plan.item.name, plan.compiled.chain.transcoder()?)))
        .collect();
    let [(name, transcoder)] = &*speaking else {
        let names: Vec<&str> = speaking.iter().map(|(name, _)| name.as_str()).collect();
        match (wanted, names.is_empty()) {
            (Some(wanted), _) => eprintln!("no route named `{wanted}` has the filter `transcode`"),
            (None, true) => eprintln!("no route has the filter `transcode`"),
            (None, false) => eprintln!("choose a route with --route: {}", names.join(", ")),
        }
        return ExitCode::from(exit::BAD_DOCUMENT);
    };
    if !transcoder.is_known() {
        eprintln!(
            "the descriptors of `{name}` are its upstream's to tell, and none that fit are kept in `server.state_dir`; start a gateway with \
             this document first, or name a file as `descriptors`"
        );
        return ExitCode::from(exit::FAILURE);
    }
    let document = transcoder.openapi(name);
    println!(
        "{}",
        serde_json::to_string_pretty(&document).unwrap_or_default()
    );
    ExitCode::SUCCESS
}

fn ask(snapshot: &Snapshot, question: &Question) -> Result<Explained, String> {
    let mut headers = BTreeMap::new();
    for header in &question.headers {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| format!("-H {header}: write it as 'name: value'"))?;
        headers.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    let question = tollgate_engine::admin::Question {
        method: question.method.clone(),
        url: question.url.clone(),
        headers,
        listener: question.listener.clone(),
        caller: question.caller.clone(),
    };
    explained(snapshot, &question.ask()?)
}

fn compiled(path: &Path) -> Result<(Document, Snapshot), Problems> {
    let document = Loader::new().load(path)?;
    let snapshot = tollgate_engine::snapshot::of(&document)?;
    Ok((document, snapshot))
}

fn refused(problems: &Problems) -> ExitCode {
    eprintln!("{problems}");
    ExitCode::from(exit::BAD_DOCUMENT)
}
