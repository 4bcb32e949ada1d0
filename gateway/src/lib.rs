//! The edge: a thin program around the engine. `main` here is the door that the `tollgate` command calls too.
//!
//! Commands parse their arguments, call the engine and print; no decision about traffic is taken in this package.

mod openapi;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use tollgate_config::Loader;
pub use tollgate_engine::process::modest_pages;
use tollgate_engine::program::{self, Question};

pub use run::{Quick, start_document, start_file};

/// Tollgate's gateway: in front of any HTTP, gRPC or WebSocket service.
#[derive(Debug, Parser)]
#[command(name = "tollgate-gateway", version, about, long_about = None)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves a document, or forwards everything to one URL.
    Run {
        /// The document; reloaded when it changes, and on SIGHUP.
        #[arg(required_unless_present = "to", conflicts_with = "to")]
        file: Option<PathBuf>,
        #[command(flatten)]
        quick: Quick,
    },
    /// Reports every problem of a document and runs its `[[test]]`s; exits with 0 or 2.
    Check { file: PathBuf },
    /// Tells which route a request takes and why, its filters, upstreams and every timer with its line.
    Explain {
        file: PathBuf,
        method: String,
        /// `http://host/path?query`, or only `/path`.
        url: String,
        /// A request header, `name: value`; may be repeated.
        #[arg(short = 'H', long = "header")]
        headers: Vec<String>,
        /// The listener's name; the first one without it.
        #[arg(long)]
        listener: Option<String>,
        /// The service that calls, for rules of access: `orders`, or `shop/orders`.
        #[arg(long, value_name = "SERVICE")]
        caller: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Takes the listening sockets over from the process that serves this document now, serves, and lets it drain.
    Upgrade { file: PathBuf },
    /// Prints the document's JSON Schema, for editors.
    Schema,
    /// Prints what the routes with `transcode` answer, as OpenAPI 3.1.
    Openapi {
        file: PathBuf,
        /// The route's name; not needed where there is one alone.
        #[arg(long)]
        route: Option<String>,
    },
}

/// Runs a command; the exit code is the process's.
pub fn main(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Run {
            file: Some(file), ..
        } => run::file(&file, false),
        Command::Run { file: None, quick } => run::quick(&quick),
        Command::Upgrade { file } => run::file(&file, true),
        Command::Check { file } => {
            program::check(&file.display().to_string(), Loader::new().load(&file))
        }
        Command::Explain {
            file,
            method,
            url,
            headers,
            listener,
            caller,
            json,
        } => program::explain(
            Loader::new().load(&file),
            &Question {
                method,
                url,
                headers,
                listener,
                caller,
                json,
            },
        ),
        Command::Schema => {
            program::print_json(&tollgate_config::schema());
            ExitCode::SUCCESS
        }
        Command::Openapi { file, route } => openapi::openapi(&file, route.as_deref()),
    }
}
