//! `run` and `upgrade`: starts the engine, says where it serves, waits for its end and reports it.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use tollgate_config::Document;
use tollgate_engine::engine::{Engine, Options, Running, StartError};
use tollgate_engine::net::handover;
use tollgate_engine::process::exit;
use tollgate_engine::program;

#[derive(Debug, Args)]
pub struct Quick {
    /// Forward everything to this URL; no document is needed.
    #[arg(long, value_name = "URL")]
    pub to: Option<String>,
    /// Where to listen, with `--to`.
    #[arg(long, default_value = "127.0.0.1:8000", requires = "to")]
    pub listen: String,
}

fn options() -> Options {
    Options {
        signals: true,
        watch: true,
        handover: true,
        ..Options::default()
    }
}

/// Starts on a file, as `run` does, for callers that print their own words.
pub fn start_file(path: &Path) -> Result<Running, StartError> {
    Engine::start(
        path,
        Options {
            handover: false,
            ..options()
        },
    )
}

/// Starts on a document that has no file.
pub fn start_document(document: Document) -> Result<Running, StartError> {
    Engine::start_document(
        document,
        Options {
            watch: false,
            handover: false,
            ..options()
        },
    )
}

pub(crate) fn file(path: &Path, upgrade: bool) -> ExitCode {
    let mut options = options();
    if upgrade {
        match take_over(path) {
            Ok(taken) => options.taken = Some(taken),
            Err(code) => return code,
        }
    }
    serve(Engine::start(path, options))
}

pub(crate) fn quick(quick: &Quick) -> ExitCode {
    let to = quick.to.as_deref().unwrap_or_default();
    match tollgate_config::quick(to, &quick.listen) {
        Ok(document) => serve(Engine::start_document(
            document,
            Options {
                watch: false,
                ..options()
            },
        )),
        Err(problems) => program::refused(&problems),
    }
}

/// The sockets of the process that serves this document now.
fn take_over(path: &Path) -> Result<handover::Taken, ExitCode> {
    let document = tollgate_config::Loader::new()
        .load(path)
        .map_err(|problems| program::refused(&problems))?;
    let first = document.listeners.first().map(|listener| listener.bind);
    let key = first
        .map(|first| handover::key(document.server.admin, first))
        .unwrap_or_default();
    handover::take(&key).map_err(|error| {
        eprintln!("no running gateway hands its sockets over: {error}");
        eprintln!("  = it is found by server.admin (or the first listener when that is \"off\"); start it with `run`");
        ExitCode::from(exit::FAILURE)
    })
}

fn serve(started: Result<Running, StartError>) -> ExitCode {
    match program::serving(started) {
        Ok(running) => program::stopped(&running.wait()),
        Err(code) => code,
    }
}
